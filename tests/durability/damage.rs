//! What the disk may do, to the real process: be full, be read-only, lose the end of a file, change a byte.

use crate::gateway::{Gateway, Place, Start, eventually};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary directory is writable")
}

fn start(place: &Place) -> Gateway {
    place.start(&Start::default()).expect("it starts")
}

fn push(place: &Place, user: &str, payload: &str) -> (u16, Value) {
    place.push(&json!({ "to": { "user": user }, "payload": payload })).expect("the API answers")
}

fn position(answer: &Value) -> (u64, String) {
    let result = &answer["results"][0];
    (result["offset"].as_u64().expect("it is stored"), result["epoch"].as_str().expect("it is stored").to_owned())
}

fn stored(place: &Place, user: &str, payload: &str) -> (u64, String) {
    let (status, answer) = push(place, user, payload);
    assert_eq!(status, 200, "{answer}");
    position(&answer)
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).expect("it is readable") {
        let path = entry.expect("it is readable").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn journal(place: &Place) -> PathBuf {
    let mut found = files(&place.data).into_iter();
    found.find(|path| path.extension().is_some_and(|ending| ending == "jnl")).expect("there is a journal")
}

/// Pushes until nothing is stored any more, which must be said and seen. The offset of the last one that was.
fn fill(place: &Place) -> u64 {
    let large = "x".repeat(20_000);
    let mut last = 1;
    loop {
        let (status, answer) = push(place, "alice", &large);
        if status != 200 {
            assert_eq!(status, 503, "{answer}");
            break;
        }
        last = position(&answer).0;
        assert!(last < 2_000, "the disk is never full");
    }
    let (status, _) = push(place, "bob", "after");
    assert_eq!(status, 503, "nothing is acknowledged any more");
    assert_eq!(readiness(place), 503);
    last
}

fn readiness(place: &Place) -> u16 {
    place.request("GET", "/readyz", "").expect("the API answers").0
}

/// The next process has all that was stored, and goes on behind it.
fn goes_on(place: &Place, last: u64, epoch: &str) {
    let mut gateway = start(place);
    for (offset, text) in [(1, "first"), (last, if last == 1 { "first" } else { "x" })] {
        let path = format!("/v1/users/alice/inbox?after={}&limit=1", offset - 1);
        let (status, page) = place.request("GET", &path, "").expect("the API answers");
        assert_eq!((status, &page["entries"][0]["offset"]), (200, &json!(offset)), "{page}");
        assert!(page["entries"][0]["payload"].as_str().is_some_and(|payload| payload.starts_with(text)), "{page}");
    }
    let (next, same) = stored(place, "alice", "next");
    assert_eq!(same, epoch);
    assert!(next > last, "offset {next} behind {last}");
    assert_eq!(readiness(place), 200);
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_full_disk_answers_503_and_is_not_ready_and_loses_nothing_that_was_stored() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    // The journal is made longer than this; when it is opened again it is cut to what it holds, and ends at the limit.
    assert_eq!(start(&place).stop(), Some(0));
    let limit = 1 << 20;
    let mut gateway = place.start(&Start { file_bytes_max: Some(limit), ..Start::default() }).expect("it starts");
    let (first, epoch) = stored(&place, "alice", "first");
    assert_eq!(first, 1);
    let last = fill(&place);
    gateway.stop();
    let said = gateway.said();
    assert_eq!(said.matches("the store cannot write").count(), 1, "{said}");
    goes_on(&place, last, &epoch);
}

/// A file system in memory, which lives as long as this.
struct SmallDisk {
    holder: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// None where nobody may mount one.
    fn new(at: &Path, bytes: u64) -> Option<Self> {
        // It is in a name space of its own, so nothing is left of it; others reach it by way of the process.
        let script = "mount -t tmpfs -o size=$0 tmpfs \"$1\" && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, &bytes.to_string()]).arg(at);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut line = String::new();
        let output = holder.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("a pipe can be read");
        let below = at.strip_prefix("/").expect("it is absolute");
        let path = Path::new("/proc").join(holder.id().to_string()).join("root").join(below);
        let disk = Self { holder, path };
        (line == "mounted\n").then_some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = self.holder.kill();
        let _gone = self.holder.wait();
    }
}

#[test]
fn a_full_file_system_answers_503_and_there_is_all_that_was_stored_when_it_has_room_again() {
    let folder = folder();
    let Some(disk) = SmallDisk::new(folder.path(), 8 << 20) else {
        println!("skipped: nobody may mount a file system here");
        return;
    };
    let place = Place::new(&disk.path.join("data"));
    let mut gateway = start(&place);
    let (first, epoch) = stored(&place, "alice", "first");
    assert_eq!(first, 1);
    // Somebody else takes all there is.
    let other = disk.path.join("other");
    let mut file = fs::File::create(&other).expect("there is room");
    while file.write_all(&[0; 4_096]).is_ok() {}
    let last = fill(&place);
    gateway.stop();
    let said = gateway.said();
    assert_eq!(said.matches("the store cannot write").count(), 1, "{said}");
    fs::remove_file(&other).expect("it is there");
    goes_on(&place, last, &epoch);
}

#[test]
fn a_second_process_on_the_same_directory_exits_with_2() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let _gateway = start(&place);
    let other = Place::new(&place.data);
    let (code, said) = other.fails(&Start::default());
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("another process uses this directory"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_written_exits_with_1_and_says_so() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    drop(start(&place));
    // A directory in the place of a file: nobody can write that, root included.
    fs::remove_file(place.data.join("mark")).expect("it is there");
    fs::create_dir(place.data.join("mark")).expect("it is writable");
    let (code, said) = place.fails(&Start::default());
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("cannot open the mark"), "{said}");
}

