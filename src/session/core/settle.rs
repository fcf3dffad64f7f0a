//! Settling: what a client's acknowledgements do to the window, and the order of ours to it.

use super::super::{Counter, DeliveryId, Effect, Effects, Fate};
use super::record;
use super::state::{Flight, InFlight, LoggedAt, Purpose, Session, flag};
use crate::base::ids::Qos;

/// What came of a client's acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Acked {
    /// Taken in; nothing to say.
    Done,
    /// Say now that it was released (PUBREL).
    Release,
    /// No such delivery in a state that fits.
    Unknown,
}

impl Session {
    /// The client has a QoS 1 message, or refused it.
    pub(in crate::session) fn on_received_once(&mut self, id: u16, refused: bool, effects: &mut Effects) -> Acked {
        let fits = |flight: &mut super::InFlight| {
            flight.qos == Qos::AtLeastOnce && matches!(flight.state, Flight::Sent | Flight::Queued)
        };
        if !self.flight_mut(DeliveryId(id)).is_some_and(fits) {
            effects.count(Counter::UnknownAck);
            return Acked::Unknown;
        }
        self.tell_received(DeliveryId(id), refused, effects);
        self.settle(DeliveryId(id), if refused { Counter::RefusedByClient } else { Counter::Settled }, effects);
        Acked::Done
    }

    /// Tells the shard that the device has a message, before it is forgotten.
    fn tell_received(&self, delivery: DeliveryId, refused: bool, effects: &mut Effects) {
        if !refused && !effects.tells_received {
            return;
        }
        let Some(InFlight { at, message: Some(message), .. }) = self.in_flight(delivery) else { return };
        effects.push(Effect::Received { at: *at, topic: message.topic.clone(), refused });
    }

    /// The client has a QoS 2 message (PUBREC), or refused it. Durable point (2).
    pub(in crate::session) fn on_delivered(&mut self, id: u16, refused: bool, effects: &mut Effects) -> Acked {
        let delivery = DeliveryId(id);
        let durable = self.is_durable();
        let Some(flight) = self.flight_mut(delivery).filter(|flight| flight.qos == Qos::ExactlyOnce) else {
            effects.count(Counter::UnknownAck);
            return Acked::Unknown;
        };
        match flight.state {
            // The client said so on an earlier connection already, or says it twice.
            Flight::Released => return Acked::Release,
            Flight::Releasing => return Acked::Done,
            // Queued or held: an earlier connection brought it, and the client says so before it is sent again.
            Flight::Sent | Flight::Queued | Flight::Held => {}
            Flight::Committing | Flight::Settled => {
                effects.count(Counter::UnknownAck);
                return Acked::Unknown;
            }
        }
        self.tell_received(delivery, refused, effects);
        if refused {
            self.settle(delivery, Counter::RefusedByClient, effects);
            return Acked::Done;
        }
        let flight = self.flight_mut(delivery).expect("it was just found");
        flight.message = None;
        let was = flight.state;
        let commits = durable && flight.at.is_some();
        flight.state = if commits { Flight::Releasing } else { Flight::Released };
        if let Some(work) = self.work.as_mut()
            && was != Flight::Sent
        {
            if was == Flight::Queued {
                work.queued -= 1
            } else {
                work.held -= 1
            };
            work.sent += 1;
        }
        if !commits {
            return Acked::Release;
        }
        self.commit_release(delivery, effects);
        Acked::Done
    }

    pub(in crate::session) fn commit_release(&mut self, delivery: DeliveryId, effects: &mut Effects) {
        let Some(flight) = self.in_flight(delivery) else { return };
        let records = vec![record::flight(self, flight)];
        effects.push(Effect::Commit { ticket: Purpose::Release.ticket(0, delivery.0), records });
    }

    /// The client is done with a QoS 2 message (PUBCOMP).
    pub(in crate::session) fn on_completed(&mut self, id: u16, effects: &mut Effects) -> Acked {
        let released = |flight: &mut super::InFlight| flight.state == Flight::Released;
        if !self.flight_mut(DeliveryId(id)).is_some_and(released) {
            effects.count(Counter::UnknownAck);
            return Acked::Unknown;
        }
        self.settle(DeliveryId(id), Counter::Settled, effects);
        Acked::Done
    }

