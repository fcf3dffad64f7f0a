//! What was promised and what came, shared by all threads of a run.

use crate::gateway::PATIENCE;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Where a message stands in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub stream: String,
    pub epoch: String,
    pub offset: u64,
}

/// What a receiver got, in the order of the first arrivals.
#[derive(Debug, Default)]
pub struct Receipts {
    pub order: Vec<String>,
    pub times: HashMap<String, u32>,
}

#[derive(Default)]
pub struct Facts {
    /// Processes started; a connection belongs to one.
    pub generation: u64,
    pub is_up: bool,
    pub producers_stop: bool,
    /// Backends that still push.
    pub producing: usize,
    pub clients_stop: bool,
    pub clients: usize,
    /// Clients whose subscriptions stand.
    pub ready: usize,
    /// Acknowledged pushes and publishes, and receipts: what kills are timed by.
    pub progress: u64,
    /// Payload → where it is, by receiver's stream.
    pub places: BTreeMap<String, Vec<Place>>,
    /// Payload → receivers.
    pub owed: HashMap<String, Vec<String>>,
    pub receipts: BTreeMap<String, Receipts>,
    /// Payload of a publish → positions under which the backends were told of it.
    pub positions: BTreeMap<String, BTreeSet<String>>,
    /// Connects and disconnects that the backend was told of.
    pub comings: u64,
    /// Of the consumer of `Events`: streams that went on where its group was, acknowledgements that were answered, receipts,
    /// and gaps, which may only be of receipts.
    pub consumer_resumed: u64,
    pub consumer_acknowledged: u64,
    pub receipts_told: u64,
    pub gaps: u64,
    pub pushes: u64,
    pub publishes: u64,
    pub duplicates_answered: u64,
    pub redelivered: u64,
    pub sessions_resumed: u64,
}

impl Facts {
    /// Whether every client is ready and the end has not come yet.
    pub fn is_time_to_publish(&self) -> bool {
        self.all_ready() && !self.producers_stop
    }

    pub fn all_ready(&self) -> bool {
        self.ready == self.clients
    }
}

/// See the module.
#[derive(Default)]
pub struct Ledger {
    facts: Mutex<Facts>,
    changed: Condvar,
}

impl Ledger {
    pub fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("no thread panics while it holds the ledger")
    }

    /// Changes something, and wakes whoever waits.
    pub fn tell<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until it is so, at most so long; whether it is.
    pub fn wait_for(&self, at_most: Duration, is_so: impl Fn(&Facts) -> bool) -> bool {
        let (facts, _) = self
            .changed
            .wait_timeout_while(self.lock(), at_most, |facts| !is_so(facts))
            .expect("no thread panics while it holds the ledger");
        is_so(&facts)
    }

    /// Waits for a process other than that of `before`; none when clients are to stop.
    pub fn next_generation(&self, before: u64) -> Option<u64> {
        let is_so = |facts: &Facts| facts.clients_stop || facts.is_up && facts.generation > before;
        assert!(self.wait_for(PATIENCE, is_so), "no process came");
        let facts = self.lock();
        (!facts.clients_stop).then_some(facts.generation)
    }

    pub fn received(&self, receiver: &str, payload: &str) {
        self.tell(|facts| {
            facts.progress += 1;
            let receipts = facts.receipts.entry(receiver.to_owned()).or_default();
            let times = receipts.times.entry(payload.to_owned()).or_default();
            *times += 1;
            if *times == 1 {
                receipts.order.push(payload.to_owned());
            } else {
                facts.redelivered += 1;
            }
        });
    }

    /// Waits until all that is owed has come, for as long as any of it comes. What is missing at the end is told.
    pub fn settle(&self) {
        let (mut least, mut deadline) = (usize::MAX, Instant::now() + PATIENCE);
        while Instant::now() < deadline {
            let left = missing(&self.lock()).len();
            if left == 0 {
                return;
            }
            if left < least {
                (least, deadline) = (left, Instant::now() + PATIENCE);
            }
            // Not asked at each receipt: it looks through everything.
            self.wait_for(Duration::from_millis(100), |_| false);
        }
        let missing = missing(&self.lock());
        panic!("{} of what was acknowledged is missing, such as {:?}", missing.len(), &missing[..missing.len().min(9)]);
    }
}

fn missing(facts: &Facts) -> Vec<(String, String)> {
    let has = |receiver: &String, payload: &String| {
        facts.receipts.get(receiver).is_some_and(|receipts| receipts.times.contains_key(payload))
    };
    let owed =
        facts.owed.iter().flat_map(|(payload, receivers)| receivers.iter().map(move |receiver| (receiver, payload)));
    let lacking = owed.filter(|(receiver, payload)| !has(receiver, payload));
    lacking.map(|(receiver, payload)| (receiver.clone(), payload.clone())).collect()
}

/// Everything a run has to show at its end.
pub fn check(facts: &Facts, is_exactly_once: impl Fn(&str, &str) -> bool) {
    let mut streams: BTreeMap<&str, (BTreeSet<&str>, Vec<u64>)> = BTreeMap::new();
    for place in facts.places.values().flatten() {
        let (epochs, offsets) = streams.entry(&place.stream).or_default();
        epochs.insert(&place.epoch);
        offsets.push(place.offset);
    }
    for (stream, (epochs, offsets)) in &mut streams {
        assert_eq!(epochs.len(), 1, "{stream} has changed its epoch although nothing was lost");
        offsets.sort_unstable();
        let expected: Vec<u64> = (1..=offsets.len() as u64).collect();
        assert_eq!(*offsets, expected, "{stream}: each message has one offset, and there is none between");
    }
    for (payload, positions) in &facts.positions {
        assert_eq!(positions.len(), 1, "a backend was told of {payload} as of several: {positions:?}");
    }
    for (receiver, receipts) in &facts.receipts {
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for payload in &receipts.order {
            let (line, number) = line_of(facts, receiver, payload);
            let before = last.insert(line.clone(), number).unwrap_or_default();
            assert!(before < number, "{receiver} got {payload} of {line} out of order: {number} behind {before}");
        }
        for (payload, times) in receipts.times.iter().filter(|(payload, _)| is_exactly_once(receiver, payload)) {
            assert_eq!(*times, 1, "{receiver} got {payload} more than once");
        }
    }
}

/// The sequence in which a receiver must get a message, and its number there: of a push its stream's offsets, of a
/// device's publish the publisher's own count.
fn line_of(facts: &Facts, receiver: &str, payload: &str) -> (String, u64) {
    let user = format!("inbox {}", receiver.split('/').next().unwrap_or_default());
    let places = facts.places.get(payload).into_iter().flatten();
    let mut here = places.filter(|place| place.stream == user || place.stream.starts_with("topic "));
    match here.next() {
        Some(place) => (place.stream.clone(), place.offset),
        None => {
            let (line, number) = payload.rsplit_once(' ').expect("a payload ends with its number");
            (line.to_owned(), number.parse().expect("a number"))
        }
    }
}
