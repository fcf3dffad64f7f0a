//! Random requests against the log, over either store, and against a model so naive that it can be read: a list of entries
//! and two maps. And the stores against each other, where time and bounds make it more than a model should hold.

use super::durable::tests::Folder;
use super::fixture::{APP, at_ms, inbox, key, memory, message, topic};
use super::*;
use crate::base::ids::{Epoch, PushId};
use core::time::Duration;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const KEPT: usize = 4;

#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    seq: u64,
    records: BTreeMap<Box<[u8]>, Box<[u8]>>,
    keys: HashMap<(AppId, Box<str>), (u64, Vec<Position>)>,
    epochs: HashMap<StreamKey, Epoch>,
}

impl Model {
    fn last(&self, stream: &StreamKey) -> u64 {
        self.entries.iter().filter(|entry| entry.stream == *stream).count() as u64
    }

    fn kept<'a>(&'a self, stream: &'a StreamKey) -> impl Iterator<Item = &'a Entry> {
        let last = self.last(stream);
        self.entries.iter().filter(move |entry| entry.stream == *stream && entry.offset.0 + KEPT as u64 > last)
    }

    /// Takes over the epoch of a stream's first entry from the answer: nobody can know it before.
    fn append(&mut self, request: &Request, result: &Result<Answer, StoreError>) {
        let Request::Append { key, entries, records } = request else { unreachable!("only appends come here") };
        let known = key.as_ref().and_then(|key| self.keys.get(&(key.app, key.key.clone())));
        if let (Some((hash, positions)), Some(key)) = (known, key) {
            match result {
                Err(StoreError::KeyConflict) => assert_ne!(*hash, key.body_hash),
                Ok(Answer::Appended { positions: found, duplicate: Some(id), .. }) => {
                    let first = (*hash, PushId(u128::from(*hash)));
                    assert_eq!((first, &positions[..]), ((key.body_hash, *id), &found[..]));
                }
                other => panic!("a known key was answered {other:?}"),
            }
            return;
        }
        let Ok(Answer::Appended { positions, duplicate: None, seq }) = result else { panic!("{result:?}") };
        assert_eq!(positions.len(), entries.len());
        for (new, position) in entries.iter().zip(positions.iter()) {
            let epoch = *self.epochs.entry(new.stream.clone()).or_insert(position.epoch);
            self.seq += 1;
            let offset = Offset(self.last(&new.stream) + 1);
            let expected = Position { epoch, offset, seq: Seq(self.seq) };
            assert_eq!(*position, expected);
            let (stream, message) = (new.stream.clone(), new.message.clone());
            self.entries.push(Entry { stream, epoch, offset, seq: Seq(self.seq), message });
        }
        assert_eq!(seq.0, self.seq);
        for change in records {
            match &change.value {
                Some(value) => self.records.insert(change.key.clone(), value.clone()),
                None => self.records.remove(&change.key),
            };
        }
        if let Some(key) = key {
            self.keys.insert((key.app, key.key.clone()), (key.body_hash, positions.to_vec()));
        }
    }

    fn read(&self, request: &Request, result: &Result<Answer, StoreError>) {
        match (request, result.as_ref().expect("memory does not fail")) {
            (Request::ReadStream { stream, after, limit }, Answer::Stream { head, entries }) => {
                let expected = self.kept(stream).filter(|entry| entry.offset > *after).take(*limit);
                assert!(entries.iter().eq(expected));
                self.head(stream, head);
            }
            (Request::Head { stream }, Answer::Head(head)) => self.head(stream, head),
            (Request::Standing { stream, record }, Answer::Standing(head, value)) => {
                self.head(stream, head);
                assert_eq!(value.as_ref(), self.records.get(record));
            }
            (Request::ReadTopics { app, after, limit }, Answer::Topics { entries, through, .. }) => {
                let is_kept = |entry: &&Entry| self.kept(&entry.stream).any(|kept| kept.seq == entry.seq);
                let is_topic = |entry: &&Entry| entry.stream.topics_of() == Some(*app);
                let mut expected: Vec<_> =
                    self.entries.iter().filter(is_topic).filter(is_kept).filter(|entry| entry.seq > *after).collect();
                let is_cut = expected.len() >= *limit;
                expected.truncate(*limit);
                assert!(entries.iter().eq(expected.iter().copied()));
                let last = expected.last().map_or(*after, |entry| entry.seq);
                assert_eq!(*through, if is_cut { last } else { Seq(self.seq) });
            }
            (Request::ReadRecords { prefix, after, limit }, Answer::Records(found)) => {
                let all = self.records.iter().filter(|(key, _)| key.starts_with(prefix) && *key > after);
                assert!(found.iter().map(|(key, value)| (key, value)).eq(all.take(*limit)));
            }
            (request, answer) => panic!("{request:?} was answered {answer:?}"),
        }
    }

