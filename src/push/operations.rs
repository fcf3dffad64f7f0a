//! What backends can ask for, whatever protocol they ask in: `http` and `grpc` only translate.

use super::Api;
use super::control::{Control, Failure, Reply};
use super::events::{Consumer, Hub, Position};
use super::keys::Caller;
use super::problem::Problem;
use super::request::{self, Accepted, Asking, Draft, WaitFor};
use super::webhook;
use crate::base::ids::{AppId, PushId};
use crate::base::message::StreamKey;
use crate::limits;
use crate::shard::command::{
    AppWatch, CommandError, HistoryPage, HistoryQuery, Place, Present, Push, PushResult, Pushed, Target, UserState,
};
use axum::http::StatusCode;
use core::time::Duration;
use smallvec::SmallVec;
use std::sync::Arc;
use tokio::time::Instant;

/// What came of a push.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) id: PushId,
    /// Empty for `wait: accepted`: nothing is known yet.
    pub(super) results: SmallVec<[PushResult; 1]>,
    pub(super) duplicate: bool,
    /// The devices that have it are named.
    pub(super) awaits_devices: bool,
}

/// Which stream is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stream<'a> {
    /// A user's inbox.
    Inbox(&'a str),
    /// A topic's.
    Topic(&'a str),
}

/// Which part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) after: Option<Place>,
    pub(super) limit: Option<usize>,
}

/// A question that was not answered has changed nothing.
fn unread(error: CommandError) -> Problem {
    match error {
        CommandError::StoreFailed => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read now"),
        other => Failure::Refused(other).into(),
    }
}

/// A push that has been handed over.
pub(super) enum Started<T = Reply<Result<Pushed, CommandError>>> {
    /// Nothing is waited for.
    Done(Outcome),
    /// The data plane will answer.
    Waits(Waiting<T>),
}

/// An answer that is waited for.
pub(super) struct Waiting<T> {
    /// How.
    pub(super) reply: T,
    /// How long, from when the push was handed over.
    pub(super) patience: Duration,
    pub(super) awaits_devices: bool,
}

impl Api {
    /// What requests are judged by.
    pub(super) fn asking<'a>(&'a self, caller: &'a Caller, outside_app: Option<&'a str>) -> Asking<'a> {
        Asking { rules: &self.rules, caller, outside_app, wall_ms: (self.sources.wall_ms)() }
    }

    /// Checks a push and hands it over. [`Control::ring`] must follow, once for all that are handed over together.
    pub(super) fn start_push(&self, draft: Draft<'_>, asking: &Asking<'_>) -> Result<Started, Problem> {
        self.start_push_by(draft, asking, |push| self.control.push(push))
    }

    /// As [`Api::start_push`]; if something is waited for, it is handed over by `hand_over`.
    pub(super) fn start_push_by<T>(
        &self,
        draft: Draft<'_>,
        asking: &Asking<'_>,
        hand_over: impl FnOnce(Push) -> Result<T, Failure>,
    ) -> Result<Started<T>, Problem> {
        let Accepted { mut push, wait, timeout } = request::check(draft, asking)?;
        let receivers = if let Target::Users(users) = &push.target { users.len() } else { 1 };
        self.push_rates.take(push.app, receivers).inspect_err(|_| self.control.count_over_rate())?;
        let id = (self.sources.new_id)();
        push.id = id;
        let awaits_devices = wait == WaitFor::Delivered;
        let patience = match wait {
            WaitFor::Accepted => {
                self.control.push_unawaited(push)?;
                let results = SmallVec::new();
                return Ok(Started::Done(Outcome { id, results, duplicate: false, awaits_devices }));
            }
            WaitFor::Stored => timeout,
            // The shard itself answers at the timeout, naming who has it.
            WaitFor::Delivered => timeout + limits::DELIVERY_ANSWER_GRACE,
        };
        Ok(Started::Waits(Waiting { reply: hand_over(push)?, patience, awaits_devices }))
    }

    /// What is known of a user, the devices by name.
    pub(super) async fn user(&self, user: &str, app: Option<&str>, asking: &Asking<'_>) -> Result<UserState, Problem> {
        let app = asking.app(app)?;
        let user = request::identity("user", user)?;
        let answer = self.control.user(app, user)?.wait(limits::PUSH_TIMEOUT_DEFAULT).await?;
        let mut state = answer.map_err(unread)?;
        state.devices.sort_by(|one, other| one.device.cmp(&other.device));
        Ok(state)
    }

    /// A part of an inbox or of a topic's history.
    pub(super) async fn history(
        &self,
        of: Stream<'_>,
        page: Page,
        app: Option<&str>,
        asking: &Asking<'_>,
    ) -> Result<HistoryPage, Problem> {
        let app = asking.app(app)?;
        let stream = match of {
            Stream::Inbox(user) => StreamKey::Inbox(app, request::identity("user", user)?),
            Stream::Topic(topic) => StreamKey::Topic(app, request::topic("topic", topic)?),
        };
        let Page { after, limit } = page;
        let limit = limit.unwrap_or(limits::HISTORY_PAGE_DEFAULT);
        if limit > limits::HISTORY_PAGE_MAX {
            return Err(Problem::field("limit", format!("is {limit}; allowed: 0 to {}", limits::HISTORY_PAGE_MAX)));
        }
        let query = HistoryQuery { stream, after, limit };
        self.control.history(query)?.wait(limits::PUSH_TIMEOUT_DEFAULT).await?.map_err(unread)
    }

    /// Who subscribes to a topic.
    pub(super) async fn presence(
        &self,
        topic: &str,
        app: Option<&str>,
        asking: &Asking<'_>,
    ) -> Result<Present, Problem> {
        let app = asking.app(app)?;
        let topic = request::topic("topic", topic)?;
        let present = self.control.presence(app, topic)?.wait(limits::PUSH_TIMEOUT_DEFAULT).await?;
        present.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no rule of topics.presence shows this topic"))
    }

    /// Closes a user's connections, or one device's; how many there were.
    pub(super) async fn disconnect(
        &self,
        user: &str,
        device: Option<&str>,
        app: Option<&str>,
        asking: &Asking<'_>,
    ) -> Result<u32, Problem> {
        let app = asking.app(app)?;
        let user = request::identity("user", user)?;
        let device = device.map(|device| request::identity("device", device)).transpose()?;
        Ok(self.control.disconnect(app, user, device)?.wait(limits::PUSH_TIMEOUT_DEFAULT).await?)
    }
}

