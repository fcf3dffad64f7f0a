//! Starting and ending a node's data plane: the mailboxes, the log thread, one thread a shard.

use super::command::{Event, Notice, Question, Story};
use super::gateway::{Gateway, GatewaySettings};
use super::handle::Handle;
use super::home::Homes;
use super::letter::Letter;
use super::quotas::Apps;
use super::settings::Settings;
use crate::base::hash::KeyedHash;
use crate::base::ids::ShardId;
use crate::base::message::StreamKey;
use crate::engine::Engine;
use crate::engine::mail::{Mailbox, Post};
use crate::io::passed::Passed;
use crate::io::probe::{self, Chosen};
use crate::io::{self, Driver};
use crate::limits::{
    AUTH_QUESTIONS_MAX, EVENTS_MAX, GIVE_BACK_INTERVAL, MAILBOX_LETTERS_MAX, NOTICES_MAX, STORIES_MAX,
    UPSTREAM_REQUESTS_MAX,
};
use crate::store::durable::{OpenError, Opening};
use crate::store::{self, Address, Batch, Deliver, Done, DurableStore, Log, LogThread, MemoryStore, Store};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::fmt;
use std::io as io_error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A shard: an engine and what it serves. Belongs to the thread that made it.
pub struct Shard<D: Driver> {
    engine: Engine<D, Gateway>,
    rests_again_ms: u64,
}

/// What a shard is made from; it may travel to the thread that will run it.
#[derive(Debug)]
pub struct Seat {
    gateway: GatewaySettings,
    mailbox: Mailbox<Letter>,
    posts: Vec<Post<Letter>>,
    engine: crate::engine::Settings,
}

impl<D: Driver> Shard<D> {
    /// A shard that has not restored its sessions yet.
    ///
    /// # Errors
    /// The driver cannot be polled.
    pub fn new(seat: Seat, driver: D) -> io_error::Result<Self> {
        let mut gateway = Gateway::new(seat.gateway);
        gateway.restore();
        let engine = Engine::new(driver, gateway, seat.engine, seat.mailbox, seat.posts)?;
        Ok(Self { engine, rests_again_ms: 0 })
    }

    /// One turn.
    ///
    /// # Errors
    /// The driver cannot be polled: the shard is of no use any more.
    pub fn turn(&mut self) -> io_error::Result<()> {
        self.engine.turn()
    }

    /// Whether the next turn will wait, and this was not so lately: at most once in `GIVE_BACK_INTERVAL`.
    pub fn is_at_rest(&mut self) -> bool {
        let now_ms = self.engine.core.now().monotonic_ms;
        if self.engine.has_work() || now_ms < self.rests_again_ms {
            return false;
        }
        self.rests_again_ms = self.engine.core.now().deadline(GIVE_BACK_INTERVAL);
        true
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.engine.handler.stopped()
    }

    /// What the engine holds.
    pub fn counts(&self) -> crate::engine::Counts {
        self.engine.core.counts()
    }

    /// The driver, for whoever runs several shards on one thread and has to know which of them is due.
    pub fn driver(&self) -> &D {
        self.engine.core.driver()
    }

    /// Makes every session anew from its own frozen bytes, between two turns. Nothing may change by it: it is how the
    /// simulation shows that sessions can be moved to another process.
    pub fn freeze_and_thaw(&mut self) {
        self.engine.handler.directory.freeze_and_thaw();
    }
}

/// A data plane that is not running yet: what the node's threads, or a simulation, run.
pub struct Assembly {
    /// Commands in.
    pub handle: Handle,
    /// Answers out.
    pub events: Receiver<Event>,
    /// What the log tells the control plane.
    pub notices: Receiver<Notice>,
    /// What happened to connections, for the log.
    pub stories: Receiver<Story>,
    /// Tokens to check.
    pub questions: Receiver<Question>,
    /// One a shard.
    pub seats: Vec<Seat>,
    /// Where the log's commits go.
    pub mail: LogMail,
}

impl Assembly {
    /// Puts the parts of `settings.shards` shards together around a log.
    pub fn new(settings: &Arc<Settings>, store: &store::Handle) -> Self {
        Self::with_mailboxes(settings, store, MAILBOX_LETTERS_MAX)
    }

