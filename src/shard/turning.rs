//! Topics that turn from unlogged to owed, at their home: their logged messages must not overtake the unlogged ones
//! that are still under way.
//!
//! Two roads lead from a home to a shard: unlogged messages go as letters of the home, logged ones as batches of the
//! log thread. Both end in the shard's one mailbox, which keeps the order in which letters were put into it. So it is
//! enough that the home gives the log nothing that is owed before its earlier unlogged messages *lie in those mailboxes*;
//! nobody has to answer. They do not lie there yet while
//! 1. they pass through the log's queue without an entry, because they carry a record or a key or must not overtake
//!    themselves: they are handed over when the log has answered, and that is behind the batch;
//! 2. they wait in this shard's outgoing mail, for the end of the turn or for room in a full mailbox.
//!
//! While a topic stays unlogged, or stays logged, order holds without this. So only when somebody begins to be owed
//! something ([`Turning::begin`]) a *round* waits for both, for all that was under way when it began; what is owed and
//! comes meanwhile is held, and what comes behind that as well, whatever its topic: a round is over at the end of the
//! turn, or lasts as long as a mailbox is full, and then logged messages could not be posted either. One round over
//! all topics also covers wildcards, which turn many topics at once. Each change during a round has a later one, for which
//! only what came after the change waits, so every round ends, however many changes there are. Two changes share one only
//! if nothing unlogged was held between them, for that is not on its way before it is let go.

use super::gateway::{Core, Gateway};
use super::letter::Publish;
use crate::base::ids::ShardId;
use crate::io::Driver;
use crate::limits::HELD_PUBLISHES_MAX;
use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Turning {
    /// Unlogged messages of QoS ≥ 1 given to the log's queue, and answered. Answers come in the order of requests.
    submitted: u64,
    answered: u64,
    /// By shard: the number of the last letter with an unlogged message of QoS ≥ 1.
    letters: Vec<u64>,
    round: Option<Round>,
    /// Changes since the round began, ascending: what was held before each ends with this number. One more than what is
    /// held at most.
    changes: VecDeque<u64>,
    /// Something unlogged was held behind the last of them.
    is_unlogged_behind: bool,
    /// Messages let go of so far, which is the number of the first one held.
    released: u64,
    /// In order, each with whether it was owed to anybody when it came. Publishers are not read beyond a bound.
    held: VecDeque<(Publish, bool)>,
}

/// What is waited for.
#[derive(Debug)]
struct Round {
    /// The last message in the log's queue.
    submitted: u64,
    /// Once that is answered: the last letter to each shard.
    letters: Option<Vec<u64>>,
}

impl Turning {
    /// An unlogged message of QoS ≥ 1 goes through the log's queue.
    pub(crate) fn submit(&mut self) {
        self.submitted += 1;
    }

    /// Its answer has come.
    pub(crate) fn answer(&mut self) {
        self.answered += 1;
    }

    /// An unlogged message of QoS ≥ 1 was mailed to another shard: the letter's number.
    pub(crate) fn mailed(&mut self, to: ShardId, letter: u64) {
        let index = usize::from(to.0);
        if self.letters.len() <= index {
            self.letters.resize(index + 1, 0);
        }
        self.letters[index] = letter;
    }

    /// Somebody begins to be owed what a filter matches.
    pub(crate) fn begin<D: Driver>(&mut self, core: &Core<D>) {
        if self.round.is_some() {
            let end = self.released + self.held.len() as u64;
            if self.changes.is_empty() || self.is_unlogged_behind {
                self.changes.push_back(end);
                self.is_unlogged_behind = false;
            }
        } else if self.answered < self.submitted || !are_posted(core, &self.letters) {
            self.round = Some(Round { submitted: self.submitted, letters: None });
        }
    }

    /// Whether a message of QoS ≥ 1 that has just come has to wait.
    pub(crate) fn holds(&self, owed: bool) -> bool {
        !self.held.is_empty() || owed && self.round.is_some()
    }

    /// Keeps it.
    pub(crate) fn hold(&mut self, publish: Publish, owed: bool) {
        self.is_unlogged_behind |= !owed;
        self.held.push_back((publish, owed));
    }

    /// Messages held.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Read no more publishers until some are released.
    pub(crate) fn is_full(&self) -> bool {
        self.held.len() >= HELD_PUBLISHES_MAX
    }

    /// Whether the round is over.
    fn is_over<D: Driver>(&mut self, core: &Core<D>) -> bool {
        let Some(round) = &mut self.round else { return false };
        if self.answered < round.submitted {
            return false;
        }
        let letters = round.letters.get_or_insert_with(|| self.letters.clone());
        are_posted(core, letters)
    }

    /// Whether only the outgoing mail is waited for, and all of it is about to be tried.
    fn ends_with_turn<D: Driver>(&self, core: &Core<D>) -> bool {
        let letters = self.round.as_ref().and_then(|round| round.letters.as_ref());
        !self.held.is_empty()
            && letters
                .is_some_and(|letters| shards(letters).all(|(to, at)| core.is_posted(to, at) || !core.congested(to)))
    }
}

fn shards(letters: &[u64]) -> impl Iterator<Item = (ShardId, u64)> + '_ {
    (0..).map(ShardId).zip(letters.iter().copied())
}

fn are_posted<D: Driver>(core: &Core<D>, letters: &[u64]) -> bool {
    shards(letters).all(|(to, letter)| core.is_posted(to, letter))
}

impl Gateway {
    /// Ends the rounds that can end and lets go of what they held; true when the next turn may end one.
    pub(super) fn end_rounds<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        while self.turning.is_over(core) {
            self.turning.round = None;
            let change = self.turning.changes.pop_front();
            while change.is_none_or(|end| self.turning.released < end) {
                let Some((publish, owed)) = self.turning.held.pop_front() else { break };
                self.turning.released += 1;
                self.log_or_hand_over(core, publish, owed);
            }
            if change.is_some() {
                // When nothing is under way it is over at once, and lets go of the others.
                self.turning.round = Some(Round { submitted: self.turning.submitted, letters: None });
            }
        }
        self.turning.ends_with_turn(core)
    }
}