impl Api {
    /// Begins to read an app's events for a group. When this comes back, all shards tell of what it wants.
    pub(super) async fn read_events(
        &self,
        app: AppId,
        group: &str,
        wants: AppWatch,
        after: Option<Position>,
    ) -> Result<Consumer, Problem> {
        consume((&self.control, &self.events), app, group, wants, after).await
    }
}

/// As [`Api::read_events`].
pub(super) async fn consume(
    (control, events): (&Control, &Arc<Hub>),
    app: AppId,
    group: &str,
    wants: AppWatch,
    after: Option<Position>,
) -> Result<Consumer, Problem> {
    let consumer = events.subscribe(app, group, wants, after).await?;
    tell_watch(control, events)?;
    // A shard takes letters in their order: whoever answers this has taken the watch in.
    control.stats()?.wait(limits::STATS_TIMEOUT).await?;
    Ok(consumer)
}

/// Tells the shards what is wanted, if that has changed. What could not be told is told the next time.
pub(super) fn tell_watch(control: &Control, events: &Hub) -> Result<(), Failure> {
    match events.changed_watch() {
        Some(watch) => control.watch(&watch).inspect_err(|_| events.not_told()),
        None => Ok(()),
    }
}

/// Forgets consumer groups that nobody uses, those of webhooks that are configured no more among them, and has the shards
/// tell of no more than the others want.
pub(super) async fn keep_groups(control: Arc<Control>, events: Arc<Hub>, webhook: Option<AppId>) {
    loop {
        // What could not be done or told now is the next time.
        let looked = events.look_after().await;
        if looked.is_ok() && events.forget_but(webhook::GROUP, webhook).await.is_ok() {
            let _told_later = tell_watch(&control, &events);
        }
        tokio::time::sleep(limits::EVENTS_GROUPS_INTERVAL).await;
    }
}

impl Started {
    /// Waits for what the push asked for. The time counts from when the push was handed over, not from when its turn to
    /// be asked came.
    pub(super) async fn finish_since(self, begun: Instant) -> Result<Outcome, Problem> {
        match self {
            Self::Done(outcome) => Ok(outcome),
            Self::Waits(waiting) => waiting.finish_since(begun).await,
        }
    }
}

impl Waiting<Reply<Result<Pushed, CommandError>>> {
    /// As [`Started::finish_since`].
    async fn finish_since(self, begun: Instant) -> Result<Outcome, Problem> {
        let Self { reply, patience, awaits_devices } = self;
        let pushed = reply.wait(patience.saturating_sub(begun.elapsed())).await?.map_err(Failure::Refused)?;
        Ok(Outcome::of(pushed, awaits_devices))
    }
}

impl Outcome {
    /// What the data plane has answered.
    pub(super) fn of(pushed: Pushed, awaits_devices: bool) -> Self {
        Self { id: pushed.id, results: pushed.results, duplicate: pushed.duplicate, awaits_devices }
    }
}
