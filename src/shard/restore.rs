//! What a shard does before anybody may come: it reads the records of the sessions that live here, installs their
//! interest, and reads what is retained of the topics that are at home here. With a memory store there are none.
//!
//! Nobody is let in, at any shard, before all shards are this far: a publish would not be logged for an absent session
//! whose interest its topic's home does not know yet, and a device would be given a new session in place of its own.

use super::banning;
use super::command::Event;
use super::gateway::{Core, Gateway};
use super::launch::StartError;
use super::letter::Letter;
use super::log_port::Waiting;
use super::upstream;
use crate::base::clock::Now;
use crate::base::ids::{AppId, Seq, SessionId};
use crate::io::Driver;
use crate::limits::{READ_RECORDS_MAX, RETAINED_RECORDS_PAGE, TICK};
use crate::session::core::record;
use crate::session::{GrantedFilter, Thawed};
use crate::store::{Answer, Record, Request, StoreError};

/// How far it is.
#[derive(Debug)]
pub(crate) enum Restoring {
    /// A read is under way.
    Reading,
    /// A read failed; the next try.
    Failed { at_ms: u64, what: Next },
    /// All records are read; interest may be on its way.
    Read,
    /// The other shards know.
    Told,
}

/// What is read at start, one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// Where the log stands.
    Position,
    /// The records of consumer groups behind this key.
    Groups(Box<[u8]>),
    /// The records of sessions behind this key.
    Sessions(Box<[u8]>),
    /// Those of retained messages.
    Retained(Box<[u8]>),
    /// Those of bans, at the shard that keeps them.
    Bans(Box<[u8]>),
}

impl Restoring {
    pub(super) fn retry_ms(&self) -> Option<u64> {
        match self {
            Self::Failed { at_ms, .. } => Some(*at_ms),
            _ => None,
        }
    }
}

impl Gateway {
    /// Begins with where the log stands: what was committed up to there may be the sessions', and they have to read it.
    pub(crate) fn restore(&mut self) {
        // No entry has so high a seq, so the answer only says up to where it has looked.
        let request = Request::ReadTopics { app: AppId(0), after: Seq(u64::MAX - 1), limit: 1 };
        self.log.submit(request, Waiting::RestoreSeq);
    }

    /// Whether the sessions of all shards are there and their interest is installed.
    pub(super) fn is_serving(&self) -> bool {
        self.restored_shards == self.homes.shards()
    }

    /// Tells the others when it is done, opens the listeners once all are, and reads again what could not be read.
    pub(super) fn go_on_restoring<D: Driver>(&mut self, core: &mut Core<D>) {
        let is_serving = self.is_serving();
        match &mut self.restoring {
            Restoring::Failed { at_ms, what } if *at_ms <= core.now().monotonic_ms => {
                let what = what.clone();
                self.restoring = Restoring::Reading;
                self.read_next(what);
            }
            Restoring::Read if self.installing.is_empty() => {
                self.restoring = Restoring::Told;
                self.homes.all().for_each(|shard| core.send_control(shard, Letter::Restored));
            }
            Restoring::Told if is_serving => self.listen_if_asked(core),
            _ => {}
        }
    }

    fn listen_if_asked<D: Driver>(&mut self, core: &mut Core<D>) {
        let Some(addresses) = self.to_listen.take() else { return };
        let bound = addresses.iter().map(|&address| {
            let place = self.passed.iter().position(|(other, _)| *other == address);
            let listening = match place.map(|place| self.passed.swap_remove(place)) {
                Some((_, socket)) => core.listen_on(socket),
                None => core.listen(address, true),
            };
            let (listener, bound) = listening.map_err(|error| StartError::Listen(address, error))?;
            self.opened_door(listener);
            Ok(bound)
        });
        let result = bound.collect();
        self.tell(Event::Listening { shard: self.shard.0, result });
    }

    fn read_next(&mut self, what: Next) {
        let (prefix, after, limit) = match &what {
            Next::Position => return self.restore(),
            Next::Groups(after) => (upstream::GROUPS, after.clone(), READ_RECORDS_MAX),
            Next::Sessions(after) => (record::PREFIX, after.clone(), READ_RECORDS_MAX),
            Next::Retained(after) => (record::RETAINED_PREFIX, after.clone(), RETAINED_RECORDS_PAGE),
            Next::Bans(after) => (banning::PREFIX, after.clone(), READ_RECORDS_MAX),
        };
        let request = Request::ReadRecords { prefix: prefix.into(), after, limit };
        self.log.submit(request, Waiting::Restore(what));
    }

