//! Budget P8: a shard thread in steady state allocates nothing per message. A real shard runs over each driver with
//! real loopback sockets; a counting allocator counts what the shard's thread takes from the heap, and nothing else:
//! clients, control plane and log have threads of their own. Giving back what another thread made is not counted.
//!
//! Paths that must allocate (a client's publish becomes a message that outlives its packet; a stored push goes to the
//! log with its request) have a bound per message, and their count is printed.

use bytes::Bytes;
use kittiwake::auth::UserTemplate;
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, PushId, Qos, ShardId};
use kittiwake::base::message::Message;
use kittiwake::base::transform::Passage;
use kittiwake::io::{self, Driver, epoll::EpollDriver, probe::Choice, uring::UringDriver};
use kittiwake::shard::command::{CommandToken, Event, Push, Target};
use kittiwake::shard::launch::{Assembly, Shard};
use kittiwake::shard::{Handle, Limits, Settings};
use kittiwake::store::{self, Log, LogThread, MemoryStore, Retentions};
use kittiwake::wire::tls;
use kittiwake::wire::websocket::{
    Event as Heard, HEAD_BYTES_MAX, Opcode, Reader, Role, Rules, apply_mask, client::Wish, encode_head,
};
use rustls::{ClientConnection, StreamOwned};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);
const SUBSCRIBERS: usize = 24;
/// Messages under way at a time.
const BURST: usize = 16;
const ROUNDS: usize = 25;
/// Buffers grow to what the busiest turn needs, and rings of recent messages until they are full.
const WARM_UP_ROUNDS: usize = 300;
const PACKET_PUBLISH: u8 = 3;
const PACKET_PINGRESP: u8 = 13;

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
    /// Whether they do so within TLS.
    tls: Cell<bool>,
    allocations: &'static AtomicU64,
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
            limits: Limits { connections: 1_000, ..Limits::default() },
        });
        let memory = MemoryStore::new(Retentions::default(), KeyedHash::new(7));
        let (store, desk) = store::thread::open(Log::open(memory, 7).expect("a memory store opens"));
        let Assembly { handle, events, mut seats, mail, .. } = Assembly::new(&settings, &store);
        let log = store::thread::run(&store, desk, mail, io::now, || {}).expect("there are threads");
        let seat = seats.pop().expect("one shard has one seat");
        let allocations: &'static AtomicU64 = Box::leak(Box::default());
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let shard = std::thread::spawn(move || {
            COUNTER.set(Some(allocations));
            let driver = make().expect("the driver opens");
            let mut shard = Shard::new(seat, driver).expect("the driver can be polled");
            while !told.load(Ordering::Relaxed) {
                shard.turn().expect("the driver can be polled");
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
            tls: Cell::new(false),
            allocations,
            ending,
            shard: Some(shard),
            log: Some(log),
        }
    }

    fn count(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// Pushes and waits until the shard has said that each is done.
    fn push(&self, target: &Target, messages: &[Arc<Message>]) {
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
        for _ in messages {
            match self.events.recv_timeout(PATIENCE) {
                Ok(Event::Pushed { result: Ok(_), .. }) => {}
                other => panic!("a push was answered with {other:?}"),
            }
        }
    }

    /// Allocations of the shard per message of `round`, after as many rounds as it takes to grow all buffers. The
    /// sockets are quiet between rounds.
    fn per_message(&self, what: &str, messages_a_round: usize, mut round: impl FnMut()) -> f64 {
        (0..WARM_UP_ROUNDS).for_each(|_| round());
        let before = self.count();
        (0..ROUNDS).for_each(|_| round());
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

/// A client's end, plain or within TLS.
enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    fn open(socket: TcpStream, secured: bool) -> Self {
        if !secured {
            return Self::Plain(socket);
        }
        let name = "edge".try_into().expect("it is a name");
        let connection = ClientConnection::new(ends().1.rustls(), name).expect("there is randomness");
        Self::Tls(Box::new(StreamOwned::new(connection, socket)))
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// An MQTT 3.1.1 client that reads exactly what it waits for.
struct Client {
    socket: Socket,
    /// Its packets come and go in binary messages, and what of those was not read yet.
    websocket: Option<(Reader, Vec<u8>)>,
    received: Vec<u8>,
    parsed: usize,
}

impl Client {
    fn connect(house: &House, name: &str, clean: bool) -> Self {
        let socket = TcpStream::connect(house.edge).expect("the shard listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        socket.set_nodelay(true).expect("an option can be set");
        let socket = Socket::open(socket, house.tls.get());
        let mut client = Self { socket, websocket: None, received: Vec::new(), parsed: 0 };
        if house.websocket.get() {
            client.upgrade();
        }
        let flags = if clean { 0b1000_0010 } else { 0b1000_0000 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 60];
        [name, name].into_iter().for_each(|text| put_text(&mut body, text));
        client.send(0x10, &body);
        assert_eq!(client.next(), (2, 0, vec![0, 0]), "CONNACK");
        client
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 1];
        put_text(&mut body, filter);
        body.push(qos);
        self.send(0x82, &body);
        assert_eq!(self.next(), (9, 0, vec![0, 1, qos]), "SUBACK");
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        let mut frame = vec![first, u8::try_from(body.len()).expect("tests send short frames")];
        assert!(body.len() < 128, "tests send short frames");
        frame.extend_from_slice(body);
        if self.websocket.is_some() {
            let key = [0x12, 0x34, 0x56, 0x78];
            let mut head = [0; HEAD_BYTES_MAX];
            let bytes = encode_head(true, Opcode::Binary, Some(key), frame.len() as u64, &mut head);
            apply_mask(&mut frame, key);
            frame.splice(..0, head[..bytes].iter().copied());
        }
        self.socket.write_all(&frame).expect("the shard reads");
    }

    fn upgrade(&mut self) {
        let wish = Wish { authority: "edge", path: "/mqtt", subprotocol: Some("mqtt"), nonce: [7; 16] };
        self.socket.write_all(wish.request().as_bytes()).expect("the shard reads");
        let mut answer = Vec::new();
        while wish.check(&answer).expect("it agrees").is_none() {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).expect("the shard answers");
            answer.extend(byte);
        }
        self.websocket = Some((Reader::default(), Vec::new()));
    }

    /// Takes in what was received; out of its frames, if it is in some.
    fn take_in(&mut self, bytes: &[u8]) {
        let Some((reader, unread)) = &mut self.websocket else { return self.received.extend_from_slice(bytes) };
        const RULES: Rules =
            Rules { role: Role::Client, text: false, frame_bytes_max: u32::MAX, message_bytes_max: None };
        unread.extend_from_slice(bytes);
        let mut at = Passage::default();
        while reader.read(unread, &mut at, &RULES).expect("the shard frames well") != Heard::NeedMore {}
        self.received.extend_from_slice(&unread[..at.write]);
        unread.drain(..at.read);
    }

    fn publish(&mut self, topic: &str, id: Option<u16>, payload: &[u8]) {
        let mut body = Vec::new();
        put_text(&mut body, topic);
        body.extend(id.into_iter().flat_map(u16::to_be_bytes));
        body.extend_from_slice(payload);
        self.send(if id.is_some() { 0x32 } else { 0x30 }, &body);
    }

    /// After this the shard has handled all that was sent before.
    fn ping(&mut self) {
        self.send(0xC0, &[]);
        assert_eq!(self.next().0, PACKET_PINGRESP);
    }

    /// The next frame: type, flags, body.
    fn next(&mut self) -> (u8, u8, Vec<u8>) {
        loop {
            let unread = &self.received[self.parsed..];
            if let [first, length, rest @ ..] = unread
                && rest.len() >= usize::from(*length)
            {
                assert!(*length < 128, "tests get short frames");
                let frame = (first >> 4, first & 15, rest[..usize::from(*length)].to_vec());
                self.parsed += 2 + frame.2.len();
                return frame;
            }
            self.received.drain(..std::mem::take(&mut self.parsed));
            let mut chunk = [0; 4096];
            let count = match self.socket.read(&mut chunk) {
                // A read with a timeout is not taken up again after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the shard answers"),
            };
            assert!(count > 0, "the shard closed the connection");
            self.take_in(&chunk[..count]);
        }
    }

    /// Takes so many messages and acknowledges those that want it.
    fn take(&mut self, messages: usize) {
        for _ in 0..messages {
            let (kind, flags, body) = self.next();
            assert_eq!(kind, PACKET_PUBLISH);
            if flags & 0b0110 != 0 {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                self.send(0x40, &body[2 + topic..4 + topic]);
            }
        }
    }
}

/// An event stream's client: it asks, and counts blocks.
struct Page {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Page {
    fn open(house: &House, query: &str) -> Self {
        let mut socket = TcpStream::connect(house.edge).expect("the shard listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let request = format!("GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("the shard reads");
        let mut page = Self { socket, received: Vec::new() };
        // The head ends like a block, and so does the position that the stream begins with.
        assert!(page.block().starts_with(b"HTTP/1.1 200 OK\r\n"));
        page.block();
        page
    }

    /// The next block.
    fn block(&mut self) -> Vec<u8> {
        loop {
            let end = |ending: &[u8]| self.received.windows(ending.len()).position(|part| part == ending);
            let end = end(b"\n\n").map(|at| at + 2).into_iter().chain(end(b"\r\n\r\n").map(|at| at + 4)).min();
            if let Some(end) = end {
                return self.received.drain(..end).collect();
            }
            let mut chunk = [0; 4096];
            let count = match self.socket.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the shard answers"),
            };
            assert!(count > 0, "the shard closed the connection");
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// Takes so many messages; what else there is are comments.
    fn take(&mut self, messages: usize) {
        let mut left = messages;
        while left > 0 {
            left -= usize::from(self.block() != b":\n\n");
        }
    }
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).expect("tests use short names").to_be_bytes());
    body.extend_from_slice(text.as_bytes());
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

/// Bursts of pushes to a topic whose subscribers are clean sessions.
fn fan_out(house: &House, topic: &str, qos: Qos) -> f64 {
    let mut clients = subscribers(house, topic, qos as u8, true);
    let messages: Vec<_> = (0..BURST).map(|_| message(topic, qos)).collect();
    let target = Target::Topic(topic.into());
    house.per_message(&format!("push to {SUBSCRIBERS} subscribers, {qos:?}"), BURST, || {
        house.push(&target, &messages);
        clients.iter_mut().for_each(|client| client.take(BURST));
        clients.iter_mut().for_each(Client::ping);
    })
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
        client.ping();
    })
}

fn publish(house: &House, topic: &str, qos: Qos) -> f64 {
    let mut listener = Client::connect(house, &format!("listener-{}", qos as u8), true);
    listener.subscribe(topic, qos as u8);
    let mut publisher = Client::connect(house, &format!("publisher-{}", qos as u8), true);
    house.per_message(&format!("publish of a client, {qos:?}"), BURST, || {
        for id in 1..=BURST as u16 {
            publisher.publish(topic, (qos > Qos::AtMostOnce).then_some(id), b"sixteen bytes...");
        }
        if qos > Qos::AtMostOnce {
            (0..BURST).for_each(|_| assert_eq!(publisher.next().0, 4, "PUBACK"));
        }
        publisher.ping();
        listener.take(BURST);
        listener.ping();
    })
}

fn keep_alive(house: &House) -> f64 {
    let mut clients = subscribers(house, "quiet", 0, true);
    house.per_message("keep alive", SUBSCRIBERS, || clients.iter_mut().for_each(Client::ping))
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
    for (what, per_message) in free.into_iter().chain(free_over_websocket) {
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
