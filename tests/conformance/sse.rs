//! Server-Sent Events: WHATWG HTML §9.2 by a reference parser of our own, positions, and what the contract says of them.

mod retained;
pub mod stream;

use crate::client::{Got, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{SSE_HEARTBEAT, SSE_RETRY, TOPIC_ENTRIES_MAX};
use kittiwake::shard::command::{Push, Target};
use kittiwake::wire::http::Origins;
use std::sync::Arc;
use std::time::Duration;
use stream::{Event, Stream, answer};

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(Event::payload).collect()
}

fn numbers(range: core::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn push_numbers(node: &Node, user: &str, range: core::ops::Range<usize>) {
    range.for_each(|number| node.push_user(user, number.to_string().as_bytes(), Qos::AtLeastOnce));
}

/// Somebody is owed the topic, so it is logged.
fn keep(node: &Node, filter: &str) {
    let mut keeper = node.hello(&Hello::lasting("keeper"));
    keeper.subscribe(&[(filter, Qos::AtLeastOnce)]);
    keeper.bye();
}

fn app() -> Origins {
    Origins::new(&["https://app.example".to_owned()]).expect("it is an origin")
}

#[test]
fn html_9_2_5_the_answer_is_an_event_stream_that_nobody_stores_or_holds_back() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "inbox=1&user=ann");
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.header("cache-control"), Some("no-store"));
    assert_eq!(stream.header("x-accel-buffering"), Some("no"));
    assert_eq!((stream.header("connection"), stream.header("transfer-encoding")), (Some("close"), None));
    assert_eq!((stream.header("content-length"), stream.header("access-control-allow-origin")), (None, None));
    assert!(!stream.is_closed());
    stream.hang_up();
    node.assert_at_rest();
}

#[test]
fn html_9_2_6_retry_says_when_to_come_back() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "topic=a&user=ann");
    stream.expect_nothing();
    assert_eq!(stream.retry(), Some(u64::try_from(SSE_RETRY.as_millis()).expect("it is short")));
}

#[test]
fn a_push_arrives_in_its_envelope_with_the_id_that_the_api_tells() {
    let node = Node::with_shards(2);
    let mut stream = Stream::open(&node, "inbox=1&user=ann&device=phone");
    stream.expect_nothing();
    let target = Target::User("ann".into());
    let pushed = node.push(target, br#"{"x": "line\n"}"#, Qos::ExactlyOnce).expect("it is taken");
    let (epoch, offset) = pushed.results[0].position.expect("it is logged");
    assert_eq!(pushed.results[0].online, Some(1));
    let event = stream.next();
    assert_eq!((event.name.as_str(), event.id.as_str()), ("message", format!("{:016x}:{offset}", epoch.0).as_str()));
    let json = event.json();
    assert_eq!(json["topic"], "$inbox/push");
    assert_eq!(json["payload"], "{\"x\": \"line\\n\"}");
    assert_eq!((&json["qos"], &json["offset"]), (&1.into(), &offset.0.into()));
    assert_eq!(json["epoch"], format!("{:016x}", epoch.0));
}

#[test]
fn html_9_2_5_a_raw_payload_of_many_lines_arrives_as_it_was_with_lf() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "topic=a&user=ann&format=raw");
    for (payload, arrives) in [
        ("one", "one"),
        ("", ""),
        (" leading: colon", " leading: colon"),
        ("a\nb\r\nc\rd", "a\nb\nc\nd"),
        ("ends\n", "ends\n"),
        ("data: x\n\nevent: gap\nid: 7", "data: x\n\nevent: gap\nid: 7"),
    ] {
        node.push_topic("a", payload.as_bytes(), Qos::AtLeastOnce);
        let event = stream.next();
        let nowhere = "0000000000000000:0";
        assert_eq!((event.data.as_str(), event.name.as_str(), event.id.as_str()), (arrives, "message", nowhere));
    }
}

#[test]
fn bytes_that_are_no_text_come_as_base64() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "topic=a&user=ann");
    node.push_topic("a", &[0, 0xff], Qos::AtMostOnce);
    let json = stream.next().json();
    assert_eq!((&json["payload_base64"], json.get("payload")), (&"AP8=".into(), None));
    assert_eq!((&json["qos"], json.get("offset")), (&0.into(), None));
}

