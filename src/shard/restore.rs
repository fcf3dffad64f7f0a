//! What a shard does before anybody may come: it reads the records of the sessions that live here and installs their
//! interest. With a memory store there are none.

use super::command::Event;
use super::gateway::{Core, Gateway};
use super::launch::StartError;
use super::log_port::Waiting;
use crate::base::ids::SessionId;
use crate::io::Driver;
use crate::limits::READ_RECORDS_MAX;
use crate::session::GrantedFilter;
use crate::session::core::record;
use crate::store::{Answer, Record, Request, StoreError};

impl Gateway {
    /// Begins. `is_restored` says when it is over.
    pub(crate) fn restore(&mut self) {
        self.ask_for_records(Box::default());
    }

    /// Whether all sessions are there and their interest is installed.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored && self.installing.is_empty()
    }

    /// Opens the listeners once everything is back.
    pub(super) fn listen_if_restored<D: Driver>(&mut self, core: &mut Core<D>) {
        if self.to_listen.is_none() || !self.is_restored() {
            return;
        }
        let addresses = self.to_listen.take().expect("it was looked at");
        let bound = addresses.iter().map(|&address| {
            core.listen(address, true).map(|(_, bound)| bound).map_err(|error| StartError::Listen(address, error))
        });
        let result = bound.collect();
        self.tell(Event::Listening { shard: self.shard.0, result });
    }

    fn ask_for_records(&mut self, after: Box<[u8]>) {
        let request = Request::ReadRecords { prefix: record::PREFIX.into(), after, limit: READ_RECORDS_MAX };
        self.log.submit(request, Waiting::Restore);
    }

    /// One page of records, in key order. Each shard reads all and keeps its own: homes may have changed since.
    pub(super) fn on_records<D: Driver>(&mut self, core: &mut Core<D>, result: Result<Answer, StoreError>) {
        let Ok(Answer::Records(page)) = result else {
            self.counters.failed_reads += 1;
            self.restored = true;
            return;
        };
        let now = core.now();
        let last = page.last().filter(|_| page.len() == READ_RECORDS_MAX).map(|(key, _)| key.clone());
        let ours: Vec<Record> = page.into_iter().filter(|(key, _)| self.is_ours(key)).collect();
        if self.directory.thaw_records(&ours, now).is_err() {
            self.counters.unreadable_records += 1;
        }
        match last {
            Some(last) => self.ask_for_records(last),
            None => {
                // An empty page ends the rebuilding.
                if self.directory.thaw_records(&[], now).is_err() {
                    self.counters.unreadable_records += 1;
                }
                let ids: Vec<SessionId> = self.directory.iter().map(|(id, _)| id).collect();
                ids.into_iter().for_each(|id| self.take_up(core, id));
                self.restored = true;
            }
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
        self.subscribed(core, slot);
        self.file_offline(id);
    }
}
