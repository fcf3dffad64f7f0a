//! What a driver brings to be tested, and the bench that the tests work at.

use kittiwake::base::block::{Block, BlockPool};
use kittiwake::io::{Completion, Driver, ListenerId, Op, Outcome, Segment, Slot, Socket, Token, Wait};
use std::io;
use std::net::SocketAddr;

/// A world of drivers and peers that can reach each other.
pub trait Rig: Sized {
    /// The driver under test.
    type Driver: Driver;
    /// The other end of a connection.
    type Peer: Peer;
    /// An empty world.
    fn new() -> Self;
    /// Another driver in this world; with tables of `table_slots` slots, where it has tables of a fixed size.
    fn driver(&mut self, table_slots: Option<usize>) -> Self::Driver;
    /// An address to listen on whose port the driver chooses.
    fn any_address(&self) -> SocketAddr;
    /// An address where nobody listens.
    fn dead_address(&self) -> SocketAddr;
    /// A peer that connects to a listener. It need not have been accepted on return.
    fn connect(&mut self, to: SocketAddr) -> Self::Peer;
}

/// The other end of a connection; nothing of it waits.
pub trait Peer {
    /// Its own address.
    fn address(&self) -> SocketAddr;
    /// Sends what there is room for.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Receives what is there; 0 is the end.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// Ends its sending side.
    fn finish(&mut self);
    /// Goes away with a reset.
    fn reset(self);
}

/// How long, on the driver's clock, something may take that must happen.
const PATIENCE_MS: u64 = 30_000;
/// How long, on the driver's clock, something is looked for that must not happen.
const ABSENCE_MS: u64 = 30;

/// A driver, what it has completed, and blocks.
pub struct Bench<R: Rig> {
    pub rig: R,
    pub driver: R::Driver,
    pub pool: BlockPool,
    done: Vec<Completion>,
    tokens: u64,
}

impl<R: Rig> Bench<R> {
    pub fn new() -> Self {
        Self::with_tables(None)
    }

    pub fn with_tables(table_slots: Option<usize>) -> Self {
        let mut rig = R::new();
        let driver = rig.driver(table_slots);
        Self { rig, driver, pool: BlockPool::default(), done: Vec::new(), tokens: 0 }
    }

