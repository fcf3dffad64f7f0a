//! Devices' questions: `$api/history` and `$api/presence`, answered to the Response Topic of the session that asked.

use crate::client::{Client, Got, Hello, publish};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::QUESTIONS_MAX;
use kittiwake::shard::settings::HistoryRule;
use serde_json::{Value, json};
use std::time::Duration;

const REPLIES: &str = "replies/ann";

fn node(shards: u16) -> Node {
    Node::with_settings(shards, |settings| {
        let rule = HistoryRule { filter: "rooms/+".into(), entries: 1_000, age: Duration::from_secs(3_600) };
        settings.topics.history = vec![rule];
        settings.topics.presence = vec!["rooms/+".into()];
    })
}

fn asker(node: &Node) -> Client {
    let mut ann = node.connect("ann");
    ann.subscribe(&[(REPLIES, Qos::AtLeastOnce)]);
    ann
}

/// Asks at QoS 1 and returns the reason of the PUBACK.
fn ask(client: &mut Client, topic: &str, question: &Value, to: Option<&str>) -> u8 {
    let payload = question.to_string();
    let mut asked = publish(topic, payload.as_bytes(), Qos::AtLeastOnce, 7);
    asked.properties.response_topic = to;
    asked.properties.correlation_data = Some(b"\x01\x02");
    client.send_packet(&asked);
    match client.next() {
        Some(Got::PubAck(7, reason)) => reason,
        other => panic!("{other:?} is no PUBACK"),
    }
}

/// The answer that has come.
#[track_caller]
fn answer(client: &mut Client) -> Value {
    match client.next() {
        Some(Got::Publish(arrived)) => {
            assert_eq!((arrived.topic.as_str(), arrived.qos, arrived.retain), (REPLIES, Qos::AtMostOnce, false));
            assert_eq!(arrived.correlation.as_deref(), Some(&b"\x01\x02"[..]));
            assert_eq!(arrived.content_type.as_deref(), Some("application/json"));
            serde_json::from_slice(&arrived.payload).expect("it is JSON")
        }
        other => panic!("{other:?} is no answer"),
    }
}

fn payloads(answer: &Value) -> Vec<&str> {
    let entries = answer["entries"].as_array().expect("there are entries");
    entries.iter().map(|entry| entry["payload"].as_str().expect("tests send text")).collect()
}

#[test]
fn a_device_reads_a_topics_history_and_its_own_inbox_in_pages() {
    for shards in [1, 3] {
        let node = node(shards);
        for number in 0..5 {
            node.push_topic("rooms/1", number.to_string().as_bytes(), Qos::AtMostOnce);
            node.push_user("ann", format!("inbox {number}").as_bytes(), Qos::AtLeastOnce);
            node.push_user("bob", b"another's", Qos::AtLeastOnce);
        }
        let mut ann = asker(&node);
        assert_eq!(ask(&mut ann, "$api/history", &json!({ "topic": "rooms/1", "limit": 2 }), Some(REPLIES)), 0);
        let first = answer(&mut ann);
        assert_eq!((payloads(&first), &first["next"], &first["more"]), (vec!["0", "1"], &json!(2), &json!(true)));
        let question = json!({ "topic": "rooms/1", "after": 2, "epoch": first["epoch"] });
        assert_eq!(ask(&mut ann, "$api/history", &question, Some(REPLIES)), 0);
        let rest = answer(&mut ann);
        assert_eq!((payloads(&rest), &rest["more"], &rest["last"]), (vec!["2", "3", "4"], &json!(false), &json!(5)));
        assert_eq!(ask(&mut ann, "$api/history", &json!({ "inbox": true, "after": 3 }), Some(REPLIES)), 0);
        assert_eq!(payloads(&answer(&mut ann)), ["inbox 3", "inbox 4"]);
        let lost = json!({ "inbox": true, "after": 3, "epoch": "00000000000000ff" });
        assert_eq!(ask(&mut ann, "$api/history", &lost, Some(REPLIES)), 0);
        let all = answer(&mut ann);
        assert_eq!((payloads(&all).len(), &all["gap"]), (5, &json!({ "reason": "unknown_position" })));
        ann.expect_nothing();
    }
}

#[test]
fn a_device_learns_who_is_in_a_topic() {
    for shards in [1, 3] {
        let node = node(shards);
        let mut bob = node.connect("bob");
        bob.subscribe(&[("rooms/1", Qos::AtMostOnce)]);
        let mut ann = asker(&node);
        for (topic, expected) in [
            ("rooms/1", json!({ "count": 1, "users": ["bob"] })),
            ("rooms/2", json!({ "count": 0, "users": [] })),
            ("halls/1", json!({ "error": "no presence is shown of this topic" })),
        ] {
            assert_eq!(ask(&mut ann, "$api/presence", &json!({ "topic": topic }), Some(REPLIES)), 0);
            assert_eq!(answer(&mut ann), expected, "{topic}");
        }
    }
}

