//! The memory store with faults, telling the ledger what it has.

use crate::coverage::Seen;
use crate::ledger::{Ledger, Main};
use kittiwake::base::clock::Now;
use kittiwake::base::ids::{AppId, Epoch, Offset, Seq};
use kittiwake::base::log::{StreamGap, StreamHead};
use kittiwake::base::message::{Entry, StreamKey};
use kittiwake::session::core::record;
use kittiwake::store::{Group, KnownKey, MemoryStore, Record, Standing, Store, StoreFault, Usage};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What the next write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Works,
    /// Nothing reaches the medium.
    Fails,
    /// All reaches the medium, and the caller is told that it failed.
    FailsAfterwards,
}

pub struct Flaky {
    pub inner: MemoryStore,
    pub next_write: Write,
    pub reads_fail: Cell<bool>,
    pub ledger: Rc<RefCell<Ledger>>,
}

/// Kinds of session records, as `session/core/record.rs` numbers them.
const MAIN: u8 = 0;
const FLIGHT: u8 = 2;
const RECEIVED: u8 = 3;

/// `s`, app, user, 0, device, 0, kind, identifier.
fn kind(key: &[u8]) -> Option<u8> {
    let mut parts = key.strip_prefix(b"s")?.get(2..)?.splitn(3, |&byte| byte == 0);
    parts.nth(2)?.first().copied()
}

fn names(key: &[u8]) -> (String, String) {
    let mut parts = key[3..].split(|&byte| byte == 0).map(|name| String::from_utf8_lossy(name).into_owned());
    let mut next = || parts.next().expect("a session's key names user and device");
    let (user, device) = (next(), next());
    // A device named as its user is named once.
    let device = if device.is_empty() { user.clone() } else { device };
    (user, device)
}

/// Whether a flight's record still has its message: it has not been released. Version, place (1 + 8, of a share group
/// 1 + 12), then the option.
fn has_message(value: &[u8]) -> bool {
    let at = if is_shared(value) { 14 } else { 10 };
    value.get(at).is_some_and(|&flag| flag == 1)
}

fn is_shared(value: &[u8]) -> bool {
    value.get(1) == Some(&3)
}

/// Whether it says that a share group's message is taken: `g`, app, `$share/group/filter`, 0, and the seq.
fn is_taken(key: &[u8]) -> bool {
    key.first() == Some(&b'g')
        && key.get(3..).is_some_and(|name| name.iter().position(|&byte| byte == 0) < Some(name.len() - 1))
}

impl Flaky {
    /// Session records left.
    pub fn session_records(&self) -> Vec<Record> {
        self.inner.read_records(b"s", &[], 1_000).expect("memory does not fail")
    }

    /// Marks which durable points the node would have to go on from if it died now.
    pub fn mark_held(&self) {
        let ledger = &mut self.ledger.borrow_mut();
        for (key, value) in self.session_records() {
            if kind(&key) == Some(FLIGHT) && is_shared(&value) {
                ledger.coverage.hit(Seen::CrashWithSharedTaken);
            }
            match kind(&key) {
                Some(FLIGHT) if has_message(&value) => ledger.coverage.hit(Seen::CrashAtPoint1),
                Some(FLIGHT) => ledger.coverage.hit(Seen::CrashAtPoint2),
                Some(RECEIVED) => ledger.coverage.hit(Seen::CrashAtPoint3),
                _ => {}
            }
        }
    }

