//! The turn: what a shard does, in order, for ever.

use super::mail::{Mailbox, Mailer, Post};
use super::memory::Payloads;
use super::table::{Purpose, key, parse};
use super::{Core, Engine, Handler, MoreWork, Settings, TURN_MS, Totals};
use crate::base::block::BlockPool;
use crate::base::ids::ConnectionId;
use crate::base::slab::Slab;
use crate::base::transform::Transform;
use crate::base::wheel::Wheel;
use crate::io::{Completion, Driver, Outcome, Wait};
use crate::limits::{
    MAIL_RETRY, POOL_RESERVE_DIVISOR, RECEIVES_IN_FLIGHT_MAX, SEGMENTS_MAX, SLEEP_MAX, TURN_COMPLETIONS_MAX,
    TURN_COSTLY_MAX, TURN_EXPIRIES_MAX, TURN_MAIL_MAX, TURN_UNPACK_BYTES_MAX,
};
use std::collections::VecDeque;
use std::io;

impl<D: Driver, H: Handler<D>> Engine<D, H> {
    /// Builds a shard's loop on its own thread. `posts` are all shards' addresses by number, its own included.
    pub fn new(
        mut driver: D,
        handler: H,
        settings: Settings,
        mut mailbox: Mailbox<H::Letter>,
        posts: Vec<Post<H::Letter>>,
    ) -> io::Result<Self> {
        let mut completions = Vec::with_capacity(TURN_COMPLETIONS_MAX);
        let now = driver.poll(Wait::No, TURN_COMPLETIONS_MAX, &mut completions)?;
        mailbox.attach(driver.waker(), D::GATHERS_SENDS);
        let max = settings.connections_max;
        let core = Core {
            driver,
            now,
            table: Slab::new(max),
            wheel: Wheel::new(max, now.monotonic_ms),
            pool: BlockPool::new(settings.pool_bytes_max),
            pool_reserve: settings.pool_bytes_max / POOL_RESERVE_DIVISOR * 2,
            helds: Slab::new(max),
            transforms: Slab::new(max),
            outboxes: Slab::new(max),
            segments: Slab::new(SEGMENTS_MAX),
            payloads: Payloads::default(),
            shed_next: 0,
            listeners: Vec::new(),
            guests: 0,
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            costly: VecDeque::new(),
            costly_left: TURN_COSTLY_MAX,
            unpack_left: TURN_UNPACK_BYTES_MAX,
            shared: Default::default(),
            receives_in_flight: 0,
            dirty: VecDeque::new(),
            ending: VecDeque::new(),
            mailbox,
            mailer: Mailer::new(posts),
            totals: Totals::default(),
            settings,
        };
        Ok(Self { core, handler, completions, wait: Wait::No })
    }

    /// One turn. It first waits as the last one left it: not at all while there is work, else until the next tick that
    /// has a deadline, a completion or a letter.
    pub fn turn(&mut self) -> io::Result<()> {
        self.core.unpack_left = TURN_UNPACK_BYTES_MAX;
        self.reap()?;
        self.expire();
        self.drain_mail();
        let jobs = self.handler.run_jobs(&mut self.core);
        self.read_ready();
        self.handler.on_turn_end(&mut self.core);
        self.core.relieve();
        self.end_connections();
        self.admit_waiting();
        self.core.mailer.post_all();
        self.core.flush_all();
        let untold = self.tell_others()?;
        self.wait = self.core.how_long(jobs.or(untold), self.handler.next_job_ms());
        Ok(())
    }

    fn tell_others(&mut self) -> io::Result<MoreWork> {
        if !self.handler.has_to_tell() {
            return Ok(MoreWork::No);
        }
        self.core.driver.flush()?;
        Ok(self.handler.tell_others())
    }

    /// Whether the next turn has work that is not the driver's, and so will not wait. For a loop that runs several
    /// shards on one thread, as the simulator's does.
    pub fn has_work(&self) -> bool {
        self.wait == Wait::No || self.core.has_queued()
    }

    /// Submits, waits, and handles what completed.
    fn reap(&mut self) -> io::Result<()> {
        let mut completions = core::mem::take(&mut self.completions);
        // Somebody may have used the core between two turns.
        let wait = if self.has_work() { Wait::No } else { self.wait };
        // Who goes on at once reads the clock in a moment; only who is about to wait reads it for this.
        let ended = if wait == Wait::No { None } else { self.core.driver.clock() };
        let polled = self.core.driver.poll(wait, TURN_COMPLETIONS_MAX, &mut completions);
        if let Some(ended) = ended.or(polled.as_ref().ok().copied().filter(|_| wait == Wait::No)) {
            self.core.totals.turn_took(ended.monotonic_ms.saturating_sub(self.core.now.monotonic_ms));
        }
        self.core.mailbox.awake();
        self.core.totals.turns += 1;
        if let Ok(now) = polled {
            self.core.now = now;
        }
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        polled.map(drop)
    }

