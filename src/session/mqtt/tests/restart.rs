//! What was in flight at QoS 2 when the process ended comes at its place among what is read again.

use super::*;
use crate::base::log::StreamGap;

/// One of each: acknowledged messages at QoS 1 and 2 in turns, of which nothing is acknowledged, then the end.
fn crashed(count: u16) -> Shard {
    let mut shard = durable(Version::V5);
    for number in 1..=count {
        let qos = if number % 2 == 1 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        shard.push(&number.to_string(), qos);
    }
    shard.flush();
    shard.crash();
    shard.seen();
    shard
}

fn labels(seen: &[String]) -> Vec<&str> {
    let publishes = seen.iter().filter(|line| line.starts_with("PUBLISH"));
    publishes.filter_map(|line| line.split("$inbox/").nth(1)).map(|rest| rest.split(' ').next().unwrap_or("")).collect()
}

#[test]
fn after_a_crash_both_qos_come_in_offset_order() {
    let mut shard = crashed(6);
    let seen = shard.connect(3600, false);
    assert_eq!(labels(&seen), ["1", "2", "3", "4", "5", "6"], "{seen:?}");
    let dups: Vec<_> = seen.iter().filter(|line| line.ends_with("q2 dup")).collect();
    assert_eq!(dups, ["PUBLISH 2 $inbox/2 q2 dup", "PUBLISH 4 $inbox/4 q2 dup", "PUBLISH 6 $inbox/6 q2 dup"]);
}

#[test]
fn what_is_held_keeps_to_a_window_of_one_and_to_its_order_on_the_next_connection() {
    for restless in [false, true] {
        let mut shard = crashed(4);
        shard.restless = restless;
        let mut request = shard.request(3600, false);
        request.receive_maximum = 1;
        assert_eq!(labels(&shard.open(&request)), ["1"]);
        // It is lost, and comes again before what is still held.
        shard.drop_connection();
        assert_eq!(labels(&shard.open(&request)), ["1"]);
        let first = shard.session().flights().last().expect("it is sent").delivery.0;
        assert_eq!(labels(&shard.ack(AckKind::PubAck, first)), ["2"]);
        shard.drop_connection();
        request.receive_maximum = 9;
        let seen = shard.open(&request);
        assert_eq!(labels(&seen), ["2", "3", "4"], "{seen:?}");
        shard.drop_connection();
        assert_eq!(labels(&shard.open(&request)), ["2", "3", "4"]);
    }
}

#[test]
fn what_is_held_comes_although_retention_has_taken_it_and_only_the_rest_is_a_gap() {
    let mut shard = crashed(6);
    shard.first_kept = 6;
    let seen = shard.connect(3600, false);
    let told: Vec<_> = seen.iter().filter(|line| line.starts_with("gap") || line.starts_with("PUBLISH")).collect();
    let expected = [
        "gap 1 1",
        "PUBLISH 2 $inbox/2 q2 dup",
        "gap 3 1",
        "PUBLISH 4 $inbox/4 q2 dup",
        "gap 5 1",
        "PUBLISH 6 $inbox/6 q2 dup",
    ];
    assert_eq!(told, expected);
}

#[test]
fn all_of_the_inbox_is_gone_and_what_is_held_comes() {
    let mut shard = crashed(2);
    shard.first_kept = 3;
    let seen = shard.connect(3600, false);
    assert!(seen.contains(&"gap 1 1".to_owned()), "{seen:?}");
    assert_eq!(labels(&seen), ["2"]);
    assert!(shard.ack(AckKind::PubRec, 2).contains(&"PubRel 2 00".to_owned()));
    shard.ack(AckKind::PubComp, 2);
    assert_eq!(shard.session().inbox_settled().1, Offset(2));
}

#[test]
fn what_is_held_does_not_overtake_what_is_being_committed() {
    let mut shard = durable(Version::V5);
    for label in ["a", "b", "c"] {
        shard.push(label, Qos::ExactlyOnce);
    }
    shard.seen();
    // The second was read by a later connection, say: it has no record.
    shard.records.retain(|key, _| !key.ends_with(&[0, 2]));
    shard.crash();
    shard.hold = true;
    let seen = shard.connect(3600, false);
    assert!(labels(&seen).is_empty(), "the greeting is being committed");
    shard.commit_held();
    let seen = shard.seen();
    assert_eq!(labels(&seen), ["a"], "the second is being committed anew: {seen:?}");
    shard.commit_held();
    assert_eq!(labels(&shard.seen()), ["b", "c"]);
}

