use super::*;
use crate::base::ids::{AppId, Epoch, Offset, PushId};
use crate::base::message::StreamKey;
use crate::store::fixture::{
    APP, Failing, append, appended, ask, at_ms, inbox, key, keyed, log, memory, message, put, record, stream_of,
    submit, topic, topics_of,
};
use crate::store::{NewEntry, Retentions, StreamHead};

fn tokens(committed: &Committed) -> Vec<u64> {
    committed.dones.iter().map(|(_, done)| done.token.0).collect()
}

fn result(committed: &Committed, index: usize) -> Result<Answer, StoreError> {
    committed.dones[index].1.result.clone()
}

#[test]
fn a_group_is_one_batch_and_its_answers_come_in_the_order_of_asking() {
    let mut log = log();
    submit(&mut log, 1, append(&[inbox("a"), topic("t")]));
    submit(&mut log, 2, Request::Head { stream: inbox("b") });
    submit(&mut log, 3, append(&[inbox("b"), inbox("a")]));
    let committed = log.commit(at_ms(1));
    assert_eq!(tokens(&committed), [1, 2, 3]);
    let batch = committed.batch.as_ref().expect("entries were written");
    let seen: Vec<_> = batch.entries.iter().map(|entry| (entry.seq.0, entry.offset.0)).collect();
    assert_eq!((seen, batch.seq), (vec![(1, 1), (2, 1), (3, 1), (4, 2)], Seq(4)));
    assert_eq!(batch.entries[0].epoch, batch.entries[3].epoch);
    assert_ne!(batch.entries[0].epoch, batch.entries[2].epoch);
    let (positions, duplicate, seq) = appended(result(&committed, 2));
    assert_eq!((positions[1].offset, positions[1].seq, duplicate, seq), (Offset(2), Seq(4), None, Seq(4)));
    // The read sees the whole group, also what was submitted behind it.
    assert!(matches!(result(&committed, 1), Ok(Answer::Head(StreamHead { last: Offset(1), .. }))));
    assert!(log.commit(at_ms(2)).dones.is_empty());
}

#[test]
fn records_alone_make_no_batch_and_answer_the_seq_between_their_neighbours() {
    let mut log = log();
    submit(&mut log, 1, append(&[topic("t")]));
    submit(&mut log, 2, record("session", "subscribed"));
    submit(&mut log, 3, append(&[topic("t")]));
    let committed = log.commit(at_ms(1));
    assert_eq!(appended(result(&committed, 1)).2, Seq(1));
    assert_eq!(appended(result(&committed, 2)).2, Seq(2));
    submit(&mut log, 4, record("session", "gone"));
    let committed = log.commit(at_ms(1));
    assert!(committed.batch.is_none());
    assert_eq!(appended(result(&committed, 0)).2, Seq(2));
    assert_eq!(log.seq(), Seq(2));
}

#[test]
fn an_empty_append_is_answered_and_costs_the_store_nothing() {
    let mut log = log();
    let (positions, duplicate, seq) = appended(ask(&mut log, append(&[]), 1));
    assert_eq!((positions.len(), duplicate, seq), (0, None, Seq(0)));
    assert_eq!(log.counters().stats().commits, 0);
}

#[test]
fn a_repeated_key_answers_the_first_positions_and_writes_nothing() {
    let mut log = log();
    let (first, _, _) = appended(ask(&mut log, keyed("k", 5, &[inbox("a"), inbox("b")]), 1));
    submit(&mut log, 1, append(&[inbox("a")]));
    let mut again = keyed("k", 5, &[inbox("a"), inbox("b")]);
    if let Request::Append { key: Some(key), .. } = &mut again {
        key.id = PushId(77);
    }
    submit(&mut log, 2, again);
    let committed = log.commit(at_ms(2));
    let (again, duplicate, _) = appended(result(&committed, 1));
    assert_eq!((again, duplicate), (first, Some(PushId(5))), "also the id is the first one's");
    assert_eq!(log.seq(), Seq(3));
    assert_eq!(log.counters().stats().duplicates, 1);
}

#[test]
fn a_key_repeated_inside_one_group_is_written_once_and_its_records_with_it() {
    let mut log = log();
    for (token, value) in [(1, "first"), (2, "second")] {
        let entries = vec![NewEntry { stream: inbox("a"), message: message("x") }];
        submit(&mut log, token, Request::Append { key: Some(key("k", 5)), entries, records: vec![put("r", value)] });
    }
    let committed = log.commit(at_ms(1));
    let (first, again) = (appended(result(&committed, 0)), appended(result(&committed, 1)));
    assert_eq!((&first.0, first.1, again.1), (&again.0, None, Some(PushId(5))));
    assert_eq!(log.seq(), Seq(1));
    let read = Request::ReadRecords { prefix: b"r"[..].into(), after: b""[..].into(), limit: 9 };
    assert!(matches!(ask(&mut log, read, 1), Ok(Answer::Records(found)) if *found[0].1 == *b"first"));
}

