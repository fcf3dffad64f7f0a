use super::*;
use crate::limits::{READ_ENTRIES_MAX, STORE_SWEEP_INTERVAL};
use crate::store::Log;
use crate::store::fixture::{APP, append, appended, ask, at_ms, inbox, memory, stream_of, topic, topics_of};

const AGE_MS: u64 = 10_000;

fn small() -> Retentions {
    let age = Duration::from_millis(AGE_MS);
    let retention = Retention { forget_after: age * 2, ..Retention::new(3, age) };
    Retentions {
        inbox: retention,
        topic: retention,
        everyone: retention,
        upstream: retention,
        history: Vec::new(),
        keys: 4,
        quotas: Vec::new(),
    }
}

fn log() -> Log<MemoryStore> {
    Log::open(memory(small()), 7).expect("memory does not fail")
}

fn offsets(log: &mut Log<MemoryStore>, stream: &StreamKey) -> (u64, u64, Vec<u64>) {
    let (head, entries) = stream_of(log, stream, 0);
    (head.first.0, head.last.0, entries.iter().map(|entry| entry.offset.0).collect())
}

#[test]
fn a_stream_keeps_its_bound_of_entries_and_drops_the_oldest_beyond_it() {
    let mut log = log();
    appended(ask(&mut log, append(&[inbox("a"), inbox("a")]), 1));
    assert_eq!(offsets(&mut log, &inbox("a")), (1, 2, vec![1, 2]));
    appended(ask(&mut log, append(&[inbox("a")]), 1));
    assert_eq!(offsets(&mut log, &inbox("a")), (1, 3, vec![1, 2, 3]));
    appended(ask(&mut log, append(&[inbox("a")]), 1));
    assert_eq!(offsets(&mut log, &inbox("a")), (2, 4, vec![2, 3, 4]));
    assert_eq!(stream_of(&mut log, &inbox("a"), 0).0.trimmed, Seq(1));
    let usage = log.counters().stats().store;
    assert_eq!((usage.entries, usage.trimmed, usage.bytes), (3, 1, 3 * "hello".len() as u64));
}

#[test]
fn a_stream_keeps_its_bound_of_bytes_and_its_newest_entry_however_long_that_is() {
    let of = |bytes| Retentions { upstream: Retention { bytes, ..small().upstream }, ..small() };
    let length = "hello".len() as u64;
    for (bytes, kept) in [(3 * length, 3), (3 * length - 1, 2), (2 * length + 1, 2), (2 * length, 2), (1, 1)] {
        let mut log = Log::open(memory(of(bytes)), 7).expect("memory does not fail");
        let events = vec![StreamKey::Upstream(APP); 3];
        appended(ask(&mut log, append(&events), 1));
        let (first, last, offsets) = offsets(&mut log, &events[0]);
        assert_eq!((first, last, offsets.len() as u64), (4 - kept, 3, kept), "{bytes} bytes");
        assert_eq!(log.counters().stats().store.bytes, kept * length);
    }
}

#[test]
fn a_history_rule_decides_for_the_topics_it_matches_and_the_first_one_wins() {
    let keep = |entries, age_ms| {
        let age = Duration::from_millis(age_ms);
        Retention { forget_after: age.max(Duration::from_millis(AGE_MS)), ..Retention::new(entries, age) }
    };
    let history = vec![("a/+".into(), keep(1, AGE_MS)), ("a/#".into(), keep(5, 100))];
    let mut log = Log::open(memory(Retentions { history, ..small() }), 7).expect("memory does not fail");
    for name in ["a/b", "a/b/c", "b"] {
        appended(ask(&mut log, append(&vec![topic(name); 4]), 1));
    }
    assert_eq!(offsets(&mut log, &topic("a/b")), (4, 4, vec![4]));
    assert_eq!(offsets(&mut log, &topic("a/b/c")), (1, 4, vec![1, 2, 3, 4]));
    assert_eq!(offsets(&mut log, &topic("b")), (2, 4, vec![2, 3, 4]));
    log.commit(at_ms(101 + STORE_SWEEP_INTERVAL.as_millis() as u64));
    assert_eq!(offsets(&mut log, &topic("a/b/c")), (5, 4, vec![]));
    assert_eq!(offsets(&mut log, &topic("a/b")), (4, 4, vec![4]));
    let lost: Vec<_> = topics_of(&mut log, 0, 99).2;
    assert!(lost.contains(&(topic("a/b"), 4, 3)) && lost.contains(&(topic("a/b/c"), 5, 8)), "{lost:?}");
}

