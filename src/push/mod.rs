//! Owns: the API that backends call: requests → [`crate::shard::command::Push`]es, answers → replies.
//! In: HTTP requests; events of the shards. Out: commands through a [`Gateway`]; replies and problems.
//! Must not: know a session, a topic's subscribers or the store; open a listener (the node does).
//! Invariants: a command is answered once or its caller is told that it may still happen; every table and body is
//! bounded and says 429 when full; nothing invalid reaches a shard.
//!
//! `request` and `control` know nothing of HTTP's framing, so that another protocol on the same port can use them.

pub mod control;
mod guard;
mod http;
mod problem;
mod request;

pub use control::{Control, Gateway};
pub use problem::Problem;
pub use request::Rules;

pub(crate) use http::json;

use crate::base::ids::PushId;
use crate::limits;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::post;
use std::sync::Arc;

/// What the API cannot compute: the clock and the ids, given by the node.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: fn() -> u64,
    /// A unique, time-ordered id.
    pub new_id: fn() -> PushId,
}

/// The API's state.
pub struct Api {
    control: Arc<Control>,
    rules: Rules,
    sources: Sources,
    loopback_only: bool,
    bodies: guard::Bodies,
}

impl Api {
    /// `loopback_only`: the API listens on loopback without keys, so that callers must prove to be no web page.
    pub fn new(control: Arc<Control>, rules: Rules, sources: Sources, loopback_only: bool) -> Self {
        let bodies = guard::Bodies::new(limits::API_BODY_BYTES_TOTAL_MAX);
        Self { control, rules, sources, loopback_only, bodies }
    }

    /// All routes of the port: those for backends, and `beside` (health and figures), behind the same checks.
    pub fn router(self, beside: Router) -> Router {
        let api = Arc::new(self);
        Router::new()
            .route("/v1/push", post(http::push))
            .route("/v1/push/batch", post(http::batch))
            .route("/v1/users/{user}/disconnect", post(http::disconnect))
            .with_state(Arc::clone(&api))
            .merge(beside)
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such path"))
            .method_not_allowed_fallback(async || {
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
            })
            .layer(middleware::from_fn_with_state(api, guard::check))
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
