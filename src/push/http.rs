//! The API's handlers for backends, as HTTP with JSON.

use super::Api;
use super::guard::read_body;
use super::keys::Caller;
use super::operations::{Outcome, Started};
use super::problem::Problem;
use super::request::{self, Asking};
use crate::base::ids::Epoch;
use crate::limits;
use crate::shard::command::PushResult;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio::time::Instant;

/// The only parameter these calls take.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppQuery {
    app: Option<String>,
}

pub(super) type AppParameter = Result<Query<AppQuery>, QueryRejection>;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<Vec<Arc<str>>>,
}

impl PushReply {
    fn new(outcome: Outcome) -> Self {
        let Outcome { id, results, duplicate, awaits_devices } = outcome;
        let result = |result: PushResult| PushReplyResult {
            user: result.user,
            offset: result.position.map(|(_, offset)| offset.0),
            epoch: result.position.map(|(epoch, _)| epoch_text(epoch)),
            online: result.online,
            delivered: awaits_devices.then_some(result.delivered),
        };
        Self { id: id.to_string(), results: results.into_iter().map(result).collect(), duplicate }
    }
}

pub(super) fn epoch_text(epoch: Epoch) -> String {
    format!("{:016x}", epoch.0)
}

/// `POST /v1/push`.
pub(super) async fn push(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    query: AppParameter,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let app = outside_app(query, &headers)?;
    let body = read_body(body).await?;
    let begun = Instant::now();
    let started = start(&api, &body, &api.asking(&caller, app.as_deref()))?;
    api.control.ring();
    Ok(json(&PushReply::new(started.finish_since(begun).await?)))
}

fn start(api: &Api, json: &[u8], asking: &Asking<'_>) -> Result<Started, Problem> {
    request::read(json, |draft| api.start_push(draft, asking))
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
    Extension(caller): Extension<Caller>,
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
    let asking = api.asking(&caller, app.as_deref());
    let begun = Instant::now();
    let started: Vec<_> = pushes.iter().map(|push| start(&api, push.get().as_bytes(), &asking)).collect();
    api.control.ring();
    let mut results = Vec::with_capacity(started.len());
    for push in started {
        let result = match push {
            Ok(started) => started.finish_since(begun).await,
            Err(problem) => Err(problem),
        };
        results.push(result.map_or_else(BatchResult::Refused, |outcome| BatchResult::Done(PushReply::new(outcome))));
    }
    Ok(json(&BatchReply { results }))
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
    Extension(caller): Extension<Caller>,
    user: NameInPath,
    query: AppParameter,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let user = name_in(user)?;
    let app = outside_app(query, &headers)?;
    let body = read_body(body).await?;
    let body = if body.is_empty() {
        DisconnectBody::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not a disconnect: {error}")))?
    };
    let asking = api.asking(&caller, app.as_deref());
    let disconnected = api.disconnect(&user, body.device.as_deref(), body.app.as_deref(), &asking).await?;
    Ok(json(&DisconnectReply { disconnected }))
}

#[derive(Serialize)]
struct DrainReply {
    draining: bool,
}

/// `POST /v1/drain`: what SIGTERM does. The answer comes at once; `/readyz` is red from then on.
pub(super) async fn drain(State(api): State<Arc<Api>>) -> Response {
    api.control.want_drain();
    let mut response = json(&DrainReply { draining: true });
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

pub(super) type NameInPath = Result<Path<String>, PathRejection>;

pub(super) fn name_in(path: NameInPath) -> Result<String, Problem> {
    let Path(user) = path.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    Ok(user)
}

/// The app that query or header name; the query is stronger.
pub(super) fn outside_app(query: AppParameter, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    app_of(query.app, headers)
}

/// As [`outside_app`], of a query that was read.
pub(super) fn app_of(query: Option<String>, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if query.is_some() {
        return Ok(query);
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
