//! What was promised and what came, shared by all threads of a run.

use crate::gateway::PATIENCE;
use kittiwake::push::grpc::generated::Position;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
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
    /// What it does, since when, and up to where it has read.
    pub consumer_does: Option<(String, Instant)>,
    pub consumer_at: Position,
    /// Threads that have panicked: what they were to get does not come.
    pub fallen: Vec<String>,
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

    /// The last position under which a backend was told of a publish.
    pub fn newest_position(&self) -> Position {
        let positions = self.positions.values().flatten().map(|text| position_of(text));
        positions.max_by_key(|position| position.offset).unwrap_or_default()
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

    /// A thread of the run. Should it panic, that is on record.
    pub fn spawn(self: &Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let fall = Fall { ledger: Arc::clone(self), name: name.to_owned() };
        let thread = std::thread::Builder::new().name(name.to_owned());
        let watched = move || {
            let _fall = fall;
            work();
        };
        thread.spawn(watched).expect("the system has room for a thread")
    }

    /// Asserts that no thread has panicked: a run without it would prove less than it says.
    pub fn check_threads(&self) {
        let fallen = self.lock().fallen.clone();
        assert!(fallen.is_empty(), "threads that have panicked, as is said above: {fallen:?}");
    }

    /// The process that serves, if one does.
    pub fn serving(&self) -> Option<u64> {
        let facts = self.lock();
        facts.is_up.then_some(facts.generation)
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

    /// Waits until all that is owed has come, for as long as any of it comes. What has not: receivers with payloads.
    pub fn settle(&self) -> Vec<(String, String)> {
        let (mut least, mut since) = (usize::MAX, Instant::now());
        loop {
            let facts = self.lock();
            let (left, has_fallen) = (missing(&facts), !facts.fallen.is_empty());
            drop(facts);
            if left.len() < least {
                (least, since) = (left.len(), Instant::now());
            }
            // What a thread that has panicked was to get does not come; what others lack may.
            let patience = if has_fallen { PATIENCE / 12 } else { PATIENCE };
            if left.is_empty() || since.elapsed() >= patience {
                return left;
            }
            // Not asked at each receipt: it looks through everything.
            self.wait_for(Duration::from_millis(100), |_| false);
        }
    }
}

/// Falls with its thread.
struct Fall {
    ledger: Arc<Ledger>,
    name: String,
}

impl Drop for Fall {
    fn drop(&mut self) {
        // Where the thread held the ledger, all others fall as well.
        if std::thread::panicking()
            && let Ok(mut facts) = self.ledger.facts.lock()
        {
            facts.fallen.push(core::mem::take(&mut self.name));
            self.ledger.changed.notify_all();
        }
    }
}

/// As the webhook says a position.
pub fn position_text(Position { epoch, offset }: Position) -> String {
    format!("{epoch:016x}:{offset}")
}

fn position_of(text: &str) -> Position {
    let (epoch, offset) = text.split_once(':').expect("epoch:offset");
    let epoch = u64::from_str_radix(epoch, 16).expect("64 bits");
    Position { epoch, offset: offset.parse().expect("a number") }
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