    fn write(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault> {
        self.inner.append_many(group, now)?;
        let ledger = &mut self.ledger.borrow_mut();
        for entry in group.entries {
            ledger.committed(entry, now);
            ledger.first_kept.insert(entry.stream.clone(), self.inner.head(&entry.stream)?.first);
        }
        if group.entries.len() + group.records.len() > 1 {
            ledger.coverage.hit(Seen::CommitOfMany);
        }
        for change in group.records {
            ledger.tell(|| {
                let value = change.value.as_ref().map(|value| value.len());
                format!("log: record {:?} {value:?}", String::from_utf8_lossy(&change.key))
            });
            if let Some(topic) = change.key.strip_prefix(b"t") {
                let topic = String::from_utf8_lossy(&topic[2..]).into_owned();
                let message = change.value.as_ref().map(|value| record::parse_retained(value).expect("it can be read"));
                ledger.retained_committed(topic, message.as_ref());
            }
            if is_taken(&change.key) {
                let is_new = change.value.is_some();
                ledger.coverage.hit(if is_new { Seen::SharedTakenRecorded } else { Seen::SharedTakenRemoved });
            }
            match (kind(&change.key), &change.value) {
                (Some(MAIN), Some(value)) => {
                    drop(ledger.mains.insert(names(&change.key), Main { value: value.to_vec(), gone_at: None }));
                }
                (Some(MAIN), None) => {
                    let step = ledger.step;
                    ledger.mains.entry(names(&change.key)).and_modify(|main| main.gone_at = Some(step));
                }
                (Some(FLIGHT), Some(value)) if has_message(value) => {
                    ledger.coverage.hit(Seen::Point1FlightRecorded);
                }
                (Some(FLIGHT), Some(_)) => ledger.coverage.hit(Seen::Point2ReleaseRecorded),
                (Some(RECEIVED), Some(_)) => ledger.coverage.hit(Seen::Point3ReceivedRecorded),
                (Some(RECEIVED), None) => ledger.coverage.hit(Seen::Point4ReceivedRemoved),
                _ => {}
            }
        }
        Ok(())
    }

    fn readable(&self) -> Result<(), StoreFault> {
        if self.reads_fail.replace(false) {
            self.ledger.borrow_mut().coverage.hit(Seen::StoreReadFailed);
            return Err(fault());
        }
        Ok(())
    }
}

fn fault() -> StoreFault {
    StoreFault { reason: "the simulation says so".into() }
}

impl Store for Flaky {
    fn append_many(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault> {
        match std::mem::replace(&mut self.next_write, Write::Works) {
            Write::Works => self.write(group, now),
            Write::Fails => {
                self.ledger.borrow_mut().coverage.hit(Seen::StoreWriteFailed);
                Err(fault())
            }
            Write::FailsAfterwards => {
                self.write(group, now)?;
                self.ledger.borrow_mut().coverage.hit(Seen::StoreWriteFailedAfterWriting);
                Err(fault())
            }
        }
    }

    fn sweep(&mut self, now: Now) -> Result<(), StoreFault> {
        self.inner.sweep(now)
    }

    fn life(&self) -> Epoch {
        self.inner.life()
    }

    fn last_seq(&self) -> Result<Seq, StoreFault> {
        self.inner.last_seq()
    }

    fn head(&self, stream: &StreamKey) -> Result<StreamHead, StoreFault> {
        self.inner.head(stream)
    }

    fn standing(&self, stream: &StreamKey, record: &[u8]) -> Result<Standing, StoreFault> {
        self.readable()?;
        self.inner.standing(stream, record)
    }

    fn key(&self, app: AppId, key: &str, now: Now) -> Result<Option<KnownKey>, StoreFault> {
        self.inner.key(app, key, now)
    }

    fn read_stream(&self, stream: &StreamKey, after: Offset, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        self.readable()?;
        self.inner.read_stream(stream, after, limit)
    }

    fn read_topics(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        self.readable()?;
        self.inner.read_topics(app, after, limit)
    }

    fn read_gaps(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<StreamGap>, StoreFault> {
        self.inner.read_gaps(app, after, limit)
    }

    fn read_records(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Record>, StoreFault> {
        self.readable()?;
        self.inner.read_records(prefix, after, limit)
    }

    fn room(&self, app: AppId) -> Option<u64> {
        self.inner.room(app)
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}
