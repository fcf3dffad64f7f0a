//! The control plane's threads give way to shards at work.
//!
//! The kernel lets who wakes go first. A thread that wakes for each batch of pushes, beside a shard that is about to send
//! the ones before, would take its CPU every 16 messages: two switches each, and two sets of caches that begin cold. What
//! has come stays in its socket meanwhile, and is taken together. A shard with nothing to do sleeps, and holds nobody up.
//!
//! Nor does a thread hand over all that has come while shards have enough to read: the memory of a hundred pushes, which is
//! used over and over, stays in the CPU's caches, and that of many hundreds does not.

use crate::limits::{CATCH_UP_MAX, GIVE_WAY_MAX, GIVE_WAY_WITHIN};
use crate::shard::Handle;
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

/// The shards, once there are some.
#[derive(Debug, Default)]
pub(super) struct GiveWay(OnceLock<Handle>);

impl GiveWay {
    /// Names the shards. Once.
    pub(super) fn to(&self, shards: Handle) {
        assert!(self.0.set(shards).is_ok(), "a node has one data plane");
    }

    /// For a thread that has just been woken: shards at work go first, where they share its CPU. Where they have others,
    /// it costs a microsecond.
    pub(super) fn give_way(&self) {
        if let Some(shards) = self.0.get() {
            give_way_while(GIVE_WAY_MAX, || shards.is_at_work());
        }
    }
}

/// For who has handed pushes over and rung: shards with enough letters to read go first, where they share its CPU. Where
/// they have others, it costs some microseconds.
pub(super) fn let_catch_up(shards: &Handle) {
    give_way_while(CATCH_UP_MAX, || shards.has_enough_letters());
}

fn give_way_while(times_max: u32, should: impl Fn() -> bool) {
    let mut begun = None;
    let mut in_time = || begun.get_or_insert_with(Instant::now).elapsed() < GIVE_WAY_WITHIN;
    give_way(times_max, || should() && in_time(), thread::yield_now);
}

fn give_way(times_max: u32, mut should: impl FnMut() -> bool, mut yield_now: impl FnMut()) {
    let mut times = 0;
    while times < times_max && should() {
        yield_now();
        times += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn a_thread_gives_way_as_long_as_it_should_and_no_more_often_than_allowed() {
        for (works, given) in [(0, 0), (1, 1), (GIVE_WAY_MAX, GIVE_WAY_MAX), (u32::MAX, GIVE_WAY_MAX)] {
            let yielded = Cell::new(0);
            give_way(GIVE_WAY_MAX, || yielded.get() < works, || yielded.set(yielded.get() + 1));
            assert_eq!(yielded.get(), given);
        }
    }

    #[test]
    fn without_shards_nobody_is_waited_for() {
        GiveWay::default().give_way();
    }
}
