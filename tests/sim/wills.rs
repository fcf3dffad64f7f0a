//! What must become of wills, as far as their clients can know.
//!
//! A client knows that a connection was accepted when it hears CONNACK, and that it is over when it hears the next one.
//! Then the will of the one before must have been published, or must never be, or nobody can say: because the node died,
//! because a goodbye was not heard for sure, or because a connection in between may have cancelled it. All wills are
//! logged, for a watcher is owed them.

use crate::coverage::{Coverage, Seen};
use crate::ledger::MessageId;
use std::collections::{BTreeMap, HashMap};

/// What is cancelled may be in the log's queue already. What is lazily written is written within this.
const SETTLES_MS: u64 = 5_000;
/// What is due is published within this.
const SLACK_MS: u64 = 10_000;
/// Delays are kept to a tick.
const EARLY_MS: u64 = 200;

/// A connection as its client knows it.
#[derive(Clone, Debug)]
struct Connection {
    will: Option<MessageId>,
    began_ms: u64,
    deaths: u64,
    is_accepted: bool,
    /// DISCONNECT was sent.
    has_parted: bool,
    /// Another one, not answered, may have been heard since.
    is_uncertain: bool,
    /// When the server had to know at the latest that it was over, if that was before the next one began.
    ended_by_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Unless the node dies.
    Must,
    /// It may be on its way until then.
    MustNot { from_ms: u64 },
}

#[derive(Clone, Copy, Debug)]
struct Will {
    began_ms: u64,
    deaths: u64,
    /// Seconds.
    delay: u32,
    expiry: u32,
    client: usize,
    published: u32,
    is_cleaned: bool,
    fate: Option<Fate>,
}

impl Will {
    fn waits_ms(&self) -> u64 {
        u64::from(self.delay.min(self.expiry)) * 1_000
    }
}

#[derive(Debug, Default)]
pub struct Wills {
    wills: BTreeMap<MessageId, Will>,
    /// By client: the last accepted connection, and the one that has begun since.
    last: HashMap<usize, Connection>,
    next: HashMap<usize, Connection>,
    deaths: u64,
    /// Since then nothing is written any more, until the node dies.
    failed_ms: Option<u64>,
}

impl Wills {
    /// A connection begins with a CONNECT; `will`: its message, delay and session expiry; `is_alone`: no earlier one can
    /// still be heard.
    pub fn connect(
        &mut self,
        client: usize,
        now_ms: u64,
        will: Option<(MessageId, u32, u32)>,
        ended_by_ms: Option<u64>,
        is_alone: bool,
    ) {
        if let Some((id, delay, expiry)) = will {
            let (began_ms, deaths) = (now_ms, self.deaths);
            let (published, is_cleaned, fate) = (0, false, None);
            self.wills.insert(id, Will { began_ms, deaths, delay, expiry, client, published, is_cleaned, fate });
        }
        // One that nobody answered may be heard after this one, and take its session over.
        let is_alone = is_alone && self.next.get(&client).is_none_or(|before| before.is_accepted);
        let connection = Connection {
            will: will.map(|(id, ..)| id),
            began_ms: now_ms,
            deaths: self.deaths,
            is_accepted: false,
            has_parted: false,
            is_uncertain: !is_alone,
            ended_by_ms: None,
        };
        match self.next.insert(client, connection) {
            Some(before) if before.is_accepted => drop(self.last.insert(client, before)),
            Some(_) => drop(self.last.entry(client).and_modify(|last| last.is_uncertain = true)),
            None => return,
        }
        self.last.entry(client).and_modify(|last| last.ended_by_ms = ended_by_ms);
    }

    /// The connection that begins is a clean start: earlier wills of the device are due at once.
    pub fn clean_start(&mut self, client: usize) {
        for will in self.wills.values_mut().filter(|will| will.client == client) {
            will.is_cleaned = true;
        }
    }

