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
use crate::limits::PUSHES_UNRUNG_MAX;
use crate::store;
use crate::wire::tls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

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
    /// Shards with pushes that nobody has rung for, by their number modulo 64.
    unrung: AtomicU64,
    /// How many pushes those are.
    quiet: AtomicU32,
}

impl Handle {
    pub(super) fn new(posts: Vec<Post<Letter>>, homes: Homes, store: store::Handle) -> Self {
        let (next_coordinator, draining, unrung, quiet) = Default::default();
        Self { inner: Arc::new(Inner { posts, homes, store, next_coordinator, draining, unrung, quiet }) }
    }

    /// Takes a push in; answered by `Event::Pushed` with the same token. A shard that sleeps learns of it by
    /// [`Handle::ring`], which must follow: once for many saves a wake and a switch each. Every so many it happens here,
    /// for shards on other CPUs should begin before a long batch has ended.
    pub fn push(&self, push: Push, token: CommandToken) -> Result<(), CommandError> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(CommandError::Draining);
        }
        let home = match &push.target {
            Target::User(user) | Target::Device { user, .. } => self.inner.homes.user(push.app, user),
            Target::Topic(topic) => self.inner.homes.topic(push.app, topic),
            Target::Users(_) | Target::Everyone => self.coordinator(),
        };
        let post = &self.inner.posts[usize::from(home.0)];
        post.push(Letter::Push { push: Box::new(push), token }).map_err(|undelivered| {
            // What fills the mailbox may be what nobody has rung for.
            post.ring();
            refusal(&undelivered)
        })?;
        // Behind the letter: whoever takes the bit away sees it, and rings.
        self.inner.unrung.fetch_or(bit_of(home), Ordering::Release);
        if self.inner.quiet.fetch_add(1, Ordering::Relaxed) + 1 >= PUSHES_UNRUNG_MAX {
            self.ring();
        }
        Ok(())
    }

    /// Whether pushes were taken in since the last [`Handle::ring`], by whomever.
    pub fn is_unrung(&self) -> bool {
        self.inner.unrung.load(Ordering::Relaxed) != 0
    }

    /// Whether a shard was awake a moment ago.
    pub fn is_at_work(&self) -> bool {
        self.inner.posts.iter().any(Post::is_awake)
    }

    /// Whether a shard has so many letters to read that it gains nothing by reading more of them in one turn.
    pub fn has_enough_letters(&self) -> bool {
        self.inner.posts.iter().any(Post::has_enough_letters)
    }

    /// Wakes the shards that sleep beside pushes, and lets them go first where they share the caller's CPU, so that the
    /// messages leave before whatever the caller does next.
    pub fn ring(&self) {
        self.inner.quiet.store(0, Ordering::Relaxed);
        let unrung = self.inner.unrung.swap(0, Ordering::Acquire);
        let posts = self.inner.posts.iter().filter(|post| unrung & bit_of(post.shard()) != 0);
        // Each of them, not as far as the first that slept.
        if posts.filter(|post| post.ring()).count() > 0 {
            std::thread::yield_now();
        }
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
        self.inner.posts[usize::from(to.0)].try_send(letter).map_err(|undelivered| refusal(&undelivered))
    }
}

fn refusal(undelivered: &Undelivered<Letter>) -> CommandError {
    match undelivered {
        Undelivered::Busy(_) => CommandError::Busy,
        Undelivered::Gone(_) => CommandError::Draining,
    }
}

fn bit_of(shard: ShardId) -> u64 {
    1 << (shard.0 % 64)
}
