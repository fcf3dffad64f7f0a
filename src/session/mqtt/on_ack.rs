//! PUBACK, PUBREC and PUBCOMP: the client's answers to deliveries.

use super::super::core::settle::Acked;
use super::super::{Effects, Session};
use super::frame;
use crate::wire::mqtt::{Ack, AckKind, PacketId, Reason};

/// An acknowledgement of nothing is counted and otherwise ignored: it may be late, from before a clean start.
pub(super) fn on_puback(session: &mut Session, packet_id: PacketId, reason: Reason, effects: &mut Effects) {
    session.on_received_once(packet_id.get(), reason.is_error(), effects);
}

pub(super) fn on_pubrec(session: &mut Session, ack: &Ack<'_>, effects: &mut Effects) {
    let id = ack.packet_id.get();
    match session.on_delivered(id, ack.reason.is_error(), effects) {
        Acked::Done => {}
        Acked::Release => frame::ack(session, AckKind::PubRel, id, Reason::Success, effects),
        // So that the client can forget it, too [MQTT-4.3.3-4] (§3.6.2.1).
        Acked::Unknown if ack.reason.is_error() => {}
        Acked::Unknown => frame::ack(session, AckKind::PubRel, id, Reason::PacketIdentifierNotFound, effects),
    }
}

pub(super) fn on_pubcomp(session: &mut Session, ack: &Ack<'_>, effects: &mut Effects) {
    session.on_completed(ack.packet_id.get(), effects);
}
