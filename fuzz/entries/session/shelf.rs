//! Retained messages and share groups, as their homes have them.

use super::super::draw::Draw;
use super::World;
use kittiwake::base::ids::{ConnectionId, Qos, Seq, SessionId};
use kittiwake::base::message::Message;
use kittiwake::session::core::subscriptions::matches;
use kittiwake::session::{Claim, DeliveryId, Fate, Flight, GrantedFilter, LoggedAt, Offer, Session};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Identifiers of deliveries start at 1 and are not used up: no run has as many.
const DELIVERIES_MAX: u16 = 2_000;
const TOPICS: [&str; 6] = ["a", "a/b", "a/c", "a/d", "b", "c"];

/// A session asks for what is retained.
pub struct Wish {
    id: SessionId,
    connection: Option<ConnectionId>,
    filter: Arc<str>,
    after: Arc<str>,
    limit: usize,
}

/// A message that a group has given to one of its members.
struct Assigned {
    /// Session index.
    whose: u32,
    qos: Qos,
    is_claimed: bool,
    /// At QoS 2, its session has said that it has it.
    is_taken: bool,
}

impl Assigned {
    /// At QoS 2, a session has still to say what becomes of it.
    fn waits(&self) -> bool {
        self.qos == Qos::ExactlyOnce && !self.is_taken
    }
}

#[derive(Default)]
pub struct Shelf {
    retained: BTreeMap<Arc<str>, Arc<Message>>,
    wishes: Vec<Wish>,
    /// By session index, topics of which a live message came since what is retained was asked for, with whether one
    /// came at QoS 1 or 2, and when the latest was made.
    live: BTreeMap<u32, BTreeMap<Arc<str>, (bool, u64)>>,
    /// By share, the session indices of its members.
    members: BTreeMap<Arc<str>, BTreeSet<u32>>,
    last_number: u64,
    /// What members have, by number.
    assigned: BTreeMap<u64, Assigned>,
    /// Sessions whose group was told that there is no room.
    refused: BTreeSet<u32>,
}

impl Shelf {
    /// A session is gone, or another one has its place.
    pub fn forget(&mut self, id: SessionId) {
        self.live.remove(&id.index);
        self.refused.remove(&id.index);
        self.assigned.retain(|_, assigned| assigned.whose != id.index || assigned.waits());
    }

    /// A session that is gone has said of all that it was given at QoS 2 what becomes of it.
    pub fn assert_returned(&self, id: SessionId) {
        let mut left = self.assigned.values().filter(|assigned| assigned.whose == id.index);
        assert!(!left.any(Assigned::waits), "a group waits for ever");
    }

    pub fn retain(&mut self, message: &Arc<Message>) {
        if message.payload.is_empty() {
            self.retained.remove(&message.topic);
        } else {
            self.retained.insert(Arc::clone(&message.topic), Arc::clone(message));
        }
    }

    /// What is retained for a filter is to be sent from here on.
    pub fn begin(&mut self, id: SessionId, granted: &GrantedFilter) {
        if granted.is_shared() {
            assert!(!granted.retained, "a share is not sent what is retained");
            let is_new = self.members.entry(Arc::clone(granted.filter.shared())).or_default().insert(id.index);
            assert_eq!(is_new, granted.replaces.is_none());
        } else if granted.retained {
            self.live.entry(id.index).or_default().retain(|topic, _| !matches(&granted.filter, topic));
        }
    }

    pub fn leave(&mut self, share: &Arc<str>, id: SessionId) {
        let members = self.members.get_mut(share);
        assert!(members.is_some_and(|members| members.remove(&id.index)), "a share is left once");
        if self.shares_of(id).is_empty() {
            // No group is left that waits to be told of its room.
            self.refused.remove(&id.index);
        }
    }

    pub fn shares_of(&self, id: SessionId) -> BTreeSet<&str> {
        let own = self.members.iter().filter(|(_, members)| members.contains(&id.index));
        own.map(|(share, _)| &**share).collect()
    }

    pub fn members(&self) -> impl Iterator<Item = u32> {
        self.members.values().flatten().copied()
    }

    pub fn has_refused(&self, id: SessionId) -> bool {
        self.refused.contains(&id.index)
    }

    pub fn has_wish(&self) -> bool {
        !self.wishes.is_empty()
    }

    /// It has room, or none any more.
    pub fn on_open(&mut self, id: SessionId, window: u16) {
        assert!(!self.shares_of(id).is_empty(), "only members tell of their room");
        self.refused.remove(&id.index);
        if window == 0 {
            self.assigned.retain(|_, assigned| assigned.whose != id.index || assigned.qos == Qos::ExactlyOnce);
        }
    }

    /// A session says what becomes of a message. It may have ended a moment ago.
    pub fn on_fate(&mut self, id: Option<SessionId>, number: u64, fate: &Fate) {
        let assigned = self.assigned.get_mut(&number).expect("a group is told once what becomes of a message");
        match fate {
            Fate::Taken => assert!(!std::mem::replace(&mut assigned.is_taken, true), "it is taken once"),
            Fate::Settled => {
                assert!(!assigned.waits() && Some(assigned.whose) == id.map(|id| id.index), "by who has it");
                self.assigned.remove(&number);
            }
            Fate::Returned(claim) => {
                assert!(assigned.waits(), "what has been sent is not given back");
                assert_eq!(claim.is_some(), assigned.is_claimed, "what may be on record is to be removed");
                self.assigned.remove(&number);
            }
        }
    }

