//! What the tests of this module share: short ways to make requests, and a store that fails on command.

use super::*;
use crate::base::hash::KeyedHash;
use crate::base::ids::{PushId, Qos};
use bytes::Bytes;

pub(super) const APP: AppId = AppId(1);

pub(super) fn at_ms(ms: u64) -> Now {
    Now { monotonic_ms: ms, wall_ms: ms }
}

pub(super) fn inbox(user: &str) -> StreamKey {
    StreamKey::Inbox(APP, user.into())
}

pub(super) fn topic(name: &str) -> StreamKey {
    StreamKey::Topic(APP, name.into())
}

pub(super) fn message(payload: &str) -> Arc<Message> {
    Arc::new(Message {
        app: APP,
        topic: "t".into(),
        only_device: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::AtLeastOnce,
        retain: false,
        created_ms: 0,
        expires_ms: None,
        publisher: None,
        properties: None,
    })
}

pub(super) fn entry(stream: &StreamKey) -> NewEntry {
    NewEntry { stream: stream.clone(), message: message("hello") }
}

pub(super) fn key(name: &str, body_hash: u64) -> IdempotencyKey {
    IdempotencyKey { app: APP, key: name.into(), body_hash, id: PushId(u128::from(body_hash)) }
}

pub(super) fn put(name: &str, value: &str) -> RecordChange {
    RecordChange { key: name.as_bytes().into(), value: Some(value.as_bytes().into()) }
}

pub(super) fn append(streams: &[StreamKey]) -> Request {
    Request::Append { key: None, entries: streams.iter().map(entry).collect(), records: Vec::new() }
}

pub(super) fn keyed(name: &str, body_hash: u64, streams: &[StreamKey]) -> Request {
    let key = Some(key(name, body_hash));
    Request::Append { key, entries: streams.iter().map(entry).collect(), records: Vec::new() }
}

pub(super) fn record(name: &str, value: &str) -> Request {
    Request::Append { key: None, entries: Vec::new(), records: vec![put(name, value)] }
}

pub(super) fn memory(retentions: Retentions) -> MemoryStore {
    MemoryStore::new(retentions, KeyedHash::new(3))
}

pub(super) fn log() -> Log<MemoryStore> {
    Log::open(memory(Retentions::default()), 7).expect("memory does not fail")
}

pub(super) fn submit<S: Store>(log: &mut Log<S>, token: u64, request: Request) {
    let from = Address::Control;
    log.submit(from, RequestToken(token), request).map_err(|(_, error)| error).expect("there is room");
}

/// One request, one commit.
pub(super) fn ask<S: Store>(log: &mut Log<S>, request: Request, ms: u64) -> Result<Answer, StoreError> {
    submit(log, 0, request);
    let mut dones = log.commit(at_ms(ms)).dones;
    assert_eq!(dones.len(), 1);
    dones.remove(0).1.result
}

pub(super) type AppendedParts = (Arc<[Position]>, Option<PushId>, Seq);

pub(super) fn appended(result: Result<Answer, StoreError>) -> AppendedParts {
    match result {
        Ok(Answer::Appended { positions, duplicate, seq }) => (positions, duplicate, seq),
        other => panic!("not appended: {other:?}"),
    }
}

pub(super) fn stream_of<S: Store>(log: &mut Log<S>, stream: &StreamKey, after: u64) -> (StreamHead, Vec<Entry>) {
    let request = Request::ReadStream { stream: stream.clone(), after: Offset(after), limit: usize::MAX };
    match ask(log, request, 0) {
        Ok(Answer::Stream { head, entries }) => (head, entries),
        other => panic!("not a stream: {other:?}"),
    }
}

/// The seqs of entries, up to where that is all, and the gaps: stream, from where it is whole, the newest seq gone.
pub(super) type TopicsParts = (Vec<u64>, Seq, Vec<(StreamKey, u64, u64)>);

pub(super) fn topics_of<S: Store>(log: &mut Log<S>, after: u64, limit: usize) -> TopicsParts {
    match ask(log, Request::ReadTopics { app: APP, after: Seq(after), limit }, 0) {
        Ok(Answer::Topics { entries, through, gaps }) => {
            let gaps = gaps.into_iter().map(|gap| (gap.stream, gap.kept_from.0, gap.trimmed.0));
            (entries.iter().map(|entry| entry.seq.0).collect(), through, gaps.collect())
        }
        other => panic!("not topics: {other:?}"),
    }
}

/// A store whose writes, reads or sweeps fail while they are told to.
pub(super) struct Failing {
    pub(super) inner: MemoryStore,
    pub(super) writes_fail: bool,
    pub(super) reads_fail: bool,
    pub(super) sweeps_fail: bool,
}

impl Failing {
    pub(super) fn new() -> Self {
        let inner = memory(Retentions::default());
        Self { inner, writes_fail: false, reads_fail: false, sweeps_fail: false }
    }
}

fn refuse(fails: bool, what: &str) -> Result<(), StoreFault> {
    if fails { Err(StoreFault { reason: what.into() }) } else { Ok(()) }
}

impl Store for Failing {
    fn append_many(&mut self, group: Group<'_>, now: Now) -> Result<(), StoreFault> {
        refuse(self.writes_fail, "write")?;
        self.inner.append_many(group, now)
    }

    fn sweep(&mut self, now: Now) -> Result<(), StoreFault> {
        refuse(self.sweeps_fail, "sweep")?;
        self.inner.sweep(now)
    }

    fn life(&self) -> crate::base::ids::Epoch {
        self.inner.life()
    }

    fn last_seq(&self) -> Result<Seq, StoreFault> {
        self.inner.last_seq()
    }

    fn head(&self, stream: &StreamKey) -> Result<StreamHead, StoreFault> {
        refuse(self.reads_fail, "head")?;
        self.inner.head(stream)
    }

    fn standing(&self, stream: &StreamKey, record: &[u8]) -> Result<Standing, StoreFault> {
        refuse(self.reads_fail, "standing")?;
        self.inner.standing(stream, record)
    }

    fn key(&self, app: AppId, key: &str, now: Now) -> Result<Option<KnownKey>, StoreFault> {
        refuse(self.reads_fail, "key")?;
        self.inner.key(app, key, now)
    }

    fn read_stream(&self, stream: &StreamKey, after: Offset, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        refuse(self.reads_fail, "stream")?;
        self.inner.read_stream(stream, after, limit)
    }

    fn read_topics(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<Entry>, StoreFault> {
        refuse(self.reads_fail, "topics")?;
        self.inner.read_topics(app, after, limit)
    }

    fn read_gaps(&self, app: AppId, after: Seq, limit: usize) -> Result<Vec<StreamGap>, StoreFault> {
        refuse(self.reads_fail, "gaps")?;
        self.inner.read_gaps(app, after, limit)
    }

    fn read_records(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Record>, StoreFault> {
        refuse(self.reads_fail, "records")?;
        self.inner.read_records(prefix, after, limit)
    }

    fn room(&self, app: AppId) -> Option<u64> {
        self.inner.room(app)
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}
