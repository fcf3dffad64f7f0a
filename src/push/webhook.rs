//! What happens to devices, brought to a backend by HTTP: a consumer group of the node's own, for backends that do not
//! speak gRPC.
//!
//! ```text
//!  consumer ──batch──► POST ──2xx──► acknowledged, the next one
//!                       │ └─400, 413, 415, 422─► half of it; a single event three times in a row: passed over, counted
//!                       └─anything else, or nothing─► the same again, later and later
//! ```
//! One batch is under way at a time, so events come in the order of their positions, each at least once. What the backend
//! does not take stays stored, up to the bounds of its retention, and nobody waits for it.

mod body;
mod client;

pub(super) use client::Client;

use super::control::Control;
use super::events::{Consumer, Hub, Read};
use super::operations;
use crate::base::ids::{AppId, Offset};
use crate::base::secret::Secret;
use crate::limits::{WEBHOOK_BYTES_MAX, WEBHOOK_REFUSALS_MAX, WEBHOOK_RETRY_MAX, WEBHOOK_RETRY_MIN};
use crate::shard::command::AppWatch;
use axum::http::{StatusCode, Uri};
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

/// The group's name. No client can have one like it.
pub(super) const GROUP: &str = "$webhook";

/// Where events go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// An `http` or `https` address with a host.
    pub url: Uri,
    /// What requests are signed with.
    pub secret: Secret,
    /// Whose events.
    pub app: AppId,
    /// Which.
    pub wants: AppWatch,
    /// Most events of one request, at least 1.
    pub events: usize,
    /// How long the backend has for its answer.
    pub timeout: Duration,
}

/// A request that is ready to go.
pub(super) struct Post {
    /// Seconds since 1970-01-01 UTC, as text.
    pub(super) timestamp: String,
    /// `sha256=` and the signature of timestamp, `.` and body.
    pub(super) signature: String,
    pub(super) body: Vec<u8>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// The backend answered.
    Answered(StatusCode),
    /// It did not; for the operator.
    Failed(String),
}

/// Brings a request to the backend. The client, or the tests' backend.
pub(super) trait Carry: Send + Sync {
    /// Bounded in time.
    fn post(&self, post: Post) -> impl Future<Output = Posted> + Send;
}

/// What the sink needs besides its settings.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) control: Arc<Control>,
    pub(super) hub: Arc<Hub>,
    pub(super) app_name: String,
    pub(super) wall_ms: fn() -> u64,
    /// Spreads the retries of many nodes.
    pub(super) random: fn() -> u64,
}

/// Runs until a drain begins.
pub(super) async fn run(settings: Settings, around: Around, carrier: impl Carry) {
    let control = Arc::clone(&around.control);
    let mut sink = Sink { room: settings.events, settings, around, carrier, failures: 0, refusals: 0 };
    tokio::select! {
        () = control.drain_begun() => {}
        () = sink.serve() => {}
    }
}

struct Sink<C> {
    settings: Settings,
    around: Around,
    carrier: C,
    /// Events of the next request.
    room: usize,
    /// Requests in a row that failed.
    failures: u32,
    /// How often in a row the backend did not like one event.
    refusals: u32,
}

impl<C: Carry> Sink<C> {
    async fn serve(&mut self) {
        loop {
            let Around { control, hub, .. } = &self.around;
            let Settings { app, wants, .. } = &self.settings;
            let begun = operations::consume((control, hub), *app, GROUP, wants.clone(), None).await;
            match begun {
                Ok(consumer) => self.deliver(consumer).await,
                Err(problem) => tracing::warn!("the webhook cannot read events: {}", problem.detail),
            }
            self.failures += 1;
            self.pause().await;
        }
    }

    /// Delivers until the group cannot be read.
    async fn deliver(&mut self, mut consumer: Consumer) {
        let mut waiting: VecDeque<Read> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match consumer.next().await {
                    Ok(read) => waiting.extend(read),
                    Err(ended) => return tracing::warn!("the webhook reads no more events: {ended:?}"),
                }
            }
            let (count, body) = body::encode(&self.around.app_name, waiting.iter().take(self.room), WEBHOOK_BYTES_MAX);
            let posted = self.carrier.post(self.sign(body)).await;
            if self.is_done_with(count, posted) {
                let last = waiting.drain(..count).next_back().expect("a request has one event at least");
                self.acknowledge(last.position()).await;
            } else {
                self.pause().await;
            }
        }
    }

    fn sign(&self, body: Vec<u8>) -> Post {
        let timestamp = ((self.around.wall_ms)() / 1_000).to_string();
        let signature = body::sign(self.settings.secret.bytes(), &timestamp, &body);
        Post { timestamp, signature, body }
    }

    /// Whether the events of a request are over: taken by the backend, or refused for good.
    fn is_done_with(&mut self, count: usize, posted: Posted) -> bool {
        self.around.control.count_webhook_post();
        let wrong = match posted {
            Posted::Answered(status) if status.is_success() => {
                if self.failures > 0 {
                    tracing::info!("the webhook is taken again");
                }
                (self.failures, self.refusals) = (0, 0);
                // After a request that had to be small the next ones grow again.
                self.room = (self.room * 2).min(self.settings.events);
                return true;
            }
            Posted::Answered(status) if is_about_the_body(status) && count > 1 => {
                self.room = count / 2;
                status.to_string()
            }
            Posted::Answered(status) if is_about_the_body(status) => {
                self.refusals += 1;
                if self.refusals >= WEBHOOK_REFUSALS_MAX {
                    tracing::error!("the webhook answers {status} to an event, which is passed over");
                    self.around.control.count_webhook_refused();
                    (self.failures, self.refusals) = (0, 0);
                    return true;
                }
                status.to_string()
            }
            Posted::Answered(status) => status.to_string(),
            Posted::Failed(why) => why,
        };
        self.around.control.count_webhook_failure();
        if self.failures == 0 {
            tracing::warn!("the webhook is not taken and will be tried again: {wrong}");
        }
        self.failures = self.failures.saturating_add(1);
        false
    }

    async fn acknowledge(&self, position: super::events::Position) {
        let acknowledged = self.around.hub.acknowledge(self.settings.app, GROUP, position).await;
        // What is not on record comes once more after a restart; the next acknowledgement covers it, too.
        if let Err(problem) = acknowledged {
            tracing::warn!("the webhook's position cannot be stored: {}", problem.detail);
        }
    }

    async fn pause(&self) {
        tokio::time::sleep(pause(self.failures, (self.around.random)())).await;
    }
}

/// These say that the request's content is wrong: it would be wrong the next time, too. All else may pass.
fn is_about_the_body(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 413 | 415 | 422)
}

/// Before the next try: twice as long after each failure, up to a bound, and between half of it and all.
fn pause(failures: u32, random: u64) -> Duration {
    let doubled = WEBHOOK_RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let whole = doubled.min(WEBHOOK_RETRY_MAX);
    whole / 2 + (whole / 2).mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

impl Read {
    fn position(&self) -> super::events::Position {
        match self {
            Self::Event(position, _) | Self::Gap(position, _) => *position,
        }
    }
}

/// `EPOCH:OFFSET`, as on the edge port.
fn position_text((epoch, Offset(offset)): super::events::Position) -> String {
    format!("{:016x}:{offset}", epoch.0)
}

#[cfg(test)]
mod tests;
