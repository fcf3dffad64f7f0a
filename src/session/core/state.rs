//! The session and its waiting states.
//!
//! ```text
//!            open                 committed, or nothing to commit
//!  (none) ──────────► Opening ──────────────────────────────────► Open
//!                      ▲   │                                       │ said or heard goodbye, or broke the protocol
//!                 open │   │ connection closed                     ▼
//!                      │   ▼                connection closed   Closing
//!                     Offline ◄────────────────────────────────────┘
//!                        │ expired, clean start, or expiry 0
//!                        ▼
//!                      Ended
//! ```

use super::super::{Counter, DeliveryId, Effect, Effects, Identity, Ticket};
use super::aliases::AliasesOut;
use super::cursor::Positions;
use super::expiry::Will;
use super::own_position::{Polling, Streaming};
pub(in crate::session) use super::pending::{PendingFilters, PendingPublish, Received, Welcome};
use super::protocol::Protocol;
use super::retained::Replay;
use super::shared::Claiming;
pub use super::text::Text;
use crate::auth::Rights;
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, Qos, Seq};
use crate::base::message::Message;
use crate::base::text::ShortText;
use crate::limits::RECEIVE_MAXIMUM_OUT;
use core::hash::BuildHasher;
use core::ops::{Deref, DerefMut};
use core::slice;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;

/// Where a committed message stands for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedAt {
    /// In the user's inbox.
    Inbox(Offset),
    /// In a topic or everyone.
    Topics(Seq),
    /// Not in the log but retained, sent because of a subscription with this identifier (0: none).
    Retained(u32),
    /// Its share group has assigned it under a number; the mark says of which subscription.
    Shared {
        /// Of the group's home. 0: no group waits for it, because it was assigned before the process began.
        number: u64,
        /// See [`super::shared`].
        mark: u32,
    },
}

/// What became of an offered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// In flight: encode and send it now.
    Send(DeliveryId),
    /// Send it now at QoS 0; nothing is kept of it.
    SendOnce,
    /// In flight, but its identifier, or that of one before it, must be committed first (an
    /// [`super::super::Effect::Commit`] was emitted); [`super::super::Effect::Deliver`] follows.
    AfterCommit,
    /// Logged, and the session cannot take it now: it will pull it.
    Behind,
    /// Not logged, and the window is full: the topic's policy decides.
    Full,
    /// Logged, and not for this session (another device's, or delivered already).
    Passed,
    /// Not delivered, for this reason.
    Skipped(Counter),
}

/// How far an in-flight message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// QoS 2 of a durable session: its identifier is being committed; not sent yet. Or of QoS 1 behind such a one,
    /// which it must not overtake.
    Committing,
    /// Sent on an earlier connection; waits until this one's window has room for it.
    Queued,
    /// QoS 2, and the process has begun anew since it was recorded: waits until what is read again gets to it.
    Held,
    /// Sent, or handed to the shard for sending.
    Sent,
    /// QoS 2: PUBREC has come, that is being committed, PUBREL has not left.
    Releasing,
    /// QoS 2: PUBREL has left.
    Released,
    /// Settled, kept until the prefix passes it.
    Settled,
}

/// A message between its first sending and its settling.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its name towards the client.
    pub delivery: DeliveryId,
    /// How far it is.
    pub state: Flight,
    /// QoS of the delivery, 1 or 2.
    pub qos: Qos,
    /// Where it is logged; none: it is not.
    pub at: Option<LoggedAt>,
    /// What; none once released.
    pub message: Option<Arc<Message>>,
}

// Ten thousand windows of 16 are more than a core's cache: what a message costs is the lines that it touches.
const _: () = assert!(size_of::<InFlight>() == 32);

/// The options of a topic over all of a session's matching subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The highest granted one.
    pub qos: Qos,
    /// Any of them asks for it.
    pub retain_as_published: bool,
    /// All of them.
    pub identifiers: SmallVec<[u32; 1]>,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter.
    pub text: Text,
    /// The log's seq at which it began: older topic entries are not for it.
    pub since: Seq,
    /// The router's filter.
    pub filter: u32,
    /// Place in the filter's list.
    pub position: u32,
    /// MQTT 5 Subscription Identifier; 0: none.
    pub identifier: u32,
    /// Granted QoS.
    pub qos: Qos,
    /// MQTT 5 No Local.
    pub no_local: bool,
    /// MQTT 5 Retain As Published.
    pub retain_as_published: bool,
}

const _: () = assert!(size_of::<Subscription>() == 32);

impl Subscription {
    /// As [`Subscription::since`], until its interest is installed at every home.
    pub(in crate::session) const NOT_BEGUN: Seq = Seq(u64::MAX);

