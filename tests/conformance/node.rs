//! One node in virtual time: its shards over the simulated network, its log driven by hand, no thread and no socket.

#[path = "node/asked.rs"]
mod asked;

use crate::client::{Client, Hello, ends};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use kittiwake::auth::{self, KeySet, Rules, UserTemplate};
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, PushId, Qos, ShardId};
use kittiwake::base::message::{Message, StreamKey};
use kittiwake::io::probe::Choice;
use kittiwake::io::sim::{Faults, SimDriver, SimNet};
use kittiwake::shard::command::{
    AppWatch, CommandError, CommandToken, Event, HistoryPage, HistoryQuery, Notice, Place, Present, Push, Pushed,
    Question, ShardStats, Shown, Story, Target, Told, UserState, Watch,
};
use kittiwake::shard::handle::Handle;
use kittiwake::shard::launch::{Assembly, LogMail, Seat, Shard};
use kittiwake::shard::settings::{Limits, Settings};
use kittiwake::shard::upstream;
use kittiwake::store::thread::Desk;
use kittiwake::store::{Log, MemoryStore, RecordChange, Request, RequestToken, Retentions, Store, thread};
use kittiwake::wire::http::Origins;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// Letters of one commit at most: its batch, and an answer for each of its requests.
const COMMIT_LETTERS: usize = 1_025;

/// Who may see the node's figures.
pub const OPERATOR: &str = "operator";

/// A node. Clones are handles to the same one.
#[derive(Clone)]
pub struct Node(Rc<Parts>);

struct Parts {
    net: SimNet,
    address: SocketAddr,
    settings: Arc<Settings>,
    store: kittiwake::store::Handle,
    handle: RefCell<Handle>,
    plane: RefCell<Plane>,
    tokens: Cell<u64>,
    /// Commits wait until they are let go.
    holding: Cell<bool>,
    /// What tokens are checked with, between two turns; none: they wait.
    keys: RefCell<Option<KeySet>>,
    /// Whoever dials does so within TLS: how the whole suite is run once more.
    all_secured: bool,
}

/// What is run, and what it said.
struct Plane {
    shards: Vec<Shard<SimDriver>>,
    desk: Desk<MemoryStore>,
    mail: LogMail,
    events: Receiver<Event>,
    notices: Receiver<Notice>,
    stories: Receiver<Story>,
    questions: Receiver<Question>,
    heard: Vec<Event>,
}

impl Node {
    /// One shard with the default limits.
    pub fn new() -> Self {
        Self::with_shards(1)
    }

    pub fn with_shards(shards: u16) -> Self {
        Self::with(shards, |_| {})
    }

    /// With other limits.
    pub fn with(shards: u16, change: impl FnOnce(&mut Limits)) -> Self {
        Self::build(shards, |settings| change(&mut settings.limits), |_| {})
    }

    /// One shard, with other random numbers: another life of everything that is drawn.
    pub fn with_seed(seed: u64) -> Self {
        Self::with_settings(1, |settings| (settings.hash_key, settings.random_seed) = (seed, seed))
    }

    /// With a list of web pages.
    pub fn with_origins(origins: Origins) -> Self {
        Self::with_settings(1, |settings| settings.origins = origins)
    }

    /// With other settings.
    pub fn with_settings(shards: u16, change: impl FnOnce(&mut Settings)) -> Self {
        Self::build(shards, change, |_| {})
    }

    /// With other limits, and a store that keeps other than it would.
    pub fn with_retention(shards: u16, change: impl FnOnce(&mut Limits), keep: impl FnOnce(&mut Retentions)) -> Self {
        Self::build(shards, |settings| change(&mut settings.limits), keep)
    }