    /// As [`Assembly::new`], with mailboxes of that many letters: a simulation wants them full.
    pub fn with_mailboxes(settings: &Arc<Settings>, store: &store::Handle, letters_max: usize) -> Self {
        let hash = KeyedHash::new(settings.hash_key);
        let homes = Homes::new(hash.clone(), settings.shards);
        let open = |shard| Mailbox::new(ShardId(shard), letters_max);
        let mailboxes: Vec<Mailbox<Letter>> = (0..settings.shards).map(open).collect();
        let posts: Vec<Post<Letter>> = mailboxes.iter().map(Mailbox::post).collect();
        let (events_in, events) = bounded(EVENTS_MAX);
        let (notices_in, notices) = bounded(NOTICES_MAX + UPSTREAM_REQUESTS_MAX);
        let (stories_in, stories) = bounded(STORIES_MAX);
        let (questions_in, questions) = bounded(AUTH_QUESTIONS_MAX);
        let apps = Apps::new(&settings.limits.quotas);
        let seat = |mailbox: Mailbox<Letter>| Seat {
            gateway: GatewaySettings {
                shard: mailbox.shard(),
                homes: homes.clone(),
                hash: hash.clone(),
                settings: Arc::clone(settings),
                store: store.clone(),
                events: events_in.clone(),
                stories: stories_in.clone(),
                questions: questions_in.clone(),
                apps: apps.clone(),
            },
            mailbox,
            posts: posts.clone(),
            engine: settings.engine(),
        };
        let seats = mailboxes.into_iter().map(seat).collect();
        let handle = Handle::new(posts.clone(), homes, store.clone());
        Self { handle, events, notices, stories, questions, seats, mail: LogMail { posts, notices: notices_in } }
    }
}

/// Brings the log's commits to the shards' mailboxes. It may wait there: shards never wait for it. It waits for nobody of
/// the control plane.
pub struct LogMail {
    posts: Vec<Post<Letter>>,
    notices: Sender<Notice>,
}

impl LogMail {
    /// Whether every mailbox has room for `letters` more, so that a delivery does not wait.
    pub fn has_room(&self, letters: usize) -> bool {
        self.posts.iter().all(|post| post.room() >= letters)
    }
}

impl Deliver for LogMail {
    fn batch(&mut self, batch: &Arc<Batch>) {
        for post in &self.posts {
            // A shard that has ended misses nothing.
            let _gone = post.send_blocking(Letter::Batch(Arc::clone(batch)));
        }
        let is_for_backends = batch.entries.iter().any(|entry| matches!(entry.stream, StreamKey::Upstream(_)));
        // A hint that finds no room is missed: whoever reads looks again by himself. The rest is for answers.
        if is_for_backends && self.notices.len() < NOTICES_MAX {
            let _gone = self.notices.try_send(Notice::Written(Arc::clone(batch)));
        }
    }

    fn done(&mut self, to: Address, done: Done) {
        match to {
            Address::Shard(shard) => {
                let _gone = self.posts[usize::from(shard.0)].send_blocking(Letter::Done(done));
            }
            Address::Control => match self.notices.try_send(Notice::Answered(done)) {
                // Without a control plane nobody wants to know.
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                Err(TrySendError::Full(_)) => unreachable!("the control plane has no more requests than answers fit"),
            },
        }
    }
}

/// A running data plane.
pub struct Running {
    /// Commands in.
    pub handle: Handle,
    /// Answers out.
    pub events: Receiver<Event>,
    /// What the log tells the control plane.
    pub notices: Receiver<Notice>,
    /// What happened to connections, for the log.
    pub stories: Receiver<Story>,
    /// Tokens to check.
    pub questions: Receiver<Question>,
    /// Bound addresses, in the order of the settings.
    pub listening: Vec<SocketAddr>,
    /// The driver's name.
    pub driver: &'static str,
    /// Why the driver is not the one that `auto` would like.
    pub notice: Option<String>,
    shards: Vec<JoinHandle<()>>,
    log: LogThread,
}

impl Running {
    /// Ends shards and log and waits for them. Connections still open are cut: drain first.
    pub fn stop(self) {
        self.handle.stop();
        for shard in self.shards {
            shard.join().expect("a shard thread does not panic");
        }
        self.log.stop().expect("the log thread does not panic");
    }

    /// Whether a thread of the data plane has ended although nobody told it to.
    pub fn has_failed(&self) -> bool {
        self.shards.iter().any(JoinHandle::is_finished)
    }
}

/// Where messages are stored.
#[derive(Clone, Copy, Debug)]
pub struct Data<'path> {
    /// The data directory.
    pub path: &'path Path,
    /// Go on with what is left where something is lost.
    pub accept_loss: bool,
}

/// Why the data plane did not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory is not opened.
    Store(OpenError),
    /// The driver asked for is not there.
    Driver(String),
    /// An address cannot be listened on.
    Listen(SocketAddr, io_error::Error),
    /// The system gave no thread or descriptor.
    Io(io_error::Error),
}

