//! Budget P8: a shard thread in steady state allocates nothing per message. A real shard runs over each driver with
//! real loopback sockets; a counting allocator counts what the shard's thread takes from the heap, and nothing else:
//! clients, control plane and log have threads of their own. Giving back what another thread made is not counted.
//!
//! Paths that must allocate (a client's publish becomes a message that outlives its packet; a stored push goes to the
//! log with its request) have a bound per message, and their count is printed.

#[path = "alloc/clients.rs"]
mod clients;

use bytes::Bytes;
use clients::{Client, Page};
use kittiwake::auth::UserTemplate;
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, PushId, Qos, ShardId};
use kittiwake::base::message::Message;
use kittiwake::io::{self, Driver, epoll::EpollDriver, probe::Choice, uring::UringDriver};
use kittiwake::limits::DEFLATE_KEPT_MAX;
use kittiwake::shard::command::{CommandToken, Event, Push, Target};
use kittiwake::shard::launch::{Assembly, Shard};
use kittiwake::shard::{Handle, Limits, Settings};
use kittiwake::store::{self, Log, LogThread, MemoryStore, Retentions};
use kittiwake::wire::tls;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);
const SUBSCRIBERS: usize = 24;
/// Messages under way at a time.
const BURST: usize = 16;
const ROUNDS: usize = 25;
/// Buffers grow to what the busiest turn needs, and rings of recent messages until they are full.
const WARM_UP_ROUNDS: usize = 300;

/// A payload as long is packed; those of other measurements are shorter.
const PACKED_BYTES: usize = 96;

