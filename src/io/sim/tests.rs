use super::*;
use crate::base::block::BlockPool;
use crate::io::{Completion, Driver, ListenerId, Op, Outcome, Segment, Slot, Socket, Token, Wait};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

const ACCEPT: Token = Token(1);

/// A listening driver and all that it has said.
struct Bench {
    net: SimNet,
    driver: SimDriver,
    listener: ListenerId,
    address: SocketAddr,
    pool: BlockPool,
    done: Vec<Completion>,
}

impl Bench {
    fn new(seed: u64, faults: Faults) -> Self {
        let net = SimNet::new(seed, faults);
        let mut driver = net.driver();
        let (listener, address) = driver.listen(([10, 0, 0, 1], 0).into(), false).expect("nobody else listens");
        driver.submit(Op::Accept { listener, token: ACCEPT });
        Self { net, driver, listener, address, pool: BlockPool::default(), done: Vec::new() }
    }

    /// One poll, or the passing of time until one brings something.
    fn turn(&mut self) {
        if !self.driver.is_due() {
            self.net.advance_to(self.net.next_due_ms().expect("a driver with a deadline is due some day"));
        }
        let until_ms = self.net.now().monotonic_ms + 10;
        self.driver.poll(Wait::Until(until_ms), 16, &mut self.done).expect("the simulation does not fail");
    }

    fn expect(&mut self, token: Token) -> Outcome {
        for _ in 0..10_000 {
            if let Some(at) = self.done.iter().position(|completion| completion.token == token) {
                return self.done.remove(at).outcome;
            }
            self.turn();
        }
        panic!("no completion of {token:?} came");
    }

    fn accepted(&mut self) -> Socket {
        match self.expect(ACCEPT) {
            Outcome::Accepted { socket, .. } => socket,
            other => panic!("not accepted: {other:?}"),
        }
    }

    fn guest(&mut self) -> (Peer, Slot) {
        let peer = Peer::connect(&self.net, self.address);
        let socket = self.accepted();
        (peer, self.driver.attach(socket))
    }

    fn receive(&mut self, slot: Slot, token: Token) {
        let block = self.pool.take(512).expect("tests use few blocks");
        self.driver.submit(Op::Receive { slot, block, token });
    }

    fn panics(&mut self, misuse: impl FnOnce(&mut Self)) -> bool {
        catch_unwind(AssertUnwindSafe(|| misuse(self))).is_err()
    }
}

fn send(slot: Slot, bytes: &'static [u8], token: Token) -> Op {
    Op::Send { slot, segment: Segment::Shared(bytes.into()), more: false, token }
}

/// What an echo server keeps of a connection; its slot's number is the low half of its tokens.
#[derive(Default)]
struct Echo {
    watch_open: bool,
    busy: bool,
    sending: bool,
    ending: bool,
    shut: bool,
    waiting: Vec<u8>,
}

const INSTALL: u64 = 2 << 32;
const WATCH: u64 = 3 << 32;
const RECEIVE: u64 = 4 << 32;
const SEND: u64 = 5 << 32;
const SHUTDOWN: u64 = 6 << 32;

/// An echo server under faults, written as the engine is: terminate, join, close.
struct Server {
    bench: Bench,
    open: BTreeMap<u32, Echo>,
    installs: u64,
}

impl Server {
    fn token(kind: u64, slot: Slot) -> Token {
        Token(kind | u64::from(slot.0))
    }

    fn install(&mut self, socket: Socket) {
        self.installs += 1;
        self.bench.driver.submit(Op::Install { socket, token: Token(INSTALL | self.installs) });
    }

    fn receive(&mut self, slot: Slot) {
        let echo = self.open.get_mut(&slot.0).expect("only open slots receive");
        if !echo.busy && !echo.sending && !echo.ending {
            echo.busy = true;
            self.bench.receive(slot, Self::token(RECEIVE, slot));
        }
    }