#[test]
fn read_only_files_are_refused_and_go_on_when_they_are_not_any_more() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let mut gateway = start(&place);
    let (first, epoch) = stored(&place, "alice", "first");
    assert_eq!(gateway.stop(), Some(0));
    let allow = |mode| {
        for file in files(&place.data) {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("they are ours");
        }
    };
    allow(0o444);
    let (code, said) = place.fails(&Start { obeys_permissions: true, ..Start::default() });
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("ermission denied"), "{said}");
    allow(0o644);
    let _gateway = start(&place);
    assert_eq!(stored(&place, "alice", "next"), (first + 1, epoch));
}

#[test]
fn a_journal_that_lost_its_end_is_refused_until_the_loss_is_accepted_with_new_epochs() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let mut gateway = start(&place);
    let (_, epoch) = stored(&place, "alice", "one");
    stored(&place, "alice", "two");
    gateway.kill();
    let path = journal(&place);
    let mut bytes = fs::read(&path).expect("it is readable");
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("it holds something") + 1;
    bytes[end - 40..].fill(0);
    fs::write(&path, bytes).expect("it is writable");
    for _ in 0..2 {
        let (code, said) = place.fails(&Start::default());
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("commits are lost") && said.contains("--accept-loss"), "{said}");
    }
    let mut gateway = place.start(&Start { arguments: vec!["--accept-loss"], ..Start::default() }).expect("it starts");
    let (offset, other) = stored(&place, "alice", "three");
    assert_eq!(offset, 2, "what was lost was the second");
    assert_ne!(other, epoch);
    assert_eq!(gateway.stop(), Some(0));
    let mut gateway = start(&place);
    assert_eq!(stored(&place, "alice", "four"), (3, other));
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn half_a_write_behind_the_last_commit_changes_nothing() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let mut gateway = start(&place);
    let (_, epoch) = stored(&place, "alice", "one");
    gateway.kill();
    let path = journal(&place);
    let mut bytes = fs::read(&path).expect("it is readable");
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("it holds something") + 1;
    let (begin, half) = (bytes[..60].to_vec(), 60);
    bytes[end..end + half].copy_from_slice(&begin);
    fs::write(&path, bytes).expect("it is writable");
    let mut gateway = start(&place);
    assert_eq!(stored(&place, "alice", "two"), (2, epoch));
    assert_eq!(gateway.stop(), Some(0));
}