    fn head(&self, stream: &StreamKey, head: &StreamHead) {
        let last = self.last(stream);
        let first = self.kept(stream).next().map_or(last + 1, |entry| entry.offset.0);
        let epoch = self.epochs.get(stream).copied().unwrap_or(Epoch(0));
        assert_eq!((head.epoch, head.first.0, head.last.0), (epoch, first, last));
    }
}

fn a_stream() -> impl Strategy<Value = StreamKey> {
    prop_oneof![
        (0..3u8).prop_map(|user| inbox(&format!("u{user}"))),
        (0..3u8).prop_map(|name| topic(&format!("t{name}"))),
        Just(StreamKey::Everyone(APP)),
        Just(StreamKey::Upstream(APP)),
    ]
}

fn a_change() -> impl Strategy<Value = RecordChange> {
    (proptest::collection::vec(0..3u8, 1..4), proptest::option::of(0..9u8))
        .prop_map(|(key, value)| RecordChange { key: key.into(), value: value.map(|value| Box::from([value])) })
}

fn a_request() -> impl Strategy<Value = Request> {
    let entries = proptest::collection::vec(a_stream(), 0..5);
    let records = proptest::collection::vec(a_change(), 0..4);
    let keys = proptest::option::weighted(0.4, (0..6u8, 0..2u64));
    let append = (keys, entries, records).prop_map(|(name, streams, records)| Request::Append {
        key: name.map(|(name, hash)| key(&format!("k{name}"), hash)),
        entries: streams.into_iter().map(|stream| NewEntry { stream, message: message("m") }).collect(),
        records,
    });
    let some_bytes = || proptest::collection::vec(0..3u8, 0..3).prop_map(Vec::into_boxed_slice);
    prop_oneof![
        4 => append,
        1 => (a_stream(), 0..20u64, 0..6usize)
            .prop_map(|(stream, after, limit)| Request::ReadStream { stream, after: Offset(after), limit }),
        1 => (1..3u16, 0..60u64, 0..9usize)
            .prop_map(|(app, after, limit)| Request::ReadTopics { app: AppId(app), after: Seq(after), limit }),
        1 => (some_bytes(), some_bytes(), 0..6usize)
            .prop_map(|(prefix, after, limit)| Request::ReadRecords { prefix, after, limit }),
        1 => a_stream().prop_map(|stream| Request::Head { stream }),
        1 => (a_stream(), some_bytes()).prop_map(|(stream, record)| Request::Standing { stream, record }),
    ]
}

/// Groups of requests; after some of them the process is killed with a few more requests waiting.
fn groups() -> impl Strategy<Value = Vec<(Vec<Request>, bool)>> {
    proptest::collection::vec((proptest::collection::vec(a_request(), 1..8), proptest::bool::weighted(0.1)), 1..24)
}

fn model_retentions() -> Retentions {
    let retention = Retention::new(KEPT, Duration::MAX);
    Retentions {
        inbox: retention,
        topic: retention,
        everyone: retention,
        upstream: retention,
        history: Vec::new(),
        keys: 100,
        quotas: Vec::new(),
    }
}

