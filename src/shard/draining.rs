//! The end of a shard: nobody new, everybody told at a bounded rate and in no order, what is known written down.
//!
//! ```text
//!   begun ──rate, more where the time would not do──► everybody told ──they are gone──► written down ──► drained
//!     └────────────────────────── cut: whoever is left ends with the process ──────────────┘
//! ```
//! Clients that all come back at once are the next node's flood: so closing is spread over time and taken from all over
//! the table. Closing costs the kernel some 15 µs a connection, which for a million is longer than most are given to stop:
//! so the rate rises as the time runs out, and what is left at its end is left to the kernel, which closes it with the
//! process. Positions are at most a second old then.

use super::command::Event;
use super::gateway::{Core, Gateway};
use super::settings::Limits;
use crate::base::ids::SessionId;
use crate::io::Driver;
use crate::limits::{DRAIN_GUESTS, TURN_EXPIRIES_MAX};
use crate::session::CloseReason;

/// How far a drain has come.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    /// Sessions whose connections are still to be closed.
    left: Vec<SessionId>,
    /// Connections a second; none: as many as there is time for in a turn.
    rate: Option<u64>,
    /// Thousandths of connections that may be closed now.
    credit: u64,
    last_ms: u64,
    /// From then on guests that have said nothing hold nobody up.
    guests_until_ms: u64,
    /// By then everybody should have been told; the rate rises for it.
    told_until_ms: u64,
    /// Whoever is left then is cut off.
    cut_ms: u64,
    /// Even what is being written is not waited for any longer.
    end_ms: u64,
    random: u64,
    /// It was said that it is over.
    pub(super) is_told: bool,
}

impl Draining {
    fn begin(&mut self, left: Vec<SessionId>, limits: &Limits, shards: u16, seed: u64, now_ms: u64) {
        let within_ms = u64::try_from(limits.drain_within.as_millis()).unwrap_or(u64::MAX / 8);
        let rate = limits.drain_rate.map(|rate| (rate as u64).div_ceil(u64::from(shards)).max(1));
        let guests_ms = u64::try_from(DRAIN_GUESTS.as_millis()).unwrap_or(u64::MAX);
        *self = Self {
            left,
            rate,
            credit: 0,
            last_ms: now_ms,
            guests_until_ms: now_ms + guests_ms,
            told_until_ms: now_ms + within_ms / 2,
            cut_ms: now_ms + within_ms / 10 * 9,
            end_ms: now_ms + within_ms,
            random: seed,
            is_told: false,
        };
    }

    /// How many may be closed now.
    fn due(&mut self, now_ms: u64) -> usize {
        let Some(rate) = self.rate else { return TURN_EXPIRIES_MAX };
        let (left, passed_ms) = (self.left.len() as u64, now_ms.saturating_sub(self.last_ms));
        self.last_ms = now_ms;
        let needed = left.saturating_mul(1_000) / self.told_until_ms.saturating_sub(now_ms).max(1);
        self.credit = self.credit.saturating_add(passed_ms.saturating_mul(rate.max(needed))).min(left * 1_000);
        // Not all at once: two nodes that stop together do not go in step.
        let whole = self.credit / 1_000;
        let count = (whole - self.draw(whole / 2 + 1)).min(TURN_EXPIRIES_MAX as u64);
        self.credit -= count * 1_000;
        usize::try_from(count).expect("a turn's share is small")
    }

    /// One of those that are left.
    fn take(&mut self) -> Option<SessionId> {
        if self.left.is_empty() {
            return None;
        }
        let place = self.draw(self.left.len() as u64);
        Some(self.left.swap_remove(usize::try_from(place).expect("it is below a length")))
    }

    /// A number below `end` (splitmix64).
    fn draw(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}

impl Gateway {
    /// Stops accepting; connections are closed a share at a time.
    pub(super) fn on_drain<D: Driver>(&mut self, core: &mut Core<D>) {
        if self.draining {
            return;
        }
        self.draining = true;
        core.stop_listening_all();
        let left = self.directory.iter().filter(|(_, session)| session.connection().is_some());
        let left = left.map(|(id, _)| id).collect();
        let seed = self.settings.random_seed ^ u64::from(self.shard.0) << 32;
        self.drain.begin(left, &self.settings.limits, self.settings.shards, seed, core.now().monotonic_ms);
    }

    /// Closes some of those that are left; says so once when nobody is. True: there are more to be closed in this
    /// moment.
    pub(super) fn drain_some<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        if !self.draining || self.drain.is_told {
            return false;
        }
        let now_ms = core.now().monotonic_ms;
        for _ in 0..self.drain.due(now_ms) {
            let Some(id) = self.drain.take() else { break };
            self.end_connection(core, id, CloseReason::Draining);
        }
        let counts = core.counts();
        let guests_only = counts.connections == counts.guests && now_ms >= self.drain.guests_until_ms;
        let are_gone = self.drain.left.is_empty() && (counts.connections == 0 || guests_only);
        let is_written = self.unwritten.is_empty() && self.log.outstanding() == 0 && self.turning.held() == 0;
        let is_cut = now_ms >= self.drain.cut_ms;
        if (are_gone || is_cut) && is_written || now_ms >= self.drain.end_ms {
            self.drain.is_told = true;
            self.counters.drain_cut += (counts.connections - counts.guests) as u64;
            let cut = u64::try_from(counts.connections - counts.guests).unwrap_or(u64::MAX);
            self.tell(Event::Drained { shard: self.shard.0, cut });
        }
        self.drain.rate.is_none() && !self.drain.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn draining(count: u32, rate: Option<usize>) -> Draining {
        let limits = Limits { drain_rate: rate, drain_within: Duration::from_secs(20), ..Limits::default() };
        let mut draining = Draining::default();
        let left = (0..count).map(|index| SessionId { index, generation: 0 }).collect();
        draining.begin(left, &limits, 2, 7, 1_000);
        draining
    }

    /// Closes as it may, every 5 ms; how many in each second.
    fn seconds(draining: &mut Draining) -> Vec<usize> {
        let mut counts = vec![0; 20];
        for now_ms in (1_000..21_000).step_by(5) {
            let due = draining.due(now_ms);
            let closed = (0..due).filter(|_| draining.take().is_some()).count();
            counts[(now_ms as usize - 1_000) / 1_000] += closed;
        }
        counts
    }

    #[test]
    fn connections_are_closed_at_the_rate_of_the_shards_share() {
        let mut draining = draining(5_000, Some(2_000));
        let counts = seconds(&mut draining);
        assert!(counts[..4].iter().all(|count| (980..=1_020).contains(count)), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 5_000);
    }

    #[test]
    fn the_rate_rises_where_the_time_would_not_do() {
        let mut draining = draining(100_000, Some(2_000));
        let counts = seconds(&mut draining);
        assert!(counts[..10].iter().sum::<usize>() >= 99_000, "half of the time is enough for all: {counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 100_000);
    }

    #[test]
    fn each_is_closed_once_and_neighbours_do_not_follow_each_other() {
        let mut draining = draining(1_000, None);
        assert_eq!(draining.due(1_000), TURN_EXPIRIES_MAX);
        let order: Vec<u32> = core::iter::from_fn(|| draining.take()).map(|id| id.index).collect();
        let neighbours = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(neighbours < 20, "{neighbours} of 1000");
        let mut all = order;
        all.sort_unstable();
        assert_eq!(all, (0..1_000).collect::<Vec<_>>());
    }
}