impl StartError {
    /// The data directory is another process's at the moment.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Store(OpenError::InUse))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(why) => write!(f, "driver: {why}"),
            Self::Listen(address, error) => write!(f, "listen {address}: {error}"),
            Self::Io(error) => error.fmt(f),
            Self::Store(error) => write!(f, "data directory: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts everything and returns when every shard listens.
///
/// `passed` sockets stand in for the addresses that they listen on. Without `data` messages live in memory. Threads
/// that have nothing to do call `give_back` now and then: what a burst took from the allocator and has freed since may
/// go back to the system. It must be quick.
///
/// # Errors
/// The first thing that did not work; what had been started is ended again.
pub fn start(
    settings: Settings,
    data: Option<Data<'_>>,
    passed: &[Passed],
    give_back: fn(),
) -> Result<Running, StartError> {
    let settings = Arc::new(settings);
    let (retentions, hash) = (settings.retentions(), KeyedHash::new(settings.hash_key));
    let Some(Data { path, accept_loss }) = data else {
        return start_over(MemoryStore::new(retentions, hash), settings, passed, give_back);
    };
    // Of the seed's sequence the log makes epochs; what the store draws must not be one of them.
    let seed = !settings.random_seed;
    let store = DurableStore::open(Opening { path, retentions, hash, seed, accept_loss }).map_err(StartError::Store)?;
    #[cfg(debug_assertions)]
    let store = super::failpoint::Failpoint::new(store);
    start_over(store, settings, passed, give_back)
}

fn start_over<S: Store + Send + 'static>(
    store: S,
    settings: Arc<Settings>,
    passed: &[Passed],
    give_back: fn(),
) -> Result<Running, StartError> {
    let choosing = probe::choose(settings.driver).map_err(StartError::Driver)?;
    let log = Log::open(store, settings.random_seed).expect("a store that was opened knows where it ends");
    let (store, desk) = store::thread::open(log);
    let Assembly { handle, events, notices, stories, questions, seats, mail } = Assembly::new(&settings, &store);
    let log = store::thread::run(&store, desk, mail, io::now, give_back).map_err(StartError::Io)?;
    drop(store);

    let mut running = Running {
        handle,
        events,
        notices,
        stories,
        questions,
        listening: settings.listen.clone(),
        driver: choosing.chosen.name(),
        notice: choosing.fallback,
        shards: Vec::new(),
        log,
    };
    for (number, seat) in seats.into_iter().enumerate() {
        let run = move || match choosing.chosen {
            Chosen::Epoll => run(seat, io::epoll::EpollDriver::new, give_back),
            Chosen::Uring => run(seat, io::uring::UringDriver::new, give_back),
        };
        match std::thread::Builder::new().name(format!("shard-{number}")).spawn(run) {
            Ok(thread) => running.shards.push(thread),
            Err(error) => {
                running.stop();
                return Err(StartError::Io(error));
            }
        }
    }
    match running.pass(passed).and_then(|()| running.listen(&settings.listen)) {
        Ok(()) => Ok(running),
        Err(error) => {
            running.stop();
            Err(error)
        }
    }
}

impl Running {
    /// Gives each shard the sockets that listen already; where several have one address, one of them.
    fn pass(&self, passed: &[Passed]) -> Result<(), StartError> {
        for shard in 0..self.shards.len() {
            let mut sockets: Vec<(SocketAddr, io::Socket)> = Vec::new();
            for one in passed {
                let address = one.address();
                if sockets.iter().any(|(known, _)| *known == address) {
                    continue;
                }
                let twins: Vec<&Passed> = passed.iter().filter(|other| other.address() == address).collect();
                let socket = twins[shard % twins.len()].socket().map_err(StartError::Io)?;
                sockets.push((address, socket));
            }
            self.handle.pass(ShardId(shard as u16), sockets);
        }
        Ok(())
    }

    /// Has the shards listen one after the other: the first binds port 0 to a real port, the others share it.
    fn listen(&mut self, addresses: &[SocketAddr]) -> Result<(), StartError> {
        self.listening = addresses.to_vec();
        for shard in 0..self.shards.len() {
            self.handle.listen(ShardId(shard as u16), self.listening.clone());
            match self.events.recv() {
                Ok(Event::Listening { result: Ok(bound), .. }) => self.listening = bound,
                Ok(Event::Listening { result: Err(error), .. }) => return Err(error),
                Ok(other) => unreachable!("{other:?} answers a command that nobody has given"),
                Err(_) => return Err(StartError::Io(io_error::ErrorKind::BrokenPipe.into())),
            }
        }
        Ok(())
    }
}

/// A shard's thread: the driver is made here because a ring belongs to the thread that made it.
fn run<D: Driver>(seat: Seat, make: impl FnOnce() -> io_error::Result<D>, give_back: fn()) {
    let (events, number) = (seat.gateway.events.clone(), seat.gateway.shard.0);
    let failed = |error| {
        let result = Err(StartError::Io(error));
        // The starter hears it instead of an address; later the node sees that the thread has ended.
        drop(events.send(Event::Listening { shard: number, result }));
    };
    io::sched::shorten_slice();
    let mut shard = match make().and_then(|driver| Shard::new(seat, driver)) {
        Ok(shard) => shard,
        Err(error) => return failed(error),
    };
    while !shard.is_stopped() {
        if let Err(error) = shard.turn() {
            return failed(error);
        }
        if shard.is_at_rest() {
            give_back();
        }
    }
}
