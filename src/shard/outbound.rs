//! Messages into outboxes. What a turn brings a connection is copied, one frame behind the other, into the block that
//! the turn flushes.

use super::command::Receipt;
use super::flavours::{Dialect, Frame, Layout, Own, encode_frame, is_expired};
use super::gateway::{Core, Gateway};
use crate::base::ids::{ConnectionId, Epoch, Offset, Qos, SessionId};
use crate::base::message::Message;
use crate::engine::{Close, CloseCause, Refused, Room};
use crate::io::Driver;
use crate::session::{
    Counter, DeliveryId, Effective, LoggedAt, Naming, Protocol, RETAIN_AS_PUBLISHED, Session, protocol,
};
use crate::wire::mqtt::PacketId;
use crate::wire::sse::Token;
use smallvec::SmallVec;
use std::sync::Arc;

/// What of a frame is a connection's own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stamp {
    None,
    /// A message of its window, and whether it may have been sent before.
    Delivery(DeliveryId, bool),
    /// Where it stands.
    Token(Token),
}

/// Copies an encoded frame into a connection's outbox, with its own few bytes in place.
pub(super) fn write_frame<D: Driver>(
    core: &mut Core<D>,
    connection: ConnectionId,
    bytes: &[u8],
    frame: &Frame,
    stamp: Stamp,
) -> Result<(), Refused> {
    let head = &bytes[frame.start..frame.end];
    let room = if frame.qos == Qos::AtMostOnce { Room::Spare } else { Room::Data };
    if let Some(payload) = &frame.payload
        && !core.has_room_for(connection, room, head.len(), payload)
    {
        return Err(Refused::Full);
    }
    core.write(connection, room, head.len(), |out| {
        out.copy_from_slice(head);
        patch(&frame.layout, stamp, out);
    })?;
    if let Some(payload) = &frame.payload {
        // A head without its payload would make nonsense of all that follows.
        if core.write_shared(connection, room, payload).is_err() {
            core.close(connection, Close::Now, CloseCause::OutOfBlocks);
        }
    }
    Ok(())
}

/// Makes the beginning of a frame a connection's own.
pub(super) fn patch(layout: &Layout, stamp: Stamp, out: &mut [u8]) {
    match (layout, stamp) {
        (Layout::Mqtt(layout), Stamp::Delivery(delivery, dup)) => {
            let retain = out[0] & 1 != 0;
            layout.patch(out, PacketId::new(delivery.0), dup, retain);
        }
        (Layout::Sse(layout), Stamp::Token(token)) => layout.patch(out, &token),
        (_, Stamp::None) => {}
        (layout, stamp) => unreachable!("{stamp:?} was made for another layout than {layout:?}"),
    }
}

/// What became of a message that is sent once or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Yes,
    /// Nothing is counted yet.
    NoRoom,
    /// For a reason that is counted.
    Dropped,
}

/// What a delivery says besides its message.
struct Manner {
    qos: Qos,
    /// Where its stream has it; none: it is not logged.
    place: Option<(Epoch, Offset)>,
    identifiers: SmallVec<[u32; 1]>,
    retain: bool,
}

impl Manner {
    /// As all of the session's matching subscriptions together want it [MQTT-3.3.1-12], [MQTT-3.3.1-13].
    fn live(session: &Session, message: &Message) -> Self {
        match session.effective(&message.topic, message.publisher) {
            Some(Effective { retain_as_published, identifiers, .. }) => {
                Self { identifiers, retain: message.retain && retain_as_published, ..Self::once() }
            }
            None => Self::once(),
        }
    }

    /// Retained, and sent because of one new subscription [MQTT-3.3.1-8].
    fn retained(identifier: u32) -> Self {
        let identifiers = (identifier > 0).then_some(identifier).into_iter().collect();
        Self { identifiers, retain: true, ..Self::once() }
    }

    /// Once, at QoS 0, and nothing more.
    fn once() -> Self {
        Self { qos: Qos::AtMostOnce, place: None, identifiers: SmallVec::new(), retain: false }
    }

    /// As one shared subscription wants it.
    fn shared(message: &Message, mark: u32) -> Self {
        let retain = message.retain && mark & RETAIN_AS_PUBLISHED != 0;
        Self { retain, ..Self::retained(mark & !RETAIN_AS_PUBLISHED) }
    }
}

