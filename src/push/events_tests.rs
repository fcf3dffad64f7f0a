//! Streams of events and their groups, without shards.

use super::*;
use futures_util::FutureExt;

const APP: AppId = AppId(3);
const EPOCH: Epoch = Epoch(0xe);

fn hub() -> Arc<Hub> {
    Arc::new(Hub::new(EPOCH))
}

fn connections() -> AppWatch {
    AppWatch { connections: true, ..AppWatch::default() }
}

fn happens(hub: &Hub, device: &str) -> u64 {
    let what = Happening::Connected { session_present: false };
    hub.take(Notice::Happened { app: APP, user: "u".into(), device: device.into(), what }, 7)
}

fn subscribe(hub: &Arc<Hub>, group: &str, after: Option<u64>) -> Consumer {
    let after = after.map(|offset| (EPOCH, Offset(offset)));
    hub.subscribe(APP, group, connections(), after).expect("there is room")
}

/// What is there now: `device@offset`, or `gap N@offset`.
fn read(consumer: &mut Consumer) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(read) = consumer.next().now_or_never() {
        all.extend(read.expect("it goes on").into_iter().map(|read| match read {
            Read::Event((_, offset), happened) => format!("{}@{offset}", happened.device),
            Read::Gap((_, offset), count) => format!("gap {count}@{offset}"),
        }));
    }
    all
}

#[test]
fn a_new_group_begins_now_and_a_known_one_behind_what_it_acknowledged() {
    let hub = hub();
    assert_eq!(happens(&hub, "nobody listens"), 0);
    let mut first = subscribe(&hub, "g", None);
    assert_eq!(first.position(), (EPOCH, Offset(0)));
    ["a", "b", "c"].iter().for_each(|device| {
        happens(&hub, device);
    });
    assert_eq!(read(&mut first), ["a@1", "b@2", "c@3"]);
    assert_eq!(hub.acknowledge(APP, "g", (EPOCH, Offset(1))).expect("it is known"), (EPOCH, Offset(1)));
    drop(first);
    happens(&hub, "d");
    assert_eq!(read(&mut subscribe(&hub, "g", None)), ["b@2", "c@3", "d@4"], "at least once");
    assert_eq!(read(&mut subscribe(&hub, "g", Some(3))), ["d@4"]);
    let mut other = subscribe(&hub, "other", None);
    assert_eq!(read(&mut other), Vec::<String>::new());
    happens(&hub, "e");
    assert_eq!(read(&mut other), ["e@5"]);
}

#[test]
fn acknowledgements_never_go_back_and_never_beyond_the_end() {
    let hub = hub();
    let _consumer = subscribe(&hub, "g", None);
    ["a", "b"].iter().for_each(|device| {
        happens(&hub, device);
    });
    let acknowledge = |offset| hub.acknowledge(APP, "g", (EPOCH, Offset(offset)));
    assert_eq!(acknowledge(2).expect("it is there"), (EPOCH, Offset(2)));
    assert_eq!(acknowledge(1).expect("it was there"), (EPOCH, Offset(2)));
    assert_eq!(acknowledge(3).expect_err("it is not there").status, 400);
    let of_another_life = hub.acknowledge(APP, "g", (Epoch(1), Offset(9)));
    assert_eq!(of_another_life.expect("it says nothing"), (EPOCH, Offset(2)));
    assert_eq!(hub.acknowledge(APP, "h", (EPOCH, Offset(1))).expect_err("unknown").status, 404);
    assert_eq!(hub.acknowledge(AppId(0), "g", (EPOCH, Offset(1))).expect_err("unknown").status, 404);
}

