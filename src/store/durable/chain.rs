//! The numbers of the last commits, as far back as a commit may not have left the journal yet. At open they follow each
//! other without a hole, or the journal was damaged in its middle.
//!
//! All keys live in one keyspace, which fjall writes to its tables from memory in the order of commits; what is in a
//! table is no longer read from the journal. So a hole can only be among the commits of the tables in memory, and those
//! hold `STORE_MEMORY_TABLE_BYTES` each, at most five of them: writers wait from then on.

use super::draft::Draft;
use super::layout::{self, GROUP, State};
use crate::limits::{STORE_CHAIN_BYTES, STORE_CHAIN_PRUNED_MAX};
use std::collections::VecDeque;

/// Into how many parts the chain is cut; the oldest goes once the others cover enough.
const PARTS: u64 = 16;

/// Where the chain begins and how its bytes lie.
#[derive(Debug)]
pub(super) struct Chain {
    /// The oldest number kept.
    first: u64,
    /// The first number of each part, and the bytes written before it.
    parts: VecDeque<(u64, u64)>,
}

impl Chain {
    /// One that begins with this number.
    pub fn new(first: u64) -> Self {
        Self { first, parts: VecDeque::new() }
    }

    /// Goes on with what is there, in order.
    pub fn extend(&mut self, state: &State) {
        if self.parts.is_empty() {
            self.first = state.group;
        }
        self.note(state);
    }

    fn note(&mut self, state: &State) {
        let last = self.parts.back().map(|(_, bytes)| *bytes);
        if last.is_none_or(|last| state.written_bytes.saturating_sub(last) >= STORE_CHAIN_BYTES / PARTS) {
            self.parts.push_back((state.group, state.written_bytes));
        }
    }

    /// Notes a commit that is being made, and removes some of what is older than any journal's content.
    pub fn prune(&mut self, state: &State, draft: &mut Draft) {
        self.note(state);
        while self.parts.len() as u64 > PARTS + 2 {
            self.parts.pop_front();
        }
        let keep_from = self.parts.front().map_or(self.first, |(group, _)| *group);
        for _ in 0..STORE_CHAIN_PRUNED_MAX {
            if self.first >= keep_from {
                break;
            }
            draft.remove(&layout::numbered(GROUP, self.first));
            self.first += 1;
        }
    }
}