    fn send(&mut self, slot: Slot) {
        let echo = self.open.get_mut(&slot.0).expect("only open slots send");
        if !echo.sending && !echo.waiting.is_empty() && !echo.ending {
            echo.sending = true;
            let segment = Segment::Shared(std::mem::take(&mut echo.waiting).into());
            self.bench.driver.submit(Op::Send { slot, segment, more: false, token: Self::token(SEND, slot) });
        }
    }

    fn end(&mut self, slot: Slot) {
        let echo = self.open.get_mut(&slot.0).expect("only open slots end");
        if !std::mem::replace(&mut echo.ending, true) {
            self.bench.driver.submit(Op::Shutdown { slot, token: Self::token(SHUTDOWN, slot) });
            self.bench.driver.submit(Op::Unwatch { slot, token: Self::token(WATCH, slot) });
        }
    }

    fn watch(&mut self, slot: Slot) {
        let echo = self.open.get_mut(&slot.0).expect("only open slots are watched");
        if !echo.ending {
            echo.watch_open = true;
            self.bench.driver.submit(Op::Watch { slot, token: Self::token(WATCH, slot) });
        }
    }

    fn turn(&mut self) {
        self.bench.turn();
        for completion in std::mem::take(&mut self.bench.done) {
            let slot = Slot(completion.token.0 as u32);
            match completion.outcome {
                Outcome::Accepted { socket, .. } => self.install(socket),
                Outcome::AcceptEnded(_) => {
                    self.bench.driver.submit(Op::Accept { listener: self.bench.listener, token: ACCEPT });
                }
                Outcome::Installed(slot) => {
                    self.open.insert(slot.0, Echo::default());
                    self.watch(slot);
                }
                Outcome::InstallFailed { socket, .. } => self.install(socket),
                Outcome::Ready => self.receive(slot),
                Outcome::WatchEnded => {
                    self.open.get_mut(&slot.0).expect("it was watched").watch_open = false;
                    self.watch(slot);
                }
                Outcome::Received { block, count, more } => self.on_received(slot, block, count, more),
                Outcome::ReceiveFailed { block, error } => {
                    self.bench.pool.give(block);
                    self.open.get_mut(&slot.0).expect("it received").busy = false;
                    if error.kind() != std::io::ErrorKind::WouldBlock {
                        self.end(slot);
                    }
                }
                Outcome::Sent { mut segment, count } => {
                    segment.advance(count);
                    let echo = self.open.get_mut(&slot.0).expect("it sent");
                    echo.sending = false;
                    echo.waiting.splice(0..0, segment.remaining().iter().copied());
                    self.send(slot);
                    self.receive(slot);
                }
                Outcome::SendFailed { .. } => {
                    self.open.get_mut(&slot.0).expect("it sent").sending = false;
                    self.end(slot);
                }
                Outcome::ShutDone => self.open.get_mut(&slot.0).expect("it was open").shut = true,
                other @ (Outcome::Connected(_) | Outcome::ConnectFailed(_)) => panic!("not asked for: {other:?}"),
            }
            self.close_joined(slot);
        }
    }

    fn on_received(&mut self, slot: Slot, block: crate::base::block::Block, count: usize, more: bool) {
        let echo = self.open.get_mut(&slot.0).expect("it received");
        echo.busy = false;
        echo.waiting.extend(&block.bytes()[..count]);
        self.bench.pool.give(block);
        if count == 0 {
            return self.end(slot);
        }
        self.send(slot);
        if more {
            self.receive(slot);
        }
    }

    fn close_joined(&mut self, slot: Slot) {
        let joined = |echo: &Echo| echo.shut && !echo.watch_open && !echo.busy && !echo.sending;
        if self.open.get(&slot.0).is_some_and(joined) {
            self.open.remove(&slot.0);
            self.bench.driver.close(slot);
        }
    }
}

