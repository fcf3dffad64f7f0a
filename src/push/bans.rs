//! `/v1/bans`: who is banned, by an operator or by the node. A caller of some apps sees and bans their users; addresses
//! are the whole node's.

use super::Api;
use super::guard::read_body;
use super::http::{AppParameter, app_of, json, outside_app};
use super::keys::Caller;
use super::problem::Problem;
use super::request::{self, Asking};
use crate::limits;
use crate::shard::command::{Author, BanAnswer, BanCommand, NamedBan, Subject};
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize)]
struct ListReply {
    bans: Vec<BanReply>,
}

#[derive(Serialize)]
struct BanReply {
    /// An address or a range,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// or a user
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    /// of this app.
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    since_ms: u64,
    /// Absent: until it is lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    /// `operator` or `node`.
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Box<str>>,
    /// Bans of the node that it had lately: each takes twice as long as the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u8>,
}

impl BanReply {
    fn new(api: &Api, NamedBan { subject, ban }: NamedBan) -> Self {
        let (source, user, app) = match subject {
            Subject::Source(prefix) => (Some(prefix.to_string()), None, None),
            Subject::User(app, user) => (None, Some(user), Some(api.rules.name(app).to_owned())),
        };
        let (by, reason, before) = match ban.author {
            Author::Operator(reason) => ("operator", Some(reason).filter(|reason| !reason.is_empty()), None),
            Author::Node { before } => ("node", None, Some(before)),
        };
        let until_ms = Some(ban.until_ms).filter(|&until_ms| until_ms < u64::MAX);
        Self { source, user, app, since_ms: ban.since_ms, until_ms, by, reason, before }
    }
}

/// `GET /v1/bans`: those in force.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    query: AppParameter,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let app = outside_app(query, &headers)?;
    let only = match app.as_deref() {
        Some(name) => Some(api.asking(&caller, Some(name)).app(None)?),
        None => None,
    };
    let BanAnswer::List(bans) = api.ban(BanCommand::List).await? else { unreachable!("a list is answered by one") };
    let may_see = |ban: &NamedBan| match &ban.subject {
        Subject::Source(_) => only.is_none() && caller.may_see_all(),
        Subject::User(app, _) => caller.may(*app) && only.is_none_or(|only| only == *app),
    };
    let bans = bans.into_iter().filter(may_see).map(|ban| BanReply::new(&api, ban)).collect();
    Ok(json(&ListReply { bans }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    source: Option<String>,
    user: Option<String>,
    app: Option<String>,
    seconds: Option<u64>,
    reason: Option<String>,
}

/// `POST /v1/bans`: bans an address, a range or a user, for so many seconds or until it is lifted. Connections of whoever
/// is banned are closed.
pub(super) async fn add(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    query: AppParameter,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let app = outside_app(query, &headers)?;
    let body = read_body(body).await?;
    let body: AddBody = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not a ban: {error}")))?;
    let asking = api.asking(&caller, app.as_deref());
    let subject = subject(body.source.as_deref(), body.user.as_deref(), body.app.as_deref(), &asking)?;
    if body.seconds == Some(0) {
        return Err(Problem::field("seconds", "is 0; allowed: 1 and more, or none: until it is lifted"));
    }
    let until_ms =
        body.seconds.map_or(u64::MAX, |seconds| asking.wall_ms.saturating_add(seconds.saturating_mul(1_000)));
    let reason = body.reason.unwrap_or_default();
    if reason.len() > limits::BAN_REASON_BYTES_MAX {
        let detail = format!("has {} bytes; allowed: {}", reason.len(), limits::BAN_REASON_BYTES_MAX);
        return Err(Problem::field("reason", detail));
    }
    let command = BanCommand::Add { subject, until_ms, reason: reason.into() };
    let BanAnswer::Added(ban) = api.ban(command).await? else { unreachable!("a ban is answered by one") };
    Ok(json(&BanReply::new(&api, *ban)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    source: Option<String>,
    user: Option<String>,
    app: Option<String>,
}

#[derive(Serialize)]
struct RemoveReply {
    removed: bool,
}

/// `DELETE /v1/bans?source=…` or `?user=…`: lifts a ban, whoever made it, and forgets the offences.
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let app = app_of(query.app, &headers)?;
    let asking = api.asking(&caller, app.as_deref());
    let subject = subject(query.source.as_deref(), query.user.as_deref(), None, &asking)?;
    let BanAnswer::Removed(removed) = api.ban(BanCommand::Remove(subject)).await? else {
        unreachable!("the end of a ban is answered by whether there was one")
    };
    Ok(json(&RemoveReply { removed }))
}

/// Whom a request is about, if that is the caller's to ban.
fn subject(
    source: Option<&str>,
    user: Option<&str>,
    app: Option<&str>,
    asking: &Asking<'_>,
) -> Result<Subject, Problem> {
    match (source, user) {
        (Some(source), None) => {
            if !asking.caller.may_see_all() {
                let detail = "addresses are the whole node's: this needs a key to all apps";
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
            let wrong =
                |_| Problem::field("source", "is no address and no range such as 192.0.2.0/24 or 2001:db8::/32");
            source.parse().map(Subject::Source).map_err(wrong)
        }
        (None, Some(user)) => Ok(Subject::User(asking.app(app)?, request::identity("user", user)?)),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, "exactly one of source and user is needed")),
    }
}

impl Api {
    async fn ban(&self, command: BanCommand) -> Result<BanAnswer, Problem> {
        let answer = self.control.bans(command)?.wait(limits::PUSH_TIMEOUT_DEFAULT).await?;
        answer.map_err(|error| super::control::Failure::Refused(error).into())
    }
}