#[test]
fn html_9_2_7_comments_keep_a_quiet_stream_alive() {
    let node = Node::with(1, |limits| limits.sse_heartbeat = SSE_HEARTBEAT);
    let mut stream = Stream::open(&node, "topic=a&user=ann");
    stream.expect_nothing();
    let beat = u64::try_from(SSE_HEARTBEAT.as_millis()).expect("it is short");
    // A deadline is met within a tick.
    node.advance(100);
    for beats in 1..=240 {
        node.advance(beat);
        stream.expect_nothing();
        assert_eq!(stream.comments(), beats, "one for each interval, for as long as it lasts");
    }
    node.push_topic("a", b"still there", Qos::AtLeastOnce);
    assert_eq!(stream.next().payload(), "still there");
    node.assert_holds_no_buffers();
}

#[test]
fn one_stream_is_resumed_behind_its_id_exactly() {
    let node = Node::with_shards(2);
    let mut stream = Stream::open(&node, "inbox=1&user=ann&device=phone");
    push_numbers(&node, "ann", 0..5);
    let seen = stream.take(3);
    assert_eq!(texts(&seen), numbers(0..3));
    stream.hang_up();
    push_numbers(&node, "ann", 5..100);
    let mut again = Stream::resume(&node, "inbox=1&user=ann&device=phone", &seen[2].id);
    assert_eq!(texts(&again.rest()), numbers(3..100), "from the id, each once, in order, more than a window");
    let last = again.last_id().to_owned();
    again.hang_up();
    let mut nothing = Stream::resume(&node, "inbox=1&user=ann&device=phone", &last);
    nothing.expect_nothing();
    assert_eq!(nothing.last_id(), last, "the position is told again");
}

#[test]
fn a_position_may_come_in_the_query_for_clients_that_cannot_set_headers() {
    let node = Node::new();
    push_numbers(&node, "ann", 0..4);
    let mut first = Stream::open(&node, "inbox=1&user=ann");
    let id = first.take(2)[1].id.clone();
    let mut second = Stream::open(&node, &format!("inbox=1&user=ann&last_event_id={}", id.replace(':', "%3A")));
    assert_eq!(texts(&second.rest()), numbers(2..4));
    // A browser that comes back gives the header as well, and that is newer.
    let mut third = Stream::resume(&node, &format!("inbox=1&user=ann&last_event_id={id}"), second.last_id());
    third.expect_nothing();
}

#[test]
fn who_has_no_id_yet_gets_one_before_the_first_event() {
    let node = Node::new();
    push_numbers(&node, "ann", 0..2);
    let mut stream = Stream::open(&node, "inbox=1&user=ann");
    let first = stream.take_first_id();
    assert!(first.ends_with(":0"), "{first}");
    stream.hang_up();
    let mut again = Stream::resume(&node, "inbox=1&user=ann", &first);
    assert_eq!(texts(&again.rest()), numbers(0..2));
}

