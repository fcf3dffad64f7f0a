//! The end of a connection, in three steps: **terminate** (no more of it is wanted: shutdown, unwatch), **join** (all
//! its ops have completed), **close** (its slot and entry are freed, here alone).

use super::table::{NONE, Purpose, State, flag, key, token};
use super::{Close, CloseCause, Core, Engine, Handler};
use crate::base::ids::ConnectionId;
use crate::base::transform::Transform;
use crate::io::{Driver, Op};
use std::io;

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Closes a connection; [`Handler::on_closed`] follows, with `cause` unless something else ends it first. A stale
    /// id, or a second close, does nothing; but `Now` overtakes `AfterFlush`.
    pub fn close(&mut self, id: ConnectionId, when: Close, cause: CloseCause) {
        let Some(connection) = self.table.get(key(id)) else { return };
        let flushes = when == Close::AfterFlush
            && connection.state == State::Open
            && (connection.outbox != NONE || self.says_farewell(id));
        let connection = self.table.at_mut(id.index);
        match when {
            Close::AfterFlush if connection.state == State::Flushing => {}
            Close::AfterFlush if flushes => {
                connection.state = State::Flushing;
                connection.cause = cause;
                // Nobody reads it any more: bytes that still arrive must not be reported again and again.
                if connection.has(flag::WATCHING) && !connection.has(flag::GUEST) {
                    let slot = connection.open_slot();
                    self.driver.set_reading(slot, false);
                }
                self.wheel.set(id.index, self.now.deadline(self.settings.linger));
            }
            _ => self.terminate(id, cause),
        }
    }

    /// Step one. The handler is told within the turn or the next; the peer and the driver at once.
    pub(super) fn terminate(&mut self, id: ConnectionId, cause: CloseCause) {
        let Some(connection) = self.table.get_mut(key(id)).filter(|c| c.state != State::Terminated) else { return };
        connection.state = State::Terminated;
        connection.cause = cause;
        connection.clear(flag::READY | flag::REOFFER | flag::TELL_DRAINED);
        let held = core::mem::replace(&mut connection.held, NONE);
        let watching = connection.has(flag::WATCHING);
        if let Some(slot) = connection.slot {
            connection.set(flag::SHUTTING);
            self.driver.submit(Op::Shutdown { slot, token: token(Purpose::Shutdown, id) });
            if watching {
                self.driver.submit(Op::Unwatch { slot, token: token(Purpose::Watch, id) });
            }
        }
        if held != NONE {
            let held = self.helds.remove_at(held);
            self.give_held(held);
        }
        self.drop_outbox(id);
        self.wheel.clear(id.index);
        self.ending.push_back(id);
    }

    /// The kernel reported an error.
    pub(super) fn broken(&mut self, id: ConnectionId, error: &io::Error) {
        self.terminate(id, CloseCause::Broken(error.raw_os_error().unwrap_or(0)));
        self.ending.push_back(id);
    }

    pub(super) fn on_shut_done(&mut self, id: ConnectionId) {
        self.table.at_mut(id.index).clear(flag::SHUTTING);
        self.ending.push_back(id);
    }

    /// Forgets a connection that never opened.
    pub(super) fn discard(&mut self, id: ConnectionId) {
        self.table.at_mut(id.index).clear(flag::OPENING);
        self.wheel.clear(id.index);
        self.free(id);
    }

    /// Step three, and the only place that frees an entry.
    fn free(&mut self, id: ConnectionId) {
        let connection = self.table.remove(key(id)).expect("an entry is freed once");
        assert!(!connection.has(flag::IN_FLIGHT), "an entry is freed when nothing of it is in flight");
        assert!(connection.held == NONE && connection.outbox == NONE, "an entry owns nothing when it is freed");
        if connection.has(flag::GUEST) {
            self.guests -= 1;
        }
        if connection.transform != NONE {
            self.transforms.remove_at(connection.transform);
        }
        if let Some(slot) = connection.slot {
            self.driver.close(slot);
        }
    }
}

impl<D: Driver, H: Handler<D>> Engine<D, H> {
    /// Goes through the connections that are on their way out. Those that this turn's calls add wait for the next.
    pub(super) fn end_connections(&mut self) {
        for _ in 0..self.core.ending.len() {
            let Some(id) = self.core.ending.pop_front() else { break };
            match self.core.table.get(key(id)).map(|c| c.state) {
                Some(State::Terminated) => self.end_one(id),
                Some(State::Departing) => self.depart_one(id),
                _ => {}
            }
        }
    }

    fn end_one(&mut self, id: ConnectionId) {
        let connection = self.core.table.at_mut(id.index);
        if connection.newly(flag::TOLD_CLOSED) {
            let cause = connection.cause;
            self.handler.on_closed(&mut self.core, id, cause);
        }
        // Step two: a completion that is still to come queues the connection once more.
        if !self.core.table.at(id.index).has(flag::IN_FLIGHT) {
            self.core.totals.closed += 1;
            self.core.free(id);
        }
    }

    fn depart_one(&mut self, id: ConnectionId) {
        let connection = self.core.table.at(id.index);
        if connection.has(flag::IN_FLIGHT) || connection.outbox != NONE {
            return;
        }
        let departure = self.core.let_depart(id);
        self.handler.on_departed(&mut self.core, id, departure);
        self.core.free(id);
    }

    /// A deadline has passed: the handler's, or the end of a flush.
    pub(super) fn on_deadline(&mut self, index: u32) {
        let entry = self.core.table.key_at(index).expect("a freed connection has no deadline");
        let id = super::table::id(entry);
        if self.core.table.at(index).state == State::Flushing {
            self.core.terminate(id, CloseCause::Lingered);
        } else {
            self.handler.on_deadline(&mut self.core, id);
        }
    }
}