thread_local! {
    /// Where this thread's allocations are counted; none: they are not.
    static COUNTER: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// The system's allocator, which counts for those who asked.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that is ending has no counter any more, and nothing to count.
    let _ended = COUNTER.try_with(|counter| {
        if let Some(counter) = counter.get() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
}

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract; counting allocates nothing,
// for the thread's cell is initialised by a constant and has no destructor.
#[allow(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`; all memory is the system allocator's.
        unsafe { System.realloc(old, layout, new_size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; all memory is the system allocator's.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Records that a message to all of [`SUBSCRIBERS`] takes at most: one out to each, and one in of each round's ping.
const RECORDS_A_MESSAGE: f64 = 3.0 * SUBSCRIBERS as f64;

/// A data plane of one shard whose allocations are counted.
struct House {
    name: &'static str,
    handle: Handle,
    events: crossbeam_channel::Receiver<Event>,
    edge: SocketAddr,
    /// Whether clients that connect now do so over WebSocket.
    websocket: Cell<bool>,
    /// Whether they offer to take messages packed.
    packing: Cell<bool>,
    /// Whether they do so within TLS.
    tls: Cell<bool>,
    allocations: &'static AtomicU64,
    /// Whether the shard is to pause between two turns,
    held: Arc<AtomicBool>,
    /// and whether it does.
    pauses: Arc<AtomicBool>,
    /// Wakes the shard and has nothing else to do: nobody subscribes to its topic.
    nudge: Arc<Message>,
    /// Whether what is done within [`House::at_once`] now meets a shard that pauses.
    holding: Cell<bool>,
    ending: Arc<AtomicBool>,
    shard: Option<JoinHandle<()>>,
    log: Option<LogThread>,
}

impl House {
    fn open<D: Driver + 'static>(name: &'static str, make: fn() -> std::io::Result<D>) -> Self {
        let settings = Arc::new(Settings {
            shards: 1,
            driver: Choice::Auto,
            listen: Vec::new(),
            doors: Vec::new(),
            tls: Some(ends().0.clone()),
            apps: vec!["default".into()],
            user: UserTemplate::default(),
            tokens: false,
            hook: false,
            rights: Arc::default(),
            server_reference: None,
            sys_users: Vec::new(),
            topics: Default::default(),
            origins: Default::default(),
            hash_key: 7,
            random_seed: 7,
            limits: Limits { connections: 1_000, deflate_bytes: Some(PACKED_BYTES), ..Limits::default() },
        });
        let memory = MemoryStore::new(Retentions::default(), KeyedHash::new(7));
        let (store, desk) = store::thread::open(Log::open(memory, 7).expect("a memory store opens"));
        let Assembly { handle, events, mut seats, mail, .. } = Assembly::new(&settings, &store);
        let log = store::thread::run(&store, desk, mail, io::now, || {}).expect("there are threads");
        let seat = seats.pop().expect("one shard has one seat");
        let allocations: &'static AtomicU64 = Box::leak(Box::default());
        let flags = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let [told, is_held, tells] = flags.clone();
        let [ending, held, pauses] = flags;
        let shard = std::thread::spawn(move || {
            COUNTER.set(Some(allocations));
            let driver = make().expect("the driver opens");
            let mut shard = Shard::new(seat, driver).expect("the driver can be polled");
            while !told.load(Ordering::Relaxed) {
                shard.turn().expect("the driver can be polled");
                while is_held.load(Ordering::Acquire) {
                    tells.store(true, Ordering::Release);
                    std::thread::yield_now();
                }
                tells.store(false, Ordering::Release);
            }
            COUNTER.set(None);
        });
        handle.listen(ShardId(0), vec![([127, 0, 0, 1], 0).into()]);
        let edge = match events.recv_timeout(PATIENCE) {
            Ok(Event::Listening { result: Ok(bound), .. }) => bound[0],
            other => panic!("the shard does not listen: {other:?}"),
        };
        Self {
            name,
            handle,
            events,
            edge,
            websocket: Cell::new(false),
            packing: Cell::new(false),
            tls: Cell::new(false),
            allocations,
            held,
            pauses,
            nudge: message("nobody", Qos::AtMostOnce),
            holding: Cell::new(false),
            ending,
            shard: Some(shard),
            log: Some(log),
        }
    }

    fn count(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// One of the shard's counters.
    fn counter(&self, name: &str) -> u64 {
        self.handle.stats(CommandToken(0)).expect("the mailbox has room");
        match self.events.recv_timeout(PATIENCE) {
            Ok(Event::Stats { stats, .. }) => {
                let found = stats.counters.iter().find(|(other, _)| *other == name);
                found.expect("it is counted").1
            }
            other => panic!("the shard did not tell: {other:?}"),
        }
    }

    /// Does `work`, which waits for nothing, while the shard pauses in every other round: all of it then meets one turn,
    /// the busiest there can be, in the rounds that grow buffers as in those that are counted.
    fn at_once(&self, work: impl FnOnce()) {
        if !self.holding.get() {
            return work();
        }
        self.held.store(true, Ordering::Release);
        self.hand_over(&Target::Topic("nobody".into()), std::slice::from_ref(&self.nudge));
        self.wait_until_it_pauses(true);
        work();
        self.held.store(false, Ordering::Release);
        self.wait_until_it_pauses(false);
        // The nudge: it may have waited for the end of the pause as well.
        self.hear_pushed(1);
    }

    fn wait_until_it_pauses(&self, pauses: bool) {
        let since = Instant::now();
        while self.pauses.load(Ordering::Acquire) != pauses {
            assert!(since.elapsed() < PATIENCE, "the shard is to pause: {pauses}");
            std::thread::yield_now();
        }
    }

    /// Pushes and waits until the shard has said that each is done.
    fn push(&self, target: &Target, messages: &[Arc<Message>]) {
        self.at_once(|| self.hand_over(target, messages));
        self.hear_pushed(messages.len());
    }

    fn hand_over(&self, target: &Target, messages: &[Arc<Message>]) {
        for (token, message) in (0..).zip(messages) {
            let push = Push {
                app: AppId(0),
                target: target.clone(),
                message: Arc::clone(message),
                key: None,
                id: PushId(1),
                deliver_within: None,
            };
            self.handle.push(push, CommandToken(token)).expect("the mailbox has room");
        }
        self.handle.ring();
    }

    fn hear_pushed(&self, messages: usize) {
        for _ in 0..messages {
            match self.events.recv_timeout(PATIENCE) {
                Ok(Event::Pushed { result: Ok(_), .. }) => {}
                other => panic!("a push was answered with {other:?}"),
            }
        }
    }

    /// Allocations of the shard per message of `round`, after as many rounds as it takes to grow all buffers. The
    /// sockets are quiet between rounds.
    fn per_message(&self, what: &str, messages_a_round: usize, mut round: impl FnMut()) -> f64 {
        let mut round = |number: usize| {
            self.holding.set(number.is_multiple_of(2));
            round();
        };
        (0..WARM_UP_ROUNDS).for_each(&mut round);
        let before = self.count();
        (0..ROUNDS).for_each(&mut round);
        let allocations = self.count() - before;
        let messages = ROUNDS * messages_a_round;
        let per_message = allocations as f64 / messages as f64;
        println!("{}: {what}: {allocations} allocations for {messages} messages, {per_message:.3} each", self.name);
        per_message
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.held.store(false, Ordering::Release);
        // Any letter wakes the shard, which then sees that it is to end.
        let _gone = self.handle.stats(CommandToken(0));
        let shard = self.shard.take().map(JoinHandle::join);
        let log = self.log.take().map(LogThread::stop);
        if !std::thread::panicking() {
            assert!(shard.is_some_and(|ended| ended.is_ok()), "the shard ended in a panic");
            assert!(log.is_some_and(|ended| ended.is_ok()), "the log ended in a panic");
        }
    }
}

/// A server, and a client that trusts anybody.
fn ends() -> &'static (tls::Server, tls::Client) {
    static ENDS: OnceLock<(tls::Server, tls::Client)> = OnceLock::new();
    ENDS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["edge".to_owned()]).expect("it signs");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let pair = tls::Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together");
        let identity = tls::Identity { pairs: vec![pair], peers: None, only_1_3: false, protocols: &[] };
        let client = tls::Client::new(&tls::Trust::Anybody, false, None).expect("it needs nothing");
        (tls::Server::new(&identity, &[]).expect("it is complete"), client)
    })
}

