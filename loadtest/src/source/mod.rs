//! Owns: backends: threads that push letters through the gateway's API, beside the fleet that receives them.
//! In: an order. Out: what was pushed and what was said to it.
//! Must not: share more with the fleet than counts: a letter says itself whose it is and when it was due.
//! Invariants: pushes to one member leave in order over one connection; no more are under way than ordered, whether
//! their answer or their delivery is outstanding; a source ends when it is told to, and waits a bounded time for answers.

mod bare;
mod bell;
mod grpc;
mod http;
mod line;
mod mqtt;

use crate::Failure;
use crate::clock::sleep_to_the_point;
use crate::fleet::orders::{Pace, Plan};
use crate::fleet::squad::user_name;
use bell::Bell;
use hdrhistogram::Histogram;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::Version;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longest wait for the window to open: what is then under way will not be answered.
const STUCK: Duration = Duration::from_secs(20);
/// While the window is closed the source looks again at least so often.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Longest answer time that is told apart from longer ones, in microseconds.
const ANSWER_US_MAX: u64 = 600_000_000;
/// HTTP connections: pushes of one user go over one of them.
const HTTP_CONNECTIONS: usize = 8;

/// How pushes reach the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Batches in one `PushStream`.
    Grpc,
    /// `POST /v1/push`, or `/v1/push/batch`, over several connections.
    Http,
    /// A PUBLISH at QoS 0 to this topic, in which `{n}` stands for the receiver's number, to a server at the API's address.
    Mqtt { topic: &'static str, version: Version },
    /// To the floor, which hands on a PUBLISH with this topic.
    Bare { topic: &'static str, version: Version },
}

/// What to push.
#[derive(Debug)]
pub struct Order {
    pub door: Door,
    pub api: SocketAddr,
    pub api_key: Option<String>,
    pub plan: Plan,
    /// Start of the receivers' user names.
    pub prefix: String,
    pub qos: Qos,
    pub payload_bytes: usize,
    /// Pushes in one batch at most.
    pub batch: usize,
    /// Pushes under way at most.
    pub window: u64,
    pub left: u64,
    pub until: Option<Instant>,
    /// Pushes a second that are due, whatever the server does; else each is due when the window has room.
    pub rate: Option<u32>,
}

/// One push on its way.
#[derive(Clone, Debug)]
struct Push {
    tag: u64,
    /// Receiver, by number and by name.
    member: u32,
    user: String,
    payload: Vec<u8>,
    due: Instant,
}

/// What the parts of a source, and the fleet beside it, tell each other.
#[derive(Debug)]
struct Shared {
    pushed: AtomicU64,
    answered: AtomicU64,
    delivered: AtomicU64,
    /// The fleet has got more.
    bell: Bell,
    /// All that was ordered has been pushed.
    finished: AtomicBool,
    stop: AtomicBool,
    answers: Mutex<Answers>,
}

/// What the server said.
#[derive(Debug)]
pub struct Answers {
    /// Refusals, by reason.
    pub refused: BTreeMap<String, u64>,
    /// From when a push was due to its answer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Default for Answers {
    fn default() -> Self {
        let latency = Histogram::new_with_max(ANSWER_US_MAX, 3).expect("three digits of ten minutes can be kept");
        Self { refused: BTreeMap::new(), latency }
    }
}

impl Answers {
    /// Takes over what another source was answered.
    pub fn add(&mut self, more: &Self) {
        for (reason, count) in &more.refused {
            *self.refused.entry(reason.clone()).or_default() += count;
        }
        self.latency.add(&more.latency).expect("both have the same bounds");
    }
}

/// A source at work.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
    builder: JoinHandle<(Plan, Result<(), String>)>,
    delivered_before: u64,
    started_with: u64,
}

/// What a source did.
#[derive(Debug)]
pub struct Sent {
    /// With it the next source goes on.
    pub plan: Plan,
    pub pushed: u64,
    pub answers: Answers,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
}

impl Source {
    /// Starts to push. `delivered`: letters that the fleet has got before.
    pub fn start(order: Order, delivered: u64) -> Result<Self, Failure> {
        let shared = Arc::new(Shared::new()?);
        let (for_builder, started_with) = (Arc::clone(&shared), order.plan.total);
        let builder = thread::Builder::new().name("source".to_owned()).spawn(move || {
            sleep_to_the_point();
            build(order, &for_builder)
        })?;
        Ok(Self { shared, builder, delivered_before: delivered, started_with })
    }

