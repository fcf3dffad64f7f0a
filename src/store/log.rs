//! The log: a queue of requests and the group commit that empties it. Pure: no thread, clock or random source inside,
//! so the simulator drives it through delays, failures and crashes from one seed.
//!
//! ```text
//! submit ─► queue ─► commit: plan (keys, offsets, seq) ─► store.append_many ─► batch, then dones
//!                                                     └─ error ─► poisoned: every append of the group, and every
//!                                                                 later one, is answered Failed; reads go on
//! ```
//! Reads are answered behind the group, and as many as `LOG_READ_COST_MAX` allows: the others wait for the next commits, in
//! their order, so that whoever reads much does not hold up who writes.

mod pages;
mod plan;
#[cfg(test)]
mod tests;

use super::{
    Address, Answer, Batch, Counters, Done, Record, Request, RequestToken, Stats, Store, StoreError, StoreFault,
};
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, Epoch, Seq};
use crate::base::message::Entry;
use crate::limits::{
    LOG_BATCH_ENTRIES_MAX, LOG_BATCH_MAX, LOG_QUEUE_MAX, LOG_READ_COST_MAX, READ_BYTES_MAX, READ_ENTRIES_MAX,
    READ_RECORDS_MAX, STORE_SWEEP_INTERVAL,
};
use pages::Pages;
use plan::{Epochs, Plan};
use std::collections::VecDeque;
use std::sync::Arc;

struct Pending {
    from: Address,
    token: RequestToken,
    request: Request,
}

/// What planning made of a request.
pub(super) enum Outcome {
    /// To be answered from the committed state.
    Read(Request),
    /// Known already, whatever becomes of the group.
    Settled(Result<Answer, StoreError>),
    /// Holds if the group is written.
    WithGroup(Result<Answer, StoreError>),
}

/// What a commit brought. Whoever delivers it hands the batch to every shard before it hands out the first `Done`.
#[derive(Debug, Default)]
pub struct Committed {
    /// None when no entry was written.
    pub batch: Option<Arc<Batch>>,
    /// One for each request taken, in the order in which they were submitted; but reads that one commit has no time for
    /// come with a later one, in their order.
    pub dones: Vec<(Address, Done)>,
}

/// See the module.
pub struct Log<S> {
    store: S,
    queue: VecDeque<Pending>,
    /// Reads for which the commits so far had no time.
    reads: VecDeque<Pending>,
    pages: Pages,
    plan: Plan,
    seq: Seq,
    poisoned: bool,
    next_sweep_ms: u64,
    stats: Stats,
    counters: Arc<Counters>,
}

impl<S: Store> Log<S> {
    /// Goes on where the store ends. `seed` makes the epochs: random bits from the node, a fixed number in tests. It
    /// must never be the same for two lives of one durable store, or an epoch may come again.
    ///
    /// # Errors
    /// The store could not say where it ends.
    pub fn open(store: S, seed: u64) -> Result<Self, StoreFault> {
        let seq = store.last_seq()?;
        let mut epochs = Epochs::new(seed);
        let hash = KeyedHash::new(epochs.next().0);
        let mut log = Self {
            store,
            queue: VecDeque::new(),
            reads: VecDeque::new(),
            pages: Pages::default(),
            plan: Plan::new(epochs, hash),
            seq,
            poisoned: false,
            next_sweep_ms: 0,
            stats: Stats::default(),
            counters: Arc::default(),
        };
        log.publish();
        Ok(log)
    }

    /// Queues a request; nothing is looked at before the next commit.
    ///
    /// # Errors
    /// The request comes back with `Busy` when `LOG_QUEUE_MAX` wait.
    // As for the handle: the caller keeps the request for another try.
    #[allow(clippy::result_large_err)]
    pub fn submit(
        &mut self,
        from: Address,
        token: RequestToken,
        request: Request,
    ) -> Result<(), (Request, StoreError)> {
        if self.queue.len() >= LOG_QUEUE_MAX {
            return Err((request, StoreError::Busy));
        }
        self.queue.push_back(Pending { from, token, request });
        Ok(())
    }

