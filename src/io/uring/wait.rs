//! Reaping, waiting, and letting go.

use super::UringDriver;
use super::ring::{ReapBuffer, RingWait};
use super::ring_set::RingSet;
use super::slots::{Kind, UserData};
use crate::io::epoll::sys;
use crate::io::{Completion, Wait};
use crate::limits::{
    BATCHED_WAIT, BATCHED_WAIT_ARRIVALS_MIN, BATCHED_WAIT_ARRIVALS_PER_STEP_MIN, BATCHED_WAIT_WANT_MAX,
    RING_DROP_PATIENCE,
};
use io_uring::{opcode, types};
use std::io;
use std::time::{Duration, Instant};

/// Entries into one ring for one poll. Each brings 20 completions or more where that many are there, so this covers
/// a turn's bound; what is left after it waits for the next turn.
const ENTRIES_PER_POLL_MAX: usize = 256;

impl UringDriver {
    /// Completions until `into` has `limit`, after a wait if there are none.
    pub(super) fn take_completions(&mut self, wait: Wait, limit: usize, into: &mut Vec<Completion>) -> io::Result<()> {
        let start = into.len();
        let deadline = match wait {
            Wait::No => None,
            Wait::Until(deadline) => Some(deadline),
        };
        // With nothing to be answered at once, the wait itself submits what is queued: one system call, not two.
        if self.answers_at_once || deadline.is_none() {
            self.enter_all()?;
        }
        self.reap_all(limit, into)?;
        let mut deadline = deadline.filter(|_| limit > start);
        while into.len() == start
            && let Some(until) = deadline
        {
            let slept = if self.wake.fall_asleep() { self.sleep(until) } else { self.enter_all() };
            let woken = self.wake.awaken();
            slept?;
            self.reap_all(limit, into)?;
            // What ended the wait may have been of no interest to the caller: the end of a close, a slot ring's signal.
            deadline = deadline.filter(|_| !woken && sys::now().monotonic_ms < until);
        }
        self.wake.awaken();
        Ok(())
    }

    /// Submits what is queued, in every ring.
    pub(super) fn enter_all(&mut self) -> io::Result<()> {
        self.answers_at_once = false;
        self.flush_installs();
        self.enter_each(self.lively)
    }

    fn enter_each(&mut self, rings: RingSet) -> io::Result<()> {
        for ring in rings.starting_at(0) {
            if self.rings[ring].needs_enter() {
                self.rings[ring].enter()?;
            }
        }
        Ok(())
    }

    /// Reaps every ring that may have something; each in its turn is the first, so that none is starved by the bound.
    fn reap_all(&mut self, limit: usize, into: &mut Vec<Completion>) -> io::Result<()> {
        let mut chunk = ReapBuffer::new();
        let first = self.first_ring;
        self.first_ring = (first + 1) % self.rings.len();
        let due = self.lively;
        for ring in due.starting_at(first) {
            self.reap_ring(ring, limit, into, &mut chunk)?;
        }
        // Those whose signals came with the main ring's completions.
        for ring in self.lively.without(due).starting_at(first) {
            self.reap_ring(ring, limit, into, &mut chunk)?;
        }
        if !self.installing.is_empty() && !self.dropping {
            // A batch did not fit; its rest goes on at once, into another table.
            self.enter_all()?;
        }
        let room = limit.saturating_sub(into.len()).min(self.ready.len());
        into.extend(self.ready.drain(..room));
        Ok(())
    }

    fn reap_ring(
        &mut self,
        ring: usize,
        limit: usize,
        into: &mut Vec<Completion>,
        chunk: &mut ReapBuffer,
    ) -> io::Result<()> {
        for entries in 0..ENTRIES_PER_POLL_MAX {
            let mut found = false;
            while into.len() < limit {
                let completions = self.rings[ring].reap(limit - into.len(), chunk);
                if completions.is_empty() {
                    break;
                }
                found = true;
                for completion in completions {
                    self.on_completion(completion, into);
                }
            }
            // An entry that gave nothing: the kernel says that there is work, but there is none. It marks the ring
            // behind adding the work, which may be done by then, and the mark stays until there is more.
            let in_vain = entries > 0 && !found;
            if into.len() >= limit || in_vain || !self.rings[ring].has_news() {
                break;
            }
            self.rings[ring].enter()?;
        }
        // The mark counts here, wrong as it may be: of work that is left over the signal would not say anything.
        let ring_left = &mut self.rings[ring];
        if ring_left.is_armed() && !ring_left.needs_enter() && !ring_left.has_completions() {
            self.lively.remove(ring);
        }
        Ok(())
    }

