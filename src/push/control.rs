//! Commands to the data plane and their answers: a bounded table of who waits for what.

use super::answers::{Answer, Answers};
use super::gateway::Gateway;
use super::keys::Fault;
use crate::base::ids::{AppId, Qos};
use crate::limits;
use crate::shard::command::{
    BanAnswer, BanCommand, CommandError, CommandToken, ConnectionFigures, ConnectionQuery, Event, Follow, HistoryPage,
    HistoryQuery, Present, Push, Pushed, ShardStats, UserState, Watch,
};
use crate::store::handle::{Request, RequestToken, StoreError};
use core::time::Duration;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Why a command brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The data plane said so.
    Refused(CommandError),
    /// No answer in time.
    TimedOut,
    /// The data plane ended before it answered.
    Gone,
}

enum Waiter {
    Push(oneshot::Sender<Result<Pushed, CommandError>>),
    /// One of many that are waited for together, by its caller's number.
    Streamed(Arc<Answers>, usize),
    Disconnect(oneshot::Sender<u32>),
    User(oneshot::Sender<Result<UserState, CommandError>>),
    History(oneshot::Sender<Result<HistoryPage, CommandError>>),
    Presence(oneshot::Sender<Option<Present>>),
    Bans(oneshot::Sender<Result<BanAnswer, CommandError>>),
    Stats(Gathering<ShardStats>),
    Canary(Gathering<bool>),
    Connections(Gathering<Vec<ConnectionFigures>>),
}

/// Answers of several shards.
struct Gathering<T> {
    /// Not known until the question has been asked; answers may come before.
    expected: Option<usize>,
    got: Vec<T>,
    to: oneshot::Sender<Vec<T>>,
}

impl<T> Gathering<T> {
    fn new(to: oneshot::Sender<Vec<T>>) -> Self {
        Self { expected: None, got: Vec::new(), to }
    }

    fn is_complete(&self) -> bool {
        self.expected == Some(self.got.len())
    }

    fn finish(self) {
        // Whoever asked may be gone; then there is nobody to tell.
        let _ = self.to.send(self.got);
    }
}

impl Waiter {
    fn stats(&mut self) -> Option<&mut Gathering<ShardStats>> {
        if let Self::Stats(gathering) = self { Some(gathering) } else { None }
    }

    fn canary(&mut self) -> Option<&mut Gathering<bool>> {
        if let Self::Canary(gathering) = self { Some(gathering) } else { None }
    }

    fn connections(&mut self) -> Option<&mut Gathering<Vec<ConnectionFigures>>> {
        if let Self::Connections(gathering) = self { Some(gathering) } else { None }
    }

    fn finish(self) {
        match self {
            Self::Stats(gathering) => gathering.finish(),
            Self::Canary(gathering) => gathering.finish(),
            Self::Connections(gathering) => gathering.finish(),
            Self::Push(_)
            | Self::Streamed(..)
            | Self::Disconnect(_)
            | Self::User(_)
            | Self::History(_)
            | Self::Presence(_)
            | Self::Bans(_) => unreachable!("only what gathers is finished"),
        }
    }
}

/// The commands under way. Full: `Busy`.
struct Pending {
    waiters: Mutex<HashMap<u64, Waiter>>,
    next: AtomicU64,
    capacity: usize,
}

impl Pending {
    /// A panic elsewhere while holding the lock cannot leave the table half changed: each change is one map call.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiter>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn insert(self: &Arc<Self>, waiter: Waiter) -> Result<Entry, Failure> {
        let token = self.insert_unowned(waiter)?;
        Ok(Entry { pending: Arc::clone(self), token })
    }

    /// As [`Pending::insert`], but the place is not given up by itself.
    fn insert_unowned(&self, waiter: Waiter) -> Result<u64, Failure> {
        let token = self.token();
        let mut waiters = self.lock();
        if waiters.len() >= self.capacity {
            return Err(Failure::Refused(CommandError::Busy));
        }
        waiters.insert(token, waiter);
        Ok(token)
    }

    /// Changes what was gathered for a question that goes to several shards, and answers it once all is there. False:
    /// nobody waits for it.
    fn gather<T>(
        &self,
        token: u64,
        pick: impl FnOnce(&mut Waiter) -> Option<&mut Gathering<T>>,
        change: impl FnOnce(&mut Gathering<T>),
    ) -> bool {
        let mut waiters = self.lock();
        let Some(gathering) = waiters.get_mut(&token).and_then(pick) else { return false };
        change(gathering);
        let complete = gathering.is_complete().then(|| waiters.remove(&token)).flatten();
        // The table is not locked while the receiver's task is woken.
        drop(waiters);
        complete.into_iter().for_each(Waiter::finish);
        true
    }
}

