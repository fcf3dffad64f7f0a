//! Topic messages to this shard's subscribers: what a pass of the fan-out job does at each of its stops.
//!
//! Logged messages of different topics may be passed out of the order of their seqs, since passes take turns. A
//! session's topics position is one seq, so a session that could be in an earlier pass, still under way, does not take
//! the later message from its pass: it is marked behind and reads both from the hot ring, in order.
//!
//! Of one topic some messages may be logged and others not, as sessions that are owed them come and go. What a session
//! cannot take of either kind waits in two places, and [`Gateway::catch_up`] keeps the order between them.

use super::flavours::{Dialect, Kind, is_expired};
use super::gateway::{Core, Gateway};
use super::incoming::Taken;
use super::outbound::{Stamp, patch};
use super::share::GROUP;
use super::subscribe::is_inbox;
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, Qos, Seq, SessionId};
use crate::base::message::Message;
use crate::engine::Room;
use crate::io::Driver;
use crate::router::fanout::{Fanout, Step, Visit};
use crate::router::filter::is_wildcard;
use crate::router::subscribers::{Moved, Subscribers};
use crate::router::{EVERYONE, FilterId};
use crate::session::{Counter, LoggedAt, Offer, Protocol, Session};
use std::collections::VecDeque;
use std::sync::Arc;

/// A message under way to subscribers, with its place when it was logged.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) message: Arc<Message>,
    pub(crate) at: Option<(Epoch, Offset, Seq)>,
    /// Its number among those that may have to wait for a window; 0: it is logged, or QoS 0.
    pub(crate) number: u64,
}

impl Parcel {
    /// Where its stream has it.
    pub(crate) fn place(&self) -> Option<(Epoch, Offset)> {
        self.at.map(|(epoch, offset, _)| (epoch, offset))
    }
}

/// The seqs of logged messages whose pass is not over, in order of arrival, which is the order of seq.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    seqs: VecDeque<(Seq, bool)>,
    /// The last one that came.
    newest: Seq,
    /// Unlogged messages of QoS ≥ 1 whose pass is not over: number, the seq they are behind, whether it is over.
    unlogged: VecDeque<(u64, Seq, bool)>,
}

impl Passing {
    fn begin(&mut self, seq: Seq) {
        self.seqs.push_back((seq, false));
        self.newest = seq;
    }

    fn end(&mut self, seq: Seq) {
        let index = self.seqs.partition_point(|(other, _)| *other < seq);
        let (found, over) = &mut self.seqs[index];
        assert_eq!(*found, seq, "what ends has begun");
        *over = true;
        while matches!(self.seqs.front(), Some((_, true))) {
            self.seqs.pop_front();
        }
    }

    fn begin_unlogged(&mut self, number: u64, behind: Seq) {
        self.unlogged.push_back((number, behind, false));
    }

    fn end_unlogged(&mut self, number: u64) {
        let index = self.unlogged.partition_point(|(other, ..)| *other < number);
        let (found, _, over) = &mut self.unlogged[index];
        assert_eq!(*found, number, "what ends has begun");
        *over = true;
        while matches!(self.unlogged.front(), Some((.., true))) {
            self.unlogged.pop_front();
        }
    }

    /// Logged messages beyond this seq come behind an unlogged one that is on its way to its subscribers.
    pub(crate) fn first_unlogged(&self) -> Option<Seq> {
        self.unlogged.front().map(|(_, behind, _)| *behind)
    }

    /// The last logged message whose pass has begun.
    pub(crate) fn newest(&self) -> Seq {
        self.newest
    }

    /// Everything before this seq has been offered to all it concerns.
    pub(crate) fn first(&self) -> Option<Seq> {
        self.seqs.front().map(|(seq, _)| *seq)
    }
}

impl Gateway {
    /// Queues a message for its local subscribers.
    pub(super) fn fan_out(&mut self, app: AppId, name: &str, mut parcel: Parcel) -> Taken {
        if !self.fanout.has_room(app, name) {
            return Taken::Full;
        }
        if let Some((_, _, seq)) = parcel.at {
            self.passing.begin(seq);
        } else if parcel.message.qos >= Qos::AtLeastOnce {
            let behind = self.offered.max(self.passing.newest);
            parcel.number = self.lagging.push(Arc::clone(&parcel.message), behind);
            self.passing.begin_unlogged(parcel.number, behind);
        }
        assert!(self.fanout.submit(app, name, parcel).is_ok(), "there was room a moment ago");
        Taken::Yes
    }

