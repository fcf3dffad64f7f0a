//! What a run has seen: a fault or a state that no seed reaches proves nothing, so each is counted and asserted.

use kittiwake::io::sim::{Mark, Marks};
use std::fmt;

macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Something the seeds must reach.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Seen { $($(#[$doc])* $name,)* }

        impl Seen {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

seen! {
    /// Proofs.
    OwedDurableQos1Arrived,
    OwedDurableQos2Arrived,
    OwedCleanArrived,
    /// Of one author and topic, an unlogged message and then a logged one.
    LoggedBehindUnlogged,
    OwedRetainedArrived,
    RetainedDelivered,
    OwedSharedArrived,
    SharedAgain,
    OwedSharedTwiceArrived,
    SharedTwiceSentAgain,
    SharedDiedWithSession,
    SharedTakenRecorded,
    SharedTakenRemoved,
    CrashWithSharedTaken,
    /// Waiting states.
    Moved,
    Opening,
    SubscribePending,
    WindowFull,
    GapNotice,
    TopicGapTold,
    GapNamed,
    /// The durable points of exactly once.
    Point1FlightRecorded,
    Point2ReleaseRecorded,
    Point3ReceivedRecorded,
    Point4ReceivedRemoved,
    Point5TrimmedEntrySentAgain,
    CrashAtPoint1,
    CrashAtPoint2,
    CrashAtPoint3,
    /// The node's faults.
    CrashWhileOpening,
    CrashWhileSubscribing,
    CrashWithUncommitted,
    CrashWithUndelivered,
    RestartWithOtherShards,
    RestartBeforeRestored,
    StoreWriteFailed,
    StoreWriteFailedAfterWriting,
    StoreReadFailed,
    StoreDelayed,
    CommitOfMany,
    FullMail,
    FrozenAndThawed,
    /// Clients.
    TakenOver,
    SessionResumed,
    SessionExpired,
    CleanStart,
    StoppedReading,
    KeepAliveEnded,
    GoodbyeWithExpiry,
    DuplicatePublish,
    DuplicateDelivery,
    LargePayload,
    Throttled,
    PublishHeld,
    ReceiveMaximumOneFull,
    TopicByAlias,
    SameIdTwoUsers,
    SessionExpiredInTime,
    TooLargeDropped,
    ExpirySaid,
    ExpiredDropped,
    /// Wills.
    WillPublished,
    WillDue,
    WillDueAfterDelay,
    WillCancelled,
    WillDroppedByGoodbye,
    /// Backends.
    PublishTold,
    PublishToldAfterCrash,
    ReceiptTold,
    PresenceTold,
    UnreadTold,
    /// The operator.
    Drained,
    ClockForward,
    ClockBack,
    /// Event streams.
    PageGotLogged,
    PageResumed,
    PageGap,
    PageTold,
    PageHeartbeat,
    PageStoppedReading,
    PollAnswered,
    PollEmpty,
    /// Pushes.
    PushUser,
    PushUsers,
    PushDevice,
    PushTopic,
    PushEveryone,
    PushQos0Keyed,
    KeyRepeated,
    KeyConflict,
    PushRefused,
}

/// Counts.
#[derive(Clone, Debug)]
pub struct Coverage {
    seen: [u64; Seen::ALL.len()],
    pub marks: Marks,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { seen: [0; Seen::ALL.len()], marks: Marks::default() }
    }
}

impl Coverage {
    pub fn hit(&mut self, seen: Seen) {
        self.seen[seen as usize] += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        self.marks.merge(&other.marks);
        for (mine, theirs) in self.seen.iter_mut().zip(other.seen) {
            *mine += theirs;
        }
    }

    /// What was never reached, by name.
    pub fn missing(&self) -> Vec<String> {
        // Shards open no connections.
        let marks = self.marks.missing().into_iter().filter(|mark| *mark != Mark::ConnectFailure);
        let seen = Seen::ALL.iter().filter(|&&seen| self.seen[seen as usize] == 0);
        marks.map(|mark| format!("{mark:?}")).chain(seen.map(|seen| format!("{seen:?}"))).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.marks.fmt(f)?;
        for &seen in Seen::ALL {
            writeln!(f, "{:>10}  {seen:?}", self.seen[seen as usize])?;
        }
        Ok(())
    }
}
