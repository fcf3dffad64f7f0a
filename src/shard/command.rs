//! What the control plane asks of shards, and what they answer: plain values, no channel types.

mod figures;

pub use super::story::{Follow, Noted, Story, What};
pub use super::upstream;
pub use figures::ConnectionFigures;

use super::launch::StartError;
pub use crate::auth::{Author, Ban, Subject};
use crate::auth::{Fault, Grant, Introduction};
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, PushId, Qos, ShardId};
use crate::base::log::StreamHead;
use crate::base::message::{Entry, Message, StreamKey};
use crate::base::secret::Secret;
use crate::store::{Batch, Done};
use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

/// Names a command; chosen by the control plane, returned in the [`Event`] that answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandToken(pub u64);

impl CommandToken {
    const UNAWAITED: u64 = 1 << 63;

    /// For a push that nobody waits for: of its kind only failures are answered.
    pub fn unawaited(number: u64) -> Self {
        Self(number | Self::UNAWAITED)
    }

    /// Whether a push that works is to be answered.
    pub fn is_awaited(self) -> bool {
        self.0 & Self::UNAWAITED == 0
    }
}

/// Names a question; returned with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionToken {
    pub(super) shard: ShardId,
    pub(super) index: u32,
    pub(super) number: u32,
}

/// A device has shown something: is it good? Whoever takes questions answers each, with `Handle::verdict`.
#[derive(Debug)]
pub struct Question {
    /// The question's name.
    pub token: QuestionToken,
    /// What was shown.
    pub shown: Shown,
}

/// What a device shows of itself.
#[derive(Debug)]
pub enum Shown {
    /// A token, at most `TOKEN_BYTES_MAX` bytes.
    Token(Secret),
    /// All it says; its password has at most `TOKEN_BYTES_MAX` bytes.
    Device(Box<Introduction>),
}

/// What came of checking a token.
pub type Verdict = Result<Grant, Fault>;

/// Where a push goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A user's inbox.
    User(Arc<str>),
    /// The inboxes of a list of users, at most `PUSH_USERS_MAX`, as one atomic batch.
    Users(Vec<Arc<str>>),
    /// A user's inbox, for one device only.
    Device {
        /// Its user.
        user: Arc<str>,
        /// Its client identifier.
        device: Arc<str>,
    },
    /// A topic.
    Topic(Arc<str>),
    /// Every session of the app with a matching `$inbox` filter.
    Everyone,
}

/// A validated push.
#[derive(Clone, Debug)]
pub struct Push {
    /// Tenant.
    pub app: AppId,
    /// Where to.
    pub target: Target,
    /// The message as receivers see it (`topic` is the topic, or `$inbox/LABEL`).
    pub message: Arc<Message>,
    /// Idempotency key with the hash of what it stands for.
    pub key: Option<(Box<str>, u64)>,
    /// Names it, also in answer to whoever repeats its key.
    pub id: PushId,
    /// Answer when the devices that are connected at the commit have it, at the latest this long after it came. Of
    /// pushes to users and devices; others are answered when they are stored.
    pub deliver_within: Option<Duration>,
}

impl Push {
    /// The QoS decides whether it is logged.
    pub fn qos(&self) -> Qos {
        self.message.qos
    }
}

/// What came of one target of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushResult {
    /// The user, for user, users and device targets.
    pub user: Option<Arc<str>>,
    /// Where it stands, when it was logged.
    pub position: Option<(Epoch, Offset)>,
    /// Connected devices (for a topic or everyone: unknown, `None`).
    pub online: Option<u32>,
    /// Devices that have it, if the push waited for them.
    pub delivered: Vec<Arc<str>>,
}