    /// Whether its interest is installed at every home.
    pub fn has_begun(&self) -> bool {
        self.since != Self::NOT_BEGUN
    }
}

/// A session's subscriptions. Most have one, which needs no allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::session) enum Subscriptions {
    #[default]
    None,
    One(Subscription),
    Many(Box<[Subscription]>),
}

const _: () = assert!(size_of::<Subscriptions>() == size_of::<Subscription>());

impl Subscriptions {
    pub fn into_vec(self) -> Vec<Subscription> {
        match self {
            Self::None => Vec::new(),
            Self::One(subscription) => vec![subscription],
            Self::Many(subscriptions) => subscriptions.into_vec(),
        }
    }
}

impl From<Vec<Subscription>> for Subscriptions {
    fn from(mut all: Vec<Subscription>) -> Self {
        match all.len() {
            0 => Self::None,
            1 => all.pop().map_or(Self::None, Self::One),
            _ => Self::Many(all.into_boxed_slice()),
        }
    }
}

impl Deref for Subscriptions {
    type Target = [Subscription];
    fn deref(&self) -> &[Subscription] {
        match self {
            Self::None => &[],
            Self::One(subscription) => slice::from_ref(subscription),
            Self::Many(subscriptions) => subscriptions,
        }
    }
}

impl DerefMut for Subscriptions {
    fn deref_mut(&mut self) -> &mut [Subscription] {
        match self {
            Self::None => &mut [],
            Self::One(subscription) => slice::from_mut(subscription),
            Self::Many(subscriptions) => subscriptions,
        }
    }
}

/// Where a session stands; see the diagram above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::session) enum State {
    /// Greeted, not answered: the record is being committed.
    Opening,
    /// Answered.
    Open,
    /// Its connection is about to close; frames are ignored.
    Closing,
    /// Without a connection.
    Offline,
    /// Over; the shard is about to remove it.
    Ended,
}

/// The connection, or since when there is none, in ticks of 100 ms so that it fits. 8 bytes: a generation has 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Link {
    Online { index: u32, generation: [u8; 3] },
    Offline { since_tick: u32 },
}

const _: () = assert!(size_of::<Link>() == 8);

impl Link {
    pub fn online(connection: ConnectionId) -> Self {
        let [high, generation @ ..] = connection.generation.to_be_bytes();
        assert!(high == 0, "a connection's generation has 24 bits");
        Self::Online { index: connection.index, generation }
    }

    pub fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Online { index, generation: [a, b, c] } => {
                Some(ConnectionId { index, generation: u32::from_be_bytes([0, a, b, c]) })
            }
            Self::Offline { .. } => None,
        }
    }
}

/// A bit of [`Session::flags`].
pub(in crate::session) mod flag {
    /// In records: the session's last connection spoke MQTT 5. In memory [`Protocol`] says so.
    pub const MQTT5: u16 = 1 << 0;
    /// A pull is under way.
    pub const PULLING: u16 = 1 << 1;
    /// The last pull was one of topics: the inbox has the next turn.
    pub const PULLED_TOPICS: u16 = 1 << 2;
    /// The cursor's record is not what it should be.
    pub const CURSOR_DIRTY: u16 = 1 << 3;
    /// The main record is not what it should be.
    pub const MAIN_DIRTY: u16 = 1 << 4;
    /// Records exist.
    pub const RECORDED: u16 = 1 << 5;
    /// Where the inbox begins is not known yet.
    pub const INBOX_UNKNOWN: u16 = 1 << 6;
    /// A filter covers inbox topics.
    pub const HAS_INBOX: u16 = 1 << 7;
    /// Reading is paused until CONNACK.
    pub const PAUSED_OPENING: u16 = 1 << 8;
    /// Reading is paused until a SUBSCRIBE or UNSUBSCRIBE is answered.
    pub const PAUSED_FILTERS: u16 = 1 << 9;
    /// Reading is paused until fewer publishes wait for their answers.
    pub const PAUSED_RECEIVE: u16 = 1 << 10;
    /// The client said goodbye and wants no will.
    pub const GOODBYE: u16 = 1 << 11;
    /// Where the inbox ends is not known since the process began.
    pub const INBOX_STALE: u16 = 1 << 12;
    /// An unlogged message waits at the shard that comes before what is read next of the topics.
    pub const TOPICS_HELD: u16 = 1 << 13;
    /// The shard has been asked to collect what is written lazily, and has not done so yet.
    pub const FILED: u16 = 1 << 14;
    /// The client wants no words about what was wrong.
    pub const UNEXPLAINED: u16 = 1 << 15;
    /// Any reason for a pause.
    pub const PAUSED: u16 = PAUSED_OPENING | PAUSED_FILTERS | PAUSED_RECEIVE;
}

