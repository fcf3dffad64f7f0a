//! Control frames on their way out.

use super::super::core::state::{State, flag};
use super::super::{CloseReason, Effect, Effects, Session};
use crate::wire::mqtt::properties::{AckProperties, DisconnectProperties};
use crate::wire::mqtt::{Ack, AckKind, Disconnect, Encode, PacketId, Reason, Version};

/// What the client at the other end takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    version: Version,
    /// It wants to be told what was wrong.
    explains: bool,
    /// Its Maximum Packet Size.
    bytes_max: usize,
}

pub(super) fn terms(session: &Session) -> Terms {
    Terms {
        version: version(session),
        explains: session.is_mqtt5() && !session.has(flag::UNEXPLAINED),
        bytes_max: usize::try_from(session.packet_bytes_max()).unwrap_or(usize::MAX),
    }
}

impl Terms {
    /// The text to send along with a failure, if the client wants one and the packet that `with` makes of it is not
    /// larger than the client takes `[MQTT-3.1.2-29]`, `[MQTT-3.4.2-2]`.
    fn explained<P: Encode>(&self, why: Option<&'static str>, with: impl Fn(Option<&'static str>) -> P) -> P {
        match why.filter(|_| self.explains) {
            Some(why) if with(Some(why)).encoded_len(self.version) <= self.bytes_max => with(Some(why)),
            _ => with(None),
        }
    }
}

pub(super) fn version(session: &Session) -> Version {
    if session.is_mqtt5() { Version::V5 } else { Version::V311 }
}

/// Encodes a frame of at most 5 bytes: a CONNACK is longer, and who does not take that has no connection.
pub(super) fn send(session: &Session, packet: &impl Encode, effects: &mut Effects) {
    send_as(version(session), packet, effects);
}

/// Encodes an answer that may explain itself. One that is larger than the client takes even without a word is not
/// sent `[MQTT-3.1.2-24]`: the connection closes, for the client would wait for it.
pub(super) fn answer<P: Encode>(
    session: &mut Session,
    why: Option<&'static str>,
    with: impl Fn(Option<&'static str>) -> P,
    effects: &mut Effects,
) {
    let terms = terms(session);
    let packet = terms.explained(why, with);
    if packet.encoded_len(terms.version) > terms.bytes_max {
        let why = "the answer is larger than the client's maximum packet size";
        return close_with(session, Reason::PacketTooLarge, CloseReason::PacketTooLarge, Some(why), effects);
    }
    send_as(terms.version, &packet, effects);
}

/// Neighbouring frames become one range, and so one copy into the outbox.
fn send_as(version: Version, packet: &impl Encode, effects: &mut Effects) {
    let start = effects.control.len();
    packet.encode_to(version, &mut effects.control);
    let end = effects.control.len();
    match effects.list.last_mut() {
        Some(Effect::Frames(range)) if range.end == start => range.end = end,
        _ => effects.push(Effect::Frames(start..end)),
    }
}

/// An acknowledgement; 3.1.1 has no reasons.
pub(super) fn ack(session: &Session, kind: AckKind, id: u16, reason: Reason, effects: &mut Effects) {
    ack_as(terms(session), kind, id, reason, effects);
}

/// As [`ack`], where the session is being changed.
pub(super) fn ack_as(terms: Terms, kind: AckKind, id: u16, reason: Reason, effects: &mut Effects) {
    let packet_id = PacketId::new(id).expect("0 is never a packet identifier");
    let mut ack = Ack { reason, ..Ack::success(kind, packet_id) };
    if reason.is_error() {
        ack = terms.explained(ack_text(reason), |why| Ack {
            properties: AckProperties { reason_string: why, ..AckProperties::default() },
            ..ack
        });
    }
    send_as(terms.version, &ack, effects);
}

/// What an acknowledgement's reason code means here.
fn ack_text(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::NotAuthorized => Some("the client may not publish to this topic"),
        Reason::TopicNameInvalid => Some("the topic has more levels or bytes than are taken"),
        Reason::PacketIdentifierNotFound => Some("no message in flight has this packet identifier"),
        Reason::PayloadFormatInvalid => Some("the payload is not the UTF-8 it is said to be"),
        Reason::QuotaExceeded => Some("too much is waiting to be stored"),
        Reason::ImplementationSpecific => Some("it could not be stored"),
        _ => None,
    }
}

/// The peer's fault: MQTT 5 is told which, then the connection closes [MQTT-4.13.1-1].
pub(super) fn fail(session: &mut Session, reason: Reason, why: &'static str, effects: &mut Effects) {
    let close = match reason {
        Reason::PacketTooLarge => CloseReason::PacketTooLarge,
        Reason::ReceiveMaximumExceeded => CloseReason::ReceiveMaximum,
        _ => CloseReason::ProtocolError,
    };
    close_with(session, reason, close, Some(why), effects);
}

pub(super) fn close_with(
    session: &mut Session,
    reason: Reason,
    close: CloseReason,
    why: Option<&'static str>,
    effects: &mut Effects,
) {
    close_for(session, close, effects, |terms| {
        terms.explained(why, |why| Disconnect {
            properties: DisconnectProperties { reason_string: why, ..DisconnectProperties::default() },
            ..Disconnect::new(reason)
        })
    });
}

/// Closes with a DISCONNECT, where there may be one.
fn close_for<'a>(
    session: &mut Session,
    close: CloseReason,
    effects: &mut Effects,
    goodbye: impl FnOnce(Terms) -> Disconnect<'a>,
) {
    if !matches!(session.state, State::Open | State::Opening) {
        return;
    }
    // Before CONNACK there is nothing a server may say but CONNACK [MQTT-3.14.0-1].
    if session.is_mqtt5() && session.state == State::Open {
        send(session, &goodbye(terms(session)), effects);
    }
    session.state = State::Closing;
    effects.push(Effect::Close(close));
}

/// Sends the client to another server (§4.11).
pub(super) fn redirect(session: &mut Session, close: CloseReason, reference: &str, effects: &mut Effects) {
    close_for(session, close, effects, |terms| {
        let mut goodbye = Disconnect::new(Reason::UseAnotherServer);
        goodbye.properties.server_reference = Some(reference);
        if goodbye.encoded_len(terms.version) > terms.bytes_max {
            goodbye.properties.server_reference = None;
        }
        goodbye
    });
}