    /// Waits on the main ring, for it and all slot rings.
    fn sleep(&mut self, deadline: u64) -> io::Result<()> {
        self.flush_installs();
        self.enter_each(self.lively.without(RingSet::of(0)))?;
        let timeout_ms = deadline.saturating_sub(sys::now().monotonic_ms);
        if timeout_ms == 0 || !self.arm_signals()? || !self.ready.is_empty() {
            return self.enter_all();
        }
        let timeout = Duration::from_millis(timeout_ms);
        let (arrivals, steps) = (std::mem::take(&mut self.arrivals), std::mem::take(&mut self.steps));
        let busy = is_busy(arrivals, steps) && self.rings[0].batches_waits();
        let wait = if busy {
            RingWait { want: arrivals.min(BATCHED_WAIT_WANT_MAX), batch: BATCHED_WAIT.min(timeout), timeout }
        } else {
            RingWait { want: 1, batch: Duration::ZERO, timeout }
        };
        self.rings[0].enter_and_wait(wait)
    }

    /// Makes sure that each slot ring's next completion ends the wait. False: there are some already.
    ///
    /// What a ring has for us before its signal is cleared is had by the entry that follows; what comes afterwards is in
    /// the signal when its poll is armed. So nothing falls between, and a ring's mark, which may be wrong (see
    /// [`Self::reap_ring`]), does not count.
    fn arm_signals(&mut self) -> io::Result<bool> {
        let mut quiet = true;
        let (main, slot_rings) = self.rings.split_first_mut().expect("there is a main ring");
        for position in self.lively.without(RingSet::of(0)).starting_at(0) {
            let ring = &mut slot_rings[position - 1];
            let signal = ring.signal.as_mut().expect("slot rings signal");
            if !signal.armed {
                signal.armed = true;
                signal.clear();
                main.push_plain(signal.poll_entry(UserData::of_index(Kind::RingSignal, position)));
                if ring.needs_enter() {
                    ring.enter()?;
                }
            }
            quiet &= !ring.has_completions();
        }
        Ok(quiet)
    }
}

/// Whether a wait after a turn with so much holds out for more than the first arrival.
fn is_busy(arrivals: usize, steps: usize) -> bool {
    arrivals >= BATCHED_WAIT_ARRIVALS_MIN.max(steps.saturating_mul(BATCHED_WAIT_ARRIVALS_PER_STEP_MIN))
}