    /// Visits at most `budget` subscribers; true when there is more to do.
    pub(super) fn run_fanout<D: Driver>(&mut self, core: &mut Core<D>, budget: usize) -> bool {
        if self.fanout.jobs() == 0 {
            return false;
        }
        // The job walks the lists while its visits change everything else.
        let mut fanout = std::mem::replace(&mut self.fanout, Fanout::new(self.hash.clone()));
        let mut subscribers = std::mem::replace(&mut self.subscribers, Subscribers::new(self.hash.clone()));
        let progress = fanout.run(budget, &mut subscribers, |step| match step {
            Step::Visit(visit) => self.visit(core, &visit),
            Step::Moved(moved) => self.relocate(moved),
            Step::Ended(parcels) => parcels.iter().for_each(|parcel| match parcel.at {
                Some((_, _, seq)) => self.passing.end(seq),
                None if parcel.number != 0 => self.passing.end_unlogged(parcel.number),
                None => {}
            }),
        });
        self.fanout = fanout;
        self.subscribers = subscribers;
        self.read_on(core);
        progress.more
    }

    /// A subscriber has another place in its list.
    pub(super) fn relocate(&mut self, moved: Moved) {
        if moved.session & GROUP != 0 {
            return self.relocate_group(moved);
        }
        let id = self.directory.id_at(moved.session).expect("lists hold live sessions");
        let session = self.directory.get_mut(id).expect("it was just found");
        session.relocate(moved.filter.0, moved.position);
    }

    fn visit<D: Driver>(&mut self, core: &mut Core<D>, visit: &Visit<'_, Parcel>) {
        if visit.session & GROUP != 0 {
            return self.visit_group(visit.session, visit.messages);
        }
        let Some(id) = self.directory.id_at(visit.session) else { return };
        let session = self.directory.get(id).expect("it was just found");
        let Some(connection) = session.connection().filter(|_| session.is_open()) else {
            return self.pass_by(core, id, visit);
        };
        let is_own = self.gap_notes.has(id.index) || self.slow.has(id.index) || session.protocol() == Protocol::Poll;
        let is_simple = visit.lists.len() == 1 && visit.topic != EVERYONE && !visit.options.no_local() && !is_own;
        if is_simple && session.subscriptions().iter().all(|subscription| subscription.identifier == 0) {
            return self.visit_simple(core, id, connection, visit);
        }
        let place =
            |filter: FilterId| session.subscriptions().iter().find(|s| s.filter == filter.0).map(|s| s.position);
        if visit.lists.len() > 1 && !visit.is_first(place) {
            return;
        }
        for parcel in visit.messages {
            self.visit_general(core, id, parcel);
        }
    }

