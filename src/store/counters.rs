//! What the log counts, readable from any thread. The log publishes once per commit, so requests pay nothing for it.

use super::{StoreFault, Usage};
use crate::base::clock::Now;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;

/// A snapshot. Its parts are read one by one, so they may be of neighbouring commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Groups written.
    pub commits: u64,
    /// Entries written.
    pub entries: u64,
    /// Record changes written.
    pub records: u64,
    /// Payload bytes of the entries written, and bytes of the record changes.
    pub bytes: u64,
    /// Appends answered with an earlier outcome.
    pub duplicates: u64,
    /// Appends refused because their key stands for another body.
    pub key_conflicts: u64,
    /// Requests answered `Failed`.
    pub failures: u64,
    /// Requests waiting to be committed.
    pub queue_depth: u64,
    /// The log's last commit number.
    pub seq: u64,
    /// The store failed, and the log writes no more.
    pub poisoned: bool,
    /// What the store holds and has dropped.
    pub store: Usage,
}

const WORDS: usize = 17;

impl Stats {
    fn to_words(self) -> [u64; WORDS] {
        let store = self.store;
        [
            self.commits,
            self.entries,
            self.records,
            self.bytes,
            self.duplicates,
            self.key_conflicts,
            self.failures,
            self.queue_depth,
            self.seq,
            u64::from(self.poisoned),
            store.streams,
            store.entries,
            store.records,
            store.bytes,
            store.keys,
            store.trimmed,
            store.keys_dropped,
        ]
    }

    fn from_words(words: [u64; WORDS]) -> Self {
        let [commits, entries, records, bytes, duplicates, key_conflicts, failures, queue_depth, seq, poisoned, ..] =
            words;
        let [.., streams, held_entries, held_records, held_bytes, keys, trimmed, keys_dropped] = words;
        Self {
            commits,
            entries,
            records,
            bytes,
            duplicates,
            key_conflicts,
            failures,
            queue_depth,
            seq,
            poisoned: poisoned != 0,
            store: Usage {
                streams,
                entries: held_entries,
                records: held_records,
                bytes: held_bytes,
                keys,
                trimmed,
                keys_dropped,
            },
        }
    }
}

/// Where the log leaves its figures. One writer: the log.
#[derive(Debug, Default)]
pub struct Counters {
    words: [AtomicU64; WORDS],
    fault: OnceLock<StoreFault>,
    /// When the commit under way began, in milliseconds of the monotonic clock, plus one; 0: none is.
    commit_began: AtomicU64,
    /// What commits have taken together, milliseconds.
    commits_ms: AtomicU64,
}

impl Counters {
    /// What was published last.
    pub fn stats(&self) -> Stats {
        Stats::from_words(core::array::from_fn(|word| self.words[word].load(Ordering::Relaxed)))
    }

    /// Why the store failed first; none while it never did.
    pub fn fault(&self) -> Option<&StoreFault> {
        self.fault.get()
    }

    /// When the commit under way began; none when none is.
    pub fn commit_began_ms(&self) -> Option<u64> {
        self.commit_began.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(super) fn commit_begins(&self, now: Now) {
        self.commit_began.store(now.monotonic_ms.saturating_add(1), Ordering::Relaxed);
    }

    /// What commits have taken together, in milliseconds.
    pub fn commits_ms(&self) -> u64 {
        self.commits_ms.load(Ordering::Relaxed)
    }

    pub(super) fn commits_took(&self, ms: u64) {
        self.commits_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn commit_ends(&self) {
        self.commit_began.store(0, Ordering::Relaxed);
    }

    pub(super) fn publish(&self, stats: Stats) {
        for (word, value) in self.words.iter().zip(stats.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn failed(&self, fault: StoreFault) {
        // Only the first reason tells what began it; later ones follow from it.
        self.fault.get_or_init(|| fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_comes_back_in_its_own_place() {
        let words: [u64; WORDS] = core::array::from_fn(|word| if word == 9 { 1 } else { word as u64 + 100 });
        let stats = Stats::from_words(words);
        assert_eq!(stats.to_words(), words);
        assert_eq!((stats.seq, stats.poisoned, stats.store.keys_dropped), (108, true, 116));
        let counters = Counters::default();
        counters.publish(stats);
        assert_eq!(counters.stats(), stats);
    }
}
