//! Messages into outboxes. What a turn brings a connection is copied, one frame behind the other, into the block that
//! the turn flushes.

use super::flavours::{Frame, encode_frame, is_expired};
use super::gateway::{Core, Gateway};
use crate::base::ids::{ConnectionId, Qos, SessionId};
use crate::base::message::Message;
use crate::engine::{Close, CloseCause, Refused, Room};
use crate::io::Driver;
use crate::session::{Counter, DeliveryId, Effective, LoggedAt, RETAIN_AS_PUBLISHED, Session};
use crate::wire::mqtt::{PacketId, Version};
use smallvec::SmallVec;
use std::sync::Arc;

/// The version a session's connection speaks.
pub(super) fn version_of(session: &Session) -> Version {
    if session.is_mqtt5() { Version::V5 } else { Version::V311 }
}

/// Copies an encoded frame into a connection's outbox, with its own few bytes in place.
pub(super) fn write_frame<D: Driver>(
    core: &mut Core<D>,
    connection: ConnectionId,
    bytes: &[u8],
    frame: &Frame,
    delivery: Option<(DeliveryId, bool)>,
) -> Result<(), Refused> {
    let head = &bytes[frame.start..frame.end];
    if let Some(payload) = &frame.payload
        && core.outbox_room(connection) < head.len() + payload.len()
    {
        return Err(Refused::Full);
    }
    core.write(connection, Room::Data, head.len(), |out| {
        out.copy_from_slice(head);
        if let Some((delivery, dup)) = delivery {
            let retain = out[0] & 1 != 0;
            frame.layout.patch(out, PacketId::new(delivery.0), dup, retain);
        }
    })?;
    if let Some(payload) = &frame.payload {
        // A head without its payload would make nonsense of all that follows.
        if core.write_shared(connection, Room::Data, payload).is_err() {
            core.close(connection, Close::Now, CloseCause::OutOfBlocks);
        }
    }
    Ok(())
}

/// What a delivery says besides its message.
struct Wanted {
    identifiers: SmallVec<[u32; 1]>,
    retain: bool,
}

impl Wanted {
    /// As all of the session's matching subscriptions together want it [MQTT-3.3.1-12], [MQTT-3.3.1-13].
    fn live(session: &Session, message: &Message, publisher: Option<u64>) -> Self {
        match session.effective(&message.topic, publisher) {
            Some(Effective { retain_as_published, identifiers, .. }) => {
                Self { identifiers, retain: message.retain && retain_as_published }
            }
            None => Self { identifiers: SmallVec::new(), retain: false },
        }
    }

    /// Retained, and sent because of one new subscription [MQTT-3.3.1-8].
    fn retained(identifier: u32) -> Self {
        let identifiers = (identifier > 0).then_some(identifier).into_iter().collect();
        Self { identifiers, retain: true }
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
            Some((message, flight.qos, flight.at))
        });
        let Some((message, qos, place)) = found else {
            // Acknowledged while it waited for the outbox.
            return true;
        };
        if !dup && is_expired(&message, wall_ms) {
            self.settle_unsent(core, id, delivery, Counter::DroppedExpired);
            return true;
        }
        let wanted = match place {
            Some(LoggedAt::Retained(identifier)) => Wanted::retained(identifier),
            Some(LoggedAt::Shared { mark, .. }) => Wanted::shared(&message, mark),
            _ => Wanted::live(session, &message, None),
        };
        let mut bytes = std::mem::take(&mut self.scratch);
        let written = match self.encode_for(id, &message, qos, &wanted, wall_ms, &mut bytes) {
            None => {
                self.settle_unsent(core, id, delivery, Counter::DroppedTooLarge);
                true
            }
            Some((frame, names_gaps)) => {
                let written = write_frame(core, connection, &bytes, &frame, Some((delivery, dup))).is_ok();
                if written {
                    self.counters.sent(qos);
                    self.gaps_told(id, names_gaps);
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
        self.tell_session(core, id, |session, effects| session.settle_unsent(delivery, why, effects));
        if self.lagging.is_behind(id.index) && self.freed.last() != Some(&id) {
            self.freed.push(id);
        }
    }

    /// Sends a message once, at QoS 0, to one session; what finds no room is dropped and counted.
    pub(super) fn deliver_once<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, message: &Arc<Message>) {
        let Some(session) = self.directory.get(id) else { return };
        let wanted = Wanted::live(session, message, message.publisher);
        self.send_once(core, id, message, &wanted);
    }

    /// As [`Gateway::deliver_once`], of a retained message for a subscription with this identifier.
    pub(super) fn deliver_retained<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        identifier: u32,
    ) {
        self.send_once(core, id, message, &Wanted::retained(identifier));
    }

    /// As [`Gateway::deliver_once`], for a shared subscription of this mark.
    pub(super) fn deliver_shared_once<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        mark: u32,
    ) {
        self.send_once(core, id, message, &Wanted::shared(message, mark));
    }

    fn send_once<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, message: &Arc<Message>, wanted: &Wanted) {
        let wall_ms = core.now().wall_ms;
        let Some(session) = self.directory.get(id) else { return };
        let Some(connection) = session.connection() else { return };
        if is_expired(message, wall_ms) {
            return self.counters.session(Counter::DroppedExpired);
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        match self.encode_for(id, message, Qos::AtMostOnce, wanted, wall_ms, &mut bytes) {
            None => self.counters.session(Counter::DroppedTooLarge),
            Some((frame, names_gaps)) => match write_frame(core, connection, &bytes, &frame, None) {
                Ok(()) => {
                    self.counters.sent(Qos::AtMostOnce);
                    self.gaps_told(id, names_gaps);
                }
                Err(_) => self.counters.dropped_outbox_full += 1,
            },
        }
        self.scratch = bytes;
    }

    /// Encodes a message for one session, and says whether it names the session's gaps. None: it is longer than the
    /// client takes.
    fn encode_for(
        &self,
        id: SessionId,
        message: &Message,
        qos: Qos,
        wanted: &Wanted,
        wall_ms: u64,
        bytes: &mut Vec<u8>,
    ) -> Option<(Frame, bool)> {
        let session = self.directory.get(id)?;
        let mut encode = |message: &Message| {
            bytes.clear();
            let (version, identifiers) = (version_of(session), &wanted.identifiers[..]);
            let frame = encode_frame(version, message, qos, wanted.retain, identifiers, wall_ms, bytes);
            (frame.layout.total_bytes <= session.packet_bytes_max() as usize).then_some(frame)
        };
        // What is too long with the gaps goes without them, and they with a later one.
        let noted = self.gap_notes.noted(id.index, message).and_then(|noted| encode(&noted));
        match noted {
            Some(frame) => Some((frame, true)),
            None => encode(message).map(|frame| (frame, false)),
        }
    }

    fn gaps_told(&mut self, id: SessionId, names_gaps: bool) {
        if names_gaps {
            self.gap_notes.forget(id.index);
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
    }
}