impl Gateway {
    /// Sends, or sends again, a message of a session's window.
    pub(super) fn deliver_in_flight<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        session: SessionId,
        delivery: DeliveryId,
        dup: bool,
    ) {
        if self.unsent.has(session.index) || !self.send_in_flight(core, session, delivery, dup) {
            self.unsent.push(session.index, delivery, dup);
        }
    }

    /// False: the outbox is full, and will tell when it has drained.
    fn send_in_flight<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        delivery: DeliveryId,
        dup: bool,
    ) -> bool {
        let wall_ms = core.now().wall_ms;
        let Some(session) = self.directory.get(id) else { return true };
        let Some(connection) = session.connection() else { return true };
        let found = session.in_flight(delivery).and_then(|flight| {
            let message = Arc::clone(flight.message.as_ref()?);
            Some((message, flight.qos, flight.at, session.place_of(delivery)))
        });
        let Some((message, qos, at, place)) = found else {
            // Acknowledged while it waited for the outbox.
            return true;
        };
        if !dup && is_expired(&message, wall_ms) {
            self.settle_unsent(core, id, delivery, Counter::DroppedExpired);
            return true;
        }
        if session.protocol() == Protocol::Poll {
            self.gather_in_flight(core, id, delivery, &message, place);
            return true;
        }
        let manner = match at {
            Some(LoggedAt::Retained(identifier)) => Manner::retained(identifier),
            Some(LoggedAt::Shared { mark, .. }) => Manner::shared(&message, mark),
            _ => Manner::live(session, &message),
        };
        let manner = Manner { qos, place, ..manner };
        let mut bytes = std::mem::take(&mut self.scratch);
        let written = match self.encode_for(id, &message, &manner, wall_ms, &mut bytes) {
            None => {
                self.settle_unsent(core, id, delivery, Counter::DroppedTooLarge);
                true
            }
            Some((frame, naming, names_gaps)) => {
                let stamp = self.stamp(id, &frame.layout, Some((delivery, dup)));
                let encoded = (&*bytes, &frame, &message.payload);
                let written = self.write_encoded(core, connection, encoded, stamp).is_ok();
                if written {
                    self.counters.sent(qos, frame.total_bytes);
                    self.named(id, &message, naming);
                    self.gaps_told(id, names_gaps);
                    self.handed_over(core, id, delivery);
                } else {
                    self.wait_for_outbox(core, connection);
                }
                written
            }
        };
        self.scratch = bytes;
        written
    }

    /// Settles what cannot be sent. The window's room is for what waits unlogged, but not here: this may be in the middle
    /// of an offer of just that.
    pub(super) fn settle_unsent<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        delivery: DeliveryId,
        why: Counter,
    ) {
        let flight = self.directory.get(id).and_then(|session| session.in_flight(delivery));
        let at = flight.and_then(|flight| flight.at);
        let topic = flight.and_then(|flight| flight.message.as_ref()).map(|message| Arc::clone(&message.topic));
        if let Some(topic) = topic.filter(|_| why == Counter::DroppedExpired) {
            self.notice_receipt(id, at, &topic, (Receipt::Expired, 1), core.now());
        }
        self.tell_session(core, id, |session, effects| {
            protocol::settle_unsent(session, delivery, why, effects);
        });
        if self.lagging.is_behind(id.index) && self.freed.last() != Some(&id) {
            self.freed.push(id);
        }
        if let Some(at) = at {
            self.settled_for(core, id, at, false);
        }
    }

    /// Sends a message once, at QoS 0, to one session; what finds no room is dropped and counted. True: it goes.
    pub(super) fn deliver_once<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        place: Option<(Epoch, Offset)>,
    ) -> bool {
        if self.waits_behind(core, id, message, place) {
            return false;
        }
        if self.is_without_room(core, id, message) {
            self.found_no_room(core, id, message, place);
            return false;
        }
        match self.send_live(core, id, message, place) {
            Sent::Yes => return true,
            Sent::NoRoom => self.found_no_room(core, id, message, place),
            Sent::Dropped => {}
        }
        false
    }

    /// Sends a message that has waited for room; false: it waits on.
    pub(super) fn send_waiting<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        place: Option<(Epoch, Offset)>,
    ) -> bool {
        self.send_live(core, id, message, place) != Sent::NoRoom
    }

    fn send_live<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        place: Option<(Epoch, Offset)>,
    ) -> Sent {
        let Some(session) = self.directory.get(id) else { return Sent::Dropped };
        let manner = Manner { place, ..Manner::live(session, message) };
        self.send_once(core, id, message, &manner)
    }

    /// As [`Gateway::deliver_once`], of a retained message for a subscription with this identifier.
    pub(super) fn deliver_retained<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        identifier: u32,
    ) {
        self.send_or_drop(core, id, message, &Manner::retained(identifier));
    }

    /// As [`Gateway::deliver_once`], for a shared subscription of this mark.
    pub(super) fn deliver_shared_once<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        mark: u32,
    ) {
        self.send_or_drop(core, id, message, &Manner::shared(message, mark));
    }

    fn send_or_drop<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, message: &Arc<Message>, manner: &Manner) {
        if self.send_once(core, id, message, manner) == Sent::NoRoom {
            self.counters.dropped_outbox_full += 1;
        }
    }

    fn send_once<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        manner: &Manner,
    ) -> Sent {
        let wall_ms = core.now().wall_ms;
        let Some(session) = self.directory.get(id) else { return Sent::Dropped };
        let Some(connection) = session.connection() else { return Sent::Dropped };
        if is_expired(message, wall_ms) {
            self.counters.session(Counter::DroppedExpired);
            return Sent::Dropped;
        }
        if session.protocol() == Protocol::Poll {
            return if self.gather_once(core, id, message, manner.place) { Sent::Yes } else { Sent::Dropped };
        }
        if self.must_not_pass(id.index, session, manner.place) {
            return Sent::NoRoom;
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        let encoded = self.encode_for(id, message, manner, wall_ms, &mut bytes);
        let is_written = encoded.as_ref().is_some_and(|(frame, ..)| {
            let stamp = self.stamp(id, &frame.layout, None);
            self.write_encoded(core, connection, (&bytes, frame, &message.payload), stamp).is_ok()
        });
        self.scratch = bytes;
        match encoded {
            None => {
                self.counters.session(Counter::DroppedTooLarge);
                Sent::Dropped
            }
            Some((frame, naming, names_gaps)) if is_written => {
                self.counters.sent(Qos::AtMostOnce, frame.total_bytes);
                self.named(id, message, naming);
                self.gaps_told(id, names_gaps);
                Sent::Yes
            }
            Some(_) => Sent::NoRoom,
        }
    }

    /// A message has left under this name: an alias it introduced may be used from now on.
    fn named(&mut self, id: SessionId, message: &Message, naming: Naming) {
        if let Naming::NameAndAlias(_) = naming
            && let Some(session) = self.directory.get_mut(id)
        {
            session.alias_sent(&message.topic);
        }
    }

    /// Longest frame that this session can be sent. An event stream's client has not said, but what is longer than the
    /// outbox would wait for ever.
    pub(super) fn frame_bytes_max(&self, session: &Session) -> usize {
        match session.protocol().acknowledges() {
            true => session.packet_bytes_max() as usize,
            false => self.settings.limits.outbox_bytes,
        }
    }

    /// Whether a logged message of QoS 0 would tell its client a position beyond one that still waits for the outbox.
    pub(super) fn must_not_pass(&self, index: u32, session: &Session, place: Option<(Epoch, Offset)>) -> bool {
        place.is_some() && !session.protocol().acknowledges() && self.unsent.has(index)
    }

    /// Encodes a message for one session, as its subscriptions and its client want it: the frame, how it names the
    /// topic, and whether it names the session's gaps. None: it is longer than the client takes.
    fn encode_for(
        &self,
        id: SessionId,
        message: &Message,
        manner: &Manner,
        wall_ms: u64,
        bytes: &mut Vec<u8>,
    ) -> Option<(Frame, Naming, bool)> {
        let session = self.directory.get(id)?;
        let Manner { qos, place, ref identifiers, retain } = *manner;
        let naming = session.naming(&message.topic);
        // An alias that is new makes a message longer; nothing is too long for its sake.
        let namings = if matches!(naming, Naming::NameAndAlias(_)) { 2 } else { 1 };
        let dialect = Dialect::of_message(session, place);
        let mut encode = |message: &Message| {
            [naming, Naming::Name].into_iter().take(namings).find_map(|naming| {
                bytes.clear();
                let own = Own { qos, retain, identifiers, naming };
                let frame = encode_frame(dialect, message, place, own, wall_ms, bytes);
                (frame.total_bytes <= self.frame_bytes_max(session)).then_some((frame, naming))
            })
        };
        // What is too long with the gaps goes without them, and they with a later one.
        let noted = self.gap_notes.noted(id.index, message);
        let noted = self.slow.noted(id.index, noted.as_ref().unwrap_or(message)).or(noted);
        let noted = noted.and_then(|noted| encode(&noted));
        match noted {
            Some((frame, naming)) => Some((frame, naming, true)),
            None => encode(message).map(|(frame, naming)| (frame, naming, false)),
        }
    }

    fn gaps_told(&mut self, id: SessionId, names_gaps: bool) {
        if names_gaps {
            self.gap_notes.forget(id.index);
            self.slow.told(id.index);
        }
    }

    /// A message of a window was refused: it goes when the outbox has drained or, if that is empty and the pool was
    /// the reason, a little later.
    pub(super) fn wait_for_outbox<D: Driver>(&mut self, core: &mut Core<D>, connection: ConnectionId) {
        if !core.ask_drained(connection) {
            self.refused.push(connection);
        }
    }

    /// Tries again what the pool refused.
    pub(super) fn retry_refused<D: Driver>(&mut self, core: &mut Core<D>) {
        for connection in std::mem::take(&mut self.refused) {
            self.drained(core, connection);
        }
    }

    /// A connection's outbox has drained: send what waited for it.
    pub(super) fn drained<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId) {
        let Some(session) = core.tag(id).and_then(|tag| self.session_of(id, tag)) else { return };
        self.go_on_reading_retained(core, session);
        let mut waiting = self.unsent.take(session.index);
        while let Some((delivery, dup)) = waiting.pop_front() {
            if !self.send_in_flight(core, session, delivery, dup) {
                self.unsent.push(session.index, delivery, dup);
                waiting.drain(..).for_each(|(delivery, dup)| self.unsent.push(session.index, delivery, dup));
            }
        }
        if !self.unsent.has(session.index) {
            self.send_slow(core, session);
        }
        // Who does not acknowledge has room in its window by that.
        self.catch_up(core, session);
    }
}
