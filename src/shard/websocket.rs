//! WebSocket: a guest's request becomes one, and whoever closes it says so in its words.

use super::command::What;
use super::gateway::{Core, Gateway};
use crate::base::ids::ConnectionId;
use crate::engine::{Close, CloseCause, Room};
use crate::io::Driver;
use crate::session::CloseReason;
use crate::wire::http::{Head, Problem, Status};
use crate::wire::tls::Layers;
use crate::wire::websocket::{Agreement, Carrier, CloseCode, Offer};

/// The subprotocol of MQTT `[MQTT-6.0.0-3]`.
const SUBPROTOCOL: &str = "mqtt";

const GET_ONLY: Problem<'static> =
    Problem { status: Status::METHOD_NOT_ALLOWED, detail: "a WebSocket begins with GET", headers: &[("Allow", "GET")] };

const DRAINING: Problem<'static> =
    Problem { status: Status::UNAVAILABLE, detail: "this server is going down", headers: &[("Retry-After", "1")] };

impl Gateway {
    /// A request at the path of MQTT: 101, and from there on the connection is as any other; or the reason why not.
    pub(super) fn upgrade<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, head: &Head<'_>) {
        if head.method != "GET" {
            return self.decline(core, id, &GET_ONLY);
        }
        let offer = match Offer::check(head, Some(SUBPROTOCOL)) {
            Ok(offer) => offer,
            Err(refusal) => return self.decline(core, id, &refusal.problem()),
        };
        if !self.settings.origins.allow(head.headers("origin").next(), head.header("host")) {
            return self.decline(core, id, &Problem::new(Status::FORBIDDEN, "this page's origin may not connect"));
        }
        if self.draining {
            return self.decline(core, id, &DRAINING);
        }
        let agreement = if self.deflating.is_on() { Agreement::find(head) } else { None };
        let (mut answer, carrier) = (Vec::new(), Carrier::new(agreement));
        offer.accept(Some(SUBPROTOCOL), agreement, &mut answer);
        match core.write_bytes(id, Room::Control, &answer) {
            Ok(()) => {
                if core.has_transform(id) {
                    core.change_transform(id, |layers| layers.carry(carrier));
                } else {
                    core.set_transform(id, Layers::WebSocket(carrier));
                }
                self.deflating.totals.agreed += u64::from(agreement.is_some());
                self.note(core, id, What::Upgraded);
                self.token_of(head).into_iter().for_each(|token| self.asking.bring(id, token));
            }
            Err(_) => core.close(id, Close::Now, CloseCause::Local),
        }
    }

    /// Closes a connection whose session, or whose lack of one, has said all it will. A WebSocket ends with a close
    /// frame behind that.
    pub(super) fn hang_up<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, reason: CloseReason) {
        if core.transform(id).is_some_and(Layers::has_websocket) && core.is_open(id) {
            // Without room for four bytes it has been closed already.
            let _ = core.write_raw(id, Room::Control, &close_code(reason).frame());
        }
        core.close(id, Close::AfterFlush, CloseCause::Local);
    }
}

/// What WebSocket calls a reason; MQTT 5 has told it more exactly.
fn close_code(reason: CloseReason) -> CloseCode {
    match reason {
        CloseReason::Answered | CloseReason::ClientDisconnect | CloseReason::TakenOver | CloseReason::KeepAlive => {
            CloseCode::NORMAL
        }
        CloseReason::ProtocolError | CloseReason::ReceiveMaximum => CloseCode::PROTOCOL_ERROR,
        CloseReason::PacketTooLarge => CloseCode::TOO_BIG,
        CloseReason::HandshakeTimeout
        | CloseReason::Refused
        | CloseReason::SlowConsumer
        | CloseReason::TokenEnded
        | CloseReason::NotAuthorized
        | CloseReason::Banned
        | CloseReason::MessageRate
        | CloseReason::Administrative => CloseCode::POLICY,
        // It comes back, here or elsewhere: the registry's word for it.
        CloseReason::Draining => CloseCode::RESTART,
        CloseReason::StoreFailed => CloseCode::INTERNAL,
    }
}
