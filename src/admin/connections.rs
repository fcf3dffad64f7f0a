//! `/v1/connections`: which clients keep messages waiting, and one connection by its name.

use super::Admin;
use crate::limits;
use crate::push::{Problem, json};
use crate::shard::command::{ConnectionFigures, ConnectionName, ConnectionQuery};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use core::cmp::Reverse;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    slowest: Option<usize>,
}

#[derive(Serialize)]
struct Connections<'node> {
    connections: Vec<Connection<'node>>,
}

#[derive(Serialize)]
struct Connection<'node> {
    id: String,
    app: &'node str,
    user: Box<str>,
    device: Box<str>,
    peer: SocketAddr,
    protocol: &'static str,
    behind: bool,
    outbox_bytes: usize,
    in_flight: usize,
    window: usize,
    stalled: bool,
    lag: u64,
    subscriptions: usize,
    durable: bool,
}

impl Admin {
    fn connection(&self, figures: ConnectionFigures) -> Connection<'_> {
        Connection {
            id: figures.name.to_string(),
            app: self.apps.get(usize::from(figures.app.0)).map_or("", String::as_str),
            user: figures.user,
            device: figures.device,
            peer: figures.peer,
            protocol: figures.protocol,
            behind: figures.behind,
            outbox_bytes: figures.outbox_bytes,
            in_flight: figures.in_flight,
            window: figures.window,
            stalled: figures.stalled,
            lag: figures.lag,
            subscriptions: figures.subscriptions,
            durable: figures.durable,
        }
    }
}

/// `GET /v1/connections?slowest=N`: those that keep messages waiting, the slowest first.
pub(super) async fn slowest(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Wanted { slowest }) = query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let wanted = slowest.unwrap_or(limits::SLOWEST_DEFAULT);
    if !(1..=limits::SLOWEST_MAX).contains(&wanted) {
        let detail = format!("slowest is {wanted}; allowed: 1 to {}", limits::SLOWEST_MAX);
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let answers = admin.control.connections(ConnectionQuery::Slowest(wanted))?.wait(limits::SURVEY_TIMEOUT).await?;
    let mut slowest: Vec<ConnectionFigures> = answers.into_iter().flatten().collect();
    slowest.sort_by_key(|figures| Reverse(figures.slowness()));
    slowest.truncate(wanted);
    let connections = slowest.into_iter().map(|figures| admin.connection(figures)).collect();
    Ok(json(&Connections { connections }))
}

/// `GET /v1/connections/{id}`: 404 once it has ended.
pub(super) async fn one(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let gone = || Problem::new(StatusCode::NOT_FOUND, "there is no such connection");
    let name: ConnectionName = name.parse().map_err(|_| gone())?;
    if usize::from(name.shard.0) >= admin.control.shards() {
        return Err(gone());
    }
    let answers = admin.control.connections(ConnectionQuery::One(name))?.wait(limits::SURVEY_TIMEOUT).await?;
    let figures = answers.into_iter().flatten().next().ok_or_else(gone)?;
    Ok(json(&admin.connection(figures)))
}
