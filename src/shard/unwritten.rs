//! Sessions whose record has a lazily written change, in the batches in which they are written: a list of all of them would
//! be moved as it grows, and after a message to everyone it is as long as there are sessions.

use crate::base::ids::SessionId;
use crate::limits::{CURSOR_WRITE_DELAY, LAZY_WRITES_UNDER_WAY_MAX, TURN_LAZY_WRITES_MAX};
use std::collections::VecDeque;

/// See the module. Each session is in it at most once, which its own mark sees to.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Of up to `TURN_LAZY_WRITES_MAX` each; none is empty.
    batches: VecDeque<Vec<SessionId>>,
    /// Those at the front that are due. They grow no more.
    due: usize,
    /// The others are, from this on: since when there are any.
    since_ms: u64,
    /// Written, and not answered by the log.
    under_way: usize,
}

impl Unwritten {
    /// Sessions that wait.
    pub(super) fn len(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn push(&mut self, session: SessionId, now_ms: u64) {
        if self.batches.is_empty() {
            self.since_ms = now_ms;
        }
        let is_due = self.due == self.batches.len();
        match self.batches.back_mut().filter(|last| !is_due && last.len() < TURN_LAZY_WRITES_MAX) {
            Some(last) => last.push(session),
            None => self.batches.push_back(vec![session]),
        }
    }

    /// When [`Unwritten::take`] has something; none: not before the log has answered, or something has changed.
    pub(super) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let waits = !self.batches.is_empty() && self.under_way < LAZY_WRITES_UNDER_WAY_MAX;
        waits.then_some(if self.due > 0 { now_ms } else { self.since_ms + DELAY_MS })
    }

    /// A batch that is due; `at_once`: or would be.
    pub(super) fn take(&mut self, now_ms: u64, at_once: bool) -> Option<Vec<SessionId>> {
        if self.batches.is_empty() || self.under_way >= LAZY_WRITES_UNDER_WAY_MAX {
            return None;
        }
        if self.due == 0 {
            if now_ms < self.since_ms + DELAY_MS && !at_once {
                return None;
            }
            // Those that come while these are written have their own second.
            (self.due, self.since_ms) = (self.batches.len(), now_ms);
        }
        self.due -= 1;
        self.batches.pop_front()
    }

    /// A batch has gone to the log.
    pub(super) fn begun(&mut self) {
        self.under_way += 1;
    }

    /// The log has answered one.
    pub(super) fn ended(&mut self) {
        self.under_way -= 1;
    }
}

const DELAY_MS: u64 = CURSOR_WRITE_DELAY.as_millis() as u64;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SessionId {
        SessionId { index, generation: 0 }
    }

    fn of(count: u32, now_ms: u64) -> Unwritten {
        let mut all = Unwritten::default();
        (0..count).for_each(|index| all.push(id(index), now_ms));
        all
    }

    #[test]
    fn what_comes_while_others_are_written_has_its_own_second() {
        let mut all = of(3, 100);
        assert_eq!((all.next_ms(100), all.take(100 + DELAY_MS - 1, false)), (Some(100 + DELAY_MS), None));
        let more = TURN_LAZY_WRITES_MAX as u32;
        (3..more + 1).for_each(|index| all.push(id(index), 500));
        let now_ms = 100 + DELAY_MS;
        assert_eq!(all.take(now_ms, false).map(|batch| batch.len()), Some(TURN_LAZY_WRITES_MAX));
        all.push(id(more + 1), now_ms + 1);
        assert_eq!((all.len(), all.next_ms(now_ms)), (2, Some(now_ms)), "the second batch is due, and is not added to");
        assert_eq!(all.take(now_ms, false), Some(vec![id(more)]));
        assert_eq!((all.take(now_ms, false), all.next_ms(now_ms)), (None, Some(now_ms + DELAY_MS)));
        assert_eq!(all.take(now_ms, true), Some(vec![id(more + 1)]));
        assert!(all.is_empty() && all.next_ms(now_ms).is_none());
    }

    #[test]
    fn so_many_are_under_way_and_the_others_wait_for_the_log() {
        let mut all = of((TURN_LAZY_WRITES_MAX * LAZY_WRITES_UNDER_WAY_MAX) as u32 + 1, 0);
        for _ in 0..LAZY_WRITES_UNDER_WAY_MAX {
            assert!(all.take(DELAY_MS, false).is_some());
            all.begun();
        }
        assert_eq!((all.len(), all.take(DELAY_MS, true), all.next_ms(DELAY_MS)), (1, None, None));
        all.ended();
        assert_eq!(all.take(DELAY_MS, false).map(|batch| batch.len()), Some(1));
    }
}