    /// Takes the oldest requests as one group, commits its appends together and answers all. Reads see the whole group,
    /// so a read sees every append that was submitted before it.
    pub fn commit(&mut self, now: Now) -> Committed {
        let planned = self.plan_group(now);
        let (batch, is_written) = self.write_group(now);
        let mut dones = Vec::with_capacity(planned.len());
        let mut cost = self.read_deferred(&mut dones);
        for (from, token, outcome) in planned {
            let result = match outcome {
                Outcome::Read(request) if cost >= LOG_READ_COST_MAX => {
                    self.reads.push_back(Pending { from, token, request });
                    continue;
                }
                Outcome::Read(request) => self.read(&request),
                Outcome::WithGroup(_) if !is_written => Err(StoreError::Failed),
                Outcome::Settled(result) | Outcome::WithGroup(result) => result,
            };
            cost += cost_of(&result);
            self.count(&result);
            dones.push((from, Done { token, result }));
        }
        self.sweep(now);
        self.publish();
        Committed { batch, dones }
    }

    /// Answers reads that had to wait; what that cost.
    fn read_deferred(&mut self, dones: &mut Vec<(Address, Done)>) -> usize {
        let mut cost = 0;
        while cost < LOG_READ_COST_MAX {
            let Some(Pending { from, token, request }) = self.reads.pop_front() else { break };
            let result = self.read(&request);
            cost += cost_of(&result);
            self.count(&result);
            dones.push((from, Done { token, result }));
        }
        cost
    }

    /// As if the process had been killed and started again over the same store: what was submitted and not committed
    /// is gone and gets no `Done`.
    ///
    /// # Errors
    /// The store could not say where it ends.
    pub fn crash(&mut self) -> Result<(), StoreFault> {
        self.queue.clear();
        self.reads.clear();
        self.pages.clear();
        self.plan.clear();
        self.seq = self.store.last_seq()?;
        self.poisoned = false;
        self.publish();
        Ok(())
    }

    /// Requests waiting.
    pub fn queued(&self) -> usize {
        self.queue.len() + self.reads.len()
    }

    /// Whether another request fits into the next group, and room is left for reads that have to wait.
    pub fn takes_more(&self) -> bool {
        self.queue.len() < LOG_BATCH_MAX && self.reads.len() < LOG_QUEUE_MAX
    }

    /// The last commit number.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The life in which its commit numbers count.
    pub fn life(&self) -> Epoch {
        self.store.life()
    }