    /// Tells how many letters the fleet has got; whether that is all there will be.
    pub fn delivered(&self, delivered: u64) -> bool {
        let here = delivered - self.delivered_before;
        if self.shared.delivered.swap(here, Ordering::Relaxed) != here {
            self.shared.bell.ring();
            self.builder.thread().unpark();
        }
        self.shared.finished.load(Ordering::Acquire) && here >= self.shared.pushed.load(Ordering::Relaxed)
    }

    /// Ends it, whether it is done or not, and waits for it.
    pub fn end(self) -> Sent {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.bell.ring();
        self.builder.thread().unpark();
        let (plan, result) = self.builder.join().expect("a source does not panic");
        let answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = Answers { refused: answers.refused.clone(), latency: answers.latency.clone() };
        let pushed = plan.total - self.started_with;
        Sent { plan, pushed, answers, failure: result.err() }
    }
}

impl Shared {
    fn new() -> io::Result<Self> {
        Ok(Self {
            pushed: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            bell: Bell::new()?,
            finished: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            answers: Mutex::default(),
        })
    }

    /// A push was answered, with a refusal if there is one.
    fn answered(&self, builder: &thread::Thread, push_due: Instant, refusal: Option<String>) {
        let late = push_due.elapsed().as_micros() as u64;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.latency.saturating_record(late);
        if let Some(reason) = refusal {
            *answers.refused.entry(reason).or_default() += 1;
        }
        drop(answers);
        self.answered.fetch_add(1, Ordering::Release);
        builder.unpark();
    }
}

impl Shared {
    /// The server said something that nothing had asked for.
    fn unexpected(&self, what: String) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.refused.entry(what).or_default() += 1;
    }
}

/// Where batches go.
enum Sink {
    Grpc(Box<grpc::Stream>),
    Http(http::Connections),
    Mqtt(mqtt::Publisher),
    Bare(bare::Wire),
}

impl Sink {
    fn send(&mut self, pushes: Vec<Push>) -> Result<(), String> {
        match self {
            Self::Grpc(stream) => stream.send(&pushes),
            Self::Http(connections) => connections.send(pushes),
            Self::Mqtt(publisher) => publisher.send(&pushes),
            Self::Bare(wire) => wire.send(&pushes),
        }
    }

    /// Waits until something is answered or delivered, for so long at most.
    fn rest(&mut self, at_most: Duration) -> Result<(), String> {
        match self {
            Self::Grpc(stream) => stream.rest(at_most),
            Self::Http(_) | Self::Mqtt(_) | Self::Bare(_) => {
                thread::park_timeout(at_most);
                Ok(())
            }
        }
    }

    /// Waits until then.
    fn pause(&mut self, until: Instant) -> Result<(), String> {
        match self {
            Self::Grpc(stream) => stream.pause(until),
            Self::Http(_) | Self::Mqtt(_) | Self::Bare(_) => {
                thread::sleep(until.saturating_duration_since(Instant::now()));
                Ok(())
            }
        }
    }
}

/// Makes letters as they fall due, and hands them on in batches.
fn build(mut order: Order, shared: &Arc<Shared>) -> (Plan, Result<(), String>) {
    let result = (|| {
        let builder = thread::current();
        let mut sink = match order.door {
            Door::Grpc => Sink::Grpc(Box::new(grpc::Stream::open(&order, Arc::clone(shared), builder)?)),
            Door::Http => Sink::Http(http::Connections::open(&order, shared, &builder)),
            Door::Mqtt { topic, version } => {
                Sink::Mqtt(mqtt::Publisher::open(&order, (topic, version), Arc::clone(shared), builder)?)
            }
            Door::Bare { topic, version } => {
                Sink::Bare(bare::Wire::open(&order, (topic, version), Arc::clone(shared), builder)?)
            }
        };
        let pushed = push_all(&mut order, shared, &mut sink);
        shared.finished.store(true, Ordering::Release);
        pushed?;
        // Every answer belongs to this source's figures.
        let rest = |at_most| sink.rest(at_most);
        wait(shared, STUCK, rest, |shared| outstanding(shared, Shared::is_answered) == 0).map(drop)
    })();
    shared.finished.store(true, Ordering::Release);
    (order.plan, result)
}