    fn build(shards: u16, change: impl FnOnce(&mut Settings), keep: impl FnOnce(&mut Retentions)) -> Self {
        let address: SocketAddr = "10.0.0.1:1883".parse().expect("an address");
        let mut settings = Settings {
            shards,
            driver: Choice::default(),
            listen: vec![address],
            doors: Vec::new(),
            tls: None,
            apps: vec!["default".into()],
            user: UserTemplate::default(),
            tokens: false,
            hook: false,
            rights: Arc::default(),
            server_reference: None,
            sys_users: vec![OPERATOR.into()],
            topics: Default::default(),
            origins: Origins::default(),
            hash_key: 7,
            random_seed: 7,
            limits: Limits { connections: 64, ..Limits::default() },
        };
        let all_secured = std::env::var_os("KITTIWAKE_CONFORMANCE_TLS").is_some();
        if all_secured {
            settings.tls = Some(ends().0.clone());
        }
        change(&mut settings);
        let settings = Arc::new(settings);
        let mut retentions = settings.retentions();
        keep(&mut retentions);
        let seed = settings.random_seed;
        let net = SimNet::new(seed, Faults::none());
        let log = Log::open(MemoryStore::new(retentions, KeyedHash::new(seed)), seed).expect("a memory store opens");
        let (store, desk) = thread::open(log);
        let Assembly { handle, events, notices, stories, questions, seats, mail } = Assembly::new(&settings, &store);
        let plane =
            Plane { shards: seated(seats, &net), desk, mail, events, notices, stories, questions, heard: Vec::new() };
        let (handle, plane) = (RefCell::new(handle), RefCell::new(plane));
        let (tokens, holding) = (Cell::new(0), Cell::new(false));
        let keys = RefCell::new(None);
        let all_secured = all_secured && settings.doors.is_empty();
        let node =
            Self(Rc::new(Parts { net, address, settings, store, handle, plane, tokens, holding, keys, all_secured }));
        node.listen();
        node
    }

    /// Kills it, with all that is not committed, and starts it again over what the store holds.
    pub fn restart(&self) {
        self.restart_with(|_| {});
    }

    /// The same, with other limits.
    pub fn restart_with(&self, change: impl FnOnce(&mut Limits)) {
        let Parts { settings, store, net, .. } = &*self.0;
        let mut settings = Settings::clone(settings);
        change(&mut settings.limits);
        let mut plane = self.0.plane.borrow_mut();
        plane.shards.clear();
        plane.heard.clear();
        assert!(plane.desk.take_in(), "the node keeps the log's handle");
        plane.desk.log_mut().crash().expect("memory says where it ends");
        let Assembly { handle, events, notices, stories, questions, seats, mail } =
            Assembly::new(&Arc::new(settings), store);
        (plane.shards, plane.events, plane.mail) = (seated(seats, net), events, mail);
        (plane.notices, plane.stories, plane.questions) = (notices, stories, questions);
        drop(plane);
        *self.0.handle.borrow_mut() = handle;
        self.listen();
    }

    fn listen(&self) {
        let handle = self.handle();
        for shard in 0..handle.shards() {
            handle.listen(ShardId(shard as u16), vec![self.0.address]);
        }
        self.run();
    }

    pub fn net(&self) -> &SimNet {
        &self.0.net
    }

    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// Whether whoever dials does so within TLS.
    pub fn secures_all(&self) -> bool {
        self.0.all_secured
    }

    /// The control plane's end.
    pub fn handle(&self) -> Handle {
        self.0.handle.borrow().clone()
    }

    /// Runs until nothing is left to do at this moment.
    pub fn run(&self) {
        let mut plane = self.0.plane.borrow_mut();
        loop {
            plane.turns(&self.0.net);
            let committed = !self.0.holding.get() && plane.commit(&self.0.net);
            let checked = self.check_tokens(&plane);
            let now_ms = self.0.net.now().monotonic_ms;
            if !committed && !checked && self.0.net.next_event_ms().is_none_or(|at_ms| at_ms > now_ms) {
                return;
            }
        }
    }

    /// One turn of each shard, then one commit: what may lie between two letters can be looked at.
    pub fn step(&self) {
        let mut plane = self.0.plane.borrow_mut();
        for shard in &mut plane.shards {
            shard.turn().expect("the simulated driver does not fail");
        }
        plane.commit(&self.0.net);
    }

    /// Lets time pass, with all that falls due in it.
    pub fn advance(&self, ms: u64) {
        let end_ms = self.0.net.now().monotonic_ms + ms;
        self.run();
        while let Some(at_ms) = self.0.net.next_due_ms().filter(|&at_ms| at_ms <= end_ms) {
            self.0.net.advance_to(at_ms);
            self.run();
        }
        self.0.net.advance_to(end_ms);
        self.run();
    }

    /// Tokens are checked with these from now on; none: they wait.
    pub fn check_with(&self, keys: Option<KeySet>) {
        *self.0.keys.borrow_mut() = keys;
        self.run();
    }