#[test]
fn an_event_stream_begins_behind_the_read_mark_and_does_not_move_it() {
    let node = Node::new();
    let mut phone = node.hello(&Hello::v5("phone").user("ann"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    push_numbers(&node, "ann", 0..1);
    phone.expect_and_ack("0");
    phone.bye();
    push_numbers(&node, "ann", 1..3);
    for _ in 0..2 {
        let mut stream = Stream::open(&node, "inbox=1&user=ann&device=page");
        assert_eq!(texts(&stream.rest()), numbers(1..3), "nobody knows whether the last one arrived");
        stream.hang_up();
    }
}

#[test]
fn a_topic_that_is_logged_is_resumed_behind_its_id() {
    let node = Node::with_shards(2);
    keep(&node, "rooms/1");
    node.push_topic("rooms/1", b"before", Qos::AtLeastOnce);
    let mut stream = Stream::open(&node, "topic=rooms/1&user=ann");
    stream.expect_nothing();
    let start = stream.last_id().to_owned();
    assert!(start.ends_with(":1"), "{start}");
    let pushed = node.push(Target::Topic("rooms/1".into()), b"0", Qos::AtLeastOnce).expect("it is taken");
    let (epoch, offset) = pushed.results[0].position.expect("it is logged");
    assert_eq!(stream.next().id, format!("{:016x}:{offset}", epoch.0));
    stream.hang_up();
    (1..50).for_each(|number| node.push_topic("rooms/1", number.to_string().as_bytes(), Qos::AtLeastOnce));
    for (id, expected) in [(start, numbers(0..50)), (format!("{:016x}:{offset}", epoch.0), numbers(1..50))] {
        let mut again = Stream::resume(&node, "topic=rooms/1&user=ann", &id);
        let events = again.rest();
        assert_eq!(texts(&events), expected);
        assert!(events.iter().all(|event| event.name == "message"));
    }
}

#[test]
fn several_streams_are_resumed_by_one_token() {
    let node = Node::with_shards(2);
    keep(&node, "rooms/#");
    let query = "inbox=1&topic=rooms/%2B&user=ann&device=phone";
    let mut stream = Stream::open(&node, query);
    stream.expect_nothing();
    let send = |range: core::ops::Range<usize>| {
        for number in range {
            node.push_user("ann", format!("inbox {number}").as_bytes(), Qos::AtLeastOnce);
            node.push_topic("rooms/1", format!("one {number}").as_bytes(), Qos::AtLeastOnce);
            node.push_topic("rooms/2", format!("two {number}").as_bytes(), Qos::AtLeastOnce);
            node.push(Target::Everyone, format!("everyone {number}").as_bytes(), Qos::AtLeastOnce).expect("taken");
        }
    };
    send(0..5);
    let mut events = stream.take(7);
    stream.hang_up();
    send(5..60);
    let mut again = Stream::resume(&node, query, &events[6].id);
    events.extend(again.rest());
    let texts = texts(&events);
    assert_eq!(texts.len(), 240);
    for source in ["inbox", "one", "two", "everyone"] {
        let of_it = texts.iter().filter_map(|text| text.strip_prefix(source)?.trim().parse::<usize>().ok());
        assert!(of_it.eq(0..60), "{source}");
    }
    assert!(events.iter().all(|event| !event.id.is_empty() && !event.id.contains(':')));
}

#[test]
fn a_position_of_another_life_is_told_as_a_gap_and_what_there_is_comes() {
    let old = Node::new();
    push_numbers(&old, "ann", 0..3);
    keep(&old, "a");
    old.push_topic("a", b"old", Qos::AtLeastOnce);
    let node = Node::with_seed(8);
    push_numbers(&node, "ann", 5..7);
    keep(&node, "a");
    node.push_topic("a", b"5", Qos::AtLeastOnce);
    for (query, stream, expected) in [
        ("inbox=1&user=ann", "inbox", numbers(5..7)),
        ("topic=a&user=ann", "topics", numbers(5..6)),
        ("topic=a&topic=b&user=ann", "topics", numbers(5..6)),
    ] {
        let mut first = Stream::open(&old, query);
        old.push_user("ann", b"3", Qos::AtLeastOnce);
        old.push_topic("a", b"new", Qos::AtLeastOnce);
        first.rest();
        let id = first.last_id().to_owned();
        for position in [id.as_str(), "nonsense", "ffffffffffffffff:18446744073709551615"] {
            let mut again = Stream::resume(&node, query, position);
            let events = again.rest();
            assert_eq!(events[0].name, "gap", "{query} {position}: {events:?}");
            let gap = events[0].json();
            assert_eq!((&gap["stream"], &gap["reason"]), (&stream.into(), &"unknown_position".into()), "{query}");
            assert_eq!(texts(&events[1..]), expected, "{query} {position}");
            let mut third = Stream::resume(&node, query, again.last_id());
            third.expect_nothing();
        }
    }
}

#[test]
fn what_retention_has_taken_is_told_with_its_offsets() {
    let node = Node::with(1, |limits| limits.inbox_entries = 4);
    push_numbers(&node, "ann", 0..3);
    let mut stream = Stream::open(&node, "inbox=1&user=ann");
    let id = stream.take(1)[0].id.clone();
    stream.hang_up();
    push_numbers(&node, "ann", 3..10);
    let mut again = Stream::resume(&node, "inbox=1&user=ann", &id);
    let events = again.rest();
    let gap = events[0].json();
    assert_eq!((events[0].name.as_str(), &gap["stream"], &gap["reason"]), ("gap", &"inbox".into(), &"trimmed".into()));
    assert_eq!((&gap["first"], &gap["entries"]), (&2.into(), &5.into()));
    assert_eq!(texts(&events[1..]), numbers(6..10));
    assert_eq!(node.counter("gap_entries"), 5);
}

#[test]
fn a_topic_that_was_trimmed_is_told_and_another_ones_trimming_is_not() {
    let node = Node::new();
    keep(&node, "busy");
    let mut keeper = node.hello(&Hello::lasting("quiet keeper"));
    keeper.subscribe(&[("quiet", Qos::AtLeastOnce)]);
    keeper.bye();
    let ids = ["busy", "quiet"].map(|topic| {
        node.push_topic(topic, b"0", Qos::AtLeastOnce);
        let mut stream = Stream::open(&node, &format!("topic={topic}&user=ann"));
        stream.expect_nothing();
        stream.last_id().to_owned()
    });
    node.push_topic("quiet", b"1", Qos::AtLeastOnce);
    (0..TOPIC_ENTRIES_MAX + 3).for_each(|_| node.push_topic("busy", b"x", Qos::AtLeastOnce));
    let mut busy = Stream::resume(&node, "topic=busy&user=ann", &ids[0]);
    let events = busy.rest();
    assert_eq!((events[0].name.as_str(), events.len()), ("gap", TOPIC_ENTRIES_MAX + 1));
    assert_eq!((&events[0].json()["first"], &events[0].json()["entries"]), (&2.into(), &3.into()));
    let mut quiet = Stream::resume(&node, "topic=quiet&user=ann", &ids[1]);
    assert_eq!(texts(&quiet.rest()), numbers(1..2));
}

#[test]
fn the_same_device_takes_over_and_the_old_stream_is_told() {
    let node = Node::with_shards(2);
    let mut first = Stream::open(&node, "inbox=1&user=ann&device=phone");
    first.expect_nothing();
    let mut second = Stream::open(&node, "inbox=1&user=ann&device=phone");
    second.expect_nothing();
    let goodbye = first.next();
    assert_eq!((goodbye.name.as_str(), goodbye.data.as_str()), ("close", "{\"reason\":\"taken_over\"}"));
    assert!(first.is_closed() && !second.is_closed());
    // And across protocols, both ways.
    let mut phone = node.hello(&Hello::v5("phone").user("ann"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    assert_eq!(second.next().name, "close");
    let mut third = Stream::open(&node, "inbox=1&user=ann&device=phone");
    third.expect_nothing();
    assert_eq!(phone.next(), Some(Got::Disconnect(0x8E)));
    assert_eq!((node.gauge("sessions"), node.gauge("connections")), (1, 1));
}

#[test]
fn a_session_that_lasts_is_discarded_when_its_device_asks_for_an_event_stream() {
    let node = Node::new();
    let hello = Hello::lasting("phone").user("ann");
    let mut phone = node.hello(&hello);
    phone.subscribe(&[("rooms/1", Qos::AtLeastOnce)]);
    phone.bye();
    let mut stream = Stream::open(&node, "inbox=1&user=ann&device=phone");
    push_numbers(&node, "ann", 0..1);
    assert_eq!(texts(&stream.rest()), numbers(0..1));
    stream.hang_up();
    assert_eq!((node.gauge("sessions"), node.gauge("subscriptions")), (0, 0));
    let mut phone = node.dial();
    phone.hello(&hello);
    assert!(!phone.expect_connack(0).session_present);
}

#[test]
fn devices_without_a_name_are_several() {
    let node = Node::new();
    let mut tabs = [(); 3].map(|()| Stream::open(&node, "inbox=1&user=ann"));
    tabs.iter_mut().for_each(Stream::expect_nothing);
    push_numbers(&node, "ann", 0..1);
    for tab in &mut tabs {
        assert_eq!(texts(&tab.rest()), numbers(0..1));
    }
    assert_eq!(node.gauge("sessions"), 3);
}

#[test]
fn a_push_to_a_device_reaches_its_event_stream_alone() {
    let node = Node::new();
    let mut phone = Stream::open(&node, "inbox=1&user=ann&device=phone");
    let mut tablet = Stream::open(&node, "inbox=1&user=ann&device=tablet");
    let target = Target::Device { user: "ann".into(), device: "phone".into() };
    node.push(target, b"x", Qos::AtLeastOnce).expect("it is taken");
    push_numbers(&node, "ann", 0..1);
    assert_eq!(texts(&phone.rest()), ["x", "0"]);
    assert_eq!(texts(&tablet.rest()), ["0"]);
}

#[test]
fn everyone_comes_to_an_inbox_without_an_id_of_its_own() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "inbox=1&user=ann");
    push_numbers(&node, "ann", 0..1);
    node.push(Target::Everyone, b"all", Qos::AtLeastOnce).expect("it is taken");
    let events = stream.rest();
    assert_eq!(texts(&events), ["0", "all"]);
    assert_eq!(events[0].id, events[1].id, "the inbox's position is where it was");
}

#[test]
fn qos_zero_is_asked_for_by_name() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "inbox=1&user=ann&qos=0");
    push_numbers(&node, "ann", 0..1);
    let event = stream.next();
    assert_eq!((&event.json()["qos"], &event.json()["offset"]), (&0.into(), &1.into()));
    let query = "GET /events?inbox=1&qos=2 HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(answer(&node, query).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_client_that_does_not_read_lags_and_misses_nothing_that_is_logged() {
    let node = Node::with(1, |limits| limits.outbox_bytes = 16 << 10);
    keep(&node, "rooms/1");
    let query = "inbox=1&topic=rooms/1&user=ann";
    let mut stream = Stream::open(&node, query);
    stream.expect_nothing();
    let payload = |number: usize| format!("{number} {}", "x".repeat(3_000));
    for number in 0..300 {
        node.push_user("ann", payload(number).as_bytes(), Qos::AtLeastOnce);
        node.push_topic("rooms/1", payload(number).as_bytes(), Qos::AtLeastOnce);
        node.push_topic("rooms/1", b"fleeting", Qos::AtMostOnce);
    }
    assert!(node.counter("dropped_outbox_full") > 0, "QoS 0 is dropped and counted");
    let events = stream.rest();
    for topic in ["$inbox/push", "rooms/1"] {
        let of_it = events.iter().filter(|event| event.json()["topic"] == topic && event.payload() != "fleeting");
        let found = of_it.map(Event::payload).collect::<Vec<_>>();
        assert!(found.iter().eq((0..300).map(payload).collect::<Vec<_>>().iter()), "{topic}: {}", found.len());
    }
    node.assert_holds_no_buffers();
    stream.hang_up();
    node.assert_at_rest();
}

