//! A CONNECT at its user's home: a new session, a returning one, a take-over.

use super::super::core::aliases::AliasesOut;
use super::super::core::expiry::Will;
use super::super::core::state::{Purpose, State, Welcome, flag};
use super::super::directory::{Directory, NoRoom};
use super::super::{CloseReason, DeliveryId, Effect, Effects, Identity, Protocol, Session};
use super::on_auth::METHOD;
use super::{ConnectRequest, Refusal, WillRequest, frame, on_subscribe, refuse};
use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, Epoch, Offset, Seq, SessionId};
use crate::base::log::StreamHead;
use crate::base::message::Message;
use crate::limits::TOPIC_ALIAS_MAX;
use crate::wire::mqtt::{AckKind, ConnAck, Reason};
use core::num::{NonZeroU16, NonZeroU32};

/// Where things stand as a session opens.
#[derive(Clone, Copy, Debug)]
pub struct OpenAt {
    /// Now.
    pub now: Now,
    /// The highest seq up to which every entry has been offered to every session of this shard.
    pub shard_seq: Seq,
    /// The user's read mark and inbox if they are at hand, else [`Session::on_inbox_known`] follows.
    pub inbox: Option<(Offset, StreamHead)>,
    /// Its user may subscribe to the node's figures.
    pub sees_node: bool,
    /// Longest packet the server takes, bytes.
    pub packet_bytes: u32,
    /// Seconds of silence to allow a client that asked for any, as a keep alive.
    pub keep_alive_instead_of_none: u16,
    /// The log's life, and its last seq that this shard knows.
    pub log: (Epoch, Seq),
}

/// Opens or resumes the device's session on `connection`; it must not have another one any more
/// ([`super::super::protocol::take_over`]). The
/// effects are for `connection`. With Clean Start an existing session is removed first. None: refused, the effects
/// say so. The identity's device is the client id, drawn by the shard if it came empty.
pub fn open(
    directory: &mut Directory,
    identity: &Identity,
    request: &ConnectRequest,
    connection: ConnectionId,
    at: OpenAt,
    effects: &mut Effects,
) -> Option<SessionId> {
    let (id, resumed, mut removed) = match directory.admit(identity, request.clean_start, at.now, effects) {
        Ok(admitted) => admitted,
        Err(why) => {
            let why = match why {
                NoRoom::OfUser => Refusal::QuotaExceeded,
                NoRoom::OfShard => Refusal::Unavailable,
            };
            let start = effects.control.len();
            refuse(request, why, None, &mut effects.control);
            let end = effects.control.len();
            effects.push(Effect::Frames(start..end));
            effects.push(Effect::Close(CloseReason::Refused));
            return None;
        }
    };
    let session = directory.get_mut(id).expect("it was just found or made");
    if resumed {
        session.catch_up(at.shard_seq, at.inbox);
    } else {
        session.positions.stand_at(at.shard_seq);
        if let Some((start, head)) = at.inbox {
            session.place_inbox(start, head);
        }
    }
    let protocol = if request.mqtt5 { Protocol::Mqtt5 } else { Protocol::Mqtt311 };
    session.attach(connection, protocol, request.receive_maximum, effects);
    session.expiry = request.session_expiry.min(effects.bounds.expiry);
    let expiry_lowered = request.expiry_lowered || session.expiry < request.session_expiry;
    session.keep_alive = request.keep_alive;
    session.set(flag::UNEXPLAINED, !request.request_problem_information);
    let (app, publisher) = (session.app(), session.publisher());
    let will = request.will.as_ref().map(|will| Box::new(made_will(app, publisher, will)));
    let extra = session.extra();
    extra.will = will;
    extra.sees_node = at.sees_node;
    extra.rights = request.rights.clone();
    extra.by_method = request.by_method;
    extra.packet_bytes_max = if request.packet_bytes_max == u32::MAX { 0 } else { request.packet_bytes_max };
    extra.aliases_out = AliasesOut::new(request.topic_alias_max);
    let assigned = request.assigned;
    // A silent connection ends all the same, so its client must be told [MQTT-3.2.2-22].
    let server_keep_alive = (request.keep_alive == 0).then_some(at.keep_alive_instead_of_none);
    extra.welcome = Some(Box::new(Welcome {
        session_present: resumed,
        assigned,
        expiry_lowered,
        packet_bytes: at.packet_bytes,
        server_keep_alive,
        response_information: request.request_response_information,
    }));
    if resumed {
        // Its earlier subscriptions were granted to another token, or by another configuration.
        session.withdraw_subscriptions(effects);
    }
    if at.inbox.is_some() {
        // A SUBSCRIBE of an earlier connection may have waited for just that.
        on_subscribe::on_inbox_known(session, effects);
    }
    let mut records = session.opening_records(at.now);
    // The new records have some of the old ones' keys: removals go first.
    core::mem::swap(&mut records, &mut removed);
    records.append(&mut removed);
    if records.is_empty() {
        welcome(session, effects);
    } else {
        effects.push(Effect::Commit { ticket: Purpose::Greeting.ticket(session.attachment, 0), records });
    }
    Some(id)
}

fn made_will(app: crate::base::ids::AppId, publisher: u64, will: &WillRequest) -> Will {
    let message = Message {
        app,
        topic: (&*will.topic).into(),
        only_device: None,
        payload: will.payload.clone(),
        qos: will.qos,
        retain: will.retain,
        created_ms: 0,
        expires_ms: None,
        publisher: Some(publisher),
        properties: will.properties.clone(),
    };
    Will { message, delay: will.delay, message_expiry: will.message_expiry }
}

/// CONNACK, then what is in flight, then the log.
pub(super) fn welcome(session: &mut Session, effects: &mut Effects) {
    assert!(session.state == State::Opening, "a greeting is answered once");
    let welcome = session.extra().welcome.take().expect("kept since the greeting");
    let assigned: Option<Box<str>> = welcome.assigned.then(|| session.device().into());
    let by_method = session.extra().by_method;
    let responses = welcome.response_information.then(|| response_information(session));
    let mut ack = ConnAck::refused(Reason::Success);
    ack.session_present = welcome.session_present;
    if session.is_mqtt5() {
        let properties = &mut ack.properties;
        properties.session_expiry_seconds = welcome.expiry_lowered.then_some(session.expiry);
        properties.receive_maximum = NonZeroU16::new(effects.bounds.receive_maximum_in);
        properties.retain_available = Some(true);
        properties.maximum_packet_bytes = NonZeroU32::new(welcome.packet_bytes);
        properties.assigned_client_id = assigned.as_deref();
        properties.topic_alias_maximum = Some(TOPIC_ALIAS_MAX);
        properties.shared_available = Some(true);
        properties.server_keep_alive_seconds = welcome.server_keep_alive;
        properties.response_information = responses.as_deref();
        // [MQTT-4.12.0-5].
        properties.authentication_method = by_method.then_some(METHOD);
    }
    frame::answer(session, None, |_| ack, effects);
    if session.state == State::Closing {
        // It does not even take its CONNACK.
        return;
    }
    let terms = frame::terms(session);
    session.start(effects, |delivery: DeliveryId, effects| {
        frame::ack_as(terms, AckKind::PubRel, delivery.0, Reason::Success, effects);
    });
    debug_assert!(!session.has(flag::PAUSED_OPENING));
}

/// A part of the topics that no other device's client is told of: where answers to its requests may go (§3.1.2.11.7).
fn response_information(session: &Session) -> String {
    format!("responses/{:016x}", session.publisher())
}
