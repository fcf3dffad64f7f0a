//! The control plane's end: commands in. Answers come as [`Event`](super::command::Event)s.

use super::command::{
    BanCommand, CommandError, CommandToken, ConnectionQuery, Follow, HistoryQuery, Push, QuestionToken, Target,
    Verdict, Watch,
};
use super::home::Homes;
use super::letter::Letter;
use super::presence::Asker;
use crate::base::clock::Now;
use crate::base::ids::{AppId, ShardId};
use crate::base::message::StreamKey;
use crate::engine::mail::{Post, Undelivered};
use crate::io::Socket;
use crate::store;
use crate::wire::tls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// Sends commands to shards. Cheap to clone, never blocks: a full mailbox is `Busy`.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    posts: Vec<Post<Letter>>,
    homes: Homes,
    store: store::Handle,
    /// Lists and everyone have no home; their coordinators take turns.
    next_coordinator: AtomicU16,
    draining: AtomicBool,
    /// A push has woken a shard since somebody last gave way.
    has_woken: AtomicBool,
}

impl Handle {
    pub(super) fn new(posts: Vec<Post<Letter>>, homes: Homes, store: store::Handle) -> Self {
        let (next_coordinator, draining, has_woken) = Default::default();
        Self { inner: Arc::new(Inner { posts, homes, store, next_coordinator, draining, has_woken }) }
    }

