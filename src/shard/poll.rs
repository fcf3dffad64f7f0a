//! Polls: what a stream would send goes into an answer, which leaves at the end of a turn. Everything else of theirs goes
//! the road of all sessions.

use super::flavours::said;
use super::gateway::{Core, Gateway};
use crate::base::ids::{ConnectionId, Epoch, Offset, Qos, SessionId};
use crate::base::message::Message;
use crate::io::Driver;
use crate::limits::{BLOCK_CLASSES, POLL_FRAME_BYTES};
use crate::session::poll::{self, Gathered, Readiness};
use crate::session::{CloseReason, Counter, DeliveryId, Session};

impl Gateway {
    /// It reads, and waits as long as it said. A plain poll has the time that a request may take.
    pub(super) fn poll_begun<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        let session = self.directory.get(id);
        let Some(connection) = session.and_then(Session::connection) else { return };
        let deadline = match session.and_then(poll::timeout_ms).unwrap_or(0) {
            0 => core.now().deadline(self.settings.limits.handshake_timeout),
            ms => core.now().monotonic_ms + u64::from(ms),
        };
        core.set_deadline(connection, deadline);
        self.polls.push(id);
    }

    /// Its time is over.
    pub(super) fn poll_over<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        self.tell_session(core, id, |session, effects| poll::answer(session, CloseReason::Answered, effects));
    }

    /// A message of a poll's window.
    pub(super) fn gather_in_flight<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        delivery: DeliveryId,
        message: &Message,
        place: Option<(Epoch, Offset)>,
    ) {
        match self.gather(core, id, message, place) {
            Gathered::Taken => {
                self.counters.sent(message.qos.min(Qos::AtLeastOnce), message.payload.len());
                self.handed_over(core, id, delivery);
            }
            // It stays in the window, and so in front of the position that the answer tells.
            Gathered::Full if place.is_some() => {}
            Gathered::Full => self.settle_unsent(core, id, delivery, Counter::DroppedWindowFull),
            Gathered::TooLarge => self.settle_unsent(core, id, delivery, Counter::DroppedTooLarge),
        }
    }

    /// A message that is nowhere else: what finds no room is dropped and counted. True: it is in the answer.
    pub(super) fn gather_once<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Message,
        place: Option<(Epoch, Offset)>,
    ) -> bool {
        let gathered = self.gather(core, id, message, place);
        match gathered {
            Gathered::Taken => self.counters.sent(Qos::AtMostOnce, message.payload.len()),
            Gathered::Full => self.counters.dropped_outbox_full += 1,
            Gathered::TooLarge => self.counters.session(Counter::DroppedTooLarge),
        }
        gathered == Gathered::Taken
    }

    fn gather<D: Driver>(
        &mut self,
        core: &Core<D>,
        id: SessionId,
        message: &Message,
        place: Option<(Epoch, Offset)>,
    ) -> Gathered {
        // An answer is copied into one block.
        let bytes_max =
            self.settings.limits.outbox_bytes.min(BLOCK_CLASSES[BLOCK_CLASSES.len() - 1]) - POLL_FRAME_BYTES;
        let said = said(message, message.qos.min(Qos::AtLeastOnce), place, core.now().wall_ms);
        let Some(session) = self.directory.get_mut(id) else { return Gathered::Full };
        let (gathered, is_new) = poll::gather(session, &said, bytes_max);
        if is_new {
            self.polls.push(id);
        }
        gathered
    }

    /// Answers those that are ready, now that the turn has brought what it brings.
    pub(super) fn answer_polls<D: Driver>(&mut self, core: &mut Core<D>) {
        if self.polls.is_empty() {
            return;
        }
        let mut polls = std::mem::take(&mut self.polls);
        polls.retain(|&id| {
            let Some(session) = self.directory.get_mut(id).filter(|session| session.is_open()) else { return false };
            match poll::readiness(session) {
                Readiness::Due => {
                    self.poll_over(core, id);
                    false
                }
                Readiness::Reading => true,
                Readiness::Waiting => false,
            }
        });
        // While they were answered, others may have been given something.
        polls.append(&mut self.polls);
        self.polls = polls;
    }

    /// A poll's connection has nothing to say behind its request.
    pub(super) fn is_deaf(&self, id: SessionId) -> bool {
        self.directory.get(id).is_some_and(|session| !session.protocol().acknowledges())
    }

    /// Nothing came for too long: a stream says that it is there, a poll is answered.
    pub(super) fn say_something<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, connection: ConnectionId) {
        match self.directory.get(id).and_then(poll::timeout_ms) {
            Some(_) => self.poll_over(core, id),
            None => self.beat(core, id, connection),
        }
    }
}