#[test]
fn a_key_with_another_body_is_refused_within_a_group_and_after_it() {
    let mut log = log();
    submit(&mut log, 1, keyed("k", 5, &[inbox("a")]));
    submit(&mut log, 2, keyed("k", 6, &[inbox("a")]));
    let committed = log.commit(at_ms(1));
    assert_eq!(result(&committed, 1).err(), Some(StoreError::KeyConflict));
    assert_eq!(ask(&mut log, keyed("k", 7, &[inbox("a")]), 2).err(), Some(StoreError::KeyConflict));
    assert_eq!((log.seq(), log.counters().stats().key_conflicts), (Seq(1), 2));
}

#[test]
fn keys_of_different_apps_do_not_meet() {
    let mut log = log();
    appended(ask(&mut log, keyed("k", 5, &[inbox("a")]), 1));
    let mut other = key("k", 6);
    other.app = AppId(2);
    let request = Request::Append { key: Some(other), entries: Vec::new(), records: Vec::new() };
    assert_eq!(appended(ask(&mut log, request, 1)).1, None);
}

#[test]
fn the_queue_takes_its_bound_and_not_one_more() {
    let mut log = log();
    for token in 0..LOG_QUEUE_MAX {
        submit(&mut log, token as u64, record("r", "v"));
    }
    let refused = log.submit(Address::Control, RequestToken(9), record("r", "v"));
    assert!(matches!(refused, Err((Request::Append { .. }, StoreError::Busy))));
    assert_eq!(log.commit(at_ms(1)).dones.len(), LOG_BATCH_MAX);
    assert_eq!(log.queued(), LOG_QUEUE_MAX - LOG_BATCH_MAX);
    assert_eq!(log.counters().stats().queue_depth, (LOG_QUEUE_MAX - LOG_BATCH_MAX) as u64);
}

#[test]
fn a_group_ends_with_the_request_that_reaches_its_bound_of_entries() {
    let mut log = log();
    let half = vec![topic("t"); LOG_BATCH_ENTRIES_MAX / 2];
    for token in 0..3 {
        submit(&mut log, token, append(&half));
    }
    assert_eq!(log.commit(at_ms(1)).dones.len(), 2);
    assert_eq!(log.commit(at_ms(1)).dones.len(), 1);
}

#[test]
fn a_list_shares_one_message_from_request_to_reader() {
    let mut log = log();
    let shared = message("one");
    let users: Vec<_> = (0..10_000).map(|user| inbox(&format!("u{user}"))).collect();
    let entries = users.iter().map(|stream| NewEntry { stream: stream.clone(), message: shared.clone() }).collect();
    submit(&mut log, 1, Request::Append { key: None, entries, records: Vec::new() });
    let committed = log.commit(at_ms(1));
    assert_eq!(appended(result(&committed, 0)).0.len(), 10_000);
    let (_, entries) = stream_of(&mut log, &users[9_999], 0);
    assert!(Arc::ptr_eq(&entries[0].message, &shared));
}

#[test]
fn a_failed_write_fails_the_whole_group_and_poisons_the_writer_but_not_the_reader() {
    let mut log = Log::open(Failing::new(), 7).expect("it opens");
    appended(ask(&mut log, keyed("old", 1, &[topic("t")]), 1));
    log.store_mut().writes_fail = true;
    submit(&mut log, 1, append(&[topic("t"), inbox("a")]));
    submit(&mut log, 2, keyed("new", 1, &[]));
    submit(&mut log, 3, keyed("new", 1, &[]));
    submit(&mut log, 4, keyed("new", 2, &[]));
    submit(&mut log, 5, keyed("old", 1, &[topic("t")]));
    submit(&mut log, 6, Request::Head { stream: topic("t") });
    let committed = log.commit(at_ms(2));
    assert!(committed.batch.is_none());
    for index in 0..4 {
        assert_eq!(result(&committed, index).err(), Some(StoreError::Failed), "request {index}");
    }
    assert!(appended(result(&committed, 4)).1.is_some());
    assert!(matches!(result(&committed, 5), Ok(Answer::Head(StreamHead { last: Offset(1), .. }))));
    assert!(log.is_poisoned() && log.counters().stats().poisoned);
    assert_eq!(log.counters().fault().map(|fault| &*fault.reason), Some("write"));
    // The medium may be well again, but nobody knows what it holds.
    log.store_mut().writes_fail = false;
    assert_eq!(ask(&mut log, record("r", "v"), 3).err(), Some(StoreError::Failed));
    assert_eq!(topics_of(&mut log, 0, 9).0, [1]);
    assert_eq!(log.counters().stats().failures, 5);
}