#[test]
fn unlogged_messages_of_qos_1_wait_for_a_slow_client_within_bounds() {
    let node = Node::with(1, |limits| limits.outbox_bytes = 16 << 10);
    let mut stream = Stream::open(&node, "topic=rooms/1&user=ann&format=raw");
    stream.expect_nothing();
    let payload = |number: usize| format!("{number} {}", "x".repeat(1_000));
    (0..300).for_each(|number| node.push_topic("rooms/1", payload(number).as_bytes(), Qos::AtLeastOnce));
    let found: Vec<String> = stream.rest().into_iter().map(|event| event.data).collect();
    assert!(found.iter().eq((0..300).map(payload).collect::<Vec<_>>().iter()), "{}", found.len());
    assert_eq!(node.counter("dropped_window_full"), 0);
}

#[test]
fn a_message_longer_than_an_outbox_is_told_as_a_gap_and_the_next_one_comes() {
    let node = Node::with(1, |limits| (limits.outbox_bytes, limits.packet_bytes) = (16 << 10, 16 << 10));
    let mut stream = Stream::open(&node, "inbox=1&user=ann");
    node.push_user("ann", &[0xff; 15 << 10], Qos::AtLeastOnce);
    push_numbers(&node, "ann", 0..1);
    let events = stream.rest();
    assert_eq!((events[0].name.as_str(), &events[0].json()["reason"]), ("gap", &"too_large".into()));
    assert_eq!(texts(&events[1..]), numbers(0..1));
    assert_eq!(node.counter("dropped_too_large"), 1);
}

