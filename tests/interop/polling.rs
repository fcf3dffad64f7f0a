//! Polls and history with curl, presence and devices' questions with paho, on both drivers.

use crate::everywhere;
use crate::gateway::{Gateway, Lines};
use serde_json::{Value, json};

fn answer(curl: Lines) -> Value {
    let (lines, code) = curl.end().expect("a poll is answered");
    assert_eq!((lines.len(), code), (1, Some(0)), "{lines:?}");
    serde_json::from_str(&lines[0]).expect("it is JSON")
}

fn payloads(answer: &Value, list: &str) -> Vec<String> {
    let all = answer[list].as_array().unwrap_or_else(|| panic!("no {list}: {answer}"));
    all.iter().map(|one| one["payload"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn curl_polls_an_inbox_and_waits_for_what_comes_next() {
    everywhere(|gateway| {
        let query = "inbox=1&user=alice&device=page";
        gateway.push(json!({"to": {"user": "alice"}, "label": "orders/7", "payload": {"n": 1}}));
        let first = answer(gateway.curl_poll(&format!("{query}&timeout_ms=0")));
        assert_eq!(payloads(&first, "events"), ["{\"n\":1}"]);
        assert_eq!(first["events"][0]["topic"], "$inbox/orders/7");
        let after = first["next"].as_str().expect("a text");
        let nothing = answer(gateway.curl_poll(&format!("{query}&timeout_ms=100&after={after}")));
        assert_eq!((payloads(&nothing, "events").len(), &nothing["next"]), (0, &first["next"]));
        let waiting = gateway.curl_poll(&format!("{query}&timeout_ms=20000&after={after}"));
        gateway.wait_for_gauge("subscriptions", 1);
        gateway.push(json!({"to": {"user": "alice"}, "payload": "two"}));
        let second = answer(waiting);
        assert_eq!(payloads(&second, "events"), ["two"]);
        for n in 3..200 {
            gateway.push(json!({"to": {"user": "alice"}, "payload": format!("{n}")}));
        }
        let (mut got, mut at) = (Vec::new(), second["next"].clone());
        while got.len() < 197 {
            let after = at.as_str().expect("a text");
            let page = answer(gateway.curl_poll(&format!("{query}&timeout_ms=20000&after={after}")));
            got.extend(payloads(&page, "events"));
            at = page["next"].clone();
        }
        assert_eq!(got, (3..200).map(|n| n.to_string()).collect::<Vec<_>>());
        gateway.wait_for_gauge("connections", 0);
        gateway.wait_for_gauge("sessions", 0);
    });
}

/// Subscribes, asks, and prints what it was answered and what it is told.
const ASKER: &str = r#"
import sys, json, paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes
port, user = int(sys.argv[1]), sys.argv[2]
def on_connect(c, u, flags, reason, props):
    c.subscribe([(f, mqtt.SubscribeOptions(qos=1)) for f in ["replies/" + user, "rooms/1", "$presence/rooms/1"]])
def on_subscribe(c, u, mid, reasons, props):
    for topic, question in [("$api/history", {"topic": "rooms/1"}), ("$api/presence", {"topic": "rooms/1"})]:
        props = Properties(PacketTypes.PUBLISH)
        props.ResponseTopic, props.CorrelationData = "replies/" + user, topic.encode()
        c.publish(topic, json.dumps(question), qos=1, properties=props)
def on_message(c, u, m):
    about = m.properties.CorrelationData.decode() if m.topic.startswith("replies/") else m.topic
    print(json.dumps({"about": about, "said": json.loads(m.payload)}), flush=True)
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=user, protocol=mqtt.MQTTv5)
c.username_pw_set(user, "")
c.on_connect, c.on_subscribe, c.on_message = on_connect, on_subscribe, on_message
c.connect("127.0.0.1", port)
c.loop_forever()
"#;

#[test]
fn history_and_presence_are_read_by_http_and_by_a_stock_device() {
    let rules = [("KITTIWAKE_TOPICS_HISTORY", "rooms/+=100/1h"), ("KITTIWAKE_TOPICS_PRESENCE", "rooms/+")];
    for (driver, shards) in [("epoll", 1), ("io_uring", 4)] {
        let gateway = Gateway::start_with(driver, shards, &rules);
        for n in 0..5 {
            gateway.push(json!({"to": {"topic": "rooms/1"}, "payload": format!("{n}"), "qos": n % 2}));
        }
        let (status, page) = gateway.get("/v1/topics/rooms%2F1/history?after=1&limit=3").expect("the API answers");
        assert_eq!((status, payloads(&page, "entries")), (200, ["1", "2", "3"].map(String::from).to_vec()));
        assert_eq!((&page["next"], &page["more"], &page["last"]), (&json!(4), &json!(true), &json!(5)));
        let alice = gateway.python(ASKER, &["alice"]);
        let said: Vec<Value> =
            alice.take(3).iter().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
        let about = |what: &str| {
            let found = said.iter().find(|line| line["about"] == what);
            found.unwrap_or_else(|| panic!("nothing about {what}: {said:?}"))["said"].clone()
        };
        assert_eq!(payloads(&about("$api/history"), "entries"), ["0", "1", "2", "3", "4"].map(String::from).to_vec());
        assert_eq!(about("$api/presence"), json!({"count": 1, "users": ["alice"]}));
        assert_eq!(
            (&about("$presence/rooms/1")["event"], &about("$presence/rooms/1")["user"]),
            (&json!("join"), &json!("alice"))
        );
        let (_, present) = gateway.get("/v1/topics/rooms%2F1/presence").expect("the API answers");
        assert_eq!(present, json!({"topic": "rooms/1", "count": 1, "users": ["alice"]}));
        gateway.push(json!({"to": {"user": "alice"}, "payload": "unread"}));
        let (_, user) = gateway.get("/v1/users/alice").expect("the API answers");
        assert_eq!((&user["online"], &user["unread"]), (&json!(1), &json!(1)));
        let (_, inbox) = gateway.get("/v1/users/alice/inbox").expect("the API answers");
        assert_eq!(payloads(&inbox, "entries"), ["unread"]);
    }
}
