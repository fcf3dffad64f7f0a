//! Goodbyes, the client's and ours.

use super::super::core::state::{State, flag};
use super::super::{CloseReason, Effect, Effects, Session};
use super::frame;
use crate::wire::mqtt::{Disconnect, Reason};

pub(super) fn handle(session: &mut Session, goodbye: &Disconnect<'_>, effects: &mut Effects) {
    if let Some(expiry) = goodbye.properties.session_expiry_seconds {
        // §3.14.2.2.2: who began without a lasting session cannot end with one.
        if session.expiry == 0 && expiry > 0 {
            return frame::fail(session, Reason::ProtocolError, effects);
        }
        session.expiry = expiry.min(effects.bounds.expiry);
        session.set(flag::MAIN_DIRTY, true);
    }
    // [MQTT-3.14.4-3]: only a normal disconnection drops the will.
    session.set(flag::GOODBYE, goodbye.reason == Reason::Success);
    session.state = State::Closing;
    effects.push(Effect::Close(CloseReason::ClientDisconnect));
}

/// Ends the connection from our side: MQTT 5 is told the reason.
pub fn disconnect(session: &mut Session, close: CloseReason, effects: &mut Effects) {
    let reason = match close {
        CloseReason::ClientDisconnect => Reason::Success,
        CloseReason::ProtocolError => Reason::ProtocolError,
        CloseReason::TakenOver => Reason::SessionTakenOver,
        CloseReason::KeepAlive => Reason::KeepAliveTimeout,
        CloseReason::HandshakeTimeout => Reason::MaximumConnectTime,
        CloseReason::Refused => Reason::NotAuthorized,
        CloseReason::PacketTooLarge => Reason::PacketTooLarge,
        CloseReason::ReceiveMaximum => Reason::ReceiveMaximumExceeded,
        CloseReason::SlowConsumer => Reason::QuotaExceeded,
        CloseReason::Administrative => Reason::AdministrativeAction,
        CloseReason::Draining => Reason::ServerShuttingDown,
        CloseReason::StoreFailed => Reason::ImplementationSpecific,
    };
    frame::close_with(session, reason, close, effects);
}