    /// There is nobody any more to check tokens.
    pub fn lose_checkers(&self) {
        self.0.plane.borrow_mut().questions = crossbeam_channel::bounded(0).1;
    }

    fn check_tokens(&self, plane: &Plane) -> bool {
        let keys = self.0.keys.borrow();
        let Some(keys) = &*keys else { return false };
        let wall_ms = self.0.net.now().wall_ms;
        let answer = |Question { token, shown }: Question| {
            let Shown::Token(shown) = shown else { panic!("in this mode tokens are shown") };
            let verdict = auth::verify(shown.bytes(), keys, &Rules::default(), wall_ms);
            self.handle().verdict(token, verdict);
        };
        plane.questions.try_iter().map(answer).count() > 0
    }

    /// Nothing is committed from now on.
    pub fn hold_commits(&self) {
        self.run();
        self.0.holding.set(true);
    }

    /// What was held is committed, and what follows at once.
    pub fn release_commits(&self) {
        self.0.holding.set(false);
        self.run();
    }

    /// A connection that has not said anything.
    pub fn dial(&self) -> Client {
        Client::dial(self)
    }

    /// The same, from an address of its own.
    pub fn dial_from(&self, from: &str) -> Client {
        Client::dial_from(self, from.parse().expect("an address"))
    }

    /// An MQTT 5 client: clean start, no expiry, device and user of the same name.
    pub fn connect(&self, name: &str) -> Client {
        self.hello(&Hello::v5(name))
    }

    /// A client whose CONNECT was accepted.
    pub fn hello(&self, hello: &Hello<'_>) -> Client {
        let mut client = self.dial();
        client.hello(hello);
        client.expect_connack(0);
        client
    }

    /// Gives a push to the data plane and returns what came of it.
    pub fn push(&self, target: Target, payload: &[u8], qos: Qos) -> Result<Pushed, CommandError> {
        self.push_with(target, payload, qos, |_| {})
    }

    /// As [`Node::push`], changed before it is given.
    pub fn push_with(
        &self,
        target: Target,
        payload: &[u8],
        qos: Qos,
        change: impl FnOnce(&mut Push),
    ) -> Result<Pushed, CommandError> {
        let token = self.start_push(target, payload, qos, change)?;
        self.run();
        self.take_pushed(token).expect("a push is answered when nothing is left to do")
    }

    /// Gives a push and does not wait.
    pub fn start_push(
        &self,
        target: Target,
        payload: &[u8],
        qos: Qos,
        change: impl FnOnce(&mut Push),
    ) -> Result<CommandToken, CommandError> {
        let token = self.token();
        self.hand_over(target, payload, qos, change, token)?;
        self.handle().ring();
        Ok(token)
    }

    /// Gives a push that nobody waits for; what came of it, if that was told.
    pub fn push_unawaited(&self, target: Target, payload: &[u8], qos: Qos) -> Option<Result<Pushed, CommandError>> {
        let token = CommandToken::unawaited(self.token().0);
        self.hand_over(target, payload, qos, |_| {}, token).expect("the push is taken");
        self.handle().ring();
        self.run();
        self.take_pushed(token)
    }

    /// Hands a push over without ringing for it.
    pub fn hand_over(
        &self,
        target: Target,
        payload: &[u8],
        qos: Qos,
        change: impl FnOnce(&mut Push),
        token: CommandToken,
    ) -> Result<(), CommandError> {
        let (topic, only_device) = match &target {
            Target::Topic(topic) => (Arc::clone(topic), None),
            Target::Device { device, .. } => ("$inbox/push".into(), Some(Arc::clone(device))),
            _ => ("$inbox/push".into(), None),
        };
        let message = Message {
            app: AppId(0),
            topic,
            only_device,
            payload: Bytes::copy_from_slice(payload),
            qos,
            retain: false,
            created_ms: self.0.net.now().wall_ms,
            expires_ms: None,
            publisher: None,
            properties: None,
        };
        let (id, deliver_within) = (PushId(7), None);
        let mut push = Push { app: AppId(0), target, message: Arc::new(message), key: None, id, deliver_within };
        change(&mut push);
        self.handle().push(push, token)
    }

    /// Watches the one app, and nothing else.
    pub fn watch(&self, watch: AppWatch) {
        let is_nothing = watch == AppWatch::default();
        let apps = if is_nothing { Vec::new() } else { vec![(AppId(0), watch)] };
        self.handle().watch(&Arc::new(Watch { apps })).expect("there is room for it");
        self.run();
    }