/// Eight clients that send and want it back, of which the first hangs up half-way with a crowded connection; returns
/// the trace, the marks and how many got all.
fn echo_run(seed: u64, faults: Faults) -> (u64, Marks, usize) {
    let mut server = Server { bench: Bench::new(seed, faults), open: BTreeMap::new(), installs: 0 };
    let net = server.bench.net.clone();
    let want: Vec<u8> = (0..3_000u32).map(|n| (n % 251) as u8).collect();
    let mut clients: Vec<_> =
        (0..8).map(|_| (Some(Peer::connect(&net, server.bench.address)), 0, Vec::new())).collect();
    let mut complete = 0;
    for _ in 0..200_000 {
        server.turn();
        for (number, (held, written, read)) in clients.iter_mut().enumerate() {
            let Some(peer) = held else { continue };
            *written += peer.write(&want[*written..]).unwrap_or(0);
            if number == 0 && *written > want.len() / 2 {
                *held = None;
                continue;
            }
            read.extend(peer.read_all());
            assert!(want.starts_with(read), "bytes came back changed");
            complete += usize::from(read.len() == want.len());
            if read.len() == want.len() || matches!(peer.state(), PeerState::Dead | PeerState::Ended) {
                *held = None;
            }
        }
        let census = net.census();
        if clients.iter().all(|(peer, ..)| peer.is_none()) && census.connections == 0 {
            assert_eq!(server.bench.pool.out(), 0, "a block was lost");
            let rest = Census { listeners: 1, ops: census.ops, ..Census::default() };
            assert_eq!(census, rest, "something was left over");
            return (net.trace_hash(), net.marks(), complete);
        }
    }
    panic!("the run does not end: {:?}", net.census());
}

#[test]
fn without_faults_every_byte_comes_back() {
    let (_, marks, complete) = echo_run(1, Faults::none());
    assert_eq!(complete, 7);
    assert_eq!(marks.count(Mark::ShortSend) + marks.count(Mark::Reset), 0);
}