#[test]
fn an_answer_goes_to_the_session_that_asked_and_to_nobody_else() {
    let node = node(2);
    node.push_topic("rooms/1", b"x", Qos::AtLeastOnce);
    let mut eve = node.connect("eve");
    eve.subscribe(&[("#", Qos::AtLeastOnce), (REPLIES, Qos::AtLeastOnce), ("$api/#", Qos::AtLeastOnce)]);
    let mut ann = asker(&node);
    assert_eq!(ask(&mut ann, "$api/history", &json!({ "topic": "rooms/1" }), Some(REPLIES)), 0);
    assert_eq!(payloads(&answer(&mut ann)), ["x"]);
    eve.expect_nothing();
}

#[test]
fn a_device_may_ask_only_of_what_it_may_subscribe_to_and_where_it_listens() {
    let node = node(1);
    let mut ann = asker(&node);
    let good = json!({ "topic": "rooms/1" });
    for (topic, question, to, reason) in [
        ("$api/history", &good, None, 0x87),
        ("$api/history", &good, Some("elsewhere"), 0x90),
        ("$api/history", &good, Some("$SYS/x"), 0x90),
        ("$api/history", &json!({}), Some(REPLIES), 0x99),
        ("$api/history", &json!({ "topic": "$SYS/figures" }), Some(REPLIES), 0x90),
        ("$api/history", &json!({ "topic": "rooms/+" }), Some(REPLIES), 0x90),
        ("$api/presence", &json!({ "inbox": true }), Some(REPLIES), 0x99),
        ("$api/other", &good, Some(REPLIES), 0x87),
    ] {
        assert_eq!(ask(&mut ann, topic, question, to), reason, "{topic} {question} {to:?}");
    }
    ann.expect_nothing();
    assert_eq!(node.counter("publish_refused"), 8);
    // 3.1.1 has no Response Topic, and no way to be told so.
    let mut old = node.hello(&Hello::v3("old"));
    old.publish("$api/history", b"{}", Qos::AtLeastOnce, 3);
    assert_eq!(old.next(), Some(Got::PubAck(3, 0)));
}

#[test]
fn questions_without_an_answer_are_bounded() {
    let node = node(1);
    let mut ann = asker(&node);
    node.hold_commits();
    for _ in 0..QUESTIONS_MAX {
        assert_eq!(ask(&mut ann, "$api/history", &json!({ "inbox": true }), Some(REPLIES)), 0);
    }
    assert_eq!(ask(&mut ann, "$api/history", &json!({ "inbox": true }), Some(REPLIES)), 0x97);
    node.release_commits();
    for _ in 0..QUESTIONS_MAX {
        answer(&mut ann);
    }
    assert_eq!(ask(&mut ann, "$api/history", &json!({ "inbox": true }), Some(REPLIES)), 0);
    answer(&mut ann);
}

#[test]
fn a_question_at_qos_2_is_acknowledged_once_and_asked_once() {
    let node = node(1);
    let mut ann = asker(&node);
    let mut asked = publish("$api/history", br#"{"inbox":true}"#, Qos::ExactlyOnce, 9);
    asked.properties.response_topic = Some(REPLIES);
    asked.properties.correlation_data = Some(b"\x01\x02");
    ann.send_packet(&asked);
    assert_eq!(ann.next(), Some(Got::PubRec(9, 0)));
    answer(&mut ann);
    asked.dup = true;
    ann.send_packet(&asked);
    assert_eq!(ann.next(), Some(Got::PubRec(9, 0)));
    ann.ack(kittiwake::wire::mqtt::AckKind::PubRel, 9);
    assert_eq!(ann.next(), Some(Got::PubComp(9, 0)));
    ann.expect_nothing();
}

#[test]
fn an_answer_is_as_long_as_the_device_takes_and_says_where_to_go_on() {
    let node = node(1);
    for number in 0..20 {
        node.push_topic("rooms/1", format!("{number:0100}").as_bytes(), Qos::AtLeastOnce);
    }
    let mut ann = node.hello(&Hello::v5("ann").packet_bytes(2_000));
    ann.subscribe(&[(REPLIES, Qos::AtMostOnce)]);
    let (mut got, mut after) = (Vec::new(), 0);
    for _ in 0..20 {
        let question = json!({ "topic": "rooms/1", "after": after });
        assert_eq!(ask(&mut ann, "$api/history", &question, Some(REPLIES)), 0);
        let page = answer(&mut ann);
        got.extend(payloads(&page).into_iter().map(|text| text.parse::<usize>().expect("a number")));
        after = page["next"].as_u64().expect("a number");
        if page["more"] == json!(false) {
            break;
        }
    }
    assert!(got.into_iter().eq(0..20));
}