    fn expire(&mut self) {
        let (now_ms, mut visits_left) = (self.core.now.monotonic_ms, TURN_EXPIRIES_MAX);
        while let Some(index) = self.core.wheel.next_expired(now_ms, &mut visits_left) {
            self.on_deadline(index);
        }
    }

    fn drain_mail(&mut self) {
        for _ in 0..TURN_MAIL_MAX {
            if !self.handler.takes_letters() {
                break;
            }
            let Some(letter) = self.core.mailbox.take() else { break };
            self.core.totals.letters += 1;
            self.handler.on_letter(&mut self.core, letter);
        }
    }

    /// Routes a completion to its connection. One whose connection is gone is counted, and gives back what it holds.
    pub(super) fn complete(&mut self, completion: Completion) {
        let Completion { token, outcome } = completion;
        let Some((purpose, id)) = parse(token) else { return self.stale(outcome) };
        if purpose == Purpose::Accept {
            return match outcome {
                Outcome::Accepted { socket, peer } => self.on_accepted(id.index, socket, peer),
                Outcome::AcceptEnded(error) => self.core.accept_ended(id.index, error),
                other => unreachable!("an accept never completes with {other:?}"),
            };
        }
        if self.core.table.get(key(id)).is_none() {
            return self.stale(outcome);
        }
        self.complete_connection(id, outcome);
    }

    fn complete_connection(&mut self, id: ConnectionId, outcome: Outcome) {
        match outcome {
            Outcome::Ready => self.core.on_ready(id),
            Outcome::WatchEnded => self.core.on_watch_ended(id),
            Outcome::Received { block, count, more } => self.on_received(id, block, count, more),
            Outcome::ReceiveFailed { block, error } => self.on_receive_failed(id, block, &error),
            Outcome::Sent { segment, count } => self.on_sent(id, segment, count),
            Outcome::SendFailed { segment, error } => self.core.on_send_failed(id, segment, &error),
            Outcome::ShutDone => self.core.on_shut_done(id),
            Outcome::Connected(socket) => self.on_connect_ended(id, Ok(socket)),
            Outcome::ConnectFailed(error) => self.on_connect_ended(id, Err(error)),
            Outcome::Installed(slot) => self.on_installed(id, slot),
            Outcome::InstallFailed { socket, error } => {
                drop(socket);
                self.on_install_failed(id, error);
            }
            Outcome::Accepted { .. } | Outcome::AcceptEnded(_) => unreachable!("only an accept accepts"),
        }
    }

    /// A completion nobody waits for any more.
    fn stale(&mut self, outcome: Outcome) {
        self.core.totals.stale_completions += 1;
        match outcome {
            Outcome::Received { block, .. } | Outcome::ReceiveFailed { block, .. } => self.core.pool.give(block),
            Outcome::Sent { segment, .. } | Outcome::SendFailed { segment, .. } => self.core.give_segment(segment),
            Outcome::Installed(slot) => self.core.driver.close(slot),
            _ => {}
        }
    }
}

impl Totals {
    #[inline]
    fn turn_took(&mut self, ms: u64) {
        let class = TURN_MS.iter().position(|&most| ms <= most).unwrap_or(TURN_MS.len());
        self.turns_by_ms[class] += 1;
        self.turns_ms += ms;
    }
}

impl<D: Driver, L, T: Transform> Core<D, L, T> {
    /// Whether connections wait for something that this shard can do at once.
    fn has_queued(&self) -> bool {
        let reads = !self.starved.is_empty() && self.can_receive()
            || !self.ready.is_empty() && self.receives_in_flight < RECEIVES_IN_FLIGHT_MAX
            || !self.costly.is_empty();
        reads || !self.dirty.is_empty() || !self.ending.is_empty()
    }

    /// How long the next turn may wait. When it may, senders have been told to wake it.
    fn how_long(&mut self, jobs: MoreWork, next_job_ms: Option<u64>) -> Wait {
        if jobs == MoreWork::Yes || self.has_queued() || !self.mailbox.is_empty() {
            return Wait::No;
        }
        let mut until_ms = self.now.deadline(SLEEP_MAX);
        let wakes = [
            self.wheel.next_wake(),
            self.accept_retry_ms(),
            next_job_ms,
            (self.mailer.waiting() > 0).then(|| self.now.deadline(MAIL_RETRY)),
        ];
        for wake_ms in wakes.into_iter().flatten() {
            until_ms = until_ms.min(wake_ms);
        }
        if until_ms <= self.now.monotonic_ms || !self.mailbox.may_sleep() {
            return Wait::No;
        }
        self.pool.trim(self.now.monotonic_ms);
        Wait::Until(until_ms)
    }
}