/// What a shard knows of one device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// Its client identifier.
    pub device: Arc<str>,
    /// It has a connection.
    pub online: bool,
    /// Seconds its session outlives its connection.
    pub expiry_seconds: u32,
    /// Its subscriptions.
    pub subscriptions: u32,
    /// Messages sent and not acknowledged yet.
    pub in_flight: u32,
    /// Up to where it has settled its user's inbox; none: it has read none of it.
    pub inbox: Option<(Epoch, Offset)>,
    /// Messages of the inbox that are its and that it has not acknowledged; none: it does not subscribe to its inbox, or
    /// where it stands there is not known yet.
    pub unread: Option<u64>,
}

/// What is known of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserState {
    /// One a session.
    pub devices: Vec<DeviceState>,
    /// Up to where the user's devices have acknowledged the inbox; none: nobody has read any of it.
    pub read: Option<(Epoch, Offset)>,
    /// Messages behind that which are not over their time.
    pub unread: u64,
}

/// A part of a stream that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Of an inbox or a topic.
    pub stream: StreamKey,
    /// Behind which place; none: from the oldest there is.
    pub after: Option<Place>,
    /// Messages, at most `HISTORY_PAGE_MAX`; 0: only where the stream stands.
    pub limit: usize,
}

/// A place in a stream, as whoever asks has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stream's life; none: whichever it is.
    pub epoch: Option<Epoch>,
    /// In the stream.
    pub offset: Offset,
}

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    /// Where the stream stands; `Epoch(0)`: there is none.
    pub head: StreamHead,
    /// Oldest first; what is over its time is left out.
    pub entries: Vec<Entry>,
    /// Up to where this page goes: the next one is behind it.
    pub next: Offset,
    /// What is missing between the place that was asked for and the first entry.
    pub missing: Option<Missing>,
    /// Wall-clock milliseconds at which it was read.
    pub at_ms: u64,
}

impl HistoryPage {
    /// There is more behind it.
    pub fn has_more(&self) -> bool {
        self.next < self.head.last
    }
}

/// Why a page does not follow on the place that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Retention removed so many entries from this offset on.
    Trimmed(Offset, u64),
    /// The place is of another life of the stream: the page begins with the oldest there is.
    Unknown,
}

/// Who subscribes to a topic by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// By name, at most `PRESENCE_USERS_MAX`.
    pub users: Vec<Arc<str>>,
    /// All of them.
    pub count: usize,
}

/// What the control plane wants to be told of an app's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppWatch {
    /// Devices that connect and disconnect.
    pub connections: bool,
    /// Messages that devices acknowledge.
    pub receipts: bool,
    /// Clients' publishes whose topic matches one of these filters.
    pub publishes: Vec<Arc<str>>,
}

/// What the control plane wants to be told, by app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Each app at most once; those that are not here are not watched.
    pub apps: Vec<(AppId, AppWatch)>,
}

impl Watch {
    /// Adds what somebody else wants of an app.
    pub fn add(&mut self, app: AppId, wants: &AppWatch) {
        let at = self.apps.iter().position(|(other, _)| *other == app).unwrap_or_else(|| {
            self.apps.push((app, AppWatch::default()));
            self.apps.len() - 1
        });
        let all = &mut self.apps[at].1;
        all.connections |= wants.connections;
        all.receipts |= wants.receipts;
        for filter in &wants.publishes {
            if !all.publishes.contains(filter) {
                all.publishes.push(Arc::clone(filter));
            }
        }
    }
}

/// What the log tells the control plane.
#[derive(Debug)]
pub enum Notice {
    /// A commit brought something for backends. A hint: it may be missed, for the log can be read.
    Written(Arc<Batch>),
    /// The answer to a request of the control plane.
    Answered(Done),
}

/// What an entry for backends says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something happened to a device.
    Happened(Happened),
    /// So many things that happened found no room before this one, in memory.
    Missed(u64),
}

/// One thing that happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When, wall-clock milliseconds.
    pub at_ms: u64,
    /// The device's user.
    pub user: Arc<str>,
    /// The device.
    pub device: Arc<str>,
    /// What.
    pub what: Happening,
}

