//! Owns: one device's conversation. `core/` is neutral (identity, subscriptions, positions, window, deliver, settle),
//! `mqtt/`, `sse/` and `poll` adapt it (a file per event), `protocol` calls the one that a session speaks, `directory`
//! finds sessions by user and device.
//! In: frames, store answers, timers, each with `now`. Out: [`Effect`]s, in order.
//! Must not: know a socket, a clock, a random source, the engine or the router; `core/` must not import `wire`.
//! Invariants: a delivery identifier is in use for one message at a time; the cursor moves over the settled prefix
//! only; nothing that must be committed first is sent before its commit was reported.

pub mod core;
pub mod directory;
pub mod mqtt;
pub mod poll;
pub mod protocol;
pub mod sse;

use crate::base::ids::{AppId, Epoch, Offset, Qos, Seq, SessionId};
use crate::base::log::{RecordChange, StreamGap};
use crate::base::message::Message;
use crate::base::secret::Secret;
use crate::limits;
use std::ops::Range;
use std::sync::Arc;

use self::core::Spare;
pub use self::core::{
    Claim, Close, Effective, Flight, InFlight, LoggedAt, Naming, Offer, OnlyStream, Protocol, Session, Subscription,
    Text,
};
pub use self::core::{RETAIN_AS_PUBLISHED, share_of};
pub use directory::{Directory, Full, Record, SessionsOf, Thawed};

/// Names an in-flight message towards the client; on MQTT it is the packet identifier. Never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub u16);

/// Names something a session waits for; made by the session, given back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Tenant.
    pub app: AppId,
    /// User within it.
    pub user: Arc<str>,
    /// Device of the user: the MQTT client identifier.
    pub device: Arc<str>,
}