/// A place in the table, given up when its owner goes, however it goes (answer, timeout, a caller that hangs up).
struct Entry {
    pending: Arc<Pending>,
    token: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.token);
    }
}

/// An answer under way.
pub struct Reply<T> {
    from: oneshot::Receiver<T>,
    _entry: Entry,
}

impl<T> Reply<T> {
    /// Waits for it, at most this long.
    pub async fn wait(self, timeout: Duration) -> Result<T, Failure> {
        match tokio::time::timeout(timeout, self.from).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(Failure::Gone),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}

/// The way from tokio tasks to the shards and back.
pub struct Control {
    gateway: Box<dyn Gateway>,
    pending: Arc<Pending>,
    /// Says when a drain has begun, to those who wait for it.
    draining: watch::Sender<bool>,
    /// Says that somebody wants one, to the node, which ends with it.
    drain_wanted: watch::Sender<bool>,
    counters: Counters,
}

/// What the control plane itself counts.
#[derive(Default)]
struct Counters {
    pushes: AtomicU64,
    push_refusals: AtomicU64,
    refused_push_rate: AtomicU64,
    unawaited_push_failures: AtomicU64,
    late_answers: AtomicU64,
    notices: AtomicU64,
    webhook_posts: AtomicU64,
    webhook_failures: AtomicU64,
    webhook_refused: AtomicU64,
    /// Requests that were not let in, by why.
    refused: [AtomicU64; Fault::ALL.len()],
}

impl Control {
    /// Commands go to `gateway`; its events must be given to [`Control::dispatch`].
    pub fn new(gateway: Box<dyn Gateway>) -> Self {
        Self::with_capacity(gateway, limits::PENDING_COMMANDS_MAX)
    }

    pub(super) fn with_capacity(gateway: Box<dyn Gateway>, capacity: usize) -> Self {
        let pending = Pending { waiters: Mutex::default(), next: AtomicU64::new(1), capacity };
        Self {
            gateway,
            pending: Arc::new(pending),
            draining: watch::Sender::new(false),
            drain_wanted: watch::Sender::new(false),
            counters: Counters::default(),
        }
    }

    /// Hands a push over; the reply says what came of it. [`Control::ring`] must follow.
    pub fn push(&self, push: Push) -> Result<Reply<Result<Pushed, CommandError>>, Failure> {
        self.refuse_when_draining()?;
        self.refuse_when_store_fails(&push)?;
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::Push(to)).inspect_err(|_| self.count_refusal())?;
        self.submit(push, CommandToken(entry.token))?;
        Ok(Reply { from, _entry: entry })
    }

    /// Hands a push over whose answer comes to `answers`, by the caller's number and the token that this gives. The caller
    /// stops to wait by [`Control::give_up`]. [`Control::ring`] must follow.
    pub(super) fn push_to(&self, push: Push, answers: &Arc<Answers>, number: usize) -> Result<u64, Failure> {
        self.refuse_when_draining()?;
        self.refuse_when_store_fails(&push)?;
        let waiter = Waiter::Streamed(Arc::clone(answers), number);
        let token = self.pending.insert_unowned(waiter).inspect_err(|_| self.count_refusal())?;
        self.submit(push, CommandToken(token)).inspect_err(|_| self.give_up([token]))?;
        Ok(token)
    }

    /// Nobody waits for the answers to these pushes.
    pub(super) fn give_up(&self, tokens: impl IntoIterator<Item = u64>) {
        let mut waiters = self.pending.lock();
        for token in tokens {
            waiters.remove(&token);
        }
    }

    /// Hands a push over and waits for nothing. A later failure is counted. [`Control::ring`] must follow.
    pub fn push_unawaited(&self, push: Push) -> Result<(), Failure> {
        self.refuse_when_draining()?;
        self.refuse_when_store_fails(&push)?;
        self.submit(push, CommandToken::unawaited(self.pending.token()))
    }