impl Drop for UringDriver {
    /// Ends everything and waits until the kernel has let go of all memory. What it still holds after
    /// [`RING_DROP_PATIENCE`] is leaked, since freeing it would be unsound.
    fn drop(&mut self) {
        self.dropping = true;
        let start = Instant::now();
        let mut forgotten = Vec::new();
        for ring in &mut self.rings {
            let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
            ring.push_plain(entry.user_data(UserData::of_index(Kind::CancelAll, 0).bits()));
        }
        while !self.is_at_rest() && start.elapsed() < RING_DROP_PATIENCE {
            let short = RingWait { want: 1, batch: Duration::ZERO, timeout: Duration::from_millis(1) };
            self.lively = RingSet::all(self.rings.len());
            for ring in &mut self.rings {
                // An error shows again as the end of patience.
                let _ = ring.enter_and_wait(short);
            }
            if self.reap_all(usize::MAX, &mut forgotten).is_err() {
                break;
            }
            forgotten.clear();
        }
        if !self.is_at_rest() {
            std::mem::forget(std::mem::take(&mut self.flights));
            std::mem::forget(std::mem::take(&mut self.batches));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Driver, Op, Outcome, Socket, Token};
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    /// A peer on another CPU adds work while the ring's is being done, and then no more for a while: some marks come
    /// behind the work and stay.
    #[test]
    fn a_mark_without_work_costs_an_entry_and_not_all_that_a_poll_may_have() {
        const PAIRS: u64 = 16;
        const ROUNDS: u64 = 30_000;
        let mut driver = UringDriver::new().expect("there is io_uring");
        let (mut ours, mut theirs, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..PAIRS {
            let (here, there) = UnixStream::pair().expect("there are fds");
            let slot = driver.attach(Socket::from(OwnedFd::from(here.try_clone().expect("there are fds"))));
            driver.submit(Op::Watch { slot, token: Token(number) });
            slots.push(slot);
            ours.push(here);
            theirs.push(there);
        }
        let heard = Arc::new(AtomicU64::new(0));
        let peer = thread::spawn({
            let heard = Arc::clone(&heard);
            move || {
                for round in 1..=ROUNDS {
                    theirs.iter_mut().for_each(|peer| peer.write_all(b"x").expect("it is open"));
                    while heard.load(Ordering::Acquire) < round * PAIRS {
                        thread::yield_now();
                    }
                }
            }
        });
        let (mut found, mut in_vain_max) = (Vec::new(), 0);
        while heard.load(Ordering::Relaxed) < ROUNDS * PAIRS {
            let before = driver.rings[0].entries;
            driver.poll(Wait::Until(sys::now().monotonic_ms + 20_000), 64, &mut found).expect("it polls");
            let entries = driver.rings[0].entries - before;
            in_vain_max = in_vain_max.max(entries.saturating_sub(found.len() as u64));
            for completion in found.drain(..) {
                ours[completion.token.0 as usize].read_exact(&mut [0]).expect("it was said to be readable");
                heard.fetch_add(1, Ordering::Release);
            }
        }
        peer.join().expect("the peer failed");
        (0..).zip(slots).for_each(|(number, slot)| driver.submit(Op::Unwatch { slot, token: Token(number) }));
        assert!(in_vain_max <= 4, "{in_vain_max} entries of one poll gave nothing");
    }

    /// Polls until there are `count` completions.
    fn completions(driver: &mut UringDriver, wait: Wait, count: usize) -> Vec<Completion> {
        let (start, mut found) = (Instant::now(), Vec::new());
        while found.len() < count {
            driver.poll(wait, 64, &mut found).expect("it polls");
            assert!(start.elapsed() < Duration::from_secs(20), "only {found:?}");
        }
        found
    }

    #[test]
    fn a_poll_looks_only_at_rings_that_may_have_something() {
        const SOCKETS: u64 = 16;
        let mut driver = UringDriver::with_table_slots(2).expect("there is io_uring");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for number in 0..SOCKETS {
            let (here, there) = UnixStream::pair().expect("there are fds");
            let socket = Socket::from(OwnedFd::from(here.try_clone().expect("there are fds")));
            driver.submit(Op::Install { socket, token: Token(number) });
            ours.push(here);
            theirs.push(there);
        }
        let later = || Wait::Until(sys::now().monotonic_ms + 20_000);
        let mut slots = vec![None; SOCKETS as usize];
        for installed in completions(&mut driver, later(), SOCKETS as usize) {
            let Outcome::Installed(slot) = installed.outcome else { panic!("{installed:?}") };
            slots[installed.token.0 as usize] = Some(slot);
            driver.submit(Op::Watch { slot, token: installed.token });
        }
        assert_eq!((driver.rings.len(), driver.roomy), (8, RingSet::EMPTY));
        let mut nothing = Vec::new();
        for wait in [Wait::No, Wait::Until(sys::now().monotonic_ms + 30)] {
            driver.poll(wait, 64, &mut nothing).expect("it polls");
        }
        assert_eq!((driver.lively, nothing.len()), (RingSet::of(0), 0), "after a wait all others are armed");
        // What comes is heard awake and asleep, from rings that are armed and such as are not.
        for round in 0..SOCKETS * 4 {
            let (number, wait) = (round % SOCKETS, if round % 3 == 0 { Wait::No } else { later() });
            theirs[number as usize].write_all(b"x").expect("it is open");
            let heard = completions(&mut driver, wait, 1);
            assert!(matches!(heard[..], [Completion { token, outcome: Outcome::Ready }] if token.0 == number));
            ours[number as usize].read_exact(&mut [0]).expect("it was said to be readable");
            if round % 2 == 0 {
                driver.poll(Wait::Until(sys::now().monotonic_ms + 2), 64, &mut nothing).expect("it polls");
                assert_eq!((driver.lively, nothing.len()), (RingSet::of(0), 0));
            }
        }
        // Many at once, also awake.
        for round in 0..200 {
            theirs.iter_mut().for_each(|peer| peer.write_all(b"x").expect("it is open"));
            let wait = if round % 2 == 0 { Wait::No } else { later() };
            for heard in completions(&mut driver, wait, SOCKETS as usize) {
                ours[heard.token.0 as usize].read_exact(&mut [0]).expect("it was said to be readable");
            }
        }
        (0..).zip(&slots).for_each(|(number, slot)| {
            driver.submit(Op::Unwatch { slot: slot.expect("it was installed"), token: Token(number) });
        });
        let ended = completions(&mut driver, later(), SOCKETS as usize);
        assert!(ended.iter().all(|ended| matches!(ended.outcome, Outcome::WatchEnded)), "{ended:?}");
        slots.iter().flatten().for_each(|&slot| driver.close(slot));
        while driver.roomy != RingSet::all(8) {
            driver.poll(Wait::Until(sys::now().monotonic_ms + 10), 64, &mut nothing).expect("it polls");
        }
    }

    #[test]
    fn a_wait_holds_out_after_many_arrivals_but_not_while_connections_come_in() {
        assert!(!is_busy(BATCHED_WAIT_ARRIVALS_MIN - 1, 0));
        assert!(is_busy(BATCHED_WAIT_ARRIVALS_MIN, 0));
        // Each connection is accepted, heard as a guest, and heard again once it is in.
        assert!(!is_busy(0, 1_000) && !is_busy(64, 128));
        // A few that come in among many who speak change nothing.
        assert!(is_busy(64, 8) && !is_busy(64, 9));
    }
}