#[test]
fn a_client_may_say_that_it_has_what_is_held_before_it_comes_again() {
    let mut shard = crashed(4);
    let mut request = shard.request(3600, false);
    request.receive_maximum = 2;
    assert_eq!(labels(&shard.open(&request)), ["1", "2"]);
    assert_eq!(shard.ack(AckKind::PubRec, 4), ["PubRel 4 00"]);
    shard.ack(AckKind::PubComp, 4);
    let one = shard.session().flights().find(|flight| flight.qos == Qos::AtLeastOnce).map(|one| one.delivery.0);
    let seen = shard.ack(AckKind::PubAck, one.expect("it is in flight"));
    assert_eq!(labels(&seen), ["3"]);
    shard.flush();
}

#[test]
fn without_a_filter_of_the_inbox_what_is_held_of_it_comes_at_once() {
    let mut shard = crashed(2);
    let all = core::mem::take(&mut shard.session().subscriptions);
    drop(all);
    shard.session().replace_subscriptions(Vec::new());
    assert_eq!(labels(&shard.connect(3600, false)), ["2"]);
}

#[test]
fn an_inbox_that_has_begun_anew_keeps_nothing_back() {
    let mut shard = crashed(4);
    let request = shard.request(3600, false);
    let identity = Identity { app: AppId(0), user: "alice".into(), device: "phone".into() };
    let head = StreamHead { epoch: Epoch(6), first: Offset(1), last: Offset(0), trimmed: Seq(0) };
    let at = OpenAt {
        log: (Epoch(1), Seq(10)),
        now: shard.now,
        shard_seq: shard.seq,
        inbox: Some((Offset(0), head)),
        packet_bytes: 1_000,
        sees_node: false,
        keep_alive_instead_of_none: 2_400,
    };
    let mut effects = core::mem::take(&mut shard.effects);
    let connection = ConnectionId { index: 1, generation: 1 };
    shard.id = open(&mut shard.directory, &identity, &request, connection, at, &mut effects);
    shard.carry_out(effects);
    assert_eq!(labels(&shard.seen()), ["2", "4"]);
}

#[test]
fn gaps_of_topics_are_told_in_their_order_to_those_they_concern() {
    let mut shard = durable(Version::V5);
    shard.subscribe("t/+", Qos::AtLeastOnce);
    let gap = |stream: StreamKey, trimmed: u64| StreamGap { stream, kept_from: Offset(7), trimmed: Seq(trimmed) };
    let topic = |name: &str| StreamKey::Topic(AppId(0), name.into());
    let everyone = StreamKey::Everyone(AppId(0));
    let gaps =
        [gap(topic("t/old"), 9), gap(topic("t/1"), 20), gap(topic("u"), 21), gap(everyone, 31), gap(topic("t/2"), 60)];
    let mut inner = (*message("x", Qos::AtLeastOnce)).clone();
    inner.topic = "t/1".into();
    let entry =
        Entry { stream: topic("t/1"), epoch: Epoch(9), offset: Offset(7), seq: Seq(30), message: Arc::new(inner) };
    shard.call(|session, now, effects| {
        session.on_topics_pulled(core::slice::from_ref(&entry), &gaps, Seq(50), now, effects)
    });
    let expected = ["gap Topic(AppId(0), \"t/1\") 7", "PUBLISH 1 t/1 q1", "gap Everyone(AppId(0)) 7"];
    assert_eq!(shard.seen(), expected);
    // What it has been told is not told again, and what lies further on is.
    shard.call(|session, now, effects| session.on_topics_pulled(&[], &gaps, Seq(70), now, effects));
    assert_eq!(shard.seen(), ["gap Topic(AppId(0), \"t/2\") 7"]);
    assert_eq!(shard.session().topics_delivered(), Seq(70));
}
