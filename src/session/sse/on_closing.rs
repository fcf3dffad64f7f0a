//! Refusals and goodbyes.

use super::super::core::state::State;
use super::super::mqtt::Refusal;
use super::super::{CloseReason, Effect, Effects, Protocol, Session, poll};
use super::send;
use crate::limits::SSE_RETRY;
use crate::wire::http::{Problem, Status};
use crate::wire::sse::{Farewell, encode_farewell, encode_retry};
use core::time::Duration;

/// Refuses a request that was read but is not authorized, or that there is no room for: appends the whole answer.
pub fn refuse(why: Refusal, out: &mut Vec<u8>) {
    const BEARER: &[(&str, &str)] = &[("WWW-Authenticate", "Bearer")];
    const LATER: &[(&str, &str)] = &[("Retry-After", "5")];
    let (status, detail, headers): (_, _, &[(&str, &str)]) = match why {
        Refusal::BadCredentials => (Status::UNAUTHORIZED, "a valid token is needed", BEARER),
        Refusal::NotAuthorized | Refusal::AuthenticationMethod => (Status::FORBIDDEN, "this is not allowed", &[]),
        Refusal::ClientIdentifier => (Status::BAD_REQUEST, "user or device is empty or longer than allowed", &[]),
        Refusal::QuotaExceeded => (Status::UNAVAILABLE, "the user has as many devices as allowed", LATER),
        Refusal::AppFull => (Status::TOO_MANY_REQUESTS, "the app has as much as its quota allows", LATER),
        Refusal::RateExceeded => (Status::TOO_MANY_REQUESTS, "too many connections in a short time", LATER),
        Refusal::Banned => (Status::FORBIDDEN, "the user or its address is banned", &[]),
        Refusal::Busy => (Status::UNAVAILABLE, "there is no memory to spare now", LATER),
        Refusal::Unavailable => (Status::UNAVAILABLE, "there is no room now", LATER),
    };
    Problem { headers, ..Problem::new(status, detail) }.encode(out);
}

/// Ends the connection from our side: a stream says why in its last event, a request is refused.
pub fn disconnect(session: &mut Session, close: CloseReason, effects: &mut Effects) {
    match session.state {
        State::Opening => send(effects, |out| refuse(Refusal::Unavailable, out)),
        State::Open if session.protocol == Protocol::Poll => return poll::answer(session, close, effects),
        State::Open => {
            let why = match close {
                CloseReason::TakenOver => "taken_over",
                CloseReason::Administrative => "administrative",
                CloseReason::Banned => "banned",
                CloseReason::Draining => "draining",
                CloseReason::SlowConsumer => "slow_consumer",
                CloseReason::StoreFailed => "store_failed",
                CloseReason::TokenEnded => "token_ended",
                CloseReason::KeepAlive | CloseReason::HandshakeTimeout => "timeout",
                CloseReason::ClientDisconnect
                | CloseReason::ProtocolError
                | CloseReason::Refused
                | CloseReason::NotAuthorized
                | CloseReason::PacketTooLarge
                | CloseReason::ReceiveMaximum
                | CloseReason::MessageRate
                | CloseReason::Answered => "refused",
            };
            if close == CloseReason::Draining {
                let retry = come_back(session);
                send(effects, |out| encode_retry(retry, out));
            }
            send(effects, |out| encode_farewell(Farewell(why), out));
        }
        State::Closing | State::Offline | State::Ended => return,
    }
    session.state = State::Closing;
    effects.push(Effect::Close(close));
}

/// When to come back after the server has gone down: each a little later than the last, so that they do not come at once.
fn come_back(session: &Session) -> Duration {
    let number = session.connection().map_or(0, |connection| connection.index);
    // Neighbours in the table are far apart in time (a golden ratio's worth of the whole).
    let share = number.wrapping_mul(0x9e37_79b9);
    SSE_RETRY + SSE_RETRY.mul_f64(f64::from(share) / f64::from(u32::MAX))
}