    /// Puts a record into the store, as the control plane does.
    pub fn record(&self, record: RecordChange) {
        let records = vec![record];
        let request = Request::Append { key: None, entries: Vec::new(), records };
        self.handle().ask_log(request, RequestToken(0)).expect("there is room");
        self.run();
    }

    /// What was stored for backends since this was last asked.
    pub fn told(&self) -> Vec<Told> {
        self.run();
        let notices: Vec<Notice> = self.0.plane.borrow().notices.try_iter().collect();
        let batches = notices.iter().map(|notice| match notice {
            Notice::Written(batch) => batch,
            Notice::Answered(done) => panic!("{done:?} answers nobody"),
        });
        let entries = batches.flat_map(|batch| &batch.entries);
        let ours = entries.filter(|entry| matches!(entry.stream, StreamKey::Upstream(_)));
        ours.map(|entry| upstream::parse(&entry.message).expect("it was just written")).collect()
    }

    /// What came of a push, once.
    pub fn take_pushed(&self, wanted: CommandToken) -> Option<Result<Pushed, CommandError>> {
        let mut plane = self.0.plane.borrow_mut();
        plane.hear();
        let at = plane.heard.iter().position(|event| matches!(event, Event::Pushed { token, .. } if *token == wanted));
        match plane.heard.swap_remove(at?) {
            Event::Pushed { result, .. } => Some(result),
            _ => unreachable!("the position is a push's"),
        }
    }

    /// One push to a user, which must work.
    pub fn push_user(&self, user: &str, payload: &[u8], qos: Qos) {
        self.push(Target::User(user.into()), payload, qos).expect("the push is taken");
    }

    /// One push to a topic, which must work.
    pub fn push_topic(&self, topic: &str, payload: &[u8], qos: Qos) {
        self.push(Target::Topic(topic.into()), payload, qos).expect("the push is taken");
    }

    /// What is known of a user.
    pub fn user(&self, user: &str) -> UserState {
        let token = self.token();
        self.handle().user(AppId(0), user.into(), token).expect("there is room for a question");
        self.run();
        let is_it = |event: &Event| matches!(event, Event::User { token: other, .. } if *other == token);
        match self.take_event(is_it) {
            Event::User { result, .. } => result.expect("memory can be read"),
            other => unreachable!("{other:?} was not asked for"),
        }
    }

    /// A part of a stream.
    pub fn history(&self, stream: StreamKey, after: Option<Place>, limit: usize) -> HistoryPage {
        let token = self.token();
        self.handle().history(HistoryQuery { stream, after, limit }, token).expect("there is room for a question");
        self.run();
        let is_it = |event: &Event| matches!(event, Event::History { token: other, .. } if *other == token);
        match self.take_event(is_it) {
            Event::History { result, .. } => result.expect("memory can be read"),
            other => unreachable!("{other:?} was not asked for"),
        }
    }

    /// Who is in a topic; none: it is not shown.
    pub fn present(&self, topic: &str) -> Option<Present> {
        let token = self.token();
        self.handle().presence(AppId(0), topic.into(), token).expect("there is room for a question");
        self.run();
        let is_it = |event: &Event| matches!(event, Event::Presence { token: other, .. } if *other == token);
        match self.take_event(is_it) {
            Event::Presence { present, .. } => present,
            other => unreachable!("{other:?} was not asked for"),
        }
    }

    /// The answer to a question, which must have come.
    fn take_event(&self, is_it: impl Fn(&Event) -> bool) -> Event {
        let mut plane = self.0.plane.borrow_mut();
        plane.hear();
        let at = plane.heard.iter().position(is_it).expect("a question is answered when nothing is left to do");
        plane.heard.swap_remove(at)
    }

    /// Shards that have said that a drain is over.
    pub fn drained(&self) -> usize {
        let plane = self.0.plane.borrow();
        plane.heard.iter().filter(|event| matches!(event, Event::Drained { .. })).count()
    }