#[test]
fn pages_of_other_origins_are_refused_and_listed_ones_may_read() {
    let get = |origin: &str| format!("GET /events?topic=a HTTP/1.1\r\nHost: edge.example\r\nOrigin: {origin}\r\n\r\n");
    let node = Node::new();
    assert!(answer(&node, &get("https://evil.example")).starts_with("HTTP/1.1 403 "));
    assert!(answer(&node, &get("https://edge.example:8443")).starts_with("HTTP/1.1 200 OK\r\n"));
    let node = Node::with_origins(app());
    let told = answer(&node, &get("https://app.example"));
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{told}");
    assert!(told.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\nVary: Origin\r\n"), "{told}");
    assert!(answer(&node, &get("https://edge.example")).starts_with("HTTP/1.1 403 "));
}

#[test]
fn a_preflight_is_answered_and_closed() {
    let node = Node::with_origins(app());
    let ask = |origin: &str| {
        let line = "OPTIONS /events?inbox=1 HTTP/1.1\r\nHost: edge.example";
        format!("{line}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\n\r\n")
    };
    let told = answer(&node, &ask("https://app.example"));
    assert!(told.starts_with("HTTP/1.1 204 "), "{told}");
    assert!(told.contains("\r\nAccess-Control-Allow-Headers: Last-Event-ID, Authorization, Cache-Control\r\n"));
    assert!(answer(&node, &ask("https://evil.example")).starts_with("HTTP/1.1 403 "));
    node.assert_at_rest();
}

#[test]
fn other_methods_and_requests_that_ask_for_nothing_are_refused() {
    let node = Node::new();
    for method in ["HEAD", "POST", "PUT", "DELETE"] {
        let told = answer(&node, &format!("{method} /events?inbox=1 HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(told.starts_with("HTTP/1.1 405 ") && told.contains("\r\nAllow: GET, OPTIONS\r\n"), "{told}");
    }
    for topic in ["$SYS", "$SYS/%23"] {
        let told = answer(&node, &format!("GET /events?inbox=1&topic={topic} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(told.starts_with("HTTP/1.1 403 "), "{told}");
    }
    for query in ["", "?inbox=0", "?topic=a%23", "?inbox=1&format=xml", "?topic=%zz"] {
        let told = answer(&node, &format!("GET /events{query} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(told.starts_with("HTTP/1.1 400 "), "{query}: {told}");
    }
    node.assert_at_rest();
}

#[test]
fn what_a_client_says_behind_its_request_is_let_be() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "topic=a&user=ann");
    stream.say(&[b'x'; 100_000]);
    node.push_topic("a", b"x", Qos::AtLeastOnce);
    assert_eq!(stream.next().payload(), "x");
    node.assert_holds_no_buffers();
}

#[test]
fn the_head_leaves_after_interest_is_installed_everywhere() {
    for round in 0..8 {
        let node = Node::with_shards(4);
        let topic = format!("rooms/{round}");
        let mut stream = Stream::start(&node, &format!("topic={topic}&user=ann"));
        while !stream.has_begun() {
            node.step();
        }
        node.push_topic(&topic, b"first", Qos::AtMostOnce);
        assert_eq!(stream.next().payload(), "first");
    }
}

#[test]
fn a_drain_tells_event_streams_why_they_end() {
    let node = Node::new();
    let mut stream = Stream::open(&node, "inbox=1&user=ann");
    stream.expect_nothing();
    node.handle().drain();
    node.run();
    assert_eq!(stream.next().data, "{\"reason\":\"draining\"}");
    assert!(stream.is_closed());
}

#[test]
fn a_store_that_does_not_answer_is_told_in_time() {
    let node = Node::new();
    node.hold_commits();
    let mut stream = Stream::start(&node, "inbox=1&user=ann");
    node.advance(9_000);
    assert!(!stream.has_begun());
    node.advance(1_500);
    assert_eq!((stream.status(), stream.is_closed()), (503, true));
    node.release_commits();
    node.assert_at_rest();
}

#[test]
fn a_push_that_waits_for_devices_counts_what_a_streams_socket_took() {
    for shards in [1, 2] {
        let node = Node::with_shards(shards);
        let mut stream = Stream::open(&node, "inbox=1&user=ann&device=page");
        stream.expect_nothing();
        let wait = |push: &mut Push| push.deliver_within = Some(Duration::from_secs(5));
        let token = node.start_push(Target::User("ann".into()), b"x", Qos::AtLeastOnce, wait).expect("it is taken");
        node.run();
        let pushed = node.take_pushed(token).expect("nobody else is waited for").expect("it works");
        assert_eq!(*pushed.results[0].delivered, [Arc::<str>::from("page")]);
        assert_eq!(stream.next().json()["payload"], "x");
    }
}
