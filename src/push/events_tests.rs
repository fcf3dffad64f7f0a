//! Consumer groups over a log in memory, without shards.

use super::*;
use crate::limits::EVENTS_READ_MAX;
use crate::push::fake::{Behaviour, Bench, NOW_MS};
use crate::shard::command::{CommandError, Happened, Happening, Receipt};
use crate::store::handle::InMemory;
use futures_util::FutureExt;
use std::sync::atomic::{AtomicU64, Ordering};

const APP: AppId = AppId(3);

fn connections() -> AppWatch {
    AppWatch { connections: true, ..AppWatch::default() }
}

fn connected() -> Happening {
    Happening::Connected { session_present: false }
}

fn happen(bench: &Bench, devices: &[&str]) {
    bench.happen(APP, &devices.iter().map(|device| ("u", *device, connected())).collect::<Vec<_>>());
}

async fn subscribe(bench: &Bench, group: &str, after: Option<Position>) -> Consumer {
    bench.hub().subscribe(APP, group, connections(), after).await.expect("there is room")
}

async fn epoch(bench: &Bench) -> Epoch {
    bench.hub().head(APP).await.expect("memory answers").epoch
}

/// What is there now: `device@offset`, or `gap N@offset`.
fn read(consumer: &mut Consumer) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(read) = consumer.next().now_or_never() {
        all.extend(read.expect("it goes on").into_iter().map(|read| match read {
            Read::Event((_, offset), Happened { device, .. }) => format!("{device}@{offset}"),
            Read::Gap((_, offset), count) => format!("gap {count}@{offset}"),
        }));
    }
    all
}

#[tokio::test]
async fn a_new_group_begins_now_and_a_known_one_behind_what_it_acknowledged() {
    let bench = Bench::new();
    let mut first = subscribe(&bench, "g", None).await;
    assert_eq!(first.position(), (Epoch(0), Offset(0)), "nobody has made the stream yet");
    assert_eq!(read(&mut first), Vec::<String>::new());
    happen(&bench, &["a", "b", "c"]);
    assert_eq!(read(&mut first), ["a@1", "b@2", "c@3"]);
    let epoch = epoch(&bench).await;
    let acknowledged = bench.hub().acknowledge(APP, "g", (epoch, Offset(1))).await;
    assert_eq!(acknowledged.expect("it is known"), (epoch, Offset(1)));
    drop(first);
    happen(&bench, &["d"]);
    assert_eq!(read(&mut subscribe(&bench, "g", None).await), ["b@2", "c@3", "d@4"], "at least once");
    assert_eq!(read(&mut subscribe(&bench, "g", Some((epoch, Offset(3)))).await), ["d@4"]);
    let mut other = subscribe(&bench, "other", None).await;
    assert_eq!(read(&mut other), Vec::<String>::new());
    happen(&bench, &["e"]);
    assert_eq!(read(&mut other), ["e@5"]);
}

#[tokio::test]
async fn a_group_goes_on_where_it_was_after_a_restart() {
    let mut bench = Bench::new();
    let mut before = subscribe(&bench, "g", None).await;
    happen(&bench, &["a", "b"]);
    assert_eq!(read(&mut before), ["a@1", "b@2"]);
    let epoch = epoch(&bench).await;
    bench.hub().acknowledge(APP, "g", (epoch, Offset(1))).await.expect("it is known");
    bench.restart();
    // It is known before anybody reads for it: what it wants goes on to be told, and it may acknowledge.
    bench.hub().look_after().await.expect("memory answers");
    assert_eq!(bench.hub().lock().watch().apps, [(APP, connections())]);
    happen(&bench, &["c"]);
    let mut after = subscribe(&bench, "g", None).await;
    assert_eq!(after.position(), (epoch, Offset(1)));
    assert_eq!(read(&mut after), ["b@2", "c@3"]);
    bench.restart();
    let acknowledged = bench.hub().acknowledge(APP, "g", (epoch, Offset(3))).await;
    assert_eq!(acknowledged.expect("it is known without being read for"), (epoch, Offset(3)));
    bench.restart();
    assert_eq!(read(&mut subscribe(&bench, "g", None).await), Vec::<String>::new());
}

#[tokio::test]
async fn acknowledgements_never_go_back_and_never_beyond_the_end() {
    let bench = Bench::new();
    let _consumer = subscribe(&bench, "g", None).await;
    happen(&bench, &["a", "b"]);
    let epoch = epoch(&bench).await;
    let acknowledge = async |offset| bench.hub().acknowledge(APP, "g", (epoch, Offset(offset))).await;
    assert_eq!(acknowledge(2).await.expect("it is there"), (epoch, Offset(2)));
    assert_eq!(acknowledge(1).await.expect("it was there"), (epoch, Offset(2)));
    assert_eq!(acknowledge(3).await.expect_err("it is not there").status, 400);
    let of_another_life = bench.hub().acknowledge(APP, "g", (Epoch(1), Offset(9))).await;
    assert_eq!(of_another_life.expect("it says nothing"), (epoch, Offset(2)));
    for (app, group) in [(APP, "h"), (AppId(0), "g")] {
        assert_eq!(bench.hub().acknowledge(app, group, (epoch, Offset(1))).await.expect_err("unknown").status, 404);
    }
}

