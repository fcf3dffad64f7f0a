//! What shards, the log thread and the control plane mail to a shard.
//!
//! Order: letters of one sender arrive in the order of sending. The log thread posts a batch to every shard before it
//! posts the `Done` of any request in it, and a shard works batches and unlogged deliveries off in the order of
//! arrival ([`super::incoming`]); so whoever sends an unlogged message after a `Done` knows that it will not overtake.

use super::command::{
    BanCommand, CommandError, CommandToken, ConnectionQuery, Follow, HistoryQuery, Present, Push, QuestionToken,
    Verdict, Watch,
};
use super::presence::{Asker, PresenceLetter};
use super::retained::{RetainedFound, RetainedRead};
use super::share::ShareLetter;
use crate::auth::{BanSet, Subject};
use crate::base::ids::{AppId, PushId, SessionId, ShardId};
use crate::base::message::Message;
use crate::engine::Departure;
use crate::io::Socket;
use crate::router::interest::Level;
use crate::session::protocol::Request;
use crate::session::{Identity, ReplyTo, Ticket};
use crate::store::{Batch, Done, NewEntry, Position, RecordChange};
use crate::wire::tls::{self, Layers};
use std::net::SocketAddr;
use std::sync::Arc;

/// A letter. Kept small: a mailbox holds thousands.
#[derive(Debug)]
pub(crate) enum Letter {
    /// A connection has said who it is and this shard is its home.
    Arrival(Box<Arrival>),
    /// For the topic's home: a client's publish or a push to a topic.
    Publish(Box<Publish>),
    /// From the topic's home to the publisher's: committed, or handed to every interested shard.
    Published { session: SessionId, receipt: Ticket, outcome: PublishOutcome },
    /// Unlogged topic message for this shard's subscribers.
    Deliver(Arc<Message>),
    /// Unlogged push to everyone.
    DeliverEveryone(Arc<Message>),
    /// Part of a list push whose users live here.
    UsersPart(Box<UsersPart>),
    /// What a part reached.
    UsersCounted { ticket: u32, counts: Vec<Counted> },
    /// A shard's interest in a filter has changed. With a ticket, answer [`Letter::InterestSet`].
    Interest(Box<InterestLetter>),
    /// Interest is installed at one home.
    InterestSet { ticket: u32 },
    /// For a home: what is retained under a filter? Answer with [`Letter::RetainedFound`].
    RetainedRead(Box<RetainedRead>),
    /// What one home has.
    RetainedFound(Box<RetainedFound>),
    /// Between a share group's home and its members' shards.
    Share(Box<ShareLetter>),
    /// A shard's sessions are back and their interest is installed.
    Restored,
    /// What a group commit brought.
    Batch(Arc<Batch>),
    /// The log's answer to a request of this shard.
    Done(Done),
    /// Where these are listened on already, by sockets that the process was passed.
    Passed(Vec<(SocketAddr, Socket)>),
    /// Listen on these once the sessions are back.
    Listen(Vec<SocketAddr>),
    /// The control plane's wish.
    Push { push: Box<Push>, token: CommandToken },
    /// A token was checked.
    Verdict { token: QuestionToken, verdict: Box<Verdict> },
    /// Follow these from now on.
    Follow(Arc<[Follow]>),
    /// Send a canary through the log.
    Canary { token: CommandToken },
    /// Copy the figures out.
    Stats { token: CommandToken },
    /// Look connections up.
    Connections { query: ConnectionQuery, token: CommandToken },
    /// Close a user's connections, or one device's.
    Disconnect { app: AppId, user: Arc<str>, device: Option<Arc<str>>, token: CommandToken },
    /// Say what is known of a user's devices.
    User { app: AppId, user: Arc<str>, token: CommandToken },
    /// Read a part of a stream.
    History { query: Box<HistoryQuery>, token: CommandToken },
    /// Say who subscribes to a topic whose home this is.
    Present { app: AppId, topic: Arc<str>, asker: Asker },
    /// What was asked for a device.
    Presented { session: SessionId, to: Box<ReplyTo>, present: Option<Box<Present>> },
    /// For the topic's home: a device begins or ends a subscription to a topic that is shown.
    Presence(Box<PresenceLetter>),
    /// For the registrar of bans: who has offended in the last second, and how badly.
    Offences(Box<[(Subject, u32)]>),
    /// From it: who is banned from now on.
    Banned(Arc<BanSet>),
    /// For it: the control plane's wish.
    Ban { command: Box<BanCommand>, token: CommandToken },
    /// Tell of these from now on.
    Watch(Arc<Watch>),
    /// TLS is this from now on; connections there are stay as they are.
    Tls(tls::Server),
    /// Stop accepting and close everybody politely.
    Drain,
    /// End the thread.
    Stop,
}