/// What only some sessions need, for as long as they do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Extra {
    pub will: Option<Box<Will>>,
    pub aliases: Vec<Option<Arc<str>>>,
    pub aliases_out: AliasesOut,
    /// 0: the client did not say.
    pub packet_bytes_max: u32,
    pub received: Vec<Received>,
    pub filters: Option<Box<PendingFilters>>,
    pub welcome: Option<Box<Welcome>>,
    pub replay: Option<Box<Replay>>,
    /// It may subscribe to the node's figures.
    pub sees_node: bool,
    /// A share group was refused a message for want of room.
    pub awaits_share: bool,
    /// Questions of the device that have no answer yet.
    pub asks: u8,
    /// A client that keeps its own position has not had its answer yet.
    pub streaming: Option<Box<Streaming>>,
    /// What its client may do; none: everything that clients may at all. Kept without a connection while its will is
    /// owed.
    pub rights: Option<Arc<Rights>>,
    /// Its client may show another token.
    pub by_method: bool,
    /// It has shown one, which is being checked.
    pub is_asking: bool,
    /// What a poll will be answered with.
    pub polling: Option<Box<Polling>>,
}

/// What a session has while something is in flight in either direction.
#[derive(Debug, Default)]
pub(in crate::session) struct Work {
    /// In order of first sending; at most the window and `SETTLED_MARKS_MAX`.
    pub window: VecDeque<InFlight>,
    /// Where their streams have them, of those that are in flight to a client that keeps its own position and are logged.
    pub places: Vec<(DeliveryId, Epoch, Offset)>,
    /// Those that count against Receive Maximum.
    pub sent: usize,
    pub queued: usize,
    pub held: usize,
    /// In order of arrival.
    pub pending: VecDeque<PendingPublish>,
    /// Deliveries whose records are to be removed with the next lazy write.
    pub gone: Vec<u16>,
    /// Of a share group's QoS 2 messages that are being committed, those that have to be recorded as taken.
    pub claiming: Vec<Claiming>,
}

impl Work {
    pub fn is_empty(&self) -> bool {
        // Who is claiming is in the window.
        self.window.is_empty() && self.pending.is_empty() && self.gone.is_empty()
    }
}

/// One device's conversation. 152 bytes, and its names if they are long; what most do not need is boxed.
#[derive(Debug)]
pub struct Session {
    /// The user's name, then the device's; both in one when they are the same.
    pub(in crate::session) name: ShortText,
    pub(in crate::session) subscriptions: Subscriptions,
    pub(in crate::session) extra: Option<Box<Extra>>,
    pub(in crate::session) work: Option<Box<Work>>,
    pub(in crate::session) positions: Positions,
    pub(in crate::session) link: Link,
    /// The directory's: the user's other sessions, and from the first of them to what there is to say of the user.
    pub(in crate::session) next: u32,
    pub(in crate::session) previous: u32,
    pub(in crate::session) generation: u32,
    /// Session expiry in seconds; 0 ends it with its connection.
    pub(in crate::session) expiry: u32,
    pub(in crate::session) app: AppId,
    pub(in crate::session) user_bytes: u16,
    /// A cursor's record exists; until then the main record says all of it.
    pub(in crate::session) has_cursor_record: bool,
    pub(in crate::session) protocol: Protocol,
    /// Counts connections, so that late answers to an earlier one are known.
    pub(in crate::session) attachment: u16,
    pub(in crate::session) last_delivery: u16,
    pub(in crate::session) state: State,
    pub(in crate::session) window: u8,
    /// Seconds, as granted; 0: none.
    pub(in crate::session) keep_alive: u16,
    pub(in crate::session) flags: u16,
}

const _: () = assert!(size_of::<Session>() <= 152);

