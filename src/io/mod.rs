//! Owns: sockets, the kernel's ways of waiting on them, and how soon a thread that was woken runs. In: [`Op`]s.
//! Out: [`Completion`]s.
//! Must not: know a protocol, keep a byte after its completion, let a raw fd out (above are [`Slot`]s and [`Socket`]s).
//! Invariants: every op that names a token completes exactly once with that token ([`Op::Watch`] and [`Op::Accept`]:
//! any number of times, then once with their end); a block handed in comes back in the completion; at most one send
//! and one receive are in flight per slot; a slot is closed only when nothing of it is in flight.
//!
//! # Adding a driver
//! Implement [`Driver`]; add it to `Driver`'s contract suite in `tests/io_contract/`; add it to the probe in
//! `io/probe.rs`. That is all.
//!
//! # Life of a socket
//! ```text
//!   Accept ──► Accepted(Socket) ──attach──► Slot (guest: an ordinary fd; WatchOnce, Receive, Send)
//!                                            │ detach (nothing in flight)
//!   Connect ─► Connected(Socket) ────────► Socket ──mail──► Op::Install ──► Installed(Slot)   (io_uring: direct descriptor)
//!                                                                            │ Watch, Receive, Send
//!            terminate: Shutdown, Unwatch ──► join: all their completions ──► close(Slot)
//! ```

pub mod epoll;
pub mod passed;
pub mod probe;
pub mod sched;
pub mod sim;
mod socket;
pub mod uring;
mod wake;

use crate::base::block::Block;
use crate::base::clock::Now;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;

/// A driver's name for an open socket. Only the driver that gave it out understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(crate) u32);

/// A driver's name for a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) u32);

/// What the caller wants back with a completion: `op (8 bits) | generation (24) | index (32)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Bytes on their way to a socket: `start..end` of a pooled block, or a shared payload.
#[derive(Debug)]
pub enum Segment {
    /// Part of a block that has one owner.
    Block {
        /// The bytes.
        block: Block,
        /// First byte to send.
        start: u32,
        /// One past the last byte to send.
        end: u32,
    },
    /// A large payload, shared by its receivers; it is advanced as it is sent.
    Shared(Bytes),
}

impl Segment {
    /// What is still to be sent.
    pub fn remaining(&self) -> &[u8] {
        match self {
            Self::Block { block, start, end } => &block.bytes()[*start as usize..*end as usize],
            Self::Shared(bytes) => bytes,
        }
    }
    /// Marks `count` bytes as sent.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining().len(), "more was sent than there was");
        match self {
            Self::Block { start, .. } => *start += u32::try_from(count).expect("blocks are shorter than 4 GiB"),
            Self::Shared(bytes) => drop(bytes.split_to(count)),
        }
    }
}

/// What a driver is asked to do. Submitting never fails and never blocks; what goes wrong is in the completion.
#[derive(Debug)]
pub enum Op {
    /// Accept on a listener until [`Op::StopAccepting`].
    Accept {
        /// Whose.
        listener: ListenerId,
        /// Comes back with every completion.
        token: Token,
    },
    /// Ends the accept; its last completion is [`Outcome::AcceptEnded`].
    StopAccepting {
        /// Whose.
        listener: ListenerId,
    },
    /// Opens a connection from `local` (port 0: any) to `remote`.
    Connect {
        /// Source address, if it matters.
        local: Option<SocketAddr>,
        /// Destination.
        remote: SocketAddr,
        /// Comes back.
        token: Token,
    },
    /// Puts a socket where long-lived ones are kept (io_uring: a direct descriptor; all installs of a turn in one batch).
    Install {
        /// The socket; comes back in a failure.
        socket: Socket,
        /// Comes back.
        token: Token,
    },
    /// Says [`Outcome::Ready`] whenever bytes, an end or an error may have arrived, until [`Op::Unwatch`].
    /// It may say so once too often, never too seldom: a receive that finds nothing says `WouldBlock`.
    Watch {
        /// An installed slot.
        slot: Slot,
        /// Comes back each time.
        token: Token,
    },
    /// As `Watch`, but one `Ready` ends it (its only completion, or `WatchEnded` if it is unwatched first). For guests:
    /// nothing is left armed when they move.
    WatchOnce {
        /// A guest slot.
        slot: Slot,
        /// Comes back.
        token: Token,
    },
    /// Ends the watch with that token; the watch's own last completion is [`Outcome::WatchEnded`].
    /// Where the watch has already ended nothing more comes.
    Unwatch {
        /// Its slot.
        slot: Slot,
        /// The watch's token.
        token: Token,
    },
    /// Receives what is there into the block, without waiting.
    Receive {
        /// From whom.
        slot: Slot,
        /// Where to; comes back.
        block: Block,
        /// Comes back.
        token: Token,
    },
    /// Sends what remains of the segment; completes when at least one byte left, or never could.
    Send {
        /// To whom.
        slot: Slot,
        /// What; comes back, not advanced.
        segment: Segment,
        /// More follows at once (MSG_MORE).
        more: bool,
        /// Comes back.
        token: Token,
    },
    /// Shuts both directions down: ends a send in flight and tells the peer.
    Shutdown {
        /// Whom.
        slot: Slot,
        /// Comes back.
        token: Token,
    },
}

/// What became of an op.
#[derive(Debug)]
pub struct Completion {
    /// The op's.
    pub token: Token,
    /// The result.
    pub outcome: Outcome,
}