/// One whose log keeps so many events.
fn keeping(entries: usize) -> Bench {
    let bench = Bench::new();
    *bench.fake.log.lock().expect("not poisoned") = InMemory::keeping(NOW_MS, entries);
    bench
}

#[tokio::test]
async fn what_one_lost_is_told_as_a_gap_and_holds_up_nobody() {
    let bench = keeping(10);
    let mut slow = subscribe(&bench, "slow", None).await;
    let mut quick = subscribe(&bench, "quick", None).await;
    let mut seen = 0;
    for _ in 0..13 {
        happen(&bench, &["d"]);
        seen += read(&mut quick).len();
    }
    assert_eq!(seen, 13);
    // What is still in memory is not lost, whatever the store has left.
    assert_eq!(read(&mut slow).len(), 13);
    let mut late = subscribe(&bench, "slow", None).await;
    bench.hub().lock().streams.get_mut(&APP).expect("it is there").recent.clear();
    let of_late = read(&mut late);
    assert_eq!((of_late[0].as_str(), of_late.len()), ("gap 3@3", 11));
    bench.append(vec![upstream::missed(APP, 17, NOW_MS)]);
    assert_eq!(read(&mut late), ["gap 17@14"]);
}

#[tokio::test]
async fn who_is_behind_what_is_in_memory_reads_page_after_page_from_the_store() {
    let bench = Bench::new();
    let mut behind = subscribe(&bench, "g", None).await;
    let count = EVENTS_RECENT_MAX + 2 * EVENTS_READ_MAX + 1;
    (0..count).for_each(|_| happen(&bench, &["d"]));
    assert!(bench.hub().lock().streams[&APP].recent.len() == EVENTS_RECENT_MAX);
    let expected: Vec<String> = (1..=count).map(|offset| format!("d@{offset}")).collect();
    assert_eq!(read(&mut behind), expected);
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_was_missed_delays_an_event_and_loses_none() {
    let bench = Bench::new();
    let mut consumer = subscribe(&bench, "g", None).await;
    happen(&bench, &["a"]);
    assert_eq!(read(&mut consumer), ["a@1"]);
    bench.unheard(|| happen(&bench, &["b"]));
    assert_eq!(read(&mut consumer), Vec::<String>::new());
    let late = consumer.next().await.expect("it looks by itself");
    assert!(matches!(&late[..], [Read::Event((_, Offset(2)), _)]), "{late:?}");
    // And one in the middle is noticed at once.
    bench.unheard(|| happen(&bench, &["c"]));
    happen(&bench, &["d"]);
    assert_eq!(read(&mut consumer), ["c@3", "d@4"]);
}

#[tokio::test]
async fn a_position_of_another_life_is_a_gap_of_unknown_size() {
    let bench = Bench::new();
    let _keeps = subscribe(&bench, "g", None).await;
    happen(&bench, &["a"]);
    let mut back = subscribe(&bench, "back", Some((Epoch(9), Offset(500)))).await;
    assert_eq!(read(&mut back), ["gap 0@0", "a@1"]);
    let beyond = bench.hub().subscribe(APP, "back", connections(), Some((epoch(&bench).await, Offset(2)))).await;
    assert_eq!(beyond.err().map(|problem| problem.status), Some(400));
    let mut all = subscribe(&bench, "all", Some((Epoch(0), Offset(0)))).await;
    assert_eq!(read(&mut all), ["a@1"], "what was not made yet has become this");
}

#[tokio::test]
async fn one_consumer_reads_for_a_group() {
    let bench = Bench::new();
    let mut first = subscribe(&bench, "g", None).await;
    assert!(first.next().now_or_never().is_none());
    let mut second = subscribe(&bench, "g", None).await;
    assert_eq!(first.next().now_or_never().expect("it is told").expect_err("it is over"), Ended::Replaced);
    drop(first);
    happen(&bench, &["a"]);
    assert_eq!(read(&mut second), ["a@1"]);
}

#[tokio::test]
async fn the_shards_are_told_what_any_group_wants_and_each_group_gets_its_own() {
    let bench = Bench::new();
    let hub = bench.hub();
    assert!(hub.changed_watch().is_none());
    let mut comes = subscribe(&bench, "comes", None).await;
    let filters = AppWatch { publishes: vec!["rooms/+".into()], receipts: true, ..AppWatch::default() };
    let mut says = hub.subscribe(APP, "says", filters.clone(), None).await.expect("there is room");
    let all = AppWatch { connections: true, ..filters };
    assert_eq!(hub.changed_watch().expect("it changed").apps, [(APP, all)]);
    assert!(hub.changed_watch().is_none());
    hub.not_told();
    assert!(hub.changed_watch().is_some());
    let receipt = Happening::Receipt { topic: "t".into(), inbox: None, receipt: Receipt::Delivered, count: 1 };
    bench.happen(APP, &[("u", "a", connected()), ("u", "b", receipt)]);
    assert_eq!((read(&mut comes), read(&mut says)), (vec!["a@1".to_owned()], vec!["b@2".to_owned()]));
}

#[tokio::test]
async fn an_app_has_so_many_groups() {
    let bench = Bench::new();
    let mut groups = Vec::new();
    for number in 0..EVENTS_GROUPS_MAX {
        groups.push(subscribe(&bench, &number.to_string(), None).await);
    }
    let refused = bench.hub().subscribe(APP, "one more", connections(), None).await;
    assert_eq!(refused.err().map(|problem| problem.status), Some(429));
    assert!(bench.hub().subscribe(APP, "0", connections(), None).await.is_ok(), "a known one may come back");
}

#[tokio::test]
async fn a_group_that_could_not_be_recorded_is_none() {
    let bench = Bench::new();
    bench.behave(Behaviour::Refuse(CommandError::Busy));
    let refused = bench.hub().subscribe(APP, "g", connections(), None).await;
    assert_eq!(refused.err().map(|problem| problem.status), Some(429));
    bench.behave(Behaviour::Answer);
    bench.hub().load().await.expect("memory answers");
    assert_eq!(bench.hub().acknowledge(APP, "g", (Epoch(0), Offset(0))).await.expect_err("unknown").status, 404);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_gap() {
    let bench = Bench::new();
    let mut consumer = subscribe(&bench, "g", None).await;
    let mut entry = upstream::missed(APP, 1, NOW_MS);
    entry.message = Arc::new(Message { payload: b"?".as_slice().into(), ..Message::clone(&entry.message) });
    bench.append(vec![entry]);
    assert_eq!(read(&mut consumer), ["gap 1@1"]);
}

static WALL_MS: AtomicU64 = AtomicU64::new(0);

#[tokio::test]
async fn a_group_that_nobody_uses_is_forgotten_and_the_shards_tell_of_it_no_more() {
    let mut bench = Bench::new();
    bench.restart_at(|| WALL_MS.load(Ordering::Relaxed));
    let idle_ms = EVENTS_GROUP_IDLE.as_millis() as u64;
    let advance = |ms| WALL_MS.fetch_add(ms, Ordering::Relaxed);
    let reads = subscribe(&bench, "g", None).await;
    drop(bench.hub().changed_watch());
    advance(idle_ms * 2);
    bench.hub().look_after().await.expect("memory answers");
    assert!(bench.hub().changed_watch().is_none(), "it is read, although nothing happens");
    drop(reads);
    advance(idle_ms - 1);
    bench.hub().look_after().await.expect("memory answers");
    assert!(bench.hub().changed_watch().is_none());
    // The record says that it was in use, also to another process.
    bench.restart_at(|| WALL_MS.load(Ordering::Relaxed));
    bench.hub().look_after().await.expect("memory answers");
    assert_eq!(bench.hub().lock().watch().apps.len(), 1);
    advance(1);
    bench.hub().look_after().await.expect("memory answers");
    assert_eq!(*bench.hub().changed_watch().expect("it changed"), Watch::default());
    assert_eq!(bench.hub().acknowledge(APP, "g", (Epoch(0), Offset(0))).await.expect_err("unknown").status, 404);
    bench.restart_at(|| WALL_MS.load(Ordering::Relaxed));
    bench.hub().look_after().await.expect("memory answers");
    assert!(bench.hub().lock().streams.is_empty(), "its record is gone");
}

#[tokio::test]
async fn the_group_of_a_webhook_that_is_configured_no_more_is_forgotten() {
    let mut bench = Bench::new();
    drop(subscribe(&bench, "$webhook", None).await);
    drop(subscribe(&bench, "g", None).await);
    bench.restart();
    for (app, left) in [(Some(APP), 2), (Some(AppId(0)), 1), (None, 1)] {
        bench.hub().forget_but("$webhook", app).await.expect("memory answers");
        assert_eq!(bench.hub().lock().streams[&APP].groups.len(), left, "{app:?}");
    }
    assert!(bench.hub().changed_watch().is_some(), "the shards are told");
    bench.restart();
    bench.hub().load().await.expect("memory answers");
    assert_eq!(bench.hub().lock().streams[&APP].groups.len(), 1, "its record is gone");
}
