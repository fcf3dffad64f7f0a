//! A shard's end of the log: requests out, each with what to do when its answer comes.
//!
//! A request never blocks. When the log's queue is full it waits here, in order; while any waits the shard is
//! `congested` and reads from no publisher, so what waits is bounded by one request per connection and per letter
//! already taken.

use super::command::{BanAnswer, CommandToken, Push};
use super::history::HistoryRead;
use super::letter::Publish;
use super::restore::Next;
use crate::base::ids::{Epoch, SessionId, ShardId};
use crate::session::Ticket;
use crate::store::{Address, Handle, Request, RequestToken};
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// What an answer is for.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A session's commit.
    Commit { session: SessionId, ticket: Ticket },
    /// A session reads its inbox.
    PullInbox { session: SessionId },
    /// A session reads its topics.
    PullTopics { session: SessionId },
    /// A session asks for its user's read mark, and where the inbox stands.
    Inbox { session: SessionId },
    /// A session looks for its place in a topic's stream.
    Locate { session: SessionId },
    /// Where the log stands, at start.
    RestoreSeq,
    /// The records of a share group.
    ShareRead { index: usize, share: Arc<str> },
    /// A share group's first record.
    ShareWritten { index: usize, share: Arc<str> },
    /// A share group reads its topics.
    ShareTopics { index: usize, share: Arc<str> },
    /// What a member that ended gives back to its group.
    ShareReturned { number: u64 },
    /// A page of records, at start.
    Restore(Next),
    /// This shard is the home of a topic whose message is being committed.
    Publish { publish: Box<Publish>, owed: bool },
    /// A push to users that is being committed.
    Push { push: Box<Push>, token: CommandToken, deliver_by_ms: Option<u64> },
    /// A part of a stream that somebody asks for.
    History(Box<HistoryRead>),
    /// The read mark of a user whose unread messages are counted, then a page of the inbox.
    UnreadMark { index: usize },
    /// See above.
    UnreadPage { index: usize },
    /// An operator's ban, or its end.
    Ban { token: CommandToken, answer: BanAnswer },
    /// What is for backends; so many entries.
    Upstream { count: usize },
    /// The control plane wants to know whether the log answers.
    Canary { token: CommandToken },
    /// Lazily written positions: nobody waits, but the next ones.
    Positions,
    /// The removal of ended sessions and the like: nobody waits.
    Nobody,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LogPort {
    handle: Handle,
    address: Address,
    waiting: Slab<Waiting>,
    backlog: VecDeque<(RequestToken, Request)>,
    /// Requests were sent that the log thread was not woken for.
    is_posted: bool,
}

impl LogPort {
    pub(crate) fn new(handle: Handle, shard: ShardId) -> Self {
        Self {
            handle,
            address: Address::Shard(shard),
            waiting: Slab::new(),
            backlog: VecDeque::new(),
            is_posted: false,
        }
    }

    /// Sends a request, or queues it behind those that wait.
    pub(crate) fn submit(&mut self, request: Request, waiting: Waiting) {
        let token = RequestToken(self.waiting.insert(waiting) as u64);
        self.is_posted = true;
        if !self.backlog.is_empty() {
            self.backlog.push_back((token, request));
        } else if let Err((request, _)) = self.handle.try_submit(self.address, token, request) {
            self.backlog.push_back((token, request));
        }
    }

    /// Tries those that wait again; true when none is left.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some((token, request)) = self.backlog.pop_front() {
            self.is_posted = true;
            if let Err((request, _)) = self.handle.try_submit(self.address, token, request) {
                self.backlog.push_front((token, request));
                return false;
            }
        }
        true
    }

    /// Whether [`LogPort::ring`] has somebody to wake.
    pub(crate) fn is_posted(&self) -> bool {
        self.is_posted
    }

    /// Wakes the log thread for all that was sent since it was last rung for.
    pub(crate) fn ring(&mut self) {
        if std::mem::take(&mut self.is_posted) {
            self.handle.ring();
        }
    }

    /// What the answer with this token is for. Each token is answered once.
    pub(crate) fn take(&mut self, token: RequestToken) -> Waiting {
        let index = usize::try_from(token.0).expect("tokens are slab indices");
        self.waiting.remove(index)
    }

    /// Requests wait for room in the log's queue: publishers are not to be read.
    pub(crate) fn congested(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The life in which the log's seqs count.
    pub(crate) fn life(&self) -> Epoch {
        self.handle.life()
    }

    /// Requests without an answer yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.waiting.len()
    }
}
