//! The API's questions, as HTTP with JSON: users, inboxes, topics' history, who is in a topic.

use super::Api;
use super::http::{AppParameter, NameInPath, app_of, epoch_text, json, name_in, outside_app};
use super::keys::Caller;
use super::operations::{Page, Stream};
use super::problem::Problem;
use crate::base::ids::{Epoch, Offset};
use crate::base::message::Entry;
use crate::shard::command::{DeviceState, HistoryPage, Missing, Place, Present};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize)]
struct UserReply {
    user: String,
    /// Devices that are connected.
    online: usize,
    /// Messages of the inbox that no device has acknowledged.
    unread: u64,
    /// Up to where they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    devices: Vec<DeviceReply>,
}

#[derive(Serialize)]
struct DeviceReply {
    device: Arc<str>,
    online: bool,
    session_expiry_seconds: u32,
    subscriptions: u32,
    in_flight: u32,
    /// Up to where it has acknowledged its inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    /// Messages that are its and that it has not acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<u64>,
}

/// `GET /v1/users/{user}`: what the node knows of the user's devices, connected or away, and what they have not read.
pub(super) async fn user(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    user: NameInPath,
    query: AppParameter,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = name_in(user)?;
    let app = outside_app(query, &headers)?;
    let state = api.user(&user, None, &api.asking(&caller, app.as_deref())).await?;
    let device = |device: DeviceState| DeviceReply {
        device: device.device,
        online: device.online,
        session_expiry_seconds: device.expiry_seconds,
        subscriptions: device.subscriptions,
        in_flight: device.in_flight,
        offset: device.inbox.map(|(_, offset)| offset.0),
        epoch: device.inbox.map(|(epoch, _)| epoch_text(epoch)),
        unread: device.unread,
    };
    Ok(json(&UserReply {
        user,
        online: state.devices.iter().filter(|device| device.online).count(),
        unread: state.unread,
        read_offset: state.read.map(|(_, offset)| offset.0),
        epoch: state.read.map(|(epoch, _)| epoch_text(epoch)),
        devices: state.devices.into_iter().map(device).collect(),
    }))
}

/// What part of a stream is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryParameters {
    app: Option<String>,
    after: Option<u64>,
    epoch: Option<String>,
    limit: Option<usize>,
}

type HistoryQuery = Result<Query<HistoryParameters>, QueryRejection>;

#[derive(Serialize)]
struct HistoryReply {
    /// The stream's life; all zeros: there is no such stream.
    epoch: String,
    /// Offset of the oldest message kept; one more than `last` when none is.
    first: u64,
    /// Offset of the newest message ever.
    last: u64,
    /// Up to where this page goes: the next one is `after` it.
    next: u64,
    /// There is something behind it.
    more: bool,
    /// What is missing between `after` and the first entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<GapReply>,
    entries: Vec<EntryReply>,
}

#[derive(Serialize)]
struct GapReply {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
}

#[derive(Serialize)]
struct EntryReply {
    offset: u64,
    /// As devices see it.
    topic: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<Box<str>>,
    qos: u8,
    /// The one device that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Arc<str>>,
    /// When it was taken in, milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    /// Milliseconds left of its time.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

/// `GET /v1/users/{user}/inbox`.
pub(super) async fn inbox(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    user: NameInPath,
    query: HistoryQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = name_in(user)?;
    read(&api, &caller, Stream::Inbox(&user), query, &headers).await
}

/// `GET /v1/topics/{topic}/history`.
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    topic: NameInPath,
    query: HistoryQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let topic = name_in(topic)?;
    read(&api, &caller, Stream::Topic(&topic), query, &headers).await
}

async fn read(
    api: &Api,
    caller: &Caller,
    stream: Stream<'_>,
    query: HistoryQuery,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let HistoryParameters { app, after, epoch, limit } = query;
    let app = app_of(app, headers)?;
    let epoch = match epoch {
        Some(_) if after.is_none() => return Err(Problem::field("epoch", "goes with `after`")),
        Some(text) => Some(Epoch::parse(&text).ok_or_else(|| Problem::field("epoch", "is not 16 hexadecimal digits"))?),
        None => None,
    };
    let page = Page { after: after.map(|offset| Place { epoch, offset: Offset(offset) }), limit };
    let page = api.history(stream, page, None, &api.asking(caller, app.as_deref())).await?;
    Ok(json(&reply(page)))
}

fn reply(page: HistoryPage) -> HistoryReply {
    let more = page.has_more();
    let HistoryPage { head, entries, next, missing, at_ms } = page;
    let gap = missing.map(|missing| match missing {
        Missing::Trimmed(first, entries) => {
            GapReply { reason: "trimmed", first: Some(first.0), entries: Some(entries) }
        }
        Missing::Unknown => GapReply { reason: "unknown_position", first: None, entries: None },
    });
    HistoryReply {
        epoch: epoch_text(head.epoch),
        first: head.first.0,
        last: head.last.0,
        next: next.0,
        more,
        gap,
        entries: entries.iter().map(|entry| entry_reply(entry, at_ms)).collect(),
    }
}

fn entry_reply(entry: &Entry, at_ms: u64) -> EntryReply {
    let message = &entry.message;
    let (payload, payload_base64) = match core::str::from_utf8(&message.payload) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(&message.payload))),
    };
    EntryReply {
        offset: entry.offset.0,
        topic: message.topic.clone(),
        payload,
        payload_base64,
        content_type: message.properties.as_ref().and_then(|properties| properties.content_type.clone()),
        qos: message.qos as u8,
        device: message.only_device.clone(),
        at_ms: message.created_ms,
        ttl_ms: message.expires_ms.map(|at| at.saturating_sub(at_ms)),
    }
}

#[derive(Serialize)]
struct PresenceReply {
    topic: String,
    /// All of them.
    count: usize,
    /// By name, the first 10,000.
    users: Vec<Arc<str>>,
}

/// `GET /v1/topics/{topic}/presence`.
pub(super) async fn presence(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    topic: NameInPath,
    query: AppParameter,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let topic = name_in(topic)?;
    let app = outside_app(query, &headers)?;
    let Present { users, count } = api.presence(&topic, None, &api.asking(&caller, app.as_deref())).await?;
    Ok(json(&PresenceReply { topic, count, users }))
}
