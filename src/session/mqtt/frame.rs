//! Control frames on their way out.

use super::super::core::state::State;
use super::super::{CloseReason, Effect, Effects, Session};
use crate::wire::mqtt::{Ack, AckKind, Disconnect, Encode, PacketId, Reason, Version};

pub(super) fn version(session: &Session) -> Version {
    if session.is_mqtt5() { Version::V5 } else { Version::V311 }
}

/// Encodes a frame for the session's connection.
pub(super) fn send(session: &Session, packet: &impl Encode, effects: &mut Effects) {
    send_as(version(session), packet, effects);
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
    ack_as(session.is_mqtt5(), kind, id, reason, effects);
}

/// As [`ack`], where the session is being changed.
pub(super) fn ack_as(mqtt5: bool, kind: AckKind, id: u16, reason: Reason, effects: &mut Effects) {
    let packet_id = PacketId::new(id).expect("0 is never a packet identifier");
    let version = if mqtt5 { Version::V5 } else { Version::V311 };
    send_as(version, &Ack { reason, ..Ack::success(kind, packet_id) }, effects);
}

/// The peer's fault: MQTT 5 is told which, then the connection closes [MQTT-4.13.1-1].
pub(super) fn fail(session: &mut Session, reason: Reason, effects: &mut Effects) {
    let close = match reason {
        Reason::PacketTooLarge => CloseReason::PacketTooLarge,
        Reason::ReceiveMaximumExceeded => CloseReason::ReceiveMaximum,
        _ => CloseReason::ProtocolError,
    };
    close_with(session, reason, close, effects);
}

pub(super) fn close_with(session: &mut Session, reason: Reason, close: CloseReason, effects: &mut Effects) {
    if !matches!(session.state, State::Open | State::Opening) {
        return;
    }
    // Before CONNACK there is nothing a server may say but CONNACK.
    if session.is_mqtt5() && session.state == State::Open {
        send(session, &Disconnect::new(reason), effects);
    }
    session.state = State::Closing;
    effects.push(Effect::Close(close));
}
