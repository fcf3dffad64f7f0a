//! A device's question: a PUBLISH to `$api/history` or `$api/presence`, answered to its Response Topic (MQTT 5 §4.10).
//!
//! ```text
//!   $api/history    {"topic":"rooms/42","after":17,"epoch":"51e0…","limit":50} · {"inbox":true}
//!   $api/presence   {"topic":"rooms/42"}
//! ```
//! A device is told of what it may subscribe to, and only where it listens: the answer goes to this session alone, on a
//! topic that it subscribes to. The question is acknowledged when it has been asked.

use super::super::core::state::Session;
use super::super::{Effect, Question, ReplyTo};
use super::on_subscribe::may_subscribe;
use crate::base::ids::{Epoch, Offset};
use crate::limits::{HISTORY_PAGE_DEFAULT, HISTORY_PAGE_MAX, QUESTION_BYTES_MAX, QUESTIONS_MAX};
use crate::wire::mqtt::{Publish, Reason, topic};
use serde::Deserialize;
use std::sync::Arc;

const HISTORY: &str = "$api/history";
const PRESENCE: &str = "$api/presence";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    #[serde(borrow)]
    topic: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    inbox: bool,
    after: Option<u64>,
    #[serde(borrow)]
    epoch: Option<&'a str>,
    limit: Option<usize>,
}

/// Whether a publish to this topic is a question.
pub(super) fn is_question(topic: &str) -> bool {
    topic == HISTORY || topic == PRESENCE
}

/// What is to be asked once the publish is acknowledged, or why it is not.
pub(super) fn handle(session: &mut Session, name: &str, publish: &Publish<'_>) -> Result<Effect, Reason> {
    // Without it nobody could be answered; 3.1.1 has none at all.
    let reply_to = publish.properties.response_topic.ok_or(Reason::NotAuthorized)?;
    let is_reserved = reply_to.starts_with('$') && !reply_to.starts_with("$api/");
    if is_reserved || is_question(reply_to) || session.effective(reply_to, None).is_none() {
        return Err(Reason::TopicNameInvalid);
    }
    let question = read(name, publish.payload)?;
    let filter = match &question {
        Question::History { topic: None, .. } => "$inbox/#",
        Question::History { topic: Some(topic), .. } | Question::Presence { topic } => topic,
    };
    if !may_subscribe(session, filter) {
        return Err(Reason::NotAuthorized);
    }
    let asks = &mut session.extra().asks;
    if *asks >= QUESTIONS_MAX {
        return Err(Reason::QuotaExceeded);
    }
    *asks += 1;
    let to = ReplyTo { topic: reply_to.into(), correlation_data: publish.properties.correlation_data.map(Into::into) };
    Ok(Effect::Ask { question: Box::new(question), to: Box::new(to) })
}

fn read(name: &str, payload: &[u8]) -> Result<Question, Reason> {
    if payload.len() > QUESTION_BYTES_MAX {
        return Err(Reason::PayloadFormatInvalid);
    }
    let asked: Asked<'_> = serde_json::from_slice(payload).map_err(|_| Reason::PayloadFormatInvalid)?;
    let topic: Option<Arc<str>> = asked.topic.as_deref().map(Into::into);
    if topic.as_deref().is_some_and(|topic| !is_topic(topic)) {
        return Err(Reason::TopicNameInvalid);
    }
    if name == PRESENCE {
        let is_plain = !asked.inbox && asked.after.is_none() && asked.epoch.is_none() && asked.limit.is_none();
        let topic = topic.filter(|_| is_plain).ok_or(Reason::PayloadFormatInvalid)?;
        return Ok(Question::Presence { topic });
    }
    let limit = asked.limit.unwrap_or(HISTORY_PAGE_DEFAULT);
    let epoch = asked.epoch.map(|epoch| Epoch::parse(epoch).ok_or(Reason::PayloadFormatInvalid)).transpose()?;
    if topic.is_some() == asked.inbox || limit > HISTORY_PAGE_MAX || epoch.is_some() && asked.after.is_none() {
        return Err(Reason::PayloadFormatInvalid);
    }
    Ok(Question::History { topic, after: asked.after.map(|offset| (epoch, Offset(offset))), limit })
}

/// What the server itself says has no history, and nobody is in it.
fn is_topic(name: &str) -> bool {
    let is_name = !name.is_empty() && !name.contains(['+', '#', '\0']) && !name.starts_with('$');
    is_name && topic::within_limits(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_in_their_parts() {
        let topic: Option<Arc<str>> = Some("a/b".into());
        let history = |topic, after, limit| Ok(Question::History { topic, after, limit });
        let full = br#"{"topic":"a/b","after":7,"epoch":"00000000000000ab","limit":5}"#;
        assert_eq!(read(HISTORY, full), history(topic.clone(), Some((Some(Epoch(0xab)), Offset(7))), 5));
        let plain = br#"{"inbox":true,"after":7}"#;
        assert_eq!(read(HISTORY, plain), history(None, Some((None, Offset(7))), HISTORY_PAGE_DEFAULT));
        assert_eq!(read(PRESENCE, br#"{"topic":"a/b"}"#), Ok(Question::Presence { topic: "a/b".into() }));
    }

    #[test]
    fn what_is_no_question_is_told_apart() {
        let limit = format!(r#"{{"inbox":true,"limit":{}}}"#, HISTORY_PAGE_MAX + 1);
        for (name, payload, reason) in [
            (HISTORY, "", Reason::PayloadFormatInvalid),
            (HISTORY, "{}", Reason::PayloadFormatInvalid),
            (HISTORY, r#"{"topic":"a","inbox":true}"#, Reason::PayloadFormatInvalid),
            (HISTORY, r#"{"inbox":true,"epoch":"00000000000000ab"}"#, Reason::PayloadFormatInvalid),
            (HISTORY, r#"{"inbox":true,"after":1,"epoch":"ab"}"#, Reason::PayloadFormatInvalid),
            (HISTORY, r#"{"inbox":true,"more":1}"#, Reason::PayloadFormatInvalid),
            (HISTORY, &limit, Reason::PayloadFormatInvalid),
            (HISTORY, r#"{"topic":"a/+"}"#, Reason::TopicNameInvalid),
            (HISTORY, r#"{"topic":"$SYS/x"}"#, Reason::TopicNameInvalid),
            (PRESENCE, r#"{"inbox":true}"#, Reason::PayloadFormatInvalid),
            (PRESENCE, r#"{"topic":"a","limit":1}"#, Reason::PayloadFormatInvalid),
        ] {
            assert_eq!(read(name, payload.as_bytes()), Err(reason), "{name} {payload}");
        }
        let long = format!(r#"{{"topic":"{}"}}"#, "a".repeat(QUESTION_BYTES_MAX));
        assert_eq!(read(PRESENCE, long.as_bytes()), Err(Reason::PayloadFormatInvalid));
    }
}