    /// The record of an in-flight message is committed: it may be sent, and those of QoS 1 that wait behind it.
    pub(in crate::session) fn on_flight_committed(&mut self, id: u16, effects: &mut Effects) {
        let (open, window) = (self.is_open(), usize::from(self.window));
        let Some(work) = self.work.as_mut() else { return };
        let is_it = |flight: &InFlight| flight.delivery.0 == id && flight.state == Flight::Committing;
        let Some(first) = work.window.iter().position(is_it) else { return };
        if work.window[first].is_shared() {
            return self.on_shared_committed(first, effects);
        }
        let mut is_first = true;
        for flight in work.window.range_mut(first..) {
            // What a share group has assigned stands in no order with these.
            let waits = flight.state == Flight::Committing && !flight.is_shared();
            if waits && flight.is_recorded() && !is_first {
                break;
            }
            is_first = false;
            if !waits {
                continue;
            }
            // An earlier connection's window may have been wider than this one's.
            if open && work.queued == 0 && work.sent <= window {
                flight.state = Flight::Sent;
                effects.push(Effect::Deliver { delivery: flight.delivery, dup: false });
            } else {
                // Or the connection that it was for is gone; the next one, which may be opening, sends it.
                flight.state = Flight::Queued;
                work.sent -= 1;
                work.queued += 1;
            }
        }
        let is_held = work.held > 0;
        if open {
            self.send_queued(effects);
        }
        if is_held {
            self.refill(effects);
        }
    }

    /// The release is committed; true: say so.
    pub(in crate::session) fn on_release_committed(&mut self, id: u16) -> bool {
        let open = self.is_open();
        match self.flight_mut(DeliveryId(id)) {
            Some(flight) if flight.state == Flight::Releasing => {
                flight.state = Flight::Released;
                open
            }
            _ => false,
        }
    }

    /// It was handed to the socket. That settles it for a client that never says what it has.
    pub fn handed_over(&mut self, delivery: DeliveryId, effects: &mut Effects) {
        if !self.protocol.acknowledges() && self.in_flight(delivery).is_some() {
            self.tell_received(delivery, false, effects);
            self.settle(delivery, Counter::Settled, effects);
        }
    }

    /// Settles what the shard could not send (too large for the client, expired before its first sending).
    pub fn settle_unsent(&mut self, delivery: DeliveryId, why: Counter, effects: &mut Effects) {
        if self.in_flight(delivery).is_some() {
            self.settle(delivery, why, effects);
        }
    }

    fn settle(&mut self, delivery: DeliveryId, why: Counter, effects: &mut Effects) {
        effects.count(why);
        let durable = self.is_durable();
        let work = self.work.as_mut().expect("there is something in flight");
        let at = work.window.iter().position(|flight| flight.delivery == delivery && flight.state != Flight::Settled);
        let at = at.expect("the caller looked for it");
        let flight = &mut work.window[at];
        match flight.state {
            Flight::Queued => work.queued -= 1,
            Flight::Held => work.held -= 1,
            _ => work.sent -= 1,
        }
        if let Some(LoggedAt::Shared { number: number @ 1.., .. }) = flight.at {
            effects.push(Effect::Share { number, fate: Fate::Settled });
        }
        work.places.retain(|(of, ..)| *of != delivery);
        let logged = flight.at.is_some();
        if durable && flight.is_recorded() {
            work.gone.push(delivery.0);
        }
        if logged {
            flight.state = Flight::Settled;
            flight.message = None;
            // An identifier that only a mark has is free again for others.
            flight.delivery = DeliveryId(0);
            self.prune();
            self.cursor_moved(effects);
        } else {
            // Most acknowledge in order.
            drop(if at == 0 { work.window.pop_front() } else { work.window.remove(at) });
        }
        self.refill(effects);
        self.tidy(effects);
    }

    /// Drops the marks that the prefix has passed.
    pub(in crate::session) fn prune(&mut self) {
        let prefix = self.prefix();
        if let Some(work) = self.work.as_mut() {
            work.window
                .retain(|flight| flight.state != Flight::Settled || flight.at.is_some_and(|at| !prefix.covers(at)));
        }
    }

    /// An answer to one of the client's publishes is known; `send` says those that may leave now: they leave in the
    /// order of the publishes, per QoS.
    pub(in crate::session) fn answer_publish(
        &mut self,
        id: u16,
        qos: Qos,
        code: u8,
        effects: &mut Effects,
        mut send: impl FnMut(u16, u8, &mut Effects),
    ) {
        let Some(work) = self.work.as_mut() else { return };
        for pending in work.pending.iter_mut().filter(|pending| pending.id == id && pending.qos == qos) {
            pending.answer.get_or_insert(code);
        }
        while let Some(at) = work.pending.iter().position(|pending| pending.qos == qos) {
            let Some(code) = work.pending[at].answer else { break };
            let id = work.pending[at].id;
            work.pending.remove(at);
            send(id, code, effects);
        }
        if work.pending.len() < usize::from(effects.bounds.receive_maximum_in) && self.has(flag::PAUSED_RECEIVE) {
            self.pause(flag::PAUSED_RECEIVE, false, effects);
        }
        self.tidy(effects);
    }
}
