//! Owns: the API that backends call: requests → [`crate::shard::command::Push`]es, answers → replies.
//! In: HTTP and gRPC requests; events of the shards, answers and notices of the log. Out: commands through a
//! [`Gateway`]; replies and problems.
//! Must not: know a session, a topic's subscribers or the store; open a listener (the node does).
//! Invariants: a command is answered once or its caller is told that it may still happen; every table and body is
//! bounded and says 429 when full; nothing invalid reaches a shard.
//!
//! `operations` is what can be asked for; `http`, `http_reads`, `bans` and `grpc` only translate. `request` checks, `gateway`
//! is what the data plane is asked for, `control` brings commands to it and answers back (`answers`: many to one caller),
//! `log_desk` questions to the log,
//! `events` reads what happens to devices, `webhook` brings it to backends, `guard`, `keys` and `signature` decide who may
//! ask.

mod answers;
mod bans;
pub mod control;
mod events;
mod gateway;
pub mod grpc;
mod guard;
mod http;
mod http_reads;
mod keys;
mod log_desk;
mod operations;
mod problem;
mod quota;
mod request;
mod signature;
pub mod webhook;

pub use control::Control;
pub use gateway::Gateway;
pub use guard::Peer;
pub use keys::{ApiKey, ApiKeys, Apps, KeyHash, Scope, Scopes};
pub use problem::Problem;
pub use request::Rules;

pub(crate) use http::json;

use crate::base::ids::{AppId, PushId};
use crate::limits;
use crate::shard::command::Notice;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use log_desk::LogDesk;
use std::io;
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
    keys: ApiKeys,
    push_rates: quota::PushRates,
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
        let events = Arc::new(events::Hub::new(LogDesk::new(Arc::clone(&control)), sources.wall_ms));
        let loopback_only = is_loopback && keys.is_empty();
        let push_rates = quota::PushRates::new(None, &[]);
        let replays = signature::Replays::default();
        Self { control, rules, sources, keys, push_rates, replays, loopback_only, bodies, calls, events }
    }

    /// Lets each app push so many messages a second; none: any. Apps by their number may have a rate of their own.
    #[must_use]
    pub fn with_push_rate(self, per_second: Option<u32>, own: &[Option<u32>]) -> Self {
        Self { push_rates: quota::PushRates::new(per_second, own), ..self }
    }

    /// Where what the log tells goes.
    pub fn notices(&self) -> Notices {
        Notices { control: Arc::clone(&self.control), events: Arc::clone(&self.events) }
    }

    /// Looks after the consumer groups, for as long as it is polled. `webhook`: the app that has one.
    pub fn keep_groups(&self, webhook: Option<AppId>) -> impl Future<Output = ()> + Send + use<> {
        operations::keep_groups(Arc::clone(&self.control), Arc::clone(&self.events), webhook)
    }

    /// Brings events to a backend by HTTP, for as long as it is polled. `random` spreads the retries of many nodes.
    ///
    /// # Errors
    /// The system's certificates cannot be read.
    pub fn webhook(
        &self,
        settings: webhook::Settings,
        random: fn() -> u64,
    ) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let client = webhook::Client::new(settings.url.clone(), settings.timeout)?;
        let app_name = self.rules.apps[usize::from(settings.app.0)].clone();
        let (control, hub) = (Arc::clone(&self.control), Arc::clone(&self.events));
        let around = webhook::Around { control, hub, app_name, wall_ms: self.sources.wall_ms, random };
        Ok(webhook::run(settings, around, client))
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
            .route("/v1/bans", get(bans::list).post(bans::add).delete(bans::remove))
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

/// The way of what the log tells to those who wait for it.
pub struct Notices {
    control: Arc<Control>,
    events: Arc<events::Hub>,
}

impl Notices {
    /// Takes one in.
    pub fn take(&self, notice: Notice) {
        self.control.count_notice();
        self.events.take(notice);
    }
}

#[cfg(test)]
mod bans_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod figures_tests;
#[cfg(test)]
mod more_tests;
#[cfg(test)]
mod tests;