/// What a session asks the shard for. The shard carries them out in order.
#[derive(Debug)]
pub enum Effect {
    /// Send these bytes of [`Effects::control`] to the session's connection (control frames: reserved room).
    Frames(Range<usize>),
    /// Send (again) the in-flight message with this identifier; the window has it.
    Deliver {
        /// Which.
        delivery: DeliveryId,
        /// It may have been sent before.
        dup: bool,
    },
    /// Route a client's publish. With a receipt, `on_published` answers it once the message is committed (if anyone is
    /// owed it) or handed to every interested shard.
    Publish {
        /// What.
        message: Arc<Message>,
        /// Answer wanted, with this.
        receipt: Option<Ticket>,
        /// To commit with the message (the received QoS 2 identifier of a durable session).
        records: Vec<RecordChange>,
    },
    /// Send this once, at QoS 0: an entry that was read from the log for a subscription of that QoS. It is settled.
    DeliverOnce {
        /// What.
        message: Arc<Message>,
        /// Where the log has it.
        at: LoggedAt,
        /// Where its stream has it; none: it is not logged.
        place: Option<(Epoch, Offset)>,
    },
    /// Answer a device's question; then call [`Session::answered`].
    Ask {
        /// What it wants to know.
        question: Box<Question>,
        /// Where the answer goes.
        to: Box<ReplyTo>,
    },
    /// The device has an in-flight message (PUBACK, at QoS 2 PUBREC), or refused it. Refusals are always told, the rest
    /// where [`Effects::tells_received`].
    Received {
        /// Where it stands in the log; none: nowhere.
        at: Option<LoggedAt>,
        /// As the device saw it.
        topic: Arc<str>,
        /// It did not take it.
        refused: bool,
    },
    /// An entry's time was over when the session read it. Told where [`Effects::tells_received`].
    Expired {
        /// Where it stands in the log.
        at: LoggedAt,
        /// As the device would have seen it.
        topic: Arc<str>,
    },
    /// Retention removed entries before the session read them: send the `$inbox/$gap` notice if a filter covers it,
    /// mark the next message, and count it.
    Gap(Gap),
    /// Register these with the router; then tell `on_subscribed(ticket, …)` each one's place; when interest is
    /// installed everywhere and `on_interest_installed(ticket, …)` has been called, the session goes on by itself.
    Subscribe {
        /// Names the request.
        ticket: Ticket,
        /// Valid, granted filters.
        filters: Vec<GrantedFilter>,
    },
    /// Take a subscription out of the router (its place, as registered).
    Unsubscribe {
        /// The router's filter.
        filter: u32,
        /// Place in the filter's list.
        position: u32,
    },
    /// Take a session out of a share group.
    LeaveShare {
        /// Tenant, and `$share/group/filter`.
        share: (AppId, Text),
        /// Whose membership; none: that of the session that says so.
        member: Option<SessionId>,
    },
    /// Tell the session's share groups that it has room for so many messages; 0: it has no connection any more.
    ShareOpen {
        /// At a time.
        window: u16,
    },
    /// Tell a share group what becomes of a message that it assigned under this number.
    Share {
        /// The group's.
        number: u64,
        /// What.
        fate: Fate,
    },
    /// Its filters cover the inbox no longer: this is how far it has read, for the user's read mark.
    InboxLeft {
        /// Up to where it has served its user's inbox.
        served: (Epoch, Offset),
    },
    /// Commit these, then call `on_committed(ticket, result)`.
    Commit {
        /// Names the request.
        ticket: Ticket,
        /// What.
        records: Vec<RecordChange>,
    },
    /// The lazily written part of the record changed: collect it within `CURSOR_WRITE_DELAY`.
    RecordDirty,
    /// Read the inbox after this offset; answer with `on_inbox_pulled`. One at a time.
    PullInbox {
        /// Exclusive.
        after: Offset,
        /// Entries.
        limit: usize,
    },
    /// Read topics and everyone after this seq; answer with `on_topics_pulled`. One at a time.
    PullTopics {
        /// Exclusive.
        after: Seq,
        /// Entries.
        limit: usize,
    },
    /// Read what is retained under a filter, of topics behind this one, in their order; answer with `on_retained_read`.
    /// One at a time.
    ReadRetained {
        /// Of one of its subscriptions.
        filter: Arc<str>,
        /// Exclusive; empty: from the first.
        after: Arc<str>,
        /// Messages.
        limit: usize,
    },
    /// Send this retained message once, at QoS 0.
    DeliverRetained {
        /// What.
        message: Arc<Message>,
        /// Of the subscription that it is sent for; 0: none.
        identifier: u32,
    },
    /// Find where a topic's stream stands, and its entry after this offset; answer with `protocol::on_located`.
    Locate {
        /// Its name.
        topic: Arc<str>,
        /// Exclusive; `Offset(u64::MAX)`: only where it stands.
        after: Offset,
    },
    /// The session is open; its connection's deadline is now that of an open one.
    Opened,
    /// The session is over before this publish was answered: its received identifier may be committed only now, and is to
    /// be removed when the answer comes.
    Orphan {
        /// Whose it was, when the effects are carried out as another session's.
        member: Option<SessionId>,
        /// The publish's.
        receipt: Ticket,
        /// The removal.
        record: RecordChange,
    },
    /// The client shows another token: have it checked, and answer with [`mqtt::on_reauthenticated`].
    Authenticate {
        /// It.
        token: Secret,
    },
    /// Leave the connection's further frames unread until `ResumeReading`.
    PauseReading,
    /// Read on.
    ResumeReading,
    /// Close the connection once what was written has left.
    Close(CloseReason),
    /// The session is over: commit `records` and call `Directory::remove`. Its [`Effect::Unsubscribe`]s came before.
    End {
        /// Removals to commit; nobody waits for them.
        records: Vec<RecordChange>,
        /// Up to where it has served its user's inbox, for the read mark: its subscriptions are gone already.
        served: Option<(Epoch, Offset)>,
    },
}

/// What becomes of a message that a share group has assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Of QoS 2: it is the session's, on record if it has to be, and nobody else's any more.
    Taken,
    /// It is done with.
    Settled,
    /// Of QoS 2: the session has ended before it had the message. A claim may have been recorded meanwhile.
    Returned(Option<(AppId, Claim)>),
}

/// What a device may ask, of what it may subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A part of a topic's stream; no topic: of its user's inbox.
    History {
        /// Which.
        topic: Option<Arc<str>>,
        /// Behind which place, and of which life of the stream if that is said; none: from the oldest there is.
        after: Option<(Option<Epoch>, Offset)>,
        /// Messages.
        limit: usize,
    },
    /// Who subscribes to a topic.
    Presence {
        /// Which.
        topic: Arc<str>,
    },
}

/// Where an answer goes: the MQTT 5 properties of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// A topic that the device subscribes to.
    pub topic: Arc<str>,
    /// Given back as it came.
    pub correlation_data: Option<Box<[u8]>>,
}

/// What retention took from a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Of its inbox.
    Inbox {
        /// Offset of the first one.
        first: Offset,
        /// How many.
        entries: u64,
    },
    /// Of a topic, or of everyone: the session has no position of its own there, so how many is not known.
    Topics(StreamGap),
}