#[test]
fn reading_from_before_behind_and_beyond_what_is_kept_finds_what_is_there() {
    let mut log = log();
    appended(ask(&mut log, append(&vec![inbox("a"); 5]), 1));
    for (after, count) in [(0, 3), (2, 3), (3, 2), (5, 0), (6, 0), (u64::MAX, 0)] {
        assert_eq!(stream_of(&mut log, &inbox("a"), after).1.len(), count, "after {after}");
    }
    let nothing = StreamHead { epoch: Epoch(0), first: Offset(1), last: Offset(0), trimmed: Seq(0) };
    assert_eq!(stream_of(&mut log, &inbox("nobody"), 0), (nothing, Vec::new()));
}

#[test]
fn a_topic_entry_that_retention_removes_is_gone_from_both_indexes_and_leaves_a_trace() {
    let mut log = log();
    appended(ask(&mut log, append(&[topic("a"), topic("b"), topic("a"), topic("a"), topic("a")]), 1));
    assert_eq!(topics_of(&mut log, 0, READ_ENTRIES_MAX), (vec![2, 3, 4, 5], Seq(5), vec![(topic("a"), 2, 1)]));
    assert_eq!(stream_of(&mut log, &topic("a"), 0).0.trimmed, Seq(1));
    assert_eq!(stream_of(&mut log, &topic("b"), 0).0.trimmed, Seq(0));
}

#[test]
fn gaps_are_told_by_the_newest_entry_that_is_gone_to_who_reads_from_before_it() {
    let mut log = log();
    appended(ask(&mut log, append(&[topic("a"), StreamKey::Everyone(APP), topic("b")]), 1));
    assert_eq!(topics_of(&mut log, 0, 9).2, vec![]);
    appended(ask(&mut log, append(&vec![topic("a"); 5]), 1));
    appended(ask(&mut log, append(&vec![StreamKey::Everyone(APP); 3]), 1));
    let (a, everyone) = ((topic("a"), 4, 5), (StreamKey::Everyone(APP), 2, 2));
    assert_eq!(topics_of(&mut log, 0, 99).2, vec![everyone.clone(), a.clone()]);
    assert_eq!(topics_of(&mut log, 2, 99).2, vec![a.clone()], "who has read 2 has lost nothing of everyone");
    assert_eq!(topics_of(&mut log, 4, 99).2, vec![a]);
    assert_eq!(topics_of(&mut log, 5, 99).2, vec![]);
    // A page ends before the gaps that lie behind it.
    let (entries, through, gaps) = topics_of(&mut log, 0, 1);
    assert_eq!((entries, through, gaps), (vec![3], Seq(3), vec![everyone]));
}

#[test]
fn nobody_reads_beyond_the_gaps_that_one_answer_holds() {
    let mut log = log();
    let names: Vec<_> = (0..READ_ENTRIES_MAX + 1).map(|number| topic(&number.to_string())).collect();
    for _ in 0..4 {
        appended(ask(&mut log, append(&names), 1));
    }
    let last = names.len() as u64;
    let (entries, through, gaps) = topics_of(&mut log, 0, 9);
    assert_eq!((entries.len(), through, gaps.len()), (0, Seq(last - 1), READ_ENTRIES_MAX));
    let (entries, _, gaps) = topics_of(&mut log, last - 1, 9);
    assert_eq!((entries.len(), gaps), (9, vec![(names[READ_ENTRIES_MAX].clone(), 2, last)]));
}