    pub fn wish(&mut self, wish: Wish) {
        let of = |wish: &Wish| (wish.id, wish.connection);
        assert!(self.wishes.iter().all(|other| of(other) != of(&wish)), "one read at a time");
        assert!(wish.limit > 0);
        self.wishes.push(wish);
    }

    /// A retained message is on its way to a device. `may_be_newer`: its live copy may have been dropped.
    pub fn on_retained_sent(&self, id: SessionId, message: &Message, may_be_newer: bool) {
        let live = self.live.get(&id.index).and_then(|live| live.get(&message.topic));
        let is_older = |&(in_order, created_ms): &(bool, u64)| in_order || created_ms > message.created_ms;
        assert!(live.is_none_or(|live| may_be_newer && !is_older(live)), "{}: a newer one came before", message.topic);
    }
}

impl Wish {
    pub fn new(session: &Session, id: SessionId, filter: Arc<str>, after: Arc<str>, limit: usize) -> Self {
        Self { id, connection: session.connection(), filter, after, limit }
    }
}

impl World {
    /// A topic's retained message changes, without a live one to anybody.
    pub fn retain(&mut self, draw: &mut Draw<'_>) {
        let qos = draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let mut message = (*self.message(draw.pick(&TOPICS), draw, qos)).clone();
        message.retain = true;
        if draw.below(6) == 0 {
            message.payload = Default::default();
        }
        self.shelf.retain(&Arc::new(message));
    }

    /// A live message was offered: nothing older may follow it. It waits for what is being recorded, but at QoS 0 it may
    /// overtake.
    pub fn note_live(&mut self, id: SessionId, message: &Message, offer: Option<Offer>) {
        let Some(Offer::Send(_) | Offer::SendOnce | Offer::AfterCommit | Offer::Behind) = offer else { return };
        let is_sent = matches!(offer, Some(Offer::Send(_)));
        let is_after = !is_sent && self.is_recording(id, &message.topic);
        let Some(session) = self.directory.get_mut(id) else { return };
        let qos = if offer == Some(Offer::SendOnce) { Qos::AtMostOnce } else { message.qos };
        if let Some(offer) = offer.filter(|_| session.is_replaying()) {
            assert!(session.note_offer(message, offer), "there are few topics");
        }
        let comes = offer != Some(Offer::Behind) || session.will_read(message);
        if !is_after && comes {
            let live = self.shelf.live.entry(id.index).or_default();
            let (in_order, created_ms) = live.entry(Arc::clone(&message.topic)).or_default();
            *in_order |= qos > Qos::AtMostOnce;
            *created_ms = message.created_ms.max(*created_ms);
        }
    }

    /// A retained message of this topic is on its way to the session, and waits for its record, or to be recorded again
    /// when the session has a connection.
    fn is_recording(&self, id: SessionId, topic: &Arc<str>) -> bool {
        let Some(session) = self.directory.get(id) else { return false };
        let mut flights = (1..=DELIVERIES_MAX).filter_map(|number| session.in_flight(DeliveryId(number)));
        flights.any(|flight| {
            let is_waiting = flight.state == Flight::Committing && matches!(flight.at, Some(LoggedAt::Retained(_)));
            is_waiting && flight.message.as_ref().is_some_and(|message| message.topic == *topic)
        })
    }

    /// The homes answer a read, perhaps with less than there is.
    pub fn answer_retained(&mut self, visits: usize) {
        let Some(Wish { id, connection, filter, after, limit }) = self.shelf.wishes.pop() else { return };
        if self.directory.get(id).map(Session::connection) != Some(connection) {
            // The next connection asks again.
            return;
        }
        let (mut messages, mut through) = (Vec::new(), None);
        let behind = self.shelf.retained.iter().filter(|(topic, _)| **topic > after);
        for (topic, message) in behind.take(visits) {
            if messages.len() == limit {
                break;
            }
            through = Some(Arc::clone(topic));
            if matches(&filter, topic) {
                messages.push(Arc::clone(message));
            }
        }
        let is_all = self.shelf.retained.keys().next_back() == through.as_ref() || through.is_none();
        let through = through.filter(|_| !is_all);
        self.call(id, |session, now, effects| {
            session.on_retained_read(&filter, &after, &messages, through.as_ref(), now, effects);
        });
    }

    /// A group assigns a message to one of its members.
    pub fn assign(&mut self, device: usize, draw: &mut Draw<'_>) {
        let Some(id) = self.session_of(device).filter(|id| !self.shelf.shares_of(*id).is_empty()) else { return };
        let qos = draw.pick(&[Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let message = self.message("a", draw, qos);
        self.shelf.last_number += 1;
        let number = self.shelf.last_number;
        // In place before it is taken, for what is given up at once is settled at once.
        let is_claimed = qos == Qos::ExactlyOnce && draw.flag();
        self.shelf.assigned.insert(number, Assigned { whose: id.index, qos, is_claimed, is_taken: false });
        let claim = is_claimed.then(|| Claim { share: "$share/g/a".into(), seq: Seq(number) });
        match self.offer(id, |session, effects| session.offer_shared(&message, qos, (number, 0), claim, effects)) {
            Some(Offer::Send(_) | Offer::AfterCommit) => {}
            Some(Offer::Full) => {
                self.shelf.assigned.remove(&number);
                if self.directory.get(id).is_some_and(Session::is_open) {
                    self.shelf.refused.insert(id.index);
                }
            }
            other => panic!("a member takes it or has no room: {other:?}"),
        }
    }
}
