//! The API's handlers for backends: push, push/batch, disconnect.

use super::Api;
use super::control::{Failure, Reply};
use super::guard::read_body;
use super::problem::Problem;
use super::request::{self, Accepted, WaitFor};
use crate::base::ids::PushId;
use crate::limits;
use crate::shard::command::{CommandError, Pushed};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use core::time::Duration;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The only parameter these calls take.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppQuery {
    app: Option<String>,
}

type AppParameter = Result<Query<AppQuery>, QueryRejection>;

/// What came of a push.
#[derive(Serialize)]
struct PushReply {
    /// Of the first push under its key.
    id: String,
    /// Empty for `wait: accepted`: nothing is known yet.
    results: Vec<PushReplyResult>,
    duplicate: bool,
}

#[derive(Serialize)]
struct PushReplyResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<u32>,
}

/// `POST /v1/push`.
pub(super) async fn push(
    State(api): State<Arc<Api>>,
    query: AppParameter,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let app = outside_app(query, &headers)?;
    let body = read_body(body).await?;
    let started = Started::begin(&api, &body, app.as_deref())?;
    Ok(json(&started.finish().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'body> {
    #[serde(borrow)]
    pushes: Vec<&'body RawValue>,
}

#[derive(Serialize)]
struct BatchReply {
    /// One per push, in order.
    results: Vec<BatchResult>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum BatchResult {
    Done(PushReply),
    Refused(Problem),
}

/// `POST /v1/push/batch`: all are handed over, in order, before the first answer is waited for. One that is refused
/// does not stop the others.
pub(super) async fn batch(
    State(api): State<Arc<Api>>,
    query: AppParameter,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let app = outside_app(query, &headers)?;
    let body = read_body(body).await?;
    let BatchBody { pushes } = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not {{\"pushes\": [...]}}: {error}"))
    })?;
    if pushes.is_empty() || pushes.len() > limits::PUSH_BATCH_MAX {
        let detail = format!("has {} pushes; allowed: 1 to {}", pushes.len(), limits::PUSH_BATCH_MAX);
        return Err(Problem::field("pushes", detail));
    }
    let begin = |push: &&RawValue| Started::begin(&api, push.get().as_bytes(), app.as_deref());
    let started: Vec<_> = pushes.iter().map(begin).collect();
    let mut results = Vec::with_capacity(started.len());
    let begun = tokio::time::Instant::now();
    for push in started {
        let result = match push {
            Ok(started) => started.finish_since(begun).await,
            Err(problem) => Err(problem),
        };
        results.push(result.map_or_else(BatchResult::Refused, BatchResult::Done));
    }
    Ok(json(&BatchReply { results }))
}

/// A push that has been handed over.
struct Started {
    id: PushId,
    /// `None`: nothing to wait for.
    reply: Option<Reply<Result<Pushed, CommandError>>>,
    timeout: Duration,
}

impl Started {
    fn begin(api: &Api, json: &[u8], app: Option<&str>) -> Result<Self, Problem> {
        let Accepted { mut push, wait, timeout } = request::parse(json, app, &api.rules, (api.sources.wall_ms)())?;
        let id = (api.sources.new_id)();
        push.id = id;
        let reply = match wait {
            WaitFor::Accepted => {
                api.control.push_unawaited(push)?;
                None
            }
            WaitFor::Stored => Some(api.control.push(push)?),
            WaitFor::Delivered => unreachable!("the parser refuses it"),
        };
        Ok(Self { id, reply, timeout })
    }

    async fn finish(self) -> Result<PushReply, Problem> {
        self.finish_since(tokio::time::Instant::now()).await
    }

    /// The timeout counts from when the push was handed over, not from when its turn to be asked came.
    async fn finish_since(self, begun: tokio::time::Instant) -> Result<PushReply, Problem> {
        let Self { id, reply, timeout } = self;
        let Some(reply) = reply else {
            return Ok(PushReply { id: id.to_string(), results: Vec::new(), duplicate: false });
        };
        let pushed = reply.wait(timeout.saturating_sub(begun.elapsed())).await?.map_err(Failure::Refused)?;
        let results = pushed.results.into_iter().map(|result| PushReplyResult {
            user: result.user,
            offset: result.position.map(|(_, offset)| offset.0),
            epoch: result.position.map(|(epoch, _)| format!("{:016x}", epoch.0)),
            online: result.online,
        });
        Ok(PushReply { id: pushed.id.to_string(), results: results.collect(), duplicate: pushed.duplicate })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectBody {
    app: Option<String>,
    device: Option<String>,
}

#[derive(Serialize)]
struct DisconnectReply {
    disconnected: u32,
}

/// `POST /v1/users/{user}/disconnect`: closes the user's connections, or one device's. Sessions stay.
pub(super) async fn disconnect(
    State(api): State<Arc<Api>>,
    user: Result<Path<String>, PathRejection>,
    query: AppParameter,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Path(user) = user.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let app = outside_app(query, &headers)?;
    let body = read_body(body).await?;
    let body = if body.is_empty() {
        DisconnectBody::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not a disconnect: {error}")))?
    };
    let app = api.rules.app(body.app.as_deref(), app.as_deref())?;
    let user = request::identity("user", &user)?;
    let device = body.device.as_deref().map(|device| request::identity("device", device)).transpose()?;
    let disconnected = api.control.disconnect(app, user, device)?.wait(limits::PUSH_TIMEOUT_DEFAULT).await?;
    Ok(json(&DisconnectReply { disconnected }))
}

/// The app that query or header name; the query is stronger.
fn outside_app(query: AppParameter, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    if query.app.is_some() {
        return Ok(query.app);
    }
    let Some(header) = headers.get("x-kittiwake-app") else {
        return Ok(None);
    };
    let text = header.to_str().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "the x-kittiwake-app header has characters outside ASCII")
    })?;
    Ok(Some(text.to_owned()))
}

/// 200 with a JSON body.
pub(crate) fn json<T: Serialize>(value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("replies are structs of texts, numbers and lists");
    let mut response = Body::from(body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
