//! AUTH: a client that named a method in its CONNECT shows another token (MQTT 5 §4.12.1), so that its connection outlives
//! the first one.

use super::super::core::state::flag;
use super::super::{CloseReason, Effect, Effects, Session};
use super::{Refusal, frame};
use crate::auth::Rights;
use crate::wire::mqtt::properties::AuthProperties;
use crate::wire::mqtt::{Auth, Reason};
use std::sync::Arc;

/// The one authentication method there is: its data is a token.
pub(super) const METHOD: &str = "jwt";

pub(super) fn handle(session: &mut Session, auth: &Auth<'_>, effects: &mut Effects) {
    let (by_method, is_asking) =
        session.extra.as_ref().map_or((false, false), |extra| (extra.by_method, extra.is_asking));
    // [MQTT-4.12.0-6], and one exchange at a time.
    if !by_method || is_asking || auth.reason != Reason::ReAuthenticate {
        return frame::fail(session, Reason::ProtocolError, "this packet has no place here", effects);
    }
    if auth.properties.authentication_method != Some(METHOD) {
        // [MQTT-4.12.1-1].
        let why = "the authentication method is another one than in CONNECT";
        return frame::fail(session, Reason::BadAuthenticationMethod, why, effects);
    }
    let Some(token) = auth.properties.authentication_data else {
        return on_reauthenticated(session, Err(Refusal::BadCredentials), effects);
    };
    session.extra().is_asking = true;
    effects.push(Effect::Authenticate { token: token.into() });
}

/// Answers [`Effect::Authenticate`]: with what the client may do from now on, or why it may not go on [MQTT-4.12.1-2].
pub fn on_reauthenticated(session: &mut Session, result: Result<Option<Arc<Rights>>, Refusal>, effects: &mut Effects) {
    if !session.is_open() {
        return;
    }
    match result {
        Ok(rights) => {
            let extra = session.extra();
            (extra.rights, extra.is_asking) = (rights, false);
            if session.withdraw_subscriptions(effects) && session.is_durable() {
                session.set(flag::MAIN_DIRTY, true);
                session.cursor_moved(effects);
            }
            let properties = AuthProperties { authentication_method: Some(METHOD), ..AuthProperties::default() };
            frame::answer(session, None, |_| Auth { reason: Reason::Success, properties }, effects);
        }
        // One that is not good, of another user, or that could not be looked at: a client is told no more.
        Err(why) => {
            let reason = if why == Refusal::Unavailable { Reason::ServerBusy } else { Reason::NotAuthorized };
            frame::close_with(session, reason, CloseReason::NotAuthorized, None, effects);
        }
    }
}
