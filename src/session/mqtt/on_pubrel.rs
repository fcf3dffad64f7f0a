//! PUBREL: the client lets go of a QoS 2 identifier. Durable point (4).

use super::super::core::record;
use super::super::core::state::Purpose;
use super::super::{Effect, Effects, Session};
use super::frame;
use crate::wire::mqtt::{Ack, AckKind, Reason};

pub(super) fn handle(session: &mut Session, ack: &Ack<'_>, effects: &mut Effects) {
    let id = ack.packet_id.get();
    let received = session.extra.as_mut().map(|extra| &mut extra.received);
    let held = received.and_then(|received| {
        let at = received.iter().position(|held| held.id == id && held.routed)?;
        Some(received.swap_remove(at))
    });
    if held.is_none() {
        return frame::ack(session, AckKind::PubComp, id, Reason::PacketIdentifierNotFound, effects);
    }
    if session.is_durable() {
        let records = vec![record::received(session, id, false)];
        effects.push(Effect::Commit { ticket: Purpose::Forget.ticket(session.attachment, id), records });
    } else {
        frame::ack(session, AckKind::PubComp, id, Reason::Success, effects);
    }
    session.tidy(effects);
}