#[test]
fn a_failed_look_up_while_planning_fails_the_group_and_poisons() {
    let mut log = Log::open(Failing::new(), 7).expect("it opens");
    log.store_mut().reads_fail = true;
    submit(&mut log, 1, record("r", "v"));
    submit(&mut log, 2, append(&[inbox("a")]));
    submit(&mut log, 3, record("r", "w"));
    let committed = log.commit(at_ms(1));
    assert!((0..3).all(|index| result(&committed, index).err() == Some(StoreError::Failed)));
    assert!(log.is_poisoned());
    assert_eq!(log.store_mut().inner.usage().records, 0);
}

#[test]
fn a_failed_read_fails_alone() {
    let mut log = Log::open(Failing::new(), 7).expect("it opens");
    log.store_mut().reads_fail = true;
    assert_eq!(ask(&mut log, Request::Head { stream: inbox("a") }, 1).err(), Some(StoreError::Failed));
    log.store_mut().reads_fail = false;
    assert!(!log.is_poisoned());
    appended(ask(&mut log, append(&[inbox("a")]), 2));
}

#[test]
fn a_failed_sweep_poisons_and_what_was_committed_is_still_answered() {
    let mut log = Log::open(Failing::new(), 7).expect("it opens");
    log.store_mut().sweeps_fail = true;
    appended(ask(&mut log, append(&[inbox("a")]), 1));
    assert!(log.is_poisoned());
}

#[test]
fn a_crash_drops_what_was_not_committed_and_goes_on_after_what_was() {
    let mut log = Log::open(Failing::new(), 7).expect("it opens");
    let (before, _, _) = appended(ask(&mut log, append(&[topic("t")]), 1));
    submit(&mut log, 1, append(&[topic("t")]));
    log.crash().expect("it opens again");
    assert!(log.commit(at_ms(2)).dones.is_empty());
    log.store_mut().writes_fail = true;
    assert!(ask(&mut log, append(&[topic("t")]), 3).is_err());
    log.store_mut().writes_fail = false;
    log.crash().expect("it opens again");
    let (after, _, _) = appended(ask(&mut log, append(&[topic("t")]), 4));
    assert_eq!((after[0].epoch, after[0].offset, after[0].seq), (before[0].epoch, Offset(2), Seq(2)));
}

#[test]
fn topics_are_read_whole_in_pages_and_inboxes_and_other_apps_are_not_among_them() {
    let mut log = log();
    let other = StreamKey::Topic(AppId(2), "t".into());
    let everyone = StreamKey::Everyone(APP);
    appended(ask(&mut log, append(&[topic("a"), inbox("u"), topic("b"), everyone, other, inbox("u")]), 1));
    assert_eq!(topics_of(&mut log, 0, 2), (vec![1, 3], Seq(3), vec![]));
    assert_eq!(topics_of(&mut log, 3, 2), (vec![4], Seq(6), vec![]));
    assert_eq!(topics_of(&mut log, 0, 3), (vec![1, 3, 4], Seq(4), vec![]));
    assert_eq!(topics_of(&mut log, 4, 3), (vec![], Seq(6), vec![]));
    assert_eq!(topics_of(&mut log, 6, 3), (vec![], Seq(6), vec![]));
    assert_eq!(topics_of(&mut log, 2, 0), (vec![], Seq(2), vec![]));
}

#[test]
fn one_read_returns_at_most_its_bound() {
    let mut log = log();
    let inboxes = vec![inbox("a"); READ_ENTRIES_MAX + 1];
    appended(ask(&mut log, append(&inboxes), 1));
    assert_eq!(stream_of(&mut log, &inbox("a"), 0).1.len(), READ_ENTRIES_MAX);
    assert_eq!(stream_of(&mut log, &inbox("a"), READ_ENTRIES_MAX as u64).1.len(), 1);
    let records = (0..=READ_RECORDS_MAX).map(|number| put(&format!("r{number}"), "v")).collect();
    appended(ask(&mut log, Request::Append { key: None, entries: Vec::new(), records }, 1));
    let read = Request::ReadRecords { prefix: b"r"[..].into(), after: b""[..].into(), limit: usize::MAX };
    assert!(matches!(ask(&mut log, read, 1), Ok(Answer::Records(found)) if found.len() == READ_RECORDS_MAX));
}