#[test]
fn a_byte_changed_in_an_old_commit_is_refused() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let mut gateway = start(&place);
    for number in 0..20 {
        stored(&place, "alice", &format!("number {number} of twenty"));
    }
    gateway.kill();
    let path = journal(&place);
    let mut bytes = fs::read(&path).expect("it is readable");
    let needle = b"number 7 of twenty";
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("payloads are stored as they are");
    bytes[at] ^= 1;
    fs::write(&path, bytes).expect("it is writable");
    let (code, said) = place.fails(&Start::default());
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
}

/// A journal is sealed at 64 MB, and goes when all of it is in tables: so the process is killed as soon as there are two,
/// and its end is damaged. If that was in a table already, all must be there.
#[test]
fn a_byte_changed_in_a_sealed_journal_is_refused_or_makes_no_difference() {
    const PAYLOAD_BYTES: usize = 200_000;
    const WRITTEN_BYTES_MAX: usize = 512 << 20;
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let mut gateway = start(&place);
    let large = "x".repeat(PAYLOAD_BYTES);
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "jnl");
    let journals = || files(&place.data).into_iter().filter(is_journal);
    let mut last = 0;
    while journals().count() < 2 {
        last += 1;
        assert_eq!(stored(&place, "alice", &format!("number {last} {large}")).0, last);
        assert!(last as usize * PAYLOAD_BYTES < WRITTEN_BYTES_MAX, "no journal is sealed");
    }
    gateway.kill();
    let number = |path: &PathBuf| path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok());
    let sealed = journals().min_by_key(number).expect("there are journals");
    let mut bytes = fs::read(&sealed).expect("it is readable");
    let at = bytes.iter().rposition(|&byte| byte == b'x').expect("payloads are stored as they are");
    bytes[at - 1_000] ^= 1;
    fs::write(&sealed, bytes).expect("it is writable");
    match place.start(&Start::default()) {
        None => {
            let (code, said) = place.fails(&Start::default());
            assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
            assert!(said.contains("lost") || said.contains("damaged"), "{said}");
        }
        Some(_gateway) => assert_eq!(stored(&place, "alice", "next").0, last + 1),
    }
}

#[test]
fn a_qos2_delivery_in_flight_outlives_retention_and_a_kill() {
    use crate::client::raw;
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let environment = vec![("KITTIWAKE_LIMITS_INBOX_ENTRIES", "3".to_owned())];
    let failpoint = Some("pinned:after:1".to_owned());
    let mut gateway =
        place.start(&Start { failpoint, environment: environment.clone(), ..Start::default() }).expect("it starts");
    let mut device = raw::connect(&place, "alice", "phone");
    raw::subscribe(&mut device, "$inbox/#");
    let body = |payload: &str| json!({ "to": { "user": "alice" }, "payload": payload, "qos": 2 });
    place.push(&body("pinned")).expect("the API answers");
    let (id, payload, dup) = raw::publish(&mut device);
    assert_eq!((payload.as_str(), dup), ("pinned", false));
    for number in 0.. {
        if place.push(&body(&format!("later {number}"))).is_err() {
            break;
        }
        assert!(number < 10, "the point is not met");
    }
    gateway.kill();
    let _gateway = place.start(&Start { environment, ..Start::default() }).expect("it starts");
    let mut device = raw::connect(&place, "alice", "phone");
    assert_eq!(raw::publish(&mut device), (id, "pinned".to_owned(), true), "its entry is gone, and it is sent again");
}

#[test]
fn an_event_stream_resumes_across_a_restart_and_a_change_of_the_shard_count() {
    let folder = folder();
    let place = Place::new(&folder.path().join("data"));
    let mut gateway = start(&place);
    let events = |last: Option<&str>, count| crate::client::raw::events(&place, "alice", last, count);
    stored(&place, "alice", "one");
    let (offset, epoch) = stored(&place, "alice", "two");
    stored(&place, "alice", "three");
    let id = format!("{epoch}:{offset}");
    assert_eq!(events(Some(&id), 1), ["three"]);
    gateway.kill();
    let _gateway = place.start(&Start { shards: 3, ..Start::default() }).expect("it starts");
    eventually("the API answers", || place.request("GET", "/readyz", "").is_ok_and(|(status, _)| status == 200));
    stored(&place, "alice", "four");
    assert_eq!(events(Some(&id), 2), ["three", "four"]);
}