/// What can happen to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It has a connection.
    Connected {
        /// It had a session before.
        session_present: bool,
    },
    /// It has none any more.
    Disconnected {
        /// A word for why.
        reason: Cow<'static, str>,
    },
    /// It publishes this.
    Published(Arc<Message>),
    /// What became of a message.
    Receipt {
        /// As the device sees it.
        topic: Arc<str>,
        /// Its place in the user's inbox, if it was one of that.
        inbox: Option<(Epoch, Offset)>,
        /// What.
        receipt: Receipt,
        /// Of so many messages, up to that place; 0: nobody knows of how many.
        count: u64,
    },
}

/// What becomes of a message at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Receipt {
    /// The device has it: PUBACK, or PUBREC at QoS 2.
    Delivered = 0,
    /// The device does not take it: a reason of 0x80 or above.
    Refused = 1,
    /// Its time was over before it was sent.
    Expired = 2,
    /// Retention took it before the device had read it.
    Trimmed = 3,
}

impl Receipt {
    /// By its number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Delivered, Self::Refused, Self::Expired, Self::Trimmed].get(usize::from(number)).copied()
    }
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// A mailbox, the log's queue or a pending list is full: HTTP 429.
    Busy,
    /// The key stands for another body: HTTP 409.
    KeyConflict,
    /// The store cannot write: HTTP 503.
    StoreFailed,
    /// There is no room for another retained message: HTTP 429.
    RetainedFull,
    /// The app has stored as much as its quota allows: HTTP 429.
    OverQuota,
    /// The topic takes no more messages at the moment: HTTP 429.
    TopicRate,
    /// Shutting down: HTTP 503.
    Draining,
}

/// What one shard counts, copied once per request. Gauges say what is held now, counters what ever happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Which.
    pub shard: u16,
    /// The driver's name.
    pub driver: &'static str,
    /// `(name, value)` of everything that is held: connections, guests, slots, blocks, timers, sessions,
    /// subscriptions, filters, outboxes, in flight, mailbox, jobs, tickets.
    pub gauges: Vec<(&'static str, u64)>,
    /// `(name, value)` of everything that happened: accepted, closed by cause, messages in and out by QoS, drops by
    /// reason, stale tokens, turns, wake-ups.
    pub counters: Vec<(&'static str, u64)>,
}

/// Which connections are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionQuery {
    /// The slowest of each shard, at most so many.
    Slowest(usize),
    /// One.
    One(ConnectionName),
}

/// A connection as operators name it: unique in the life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionName {
    /// Its shard.
    pub shard: ShardId,
    /// Its place and generation there.
    pub id: ConnectionId,
}

impl fmt::Display for ConnectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.shard, self.id.index, self.id.generation)
    }
}

impl FromStr for ConnectionName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let mut parts = text.split('-');
        let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok()).ok_or(NotAName);
        let (shard, index, generation) = (number()?, number()?, number()?);
        let shard = ShardId(u16::try_from(shard).map_err(|_| NotAName)?);
        match parts.next() {
            None => Ok(Self { shard, id: ConnectionId { index, generation } }),
            Some(_) => Err(NotAName),
        }
    }
}

/// The text names no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAName;

/// What operators want of bans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanCommand {
    /// All that are in force.
    List,
    /// Bans somebody, in place of an earlier ban.
    Add {
        /// Whom.
        subject: Subject,
        /// Until when, wall-clock milliseconds; `u64::MAX`: until it is lifted.
        until_ms: u64,
        /// Why, at most `BAN_REASON_BYTES_MAX` bytes.
        reason: Box<str>,
    },
    /// Lifts a ban, whoever made it, and forgets the offences.
    Remove(Subject),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BanAnswer {
    /// By subject.
    List(Vec<NamedBan>),
    /// It holds.
    Added(Box<NamedBan>),
    /// Whether there was one in force.
    Removed(bool),
}