    /// CONNACK: what was before is decided.
    pub fn accepted(&mut self, client: usize, present: bool, now_ms: u64, coverage: &mut Coverage) {
        let Some(next) = self.next.get_mut(&client) else { return };
        next.is_accepted = true;
        let began_ms = next.began_ms;
        let Some(last) = self.last.remove(&client) else { return };
        let Some(will) = last.will.and_then(|id| self.wills.get_mut(&id)) else { return };
        if last.deaths != self.deaths || last.has_parted {
            return;
        }
        let is_over = will.is_cleaned || !present;
        let is_past = last.ended_by_ms.is_some_and(|at_ms| at_ms + will.waits_ms() + SLACK_MS < began_ms);
        if will.delay == 0 || !last.is_uncertain && (is_over || is_past) {
            will.fate = Some(Fate::Must);
            coverage.hit(if will.delay == 0 { Seen::WillDue } else { Seen::WillDueAfterDelay });
        } else if present && !will.is_cleaned {
            will.fate = Some(Fate::MustNot { from_ms: now_ms + SETTLES_MS });
            if will.published == 0 {
                coverage.hit(Seen::WillCancelled);
            }
        }
    }

    /// DISCONNECT is on its way.
    pub fn part(&mut self, client: usize) {
        if let Some(next) = self.next.get_mut(&client) {
            next.has_parted = true;
        }
    }

    /// And the server has closed for it.
    pub fn goodbye_was_heard(&mut self, client: usize, now_ms: u64, coverage: &mut Coverage) {
        let Some(next) = self.next.get(&client).filter(|next| next.deaths == self.deaths) else { return };
        let Some(id) = next.will else { return };
        let will = self.wills.get_mut(&id).expect("it was made");
        assert_eq!(will.published, 0, "client {client}: its will m{id} was published although it said goodbye");
        will.fate = Some(Fate::MustNot { from_ms: now_ms });
        coverage.hit(Seen::WillDroppedByGoodbye);
    }

    /// The log has a message; it may be a will.
    pub fn committed(&mut self, id: MessageId, now_ms: u64, coverage: &mut Coverage) {
        let Some(will) = self.wills.get_mut(&id) else { return };
        coverage.hit(Seen::WillPublished);
        will.published += 1;
        let is_known = will.deaths == self.deaths;
        assert!(!is_known || will.published == 1, "m{id} is a will and was published twice: {will:?}");
        let due_ms = will.began_ms + will.waits_ms();
        let is_early = is_known && !will.is_cleaned && now_ms + EARLY_MS < due_ms;
        assert!(!is_early, "m{id} is a will and was published before its delay was over: {will:?} {now_ms}");
        if let Some(Fate::MustNot { from_ms }) = will.fate {
            assert!(now_ms <= from_ms, "m{id} is a will that must not be published any more: {will:?} {now_ms}");
        }
    }

    /// The store has failed.
    pub fn store_failed(&mut self, now_ms: u64) {
        self.failed_ms.get_or_insert(now_ms);
    }

    /// The node is gone: what was not decided for good cannot be known.
    pub fn node_died(&mut self, now_ms: u64) {
        self.deaths += 1;
        let written_ms = self.failed_ms.take().unwrap_or(now_ms);
        for will in self.wills.values_mut() {
            match will.fate {
                Some(Fate::MustNot { from_ms }) if from_ms + SETTLES_MS < written_ms => {}
                _ => will.fate = None,
            }
        }
    }

    pub fn node_died_since_accepted(&self, client: usize) -> bool {
        let last = self.last.get(&client);
        last.is_none_or(|last| last.deaths != self.deaths || last.is_uncertain)
    }

    /// Those that must have been published and were not.
    pub fn missing(&self) -> Vec<MessageId> {
        let is_missing = |will: &Will| will.fate == Some(Fate::Must) && will.published == 0;
        self.wills.iter().filter(|(_, will)| is_missing(will)).map(|(&id, _)| id).collect()
    }
}
