//! Goodbyes, the client's and ours.

use super::super::core::state::{State, flag};
use super::super::{CloseReason, Effect, Effects, Session};
use super::frame;
use crate::wire::mqtt::{Disconnect, Reason};

pub(super) fn handle(session: &mut Session, goodbye: &Disconnect<'_>, effects: &mut Effects) {
    if let Some(expiry) = goodbye.properties.session_expiry_seconds {
        // §3.14.2.2.2: who began without a lasting session cannot end with one.
        if session.expiry == 0 && expiry > 0 {
            let why = "a session that ends with its connection cannot get an expiry at its end";
            return frame::fail(session, Reason::ProtocolError, why, effects);
        }
        session.expiry = expiry.min(effects.bounds.expiry);
        session.set(flag::MAIN_DIRTY, true);
    }
    // [MQTT-3.14.4-3]: only a normal disconnection drops the will.
    session.set(flag::GOODBYE, goodbye.reason == Reason::Success);
    session.state = State::Closing;
    effects.push(Effect::Close(CloseReason::ClientDisconnect));
}

/// Ends the connection from our side: MQTT 5 is told the reason and, if there is one, which server to go to.
pub fn disconnect(session: &mut Session, close: CloseReason, server_reference: Option<&str>, effects: &mut Effects) {
    if let Some(reference) = server_reference {
        return frame::redirect(session, close, reference, effects);
    }
    let (reason, why) = match close {
        CloseReason::ClientDisconnect | CloseReason::Answered => (Reason::Success, None),
        CloseReason::ProtocolError => (Reason::ProtocolError, None),
        CloseReason::TakenOver => (Reason::SessionTakenOver, Some("another connection has this client identifier")),
        CloseReason::KeepAlive => (Reason::KeepAliveTimeout, Some("nothing came for one and a half keep alives")),
        CloseReason::HandshakeTimeout => (Reason::MaximumConnectTime, None),
        CloseReason::Refused => (Reason::NotAuthorized, None),
        CloseReason::PacketTooLarge => (Reason::PacketTooLarge, None),
        CloseReason::ReceiveMaximum => (Reason::ReceiveMaximumExceeded, None),
        CloseReason::SlowConsumer => (Reason::QuotaExceeded, Some("the client does not read what is sent to it")),
        CloseReason::Administrative => (Reason::AdministrativeAction, None),
        CloseReason::Draining => (Reason::ServerShuttingDown, None),
        CloseReason::StoreFailed => (Reason::ImplementationSpecific, Some("the store failed")),
        CloseReason::TokenEnded => (Reason::MaximumConnectTime, Some("the token has ended")),
        CloseReason::NotAuthorized => (Reason::NotAuthorized, None),
        // 0x8A is for CONNACK alone (§3.14.2.1).
        CloseReason::Banned => (Reason::AdministrativeAction, Some("the user or its address is banned")),
        CloseReason::MessageRate => (Reason::MessageRateTooHigh, Some("the client publishes more than it may")),
    };
    frame::close_with(session, reason, close, why, effects);
}