/// `restart` makes the log anew over what its store has committed.
fn follow<S: Store>(groups: Vec<(Vec<Request>, bool)>, mut log: Log<S>, mut restart: impl FnMut(Log<S>) -> Log<S>) {
    let mut model = Model::default();
    for (turn, (requests, is_crash)) in groups.into_iter().enumerate() {
        for (token, request) in requests.iter().enumerate() {
            super::fixture::submit(&mut log, token as u64, request.clone());
        }
        if is_crash {
            log = restart(log);
            continue;
        }
        let before = model.entries.len();
        let Committed { batch, dones } = log.commit(at_ms(turn as u64 * 1_000));
        assert_eq!(dones.len(), requests.len());
        let pairs = || requests.iter().zip(dones.iter().map(|(_, done)| &done.result));
        pairs().filter(|(request, _)| is_append(request)).for_each(|(request, result)| model.append(request, result));
        pairs().filter(|(request, _)| !is_append(request)).for_each(|(request, result)| model.read(request, result));
        let entries = batch.as_ref().map_or(&[][..], |batch| &batch.entries);
        assert_eq!(entries, &model.entries[before..]);
        assert!(batch.is_none_or(|batch| !batch.entries.is_empty() && batch.seq.0 == model.seq));
        let usage = log.counters().stats().store;
        assert_eq!(usage.records, model.records.len() as u64);
        assert_eq!(usage.keys, model.keys.len() as u64);
        let kept: usize = model.epochs.keys().map(|stream| model.kept(stream).count()).sum();
        assert_eq!((usage.streams, usage.entries), (model.epochs.len() as u64, kept as u64));
    }
}

proptest! {
    #[test]
    fn the_log_answers_as_the_model_does(groups in groups(), seed: u64) {
        let log = Log::open(memory(model_retentions()), seed).expect("memory does not fail");
        follow(groups, log, |mut log| {
            log.crash().expect("memory does not fail");
            log
        });
    }
}

/// What one step of both stores does: how much later it is, and what is asked for.
fn steps() -> impl Strategy<Value = Vec<(u64, Vec<Request>)>> {
    let later = prop_oneof![6 => 0..400u64, 3 => 1_000..9_000u64, 1 => Just(25 * 3_600_000)];
    proptest::collection::vec((later, proptest::collection::vec(a_request(), 0..8)), 1..40)
}

fn small_retentions() -> Retentions {
    let age = Duration::from_secs(5);
    let retention = Retention { forget_after: age * 2, ..Retention::new(KEPT, age) };
    Retentions {
        inbox: retention,
        topic: retention,
        everyone: retention,
        // Two messages and not three.
        upstream: Retention { bytes: 2 * "hello".len() as u64, ..retention },
        history: Vec::new(),
        keys: 4,
        quotas: Vec::new(),
    }
}

proptest! {
    // Each case makes a data directory, which syncs files a dozen times.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_log_over_the_durable_store_answers_as_the_model_does_also_after_restarts(groups in groups(), seed: u64) {
        let folder = Folder::new();
        let log = Log::open(folder.open(model_retentions()), seed).expect("it was opened");
        let mut restarts = seed;
        follow(groups, log, |log| {
            drop(log);
            // An epoch must not come again in another life of the process.
            restarts = restarts.wrapping_add(1 << 40);
            Log::open(folder.open(model_retentions()), restarts).expect("it was opened")
        });
    }

    #[test]
    fn both_stores_answer_alike_when_time_passes_and_bounds_are_met(steps in steps(), seed: u64) {
        let folder = Folder::new();
        let mut durable = Log::open(folder.open(small_retentions()), seed).expect("it was opened");
        let mut memory = Log::open(memory(small_retentions()), seed).expect("memory does not fail");
        let mut now_ms = 0;
        for (later_ms, requests) in steps {
            now_ms += later_ms;
            for (token, request) in requests.into_iter().enumerate() {
                super::fixture::submit(&mut durable, token as u64, request.clone());
                super::fixture::submit(&mut memory, token as u64, request);
            }
            let (one, other) = (durable.commit(at_ms(now_ms)), memory.commit(at_ms(now_ms)));
            prop_assert_eq!(format!("{:?}", one), format!("{:?}", other));
            prop_assert_eq!(durable.counters().stats(), memory.counters().stats());
        }
    }
}

fn is_append(request: &Request) -> bool {
    matches!(request, Request::Append { .. })
}
