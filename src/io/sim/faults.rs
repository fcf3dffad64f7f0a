//! What the simulation may do to its users, how often, and how often it did.

use super::random::{Chance, Random};
use core::fmt;

/// A chance of a delay and its longest, in milliseconds; delays are drawn from `1..=ms_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Delay {
    /// How often.
    pub chance: Chance,
    /// At most how long.
    pub ms_max: u64,
}

impl Delay {
    /// No delay, ever.
    pub const NONE: Self = Self { chance: Chance::NEVER, ms_max: 0 };
    /// A delay.
    pub const fn new(chance: Chance, ms_max: u64) -> Self {
        Self { chance, ms_max }
    }
}

/// Chances and ranges of every fault the simulation knows. [`Faults::none`] is a perfect network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// A receive takes fewer bytes than there are.
    pub short_receive: Chance,
    /// A send takes fewer bytes than there is room for.
    pub short_send: Chance,
    /// A receive says `WouldBlock` as if its bytes came a moment later; a `Ready` follows.
    pub late_bytes: Chance,
    /// A send waits although there is room, at most so long.
    pub blocked_send: Delay,
    /// The `more` of a receive is the opposite of the truth.
    pub wrong_more: Chance,
    /// A watch says `Ready` for nothing (per poll, some watched slot).
    pub spurious_ready: Chance,
    /// A watch ends unasked, with or without its last `Ready`.
    pub watch_end: Chance,
    /// The network resets a connection at a send or receive.
    pub reset: Chance,
    /// A reset takes with it what had arrived and was not yet received.
    pub reset_loses_bytes: Chance,
    /// An accept ends with EMFILE; the connection stays in the backlog.
    pub accept_emfile: Chance,
    /// An install finds no room.
    pub install_failure: Chance,
    /// A connect times out.
    pub connect_failure: Chance,
    /// A completion comes later.
    pub completion_delay: Delay,
    /// A completion overtakes those of other slots.
    pub reorder: Chance,
    /// Bytes, ends and resets travel for a while.
    pub travel_delay: Delay,
    /// A wake comes later.
    pub wake_delay: Delay,
    /// A poll returns fewer completions than are due.
    pub short_reap: Chance,
    /// Bytes a direction of a connection buffers, both sockets' buffers together: drawn per direction.
    pub pipe_bytes: (usize, usize),
    /// Slots one driver can install.
    pub slots_max: usize,
}

impl Faults {
    /// A perfect network with Linux's usual buffers.
    pub fn none() -> Self {
        Self {
            short_receive: Chance::NEVER,
            short_send: Chance::NEVER,
            late_bytes: Chance::NEVER,
            blocked_send: Delay::NONE,
            wrong_more: Chance::NEVER,
            spurious_ready: Chance::NEVER,
            watch_end: Chance::NEVER,
            reset: Chance::NEVER,
            reset_loses_bytes: Chance::NEVER,
            accept_emfile: Chance::NEVER,
            install_failure: Chance::NEVER,
            connect_failure: Chance::NEVER,
            completion_delay: Delay::NONE,
            reorder: Chance::NEVER,
            travel_delay: Delay::NONE,
            wake_delay: Delay::NONE,
            short_reap: Chance::NEVER,
            pipe_bytes: (131_072, 131_072),
            slots_max: 1 << 20,
        }
    }

    /// Every fault that a connection survives, often; small buffers.
    pub fn harsh() -> Self {
        Self {
            short_receive: Chance::percent(25),
            short_send: Chance::percent(25),
            late_bytes: Chance::percent(5),
            blocked_send: Delay::new(Chance::percent(5), 50),
            wrong_more: Chance::percent(20),
            spurious_ready: Chance::percent(5),
            watch_end: Chance::percent(2),
            reset: Chance::NEVER,
            reset_loses_bytes: Chance::percent(50),
            accept_emfile: Chance::percent(10),
            install_failure: Chance::percent(5),
            connect_failure: Chance::percent(5),
            completion_delay: Delay::new(Chance::percent(20), 20),
            reorder: Chance::percent(50),
            travel_delay: Delay::new(Chance::percent(30), 50),
            wake_delay: Delay::new(Chance::percent(20), 10),
            short_reap: Chance::percent(10),
            pipe_bytes: (1, 4_096),
            slots_max: 1 << 20,
        }
    }