fn message(topic: &str, qos: Qos) -> Arc<Message> {
    Arc::new(Message {
        app: AppId(0),
        topic: topic.into(),
        only_device: None,
        payload: Bytes::from_static(&[b'x'; 64]),
        qos,
        retain: false,
        created_ms: 1,
        expires_ms: None,
        publisher: None,
        properties: None,
    })
}

fn subscribers(house: &House, filter: &str, qos: u8, clean: bool) -> Vec<Client> {
    let open = |number: usize| {
        let mut client = Client::connect(house, &format!("{filter:.5}-{qos}-{number:06}"), clean);
        client.subscribe(filter, qos);
        client
    };
    (0..SUBSCRIBERS).map(open).collect()
}

/// All acknowledge what they took, and ask whether the shard is there. After this it has handled all that was sent.
fn settle(house: &House, clients: &mut [Client]) {
    house.at_once(|| {
        clients.iter_mut().for_each(Client::acknowledge);
        clients.iter_mut().for_each(Client::ask);
    });
    clients.iter_mut().for_each(Client::hear);
}

/// Bursts of pushes to a topic whose subscribers are clean sessions.
fn fan_out(house: &House, topic: &str, qos: Qos) -> f64 {
    let mut clients = subscribers(house, topic, qos as u8, true);
    let messages: Vec<_> = (0..BURST).map(|_| message(topic, qos)).collect();
    let target = Target::Topic(topic.into());
    house.per_message(&format!("push to {SUBSCRIBERS} subscribers, {qos:?}"), BURST, || {
        house.push(&target, &messages);
        clients.iter_mut().for_each(|client| client.take(BURST));
        settle(house, &mut clients);
    })
}

