//! Completions that wait to be reaped: in order within a lane (a slot, a listener, a single op), in any order across.

use crate::io::Completion;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// Whose completions keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LaneKey {
    Slot(u32),
    Listener(u32),
    /// A connect or an install: alone in its lane.
    Op(u64),
}

/// What a completion's delivery ends, for the in-flight accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Nothing,
    Ready { slot: u32 },
    Watch { slot: u32 },
    Receive { slot: u32 },
    Send { slot: u32 },
    Shutdown { slot: u32 },
    Accept { listener: u32 },
}

/// A completion that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub at_ms: u64,
    pub completion: Completion,
    pub ends: Ends,
}

/// All of one driver's.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<LaneKey, VecDeque<Pending>>,
    heads: BinaryHeap<Reverse<(u64, u64, LaneKey)>>,
    waiting: usize,
}

impl Lanes {
    /// Queues a completion. Among lanes due at the same time the lower `tie` comes first.
    pub fn push(&mut self, key: LaneKey, mut pending: Pending, tie: u64) {
        let lane = self.lanes.entry(key).or_default();
        if let Some(last) = lane.back() {
            pending.at_ms = pending.at_ms.max(last.at_ms);
        } else {
            self.heads.push(Reverse((pending.at_ms, tie, key)));
        }
        lane.push_back(pending);
        self.waiting += 1;
    }

    /// Takes the next completion due by `now_ms`; `tie` places the one behind it.
    pub fn pop(&mut self, now_ms: u64, tie: u64) -> Option<Pending> {
        let &Reverse((at_ms, _, key)) = self.heads.peek()?;
        if at_ms > now_ms {
            return None;
        }
        self.heads.pop();
        let lane = self.lanes.get_mut(&key).expect("a head names a lane");
        let pending = lane.pop_front().expect("a head's lane is not empty");
        match lane.front() {
            Some(next) => self.heads.push(Reverse((next.at_ms, tie, key))),
            None => drop(self.lanes.remove(&key)),
        }
        self.waiting -= 1;
        Some(pending)
    }

    /// When the next completion is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.heads.peek().map(|&Reverse((at_ms, ..))| at_ms)
    }

    /// Completions waiting.
    pub fn len(&self) -> usize {
        self.waiting
    }
}
