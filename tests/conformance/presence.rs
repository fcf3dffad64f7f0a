//! Who subscribes to a topic that a rule shows.

use crate::client::{Client, Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::PRESENCE_GRACE;
use kittiwake::wire::mqtt::Filter;
use serde_json::Value;

const GRACE_MS: u64 = PRESENCE_GRACE.as_millis() as u64;

fn node(shards: u16) -> Node {
    Node::with_settings(shards, |settings| settings.topics.presence = vec!["rooms/+".into()])
}

fn joins(client: &mut Client, filter: &str) {
    client.subscribe(&[(filter, Qos::AtLeastOnce)]);
}

fn present(node: &Node, topic: &str) -> Vec<String> {
    let present = node.present(topic).expect("a rule shows it");
    assert_eq!(present.count, present.users.len());
    present.users.iter().map(|user| user.to_string()).collect()
}

/// Who came and who left, as a watcher is told.
fn told(watcher: &mut Client) -> Vec<(String, String, u64)> {
    let texts = watcher.drain();
    let read = |text: &String| {
        let json: Value = serde_json::from_str(text).expect("it is JSON");
        assert!(json["at_ms"].is_u64(), "{json}");
        let text = |name: &str| json[name].as_str().expect("it is a text").to_owned();
        (text("event"), text("user"), json["present"].as_u64().expect("it is a number"))
    };
    texts.iter().map(read).collect()
}

fn change(event: &str, user: &str, present: u64) -> (String, String, u64) {
    (event.to_owned(), user.to_owned(), present)
}

#[test]
fn a_user_is_there_once_however_many_devices_and_leaves_with_the_last() {
    for shards in [1, 3] {
        let node = node(shards);
        let mut watcher = node.connect("watcher");
        watcher.subscribe(&[("$presence/rooms/+", Qos::AtLeastOnce)]);
        let mut phone = node.hello(&Hello::v5("phone").user("ann"));
        let mut tablet = node.hello(&Hello::v3("tablet").user("ann"));
        let mut bob = node.connect("bob");
        joins(&mut phone, "rooms/1");
        joins(&mut tablet, "rooms/1");
        joins(&mut bob, "rooms/1");
        assert_eq!(told(&mut watcher), [change("join", "ann", 1), change("join", "bob", 2)]);
        assert_eq!(present(&node, "rooms/1"), ["ann", "bob"]);
        phone.bye();
        node.advance(GRACE_MS * 2);
        assert_eq!((told(&mut watcher), present(&node, "rooms/1").len()), (vec![], 2));
        tablet.hang_up();
        node.advance(GRACE_MS - 200);
        assert_eq!(told(&mut watcher), []);
        node.advance(400);
        assert_eq!(told(&mut watcher), [change("leave", "ann", 1)]);
        assert_eq!(present(&node, "rooms/1"), ["bob"]);
        bob.unsubscribe(&["rooms/1"]);
        node.advance(GRACE_MS + 200);
        assert_eq!(told(&mut watcher), [change("leave", "bob", 0)]);
        assert_eq!(node.gauge("presence"), 0);
    }
}

#[test]
fn a_quick_reconnect_is_silent() {
    let node = node(2);
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("$presence/#", Qos::AtMostOnce)]);
    let hello = Hello::lasting("ann");
    let mut ann = node.hello(&hello);
    joins(&mut ann, "rooms/1");
    assert_eq!(told(&mut watcher), [change("join", "ann", 1)]);
    for _ in 0..5 {
        ann.hang_up();
        node.advance(GRACE_MS - 500);
        assert_eq!(present(&node, "rooms/1"), ["ann"], "it has not left yet");
        ann = node.hello(&hello);
        node.advance(GRACE_MS * 2);
    }
    // A take-over, with the session and without it.
    let again = node.hello(&hello);
    let mut fresh = node.hello(&Hello::v5("ann"));
    joins(&mut fresh, "rooms/1");
    node.advance(GRACE_MS * 2);
    assert_eq!((told(&mut watcher), present(&node, "rooms/1")), (vec![], vec!["ann".to_owned()]));
    drop((ann, again));
    fresh.hang_up();
    node.advance(GRACE_MS + 200);
    assert_eq!(told(&mut watcher), [change("leave", "ann", 0)]);
}