    /// All shards' figures.
    pub fn stats(&self) -> Vec<ShardStats> {
        let token = self.token();
        self.handle().stats(token).expect("there is room for a question");
        self.run();
        let mut plane = self.0.plane.borrow_mut();
        plane.hear();
        let (mine, others): (Vec<Event>, Vec<Event>) = plane
            .heard
            .drain(..)
            .partition(|event| matches!(event, Event::Stats { token: other, .. } if *other == token));
        plane.heard = others;
        let stats = mine.into_iter().map(|event| match event {
            Event::Stats { stats, .. } => *stats,
            _ => unreachable!("the partition is of figures"),
        });
        stats.collect()
    }

    /// Session records in the store.
    pub fn session_records(&self) -> usize {
        self.session_record_keys().len()
    }

    /// Share groups' records in the store.
    pub fn share_records(&self) -> usize {
        self.record_keys(b"g").len()
    }

    /// Keys of sessions' records in the store.
    pub fn session_record_keys(&self) -> Vec<Box<[u8]>> {
        self.record_keys(b"s")
    }

    fn record_keys(&self, prefix: &[u8]) -> Vec<Box<[u8]>> {
        let mut plane = self.0.plane.borrow_mut();
        let store = plane.desk.log_mut().store_mut();
        let all = store.read_records(prefix, &[], usize::MAX).expect("memory can be read");
        all.into_iter().map(|(key, _)| key).collect()
    }

    /// A gauge, summed over the shards.
    pub fn gauge(&self, name: &str) -> u64 {
        self.stats().iter().map(|stats| value(&stats.gauges, name)).sum()
    }

    /// A counter, summed over the shards.
    pub fn counter(&self, name: &str) -> u64 {
        self.stats().iter().map(|stats| value(&stats.counters, name)).sum()
    }

    /// Each shard's gauge.
    pub fn gauges(&self, name: &str) -> Vec<u64> {
        self.stats().iter().map(|stats| value(&stats.gauges, name)).collect()
    }

    /// That connections hold nothing: neither blocks nor half frames nor output.
    pub fn assert_holds_no_buffers(&self) {
        for name in ["blocks", "partial_frames", "outboxes", "segments", "guests", "lobby", "moving"] {
            assert_eq!(self.gauge(name), 0, "{name}");
        }
    }

    /// Once all clients are gone: whatever is held for connections and their traffic is given back.
    pub fn assert_at_rest(&self) {
        self.advance(30_000);
        self.assert_holds_no_buffers();
        for name in [
            "connections",
            "slots",
            "timers",
            "mail_waiting",
            "fanout_jobs",
            "incoming",
            "log_requests",
            "installing",
            "committing_topics",
            "list_pushes",
            "delivery_waits",
            "unread_counts",
            "presence",
            "throttled_connections",
            "unsent_sessions",
            "lagging_sessions",
        ] {
            assert_eq!(self.gauge(name), 0, "{name}");
        }
        let census = self.0.net.census();
        assert_eq!((census.slots, census.sockets, census.blocked_sends), (0, 0, 0));
    }

    fn token(&self) -> CommandToken {
        self.0.tokens.set(self.0.tokens.get() + 1);
        CommandToken(self.0.tokens.get())
    }
}

impl Plane {
    /// Turns of all shards until each sleeps.
    fn turns(&mut self, net: &SimNet) {
        for _ in 0..1_000_000 {
            if net.next_due_ms().is_none_or(|at_ms| at_ms > net.now().monotonic_ms) {
                self.hear();
                return;
            }
            for shard in &mut self.shards {
                shard.turn().expect("the simulated driver does not fail");
            }
        }
        panic!("the node never comes to rest");
    }

    /// One commit of what waits; false when nothing did.
    fn commit(&mut self, net: &SimNet) -> bool {
        assert!(self.desk.take_in(), "the shards hold the log's handle");
        let waits = self.desk.log_mut().queued() > 0;
        assert!(self.mail.has_room(COMMIT_LETTERS), "shards at rest have empty mailboxes");
        self.desk.commit(net.now(), &mut self.mail);
        waits
    }

    fn hear(&mut self) {
        self.heard.extend(self.events.try_iter());
    }
}

fn seated(seats: Vec<Seat>, net: &SimNet) -> Vec<Shard<SimDriver>> {
    seats.into_iter().map(|seat| Shard::new(seat, net.driver()).expect("the simulated driver can be polled")).collect()
}

fn value(figures: &[(&'static str, u64)], name: &str) -> u64 {
    let found = figures.iter().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("there is no figure {name}: {figures:?}")).1
}