/// The same with messages that are packed: more of them than a shard keeps packed, so each is packed anew in its turn.
fn fan_out_packed(house: &House, topic: &str, qos: Qos) -> f64 {
    let mut clients = subscribers(house, topic, qos as u8, true);
    let messages: Vec<_> = (0..DEFLATE_KEPT_MAX + BURST)
        .map(|number| {
            let payload = format!("{number:x>PACKED_BYTES$}").into();
            Arc::new(Message { payload, ..(*message(topic, qos)).clone() })
        })
        .collect();
    let (target, mut next) = (Target::Topic(topic.into()), messages.chunks(BURST).cycle());
    let before = house.counter("deflate_messages");
    let per_message = house.per_message(&format!("push to {SUBSCRIBERS} subscribers, packed, {qos:?}"), BURST, || {
        house.push(&target, next.next().expect("it goes round"));
        clients.iter_mut().for_each(|client| client.take(BURST));
        settle(house, &mut clients);
    });
    let (packed, rounds) = (house.counter("deflate_messages") - before, WARM_UP_ROUNDS + ROUNDS);
    assert!(packed >= (rounds * BURST) as u64, "{packed} were packed");
    per_message
}

/// The same to event streams: some with their envelope, some raw, some beside another stream.
fn fan_out_events(house: &House, topic: &str, qos: Qos) -> f64 {
    let queries = [format!("topic={topic}"), format!("topic={topic}&format=raw"), format!("topic={topic}&topic=x")];
    let open = |number: usize| Page::open(house, &queries[number % queries.len()]);
    let mut pages: Vec<Page> = (0..SUBSCRIBERS).map(open).collect();
    let messages: Vec<_> = (0..BURST).map(|_| message(topic, qos)).collect();
    let target = Target::Topic(topic.into());
    house.per_message(&format!("push to {SUBSCRIBERS} event streams, {qos:?}"), BURST, || {
        house.push(&target, &messages);
        pages.iter_mut().for_each(|page| page.take(BURST));
    })
}

fn stored_event(house: &House) -> f64 {
    let mut page = Page::open(house, "inbox=1&user=reader");
    let messages: Vec<_> = (0..BURST).map(|_| message("$inbox/news", Qos::AtLeastOnce)).collect();
    let target = Target::User("reader".into());
    house.per_message("stored push to a user's event stream", BURST, || {
        house.push(&target, &messages);
        page.take(BURST);
    })
}

fn user_push(house: &House, qos: Qos, clean: bool) -> f64 {
    let name = format!("user-{}", qos as u8);
    let mut client = Client::connect(house, &name, clean);
    client.subscribe("$inbox/#", qos as u8);
    let messages: Vec<_> = (0..BURST).map(|_| message("$inbox/news", qos)).collect();
    let target = Target::User(name.as_str().into());
    house.per_message(&format!("push to a user, {qos:?}, clean session: {clean}"), BURST, || {
        house.push(&target, &messages);
        client.take(BURST);
        settle(house, std::slice::from_mut(&mut client));
    })
}

fn publish(house: &House, topic: &str, qos: Qos) -> f64 {
    let mut listener = Client::connect(house, &format!("listener-{}", qos as u8), true);
    listener.subscribe(topic, qos as u8);
    let mut publisher = Client::connect(house, &format!("publisher-{}", qos as u8), true);
    house.per_message(&format!("publish of a client, {qos:?}"), BURST, || {
        house.at_once(|| {
            for id in 1..=BURST as u16 {
                publisher.publish(topic, (qos > Qos::AtMostOnce).then_some(id), b"sixteen bytes...");
            }
        });
        if qos > Qos::AtMostOnce {
            (0..BURST).for_each(|_| assert_eq!(publisher.next().0, 4, "PUBACK"));
        }
        settle(house, std::slice::from_mut(&mut publisher));
        listener.take(BURST);
        settle(house, std::slice::from_mut(&mut listener));
    })
}