    /// A token that was never used, with all its parts in use.
    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(0x0f << 56 | self.tokens << 32 | self.tokens)
    }

    /// Submits the op that is made with a fresh token.
    pub fn submit(&mut self, op: impl FnOnce(Token) -> Op) -> Token {
        let token = self.token();
        self.driver.submit(op(token));
        token
    }

    /// One round, which waits a moment if nothing is there. Returns the driver's clock.
    pub fn round(&mut self) -> u64 {
        let now = self.driver.poll(Wait::No, 512, &mut self.done).unwrap();
        if !self.done.is_empty() {
            return now.monotonic_ms;
        }
        self.driver.poll(Wait::Until(now.monotonic_ms + 2), 512, &mut self.done).unwrap().monotonic_ms
    }

    /// Rounds until `look` finds something.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = self.round();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let now = self.round();
            assert!(now < start + PATIENCE_MS, "waited for {what}; there is {:?}", self.done);
        }
    }

    /// The next completion with that token, if it has come.
    pub fn take(&mut self, token: Token) -> Option<Outcome> {
        let position = self.done.iter().position(|completion| completion.token == token)?;
        Some(self.done.remove(position).outcome)
    }

    /// The next completion with that token.
    pub fn expect(&mut self, token: Token) -> Outcome {
        self.until("a completion", |bench| bench.take(token))
    }

    /// What comes with that token over a short time, which should be nothing.
    pub fn linger(&mut self, token: Token) -> Option<Outcome> {
        let end = self.round() + ABSENCE_MS;
        loop {
            if let Some(outcome) = self.take(token) {
                return Some(outcome);
            }
            if self.round() >= end {
                return None;
            }
        }
    }

    /// Polls once, exactly as told, and returns how many completions came.
    pub fn poll(&mut self, wait: Wait, max: usize) -> (u64, usize) {
        let before = self.done.len();
        let now = self.driver.poll(wait, max, &mut self.done).unwrap();
        (now.monotonic_ms, self.done.len() - before)
    }

    // --- connections ----------------------------------------------------------------------------------------------

    pub fn listen(&mut self) -> (ListenerId, SocketAddr) {
        self.driver.listen(self.rig.any_address(), false).unwrap()
    }

    pub fn accepted(&mut self, accept: Token) -> (Socket, SocketAddr) {
        match self.expect(accept) {
            Outcome::Accepted { socket, peer } => (socket, peer),
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub fn stop_accepting(&mut self, listener: ListenerId, accept: Token) {
        self.driver.submit(Op::StopAccepting { listener });
        match self.expect(accept) {
            Outcome::AcceptEnded(None) => {}
            other => panic!("accepting did not end as asked: {other:?}"),
        }
    }

    /// A peer and the accepted socket at our end.
    pub fn pair(&mut self) -> (R::Peer, Socket) {
        let (listener, address) = self.listen();
        let accept = self.submit(|token| Op::Accept { listener, token });
        let peer = self.rig.connect(address);
        let (socket, _) = self.accepted(accept);
        self.stop_accepting(listener, accept);
        self.driver.close_listener(listener);
        (peer, socket)
    }

    pub fn guest(&mut self) -> (R::Peer, Slot) {
        let (peer, socket) = self.pair();
        let slot = self.driver.attach(socket);
        (peer, slot)
    }

    pub fn installed(&mut self) -> (R::Peer, Slot) {
        let (peer, socket) = self.pair();
        let slot = self.install(socket);
        (peer, slot)
    }

    pub fn install(&mut self, socket: Socket) -> Slot {
        let token = self.submit(|token| Op::Install { socket, token });
        match self.expect(token) {
            Outcome::Installed(slot) => slot,
            other => panic!("not installed: {other:?}"),
        }
    }

    // --- bytes ----------------------------------------------------------------------------------------------------

    pub fn block(&mut self, bytes: usize) -> Block {
        self.pool.take(bytes).expect("tests use few blocks")
    }

    /// Receives once, into a block of at least that size.
    pub fn receive(&mut self, slot: Slot, bytes: usize) -> io::Result<(Vec<u8>, bool)> {
        let block = self.block(bytes);
        let token = self.submit(|token| Op::Receive { slot, block, token });
        match self.expect(token) {
            Outcome::Received { block, count, more } => {
                let received = block.bytes()[..count].to_vec();
                self.pool.give(block);
                Ok((received, more))
            }
            Outcome::ReceiveFailed { block, error } => {
                assert!(error.raw_os_error().is_some(), "errors are errno values");
                self.pool.give(block);
                Err(error)
            }
            other => panic!("not an outcome of a receive: {other:?}"),
        }
    }

    /// Receives, as soon as there is something, until `count` bytes have come, or the end.
    pub fn receive_all(&mut self, slot: Slot, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.until("bytes from the peer", |bench| {
            match bench.receive(slot, 512) {
                Ok((bytes, _)) if bytes.is_empty() => return Some(()),
                Ok((bytes, _)) => all.extend(bytes),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
            }
            (all.len() >= count).then_some(())
        });
        all
    }

    /// A block that begins with these bytes.
    pub fn segment(&mut self, bytes: &[u8]) -> Segment {
        let mut block = self.block(bytes.len());
        block.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Segment::Block { block, start: 0, end: bytes.len() as u32 }
    }

    /// Sends it all, in as many sends as it takes.
    pub fn send_all(&mut self, slot: Slot, bytes: &[u8]) {
        let mut segment = self.segment(bytes);
        loop {
            let (returned, sent) = self.send(slot, segment);
            segment = returned;
            segment.advance(sent.unwrap());
            if segment.remaining().is_empty() {
                return self.drop_segment(segment);
            }
        }
    }

    /// Sends once.
    pub fn send(&mut self, slot: Slot, segment: Segment) -> (Segment, io::Result<usize>) {
        let token = self.submit(|token| Op::Send { slot, segment, more: false, token });
        self.expect_sent(token)
    }

    pub fn expect_sent(&mut self, token: Token) -> (Segment, io::Result<usize>) {
        let outcome = self.expect(token);
        Self::sent(outcome)
    }

    pub fn sent(outcome: Outcome) -> (Segment, io::Result<usize>) {
        match outcome {
            Outcome::Sent { segment, count } => (segment, Ok(count)),
            Outcome::SendFailed { segment, error } => {
                assert!(error.raw_os_error().is_some(), "errors are errno values");
                (segment, Err(error))
            }
            other => panic!("not an outcome of a send: {other:?}"),
        }
    }

    pub fn drop_segment(&mut self, segment: Segment) {
        if let Segment::Block { block, .. } = segment {
            self.pool.give(block);
        }
    }

    /// Sends until a send stays in flight. Returns its token and the bytes that left before it.
    pub fn block_sends(&mut self, slot: Slot) -> (Token, usize) {
        let mut left = 0;
        for _ in 0..1_000 {
            let segment = Segment::Shared(pattern(left, 262_144).into());
            let token = self.submit(|token| Op::Send { slot, segment, more: false, token });
            match self.linger(token) {
                None => return (token, left),
                Some(outcome) => left += Self::sent(outcome).1.unwrap(),
            }
        }
        panic!("the peer does not read, yet every send leaves");
    }

    pub fn shutdown(&mut self, slot: Slot) {
        let token = self.submit(|token| Op::Shutdown { slot, token });
        match self.expect(token) {
            Outcome::ShutDone => {}
            other => panic!("not shut down: {other:?}"),
        }
    }

    pub fn expect_ready(&mut self, token: Token) {
        match self.expect(token) {
            Outcome::Ready => {}
            other => panic!("not ready: {other:?}"),
        }
    }

    /// Ends a watch, passing over what it still had to say.
    pub fn unwatch(&mut self, slot: Slot, token: Token) {
        self.driver.submit(Op::Unwatch { slot, token });
        self.until("the end of the watch", |bench| match bench.take(token)? {
            Outcome::WatchEnded => Some(()),
            Outcome::Ready => None,
            other => panic!("not an outcome of a watch: {other:?}"),
        });
    }

    /// What the peer reads until `count` bytes have come, or the end.
    pub fn peer_reads(&mut self, peer: &mut R::Peer, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.until("bytes at the peer", |_| read_some(peer, &mut all, count).then_some(()));
        all
    }

    /// Waits until the peer has read the end, or an error.
    pub fn peer_ends(&mut self, peer: &mut R::Peer) {
        let mut buffer = [0; 65_536];
        self.until("the peer's end", |_| match peer.read(&mut buffer) {
            Ok(0) => Some(()),
            Ok(_) => None,
            Err(error) => (error.kind() != io::ErrorKind::WouldBlock).then_some(()),
        });
    }

    pub fn peer_writes(&mut self, peer: &mut R::Peer, bytes: &[u8]) {
        let mut written = 0;
        self.until("room at the peer", |_| {
            written += peer.write(&bytes[written..]).unwrap_or(0);
            (written == bytes.len()).then_some(())
        });
    }
}

/// Reads what is there; true when there are `count` bytes, or the end has come.
pub fn read_some<P: Peer>(peer: &mut P, all: &mut Vec<u8>, count: usize) -> bool {
    let mut buffer = [0; 65_536];
    loop {
        match peer.read(&mut buffer) {
            Ok(0) => return true,
            Ok(read) => all.extend(&buffer[..read]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                return all.len() >= count;
            }
        }
        if all.len() >= count {
            return true;
        }
    }
}

/// Bytes that show where in a flow they belong.
pub fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|position| (position % 251) as u8).collect()
}
