//! The in-flight table.

use super::super::{DeliveryId, Effects};
use super::state::{Flight, InFlight, LoggedAt, Session};
use crate::base::ids::{Epoch, Offset, Qos};
use crate::base::message::Message;
use crate::limits::SETTLED_MARKS_MAX;
use std::collections::vec_deque;
use std::sync::Arc;

/// What was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct Launched {
    pub delivery: DeliveryId,
    /// For a commit, its own or one before it: it may not be sent yet.
    pub waits: bool,
}

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
    pub(in crate::session) fn flights(&self) -> vec_deque::Iter<'_, InFlight> {
        self.work.as_ref().map_or_else(vec_deque::Iter::default, |work| work.window.iter())
    }

    /// An in-flight message, for encoding.
    pub fn in_flight(&self, delivery: DeliveryId) -> Option<&InFlight> {
        self.flights().find(|flight| flight.delivery == delivery && flight.state != Flight::Settled)
    }

    /// Where its stream has an in-flight message, for a client that keeps its own position; none: its client did
    /// not when it was sent, it is not logged, or that was forgotten.
    pub fn place_of(&self, delivery: DeliveryId) -> Option<(Epoch, Offset)> {
        let mut places = self.work.as_ref()?.places.iter();
        places.find(|(of, ..)| *of == delivery).map(|&(_, epoch, offset)| (epoch, offset))
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
        self.has_room_for(1)
    }

    pub(in crate::session) fn has_room_for(&self, count: usize) -> bool {
        let window = usize::from(self.window);
        self.work.as_ref().map_or(count <= window.max(1), |work| {
            let is_roomy = work.window.len() + count <= window + SETTLED_MARKS_MAX;
            work.queued == 0
                && work.sent + count <= window
                // With nothing sent, nothing would ever make room among the marks.
                && (is_roomy || work.sent == 0 && count == 1)
                // What is held must not overtake what is being committed, so it is waited for one by one.
                && (work.held == 0 || !self.is_committing())
        })
    }

    /// Whether something is being committed that what is read from the log must not overtake.
    pub(in crate::session) fn is_committing(&self) -> bool {
        self.flights().any(|flight| flight.state == Flight::Committing && !flight.is_shared())
    }

    /// Whether a logged entry is in the table, in whatever state.
    pub(in crate::session) fn holds(&self, at: LoggedAt) -> bool {
        self.flights().any(|flight| flight.at == Some(at))
    }

    /// An identifier that nothing in the table has.
    fn next_delivery(&mut self) -> DeliveryId {
        let mut id = self.last_delivery;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            // Ends: the table is far smaller than the identifiers are many.
            if self.flights().all(|flight| flight.delivery.0 != id) {
                break;
            }
        }
        self.last_delivery = id;
        DeliveryId(id)
    }

    /// Takes a message in. The caller asked [`Self::has_room`].
    pub(in crate::session) fn launch(
        &mut self,
        message: &Arc<Message>,
        qos: Qos,
        at: Option<LoggedAt>,
        place: Option<(Epoch, Offset)>,
        effects: &mut Effects,
    ) -> Launched {
        let delivery = self.next_delivery();
        let needs_commit = is_recorded(qos, at) && self.is_durable();
        // What was logged goes out in its order, whatever its QoS, and what was not does not overtake it.
        let is_ordered = !matches!(at, Some(LoggedAt::Shared { .. }));
        let waits = needs_commit || is_ordered && self.is_durable() && self.is_committing();
        let state = if waits { Flight::Committing } else { Flight::Sent };
        let place = place.filter(|_| !self.protocol.acknowledges());
        let work = self.work(effects);
        work.gone.retain(|&gone| gone != delivery.0 || !needs_commit);
        work.sent += 1;
        work.window.push_back(InFlight { delivery, state, qos, at, message: Some(Arc::clone(message)) });
        work.places.extend(place.map(|(epoch, offset)| (delivery, epoch, offset)));
        Launched { delivery, waits }
    }

    /// As [`Self::launch`], of a message that is in no log and waits for nothing: the caller asked
    /// [`Self::takes_volatile`].
    pub fn launch_volatile(&mut self, message: &Arc<Message>, qos: Qos, effects: &mut Effects) -> DeliveryId {
        let delivery = self.next_delivery();
        let work = self.work(effects);
        work.sent += 1;
        let (state, message) = (Flight::Sent, Some(Arc::clone(message)));
        work.window.push_back(InFlight { delivery, state, qos, at: None, message });
        delivery
    }

    /// Moves an entry on. None: there is no such unsettled entry.
    pub(in crate::session) fn flight_mut(&mut self, delivery: DeliveryId) -> Option<&mut InFlight> {
        let work = self.work.as_mut()?;
        work.window.iter_mut().find(|flight| flight.delivery == delivery && flight.state != Flight::Settled)
    }
}
