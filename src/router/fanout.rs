//! The fan-out job: carries a topic's messages to all its local subscribers, a bounded number of visits at a time.
//!
//! ```text
//!   submit ──► pending ──pass starts: taken as the batch──► visiting list 0, 1, … ──ends──► pending? next pass
//!                ▲                                            │ a slice of visits,          none: job put away
//!                └── messages that come meanwhile             └ then the next topic's turn
//! ```
//!
//! A pass captures which lists match and how long they are when it starts: who subscribes later does not get earlier
//! messages. All messages that wait at that moment go along, so that 16 messages under way are written in one visit.
//! Messages of one topic leave in the order they were submitted in; between topics the visits go round.

use super::filters::FilterId;
use super::subscribers::{Moved, Options, Subscriber, Subscribers};
use crate::base::hash::KeyedHash;
use crate::base::ids::AppId;
use crate::limits::{
    FANOUT_BATCH_MAX, FANOUT_JOBS_MAX, FANOUT_MESSAGES_PER_CHARGE, FANOUT_PENDING_MAX, FANOUT_SLICE_VISITS_MAX,
    FANOUT_SPARE_MESSAGES_MAX,
};
use hashbrown::HashTable;
use std::collections::VecDeque;

/// A pass of one shard: the same number means the same topic and the same messages, so what a visit encodes can be
/// kept under it. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PassId(pub u64);

/// A list that a pass walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassList {
    /// Whose.
    pub filter: FilterId,
    /// Its length when the pass started: subscribers at this position or beyond came later.
    pub end: u32,
}

/// A subscriber's turn.
#[derive(Debug)]
pub struct Visit<'a, T> {
    /// Index into the session slab.
    pub session: u32,
    /// How this subscription wants its messages.
    pub options: Options,
    /// Tenant.
    pub app: AppId,
    /// The topic, or the name of one of the house's lists.
    pub topic: &'a str,
    /// What to deliver, oldest first; never empty, at most `FANOUT_BATCH_MAX`.
    pub messages: &'a [T],
    /// All lists of the pass, in the order in which it walks them.
    pub lists: &'a [PassList],
    /// The one this visit is for.
    pub list: usize,
    /// Which pass.
    pub pass: PassId,
}

impl<T> Visit<'_, T> {
    /// Whether this is the session's first visit of the pass, so the one to deliver on. `position` says where the
    /// session stands under a filter, if it subscribes to it: with overlapping filters it is visited once for each.
    ///
    /// A session that was visited on an earlier list and has left that filter since is taken for not yet visited.
    /// Logged messages show by their offsets that they were delivered before.
    pub fn is_first(&self, position: impl Fn(FilterId) -> Option<u32>) -> bool {
        let earlier = self.lists.get(..self.list).unwrap_or(&[]);
        !earlier.iter().any(|list| position(list.filter).is_some_and(|position| position < list.end))
    }
}

/// What [`Fanout::run`] tells the caller.
#[derive(Debug)]
pub enum Step<'a, T> {
    /// Deliver.
    Visit(Visit<'a, T>),
    /// A list was compacted after the passes on it: the session must note its new position.
    Moved(Moved),
    /// A pass is over: these messages have been shown to all it concerned.
    Ended(&'a [T]),
}

/// What became of a call of [`Fanout::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What the visits cost, in units of the budget. It can exceed the budget by less than one visit.
    pub charged: usize,
    /// Whether jobs, or lists to compact, are left: call again in the next turn.
    pub more: bool,
}

/// The messages of one topic on their way to its subscribers. Jobs are put away and taken out again with the room
/// that they have grown, so the steady state allocates nothing.
#[derive(Debug)]
struct Job<T> {
    app: AppId,
    topic: String,
    pending: VecDeque<T>,
    /// The pass's messages; empty between passes.
    batch: Vec<T>,
    lists: Vec<PassList>,
    /// The next visit: list and position.
    list: usize,
    position: u32,
    pass: PassId,
}

impl<T> Default for Job<T> {
    fn default() -> Self {
        Self {
            app: AppId(0),
            topic: String::new(),
            pending: VecDeque::new(),
            batch: Vec::new(),
            lists: Vec::new(),
            list: 0,
            position: 0,
            pass: PassId(0),
        }
    }
}