/// A connection on the move.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The socket with its unread bytes.
    pub(crate) departure: Departure<Layers>,
    /// Who.
    pub(crate) identity: Identity,
    /// What it asked for.
    pub(crate) request: Request,
    /// When its token ends, wall milliseconds.
    pub(crate) ends_ms: Option<u64>,
}

/// A message on its way to its topic's home.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) message: Arc<Message>,
    pub(crate) origin: Origin,
    /// Committed with the message.
    pub(crate) records: Vec<RecordChange>,
    /// Idempotency key and body hash, from pushes.
    pub(crate) key: Option<(Box<str>, u64)>,
    /// Committed with the message, for backends.
    pub(crate) upstream: Option<Box<NewEntry>>,
    /// That is on its way to the log.
    pub(crate) is_told: bool,
}

/// Who waits to hear what became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client's QoS 0 publish.
    Nobody,
    /// A client's session.
    Client { shard: ShardId, session: SessionId, receipt: Ticket },
    /// The API, with this push.
    Control(CommandToken, PushId),
}

impl Origin {
    /// The id of the push it is; only pushes have keys.
    pub(crate) fn push(self) -> PushId {
        match self {
            Self::Control(_, id) => id,
            Self::Nobody | Self::Client { .. } => PushId::default(),
        }
    }
}

/// What became of a client's publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    /// Committed or handed over, and somebody listens.
    Reached,
    /// Nobody listens.
    NobodyListens,
    /// The store failed: not acknowledged.
    Failed(CommandError),
}

/// The users of a list push that live on one shard.
#[derive(Debug)]
pub(crate) struct UsersPart {
    /// Index in the push, user.
    pub(crate) users: Vec<(u32, Arc<str>)>,
    pub(crate) app: AppId,
    /// To deliver now (QoS 0); logged ones come with their batch and are only counted.
    pub(crate) message: Option<Arc<Message>>,
    /// Count when the devices have it.
    pub(crate) awaited: Option<Awaited>,
    /// The answer that is held back for that, once it is being made.
    pub(crate) wait: Option<usize>,
    /// Who collects the counts.
    pub(crate) coordinator: ShardId,
    pub(crate) ticket: u32,
}

/// What a part waits for.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// Until then, monotonic milliseconds.
    pub(crate) deadline_ms: u64,
    /// The message, if it was logged.
    pub(crate) logged: Option<Arc<Message>>,
    /// Where it stands, a position a user; none if it was not logged.
    pub(crate) positions: Vec<Position>,
}

/// What one user's part of a list came to.
#[derive(Debug)]
pub(crate) struct Counted {
    /// Index in the push.
    pub(crate) index: u32,
    /// Connected devices.
    pub(crate) online: u32,
    /// Those that have it, if that was waited for.
    pub(crate) delivered: Vec<Arc<str>>,
}

/// A change of interest.
#[derive(Debug)]
pub(crate) struct InterestLetter {
    pub(crate) app: AppId,
    pub(crate) filter: Arc<str>,
    pub(crate) shard: ShardId,
    pub(crate) level: Level,
    /// Whom to tell when it is installed.
    pub(crate) ticket: Option<u32>,
}