    /// Who is away, or not open yet, reads on from its position when it is: it has to know that there is something.
    fn pass_by<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, visit: &Visit<'_, Parcel>) {
        let Some(seq) = visit.messages.iter().filter_map(|parcel| parcel.at).map(|(_, _, seq)| seq).max() else {
            return;
        };
        let position = self.position();
        self.tell_session(core, id, |session, effects| session.miss_topics(seq, position, effects));
    }

    /// One subscription, so its options are those of the list: the pass's encoded frames are copied.
    fn visit_simple<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        connection: ConnectionId,
        visit: &Visit<'_, Parcel>,
    ) {
        let session = self.directory.get(id).expect("it is visited");
        let frame_bytes_max = self.frame_bytes_max(session);
        let dialect = Dialect::of_topics(session);
        let wall_ms = core.now().wall_ms;
        let kind = self.flavours.find(visit.pass, dialect, visit.options, visit.messages, wall_ms);
        // A logged message moves the session's position, also at QoS 0.
        let is_plain = !session.is_replaying() && visit.messages.iter().all(|parcel| parcel.at.is_none());
        let is_packed = self.pack_pass(core, connection, kind, visit.messages);
        let flavour = self.flavours.of(kind);
        let goes_at_once = is_plain && flavour.frame_bytes <= frame_bytes_max;
        if goes_at_once && flavour.write_all(core, connection, is_packed) {
            self.counters.sent_many(Qos::AtMostOnce, flavour.frames.len(), flavour.all_bytes);
            return;
        }
        if goes_at_once && !is_packed && self.launch_all(core, id, kind, visit) {
            return;
        }
        for (index, parcel) in visit.messages.iter().enumerate() {
            let qos = self.flavours.of(kind).frames[index].qos;
            let offer = self.offer(core, id, parcel, qos);
            let delivery = match offer {
                Offer::Send(delivery) => Some((delivery, false)),
                Offer::SendOnce => None,
                Offer::Skipped(counter) => {
                    self.counters.session(counter);
                    continue;
                }
                Offer::AfterCommit | Offer::Behind | Offer::Passed | Offer::Full => continue,
            };
            let frame = &self.flavours.of(kind).frames[index];
            let (layout, bytes) = (frame.layout, frame.total_bytes);
            let why_not = if is_expired(&parcel.message, wall_ms) {
                Some(Counter::DroppedExpired)
            } else if frame.total_bytes > frame_bytes_max {
                Some(Counter::DroppedTooLarge)
            } else {
                None
            };
            match (delivery, why_not) {
                (None, Some(why)) => self.counters.session(why),
                (Some((delivery, _)), Some(why)) => self.settle_unsent(core, id, delivery, why),
                (None, None) => {
                    let session = self.directory.get(id).expect("it is visited");
                    let waits = self.must_not_pass(id.index, session, parcel.place());
                    if self.waits_behind(core, id, &parcel.message, parcel.place()) {
                        continue;
                    }
                    let stamp = self.stamp(id, &layout, None);
                    if !waits && self.write_flavour(core, connection, kind, (index, is_packed), stamp) {
                        self.counters.sent(Qos::AtMostOnce, bytes);
                    } else {
                        self.found_no_room(core, id, &parcel.message, parcel.place());
                    }
                }
                (Some((delivery, dup)), None) => {
                    let stamp = self.stamp(id, &layout, Some((delivery, dup)));
                    if !self.unsent.has(id.index)
                        && self.write_flavour(core, connection, kind, (index, is_packed), stamp)
                    {
                        self.counters.sent(qos, bytes);
                        self.handed_over(core, id, delivery);
                    } else {
                        self.unsent.push(id.index, delivery, dup);
                        self.wait_for_outbox(core, connection);
                    }
                }
            }
        }
    }

    /// Writes all messages of a pass at once, none of which is logged, and takes each into the session's window as it is
    /// written. False: they are not alike, or there is something to ask about one of them, and nothing was done.
    fn launch_all<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        kind: Kind,
        visit: &Visit<'_, Parcel>,
    ) -> bool {
        let flavour = self.flavours.of(kind);
        let Some(qos @ (Qos::AtLeastOnce | Qos::ExactlyOnce)) =
            flavour.qos_at(core.now().wall_ms).filter(|_| flavour.is_whole)
        else {
            return false;
        };
        let session = self.directory.get(id).expect("it is visited");
        let Some(connection) = session.connection().filter(|_| session.takes_volatile(qos, flavour.frames.len()))
        else {
            return false;
        };
        let waits = session.is_behind_in_topics() || self.lagging.is_behind(id.index) || self.unsent.has(id.index);
        if waits || !core.has_outbox_room(connection, Room::Data, flavour.all_bytes) {
            return false;
        }
        let mut effects = self.take_effects();
        let session = self.directory.get_mut(id).expect("it was just found");
        let flavour = self.flavours.of(kind);
        let written = core.write(connection, Room::Data, flavour.all_bytes, |out| {
            out.copy_from_slice(&flavour.bytes);
            for (parcel, frame) in visit.messages.iter().zip(&flavour.frames) {
                let delivery = session.launch_volatile(&parcel.message, qos, &mut effects);
                patch(&frame.layout, Stamp::Delivery(delivery, false), &mut out[frame.start..frame.end]);
            }
        });
        if written.is_ok() {
            self.counters.sent_many(qos, flavour.frames.len(), flavour.all_bytes);
        }
        self.give_effects(effects);
        written.is_ok()
    }

    /// Writes one message of a pass as a flavour has it; false: it found no room.
    fn write_flavour<D: Driver>(
        &self,
        core: &mut Core<D>,
        connection: ConnectionId,
        kind: Kind,
        which: (usize, bool),
        stamp: Stamp,
    ) -> bool {
        self.flavours.of(kind).write_one(core, connection, which, stamp).is_ok()
    }

    /// Several subscriptions, identifiers, or No Local: the session says what it wants of each message.
    fn visit_general<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, parcel: &Parcel) {
        let Some(session) = self.directory.get(id) else { return };
        let Some(effective) = session.effective(&parcel.message.topic, parcel.message.publisher) else {
            return;
        };
        let qos = effective.qos.min(parcel.message.qos);
        match self.offer(core, id, parcel, qos) {
            Offer::Send(delivery) => self.deliver_in_flight(core, id, delivery, false),
            Offer::SendOnce => drop(self.deliver_once(core, id, &parcel.message, parcel.place())),
            Offer::Skipped(counter) => self.counters.session(counter),
            Offer::AfterCommit | Offer::Behind | Offer::Passed | Offer::Full => {}
        }
    }

    /// Offers a message of a pass to a session. One that is being sent retained messages must not have older ones of the
    /// topic behind this one.
    fn offer<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, parcel: &Parcel, qos: Qos) -> Offer {
        let offer = self.offer_parcel(core, id, parcel, qos);
        self.note_live(id, &parcel.message, offer);
        offer
    }

    fn offer_parcel<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, parcel: &Parcel, qos: Qos) -> Offer {
        let Some((epoch, offset, seq)) = parcel.at else {
            if qos == Qos::AtMostOnce {
                return Offer::SendOnce;
            }
            let session = self.directory.get(id).expect("it is visited");
            let is_behind = session.is_behind_in_topics() || self.lagging.is_behind(id.index);
            // What is dropped anyway is dropped now: what is retained may be just that one.
            let offer = if is_behind && !session.drops_volatile(qos) {
                Offer::Full
            } else {
                self.offer_in_pass(core, id, |session, effects| session.offer_volatile(&parcel.message, qos, effects))
            };
            if offer == Offer::Full {
                self.lag(id, parcel.number);
            }
            return offer;
        };
        let earlier_is_under_way = self.passing.first().is_some_and(|first| first < seq);
        let session = self.directory.get(id).expect("it is visited");
        let earlier_waits = self.lagging.is_behind(id.index);
        if earlier_waits || earlier_is_under_way && may_be_in_another_pass(session) {
            let position = self.position();
            return self.offer_in_pass(core, id, |session, effects| {
                session.miss_topics(seq, position, effects);
                Offer::Behind
            });
        }
        self.offer_in_pass(core, id, |session, effects| {
            session.offer_logged(LoggedAt::Topics(seq), (epoch, offset), &parcel.message, qos, effects)
        })
    }

    fn offer_in_pass<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        call: impl FnOnce(&mut Session, &mut crate::session::Effects) -> Offer,
    ) -> Offer {
        let mut effects = self.take_effects();
        let session = self.directory.get_mut(id).expect("it is visited");
        let connection = session.connection();
        let offer = call(session, &mut effects);
        if !effects.list.is_empty() {
            self.apply(core, Some(id), connection, &mut effects);
        }
        self.give_effects(effects);
        offer
    }
}

/// Whether messages of two topics may concern the session: all but those with one exact filter.
fn may_be_in_another_pass(session: &Session) -> bool {
    let mut filters = session.subscriptions().iter().filter(|subscription| !is_inbox(&subscription.text));
    let one = filters.next().is_none_or(|subscription| !is_wildcard(&subscription.text));
    let has_inbox = session.subscriptions().iter().any(|subscription| is_inbox(&subscription.text));
    !one || filters.next().is_some() || has_inbox
}