impl<T> Job<T> {
    /// Visits what `piece` has of the list at work, from where the pass stands, until so much is charged; what is charged
    /// then. Not inlined: all registers are the loop's.
    #[inline(never)]
    fn visit(
        &mut self,
        piece: &[Subscriber],
        slice: usize,
        charged: usize,
        step: &mut impl FnMut(Step<'_, T>),
    ) -> usize {
        let visit_charge = self.batch.len().div_ceil(FANOUT_MESSAGES_PER_CHARGE);
        let mut charged = charged;
        for entry in piece {
            if charged >= slice {
                break;
            }
            self.position += 1;
            if entry.is_tombstone() {
                charged += 1;
                continue;
            }
            charged += visit_charge;
            step(Step::Visit(Visit {
                session: entry.session,
                options: entry.options,
                app: self.app,
                topic: &self.topic,
                messages: &self.batch,
                lists: &self.lists,
                list: self.list,
                pass: self.pass,
            }));
        }
        charged
    }
}

/// What a job did with its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    /// There is more to visit.
    Visiting(usize),
    /// The pass ended.
    PassEnded(usize),
    /// A list must be compacted before the next pass can start.
    Waiting,
}

/// All fan-out jobs of one shard. `T` is a handle that is cheap to drop, such as an `Arc`.
#[derive(Debug)]
pub struct Fanout<T> {
    jobs: Vec<Job<T>>,
    /// Jobs put away.
    free: Vec<u32>,
    /// Jobs at work, by the hash of (app, topic).
    by_topic: HashTable<u32>,
    /// Jobs at work, the next one first.
    queue: VecDeque<u32>,
    matched: Vec<FilterId>,
    passes: u64,
    pending: usize,
    hash: KeyedHash,
}

impl<T> Fanout<T> {
    /// No jobs. `hash` is the process's.
    pub fn new(hash: KeyedHash) -> Self {
        Self {
            jobs: Vec::new(),
            free: Vec::new(),
            by_topic: HashTable::new(),
            queue: VecDeque::new(),
            matched: Vec::new(),
            passes: 0,
            pending: 0,
            hash,
        }
    }

    /// Queues a message for all local subscribers of a topic, or for one of the house's own lists. When the topic has
    /// `FANOUT_PENDING_MAX` messages waiting, or the shard `FANOUT_JOBS_MAX` topics, the message comes back: the
    /// caller applies the topic's policy and counts.
    pub fn submit(&mut self, app: AppId, topic: &str, message: T) -> Result<(), T> {
        let hash = self.hash.of(&(app, topic));
        let jobs = &self.jobs;
        let is_it = |&job: &u32| {
            let job = &jobs[job as usize];
            job.app == app && job.topic == topic
        };
        let job = match self.by_topic.find(hash, is_it) {
            Some(&job) => job,
            None if self.queue.len() >= FANOUT_JOBS_MAX => return Err(message),
            None => self.begin_job(app, topic, hash),
        };
        let pending = &mut self.jobs[job as usize].pending;
        if pending.len() >= FANOUT_PENDING_MAX {
            return Err(message);
        }
        pending.push_back(message);
        self.pending += 1;
        Ok(())
    }

    /// Whether [`Fanout::submit`] would take a message for this topic now.
    pub fn has_room(&self, app: AppId, topic: &str) -> bool {
        let is_it = |&job: &u32| {
            let job = &self.jobs[job as usize];
            job.app == app && job.topic == topic
        };
        match self.by_topic.find(self.hash.of(&(app, topic)), is_it) {
            Some(&job) => self.jobs[job as usize].pending.len() < FANOUT_PENDING_MAX,
            None => self.queue.len() < FANOUT_JOBS_MAX,
        }
    }

