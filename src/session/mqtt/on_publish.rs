//! PUBLISH from a client, and the answer once it is committed or handed on.

use super::super::core::record;
use super::super::core::state::{PendingPublish, Purpose, Received, flag};
use super::super::{CloseReason, Counter, Effect, Effects, Session, Ticket};
use super::{frame, on_question};
use crate::base::clock::Now;
use crate::base::ids::Qos;
use crate::base::log::StoreError;
use crate::base::message::{Message, Properties};
use crate::limits::{RECEIVED_IDS_MAX, TOPIC_ALIAS_MAX};
use crate::wire::mqtt::{AckKind, DecodeError, Publish, Reason, topic};
use bytes::Bytes;
use std::sync::Arc;

pub(super) fn handle(session: &mut Session, publish: &Publish<'_>, now: Now, effects: &mut Effects) {
    if !publish.properties.subscription_ids.is_empty() {
        // [MQTT-3.3.4-6].
        return frame::fail(
            session,
            Reason::ProtocolError,
            "a client's publish has a subscription identifier",
            effects,
        );
    }
    let topic = match resolve(session, publish, effects) {
        Ok(topic) => topic,
        Err((reason, why)) => return frame::fail(session, reason, why, effects),
    };
    let id = publish.packet_id.map_or(0, Into::into);
    if publish.qos > Qos::AtMostOnce && !admit(session, id, publish.qos, effects) {
        return;
    }
    if on_question::is_question(&topic) {
        let (reason, ask) = match on_question::handle(session, &topic, publish) {
            Ok(ask) => (Reason::Success, Some(ask)),
            Err(reason) => (reason, None),
        };
        acknowledge_question(session, id, publish.qos, reason, effects);
        return ask.into_iter().for_each(|ask| effects.push(ask));
    }
    if let Some(reason) = refusal(session, &topic, publish) {
        effects.count(Counter::PublishRefused);
        if publish.qos > Qos::AtMostOnce {
            if let Some(extra) = session.extra.as_mut() {
                extra.received.retain(|held| held.id != id || publish.qos != Qos::ExactlyOnce);
            }
            answer(session, id, publish.qos, reason, effects);
        }
        return;
    }
    let message = Arc::new(made(session, topic, publish, now));
    route(session, message, id, effects);
}

/// A question is nobody's message: it is acknowledged as soon as it is asked, or refused.
fn acknowledge_question(session: &mut Session, id: u16, qos: Qos, reason: Reason, effects: &mut Effects) {
    if reason.is_error() {
        effects.count(Counter::PublishRefused);
    }
    if qos == Qos::AtMostOnce {
        return;
    }
    if let Some(extra) = session.extra.as_mut().filter(|_| qos == Qos::ExactlyOnce) {
        extra.received.retain(|held| held.id != id || !reason.is_error());
        extra.received.iter_mut().filter(|held| held.id == id).for_each(|held| held.routed = true);
    }
    answer(session, id, qos, reason, effects);
}

/// Why a well-formed publish is not taken.
fn refusal(session: &Session, topic: &str, publish: &Publish<'_>) -> Option<Reason> {
    if topic.starts_with('$') || !session.may_publish(topic) {
        Some(Reason::NotAuthorized)
    } else if !topic::within_limits(topic) {
        Some(Reason::TopicNameInvalid)
    } else {
        // §3.3.2.3.2: a receiver may check it.
        publish.check_payload_format().err().map(DecodeError::reason)
    }
}

