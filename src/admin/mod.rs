//! Owns: what operators and supervisors ask: health, readiness, figures.
//! In: HTTP requests. Out: replies made of the shards' answers. Must not: change anything.
//! Invariants: health is never green while messages are lost: a store that cannot write or a shard that does not
//! answer is a 503; figures are those of one moment per shard, never added up over time.

use crate::limits;
use crate::push::control::{Control, Failure};
use crate::push::{Problem, json};
use crate::shard::command::CommandError;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// `/healthz`, `/readyz` and `/v1/stats`.
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/stats", get(stats))
        .with_state(control)
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    shards: usize,
}

/// Alive: the store can write and every shard answers. A draining node is alive.
async fn healthz(State(control): State<Arc<Control>>) -> Result<Response, Problem> {
    check(&control).await?;
    Ok(json(&Health { status: "ok", shards: control.shards() }))
}

/// Ready: alive, and new work is welcome.
async fn readyz(State(control): State<Arc<Control>>) -> Result<Response, Problem> {
    if control.draining() {
        return Err(Failure::Refused(CommandError::Draining).into());
    }
    check(&control).await?;
    Ok(json(&Health { status: "ready", shards: control.shards() }))
}

async fn check(control: &Control) -> Result<(), Problem> {
    match control.check_health().await {
        Ok(()) => Ok(()),
        Err(Failure::TimedOut) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "a shard does not answer")),
        Err(failure) => Err(failure.into()),
    }
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
async fn stats(State(control): State<Arc<Control>>) -> Result<Response, Problem> {
    let shards = control.stats()?.wait(limits::STATS_TIMEOUT).await?;
    let total = Total {
        gauges: sum(shards.iter().map(|shard| &shard.gauges)),
        counters: sum(shards.iter().map(|shard| &shard.counters)),
    };
    let replies = shards.iter().map(|stats| ShardReply {
        shard: stats.shard,
        driver: stats.driver,
        gauges: Named(&stats.gauges),
        counters: Named(&stats.counters),
    });
    Ok(json(&StatsReply {
        version: env!("CARGO_PKG_VERSION"),
        draining: control.draining(),
        total,
        api: Named(&control.own_stats()),
        store: Named(&control.store_stats()),
        shards: replies.collect(),
    }))
}

fn sum<'stats>(lists: impl Iterator<Item = &'stats Vec<(&'static str, u64)>>) -> BTreeMap<&'static str, u64> {
    let mut total = BTreeMap::new();
    for &(name, value) in lists.flatten() {
        *total.entry(name).or_default() += value;
    }
    total
}
