//! Retained messages: kept at their topic's home, read for new subscriptions.
//!
//! ```text
//!  session ──ReadRetained──► its shard ──RetainedRead──► home, or every home ──RetainedFound──► its shard ──► session
//!               ▲                (waits while the outbox is not empty)            (merged by topic)            │
//!               └────────────────────── the next piece, as the window has room ◄───────────────────────────────┘
//! ```
//! A home answers once all that was on its way to be retained when it was asked is: a batch may have brought that to the
//! asker's other subscribers before the new one was there, so the answer has to have it. Homes answer a bounded number
//! of topics a turn. All answers are cut at the topic up to which every home has looked, so where a reader stands is one
//! topic, which means the same to any number of shards.

use super::command::CommandError;
use super::gateway::{Core, Gateway};
use super::letter::{Letter, Publish};
use super::log_port::Waiting;
use crate::base::ids::{AppId, ConnectionId, SessionId, ShardId};
use crate::base::message::Message;
use crate::io::Driver;
use crate::limits::{RETAINED_PIECE_BYTES_MAX, RETAINED_STEP_VISITS_MAX, RETAINED_SWEEP_VISITS_MAX};
use crate::router::filter::is_wildcard;
use crate::router::retained::{Found, Retained, Step};
use crate::session::core::record;
use crate::session::{Counter, Offer, Session};
use crate::store::{Record, Request};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A session's wish for its next piece.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    session: SessionId,
    /// An answer is for this connection alone: the next one asks again.
    connection: Option<ConnectionId>,
    app: AppId,
    filter: Arc<str>,
    after: Arc<str>,
    limit: usize,
}

/// A wish that homes are answering.
#[derive(Debug)]
struct Reading {
    wish: Wish,
    answers: u16,
    messages: Vec<Arc<Message>>,
    /// The smallest topic up to which a home has looked that has more.
    through: Option<Arc<str>>,
}

/// A question to a home.
#[derive(Clone, Debug)]
pub(crate) struct RetainedRead {
    app: AppId,
    filter: Arc<str>,
    after: Arc<str>,
    limit: usize,
    asker: ShardId,
    ticket: u32,
}

/// A home's answer.
#[derive(Debug)]
pub(crate) struct RetainedFound {
    ticket: u32,
    messages: Vec<Arc<Message>>,
    more: Option<Arc<str>>,
}

/// Reads under way at one shard, its own sessions' and those it answers as a home.
#[derive(Debug, Default)]
pub(crate) struct RetainedReads {
    /// At most one a session, and one more for each connection that it has had since.
    under_way: Slab<Reading>,
    /// Questions to this home, at most one for each read under way anywhere, and how many commits had been asked for.
    asked: VecDeque<(u64, RetainedRead)>,
    /// Wishes of sessions whose outbox is not empty, by session index.
    waiting: HashMap<u32, Wish>,
    /// Where the search for messages over their time goes on when there is no room.
    swept: (u16, Arc<str>),
}

impl RetainedReads {
    /// Reads under way, waiting or asked for.
    pub(crate) fn len(&self) -> usize {
        self.under_way.len() + self.asked.len() + self.waiting.len()
    }

    /// Whether this home has a question to answer now.
    pub(crate) fn is_asked(&self, retained: &Retained) -> bool {
        self.asked.front().is_some_and(|(submitted, _)| *submitted <= retained.settled())
    }

    /// The session's connection is gone.
    pub(crate) fn forget(&mut self, session: u32) {
        self.waiting.remove(&session);
    }
}

impl Gateway {
    /// This shard is the home of a topic whose retained message changes: reserves room, and adds the record to what is
    /// committed. When there is none the publish is refused and counted; false.
    pub(super) fn retain<D: Driver>(&mut self, core: &mut Core<D>, publish: &mut Publish) -> bool {
        let mut reserved = self.retained.reserve(&publish.message);
        if reserved.is_err() {
            self.sweep_retained(core);
            reserved = self.retained.reserve(&publish.message);
        }
        if reserved.is_err() {
            self.counters.retained_refused += 1;
            self.answer(core, publish.origin, Err(CommandError::RetainedFull), None);
            return false;
        }
        publish.records.push(record::retained(&publish.message));
        true
    }

    /// Looks at some more topics for messages over their time.
    fn sweep_retained<D: Driver>(&mut self, core: &mut Core<D>) {
        let (app, after) = self.reads.swept.clone();
        let wall_ms = core.now().wall_ms;
        let found = self.retained.sweep(AppId(app), &after, RETAINED_SWEEP_VISITS_MAX, wall_ms);
        self.reads.swept = match &found.more {
            Some(more) => (app, Arc::clone(more)),
            None if app + 1 < self.retained.apps() => (app + 1, "".into()),
            None => (0, "".into()),
        };
        self.remove_expired(&found);
    }

    /// What was over its time leaves the store, too, unless another message of the topic is on its way there.
    fn remove_expired(&mut self, found: &Found) {
        let gone = found.expired.iter().filter(|message| !self.committing.is_under_way(message));
        let records: Vec<_> = gone.map(|message| record::not_retained(message)).collect();
        if !records.is_empty() {
            self.log.submit(Request::Append { key: None, entries: Vec::new(), records }, Waiting::Nobody);
        }
    }