/// A filter that passed all checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedFilter {
    /// With `$share/group/` if it is shared.
    pub filter: Text,
    /// Granted QoS.
    pub qos: Qos,
    /// MQTT 5 No Local.
    pub no_local: bool,
    /// MQTT 5 Retain As Published.
    pub retain_as_published: bool,
    /// MQTT 5 Subscription Identifier; 0: none.
    pub identifier: u32,
    /// What is retained is to be sent for it.
    pub retained: bool,
    /// The session already had this filter: its place in the router, whose options are updated.
    pub replaces: Option<(u32, u32)>,
}

/// Why a connection is closed; each is a counter and, in MQTT 5, a reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client said DISCONNECT.
    ClientDisconnect,
    /// The peer's fault: malformed or out of order.
    ProtocolError,
    /// Another connection of the same device took over.
    TakenOver,
    /// Keep alive ran out.
    KeepAlive,
    /// No CONNECT in time.
    HandshakeTimeout,
    /// CONNECT refused.
    Refused,
    /// Packet larger than the limit.
    PacketTooLarge,
    /// More in flight than the receive maximum.
    ReceiveMaximum,
    /// The client does not read.
    SlowConsumer,
    /// An administrator's wish.
    Administrative,
    /// The server goes down.
    Draining,
    /// The store failed.
    StoreFailed,
    /// Its token has ended.
    TokenEnded,
    /// Another token, shown to go on, was not good.
    NotAuthorized,
    /// A poll has its answer.
    Answered,
    /// It or its address is banned.
    Banned,
    /// It publishes more than it may.
    MessageRate,
}

impl CloseReason {
    /// All, in order: the index of each is its number.
    pub const ALL: [Self; 17] = [
        Self::ClientDisconnect,
        Self::ProtocolError,
        Self::TakenOver,
        Self::KeepAlive,
        Self::HandshakeTimeout,
        Self::Refused,
        Self::PacketTooLarge,
        Self::ReceiveMaximum,
        Self::SlowConsumer,
        Self::Administrative,
        Self::Draining,
        Self::StoreFailed,
        Self::TokenEnded,
        Self::NotAuthorized,
        Self::Answered,
        Self::Banned,
        Self::MessageRate,
    ];

    /// Something is wrong with the client, its network or this node, so that whoever reads the log is told.
    pub fn is_error(self) -> bool {
        match self {
            Self::ProtocolError
            | Self::HandshakeTimeout
            | Self::Refused
            | Self::PacketTooLarge
            | Self::ReceiveMaximum
            | Self::SlowConsumer
            | Self::StoreFailed
            | Self::NotAuthorized
            | Self::Banned
            | Self::MessageRate => true,
            Self::ClientDisconnect
            | Self::TakenOver
            | Self::KeepAlive
            | Self::Administrative
            | Self::Draining
            | Self::TokenEnded
            | Self::Answered => false,
        }
    }

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientDisconnect => "closed_client_disconnect",
            Self::ProtocolError => "closed_protocol_error",
            Self::TakenOver => "closed_taken_over",
            Self::KeepAlive => "closed_keep_alive",
            Self::HandshakeTimeout => "closed_handshake_timeout",
            Self::Refused => "closed_refused",
            Self::PacketTooLarge => "closed_packet_too_large",
            Self::ReceiveMaximum => "closed_receive_maximum",
            Self::SlowConsumer => "closed_slow_consumer",
            Self::Administrative => "closed_administrative",
            Self::Draining => "closed_draining",
            Self::StoreFailed => "closed_store_failed",
            Self::TokenEnded => "closed_token_ended",
            Self::NotAuthorized => "closed_not_authorized",
            Self::Answered => "closed_answered",
            Self::Banned => "closed_banned",
            Self::MessageRate => "closed_message_rate",
        }
    }
}

/// What sessions count; the shard adds them to its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Expired before its first sending.
    DroppedExpired,
    /// Larger than the client's Maximum Packet Size.
    DroppedTooLarge,
    /// The window was full and the topic's policy dropped it.
    DroppedWindowFull,
    /// The client refused it with a reason ≥ 0x80.
    RefusedByClient,
    /// A message nobody keeps met a session without an open connection.
    DroppedOffline,
    /// An unlogged QoS 2 message met a session that outlives its connection and has no SUBACK yet.
    DroppedUnconfirmed,
    /// A publish the client may not make.
    PublishRefused,
    /// A QoS 2 publish came again and was not routed again.
    DuplicateReceived,
    /// A settle.
    Settled,
    /// An acknowledgement for something not in flight.
    UnknownAck,
    /// A retained message was not sent to a new subscription, because a newer live one of its topic came first.
    RetainedOvertaken,
    /// That a live message came of a topic was forgotten: its retained one may follow it.
    RetainedUnnoted,
    /// A subscription was ended because its client's rights do not contain it any more.
    SubscriptionWithdrawn,
    /// A will was not published because it is not inside its client's rights any more.
    WillRefused,
    /// A subscription that the app's quota has no room for.
    SubscriptionOverQuota,
    /// A share group's message of QoS 2 was not completed when its session ended, and may be nobody else's.
    DroppedShareSessionEnded,
}

