//! Owns: what operators and supervisors ask: health, readiness, figures, slow connections.
//! In: HTTP requests. Out: replies made of the shards' answers; figures as messages on `$SYS`. Must not: change
//! anything but what is told in the log.
//! Invariants: health is never green while messages are lost: a store that cannot write or a shard that does not
//! answer is a 503; figures are those of one moment per shard, never added up over time.

mod connections;
mod figures;
mod following;
mod metrics;
pub mod sys;

use crate::push::control::{Control, Failure};
use crate::push::{Problem, json};
use crate::shard::command::{CommandError, Follow};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use figures::Figures;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What the handlers work with.
struct Admin {
    control: Arc<Control>,
    /// Names of the apps; an app's id is its place.
    apps: Vec<String>,
    /// Whose connections are followed.
    followed: Mutex<Vec<Follow>>,
    /// Milliseconds since 1970-01-01 UTC.
    wall_ms: fn() -> u64,
}

/// Health, figures and connections.
pub fn router(control: Arc<Control>, apps: Vec<String>, wall_ms: fn() -> u64) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/stats", get(stats))
        .route("/v1/log", get(following::list).post(following::follow))
        .route("/v1/connections", get(connections::slowest))
        .route("/v1/connections/{id}", get(connections::one))
        .with_state(Arc::new(Admin { control, apps, followed: Mutex::default(), wall_ms }))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    shards: usize,
}

/// Alive: the store can write and every shard answers. A draining node is alive.
async fn healthz(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    check(&admin.control).await?;
    Ok(json(&Health { status: "ok", shards: admin.control.shards() }))
}

/// Ready: alive, and new work is welcome.
async fn readyz(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    if admin.control.draining() {
        return Err(Failure::Refused(CommandError::Draining).into());
    }
    // More than being alive: a message that was taken in now would come through.
    flow(admin.control.check_flow().await)?;
    Ok(json(&Health { status: "ready", shards: admin.control.shards() }))
}

async fn check(control: &Control) -> Result<(), Problem> {
    flow(control.check_health().await)
}

fn flow(result: Result<(), Failure>) -> Result<(), Problem> {
    result.map_err(|failure| match failure {
        Failure::TimedOut => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "a shard or the log does not answer"),
        failure => failure.into(),
    })
}

/// A list of named numbers, as a JSON object in the list's order.
struct Named<'list>(&'list [(&'static str, u64)]);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[derive(Serialize)]
struct StatsReply<'stats> {
    version: &'static str,
    draining: bool,
    total: Total,
    api: Named<'stats>,
    store: Named<'stats>,
    shards: Vec<ShardReply<'stats>>,
}

#[derive(Serialize)]
struct Total {
    gauges: BTreeMap<&'static str, u64>,
    counters: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct ShardReply<'stats> {
    shard: u16,
    driver: &'static str,
    gauges: Named<'stats>,
    counters: Named<'stats>,
}

/// All gauges and counters, per shard and in total.
async fn stats(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let figures = Figures::read(&admin.control).await?;
    let total = Total { gauges: figures.gauges(), counters: figures.counters() };
    let replies = figures.shards.iter().map(|stats| ShardReply {
        shard: stats.shard,
        driver: stats.driver,
        gauges: Named(&stats.gauges),
        counters: Named(&stats.counters),
    });
    Ok(json(&StatsReply {
        version: env!("CARGO_PKG_VERSION"),
        draining: figures.draining,
        total,
        api: Named(&figures.api),
        store: Named(&figures.store),
        shards: replies.collect(),
    }))
}

/// The same for Prometheus.
async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let figures = Figures::read(&admin.control).await?;
    let text = metrics::encode(figures).expect("writing to a string does not fail");
    let mut response = Body::from(text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(response)
}