#[test]
fn what_one_lost_is_told_as_a_gap_and_holds_up_nobody() {
    let hub = hub();
    let mut slow = subscribe(&hub, "slow", None);
    let mut quick = subscribe(&hub, "quick", None);
    let mut seen = 0;
    for number in 0..EVENTS_KEPT_MAX + 3 {
        let dropped = happens(&hub, "d");
        assert_eq!(dropped, u64::from(number >= EVENTS_KEPT_MAX), "{number}");
        if number % 1_000 == 0 {
            seen += read(&mut quick).len();
        }
    }
    seen += read(&mut quick).len();
    assert_eq!(seen, EVENTS_KEPT_MAX + 3);
    let of_slow = read(&mut slow);
    assert_eq!((of_slow[0].as_str(), of_slow.len()), ("gap 3@3", EVENTS_KEPT_MAX + 1));
    hub.take(Notice::Missed { app: APP, count: 17 }, 7);
    assert_eq!(read(&mut slow), [format!("gap 17@{}", EVENTS_KEPT_MAX + 4)]);
    drop(subscribe(&hub, "new", None));
}

#[test]
fn a_position_of_another_process_is_a_gap_of_unknown_size() {
    let hub = hub();
    let _keeps = subscribe(&hub, "g", None);
    happens(&hub, "a");
    let mut back = hub.subscribe(APP, "back", connections(), Some((Epoch(9), Offset(500)))).expect("there is room");
    assert_eq!(read(&mut back), ["gap 0@0", "a@1"]);
    let beyond = hub.subscribe(APP, "back", connections(), Some((EPOCH, Offset(2))));
    assert_eq!(beyond.err().map(|problem| problem.status), Some(400));
}

#[test]
fn one_consumer_reads_for_a_group() {
    let hub = hub();
    let mut first = subscribe(&hub, "g", None);
    assert!(first.next().now_or_never().is_none());
    let mut second = subscribe(&hub, "g", None);
    assert_eq!(first.next().now_or_never().expect("it is told").expect_err("it is over"), Ended::Replaced);
    drop(first);
    happens(&hub, "a");
    assert_eq!(read(&mut second), ["a@1"]);
}

#[test]
fn the_shards_are_told_what_any_group_wants_and_each_group_gets_its_own() {
    let hub = hub();
    assert!(hub.changed_watch().is_none());
    let mut comes = subscribe(&hub, "comes", None);
    let filters = AppWatch { publishes: vec!["rooms/+".into()], receipts: true, ..AppWatch::default() };
    let mut says = hub.subscribe(APP, "says", filters.clone(), None).expect("there is room");
    let all = AppWatch { connections: true, ..filters };
    assert_eq!(hub.changed_watch().expect("it changed").apps, [(APP, all)]);
    assert!(hub.changed_watch().is_none());
    hub.not_told();
    assert!(hub.changed_watch().is_some());
    happens(&hub, "a");
    let received = Happening::Received { topic: "t".into(), inbox: None, refused: false };
    hub.take(Notice::Happened { app: APP, user: "u".into(), device: "b".into(), what: received }, 7);
    assert_eq!((read(&mut comes), read(&mut says)), (vec!["a@1".to_owned()], vec!["b@2".to_owned()]));
}

#[test]
fn an_app_has_so_many_groups() {
    let hub = hub();
    let groups: Vec<_> = (0..EVENTS_GROUPS_MAX).map(|number| subscribe(&hub, &number.to_string(), None)).collect();
    let refused = hub.subscribe(APP, "one more", connections(), None);
    assert_eq!(refused.err().map(|problem| problem.status), Some(429));
    assert!(hub.subscribe(APP, "0", connections(), None).is_ok(), "a known one may come back");
    drop(groups);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_uses_is_forgotten_and_the_shards_tell_of_it_no_more() {
    let hub = hub();
    let reads = subscribe(&hub, "g", None);
    drop(hub.changed_watch());
    tokio::time::advance(EVENTS_GROUP_IDLE * 2).await;
    assert!(hub.changed_watch().is_none(), "it is read, although nothing happens");
    drop(reads);
    tokio::time::advance(EVENTS_GROUP_IDLE - core::time::Duration::from_millis(1)).await;
    assert!(hub.changed_watch().is_none());
    tokio::time::advance(core::time::Duration::from_millis(1)).await;
    assert_eq!(*hub.changed_watch().expect("it changed"), Watch::default());
    assert_eq!(hub.acknowledge(APP, "g", (EPOCH, Offset(0))).expect_err("unknown").status, 404);
}