#[test]
fn faults_that_a_connection_survives_lose_no_byte() {
    for seed in 0..20 {
        assert_eq!(echo_run(seed, Faults::harsh()).2, 7, "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..10 {
        assert_eq!(echo_run(seed, Faults::brutal()), echo_run(seed, Faults::brutal()), "seed {seed}");
    }
    assert_ne!(echo_run(1, Faults::brutal()).0, echo_run(2, Faults::brutal()).0);
}

#[test]
fn drawn_mixes_of_faults_leave_nothing_behind_and_hit_what_servers_see() {
    let mut marks = Marks::default();
    for seed in 0..40 {
        let faults = Faults::drawn(&mut Random::new(seed));
        marks.merge(&echo_run(seed, faults).1);
    }
    // These need a client driver, a waker, a dying client, a shutdown with a send in flight, or a crash; tests below
    // bring each of them.
    let elsewhere = [
        Mark::ConnectFailure,
        Mark::WakeDelay,
        Mark::Vanish,
        Mark::LateCompletion,
        Mark::ShutdownEndedSend,
        Mark::Crash,
    ];
    let missing: Vec<_> = marks.missing().into_iter().filter(|mark| !elsewhere.contains(mark)).collect();
    assert!(missing.is_empty(), "never hit: {missing:?}\n{marks}");
}

#[test]
fn a_full_pipe_holds_a_send_until_the_peer_reads() {
    let mut bench = Bench::new(1, Faults { pipe_bytes: (4, 4), ..Faults::none() });
    let (mut peer, slot) = bench.guest();
    bench.driver.submit(send(slot, b"abcdef", Token(10)));
    assert!(matches!(bench.expect(Token(10)), Outcome::Sent { count: 4, .. }));
    bench.driver.submit(send(slot, b"ef", Token(11)));
    bench.turn();
    assert_eq!((bench.net.census().blocked_sends, bench.net.marks().count(Mark::FullPipe)), (1, 1));
    let mut read = [0; 4];
    assert_eq!((peer.read(&mut read).ok(), &read), (Some(4), b"abcd"));
    assert!(matches!(bench.expect(Token(11)), Outcome::Sent { count: 2, .. }));
    assert_eq!(peer.read_all(), b"ef");
    bench.driver.close(slot);
    assert_eq!(peer.state(), PeerState::Ended);
}

#[test]
fn a_vanished_client_is_silence_until_a_shutdown() {
    let mut bench = Bench::new(1, Faults { pipe_bytes: (4, 4), ..Faults::none() });
    let (peer, slot) = bench.guest();
    peer.vanish();
    bench.driver.submit(send(slot, b"abcd", Token(10)));
    assert!(matches!(bench.expect(Token(10)), Outcome::Sent { count: 4, .. }));
    bench.driver.submit(send(slot, b"e", Token(11)));
    bench.receive(slot, Token(12));
    assert!(matches!(bench.expect(Token(12)), Outcome::ReceiveFailed { .. }));
    bench.driver.submit(Op::Shutdown { slot, token: Token(13) });
    assert!(matches!(bench.expect(Token(11)), Outcome::SendFailed { .. }));
    assert!(matches!(bench.expect(Token(13)), Outcome::ShutDone));
    bench.driver.close(slot);
    assert_eq!(bench.net.census().connections, 0);
    for mark in [Mark::Vanish, Mark::ShutdownEndedSend, Mark::LateCompletion] {
        assert_eq!(bench.net.marks().count(mark), 1, "{mark:?}");
    }
}

#[test]
fn emfile_ends_the_accept_and_loses_no_connection() {
    let mut bench = Bench::new(1, Faults { accept_emfile: Chance::ALWAYS, ..Faults::none() });
    let peer = Peer::connect(&bench.net, bench.address);
    assert!(matches!(bench.expect(ACCEPT), Outcome::AcceptEnded(Some(_))));
    assert_eq!(bench.net.census().backlog, 1);
    bench.net.set_faults(Faults::none());
    bench.driver.submit(Op::Accept { listener: bench.listener, token: ACCEPT });
    drop(bench.accepted());
    // A socket that nobody takes in closes when it is dropped.
    assert_eq!(peer.state(), PeerState::Ended);
    drop(peer);
    assert_eq!(bench.net.census(), Census { listeners: 1, ops: 0, ..Census::default() });
}

#[test]
fn installs_fail_at_the_limit_and_give_the_socket_back() {
    let mut bench = Bench::new(1, Faults { slots_max: 2, ..Faults::none() });
    let peers: Vec<_> = (0..3).map(|_| Peer::connect(&bench.net, bench.address)).collect();
    for number in 0..3 {
        let socket = bench.accepted();
        bench.driver.submit(Op::Install { socket, token: Token(10 + number) });
    }
    let Outcome::Installed(first) = bench.expect(Token(10)) else { panic!("there was room") };
    assert!(matches!(bench.expect(Token(11)), Outcome::Installed(_)));
    let Outcome::InstallFailed { socket, .. } = bench.expect(Token(12)) else { panic!("there was none") };
    bench.driver.close(first);
    bench.driver.submit(Op::Install { socket, token: Token(13) });
    assert!(matches!(bench.expect(Token(13)), Outcome::Installed(_)));
    assert_eq!((peers[0].state(), peers[2].state()), (PeerState::Ended, PeerState::Open));
}

#[test]
fn a_crash_resets_every_connection_and_frees_the_address() {
    let mut bench = Bench::new(1, Faults::none());
    let (mut peer, slot) = bench.guest();
    let waiting = Peer::connect(&bench.net, bench.address);
    bench.driver.submit(Op::WatchOnce { slot, token: Token(10) });
    bench.turn();
    let Bench { net, driver, address, done, .. } = bench;
    driver.crash();
    drop(done);
    assert_eq!(peer.state(), PeerState::Dead);
    assert_eq!(peer.read(&mut [0; 8]).map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    assert_ne!(waiting.state(), PeerState::Open);
    assert_eq!(Peer::connect(&net, address).state(), PeerState::Dead);
    drop((peer, waiting));
    assert_eq!(net.census(), Census::default());
    assert_eq!(net.marks().count(Mark::Crash), 1);
    assert!(net.driver().listen(address, false).is_ok());
}

#[test]
fn misuse_panics_where_it_happens() {
    let mut bench = Bench::new(1, Faults::none());
    let (_peer, slot) = bench.guest();
    bench.driver.submit(send(slot, b"a", Token(10)));
    assert!(bench.panics(|bench| bench.driver.submit(send(slot, b"b", Token(11)))), "two sends");
    assert!(bench.panics(|bench| bench.driver.close(slot)), "closed with a send in flight");
    assert!(bench.panics(|bench| drop(bench.driver.detach(slot, false))), "detached with a send in flight");
    assert!(matches!(bench.expect(Token(10)), Outcome::Sent { .. }));
    bench.receive(slot, Token(12));
    assert!(bench.panics(|bench| bench.receive(slot, Token(13))), "two receives");
    assert!(matches!(bench.expect(Token(12)), Outcome::ReceiveFailed { .. }));
    assert!(bench.panics(|bench| bench.driver.submit(send(slot, b"", Token(14)))), "a send of nothing");
    let (listener, token) = (bench.listener, ACCEPT);
    assert!(bench.panics(|bench| bench.driver.submit(Op::Accept { listener, token })), "two accepts");
    assert!(bench.panics(|bench| bench.driver.close_listener(listener)), "a listener closed with its accept");
    bench.driver.close(slot);
    assert!(bench.panics(|bench| bench.driver.close(slot)), "closed twice");
    assert!(bench.panics(|bench| bench.receive(slot, Token(15))), "a receive on a closed slot");
}

#[test]
fn a_sleeping_driver_is_due_when_woken_though_perhaps_later() {
    let mut bench = Bench::new(1, Faults { wake_delay: Delay::new(Chance::ALWAYS, 5), ..Faults::none() });
    let start_ms = bench.net.now().monotonic_ms;
    let poll = |bench: &mut Bench| {
        bench.driver.poll(Wait::Until(start_ms + 100), 16, &mut bench.done).expect("the simulation does not fail");
    };
    poll(&mut bench);
    assert!(!bench.driver.is_due());
    assert_eq!(bench.driver.waiting_until_ms(), Some(start_ms + 100));
    assert_eq!((bench.net.next_event_ms(), bench.net.next_due_ms()), (None, Some(start_ms + 100)));
    bench.driver.waker().wake();
    let woken_ms = bench.net.next_due_ms().expect("a wake is on its way");
    assert!((start_ms + 1..=start_ms + 5).contains(&woken_ms));
    assert!(!bench.driver.is_due());
    bench.net.advance_to(woken_ms);
    assert!(bench.driver.is_due());
    poll(&mut bench);
    assert!(bench.driver.is_due(), "its shard runs a turn before it sleeps again");
    poll(&mut bench);
    assert!(!bench.driver.is_due());
    assert_eq!(bench.net.marks().count(Mark::WakeDelay), 1);
}

#[test]
fn connects_succeed_are_refused_or_time_out() {
    let mut bench = Bench::new(1, Faults::none());
    let there = bench.address;
    let mut connect = |remote, token| {
        bench.driver.submit(Op::Connect { local: None, remote, token });
        bench.expect(token)
    };
    assert!(matches!(connect(there, Token(20)), Outcome::Connected(_)));
    let Outcome::ConnectFailed(error) = connect(([10, 0, 0, 9], 9).into(), Token(21)) else { panic!("connected") };
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    bench.net.set_faults(Faults { connect_failure: Chance::ALWAYS, ..Faults::none() });
    bench.driver.submit(Op::Connect { local: None, remote: there, token: Token(22) });
    let Outcome::ConnectFailed(error) = bench.expect(Token(22)) else { panic!("connected") };
    assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
    assert_eq!(bench.net.marks().count(Mark::ConnectFailure), 1);
}

#[test]
fn bytes_for_a_closed_slot_are_answered_with_a_reset() {
    let mut bench = Bench::new(1, Faults::none());
    let (mut peer, slot) = bench.guest();
    bench.driver.close(slot);
    assert_eq!(peer.state(), PeerState::Ended);
    assert_eq!(peer.write(b"anyone?").ok(), Some(7));
    assert_eq!(peer.state(), PeerState::Dead);
    assert!(peer.write(b"anyone?").is_err());
}
