//! How fast the durable store is on a disk: messages a second, CPU and commit latency by the number of messages that one
//! commit holds, beside a file that gets the same bytes with one fdatasync a commit, and beside the store in memory. Then, with
//! the gateway itself: the time of a start with many sessions that are away, their memory, and how fast they come back.
//!
//! ```text
//! cargo build --release && cargo run --release --example store -- DIR [MESSAGES [SESSIONS [RESUMED]]]
//! ```
//! Without numbers: 400,000 messages a row, 1,000,000 sessions, of which 100,000 come back with 10 messages each.
//! A message has 200 bytes and goes to one of 100,000 inboxes, so each commit touches as many streams as it has messages.
//! CPU is that of all threads of the process, the database's own among them.

mod sessions;

use kittiwake::base::clock::Now;
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, Offset, Qos};
use kittiwake::base::message::{Message, StreamKey};
use kittiwake::store::durable::Opening;
use kittiwake::store::{
    Address, Answer, DurableStore, Log, MemoryStore, NewEntry, Request, RequestToken, Retentions, Store,
};
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages of one commit.
const GROUPS: [usize; 5] = [1, 16, 64, 256, 1_024];
const STREAMS: u64 = 100_000;
const PAYLOAD_BYTES: usize = 200;
/// A figure takes at most this long.
const TIME_MAX: Duration = Duration::from_secs(8);

fn cpu() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec.unsigned_abs() as u32)
}

/// What one row is made of.
struct Row {
    messages: usize,
    time: Duration,
    cpu: Duration,
    commits: Vec<Duration>,
}

impl Row {
    fn print(mut self, what: &str, group: usize) {
        self.commits.sort_unstable();
        let at = |share: f64| self.commits[((self.commits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
        let messages = self.messages as f64;
        println!(
            "{what:<8} {group:>6} a commit {:>10.0} a second {:>7.2} µs of CPU each   commit p50 {:>7.3} ms, p99 {:>7.3} ms",
            messages / self.time.as_secs_f64(),
            self.cpu.as_secs_f64() * 1e6 / messages,
            at(0.5),
            at(0.99),
        );
    }
}

/// Commits until there are enough or the time is over.
fn measure(
    messages: usize,
    group: usize,
    mut commit: impl FnMut(usize) -> Result<(), Box<dyn Error>>,
) -> Result<Row, Box<dyn Error>> {
    let (began, cpu_before) = (Instant::now(), cpu());
    let (mut done, mut commits) = (0, Vec::new());
    while done < messages && began.elapsed() < TIME_MAX {
        let before = Instant::now();
        commit(group)?;
        commits.push(before.elapsed());
        done += group;
    }
    Ok(Row { messages: done, time: began.elapsed(), cpu: cpu().saturating_sub(cpu_before), commits })
}

/// A log with a push of QoS 1 to one user after the other.
struct Pushes<S> {
    log: Log<S>,
    streams: Vec<StreamKey>,
    next: u64,
    now_ms: u64,
}

impl<S: Store> Pushes<S> {
    fn new(store: S) -> Result<Self, Box<dyn Error>> {
        let log = Log::open(store, 1).map_err(|fault| fault.reason.to_string())?;
        let streams = (0..STREAMS).map(|user| StreamKey::Inbox(AppId(0), format!("user-{user:08}").into())).collect();
        Ok(Self { log, streams, next: 0, now_ms: 1 })
    }

    fn commit(&mut self, group: usize) -> Result<(), Box<dyn Error>> {
        for token in 0..group as u64 {
            // A step that visits all streams before it comes to the first one again.
            self.next = (self.next + 61_803) % STREAMS;
            let message = Message {
                app: AppId(0),
                topic: "$inbox/orders/7".into(),
                only_device: None,
                payload: vec![b'x'; PAYLOAD_BYTES].into(),
                qos: Qos::AtLeastOnce,
                retain: false,
                created_ms: 1_760_000_000_000,
                expires_ms: None,
                publisher: None,
                properties: None,
            };
            let stream = self.streams[self.next as usize].clone();
            let entries = vec![NewEntry { stream, message: Arc::new(message) }];
            let request = Request::Append { key: None, entries, records: Vec::new() };
            self.log
                .submit(Address::Control, RequestToken(token), request)
                .map_err(|(_, error)| format!("{error:?}"))?;
        }
        self.now_ms += 1;
        let committed = self.log.commit(Now { monotonic_ms: self.now_ms, wall_ms: 1_760_000_000_000 + self.now_ms });
        assert!(committed.dones.iter().all(|(_, done)| done.result.is_ok()), "the store failed");
        Ok(())
    }

    /// Reads streams from their beginning.
    fn read(&mut self, reads: usize) -> Result<usize, Box<dyn Error>> {
        let mut entries = 0;
        for token in 0..reads as u64 {
            self.next = (self.next + 61_803) % STREAMS;
            let stream = self.streams[self.next as usize].clone();
            let request = Request::ReadStream { stream, after: Offset(0), limit: 20 };
            self.log
                .submit(Address::Control, RequestToken(token), request)
                .map_err(|(_, error)| format!("{error:?}"))?;
            for (_, done) in self.log.commit(Now { monotonic_ms: self.now_ms, wall_ms: 0 }).dones {
                if let Ok(Answer::Stream { entries: found, .. }) = done.result {
                    entries += found.len();
                }
            }
        }
        Ok(entries)
    }
}

fn open(path: &Path) -> Result<DurableStore, Box<dyn Error>> {
    let (retentions, hash) = (Retentions::default(), KeyedHash::new(1));
    Ok(DurableStore::open(Opening { path, retentions, hash, seed: 1, accept_loss: false })?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("which directory?")?;
    let messages = arguments.next().map_or(Ok(400_000), |text| text.parse())?;
    let sessions = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let resumed = arguments.next().map_or(Ok(100_000.min(sessions)), |text| text.parse())?;
    if sessions == 0 || resumed > sessions {
        return Err("no more sessions can come back than there are, and there is one at least".into());
    }
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;

    let mut file = File::create(directory.join("floor"))?;
    for group in GROUPS {
        let bytes = vec![b'x'; group * (PAYLOAD_BYTES + 100)];
        let floor = measure(messages, group, |_| Ok(file.write_all(&bytes).and_then(|()| file.sync_data())?))?;
        floor.print("a file", group);
    }
    let mut memory = Pushes::new(MemoryStore::new(Retentions::default(), KeyedHash::new(1)))?;
    let mut durable = Pushes::new(open(&directory.join("data"))?)?;
    for group in GROUPS {
        measure(messages, group, |group| memory.commit(group))?.print("memory", group);
        measure(messages, group, |group| durable.commit(group))?.print("durable", group);
    }
    let (began, reads) = (Instant::now(), 20_000);
    let entries = durable.read(reads)?;
    let took = began.elapsed().as_secs_f64() * 1e6;
    println!("read     the first 20 of an inbox: {:.1} µs each, {entries} entries", took / reads as f64);
    drop(durable);
    let began = Instant::now();
    drop(open(&directory.join("data"))?);
    println!("opened   again in {:.0} ms", began.elapsed().as_secs_f64() * 1_000.0);
    Ok(sessions::measure(&directory.join("gateway"), sessions, resumed).map_err(|error| error.to_string())?)
}
