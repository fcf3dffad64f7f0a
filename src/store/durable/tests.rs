use super::*;
use crate::store::fixture::{
    APP, append, appended, ask, entry, inbox, key, keyed, message, put, stream_of, topic, topics_of,
};
use crate::store::memory::Retention;
use crate::store::{Answer, Log, NewEntry, Request, StoreError};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};

static SEEDS: AtomicU64 = AtomicU64::new(0x9abc_def0_1234);

/// A data directory that goes with its test.
pub(in crate::store) struct Folder(tempfile::TempDir);

impl Folder {
    pub(in crate::store) fn new() -> Self {
        Self(tempfile::tempdir().expect("the temporary directory is writable"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn try_open(&self, retentions: Retentions, accept_loss: bool) -> Result<DurableStore, OpenError> {
        let path = self.path();
        let hash = crate::base::hash::KeyedHash::new(3);
        // Never the same for two calls.
        let seed = SEEDS.fetch_add(0x1234_5678_9abc, Ordering::Relaxed);
        DurableStore::open(Opening { path: &path, retentions, hash, seed, accept_loss })
    }

    pub(in crate::store) fn open(&self, retentions: Retentions) -> DurableStore {
        self.try_open(retentions, false).expect("it opens")
    }

    fn log(&self) -> Log<DurableStore> {
        Log::open(self.open(kept()), 7).expect("it was opened")
    }

    /// Another directory with the same files, as a killed process leaves them.
    fn copy(&self) -> Self {
        let other = Self::new();
        copy_all(&self.path(), &other.path());
        other
    }

    /// Why it does not open, on its line.
    fn refusal(&self) -> String {
        match self.try_open(kept(), false) {
            Ok(_) => panic!("it opens"),
            Err(error) => error.to_string(),
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it is writable");
    for entry in fs::read_dir(from).expect("it is readable") {
        let entry = entry.expect("it is readable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it is writable");
        }
    }
}

fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).expect("it is readable") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn kept() -> Retentions {
    let retention = Retention::new(50, Duration::MAX);
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

/// Something of everything, in several commits.
fn fill(log: &mut Log<DurableStore>) {
    for round in 0..20 {
        appended(ask(log, append(&[inbox("a"), topic("t"), StreamKey::Everyone(APP), topic("u"), topic("t")]), round));
        appended(ask(log, keyed(&format!("k{round}"), round, &[inbox("b")]), round));
        let shared = message(&"x".repeat(200));
        let list = ["a", "b", "c"].map(|user| NewEntry { stream: inbox(user), message: shared.clone() });
        let records = vec![put(&format!("r{round}"), "value"), put("one", &round.to_string())];
        appended(ask(log, Request::Append { key: None, entries: list.into(), records }, round));
    }
}

/// All that can be read, as text; the first error otherwise.
fn contents(log: &mut Log<DurableStore>) -> Result<String, String> {
    let mut text = String::new();
    let streams = ["a", "b", "c"].map(inbox).into_iter().chain(["t", "u"].map(topic)).chain([StreamKey::Everyone(APP)]);
    let mut requests: Vec<Request> = Vec::new();
    for stream in streams {
        requests.push(Request::ReadStream { stream, after: Offset(0), limit: 1_000 });
    }
    requests.push(Request::ReadTopics { app: APP, after: Seq(0), limit: 1_000 });
    requests.push(Request::ReadRecords { prefix: Box::default(), after: Box::default(), limit: 1_000 });
    for request in requests {
        text += &format!("{:?}\n", ask(log, request, 100).map_err(|error| format!("{error:?}"))?);
    }
    for round in 0..20 {
        let known = ask(log, keyed(&format!("k{round}"), round, &[inbox("b")]), 100);
        let (positions, duplicate, _) = match known {
            Ok(answer @ Answer::Appended { .. }) => appended(Ok(answer)),
            other => return Err(format!("{other:?}")),
        };
        text += &format!("{positions:?} {duplicate:?}\n");
    }
    Ok(text)
}

#[test]
fn what_was_committed_is_there_after_a_restart_and_goes_on_in_its_epochs() {
    let folder = Folder::new();
    let mut log = folder.log();
    fill(&mut log);
    let before = contents(&mut log).expect("all can be read");
    let (life, usage) = (log.life(), log.counters().stats().store);
    drop(log);
    let mut log = Log::open(folder.open(kept()), 8).expect("it was opened");
    assert_eq!(contents(&mut log).expect("all can be read"), before);
    let again = log.counters().stats().store;
    assert_eq!((log.life(), again), (life, Usage { trimmed: 0, keys_dropped: 0, ..usage }));
    let (head, _) = stream_of(&mut log, &inbox("a"), 0);
    let (next, ..) = appended(ask(&mut log, append(&[inbox("a")]), 200));
    assert_eq!((next[0].epoch, next[0].offset.0), (head.epoch, head.last.0 + 1));
}

#[test]
fn a_list_s_message_is_stored_once_and_goes_with_its_last_entry() {
    let folder = Folder::new();
    let mut log = folder.log();
    let shared = message(&"x".repeat(1_000));
    let list = (0..100).map(|user| NewEntry { stream: inbox(&format!("u{user}")), message: shared.clone() });
    let request = Request::Append { key: None, entries: list.collect(), records: Vec::new() };
    appended(ask(&mut log, request, 1));
    let count = |log: &mut Log<DurableStore>| log.store_mut().space.prefix([layout::SHARED]).count();
    assert_eq!(count(&mut log), 1);
    assert!(log.store_mut().state.written_bytes < 20_000);
    let first = stream_of(&mut log, &inbox("u1"), 0).1.remove(0).message;
    let other = stream_of(&mut log, &inbox("u2"), 0).1.remove(0).message;
    assert_eq!(first, shared);
    assert!(Arc::ptr_eq(&first, &other), "readers share it, too");
    for user in 0..100 {
        assert_eq!(count(&mut log), 1, "{user}");
        appended(ask(&mut log, append(&vec![inbox(&format!("u{user}")); 50]), 2));
    }
    assert_eq!(count(&mut log), 0);
}

#[test]
fn a_directory_is_used_by_one_process_at_a_time() {
    let folder = Folder::new();
    let store = folder.open(kept());
    assert!(matches!(folder.try_open(kept(), false), Err(OpenError::InUse)));
    drop(store);
    folder.open(kept());
}

#[test]
fn a_later_format_and_a_foreign_directory_are_refused() {
    let folder = Folder::new();
    drop(folder.open(kept()));
    fs::write(folder.path().join("format"), "kittiwake store, format 2\n").expect("it is writable");
    assert!(matches!(folder.try_open(kept(), true), Err(OpenError::Format(2))));
    fs::write(folder.path().join("format"), [0xff, 0xfe]).expect("it is writable");
    assert!(matches!(folder.try_open(kept(), true), Err(OpenError::NotOurs)));
    let other = Folder::new();
    fs::create_dir(other.path()).expect("it is writable");
    fs::write(other.path().join("diary"), "dear").expect("it is writable");
    assert!(matches!(other.try_open(kept(), true), Err(OpenError::NotOurs)));
}

#[test]
fn a_process_that_died_while_it_made_the_directory_leaves_one_that_opens() {
    let folder = Folder::new();
    let (directory, _) = Directory::open(&folder.path()).expect("it opens");
    drop(directory);
    drop(folder.open(kept()));
    let folder = Folder::new();
    fs::create_dir(folder.path()).expect("it is writable");
    fs::write(folder.path().join("lock"), "").expect("it is writable");
    fs::write(folder.path().join("format.new"), "kittiw").expect("it is writable");
    drop(folder.open(kept()));
}

#[test]
fn a_store_that_comes_back_with_less_than_the_mark_says_is_refused_until_the_loss_is_accepted() {
    let folder = Folder::new();
    let mut log = folder.log();
    fill(&mut log);
    let older = folder.copy();
    let (before, ..) = appended(ask(&mut log, append(&[inbox("a"), topic("t")]), 30));
    let (life, seq) = (log.life(), log.seq());
    drop(log);
    fs::copy(folder.path().join("mark"), older.path().join("mark")).expect("it is writable");
    let refusal = older.refusal();
    assert!(refusal.contains(&format!("(seq {})", seq.0)) && refusal.contains("--accept-loss"), "{refusal}");
    assert_eq!(older.refusal(), refusal, "a refusal changes nothing");
    let mut log = Log::open(older.try_open(kept(), true).expect("the loss is accepted"), 9).expect("it was opened");
    assert_ne!(log.life(), life);
    let (after, ..) = appended(ask(&mut log, append(&[inbox("a"), topic("t")]), 40));
    assert!(after[0].seq > before[1].seq, "no number comes twice");
    assert_ne!((after[0].epoch, after[1].epoch), (before[0].epoch, before[1].epoch));
    let (head, entries) = stream_of(&mut log, &inbox("a"), 0);
    assert!(entries.iter().all(|entry| entry.epoch == head.epoch) && entries.len() == 41);
    drop(log);
    let mut log = older.log();
    assert_eq!(stream_of(&mut log, &inbox("a"), 0).0, head, "the new epochs last");
    appended(ask(&mut log, append(&[inbox("new")]), 50));
}

#[test]
fn a_missing_mark_or_database_is_a_loss_and_a_torn_slot_of_the_mark_is_none() {
    let folder = Folder::new();
    fill(&mut folder.log());
    let without = folder.copy();
    fs::remove_file(without.path().join("mark")).expect("it is there");
    assert!(without.refusal().contains("the mark of what was committed is missing"));
    let without = folder.copy();
    fs::remove_dir_all(without.path().join("fjall")).expect("it is there");
    assert!(without.refusal().contains("the store ends at commit 0 (seq 0)"));
    let torn = folder.copy();
    let mut mark = fs::read(torn.path().join("mark")).expect("it is there");
    mark[3] ^= 0x40;
    fs::write(torn.path().join("mark"), mark).expect("it is writable");
    drop(torn.open(kept()));
}

#[test]
fn a_hole_in_the_chain_of_commits_is_a_loss() {
    let folder = Folder::new();
    let mut log = folder.log();
    fill(&mut log);
    log.store_mut().space.remove(layout::numbered(layout::GROUP, 17)).expect("it is writable");
    drop(log);
    assert!(folder.refusal().contains("commits 17 to 17 are lost"), "{}", folder.refusal());
    let mut log = Log::open(folder.try_open(kept(), true).expect("the loss is accepted"), 9).expect("it was opened");
    appended(ask(&mut log, append(&[inbox("a")]), 50));
    drop(log);
    drop(folder.log());
}

#[test]
fn the_chain_of_commits_keeps_what_journals_may_hold_and_not_more() {
    let folder = Folder::new();
    let mut log = folder.log();
    for round in 0..200 {
        // As if each commit were of a sixteenth of the chain's bytes.
        log.store_mut().state.written_bytes += crate::limits::STORE_CHAIN_BYTES / 16;
        appended(ask(&mut log, append(&[inbox("a")]), round));
    }
    let kept = log.store_mut().space.prefix([layout::GROUP]).count();
    assert!((16..=19).contains(&kept), "{kept}");
    drop(log);
    let mut log = folder.log();
    appended(ask(&mut log, append(&[inbox("a")]), 300));
}

/// As a machine leaves it that lost power in the middle of a write nobody was told of.
#[test]
fn a_torn_last_write_that_nobody_was_told_of_changes_nothing() {
    let folder = Folder::new();
    let mut log = folder.log();
    fill(&mut log);
    let image = folder.copy();
    let before = contents(&mut log).expect("all can be read");
    let journal = journal_of(&image);
    let mut bytes = fs::read(&journal).expect("it is there");
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("it holds something") + 1;
    // The beginning of the journal's own first record, cut off.
    let torn = bytes[..200].to_vec();
    bytes.splice(end..end, torn);
    fs::write(&journal, bytes).expect("it is writable");
    let mut log = image.log();
    assert_eq!(contents(&mut log).expect("all can be read"), before);
    appended(ask(&mut log, append(&[inbox("a")]), 300));
}

fn journal_of(folder: &Folder) -> PathBuf {
    let mut found = Vec::new();
    files(&folder.path(), &mut found);
    found.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "jnl")).expect("there is a journal")
}

/// Files with a byte changed, the journal's and the tables': each is refused, or reported by a read, or makes no
/// difference.
#[test]
fn a_flipped_byte_is_refused_or_reported_or_makes_no_difference() {
    let folder = Folder::new();
    let mut log = folder.log();
    fill(&mut log);
    log.store_mut().space.rotate_memtable_and_wait().expect("a table is written");
    for round in 0..5 {
        appended(ask(&mut log, append(&[inbox("a"), topic("t")]), 30 + round));
    }
    let before = contents(&mut log).expect("all can be read");
    let image = folder.copy();
    drop(log);
    let mut found = Vec::new();
    files(&image.path(), &mut found);
    found.sort();
    let (mut refused, mut reported, mut harmless) = (0, 0, 0);
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for path in found {
        let bytes = fs::read(&path).expect("it is readable");
        let Some(last) = bytes.iter().rposition(|&byte| byte != 0) else { continue };
        for _ in 0..6 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % (last + 1);
            let case = image.copy();
            let target = case.path().join(path.strip_prefix(image.path()).expect("it is below"));
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (random >> 61);
            fs::write(&target, bytes).expect("it is writable");
            match case.try_open(kept(), false).map(|store| Log::open(store, 7).expect("it was opened")) {
                Err(_) => refused += 1,
                Ok(mut log) => match contents(&mut log) {
                    Err(_) => reported += 1,
                    Ok(after) => {
                        assert_eq!(after, before, "{} at {at}", target.display());
                        harmless += 1;
                    }
                },
            }
        }
    }
    assert!(refused > 0 && reported + harmless > 0, "refused {refused}, reported {reported}, harmless {harmless}");
}

#[test]
fn reads_end_with_the_entry_that_reaches_their_bytes() {
    let folder = Folder::new();
    let mut log = folder.log();
    let large = NewEntry { stream: inbox("a"), message: message(&"x".repeat(crate::limits::READ_BYTES_MAX / 2)) };
    let topics = NewEntry { stream: topic("t"), ..large.clone() };
    let entries = vec![large.clone(), large.clone(), large, topics.clone(), topics.clone(), topics, entry(&topic("t"))];
    appended(ask(&mut log, Request::Append { key: None, entries, records: Vec::new() }, 1));
    assert_eq!(stream_of(&mut log, &inbox("a"), 0).1.len(), 2);
    assert_eq!(stream_of(&mut log, &inbox("a"), 2).1.len(), 1);
    assert_eq!(topics_of(&mut log, 0, 9), (vec![4, 5], Seq(5), vec![]));
    assert_eq!(topics_of(&mut log, 5, 9), (vec![6, 7], Seq(7), vec![]));
}

#[test]
fn who_asks_without_having_a_stream_displaces_no_head_of_one_that_is_there() {
    let folder = Folder::new();
    let mut log = folder.log();
    appended(ask(&mut log, append(&[inbox("alice")]), 0));
    let at_hand = |log: &mut Log<DurableStore>| log.store_mut().heads.borrow().len();
    let standing = |stream| Request::Standing { stream, record: b"mark"[..].into() };
    let known = ask(&mut log, standing(inbox("alice")), 0);
    assert!(matches!(known, Ok(Answer::Standing(StreamHead { last: Offset(1), .. }, None))));
    for user in 0..100 {
        let unknown = ask(&mut log, standing(inbox(&user.to_string())), 0);
        assert!(matches!(unknown, Ok(Answer::Standing(StreamHead { last: Offset(0), .. }, None))));
    }
    assert_eq!(at_hand(&mut log), 1);
    ask(&mut log, Request::Head { stream: inbox("bob") }, 0).expect("it is readable");
    assert_eq!(at_hand(&mut log), 2, "who is about to append asks twice");
}

#[test]
fn a_failed_write_leaves_reads_with_what_was_committed() {
    let folder = Folder::new();
    let mut log = folder.log();
    appended(ask(&mut log, keyed("k", 1, &[inbox("a"), topic("t")]), 1));
    let before = log.store_mut().state;
    let store = log.store_mut();
    let planned = store.entries_of(&inbox("a"), Offset(0), 9).expect("it can be read").remove(0);
    let next = Entry { offset: Offset(2), seq: Seq(3), ..planned };
    store.append(&next, None, crate::store::fixture::at_ms(2)).expect("it is planned");
    assert_eq!(store.head(&inbox("a")).expect("it can be read").last, Offset(2));
    store.roll_back(before);
    assert_eq!(store.head(&inbox("a")).expect("it can be read").last, Offset(1));
    let (_, duplicate, _) = appended(ask(&mut log, keyed("k", 1, &[inbox("a")]), 1));
    assert_eq!(duplicate, Some(key("k", 1).id));
    appended(ask(&mut log, append(&[inbox("a")]), 3));
}

#[test]
fn what_an_app_has_stored_is_known_again_after_a_restart_and_is_less_when_retention_has_taken_some() {
    let folder = Folder::new();
    let retentions = || {
        let inbox = Retention { entries: 2, ..kept().inbox };
        Retentions { inbox, quotas: vec![None, Some(40)], ..kept() }
    };
    let mut log = Log::open(folder.open(retentions()), 7).expect("it was opened");
    let room = |log: &mut Log<DurableStore>| log.store_mut().room(APP);
    assert_eq!(room(&mut log), Some(40));
    // Five bytes each. The third entry of the inbox takes the place of the first.
    for stream in [inbox("a"), inbox("a"), inbox("a"), topic("t"), StreamKey::Everyone(APP), StreamKey::Upstream(APP)] {
        appended(ask(&mut log, append(&[stream]), 1));
    }
    appended(ask(&mut log, append(&[inbox("b"), inbox("c")]), 1));
    assert_eq!((room(&mut log), log.store_mut().room(AppId(0))), (Some(10), None));
    drop(log);
    let mut log = Log::open(folder.open(retentions()), 7).expect("it was opened");
    assert_eq!(room(&mut log), Some(10));
    let three = ask(&mut log, append(&[inbox("b"), inbox("c"), topic("t")]), 1);
    assert!(matches!(three, Err(StoreError::OverQuota)), "{three:?}");
    appended(ask(&mut log, append(&[inbox("b"), topic("t")]), 1));
    assert_eq!(room(&mut log), Some(0));
    drop(log);
    assert_eq!(folder.open(kept()).room(APP), None, "nobody asks");
}