impl Counter {
    /// All, in order: the index of each is its number.
    pub const ALL: [Self; 16] = [
        Self::DroppedExpired,
        Self::DroppedTooLarge,
        Self::DroppedWindowFull,
        Self::RefusedByClient,
        Self::DroppedOffline,
        Self::DroppedUnconfirmed,
        Self::PublishRefused,
        Self::DuplicateReceived,
        Self::Settled,
        Self::UnknownAck,
        Self::RetainedOvertaken,
        Self::RetainedUnnoted,
        Self::SubscriptionWithdrawn,
        Self::WillRefused,
        Self::SubscriptionOverQuota,
        Self::DroppedShareSessionEnded,
    ];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::DroppedExpired => "dropped_expired",
            Self::DroppedTooLarge => "dropped_too_large",
            Self::DroppedWindowFull => "dropped_window_full",
            Self::RefusedByClient => "refused_by_client",
            Self::DroppedOffline => "dropped_offline",
            Self::DroppedUnconfirmed => "dropped_unconfirmed",
            Self::PublishRefused => "publish_refused",
            Self::DuplicateReceived => "duplicate_received",
            Self::Settled => "settled",
            Self::UnknownAck => "unknown_ack",
            Self::RetainedOvertaken => "retained_overtaken",
            Self::RetainedUnnoted => "retained_unnoted",
            Self::SubscriptionWithdrawn => "subscriptions_withdrawn",
            Self::WillRefused => "wills_refused",
            Self::SubscriptionOverQuota => "refused_app_subscriptions",
            Self::DroppedShareSessionEnded => "dropped_share_session_ended",
        }
    }
}

impl From<&Subscription> for GrantedFilter {
    fn from(subscription: &Subscription) -> Self {
        Self {
            filter: subscription.text.clone(),
            qos: subscription.qos,
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier,
            retained: false,
            replaces: None,
        }
    }
}

/// What an operator lets sessions have; the bounds of each are in `limits.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages in flight towards a client.
    pub receive_maximum_out: u8,
    /// Unacknowledged messages of a client.
    pub receive_maximum_in: u16,
    /// Subscriptions of a session.
    pub subscriptions: u16,
    /// Longest session expiry, seconds.
    pub expiry: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            receive_maximum_out: limits::RECEIVE_MAXIMUM_OUT as u8,
            receive_maximum_in: limits::RECEIVE_MAXIMUM_IN,
            subscriptions: limits::SUBSCRIPTIONS_MAX as u16,
            expiry: limits::SESSION_EXPIRY_MAX.as_secs() as u32,
        }
    }
}

/// Effects of one call, re-used by the shard from call to call so that steady state allocates nothing.
#[derive(Debug, Default)]
pub struct Effects {
    /// Encoded control frames; [`Effect::Frames`] names ranges of it.
    pub control: Vec<u8>,
    /// In order.
    pub list: Vec<Effect>,
    /// What there is to count. Apart from the list: most calls that count have nothing else to say.
    pub counted: Vec<Counter>,
    /// Somebody wants [`Effect::Received`] also of what was taken.
    pub tells_received: bool,
    /// How many subscriptions more its app may have; none: any. For calls that may subscribe.
    pub subscriptions_left: Option<u64>,
    /// Windows of sessions that have nothing in flight, for the next one that has.
    pub(in crate::session) spare: Spare,
    /// The operator's, at hand in every call.
    pub(in crate::session) bounds: Bounds,
}

impl Effects {
    /// An empty list for calls within these bounds.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Forgets what was carried out and keeps the room.
    pub fn clear(&mut self) {
        self.control.clear();
        self.list.clear();
        self.counted.clear();
    }

    /// Takes over what another list has to spare. Calls nest, and what is put aside in an inner one is wanted in an
    /// outer one: without this the one would allocate for ever and the other collect.
    pub fn take_spare(&mut self, other: &mut Self) {
        self.spare.take_over(&mut other.spare);
    }

    pub(in crate::session) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    pub(in crate::session) fn count(&mut self, counter: Counter) {
        self.counted.push(counter);
    }
}