#[test]
fn epochs_follow_from_the_seed_and_are_never_zero() {
    let of = |seed| {
        let mut epochs = Epochs::new(seed);
        (0..1_000).map(|_| epochs.next()).collect::<Vec<_>>()
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    assert!(!of(1).contains(&Epoch(0)));
    // The one state from which SplitMix64 makes 0: its own increment later it is skipped.
    assert_ne!(Epochs::new(0u64.wrapping_sub(0x9e37_79b9_7f4a_7c15)).next(), Epoch(0));
}

#[test]
fn reads_beyond_a_commit_s_share_wait_for_the_next_in_their_order() {
    let mut log = log();
    appended(ask(&mut log, append(&vec![inbox("a"); READ_ENTRIES_MAX]), 1));
    let read = || Request::ReadStream { stream: inbox("a"), after: Offset(0), limit: usize::MAX };
    // Each costs one more than its entries.
    let fit = LOG_READ_COST_MAX.div_ceil(READ_ENTRIES_MAX + 1);
    for token in 0..2 * fit as u64 + 3 {
        submit(&mut log, token, read());
    }
    submit(&mut log, 1_000, append(&[inbox("a")]));
    let committed = log.commit(at_ms(1));
    let first: Vec<u64> = (0..fit as u64).chain([1_000]).collect();
    assert_eq!(tokens(&committed), first, "who writes does not wait for those who read");
    assert_eq!(log.queued(), fit + 3);
    submit(&mut log, 1_001, read());
    assert_eq!(tokens(&log.commit(at_ms(1))), (fit as u64..2 * fit as u64).collect::<Vec<_>>());
    let committed = log.commit(at_ms(1));
    let last: Vec<u64> = (2 * fit as u64..2 * fit as u64 + 3).chain([1_001]).collect();
    assert_eq!((tokens(&committed), log.queued()), (last, 0));
    assert!(log.commit(at_ms(1)).dones.is_empty());
}

#[test]
fn a_page_of_records_that_every_shard_reads_is_read_once_until_records_are_written() {
    let mut log = Log::open(Failing::new(), 7).expect("memory does not fail");
    let all = |limit| Request::ReadRecords { prefix: b"r"[..].into(), after: b""[..].into(), limit };
    let records = ["r1", "r2", "r3"].map(|name| put(name, "v")).into();
    appended(ask(&mut log, Request::Append { key: None, entries: Vec::new(), records }, 1));
    let found = |result| match result {
        Ok(Answer::Records(records)) => records.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(ask(&mut log, all(2), 1)), 2);
    // From here on whatever is read from the store fails.
    log.store_mut().reads_fail = true;
    assert_eq!(found(ask(&mut log, all(2), 1)), 2);
    assert_eq!(ask(&mut log, all(3), 1).err(), Some(StoreError::Failed), "another page was never read");
    log.store_mut().reads_fail = false;
    appended(ask(&mut log, record("r0", "new"), 1));
    let Ok(Answer::Records(page)) = ask(&mut log, all(2), 1) else { panic!("it can be read again") };
    assert_eq!(&*page[0].0, b"r0", "what was written since is there");
    log.store_mut().reads_fail = true;
    let later_ms = 2 + STORE_SWEEP_INTERVAL.as_millis() as u64;
    assert!(log.commit(at_ms(later_ms)).dones.is_empty());
    assert_eq!(ask(&mut log, all(2), later_ms).err(), Some(StoreError::Failed), "it is kept for a moment only");
}

#[test]
fn an_app_beyond_its_stored_bytes_is_refused_and_the_others_of_its_group_are_not() {
    let retentions = Retentions { quotas: vec![None, Some(12)], ..Retentions::default() };
    let mut log = Log::open(memory(retentions), 7).expect("memory does not fail");
    // Five bytes each, all in one group.
    submit(&mut log, 1, append(&[inbox("a")]));
    submit(&mut log, 2, append(&[inbox("a"), topic("t")]));
    submit(&mut log, 3, append(&[topic("t")]));
    submit(&mut log, 4, keyed("k", 1, &[topic("t")]));
    submit(&mut log, 5, record("r", "longer than what is left"));
    submit(&mut log, 6, append(&[StreamKey::Upstream(APP)]));
    let committed = log.commit(at_ms(1));
    let refused: Vec<usize> =
        (0..6).filter(|&index| matches!(result(&committed, index), Err(StoreError::OverQuota))).collect();
    assert_eq!(refused, [1, 3]);
    assert_eq!(appended(result(&committed, 2)).2, Seq(2));
    let (_, duplicate, _) = appended(ask(&mut log, keyed("k", 2, &[]), 2));
    assert_eq!(duplicate, None, "what was refused has used no key");
}
