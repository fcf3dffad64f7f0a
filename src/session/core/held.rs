//! What a restart leaves of QoS 2 deliveries whose PUBLISH has to be sent again: they are held until what is read again
//! from the log gets to them, so that a stream comes in its order whatever the QoS.

use super::super::{Effect, Effects};
use super::state::{Flight, InFlight, LoggedAt, Session};
use crate::base::ids::{Epoch, Offset};

/// Whether both are of the inbox, or of topics, and the first is not behind the second.
fn is_up_to(at: LoggedAt, to: LoggedAt) -> bool {
    match (at, to) {
        (LoggedAt::Inbox(at), LoggedAt::Inbox(to)) => at <= to,
        (LoggedAt::Topics(at), LoggedAt::Topics(to)) => at <= to,
        _ => false,
    }
}

impl Session {
    /// The first one that is held up to `to`: where it is in the table, and in the log.
    pub(in crate::session) fn next_held(&self, to: LoggedAt) -> Option<(usize, LoggedAt)> {
        if self.work.as_ref().is_none_or(|work| work.held == 0) {
            return None;
        }
        let held = self.flights().enumerate().filter(|(_, flight)| flight.state == Flight::Held);
        let places = held.filter_map(|(index, flight)| Some((index, flight.at?)));
        places
            .filter(|(_, at)| is_up_to(*at, to))
            .reduce(|first, next| if is_up_to(first.1, next.1) { first } else { next })
    }

    /// Sends again what is held up to `to`, in order; the position goes along. False: there is no room for all of it.
    pub(in crate::session) fn send_held(&mut self, to: LoggedAt, effects: &mut Effects) -> bool {
        while let Some((index, at)) = self.next_held(to) {
            let window = usize::from(self.window);
            let is_committing = self.is_committing();
            let work = self.work.as_mut().expect("it holds something");
            if work.queued > 0 || work.sent >= window || is_committing {
                return false;
            }
            // The table is in the order of sending, in which all goes out again on the next connection.
            let flight = work.window.remove(index).expect("it was just found");
            let delivery = flight.delivery;
            work.window.push_back(InFlight { state: Flight::Sent, ..flight });
            work.held -= 1;
            work.sent += 1;
            match at {
                LoggedAt::Inbox(at) => self.positions.inbox_delivered = self.positions.inbox_delivered.max(at),
                LoggedAt::Topics(at) => self.positions.topics_delivered = self.positions.topics_delivered.max(at),
                LoggedAt::Retained(_) | LoggedAt::Shared { .. } => unreachable!("they have no place to be held for"),
            }
            effects.push(Effect::Deliver { delivery, dup: true });
        }
        true
    }

    /// What is held of the inbox cannot be reached by reading: it goes out as the window allows.
    pub(in crate::session) fn queue_held_inbox(&mut self) {
        while let Some((index, _)) = self.next_held(LoggedAt::Inbox(Offset(u64::MAX))) {
            let work = self.work.as_mut().expect("it holds something");
            let flight = work.window.remove(index).expect("it was just found");
            work.window.push_back(InFlight { state: Flight::Queued, ..flight });
            work.held -= 1;
            work.queued += 1;
        }
    }

    /// A stream that was created anew counts from 1 again, so what is kept of its earlier life is in nobody's way.
    pub(in crate::session) fn enter_epoch(&mut self, epoch: Epoch) {
        let before = self.positions.inbox_epoch;
        self.positions.enter_epoch(epoch);
        if before == epoch || before == Epoch(0) {
            return;
        }
        self.queue_held_inbox();
        if let Some(work) = self.work.as_mut() {
            let is_mark =
                |flight: &InFlight| flight.state == Flight::Settled && matches!(flight.at, Some(LoggedAt::Inbox(_)));
            work.window.retain(|flight| !is_mark(flight));
        }
    }

    /// The inbox is to be read from behind `start`, but not from behind what is held.
    pub(in crate::session) fn start_before_held(&self, start: Offset) -> Offset {
        match self.next_held(LoggedAt::Inbox(start)) {
            Some((_, LoggedAt::Inbox(held))) => Offset(held.0 - 1),
            _ => start,
        }
    }

    /// Nobody may read on without what is held: so the newest one is what it has been told of.
    pub(in crate::session) fn notice_held(&mut self) {
        let Some(work) = self.work.as_ref() else { return };
        let positions = &mut self.positions;
        for flight in work.window.iter().filter(|flight| flight.state == Flight::Held) {
            match flight.at {
                Some(LoggedAt::Inbox(at)) => positions.inbox_notified = positions.inbox_notified.max(at),
                Some(LoggedAt::Topics(at)) => positions.topics_missed = positions.topics_missed.max(at),
                Some(LoggedAt::Retained(_) | LoggedAt::Shared { .. }) | None => {}
            }
        }
    }
}