/// Why a connection ends, as a code and in words.
type Broken = (Reason, &'static str);

/// The topic, of a text of its own or of an alias. Aliases are the connection's.
fn resolve(session: &mut Session, publish: &Publish<'_>, effects: &mut Effects) -> Result<Arc<str>, Broken> {
    let named = (!publish.topic.is_empty()).then(|| effects.spare.text(publish.topic));
    let Some(alias) = publish.properties.topic_alias else {
        return named.ok_or((Reason::ProtocolError, "neither a topic name nor a topic alias"));
    };
    let number = alias.0.get();
    if number > TOPIC_ALIAS_MAX {
        return Err((Reason::TopicAliasInvalid, "the topic alias is above the maximum"));
    }
    let at = usize::from(number) - 1;
    let aliases = &mut session.extra().aliases;
    match named {
        Some(topic) => {
            if aliases.len() <= at {
                aliases.resize(at + 1, None);
            }
            aliases[at] = Some(Arc::clone(&topic));
            Ok(topic)
        }
        None => aliases.get(at).cloned().flatten().ok_or((Reason::ProtocolError, "the topic alias stands for nothing")),
    }
}

/// Whether a QoS 1 or 2 publish is to be routed: not beyond Receive Maximum, and not one that was received already.
/// Its answer has its place in the order from here on.
fn admit(session: &mut Session, id: u16, qos: Qos, effects: &mut Effects) -> bool {
    let held = session.extra.as_ref().map_or(&[][..], |extra| &extra.received);
    let known = held.iter().find(|held| qos == Qos::ExactlyOnce && held.id == id).copied();
    let held = held.len();
    let waiting = session.work.as_ref().map_or(0, |work| work.pending.len());
    let once = session
        .work
        .as_ref()
        .map_or(0, |work| work.pending.iter().filter(|pending| pending.qos == Qos::AtLeastOnce).count());
    let maximum = usize::from(effects.bounds.receive_maximum_in);
    let beyond = if session.is_mqtt5() { once + held >= maximum } else { held >= RECEIVED_IDS_MAX };
    if known.is_none() && beyond {
        // [MQTT-3.3.4-7].
        let why = "more messages are in flight than the receive maximum";
        frame::fail(session, Reason::ReceiveMaximumExceeded, why, effects);
        return false;
    }
    if waiting + 1 >= maximum && !session.is_mqtt5() {
        session.pause(flag::PAUSED_RECEIVE, true, effects);
    }
    session.work(effects).pending.push_back(PendingPublish { id, qos, answer: None });
    match known {
        Some(Received { routed, .. }) => {
            effects.count(Counter::DuplicateReceived);
            if routed {
                answer(session, id, qos, Reason::Success, effects);
            }
            false
        }
        None => {
            if qos == Qos::ExactlyOnce {
                session.extra().received.push(Received { id, routed: false });
            }
            true
        }
    }
}

fn made(session: &Session, topic: Arc<str>, publish: &Publish<'_>, now: Now) -> Message {
    let given = &publish.properties;
    let plain = given.payload_is_utf8.is_none()
        && given.content_type.is_none()
        && given.response_topic.is_none()
        && given.correlation_data.is_none()
        && given.user.is_empty();
    let properties = (!plain).then(|| {
        Box::new(Properties {
            payload_is_utf8: given.payload_is_utf8,
            content_type: given.content_type.map(Into::into),
            response_topic: given.response_topic.map(Into::into),
            correlation_data: given.correlation_data.map(Into::into),
            user: given.user.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            ..Properties::default()
        })
    });
    Message {
        app: session.app(),
        topic,
        only_device: None,
        payload: Bytes::copy_from_slice(publish.payload),
        qos: publish.qos,
        retain: publish.retain,
        created_ms: now.wall_ms,
        expires_ms: given.message_expiry_seconds.map(|seconds| now.wall_ms + u64::from(seconds) * 1000),
        publisher: Some(session.publisher()),
        properties,
    }
}

fn route(session: &mut Session, message: Arc<Message>, id: u16, effects: &mut Effects) {
    let (receipt, records) = match message.qos {
        Qos::AtMostOnce => (None, Vec::new()),
        Qos::AtLeastOnce => (Some(Purpose::Publish1.ticket(session.attachment, id)), Vec::new()),
        // Durable point (3): the identifier in the message's batch. It outlives the connection, so no attachment.
        Qos::ExactlyOnce if session.is_durable() => {
            session.set(flag::RECORDED, true);
            (Some(Purpose::Publish2.ticket(0, id)), vec![record::received(session, id, true)])
        }
        Qos::ExactlyOnce => (Some(Purpose::Publish2.ticket(0, id)), Vec::new()),
    };
    effects.push(Effect::Publish { message, receipt, records });
}

/// Answers [`Effect::Publish`] with a receipt: whether anybody was reached.
pub fn on_published(session: &mut Session, receipt: Ticket, result: Result<bool, StoreError>, effects: &mut Effects) {
    let (purpose, attachment, id) = Purpose::of(receipt);
    let reason = match result {
        Ok(true) => Reason::Success,
        Ok(false) => Reason::NoMatchingSubscribers,
        Err(StoreError::Busy | StoreError::OverQuota) => Reason::QuotaExceeded,
        Err(StoreError::Failed | StoreError::KeyConflict) => Reason::ImplementationSpecific,
    };
    let qos = if purpose == Purpose::Publish2 { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
    if qos == Qos::AtLeastOnce && attachment != session.attachment {
        return;
    }
    if qos == Qos::ExactlyOnce
        && let Some(extra) = session.extra.as_mut()
    {
        extra.received.retain_mut(|held| {
            held.routed |= held.id == id;
            held.id != id || !reason.is_error()
        });
    }
    let is_deaf = !session.is_mqtt5() && session.is_open();
    if is_deaf && matches!(result, Err(StoreError::Busy | StoreError::OverQuota)) {
        // 3.1.1 cannot say no and would only send it again: acknowledged, and not done [MQTT-3.3.5-2].
        return answer(session, id, qos, Reason::Success, effects);
    }
    if reason.is_error() && is_deaf {
        // 3.1.1 cannot say no: without an answer the client sends it again on its next connection.
        return frame::close_with(session, reason, CloseReason::StoreFailed, None, effects);
    }
    answer(session, id, qos, reason, effects);
}

fn answer(session: &mut Session, id: u16, qos: Qos, reason: Reason, effects: &mut Effects) {
    let (terms, open) = (frame::terms(session), session.is_open());
    let kind = if qos == Qos::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
    session.answer_publish(id, qos, reason.code(), effects, |id, code, effects| {
        if open {
            let reason = Reason::from_code(code).expect("it was one when it was kept");
            frame::ack_as(terms, kind, id, reason, effects);
        }
    });
}
