//! How shards and the control plane ask the log: mail that never blocks.

#[cfg(test)]
mod in_memory;

#[cfg(test)]
pub(crate) use in_memory::InMemory;

// What is asked and answered: the words of whoever has a handle.
pub use super::{Answer, Batch, Done, NewEntry, Request, RequestToken, StoreError};

use super::{Counters, Stats, StoreFault};
use crate::base::clock::Now;
use crate::base::ids::{Epoch, ShardId};
use crate::limits::COMMIT_STALL_MAX;
use crossbeam_channel::{Sender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

/// Who asked, and so who gets the `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A shard.
    Shard(ShardId),
    /// The control plane.
    Control,
}

/// What travels to the log thread.
#[derive(Debug)]
pub(super) enum Letter {
    Request { from: Address, token: RequestToken, request: Request },
    Stop,
}

/// Wakes the log thread, by a system call only if it sleeps. Dropped, it rings for the thread to see who is gone.
///
/// A channel would wake it for the first of several requests, and then it would give its CPU away again and again before it
/// sleeps: a shard that shares the CPU pays for each time.
#[derive(Clone, Debug, Default)]
pub(super) struct Bell(Arc<OnceLock<Thread>>);

impl Bell {
    /// From now on it wakes this thread.
    pub(super) fn wakes(&self, thread: Thread) {
        let is_first = self.0.set(thread).is_ok();
        assert!(is_first, "a log has one thread");
    }

    pub(super) fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

/// Any number of clones; when the last one is gone, the log thread answers what it has and ends.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) letters: Sender<Letter>,
    pub(super) counters: Arc<Counters>,
    pub(super) life: Epoch,
    /// Behind `letters`, and so dropped after them.
    pub(super) bell: Bell,
}

impl Handle {
    /// Queues a request; its `Done` comes as mail to `from`, after every shard has the batch it was committed in.
    /// Requests of one thread are committed in the order in which they were queued. A log thread that sleeps sees them
    /// when the next [`Handle::ring`] comes.
    ///
    /// # Errors
    /// The request comes back with `Busy` when `LOG_QUEUE_MAX` requests wait, and with `Failed` when the log thread has
    /// ended.
    // The request is large, and it is the caller's to keep for another try: that is what the error is for.
    #[allow(clippy::result_large_err)]
    pub fn try_submit(
        &self,
        from: Address,
        token: RequestToken,
        request: Request,
    ) -> Result<(), (Request, StoreError)> {
        let (letter, error) = match self.letters.try_send(Letter::Request { from, token, request }) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(letter)) => (letter, StoreError::Busy),
            Err(TrySendError::Disconnected(letter)) => (letter, StoreError::Failed),
        };
        match letter {
            Letter::Request { request, .. } => Err((request, error)),
            Letter::Stop => unreachable!("a request was sent, so a request comes back"),
        }
    }

    /// Has the log thread look at what was queued: once for all that belongs together, when there is no more of it.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// The life in which the log's commit numbers count ([`super::Store::life`]).
    pub fn life(&self) -> Epoch {
        self.life
    }

    /// Figures of the last commit, and how many requests wait now.
    pub fn stats(&self) -> Stats {
        let mut stats = self.counters.stats();
        stats.queue_depth += self.letters.len() as u64;
        stats
    }

    /// What commits have taken together, in milliseconds.
    pub fn commits_ms(&self) -> u64 {
        self.counters.commits_ms()
    }

    /// Whether a commit has been under way for longer than `COMMIT_STALL_MAX`: the disk does not keep up, or has gone.
    pub fn is_stalled(&self, now: Now) -> bool {
        let began_ms = self.counters.commit_began_ms();
        began_ms.is_some_and(|began_ms| {
            Now { monotonic_ms: began_ms, ..now }.deadline(COMMIT_STALL_MAX) <= now.monotonic_ms
        })
    }

    /// Why the store failed first; none while it never did.
    pub fn fault(&self) -> Option<&StoreFault> {
        self.counters.fault()
    }
}
