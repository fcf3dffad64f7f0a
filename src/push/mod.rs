//! Owns: the API that backends call: requests → [`crate::shard::command::Push`]es, answers → replies.
//! In: HTTP and gRPC requests; events and notices of the shards. Out: commands through a [`Gateway`]; replies and problems.
//! Must not: know a session, a topic's subscribers or the store; open a listener (the node does).
//! Invariants: a command is answered once or its caller is told that it may still happen; every table and body is
//! bounded and says 429 when full; nothing invalid reaches a shard.
//!
//! `operations` is what can be asked for; `http`, `http_reads` and `grpc` only translate. `request` checks, `control` brings commands
//! to the data plane and answers back, `events` keeps what happens to devices, `guard`, `keys` and `signature` decide who may ask.

pub mod control;
mod events;
pub mod grpc;
mod guard;
mod http;
mod http_reads;
mod keys;
mod operations;
mod problem;
mod request;
mod signature;

pub use control::{Control, Gateway};
pub use guard::Peer;
pub use keys::{ApiKey, ApiKeys, Apps, KeyHash, Scope, Scopes};
pub use problem::Problem;
pub use request::Rules;

pub(crate) use http::json;

use crate::base::ids::{Epoch, PushId};
use crate::limits;
use crate::shard::command::Notice;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use std::sync::Arc;

/// What the API cannot compute: the clock and the ids, given by the node.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: fn() -> u64,
    /// A unique, time-ordered id.
    pub new_id: fn() -> PushId,
    /// 64 random bits, drawn when the process started: the life of what is kept in memory only.
    pub epoch: u64,
}

/// The API's state.
pub struct Api {
    control: Arc<Control>,
    rules: Rules,
    sources: Sources,
    keys: ApiKeys,
    replays: signature::Replays,
    loopback_only: bool,
    bodies: guard::Bodies,
    calls: grpc::Calls,
    events: Arc<events::Hub>,
}

impl Api {
    /// Without keys whoever reaches the API may do everything; on loopback callers must then prove to be no web page.
    pub fn new(control: Arc<Control>, rules: Rules, sources: Sources, keys: ApiKeys, is_loopback: bool) -> Self {
        let bodies = guard::Bodies::new(limits::API_BODY_BYTES_TOTAL_MAX);
        let calls = grpc::Calls::new(&bodies);
        let events = Arc::new(events::Hub::new(Epoch(sources.epoch)));
        let loopback_only = is_loopback && keys.is_empty();
        let replays = signature::Replays::default();
        Self { control, rules, sources, keys, replays, loopback_only, bodies, calls, events }
    }

    /// Where notices of the shards go.
    pub fn notices(&self) -> Notices {
        Notices { control: Arc::clone(&self.control), events: Arc::clone(&self.events), wall_ms: self.sources.wall_ms }
    }

    /// All routes of the port: those for backends, and `beside` (health and figures), behind the same checks.
    pub fn router(self, beside: Router) -> Router {
        let api = Arc::new(self);
        Router::new()
            .route("/v1/push", post(http::push))
            .route("/v1/push/batch", post(http::batch))
            .route("/v1/users/{user}", get(http_reads::user))
            .route("/v1/users/{user}/inbox", get(http_reads::inbox))
            .route("/v1/topics/{topic}/history", get(http_reads::history))
            .route("/v1/topics/{topic}/presence", get(http_reads::presence))
            .route("/v1/users/{user}/disconnect", post(http::disconnect))
            .route("/v1/drain", post(http::drain))
            .with_state(Arc::clone(&api))
            .merge(grpc::router(&api, &api.control))
            .merge(beside)
            .fallback(async |headers: HeaderMap| match grpc::is_grpc(&headers) {
                true => grpc::unknown_service(),
                false => Problem::new(StatusCode::NOT_FOUND, "there is no such path").into_response(),
            })
            .method_not_allowed_fallback(async || {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
            })
            .layer(middleware::from_fn_with_state(api, guard::check))
    }
}

/// The way of notices from the shards to those who read them.
pub struct Notices {
    control: Arc<Control>,
    events: Arc<events::Hub>,
    wall_ms: fn() -> u64,
}

impl Notices {
    /// Takes one in. Now and then the shards are told that less is wanted.
    pub fn take(&self, notice: Notice) {
        let dropped = self.events.take(notice, (self.wall_ms)());
        self.control.count_notice(dropped);
        // A full mailbox only means that a shard tells of more than is wanted for a while.
        let _told_later = operations::tell_watch(&self.control, &self.events);
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod figures_tests;
#[cfg(test)]
mod more_tests;
#[cfg(test)]
mod tests;