    /// Visits subscribers until about `budget` is used up or nothing is left. A visit is charged one per
    /// `FANOUT_MESSAGES_PER_CHARGE` messages begun; a tombstone and the start of a pass are charged one each.
    /// Before that it compacts lists that passes left tombstones in, in at most `budget` steps.
    pub fn run(&mut self, budget: usize, subscribers: &mut Subscribers, mut step: impl FnMut(Step<'_, T>)) -> Progress {
        subscribers.compact(budget, |moved| step(Step::Moved(moved)));
        let mut charged = 0;
        let mut waiting = 0;
        // A job that waits for compaction is passed over; when all do, only the next call can help.
        while charged < budget && waiting < self.queue.len() {
            let Some(index) = self.queue.pop_front() else { break };
            let slice = FANOUT_SLICE_VISITS_MAX.min(budget - charged);
            match self.run_slice(index, slice, subscribers, &mut step) {
                Slice::Visiting(cost) => {
                    charged += cost;
                    waiting = 0;
                    self.queue.push_back(index);
                }
                Slice::Waiting => {
                    waiting += 1;
                    self.queue.push_back(index);
                }
                Slice::PassEnded(cost) => {
                    charged += cost;
                    waiting = 0;
                    step(Step::Ended(&self.jobs[index as usize].batch));
                    self.end_pass(index, subscribers);
                }
            }
        }
        Progress { charged, more: !self.queue.is_empty() || subscribers.has_uncompacted() }
    }

    /// Topics with messages under way.
    pub fn jobs(&self) -> usize {
        self.queue.len()
    }

    /// Messages that wait for their pass, over all topics.
    pub fn pending(&self) -> usize {
        self.pending
    }

    fn run_slice(
        &mut self,
        index: u32,
        slice: usize,
        subscribers: &mut Subscribers,
        step: &mut impl FnMut(Step<'_, T>),
    ) -> Slice {
        let mut charged = 0;
        if self.jobs[index as usize].batch.is_empty() {
            if !self.start_pass(index, subscribers) {
                return Slice::Waiting;
            }
            charged = 1;
        }
        let job = &mut self.jobs[index as usize];
        while let Some(list) = job.lists.get(job.list) {
            // The list does not shrink while a pass is on it.
            let piece = subscribers.entries(list.filter).stretch(job.position as usize..list.end as usize);
            let end = list.end;
            charged = job.visit(piece, slice, charged, step);
            // Else the list goes on in another piece, or the slice is over.
            if job.position == end {
                job.list += 1;
                job.position = 0;
            } else if charged >= slice {
                return Slice::Visiting(charged);
            }
        }
        Slice::PassEnded(charged)
    }

    /// Takes what is pending and captures the lists; false when one of them must be compacted first.
    fn start_pass(&mut self, index: u32, subscribers: &mut Subscribers) -> bool {
        let job = &mut self.jobs[index as usize];
        self.matched.clear();
        subscribers.matches(job.app, &job.topic, &mut self.matched);
        if self.matched.iter().any(|&filter| subscribers.is_crowded(filter)) {
            return false;
        }
        let count = job.pending.len().min(FANOUT_BATCH_MAX);
        assert!(count > 0, "a job without a pass has messages waiting");
        job.batch.extend(job.pending.drain(..count));
        self.pending -= count;
        job.lists.extend(self.matched.iter().map(|&filter| PassList { filter, end: subscribers.pin(filter) }));
        self.passes += 1;
        job.pass = PassId(self.passes);
        true
    }

    fn end_pass(&mut self, index: u32, subscribers: &mut Subscribers) {
        let job = &mut self.jobs[index as usize];
        job.lists.drain(..).for_each(|list| subscribers.unpin(list.filter));
        job.batch.clear();
        (job.list, job.position) = (0, 0);
        if !job.pending.is_empty() {
            self.queue.push_back(index);
            return;
        }
        let hash = self.hash.of(&(job.app, job.topic.as_str()));
        let entry = self.by_topic.find_entry(hash, |&job| job == index);
        entry.expect("a job at work is in the table of topics").remove();
        job.pending.shrink_to(FANOUT_SPARE_MESSAGES_MAX);
        self.free.push(index);
    }

    fn begin_job(&mut self, app: AppId, topic: &str, hash: u64) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(Job::default());
            u32::try_from(self.jobs.len() - 1).expect("jobs are bounded by FANOUT_JOBS_MAX")
        });
        let job = &mut self.jobs[index as usize];
        job.app = app;
        job.topic.clear();
        job.topic.push_str(topic);
        let (jobs, keyed) = (&self.jobs, &self.hash);
        let topic_hash = |&job: &u32| {
            let job = &jobs[job as usize];
            keyed.of(&(job.app, job.topic.as_str()))
        };
        self.by_topic.insert_unique(hash, index, topic_hash);
        self.queue.push_back(index);
        index
    }
}

#[cfg(test)]
#[path = "fanout_tests.rs"]
mod tests;
