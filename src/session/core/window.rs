//! The in-flight table.

use super::super::{DeliveryId, Effects};
use super::state::{Flight, InFlight, LoggedAt, Session};
use crate::base::ids::{Epoch, Offset, Qos};
use crate::base::message::Message;
use crate::limits::SETTLED_MARKS_MAX;
use std::sync::Arc;

impl Flight {
    /// Whether it counts against the client's Receive Maximum.
    pub(in crate::session) fn is_sent(self) -> bool {
        matches!(self, Self::Committing | Self::Sent | Self::Releasing | Self::Released)
    }
}

impl InFlight {
    /// Whether a session that outlives its connection records it: a QoS 2 delivery, so that its identifier is known
    /// again, and every retained one, which is not found by a position in the log.
    pub(in crate::session) fn is_recorded(&self) -> bool {
        is_recorded(self.qos, self.at)
    }

    /// Whether a share group has assigned it.
    pub(in crate::session) fn is_shared(&self) -> bool {
        matches!(self.at, Some(LoggedAt::Shared { .. }))
    }
}

fn is_recorded(qos: Qos, at: Option<LoggedAt>) -> bool {
    matches!(at, Some(LoggedAt::Retained(_))) || qos == Qos::ExactlyOnce && at.is_some()
}

impl Session {
    pub(in crate::session) fn flights(&self) -> &[InFlight] {
        self.work.as_ref().map_or(&[], |work| &work.window)
    }

    /// An in-flight message, for encoding.
    pub fn in_flight(&self, delivery: DeliveryId) -> Option<&InFlight> {
        self.flights().iter().find(|flight| flight.delivery == delivery && flight.state != Flight::Settled)
    }

    /// Messages sent and not settled.
    pub fn in_flight_count(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.sent)
    }

    /// How many those may be.
    pub fn window(&self) -> usize {
        usize::from(self.window)
    }

    /// Whether its window is full and more waits behind it: it is its client that everything waits for.
    pub fn is_stalled(&self) -> bool {
        let is_full = self.work.as_ref().is_some_and(|work| work.sent >= usize::from(self.window));
        is_full && (self.is_behind() || self.work.as_ref().is_some_and(|work| work.queued > 0))
    }

    pub(in crate::session) fn has_room(&self) -> bool {
        self.work.as_ref().is_none_or(|work| {
            let is_roomy = work.window.len() < usize::from(self.window) + SETTLED_MARKS_MAX;
            work.queued == 0
                && work.sent < usize::from(self.window)
                // With nothing sent, nothing would ever make room among the marks.
                && (is_roomy || work.sent == 0)
                // What is held must not overtake what is being committed, so it is waited for one by one.
                && (work.held == 0 || !self.is_committing())
        })
    }

    /// Whether something is being committed that what is read from the log must not overtake.
    pub(in crate::session) fn is_committing(&self) -> bool {
        self.flights().iter().any(|flight| flight.state == Flight::Committing && !flight.is_shared())
    }

    /// Whether a logged entry is in the table, in whatever state.
    pub(in crate::session) fn holds(&self, at: LoggedAt) -> bool {
        self.flights().iter().any(|flight| flight.at == Some(at))
    }

    /// Takes a message in under an identifier that nothing else in the table has. The caller asked [`Self::has_room`].
    pub(in crate::session) fn launch(
        &mut self,
        message: &Arc<Message>,
        qos: Qos,
        at: Option<LoggedAt>,
        place: Option<(Epoch, Offset)>,
        effects: &mut Effects,
    ) -> DeliveryId {
        let mut id = self.last_delivery;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            // Ends: the table is far smaller than the identifiers are many.
            if self.flights().iter().all(|flight| flight.delivery.0 != id) {
                break;
            }
        }
        self.last_delivery = id;
        let needs_commit = is_recorded(qos, at) && self.is_durable();
        // What was logged goes out in its order, whatever its QoS, and what was not does not overtake it.
        let is_ordered = !matches!(at, Some(LoggedAt::Shared { .. }));
        let waits = is_ordered && self.is_durable() && self.is_committing();
        let state = if needs_commit || waits { Flight::Committing } else { Flight::Sent };
        let delivery = DeliveryId(id);
        let work = self.work(effects);
        work.gone.retain(|&gone| gone != id || !needs_commit);
        work.sent += 1;
        work.window.push(InFlight { delivery, state, qos, at, place, message: Some(Arc::clone(message)) });
        delivery
    }

    /// Moves an entry on. None: there is no such unsettled entry.
    pub(in crate::session) fn flight_mut(&mut self, delivery: DeliveryId) -> Option<&mut InFlight> {
        let work = self.work.as_mut()?;
        work.window.iter_mut().find(|flight| flight.delivery == delivery && flight.state != Flight::Settled)
    }
}