impl Session {
    /// One that has never had a connection.
    pub(in crate::session) fn new(identity: &Identity) -> Self {
        let user_bytes = u16::try_from(identity.user.len()).expect("identities are at most IDENTITY_BYTES_MAX");
        let is_one = identity.user == identity.device;
        let device = if is_one { "" } else { &identity.device };
        Self {
            name: [&*identity.user, device].concat().as_str().into(),
            subscriptions: Subscriptions::None,
            extra: None,
            work: None,
            positions: Positions::default(),
            link: Link::Offline { since_tick: 0 },
            next: u32::MAX,
            previous: u32::MAX,
            generation: 0,
            expiry: 0,
            app: identity.app,
            user_bytes,
            has_cursor_record: false,
            protocol: Protocol::default(),
            attachment: 0,
            last_delivery: 0,
            state: State::Offline,
            window: RECEIVE_MAXIMUM_OUT as u8,
            keep_alive: 0,
            flags: flag::INBOX_UNKNOWN,
        }
    }
    /// Tenant.
    pub fn app(&self) -> AppId {
        self.app
    }
    /// User within it.
    pub fn user(&self) -> &str {
        &self.name[..usize::from(self.user_bytes)]
    }
    /// Device of the user.
    pub fn device(&self) -> &str {
        // No device's name is empty: where there is only one name it is both.
        Some(&self.name[usize::from(self.user_bytes)..]).filter(|name| !name.is_empty()).unwrap_or(&self.name)
    }
    /// The hash messages carry as their publisher. Unkeyed, as it is stored; who makes collisions loses own messages.
    pub fn publisher(&self) -> u64 {
        foldhash::quality::FixedState::with_seed(0).hash_one((self.app, self.user(), self.device()))
    }
    /// Seconds within which its connection must say something; 0: only our own idle limit holds.
    pub fn keep_alive(&self) -> u16 {
        self.keep_alive
    }
    /// Its connection while it has one.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.link.connection()
    }
    /// Whether its connection has had its CONNACK and is not about to close.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }
    /// Whether it has ended, so that its subscriptions are on their way out of the router.
    pub fn is_over(&self) -> bool {
        self.state == State::Ended
    }
    /// Whether it outlives its connection, so that its messages are logged.
    pub fn is_durable(&self) -> bool {
        self.expiry > 0
    }
    /// The client's Maximum Packet Size; the shard settles what is larger with [`Session::settle_unsent`].
    pub fn packet_bytes_max(&self) -> u32 {
        match &self.extra {
            Some(extra) if extra.packet_bytes_max > 0 => extra.packet_bytes_max,
            _ => u32::MAX,
        }
    }
    /// Whether it wants its inbox and does not know where that begins.
    pub fn wants_inbox_start(&self) -> bool {
        self.has(flag::INBOX_UNKNOWN) && self.has(flag::HAS_INBOX)
    }
    /// Whether it wants its inbox and knows where it stands there.
    pub fn knows_inbox(&self) -> bool {
        self.has(flag::HAS_INBOX) && !self.has(flag::INBOX_UNKNOWN)
    }
    /// Whether it wants its inbox and does not know where that ends.
    pub fn wants_inbox_end(&self) -> bool {
        self.has(flag::INBOX_STALE) && self.has(flag::HAS_INBOX)
    }
    /// Whether the connection speaks MQTT 5.
    pub fn is_mqtt5(&self) -> bool {
        self.protocol == Protocol::Mqtt5
    }
    /// What its connection speaks, or its last one spoke.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
    /// All subscriptions.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// One of its device's questions has its answer, or never will.
    pub fn answered(&mut self) {
        if let Some(extra) = self.extra.as_mut() {
            extra.asks = extra.asks.saturating_sub(1);
            self.extra.take_if(|extra| **extra == Extra::default());
        }
    }

    pub(in crate::session) fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }
    pub(in crate::session) fn set(&mut self, flags: u16, on: bool) {
        self.flags = if on { self.flags | flags } else { self.flags & !flags };
    }

    /// Whether it waits for something, so that its connection is not to be read.
    pub fn is_paused(&self) -> bool {
        self.has(flag::PAUSED)
    }

    pub(in crate::session) fn pause(&mut self, reason: u16, on: bool, effects: &mut Effects) {
        let before = self.has(flag::PAUSED);
        self.set(reason, on);
        match (before, self.has(flag::PAUSED)) {
            (false, true) => effects.push(Effect::PauseReading),
            (true, false) if self.connection().is_some() => effects.push(Effect::ResumeReading),
            _ => {}
        }
    }

    pub(in crate::session) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

/// What an answer answers; packed into a [`Ticket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::session) enum Purpose {
    Greeting = 1,
    Filters = 2,
    /// A delivery's identifier, durable point (1).
    Flight = 3,
    /// A delivery's PUBREC, durable point (2).
    Release = 4,
    Publish1 = 5,
    /// Durable point (3).
    Publish2 = 6,
    /// The removal of a received identifier, durable point (4).
    Forget = 7,
}

impl Purpose {
    pub fn ticket(self, attachment: u16, id: u16) -> Ticket {
        Ticket(u64::from(self as u8) << 32 | u64::from(attachment) << 16 | u64::from(id))
    }

    /// The purpose, the attachment and the identifier of a ticket made here.
    pub fn of(ticket: Ticket) -> (Self, u16, u16) {
        let purpose = match ticket.0 >> 32 {
            1 => Self::Greeting,
            2 => Self::Filters,
            3 => Self::Flight,
            4 => Self::Release,
            5 => Self::Publish1,
            6 => Self::Publish2,
            7 => Self::Forget,
            other => panic!("no session made a ticket for {other}"),
        };
        (purpose, (ticket.0 >> 16 & 0xFFFF) as u16, (ticket.0 & 0xFFFF) as u16)
    }
}