    /// As [`Faults::harsh`], and connections break.
    pub fn brutal() -> Self {
        Self { reset: Chance(50), ..Self::harsh() }
    }

    /// A mix drawn from the seed: each fault is off, as in [`Faults::brutal`], or in between. Runs that lack some
    /// faults reach states that runs with all of them never do.
    pub fn drawn(random: &mut Random) -> Self {
        let full = Self::brutal();
        let mut draw = |chance: Chance| match random.below(3) {
            0 => Chance::NEVER,
            1 => chance,
            _ => Chance(random.within(0, u64::from(chance.0)) as u16),
        };
        let mut mixed = Self {
            short_receive: draw(full.short_receive),
            short_send: draw(full.short_send),
            late_bytes: draw(full.late_bytes),
            blocked_send: Delay::new(draw(full.blocked_send.chance), full.blocked_send.ms_max),
            wrong_more: draw(full.wrong_more),
            spurious_ready: draw(full.spurious_ready),
            watch_end: draw(full.watch_end),
            reset: draw(full.reset),
            reset_loses_bytes: draw(full.reset_loses_bytes),
            accept_emfile: draw(full.accept_emfile),
            install_failure: draw(full.install_failure),
            connect_failure: draw(full.connect_failure),
            completion_delay: Delay::new(draw(full.completion_delay.chance), full.completion_delay.ms_max),
            reorder: draw(full.reorder),
            travel_delay: Delay::new(draw(full.travel_delay.chance), full.travel_delay.ms_max),
            wake_delay: Delay::new(draw(full.wake_delay.chance), full.wake_delay.ms_max),
            short_reap: draw(full.short_reap),
            pipe_bytes: full.pipe_bytes,
            slots_max: full.slots_max,
        };
        if random.below(2) == 0 {
            mixed.pipe_bytes = Self::none().pipe_bytes;
        }
        mixed
    }
}

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Something that was actually done to the simulation's users.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Mark { $($(#[$doc])* $name,)* }

        impl Mark {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

marks! {
    /// [`Faults::short_receive`].
    ShortReceive,
    /// [`Faults::short_send`].
    ShortSend,
    /// [`Faults::late_bytes`].
    LateBytes,
    /// [`Faults::blocked_send`].
    BlockedSend,
    /// A send waited because the pipe was full.
    FullPipe,
    /// [`Faults::wrong_more`].
    WrongMore,
    /// [`Faults::spurious_ready`].
    SpuriousReady,
    /// [`Faults::watch_end`].
    WatchEnd,
    /// The network or a peer reset a connection.
    Reset,
    /// [`Faults::reset_loses_bytes`].
    ResetLostBytes,
    /// A socket was closed, or bytes came after a close, so that the other side saw a reset.
    CloseReset,
    /// [`Faults::accept_emfile`].
    AcceptEmfile,
    /// [`Faults::install_failure`], or [`Faults::slots_max`] was reached.
    InstallFailure,
    /// [`Faults::connect_failure`].
    ConnectFailure,
    /// [`Faults::completion_delay`].
    CompletionDelay,
    /// [`Faults::reorder`].
    Reorder,
    /// [`Faults::travel_delay`].
    TravelDelay,
    /// [`Faults::wake_delay`].
    WakeDelay,
    /// [`Faults::short_reap`].
    ShortReap,
    /// Bytes or an error came back for a slot after its shutdown had been asked for.
    LateCompletion,
    /// A send in flight was ended by a shutdown.
    ShutdownEndedSend,
    /// A client vanished without a word.
    Vanish,
    /// A node's sockets were dropped all at once.
    Crash,
}

/// How often each [`Mark`] was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Default for Marks {
    fn default() -> Self {
        Self([0; Mark::ALL.len()])
    }
}

impl Marks {
    /// Counts one.
    pub(super) fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }
    /// How often.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0[mark as usize]
    }
    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
    /// The marks that were never hit.
    pub fn missing(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|&mark| self.count(mark) == 0).collect()
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &mark in Mark::ALL {
            writeln!(f, "{:>10}  {mark:?}", self.count(mark))?;
        }
        Ok(())
    }
}