#[test]
fn a_session_that_is_away_is_not_there_and_is_again_on_its_return() {
    let node = node(2);
    let hello = Hello::lasting("ann");
    let mut ann = node.hello(&hello);
    joins(&mut ann, "rooms/1");
    ann.bye();
    node.advance(GRACE_MS + 200);
    assert_eq!(present(&node, "rooms/1"), Vec::<String>::new());
    node.restart();
    assert_eq!(present(&node, "rooms/1"), Vec::<String>::new());
    let ann = node.hello(&hello);
    assert_eq!(present(&node, "rooms/1"), ["ann"]);
    ann.bye();
    node.advance(GRACE_MS + 200);
    assert_eq!(node.gauge("presence"), 0);
}

#[test]
fn only_who_names_a_topic_that_is_shown_is_in_it() {
    let node = node(2);
    let mut ann = node.connect("ann");
    for filter in ["rooms/+", "#", "$share/g/rooms/1", "halls/1"] {
        joins(&mut ann, filter);
    }
    assert_eq!(present(&node, "rooms/1"), Vec::<String>::new());
    assert_eq!(node.present("halls/1"), None, "no rule shows it");
    let mut stream = node.dial();
    stream.send(b"GET /events?topic=rooms/1&user=bob HTTP/1.1\r\nHost: e\r\n\r\n");
    assert_eq!(present(&node, "rooms/1"), ["bob"]);
}

#[test]
fn a_name_that_needs_escaping_is_told_as_it_is() {
    let node = node(1);
    let mut watcher = node.connect("watcher");
    watcher.subscribe(&[("$presence/rooms/1", Qos::AtMostOnce)]);
    let mut odd = node.hello(&Hello::v5("phone").user("a\"b\\"));
    joins(&mut odd, "rooms/1");
    assert_eq!(told(&mut watcher), [change("join", "a\"b\\", 1)]);
}

#[test]
fn a_user_is_there_once_its_filters_stand_everywhere_and_is_told_of_itself() {
    let node = node(4);
    let mut watchers: Vec<Client> = (0..4).map(|n| node.connect(&format!("watcher-{n}"))).collect();
    for watcher in &mut watchers {
        watcher.subscribe(&[("$presence/#", Qos::AtMostOnce)]);
    }
    // Their homes, and the shards of who joins, are all over the node.
    for n in 0..32 {
        let (topic, who) = (format!("rooms/{n}"), format!("$presence/rooms/{n}"));
        let mut ann = node.connect(&format!("ann-{n}"));
        let filters = [Filter::new(&topic, Qos::AtLeastOnce), Filter::new(&who, Qos::AtMostOnce)];
        ann.write_subscribe(&filters);
        while watchers.iter_mut().all(|watcher| watcher.peek().is_none()) {
            node.step();
        }
        assert!(ann.peek().is_some(), "{topic}: others are told that it is there before its SUBSCRIBE is answered");
        assert!(matches!(ann.next(), Some(Got::SubAck(..))));
        let join = [change("join", &format!("ann-{n}"), 1)];
        assert_eq!(told(&mut ann), join);
        for watcher in &mut watchers {
            assert_eq!(told(watcher), join);
        }
        let mut stream = node.dial();
        stream.write(format!("GET /events?topic={topic}&topic={who}&user=bob HTTP/1.1\r\nHost: e\r\n\r\n").as_bytes());
        while watchers.iter_mut().all(|watcher| watcher.peek().is_none()) {
            node.step();
        }
        assert!(stream.peek().is_some(), "{topic}: others are told that it is there before its stream has begun");
        node.run();
        let heard = String::from_utf8(stream.take_bytes()).expect("it is text");
        // A text in a text.
        assert!(heard.contains(r#"{\"event\":\"join\",\"user\":\"bob\",\"present\":2,"#), "{topic}: {heard}");
        for watcher in &mut watchers {
            assert_eq!(told(watcher), [change("join", "bob", 2)]);
        }
    }
}