    /// Takes a push in; answered by `Event::Pushed` with the same token.
    pub fn push(&self, push: Push, token: CommandToken) -> Result<(), CommandError> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(CommandError::Draining);
        }
        let home = match &push.target {
            Target::User(user) | Target::Device { user, .. } => self.inner.homes.user(push.app, user),
            Target::Topic(topic) => self.inner.homes.topic(push.app, topic),
            Target::Users(_) | Target::Everyone => self.coordinator(),
        };
        if self.post(home, Letter::Push { push: Box::new(push), token })? {
            self.inner.has_woken.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether pushes have woken a shard since somebody last gave way.
    pub fn has_woken(&self) -> bool {
        self.inner.has_woken.load(Ordering::Relaxed)
    }

    /// Lets shards that pushes have woken go first where they share the caller's CPU, so that the messages leave before
    /// whatever the caller does next.
    pub fn give_way(&self) {
        self.inner.has_woken.store(false, Ordering::Relaxed);
        std::thread::yield_now();
    }

    /// Asks every shard for its figures; answered by as many `Event::Stats` as this returns.
    pub fn stats(&self, token: CommandToken) -> Result<usize, CommandError> {
        for shard in self.inner.homes.all() {
            self.send(shard, Letter::Stats { token })?;
        }
        Ok(self.shards())
    }

    /// Sends a canary through every shard and the log; answered by as many `Event::Canary` as this returns.
    pub fn canary(&self, token: CommandToken) -> Result<usize, CommandError> {
        self.inner.homes.all().try_for_each(|shard| self.send(shard, Letter::Canary { token }))?;
        Ok(self.shards())
    }

    /// Has every shard follow these and nobody else from now on. `Busy`: some have been told already; come again.
    pub fn follow(&self, followed: &Arc<[Follow]>) -> Result<(), CommandError> {
        self.inner.homes.all().try_for_each(|shard| self.send(shard, Letter::Follow(Arc::clone(followed))))
    }

    /// Looks connections up; answered by as many `Event::Connections` as this returns.
    pub fn connections(&self, query: ConnectionQuery, token: CommandToken) -> Result<usize, CommandError> {
        let asked = match query {
            ConnectionQuery::Slowest(_) => 0..self.inner.homes.shards(),
            ConnectionQuery::One(name) => name.shard.0..name.shard.0.saturating_add(1).min(self.inner.homes.shards()),
        };
        for shard in asked.clone() {
            self.send(ShardId(shard), Letter::Connections { query, token })?;
        }
        Ok(asked.len())
    }

    /// Closes a user's connections, or one device's; answered by `Event::Disconnected`.
    pub fn disconnect(
        &self,
        app: AppId,
        user: Arc<str>,
        device: Option<Arc<str>>,
        token: CommandToken,
    ) -> Result<(), CommandError> {
        let home = self.inner.homes.user(app, &user);
        self.send(home, Letter::Disconnect { app, user, device, token })
    }

    /// Reads a part of a stream; answered by `Event::History`.
    pub fn history(&self, query: HistoryQuery, token: CommandToken) -> Result<(), CommandError> {
        let home = match &query.stream {
            StreamKey::Inbox(app, user) => self.inner.homes.user(*app, user),
            StreamKey::Topic(app, topic) => self.inner.homes.topic(*app, topic),
            StreamKey::Everyone(_) | StreamKey::Upstream(_) => self.coordinator(),
        };
        self.send(home, Letter::History { query: Box::new(query), token })
    }

    /// Asks who subscribes to a topic; answered by `Event::Presence`.
    pub fn presence(&self, app: AppId, topic: Arc<str>, token: CommandToken) -> Result<(), CommandError> {
        let home = self.inner.homes.topic(app, &topic);
        self.send(home, Letter::Present { app, topic, asker: Asker::Control(token) })
    }

    /// Lists, adds or lifts bans; answered by `Event::Bans`.
    pub fn bans(&self, command: BanCommand, token: CommandToken) -> Result<(), CommandError> {
        self.send(super::limiting::REGISTRAR, Letter::Ban { command: Box::new(command), token })
    }

    /// Lists and everyone have no home.
    fn coordinator(&self) -> ShardId {
        ShardId(self.inner.next_coordinator.fetch_add(1, Ordering::Relaxed) % self.inner.homes.shards())
    }

    /// Asks for a user's devices; answered by `Event::User`.
    pub fn user(&self, app: AppId, user: Arc<str>, token: CommandToken) -> Result<(), CommandError> {
        let home = self.inner.homes.user(app, &user);
        self.send(home, Letter::User { app, user, token })
    }

    /// Answers a question. The caller may wait: it is not a shard. A shard that has ended needs no answer.
    pub fn verdict(&self, token: QuestionToken, verdict: Verdict) {
        let letter = Letter::Verdict { token, verdict: Box::new(verdict) };
        let _gone = self.inner.posts[usize::from(token.shard.0)].send_blocking(letter);
    }

    /// Has every shard tell of these and nothing else from now on; a shard that answers a later command does so. `Busy`:
    /// some shards may have been told already; come again.
    pub fn watch(&self, watch: &Arc<Watch>) -> Result<(), CommandError> {
        self.inner.homes.all().try_for_each(|shard| self.send(shard, Letter::Watch(Arc::clone(watch))))
    }

    /// Asks the log itself; answered by [`Notice::Answered`](super::command::Notice::Answered). At most
    /// `UPSTREAM_REQUESTS_MAX` may be without an answer.
    ///
    /// # Errors
    /// `Busy`: its queue is full. `Failed`: it has ended.
    pub fn ask_log(&self, request: store::Request, token: store::RequestToken) -> Result<(), store::StoreError> {
        let submitted = self.inner.store.try_submit(store::Address::Control, token, request);
        self.inner.store.ring();
        submitted.map_err(|(_, error)| error)
    }

    /// Stops accepting and closes everybody politely; each shard answers `Event::Drained`.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        self.to_all(|| Letter::Drain);
    }

    /// Gives a shard sockets that listen already, for [`Handle::listen`] with their addresses.
    pub fn pass(&self, shard: ShardId, sockets: Vec<(SocketAddr, Socket)>) {
        // A shard that has ended has said why.
        let _gone = self.inner.posts[usize::from(shard.0)].send_blocking(Letter::Passed(sockets));
    }

    /// Has a shard listen as soon as its sessions are back; answered by `Event::Listening`.
    pub fn listen(&self, shard: ShardId, addresses: Vec<SocketAddr>) {
        // A shard that has ended has said why.
        let _gone = self.inner.posts[usize::from(shard.0)].send_blocking(Letter::Listen(addresses));
    }

    /// TLS is this from now on, for new connections.
    pub fn renew_tls(&self, server: &tls::Server) {
        for post in &self.inner.posts {
            // A shard that has ended accepts nobody.
            let _gone = post.send_blocking(Letter::Tls(server.clone()));
        }
    }

    /// Ends the shards' threads. The caller may wait: it is not a shard.
    pub(super) fn stop(&self) {
        self.to_all(|| Letter::Stop);
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        usize::from(self.inner.homes.shards())
    }

    /// The store's figures.
    pub fn store_stats(&self) -> store::Stats {
        self.inner.store.stats()
    }

    /// What the log's commits have taken together, in milliseconds.
    pub fn commits_ms(&self) -> u64 {
        self.inner.store.commits_ms()
    }

    /// Whether the store has never failed and its last commit has not been under way for too long.
    pub fn healthy(&self, now: Now) -> bool {
        self.inner.store.fault().is_none() && !self.inner.store.is_stalled(now)
    }

    /// Why the store failed first.
    pub fn store_fault(&self) -> Option<&str> {
        self.inner.store.fault().map(|fault| &*fault.reason)
    }

    fn to_all(&self, letter: impl Fn() -> Letter) {
        for post in &self.inner.posts {
            // A shard that has already ended needs no telling.
            let _gone = post.send_blocking(letter());
        }
    }

    fn send(&self, to: ShardId, letter: Letter) -> Result<(), CommandError> {
        self.post(to, letter).map(drop)
    }

    /// True: the shard slept.
    fn post(&self, to: ShardId, letter: Letter) -> Result<bool, CommandError> {
        self.inner.posts[usize::from(to.0)].try_send(letter).map_err(|undelivered| match undelivered {
            Undelivered::Busy(_) => CommandError::Busy,
            Undelivered::Gone(_) => CommandError::Draining,
        })
    }
}
