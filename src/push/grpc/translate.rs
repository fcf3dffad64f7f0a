//! gRPC messages → what operations take, and what they give → gRPC messages. proto3 has no absent texts and numbers, so
//! an empty or zero one is one that was left out.

use super::super::operations::{Outcome, Page, Stream};
use super::super::problem::Problem;
use super::super::request::{DeviceOfUser, Draft, To, WaitFor};
use super::generated as pb;
use crate::base::ids::{Epoch, Offset, Qos};
use crate::base::message::Entry;
use crate::shard::command;

/// A text that is there.
pub(super) fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn position((epoch, offset): (Epoch, Offset)) -> pb::Position {
    pb::Position { epoch: epoch.0, offset: offset.0 }
}

/// A push as a draft, given to `then`.
pub(super) fn draft<T>(
    mut request: pb::PushRequest,
    then: impl FnOnce(Draft<'_>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    use pb::push_request::To as Target;
    let to = match request.to.take() {
        Some(Target::User(user)) => To::User(user),
        Some(Target::Users(pb::Users { users })) => To::Users(users),
        Some(Target::Device(pb::Device { user, device })) => To::Device(DeviceOfUser { user, device }),
        Some(Target::Topic(topic)) => To::Topic(topic),
        Some(Target::Everyone(everyone)) => To::Everyone(everyone),
        None => return Err(Problem::field("to", "is missing")),
    };
    let qos = match pb::Qos::try_from(request.qos) {
        Ok(pb::Qos::Unspecified) => None,
        Ok(pb::Qos::AtMostOnce) => Some(Qos::AtMostOnce as u8),
        Ok(pb::Qos::AtLeastOnce) => Some(Qos::AtLeastOnce as u8),
        Ok(pb::Qos::ExactlyOnce) => Some(Qos::ExactlyOnce as u8),
        Err(_) => return Err(Problem::field("qos", "is not a QoS")),
    };
    let wait = match pb::Wait::try_from(request.wait) {
        Ok(pb::Wait::Unspecified) => None,
        Ok(pb::Wait::Accepted) => Some(WaitFor::Accepted),
        Ok(pb::Wait::Stored) => Some(WaitFor::Stored),
        Ok(pb::Wait::Delivered) => Some(WaitFor::Delivered),
        Err(_) => return Err(Problem::field("wait", "is not something to wait for")),
    };
    then(Draft {
        app: given(&request.app),
        to: &to,
        label: given(&request.label),
        payload: request.payload,
        content_type: given(&request.content_type),
        qos,
        ttl_ms: Some(request.ttl_ms).filter(|&ttl| ttl > 0),
        key: given(&request.key),
        collapse: given(&request.collapse),
        retain: request.retain,
        wait,
        timeout_ms: Some(request.timeout_ms).filter(|&timeout| timeout > 0),
    })
}

pub(super) fn reply(outcome: Outcome) -> pb::PushReply {
    let result = |result: command::PushResult| pb::PushResult {
        user: result.user.map(|user| user.to_string()).unwrap_or_default(),
        position: result.position.map(position),
        online: result.online,
        delivered: result.delivered.iter().map(|device| device.to_string()).collect(),
    };
    let results = outcome.results.into_iter().map(result).collect();
    pb::PushReply { id: outcome.id.to_string(), results, duplicate: outcome.duplicate }
}

pub(super) fn user(user: String, state: command::UserState) -> pb::User {
    let devices = state.devices.into_iter().map(device).collect();
    pb::User { user, devices, unread: state.unread, read: state.read.map(position) }
}

/// Which part of which stream is asked for.
pub(super) fn history_request(request: &pb::GetHistoryRequest) -> Result<(Stream<'_>, Page), Problem> {
    use pb::get_history_request::Of;
    let stream = match &request.of {
        Some(Of::Topic(topic)) => Stream::Topic(topic),
        Some(Of::User(user)) => Stream::Inbox(user),
        None => return Err(Problem::field("of", "is missing")),
    };
    let after = request.after.as_ref().map(|position| command::Place {
        epoch: Some(Epoch(position.epoch)).filter(|&epoch| epoch != Epoch(0)),
        offset: Offset(position.offset),
    });
    let limit = request.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    Ok((stream, Page { after, limit }))
}

/// A part of a stream.
pub(super) fn history(page: command::HistoryPage) -> pb::History {
    let command::HistoryPage { head, entries, next, missing, at_ms } = page;
    let entry = |entry: Entry| {
        let message = entry.message;
        let content_type = message.properties.as_ref().and_then(|properties| properties.content_type.as_deref());
        pb::HistoryEntry {
            position: Some(position((entry.epoch, entry.offset))),
            payload: message.payload.clone(),
            content_type: content_type.unwrap_or_default().to_owned(),
            topic: message.topic.to_string(),
            qos: qos(message.qos).into(),
            device: message.only_device.as_deref().unwrap_or_default().to_owned(),
            at_ms: message.created_ms,
            ttl_ms: message.expires_ms.map(|at| at.saturating_sub(at_ms)),
        }
    };
    pb::History {
        entries: entries.into_iter().map(entry).collect(),
        epoch: head.epoch.0,
        first: head.first.0,
        last: head.last.0,
        next: next.0,
        trimmed: match missing {
            Some(command::Missing::Trimmed(_, entries)) => entries,
            Some(command::Missing::Unknown) | None => 0,
        },
        unknown_position: missing == Some(command::Missing::Unknown),
    }
}

fn qos(qos: Qos) -> pb::Qos {
    match qos {
        Qos::AtMostOnce => pb::Qos::AtMostOnce,
        Qos::AtLeastOnce => pb::Qos::AtLeastOnce,
        Qos::ExactlyOnce => pb::Qos::ExactlyOnce,
    }
}

fn device(state: command::DeviceState) -> pb::DeviceState {
    pb::DeviceState {
        device: state.device.to_string(),
        online: state.online,
        session_expiry_seconds: state.expiry_seconds,
        subscriptions: state.subscriptions,
        in_flight: state.in_flight,
        inbox: state.inbox.map(position),
        unread: state.unread,
    }
}

/// What happened to a device.
pub(super) fn happening(what: &command::Happening) -> pb::event::Event {
    use command::Happening;
    match what {
        Happening::Connected { session_present } => {
            pb::event::Event::Connected(pb::Connected { session_present: *session_present })
        }
        Happening::Disconnected { reason } => {
            pb::event::Event::Disconnected(pb::Disconnected { reason: reason.clone().into_owned() })
        }
        Happening::Published(message) => {
            let content_type = message.properties.as_ref().and_then(|properties| properties.content_type.as_deref());
            pb::event::Event::Published(pb::Published {
                topic: message.topic.to_string(),
                payload: message.payload.clone(),
                qos: qos(message.qos).into(),
                retain: message.retain,
                content_type: content_type.unwrap_or_default().to_owned(),
            })
        }
        Happening::Receipt { topic, inbox, receipt, count } => pb::event::Event::Receipt(pb::Receipt {
            topic: topic.to_string(),
            inbox: inbox.map(position),
            outcome: outcome(*receipt).into(),
            messages: *count,
        }),
    }
}

fn outcome(receipt: command::Receipt) -> pb::Outcome {
    match receipt {
        command::Receipt::Delivered => pb::Outcome::Delivered,
        command::Receipt::Refused => pb::Outcome::Refused,
        command::Receipt::Expired => pb::Outcome::Expired,
        command::Receipt::Trimmed => pb::Outcome::Trimmed,
    }
}