fn push_all(order: &mut Order, shared: &Shared, sink: &mut Sink) -> Result<(), String> {
    let started = Instant::now();
    let mut pace = order.rate.map(|rate| Pace { started, rate, issued: 0 });
    while order.left > 0 && !shared.stop.load(Ordering::Relaxed) {
        let batch = order.batch.min(usize::try_from(order.left).unwrap_or(usize::MAX)).max(1);
        // An open loop sends what is due, a closed one whole batches.
        let wanted = if pace.is_some() { 1 } else { batch as u64 };
        let window = order.window.max(wanted);
        let has_room = |shared: &Shared| outstanding(shared, Shared::is_settled) + wanted <= window;
        if !wait(shared, STUCK, |at_most| sink.rest(at_most), has_room)? {
            return Ok(());
        }
        let mut now = Instant::now();
        if order.until.is_some_and(|until| now >= until) {
            return Ok(());
        }
        if let Some(pace) = &pace
            && pace.due() > now
        {
            sink.pause(pace.due())?;
            now = Instant::now();
        }
        let room = (window - outstanding(shared, Shared::is_settled)) as usize;
        let mut pushes = Vec::with_capacity(batch);
        while pushes.len() < batch.min(room) {
            let due = pace.map_or(now, |pace| pace.due());
            if due > now {
                break;
            }
            pushes.push(one(order, due));
            if let Some(pace) = &mut pace {
                pace.issued += 1;
            }
        }
        order.left -= pushes.len() as u64;
        shared.pushed.fetch_add(pushes.len() as u64, Ordering::Relaxed);
        sink.send(pushes)?;
    }
    Ok(())
}

fn one(order: &mut Order, due: Instant) -> Push {
    let tag = order.plan.total;
    let letter = order.plan.letter(due);
    let mut payload = vec![0; order.payload_bytes];
    letter.write(&mut payload);
    Push { tag, member: letter.member, user: user_name(&order.prefix, letter.member), payload, due }
}

impl Shared {
    fn is_answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Answered and delivered.
    fn is_settled(&self) -> u64 {
        self.is_answered().min(self.delivered.load(Ordering::Relaxed))
    }
}

fn outstanding(shared: &Shared, settled: impl Fn(&Shared) -> u64) -> u64 {
    shared.pushed.load(Ordering::Relaxed).saturating_sub(settled(shared))
}

/// Waits until something is so; false when the source was told to stop.
fn wait(
    shared: &Shared,
    patience: Duration,
    mut rest: impl FnMut(Duration) -> Result<(), String>,
    so: impl Fn(&Shared) -> bool,
) -> Result<bool, String> {
    let progress = |shared: &Shared| shared.is_answered() + shared.delivered.load(Ordering::Relaxed);
    let (mut last, mut moved) = (progress(shared), Instant::now());
    loop {
        if so(shared) {
            return Ok(true);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let at = progress(shared);
        if at != last {
            (last, moved) = (at, Instant::now());
        } else if moved.elapsed() > patience {
            return Err("pushes under way are neither answered nor delivered".to_owned());
        }
        rest(LOOK_AGAIN)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_under_way_until_it_is_answered_and_delivered() {
        let shared = Shared::new().expect("there is an fd");
        shared.pushed.store(5, Ordering::Relaxed);
        shared.delivered.store(4, Ordering::Relaxed);
        shared.answered(&thread::current(), Instant::now(), None);
        shared.answered(&thread::current(), Instant::now(), Some("busy".to_owned()));
        assert_eq!((outstanding(&shared, Shared::is_answered), outstanding(&shared, Shared::is_settled)), (3, 3));
        shared.delivered.store(1, Ordering::Relaxed);
        assert_eq!(outstanding(&shared, Shared::is_settled), 4);
        let answers = shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((answers.latency.len(), answers.refused.get("busy")), (2, Some(&1)));
    }

    #[test]
    fn a_source_that_waits_ends_when_it_is_told_to_or_when_nothing_moves() {
        let shared = Shared::new().expect("there is an fd");
        let rest = |at_most| {
            thread::sleep(at_most);
            Ok(())
        };
        assert_eq!(wait(&shared, STUCK, rest, |_| true), Ok(true));
        assert!(wait(&shared, Duration::ZERO, rest, |_| false).is_err());
        assert_eq!(wait(&shared, STUCK, |_| Err("it fails".to_owned()), |_| false), Err("it fails".to_owned()));
        shared.stop.store(true, Ordering::Relaxed);
        assert_eq!(wait(&shared, STUCK, rest, |_| false), Ok(false));
    }
}