#[test]
fn the_sweep_removes_an_entry_when_it_reaches_its_age_and_not_before() {
    let mut log = log();
    appended(ask(&mut log, append(&[inbox("a"), topic("t")]), 1));
    appended(ask(&mut log, append(&[inbox("a")]), 2));
    log.commit(at_ms(AGE_MS));
    assert_eq!(offsets(&mut log, &inbox("a")), (1, 2, vec![1, 2]));
    log.commit(at_ms(AGE_MS + 1 + STORE_SWEEP_INTERVAL.as_millis() as u64));
    assert_eq!(offsets(&mut log, &inbox("a")), (3, 2, vec![]));
    assert_eq!(topics_of(&mut log, 0, 9), (vec![], Seq(3), vec![(topic("t"), 2, 2)]));
    let (positions, ..) = appended(ask(&mut log, append(&[inbox("a")]), AGE_MS * 2));
    assert_eq!(positions[0].offset, Offset(3));
}

#[test]
fn an_append_removes_what_is_too_old_in_its_own_stream() {
    let mut store = memory(small());
    let mut seq = 0;
    let mut write = |store: &mut MemoryStore, ms: u64| {
        seq += 1;
        let message = crate::store::fixture::message("x");
        let entry = Entry { stream: inbox("a"), epoch: Epoch(1), offset: Offset(seq), seq: Seq(seq), message };
        let group = Group { entries: &[entry], records: &[], keys: &[], seq: Seq(seq) };
        store.append_many(group, at_ms(ms)).expect("memory does not fail");
        store.head(&inbox("a")).expect("memory does not fail").first.0
    };
    assert_eq!(write(&mut store, 1), 1);
    assert_eq!(write(&mut store, AGE_MS), 1);
    assert_eq!(write(&mut store, AGE_MS + 1), 2);
}

#[test]
fn a_stream_long_empty_is_forgotten_and_begins_a_new_epoch() {
    let mut log = log();
    let (first, ..) = appended(ask(&mut log, append(&[topic("t")]), 1));
    log.commit(at_ms(2 * AGE_MS));
    assert_eq!(log.counters().stats().store.streams, 1);
    log.commit(at_ms(3 * AGE_MS));
    assert_eq!(log.counters().stats().store.streams, 0);
    // The app still knows that something of it was removed.
    assert_eq!(topics_of(&mut log, 0, 9), (vec![], Seq(1), vec![(topic("t"), 1, 1)]));
    let (second, ..) = appended(ask(&mut log, append(&[topic("t")]), 3 * AGE_MS));
    assert_ne!(first[0].epoch, second[0].epoch);
    assert_eq!((second[0].offset, second[0].seq), (Offset(1), Seq(2)));
}

#[test]
fn a_sweep_visits_a_bounded_number_of_streams_and_the_next_goes_on_from_there() {
    let mut store = memory(small());
    let streams = STORE_SWEEP_STREAMS_MAX as u64 + 10;
    let entries: Vec<_> = (1..=streams)
        .map(|number| Entry {
            stream: inbox(&number.to_string()),
            epoch: Epoch(number),
            offset: Offset(1),
            seq: Seq(number),
            message: crate::store::fixture::message("x"),
        })
        .collect();
    let group = Group { entries: &entries, records: &[], keys: &[], seq: Seq(streams) };
    store.append_many(group, at_ms(0)).expect("memory does not fail");
    store.sweep(at_ms(AGE_MS)).expect("memory does not fail");
    assert_eq!(store.usage().entries, 10);
    for _ in 0..store.streams.capacity().div_ceil(STORE_SWEEP_STREAMS_MAX) {
        store.sweep(at_ms(AGE_MS)).expect("memory does not fail");
    }
    assert_eq!(store.usage().entries, 0);
}