    /// The store failed, and nothing is written any more.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// The figures, shared with whoever shows them.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// The store, for the simulator's checkers and fault switches.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    fn plan_group(&mut self, now: Now) -> Vec<(Address, RequestToken, Outcome)> {
        let mut planned = Vec::with_capacity(self.queue.len().min(LOG_BATCH_MAX));
        self.plan.begin(self.seq);
        while planned.len() < LOG_BATCH_MAX && self.plan.entries().len() < LOG_BATCH_ENTRIES_MAX {
            let Some(Pending { from, token, request }) = self.queue.pop_front() else { break };
            let outcome = match request {
                Request::Append { .. } if self.poisoned => Outcome::Settled(Err(StoreError::Failed)),
                Request::Append { key, entries, records } => {
                    match self.plan.append(&self.store, key, entries, records, now) {
                        Ok(outcome) => outcome,
                        Err(fault) => {
                            self.poison(fault);
                            Outcome::Settled(Err(StoreError::Failed))
                        }
                    }
                }
                read => Outcome::Read(read),
            };
            planned.push((from, token, outcome));
        }
        planned
    }

    /// Returns the batch, and whether the plan holds. A group without anything to write costs the store nothing.
    fn write_group(&mut self, now: Now) -> (Option<Arc<Batch>>, bool) {
        if self.poisoned {
            self.plan.clear();
            return (None, false);
        }
        if self.plan.is_empty() {
            return (None, true);
        }
        let group = self.plan.group();
        let (seq, records) = (group.seq, group.records.len());
        if let Err(fault) = self.store.append_many(group, now) {
            self.poison(fault);
            self.plan.clear();
            return (None, false);
        }
        if records > 0 {
            self.pages.clear();
        }
        self.seq = seq;
        self.stats.commits += 1;
        self.stats.records += records as u64;
        self.stats.bytes += self.plan.bytes();
        let entries = self.plan.take_entries();
        self.stats.entries += entries.len() as u64;
        self.plan.clear();
        let batch = (!entries.is_empty()).then(|| Arc::new(Batch { entries, seq }));
        (batch, true)
    }

    fn read(&mut self, request: &Request) -> Result<Answer, StoreError> {
        let answer = match request {
            Request::ReadStream { stream, after, limit } => {
                let head = self.store.head(stream);
                let entries = self.store.read_stream(stream, *after, (*limit).min(READ_ENTRIES_MAX));
                head.and_then(|head| Ok(Answer::Stream { head, entries: entries? }))
            }
            Request::ReadTopics { app, after, limit } => self.read_topics(*app, *after, (*limit).min(READ_ENTRIES_MAX)),
            Request::ReadRecords { prefix, after, limit } => self.read_records(request, prefix, after, *limit),
            Request::Head { stream } => self.store.head(stream).map(Answer::Head),
            Request::Standing { stream, record } => {
                self.store.standing(stream, record).map(|(head, value)| Answer::Standing(head, value))
            }
            Request::Append { .. } => unreachable!("appends are planned, not read"),
        };
        answer.map_err(|fault| {
            self.counters.failed(fault);
            StoreError::Failed
        })
    }

    fn read_records(
        &mut self,
        request: &Request,
        prefix: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Answer, StoreFault> {
        if let Some(records) = self.pages.find(request) {
            return Ok(Answer::Records(records));
        }
        let limit = limit.min(READ_RECORDS_MAX);
        let records: Arc<[Record]> = self.store.read_records(prefix, after, limit)?.into();
        self.pages.note(request, &records, records.len() == limit);
        Ok(Answer::Records(records))
    }

    fn read_topics(&self, app: AppId, after: Seq, limit: usize) -> Result<Answer, StoreFault> {
        let mut entries = self.store.read_topics(app, after, limit)?;
        // A page that is full, in entries or bytes, may end before the log does; any other has seen all of it.
        let bytes: usize = entries.iter().map(|entry| entry.message.payload.len()).sum();
        let is_full = entries.len() >= limit || bytes >= READ_BYTES_MAX;
        let mut through = if is_full { entries.last().map_or(after, |entry| entry.seq) } else { self.seq };
        let mut gaps = self.store.read_gaps(app, after, READ_ENTRIES_MAX)?;
        if gaps.len() == READ_ENTRIES_MAX {
            // There may be more of them: nobody is to read beyond those at hand.
            through = gaps.last().map_or(through, |gap| gap.trimmed.min(through));
            entries.retain(|entry| entry.seq <= through);
        }
        gaps.retain(|gap| gap.trimmed <= through);
        Ok(Answer::Topics { entries, through, gaps })
    }

    fn sweep(&mut self, now: Now) {
        if self.poisoned || now.monotonic_ms < self.next_sweep_ms {
            return;
        }
        self.next_sweep_ms = now.deadline(STORE_SWEEP_INTERVAL);
        self.pages.clear();
        if let Err(fault) = self.store.sweep(now) {
            self.poison(fault);
        }
    }

    fn poison(&mut self, fault: StoreFault) {
        self.poisoned = true;
        self.counters.failed(fault);
    }

    fn count(&mut self, result: &Result<Answer, StoreError>) {
        match result {
            Ok(Answer::Appended { duplicate: Some(_), .. }) => self.stats.duplicates += 1,
            Err(StoreError::KeyConflict) => self.stats.key_conflicts += 1,
            Err(StoreError::Failed) => self.stats.failures += 1,
            _ => {}
        }
    }

    fn publish(&mut self) {
        self.stats.queue_depth = self.queued() as u64;
        self.stats.seq = self.seq.0;
        self.stats.poisoned = self.poisoned;
        self.stats.store = self.store.usage();
        self.counters.publish(self.stats);
    }
}

/// What an answer took of the log thread's time, in entries: of an append nothing, for its group bounds that.
fn cost_of(result: &Result<Answer, StoreError>) -> usize {
    let payload = |entries: &[Entry]| entries.iter().map(|entry| entry.message.payload.len()).sum::<usize>();
    let (items, bytes) = match result {
        Ok(Answer::Appended { .. }) => return 0,
        Ok(Answer::Stream { entries, .. }) => (entries.len(), payload(entries)),
        Ok(Answer::Topics { entries, gaps, .. }) => (entries.len() + gaps.len(), payload(entries)),
        Ok(Answer::Records(records)) => (records.len(), records.iter().map(|(_, value)| value.len()).sum()),
        Ok(Answer::Standing(_, value)) => (1, value.as_ref().map_or(0, |value| value.len())),
        Ok(Answer::Head(_)) | Err(_) => (0, 0),
    };
    1 + items + bytes / 1_024
}