fn keep_alive(house: &House) -> f64 {
    let mut clients = subscribers(house, "quiet", 0, true);
    house.per_message("keep alive", SUBSCRIBERS, || settle(house, &mut clients))
}

fn measure(house: &House) {
    let free = [
        ("keep alive", keep_alive(house)),
        ("fan-out QoS 0", fan_out(house, "topic/zero", Qos::AtMostOnce)),
        ("fan-out QoS 1", fan_out(house, "topic/one", Qos::AtLeastOnce)),
        ("event streams QoS 0", fan_out_events(house, "events/zero", Qos::AtMostOnce)),
        ("event streams QoS 1", fan_out_events(house, "events/one", Qos::AtLeastOnce)),
        ("user push QoS 0", user_push(house, Qos::AtMostOnce, true)),
    ];
    house.websocket.set(true);
    let free_over_websocket = [
        ("keep alive over WebSocket", keep_alive(house)),
        ("fan-out QoS 0 over WebSocket", fan_out(house, "topic/w0", Qos::AtMostOnce)),
        ("fan-out QoS 1 over WebSocket", fan_out(house, "topic/w1", Qos::AtLeastOnce)),
        ("user push QoS 0 over WebSocket", user_push(house, Qos::AtMostOnce, true)),
    ];
    house.packing.set(true);
    let free_packed = [
        ("keep alive over WebSocket, packing", keep_alive(house)),
        ("fan-out QoS 0 over WebSocket, packed", fan_out_packed(house, "topic/p0", Qos::AtMostOnce)),
        ("fan-out QoS 1 over WebSocket, packed", fan_out_packed(house, "topic/p1", Qos::AtLeastOnce)),
    ];
    house.packing.set(false);
    house.tls.set(true);
    let websocket_within_tls = keep_alive(house);
    house.websocket.set(false);
    // rustls allocates for each record that comes and for each that leaves.
    let within_tls = [
        ("keep alive within TLS", keep_alive(house), 2.0),
        ("keep alive over WebSocket within TLS", websocket_within_tls, 2.0),
        ("fan-out QoS 0 within TLS", fan_out(house, "topic/t0", Qos::AtMostOnce), RECORDS_A_MESSAGE),
        ("fan-out QoS 1 within TLS", fan_out(house, "topic/t1", Qos::AtLeastOnce), 2.0 * RECORDS_A_MESSAGE),
    ];
    house.tls.set(false);
    // Last: the positions of sessions that outlive their connections are written a second later, whatever is measured then.
    let bounded = [
        ("publish QoS 0", publish(house, "room/zero", Qos::AtMostOnce), 2.0),
        ("publish QoS 1", publish(house, "room/one", Qos::AtLeastOnce), 2.0),
        ("stored push QoS 1 to an event stream", stored_event(house), 3.0),
        ("stored push QoS 1", user_push(house, Qos::AtLeastOnce, false), 3.0),
    ];
    for (what, per_message) in free.into_iter().chain(free_over_websocket).chain(free_packed) {
        assert!(per_message == 0.0, "{}: {what}: {per_message} allocations a message", house.name);
    }
    for (what, per_message, bound) in within_tls.into_iter().chain(bounded) {
        assert!(per_message <= bound, "{}: {what}: {per_message} allocations a message, not {bound}", house.name);
    }
}

#[test]
fn a_shard_over_epoll_allocates_nothing_per_message_in_steady_state() {
    measure(&House::open("epoll", EpollDriver::new));
}

#[test]
fn a_shard_over_io_uring_allocates_nothing_per_message_in_steady_state() {
    if let Err(why) = UringDriver::new() {
        println!("no io_uring here: {why}");
        return;
    }
    measure(&House::open("io_uring", UringDriver::new));
}