    /// To start without the sessions would be to forget them.
    fn try_again<D: Driver>(&mut self, core: &mut Core<D>, what: Next) {
        self.counters.failed_reads += 1;
        self.restoring = Restoring::Failed { at_ms: core.now().deadline(TICK), what };
    }

    /// Where the log stood when this shard began.
    pub(super) fn on_log_position<D: Driver>(&mut self, core: &mut Core<D>, result: Result<Answer, StoreError>) {
        let Ok(Answer::Topics { through, .. }) = result else { return self.try_again(core, Next::Position) };
        self.seq = self.seq.max(through);
        self.offered = self.offered.max(through);
        self.read_next(Next::Groups(Box::default()));
    }

    /// One page of records, in key order. Each shard reads all and keeps its own: homes may have changed since.
    pub(super) fn on_records<D: Driver>(&mut self, core: &mut Core<D>, what: Next, result: Result<Answer, StoreError>) {
        let Ok(Answer::Records(page)) = result else { return self.try_again(core, what) };
        match what {
            Next::Groups(_) => self.on_group_records(&page),
            Next::Retained(_) => self.on_retained_records(core, &page),
            Next::Bans(_) => self.on_ban_records(core, &page),
            _ => self.on_session_records(core, &page),
        }
    }

    /// What consumer groups want: nothing happens to a device before all shards know it.
    fn on_group_records(&mut self, page: &[Record]) {
        self.counters.unreadable_records += self.watching.restore(page);
        match page.last().filter(|_| page.len() == READ_RECORDS_MAX) {
            Some((last, _)) => self.read_next(Next::Groups(last.clone())),
            None => self.read_next(Next::Sessions(Box::default())),
        }
    }

    fn on_retained_records<D: Driver>(&mut self, core: &mut Core<D>, page: &[Record]) {
        self.restore_retained(page, core.now().wall_ms);
        match page.last().filter(|_| page.len() == RETAINED_RECORDS_PAGE) {
            Some((last, _)) => self.read_next(Next::Retained(last.clone())),
            None if self.is_registrar() => self.read_next(Next::Bans(Box::default())),
            None => self.restoring = Restoring::Read,
        }
    }

    fn on_ban_records<D: Driver>(&mut self, core: &mut Core<D>, page: &[Record]) {
        self.restore_bans(core, page);
        match page.last().filter(|_| page.len() == READ_RECORDS_MAX) {
            Some((last, _)) => self.read_next(Next::Bans(last.clone())),
            None => self.restoring = Restoring::Read,
        }
    }

    fn on_session_records<D: Driver>(&mut self, core: &mut Core<D>, page: &[Record]) {
        let now = core.now();
        let last = page.last().filter(|_| page.len() == READ_RECORDS_MAX).map(|(key, _)| key.clone());
        let ours: Vec<&Record> = page.iter().filter(|(key, _)| self.is_ours(key)).collect();
        // An empty page would end the rebuilding.
        if !ours.is_empty() {
            self.thaw(ours, now);
        }
        match last {
            Some(last) => self.read_next(Next::Sessions(last)),
            None => {
                self.thaw(Vec::new(), now);
                let ids: Vec<SessionId> = self.directory.iter().map(|(id, _)| id).collect();
                ids.into_iter().for_each(|id| self.take_up(core, id));
                self.read_next(Next::Retained(Box::default()));
            }
        }
    }

    fn thaw(&mut self, page: Vec<&Record>, now: Now) {
        let Thawed { unreadable, without_room, orphans } = self.directory.thaw_records(page, now);
        self.counters.unreadable_records += unreadable;
        self.counters.sessions_without_room += without_room;
        self.counters.orphan_records += orphans.len() as u64;
        if !orphans.is_empty() {
            let request = Request::Append { key: None, entries: Vec::new(), records: orphans };
            self.log.submit(request, Waiting::Nobody);
        }
    }

    /// Whether a session record belongs to a user who lives here.
    fn is_ours(&self, key: &[u8]) -> bool {
        record::owner(key).is_some_and(|(app, user)| self.homes.user(app, user) == self.shard)
    }

    /// Puts a restored session's filters back into the router, and its timer on the wheel.
    fn take_up<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        let session = self.directory.get(id).expect("it was just restored");
        let filters: Vec<GrantedFilter> = session.subscriptions().iter().map(GrantedFilter::from).collect();
        let (slot, places) = self.subscribe(core, id, None, &filters);
        let session = self.directory.get_mut(id).expect("as above");
        session.relocate_all(&places);
        session.missed_up_to(self.offered);
        self.subscribed(core, slot);
        self.file_offline(id);
    }
}