    /// At start: takes the retained messages of a page whose topics are at home here.
    pub(super) fn restore_retained(&mut self, page: &[Record], wall_ms: u64) {
        let mut expired = Found::default();
        for (_, value) in page {
            let Some(message) = record::parse_retained(value) else {
                self.counters.unreadable_records += 1;
                continue;
            };
            if self.homes.topic(message.app, &message.topic) != self.shard {
                continue;
            }
            let message = Arc::new(message);
            if message.expires_ms.is_some_and(|at| at <= wall_ms) {
                expired.expired.push(message);
            } else {
                self.retained.put(&message);
            }
        }
        self.remove_expired(&expired);
    }

    /// A session wants the next of what is retained under one of its filters. Its outbox is emptied first, so that
    /// what is sent at QoS 0 keeps to what the device takes.
    pub(super) fn read_retained<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        session: SessionId,
        filter: Arc<str>,
        after: Arc<str>,
        limit: usize,
    ) {
        let Some(state) = self.directory.get(session) else { return };
        let wish = Wish { session, connection: state.connection(), app: state.app(), filter, after, limit };
        match state.connection() {
            Some(connection) if core.ask_drained(connection) => drop(self.reads.waiting.insert(session.index, wish)),
            _ => self.ask_homes(core, wish),
        }
    }

    /// A live message was offered to a session that may be being sent what is retained.
    pub(super) fn note_live(&mut self, id: SessionId, message: &Message, offer: Offer) {
        let Some(session) = self.directory.get_mut(id).filter(|session| session.is_replaying()) else { return };
        if !session.note_offer(message, offer) {
            self.counters.session(Counter::RetainedUnnoted);
        }
    }

    /// A session's outbox is empty.
    pub(super) fn go_on_reading_retained<D: Driver>(&mut self, core: &mut Core<D>, session: SessionId) {
        if let Some(wish) = self.reads.waiting.remove(&session.index) {
            self.ask_homes(core, wish);
        }
    }

    fn ask_homes<D: Driver>(&mut self, core: &mut Core<D>, wish: Wish) {
        let Wish { app, filter, after, limit, .. } = wish.clone();
        let exact = (!is_wildcard(&filter)).then(|| self.homes.topic(app, &filter));
        let answers = if exact.is_some() { 1 } else { self.homes.shards() };
        let reading = Reading { wish, answers, messages: Vec::new(), through: None };
        let ticket = u32::try_from(self.reads.under_way.insert(reading)).expect("sessions are numbered with 32 bits");
        let question = RetainedRead { app, filter, after, limit, asker: self.shard, ticket };
        for home in self.homes.all().filter(|home| exact.is_none_or(|exact| exact == *home)) {
            if home == self.shard {
                self.on_retained_asked(question.clone());
            } else {
                core.send_control(home, Letter::RetainedRead(Box::new(question.clone())));
            }
        }
    }

    /// A question to this home: answered in its turn.
    pub(super) fn on_retained_asked(&mut self, question: RetainedRead) {
        self.reads.asked.push_back((self.retained.submitted(), question));
    }

    /// Answers questions, up to a bounded number of topics looked at.
    pub(super) fn answer_retained<D: Driver>(&mut self, core: &mut Core<D>) {
        let mut visits_left = RETAINED_STEP_VISITS_MAX;
        while visits_left > 0 && self.reads.is_asked(&self.retained) {
            let (_, question) = self.reads.asked.pop_front().expect("there is one");
            let RetainedRead { app, filter, after, limit, asker, ticket } = question;
            let step = Step { visits: visits_left, messages: limit, bytes: RETAINED_PIECE_BYTES_MAX };
            let found = self.retained.read(app, &filter, &after, step, core.now().wall_ms);
            visits_left = visits_left.saturating_sub(found.visited.max(1));
            self.remove_expired(&found);
            let answer = RetainedFound { ticket, messages: found.messages, more: found.more };
            if asker == self.shard {
                self.on_retained_found(core, answer);
            } else {
                core.send_control(asker, Letter::RetainedFound(Box::new(answer)));
            }
        }
    }

    /// One home's answer. With the last one the piece goes to its session.
    pub(super) fn on_retained_found<D: Driver>(&mut self, core: &mut Core<D>, found: RetainedFound) {
        let RetainedFound { ticket, messages, more } = found;
        let reading = &mut self.reads.under_way[ticket as usize];
        reading.messages.extend(messages);
        reading.through = match (reading.through.take(), more) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        reading.answers -= 1;
        if reading.answers > 0 {
            return;
        }
        let Reading { wish, mut messages, mut through, .. } = self.reads.under_way.remove(ticket as usize);
        messages.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
        messages.retain(|message| through.as_ref().is_none_or(|through| message.topic <= *through));
        if messages.len() > wish.limit {
            messages.truncate(wish.limit);
            through = messages.last().map(|message| Arc::clone(&message.topic));
        }
        if self.directory.get(wish.session).map(Session::connection) != Some(wish.connection) {
            return;
        }
        let now = core.now();
        self.tell_session(core, wish.session, |session, effects| {
            session.on_retained_read(&wish.filter, &wish.after, &messages, through.as_ref(), now, effects);
        });
    }
}