    /// Whether pushes were handed over that no shard may know of.
    pub(super) fn is_unrung(&self) -> bool {
        self.gateway.is_unrung()
    }

    /// Tells the shards of what was handed over, and lets them go first, so that messages leave before their answers.
    pub fn ring(&self) {
        self.gateway.ring();
    }

    fn submit(&self, push: Push, token: CommandToken) -> Result<(), Failure> {
        self.gateway.push(push, token).map_err(Failure::Refused).inspect_err(|_| self.count_refusal())?;
        self.counters.pushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Closes the connections of a user, or of one device of it; the reply says how many.
    pub fn disconnect(&self, app: AppId, user: Arc<str>, device: Option<Arc<str>>) -> Result<Reply<u32>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::Disconnect(to))?;
        self.gateway.disconnect(app, user, device, CommandToken(entry.token)).map_err(Failure::Refused)?;
        Ok(Reply { from, _entry: entry })
    }

    /// Reads a part of a stream.
    pub fn history(&self, query: HistoryQuery) -> Result<Reply<Result<HistoryPage, CommandError>>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::History(to))?;
        self.gateway.history(query, CommandToken(entry.token)).map_err(Failure::Refused)?;
        Ok(Reply { from, _entry: entry })
    }

    /// Asks who subscribes to a topic; none: no rule shows it.
    pub fn presence(&self, app: AppId, topic: Arc<str>) -> Result<Reply<Option<Present>>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::Presence(to))?;
        self.gateway.presence(app, topic, CommandToken(entry.token)).map_err(Failure::Refused)?;
        Ok(Reply { from, _entry: entry })
    }

    /// Asks for what is known of a user.
    pub fn user(&self, app: AppId, user: Arc<str>) -> Result<Reply<Result<UserState, CommandError>>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::User(to))?;
        self.gateway.user(app, user, CommandToken(entry.token)).map_err(Failure::Refused)?;
        Ok(Reply { from, _entry: entry })
    }

    /// Lists, adds or lifts bans.
    pub fn bans(&self, command: BanCommand) -> Result<Reply<Result<BanAnswer, CommandError>>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::Bans(to))?;
        self.gateway.bans(command, CommandToken(entry.token)).map_err(Failure::Refused)?;
        Ok(Reply { from, _entry: entry })
    }

    /// Has the shards tell of these and nothing else, from the next command that they answer at the latest.
    pub fn watch(&self, watch: &Arc<Watch>) -> Result<(), Failure> {
        self.gateway.watch(watch).map_err(Failure::Refused)
    }

    /// Asks the log itself.
    pub(super) fn ask_log(&self, request: Request, token: RequestToken) -> Result<(), StoreError> {
        self.gateway.ask_log(request, token)
    }

    /// Whether the store can write and every shard answers.
    pub async fn check_health(&self) -> Result<(), Failure> {
        if !self.store_healthy() {
            return Err(Failure::Refused(CommandError::StoreFailed));
        }
        let answer = match self.stats() {
            Ok(reply) => reply.wait(limits::STATS_TIMEOUT).await.map(drop),
            Err(failure) => Err(failure),
        };
        match answer {
            // A full queue is load, not illness: killing the node for it would turn a burst into an outage.
            Err(Failure::Refused(CommandError::Busy | CommandError::Draining)) => Ok(()),
            answer => answer,
        }
    }

    /// Whether messages flow: a canary goes the way of a commit, through every shard's mail, the log and back, and all of
    /// them come through in time.
    pub async fn check_flow(&self) -> Result<(), Failure> {
        if !self.store_healthy() {
            return Err(Failure::Refused(CommandError::StoreFailed));
        }
        let answer = match self.canary() {
            Ok(reply) => reply.wait(limits::CANARY_TIMEOUT).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(all) if all.iter().all(|is_well| *is_well) => Ok(()),
            Ok(_) => Err(Failure::Refused(CommandError::StoreFailed)),
            // As above: a full queue is load.
            Err(Failure::Refused(CommandError::Busy | CommandError::Draining)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn canary(&self) -> Result<Reply<Vec<bool>>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::Canary(Gathering::new(to)))?;
        let count = self.gateway.canary(CommandToken(entry.token)).map_err(Failure::Refused)?;
        self.pending.gather(entry.token, Waiter::canary, |gathering| gathering.expected = Some(count));
        Ok(Reply { from, _entry: entry })
    }

    /// Has the shards tell at once what happens to these connections, and to no others.
    pub fn follow(&self, followed: &Arc<[Follow]>) -> Result<(), Failure> {
        self.gateway.follow(followed).map_err(Failure::Refused)
    }

    /// Asks every shard for its figures; the reply has them in the shards' order.
    pub fn stats(&self) -> Result<Reply<Vec<ShardStats>>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::Stats(Gathering::new(to)))?;
        let count = self.gateway.stats(CommandToken(entry.token)).map_err(Failure::Refused)?;
        self.pending.gather(entry.token, Waiter::stats, |gathering| gathering.expected = Some(count));
        Ok(Reply { from, _entry: entry })
    }

    /// Looks connections up; the reply has a list from each shard that was asked, in any order.
    pub fn connections(&self, query: ConnectionQuery) -> Result<Reply<Vec<Vec<ConnectionFigures>>>, Failure> {
        let (to, from) = oneshot::channel();
        let entry = self.pending.insert(Waiter::Connections(Gathering::new(to)))?;
        let count = self.gateway.connections(query, CommandToken(entry.token)).map_err(Failure::Refused)?;
        self.pending.gather(entry.token, Waiter::connections, |gathering| gathering.expected = Some(count));
        Ok(Reply { from, _entry: entry })
    }

    /// Takes an event from the shards to whoever waits for it. Of [`Event::Drained`] it returns how many were cut off.
    pub fn dispatch(&self, event: Event) -> Option<u64> {
        match event {
            Event::Pushed { token, result } => self.dispatch_pushed(token, result),
            Event::Stats { token, stats } => {
                let in_order = |gathering: &mut Gathering<ShardStats>| {
                    let place = gathering.got.partition_point(|earlier| earlier.shard < stats.shard);
                    gathering.got.insert(place, *stats);
                };
                if !self.pending.gather(token.0, Waiter::stats, in_order) {
                    self.count_late();
                }
            }
            Event::Connections { token, connections } => {
                if !self.pending.gather(token.0, Waiter::connections, |gathering| gathering.got.push(connections)) {
                    self.count_late();
                }
            }
            Event::Canary { token, is_well } => {
                if !self.pending.gather(token.0, Waiter::canary, |gathering| gathering.got.push(is_well)) {
                    self.count_late();
                }
            }
            Event::Disconnected { token, count } => match self.pending.lock().remove(&token.0) {
                Some(Waiter::Disconnect(to)) => drop(to.send(count)),
                _ => self.count_late(),
            },
            Event::User { token, result } => {
                let waiter = self.pending.lock().remove(&token.0);
                match waiter {
                    Some(Waiter::User(to)) => drop(to.send(result)),
                    _ => self.count_late(),
                }
            }
            Event::History { token, result } => {
                let waiter = self.pending.lock().remove(&token.0);
                match waiter {
                    Some(Waiter::History(to)) => drop(to.send(result)),
                    _ => self.count_late(),
                }
            }
            Event::Presence { token, present } => {
                let waiter = self.pending.lock().remove(&token.0);
                match waiter {
                    Some(Waiter::Presence(to)) => drop(to.send(present)),
                    _ => self.count_late(),
                }
            }
            Event::Bans { token, result } => {
                let waiter = self.pending.lock().remove(&token.0);
                match waiter {
                    Some(Waiter::Bans(to)) => drop(to.send(result)),
                    _ => self.count_late(),
                }
            }
            Event::Drained { cut, .. } => return Some(cut),
            // The shards listen before the control plane begins; one that says so later has nothing for it.
            Event::Listening { .. } => self.count_late(),
        }
        None
    }

    fn dispatch_pushed(&self, token: CommandToken, result: Result<Pushed, CommandError>) {
        if !token.is_awaited() {
            self.counters.unawaited_push_failures.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
            return;
        }
        // Taken out in its own statement, so that the table is not locked while the receiver's task is woken.
        let waiter = self.pending.lock().remove(&token.0);
        match waiter {
            Some(Waiter::Push(to)) => drop(to.send(result)),
            Some(Waiter::Streamed(to, number)) => {
                to.put(Answer { token: token.0, number, result: result.map_err(Failure::Refused) });
            }
            _ => self.count_late(),
        }
    }

    /// The data plane has ended: everybody who still waits is told so.
    pub fn close(&self) {
        // The table is not locked while tasks are woken.
        let waiters = core::mem::take(&mut *self.pending.lock());
        for (token, waiter) in waiters {
            if let Waiter::Streamed(to, number) = waiter {
                to.put(Answer { token, number, result: Err(Failure::Gone) });
            }
        }
    }

    /// Refuses pushes from now on and asks the shards to close everything.
    pub fn drain(&self) {
        if !self.draining.send_replace(true) {
            self.gateway.drain();
        }
    }

    /// Asks the node to drain and end, as a signal does.
    pub fn want_drain(&self) {
        self.drain_wanted.send_replace(true);
    }

    /// Comes back once somebody wants a drain.
    pub async fn drain_wanted(&self) {
        // The sender is here, so this ends with a wish only.
        let mut wanted = self.drain_wanted.subscribe();
        let _wanted = wanted.wait_for(|wanted| *wanted).await;
    }

    /// Comes back once a drain was asked for.
    pub async fn drain_begun(&self) {
        // The sender is here, so this ends with a drain only.
        let mut draining = self.draining.subscribe();
        let _begun = draining.wait_for(|draining| *draining).await;
    }

    /// A drain was asked for.
    pub fn draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// The store can write.
    pub fn store_healthy(&self) -> bool {
        self.gateway.healthy()
    }

    /// The store's figures by name.
    pub fn store_stats(&self) -> Vec<(&'static str, u64)> {
        self.gateway.store_stats()
    }

    /// Shards there are.
    pub fn shards(&self) -> usize {
        self.gateway.shards()
    }

    /// What the control plane itself counts and holds, by name.
    pub fn own_stats(&self) -> Vec<(&'static str, u64)> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = vec![
            ("commands_pending", self.pending.lock().len() as u64),
            ("pushes", load(&self.counters.pushes)),
            ("push_refusals", load(&self.counters.push_refusals)),
            ("refused_push_rate", load(&self.counters.refused_push_rate)),
            ("unawaited_push_failures", load(&self.counters.unawaited_push_failures)),
            ("late_answers", load(&self.counters.late_answers)),
            ("notices", load(&self.counters.notices)),
            ("webhook_posts", load(&self.counters.webhook_posts)),
            ("webhook_failures", load(&self.counters.webhook_failures)),
            ("webhook_refused", load(&self.counters.webhook_refused)),
        ];
        stats.extend(Fault::ALL.iter().map(|&(fault, name)| (name, load(&self.counters.refused[fault as usize]))));
        stats
    }

    fn refuse_when_draining(&self) -> Result<(), Failure> {
        if self.draining() {
            self.count_refusal();
            return Err(Failure::Refused(CommandError::Draining));
        }
        Ok(())
    }

    /// What has to be stored is not taken in while the store fails, or hangs in a commit: nobody knows when that ends, and
    /// waiting would only tell its caller the same later.
    fn refuse_when_store_fails(&self, push: &Push) -> Result<(), Failure> {
        let is_stored = push.qos() > Qos::AtMostOnce || push.key.is_some();
        if is_stored && !self.store_healthy() {
            self.count_refusal();
            return Err(Failure::Refused(CommandError::StoreFailed));
        }
        Ok(())
    }

    fn count_refusal(&self) {
        self.counters.push_refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts something that the log told of.
    pub(super) fn count_notice(&self) {
        self.counters.notices.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request of the webhook.
    pub(super) fn count_webhook_post(&self) {
        self.counters.webhook_posts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that was not taken.
    pub(super) fn count_webhook_failure(&self) {
        self.counters.webhook_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that the backend refused for good.
    pub(super) fn count_webhook_refused(&self) {
        self.counters.webhook_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was not let in.
    pub(super) fn count_refused(&self, fault: Fault) {
        self.counters.refused[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a push of an app that pushes more than it may.
    pub(super) fn count_over_rate(&self) {
        self.counters.refused_push_rate.fetch_add(1, Ordering::Relaxed);
    }

    fn count_late(&self) {
        self.counters.late_answers.fetch_add(1, Ordering::Relaxed);
    }
}