/// A ban and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedBan {
    /// Whom.
    pub subject: Subject,
    /// The ban.
    pub ban: Ban,
}

/// What shards tell the control plane.
#[derive(Debug)]
pub enum Event {
    /// A shard listens, or cannot.
    Listening {
        /// Which shard.
        shard: u16,
        /// The bound addresses.
        result: Result<Vec<SocketAddr>, StartError>,
    },
    /// A push is done: stored when it was logged, else handed to every interested shard. Of those that nobody waits for,
    /// the ones that failed.
    Pushed {
        /// The command's.
        token: CommandToken,
        /// Per target, in order, or why not.
        result: Result<Pushed, CommandError>,
    },
    /// One shard's figures; a request for statistics gets one from each shard.
    Stats {
        /// The command's.
        token: CommandToken,
        /// The figures.
        stats: Box<ShardStats>,
    },
    /// What one shard has to say of connections; the slowest first.
    Connections {
        /// The command's.
        token: CommandToken,
        /// Those asked for that are there.
        connections: Vec<ConnectionFigures>,
    },
    /// A user's connections were closed: how many.
    Disconnected {
        /// The command's.
        token: CommandToken,
        /// Connections.
        count: u32,
    },
    /// A canary has come through a shard and the log; a request for one gets as many as there are shards.
    Canary {
        /// The command's.
        token: CommandToken,
        /// The log answered that all is well.
        is_well: bool,
    },
    /// What is known of a user.
    User {
        /// The command's.
        token: CommandToken,
        /// All of it, or why not.
        result: Result<UserState, CommandError>,
    },
    /// A part of a stream.
    History {
        /// The command's.
        token: CommandToken,
        /// The part, or why not.
        result: Result<HistoryPage, CommandError>,
    },
    /// Who subscribes to a topic.
    Presence {
        /// The command's.
        token: CommandToken,
        /// None: no rule shows it.
        present: Option<Present>,
    },
    /// What came of a command about bans.
    Bans {
        /// The command's.
        token: CommandToken,
        /// The answer, or why not. A ban that is not on record holds all the same until the node ends.
        result: Result<BanAnswer, CommandError>,
    },
    /// A shard has closed its last connection after a drain was asked for.
    Drained {
        /// Which shard.
        shard: u16,
        /// Connections that were left at the end of the time for it.
        cut: u64,
    },
}

/// A push that worked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// One per user, or one for a topic or everyone; that one without an allocation.
    pub results: SmallVec<[PushResult; 1]>,
    /// The key had been seen; nothing was delivered now.
    pub duplicate: bool,
    /// Of the push, or of the first one under its key.
    pub id: PushId,
}

/// Whether somebody who wants these is to be told of this.
pub fn is_wanted(wants: &AppWatch, what: &Happening) -> bool {
    match what {
        Happening::Connected { .. } | Happening::Disconnected { .. } => wants.connections,
        Happening::Receipt { .. } => wants.receipts,
        Happening::Published(message) => wants.publishes.iter().any(|filter| filter_matches(filter, &message.topic)),
    }
}

/// Whether a text can be one of [`AppWatch::publishes`].
pub fn check_filter(filter: &str) -> bool {
    crate::router::filter::check_filter(filter).is_ok()
}

/// Whether a filter of [`AppWatch::publishes`] matches a topic.
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    crate::router::filter::matches(filter, topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_found_by_the_name_it_was_given() {
        let name = ConnectionName { shard: ShardId(3), id: ConnectionId { index: 70_000, generation: 9 } };
        assert_eq!(name.to_string(), "3-70000-9");
        assert_eq!("3-70000-9".parse(), Ok(name));
        for text in ["", "3", "3-1", "3-1-", "3-1-2-4", "70000-1-2", "a-1-2", "3-1--2", "3-4294967296-1"] {
            assert_eq!(text.parse::<ConnectionName>(), Err(NotAName), "{text}");
        }
    }
}