/// The result of an op. Errors are errno values as [`io::Error`] (always with `raw_os_error`).
#[derive(Debug)]
pub enum Outcome {
    /// A connection came in; the accept goes on.
    Accepted {
        /// It, an ordinary socket.
        socket: Socket,
        /// Its address.
        peer: SocketAddr,
    },
    /// The accept ended: asked to (`None`), or EMFILE and the like: accept again when there is room; nothing was lost.
    AcceptEnded(Option<io::Error>),
    /// Connected.
    Connected(Socket),
    /// Not connected.
    ConnectFailed(io::Error),
    /// The socket has its slot; the caller closes it one day.
    Installed(Slot),
    /// No room; the socket comes back.
    InstallFailed {
        /// It.
        socket: Socket,
        /// Why.
        error: io::Error,
    },
    /// There may be something to receive.
    Ready,
    /// The watch has ended, asked for or not; not asked for: watch again.
    WatchEnded,
    /// `count` bytes arrived (0: the peer has ended its side). `more`: there may be more, do not wait for `Ready`.
    Received {
        /// The block handed in.
        block: Block,
        /// Bytes at its start.
        count: usize,
        /// See above.
        more: bool,
    },
    /// Nothing arrived: `WouldBlock` (wait for `Ready`), or the connection is dead.
    ReceiveFailed {
        /// The block handed in.
        block: Block,
        /// Why.
        error: io::Error,
    },
    /// The first `count` ≥ 1 bytes of what remained left.
    Sent {
        /// The segment handed in, not advanced.
        segment: Segment,
        /// Bytes sent; may be fewer than remained.
        count: usize,
    },
    /// The connection is dead.
    SendFailed {
        /// The segment handed in.
        segment: Segment,
        /// Why.
        error: io::Error,
    },
    /// Shut down, or it was already.
    ShutDone,
}

/// How long to wait for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until a completion, a wake, or this monotonic millisecond.
    Until(u64),
}

/// The kernel's clocks, for whoever is not a shard: the log thread.
pub fn now() -> Now {
    epoll::sys::now()
}

/// A kernel, or a simulated one. All calls come from the shard's own thread.
pub trait Driver {
    /// Whether the sends of a turn go to the kernel together: then a long turn costs less a message, and else it costs more,
    /// for less of what it touches is in the caches when it is sent.
    const GATHERS_SENDS: bool = false;

    /// Binds and listens (backlog, `SO_REUSEADDR`, `SO_REUSEPORT` when `shared`, `TCP_NODELAY` inherited).
    fn listen(&mut self, address: SocketAddr, shared: bool) -> io::Result<(ListenerId, SocketAddr)>;
    /// Listens on a socket that listens already, and that others may accept on as well.
    fn adopt_listener(&mut self, listener: Socket) -> io::Result<(ListenerId, SocketAddr)>;
    /// Closes a listener whose accept has ended.
    fn close_listener(&mut self, listener: ListenerId);
    /// Queues an op.
    fn submit(&mut self, op: Op);
    /// Hands what is queued to the kernel now, for a caller who is about to wake somebody else. Without it the next poll does.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Submits what is queued, waits as told, and appends at most `max` completions to `into`.
    /// Returns the clock, read once, after waiting.
    fn poll(&mut self, wait: Wait, max: usize, into: &mut Vec<Completion>) -> io::Result<Now>;
    /// Takes an accepted socket in as a guest.
    fn attach(&mut self, socket: Socket) -> Slot;
    /// Gives a guest's socket out again. Nothing of it may be in flight. `stays`: the next to take it in is this driver, so
    /// what the kernel knows of it may stay; should it go elsewhere all the same, nothing but that memory is lost.
    fn detach(&mut self, slot: Slot, stays: bool) -> Socket;
    /// Closes a slot, guest or installed. Nothing of it may be in flight: asserted.
    fn close(&mut self, slot: Slot);
    /// Stops or resumes `Ready` for a watched slot whose bytes nobody wants to read now; every watch begins with
    /// reading on. One `Ready` that was queued before may still come. A driver whose watch is edge-triggered, as both of
    /// the kernel's are, has nothing to do: the engine keeps the ready bit and receives when it resumes.
    fn set_reading(&mut self, _slot: Slot, _reading: bool) {}
    /// Wakes this driver's `poll` from any thread. Cheap to clone.
    fn waker(&self) -> Waker;
    /// What this driver's thread, which calls this, has taken of a processor, in microseconds: how busy its loop is. A
    /// simulated one takes nothing.
    fn cpu_us(&self) -> u64 {
        0
    }
    /// The clock between two polls, for who is about to wait: how long a turn took. None where time stands still then.
    fn clock(&self) -> Option<Now> {
        None
    }
    /// Slots open at the moment, guests included.
    fn slots_open(&self) -> usize;
    /// `"io_uring"`, `"epoll"` or `"sim"`.
    fn name(&self) -> &'static str;
}

/// An open socket outside any slot: what accept gives and what mail carries.
#[derive(Debug)]
pub struct Socket(pub(crate) SocketKind);

/// What a socket is made of.
#[derive(Debug)]
pub(crate) enum SocketKind {
    /// The kernel's.
    Fd(std::os::fd::OwnedFd),
    /// The kernel's, and until its next turn the epoll driver of this number keeps its place for it.
    Known { fd: std::os::fd::OwnedFd, by: u32 },
    /// The simulator's: an end of a simulated connection.
    Sim(sim::SimSocket),
}

/// Wakes one driver from any thread.
#[derive(Clone, Debug)]
pub struct Waker(pub(crate) WakerKind);

/// How a driver is woken.
#[derive(Clone, Debug)]
pub(crate) enum WakerKind {
    /// Writing an eventfd, if the driver sleeps.
    EventFd(std::sync::Arc<wake::WakeCell>),
    /// Setting a flag that the simulator looks at.
    Flag(std::sync::Arc<std::sync::atomic::AtomicBool>),
}
