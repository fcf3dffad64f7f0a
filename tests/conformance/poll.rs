//! Long-poll and plain polling: one answer to one request, over the positions that event streams have.

use crate::client::{Client, Hello};
use crate::node::Node;
use kittiwake::base::ids::Qos;
use kittiwake::limits::{HANDSHAKE_TIMEOUT, POLL_EVENTS_DEFAULT, POLL_TIMEOUT_DEFAULT};
use kittiwake::shard::command::Target;
use kittiwake::shard::settings::HistoryRule;
use kittiwake::wire::http::Origins;
use serde_json::Value;
use std::time::Duration;

/// A poll on its way.
struct Poll {
    client: Client,
    bytes: Vec<u8>,
}

impl Poll {
    fn ask(node: &Node, query: &str) -> Self {
        Self::ask_as(node, query, "")
    }

    fn ask_as(node: &Node, query: &str, headers: &str) -> Self {
        let mut client = node.dial();
        client.send(format!("GET /poll?{query} HTTP/1.1\r\nHost: edge.example\r\n{headers}\r\n").as_bytes());
        Self { client, bytes: Vec::new() }
    }

    #[track_caller]
    fn waits(&mut self) {
        self.bytes.extend(self.client.take_bytes());
        assert!(self.bytes.is_empty(), "{}", String::from_utf8_lossy(&self.bytes));
        assert!(!self.client.is_closed());
    }

    /// The whole answer, after which the connection ends.
    #[track_caller]
    fn answer(mut self) -> (String, Value) {
        self.bytes.extend(self.client.take_bytes());
        assert!(self.client.is_closed(), "{}", String::from_utf8_lossy(&self.bytes));
        let text = String::from_utf8(self.bytes).expect("answers are text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).expect("it is JSON"))
    }

    #[track_caller]
    fn json(self) -> Value {
        let (head, body) = self.answer();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        body
    }
}

fn payloads(answer: &Value) -> Vec<String> {
    let events = answer["events"].as_array().expect("there are events");
    events.iter().map(|event| event["payload"].as_str().expect("tests send text").to_owned()).collect()
}

fn next(answer: &Value) -> String {
    answer["next"].as_str().expect("every answer says where to go on").to_owned()
}

fn numbers(range: core::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn push_numbers(node: &Node, user: &str, range: core::ops::Range<usize>) {
    range.for_each(|number| node.push_user(user, number.to_string().as_bytes(), Qos::AtLeastOnce));
}

fn keep_history(filter: &str, entries: usize) -> HistoryRule {
    HistoryRule { filter: filter.into(), entries, age: Duration::from_secs(3_600) }
}

/// All that a client is told that comes back with what it was told, a plain poll at a time.
fn drain(node: &Node, query: &str, from: &str) -> Vec<String> {
    let (mut got, mut at) = (Vec::new(), from.to_owned());
    for _ in 0..1_000 {
        let answer = Poll::ask(node, &format!("{query}&timeout_ms=0&after={at}")).json();
        let more = payloads(&answer);
        if more.is_empty() {
            return got;
        }
        got.extend(more);
        at = next(&answer);
    }
    panic!("it never comes to an end");
}

#[test]
fn a_plain_poll_is_answered_at_once_with_what_there_is() {
    let node = Node::with_shards(2);
    push_numbers(&node, "ann", 0..3);
    let answer = Poll::ask(&node, "inbox=1&user=ann&timeout_ms=0").json();
    assert_eq!(payloads(&answer), numbers(0..3));
    let event = &answer["events"][2];
    assert_eq!((&event["topic"], &event["qos"], &event["offset"]), (&"$inbox/push".into(), &1.into(), &3.into()));
    assert_eq!(next(&answer), format!("{}:3", event["epoch"].as_str().expect("it is logged")));
    let empty = Poll::ask(&node, &format!("inbox=1&user=ann&timeout_ms=0&after={}", next(&answer))).json();
    assert_eq!((payloads(&empty), next(&empty)), (vec![], next(&answer)));
    node.assert_at_rest();
}

#[test]
fn a_long_poll_waits_for_the_first_message_and_then_is_over() {
    let node = Node::with_shards(2);
    let mut poll = Poll::ask(&node, "inbox=1&user=ann&device=page");
    poll.waits();
    node.advance(POLL_TIMEOUT_DEFAULT.as_millis() as u64 - 1_000);
    poll.waits();
    push_numbers(&node, "ann", 0..1);
    let answer = poll.json();
    assert_eq!(payloads(&answer), numbers(0..1));
    push_numbers(&node, "ann", 1..5);
    let query = format!("inbox=1&user=ann&device=page&after={}", next(&answer));
    assert_eq!(payloads(&Poll::ask(&node, &query).json()), numbers(1..5));
    node.assert_at_rest();
}

#[test]
fn a_poll_that_nothing_comes_for_is_answered_at_its_timeout_with_its_place() {
    let node = Node::new();
    push_numbers(&node, "ann", 0..2);
    let first = Poll::ask(&node, "inbox=1&user=ann").json();
    let mut poll = Poll::ask(&node, &format!("inbox=1&user=ann&timeout_ms=5000&after={}", next(&first)));
    node.advance(4_900);
    poll.waits();
    node.advance(200);
    let answer = poll.json();
    assert_eq!((payloads(&answer), next(&answer)), (vec![], next(&first)));
    assert_eq!(node.counter("closed_answered"), 2);
    node.assert_at_rest();
}

#[test]
fn an_idle_poll_holds_no_buffer() {
    let node = Node::new();
    let polls: Vec<Poll> =
        (0..20).map(|number| Poll::ask(&node, &format!("inbox=1&topic=a&user=u{number}&timeout_ms=60000"))).collect();
    assert_eq!((node.gauge("connections"), node.gauge("sessions")), (20, 20));
    node.assert_holds_no_buffers();
    node.push_topic("a", b"x", Qos::AtMostOnce);
    for poll in polls {
        assert_eq!(payloads(&poll.json()), ["x"]);
    }
    node.assert_at_rest();
}

#[test]
fn a_long_backlog_comes_in_answers_of_a_limit_each_once_and_in_order() {
    let node = Node::with_shards(2);
    push_numbers(&node, "ann", 0..250);
    let answer = Poll::ask(&node, "inbox=1&user=ann&timeout_ms=0").json();
    assert_eq!(payloads(&answer), numbers(0..usize::from(POLL_EVENTS_DEFAULT)));
    let rest = drain(&node, "inbox=1&user=ann&limit=33", &next(&answer));
    assert_eq!(rest, numbers(usize::from(POLL_EVENTS_DEFAULT)..250));
    node.assert_at_rest();
}

#[test]
fn an_answer_ends_where_its_bytes_do_and_the_next_one_goes_on() {
    let node = Node::with(1, |limits| (limits.packet_bytes, limits.outbox_bytes) = (16 << 10, 16 << 10));
    let texts: Vec<String> = (0..9).map(|number| format!("{number}{}", "x".repeat(4_000))).collect();
    texts.iter().for_each(|text| node.push_user("ann", text.as_bytes(), Qos::AtLeastOnce));
    let first = Poll::ask(&node, "inbox=1&user=ann&timeout_ms=0").json();
    assert_eq!(payloads(&first), texts[..3]);
    assert_eq!(drain(&node, "inbox=1&user=ann", &next(&first)), texts[3..]);
}

#[test]
fn what_fits_into_no_answer_is_told_as_a_gap_and_passed() {
    let node = Node::with(1, |limits| (limits.packet_bytes, limits.outbox_bytes) = (16 << 10, 16 << 10));
    node.push_user("ann", b"before", Qos::AtLeastOnce);
    node.push_user("ann", &[1; 6_000], Qos::AtLeastOnce);
    node.push_user("ann", b"behind", Qos::AtLeastOnce);
    let first = Poll::ask(&node, "inbox=1&user=ann&timeout_ms=0").json();
    let second = Poll::ask(&node, &format!("inbox=1&user=ann&timeout_ms=0&after={}", next(&first))).json();
    let got = [payloads(&first), payloads(&second)].concat();
    assert_eq!(got, ["before", "behind"]);
    let gaps: Vec<&Value> = [&first, &second].into_iter().filter_map(|answer| answer.get("gaps")).collect();
    assert_eq!(gaps, [&serde_json::json!([{ "stream": "inbox", "reason": "too_large" }])]);
    assert_eq!(node.counter("dropped_too_large"), 1);
}

#[test]
fn one_topic_is_polled_by_its_own_offsets_and_what_is_qos_0_is_lost_by_no_limit() {
    let node = Node::with_settings(2, |settings| settings.topics.history = vec![keep_history("rooms/+", 1_000)]);
    let begin = Poll::ask(&node, "topic=rooms/1&timeout_ms=0").json();
    assert_eq!(next(&begin), "0000000000000000:0");
    for number in 0..120 {
        let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][number % 3];
        node.push_topic("rooms/1", number.to_string().as_bytes(), qos);
        node.push_topic("rooms/2", b"other", qos);
    }
    for query in ["topic=rooms/1&limit=7", "topic=rooms/1&limit=50", "topic=rooms/1&limit=1000"] {
        assert_eq!(drain(&node, query, &next(&begin)), numbers(0..120), "{query}");
    }
    let answer = Poll::ask(&node, "topic=rooms/1&timeout_ms=0&limit=4&after=0000000000000000:0").json();
    let qos: Vec<&Value> = answer["events"].as_array().expect("events").iter().map(|event| &event["qos"]).collect();
    assert_eq!(qos, [0, 1, 1, 0]);
    assert!(next(&answer).ends_with(":4"), "{answer}");
}

#[test]
fn several_streams_are_polled_by_a_token_and_nothing_is_missed_or_repeated() {
    let node = Node::with_settings(2, |settings| settings.topics.history = vec![keep_history("rooms/#", 1_000)]);
    let query = "inbox=1&topic=rooms/%2B&topic=rooms/1/x&user=ann&limit=9";
    let begin = Poll::ask(&node, &format!("{query}&timeout_ms=0")).json();
    assert_eq!(next(&begin).len(), 43);
    let mut sent = Vec::new();
    for number in 0..40 {
        for (topic, qos) in
            [("rooms/1", Qos::AtMostOnce), ("rooms/2", Qos::AtLeastOnce), ("rooms/1/x", Qos::AtLeastOnce)]
        {
            let text = format!("{topic} {number}");
            node.push_topic(topic, text.as_bytes(), qos);
            sent.push(text);
        }
        let text = format!("inbox {number}");
        node.push_user("ann", text.as_bytes(), Qos::AtLeastOnce);
        let everyone = format!("everyone {number}");
        node.push(Target::Everyone, everyone.as_bytes(), Qos::AtLeastOnce).expect("it is taken");
        sent.extend([text, everyone]);
    }
    let mut got = drain(&node, query, &next(&begin));
    for source in ["rooms/1 ", "rooms/2 ", "rooms/1/x ", "inbox ", "everyone "] {
        let of_it = got.iter().filter_map(|text| text.strip_prefix(source)?.parse::<usize>().ok());
        assert!(of_it.eq(0..40), "{source}");
    }
    got.sort();
    sent.sort();
    assert_eq!(got, sent);
}

#[test]
fn a_place_of_another_life_is_told_and_all_there_is_comes() {
    let node = Node::new();
    push_numbers(&node, "ann", 0..2);
    for after in ["00000000000000ff:1", "no-place-of-ours"] {
        let answer = Poll::ask(&node, &format!("inbox=1&user=ann&timeout_ms=0&after={after}")).json();
        assert_eq!(payloads(&answer), numbers(0..2));
        assert_eq!(answer["gaps"], serde_json::json!([{ "stream": "inbox", "reason": "unknown_position" }]), "{after}");
    }
}

#[test]
fn what_retention_took_is_told_with_the_answer() {
    let node = Node::with(1, |limits| limits.inbox_entries = 3);
    push_numbers(&node, "ann", 0..1);
    let first = Poll::ask(&node, "inbox=1&user=ann&timeout_ms=0").json();
    push_numbers(&node, "ann", 1..7);
    let answer = Poll::ask(&node, &format!("inbox=1&user=ann&timeout_ms=0&after={}", next(&first))).json();
    assert_eq!(payloads(&answer), numbers(4..7));
    let gap = serde_json::json!([{ "stream": "inbox", "reason": "trimmed", "first": 2, "entries": 3 }]);
    assert_eq!(answer["gaps"], gap);
}

#[test]
fn a_place_is_good_across_a_restart() {
    let node = Node::with_shards(2);
    push_numbers(&node, "ann", 0..2);
    let first = Poll::ask(&node, "inbox=1&topic=a&user=ann&timeout_ms=0").json();
    node.advance(2_000);
    node.restart();
    push_numbers(&node, "ann", 2..4);
    let query = format!("inbox=1&topic=a&user=ann&timeout_ms=0&after={}", next(&first));
    let answer = Poll::ask(&node, &query).json();
    assert_eq!((payloads(&answer), answer.get("gaps")), (numbers(2..4), None));
}

#[test]
fn an_expired_message_is_not_polled_and_the_time_left_of_another_is_told() {
    let node = Node::new();
    for (text, ttl_ms) in [("short", 1_000), ("long", 10_000)] {
        let expires_ms = Some(node.net().now().wall_ms + ttl_ms);
        let message = |push: &mut kittiwake::shard::command::Push| {
            std::sync::Arc::make_mut(&mut push.message).expires_ms = expires_ms;
        };
        node.push_with(Target::User("ann".into()), text.as_bytes(), Qos::AtLeastOnce, message).expect("it is taken");
    }
    node.advance(4_000);
    let answer = Poll::ask(&node, "inbox=1&user=ann&timeout_ms=0").json();
    assert_eq!(payloads(&answer), ["long"]);
    let left = answer["events"][0]["ttl_ms"].as_u64().expect("its time is bounded");
    assert!((5_000..=6_000).contains(&left), "{left}");
    assert!(next(&answer).ends_with(":2"), "it is passed for good: {answer}");
}

#[test]
fn a_second_poll_of_a_device_ends_the_first_with_its_place() {
    let node = Node::new();
    let mut first = Poll::ask(&node, "inbox=1&user=ann&device=page");
    first.waits();
    let mut second = Poll::ask(&node, "inbox=1&user=ann&device=page");
    assert_eq!(payloads(&first.json()), Vec::<String>::new());
    second.waits();
    push_numbers(&node, "ann", 0..1);
    assert_eq!(payloads(&second.json()), numbers(0..1));
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_behind() {
    let node = Node::with_shards(2);
    for query in ["inbox=1&user=ann", "topic=a&user=bob", "inbox=1&topic=a/%23&user=cid"] {
        let mut poll = Poll::ask(&node, query);
        poll.waits();
        poll.client.hang_up();
    }
    assert_eq!(node.gauge("sessions"), 0);
    node.assert_at_rest();
}

#[test]
fn a_poll_moves_no_read_mark_and_wait_delivered_counts_it() {
    let node = Node::new();
    let mut poll = Poll::ask(&node, "inbox=1&user=ann&device=page");
    poll.waits();
    let within = |push: &mut kittiwake::shard::command::Push| push.deliver_within = Some(Duration::from_secs(5));
    let pushed = node.push_with(Target::User("ann".into()), b"x", Qos::AtLeastOnce, within).expect("it is taken");
    assert_eq!(pushed.results[0].delivered, ["page".into()]);
    assert_eq!(payloads(&poll.json()), ["x"]);
    let mut phone = node.hello(&Hello::v5("phone").user("ann"));
    phone.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    phone.expect_and_ack("x");
}

#[test]
fn what_cannot_be_polled_is_refused_in_words() {
    let node = Node::new();
    for (query, status) in [
        ("", 400),
        ("inbox=2", 400),
        ("inbox=1&timeout_ms=300001", 400),
        ("inbox=1&limit=0", 400),
        ("inbox=1&format=raw", 400),
        ("topic=%24SYS/%23&user=ann", 403),
    ] {
        let (head, body) = Poll::ask(&node, query).answer();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{query}: {head}");
        assert_eq!(body["status"], status);
    }
    node.assert_at_rest();
}

#[test]
fn pages_of_other_origins_poll_only_where_they_are_let_in() {
    let node = Node::with_origins(Origins::new(&["https://app.example".to_owned()]).expect("it is an origin"));
    let ask =
        |origin: &str| Poll::ask_as(&node, "inbox=1&user=ann&timeout_ms=0", &format!("Origin: {origin}\r\n")).answer();
    let (head, _) = ask("https://app.example");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nAccess-Control-Allow-Origin: https://app.example"));
    let (head, _) = ask("https://evil.example");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let mut client = node.dial();
    client.send(b"OPTIONS /poll HTTP/1.1\r\nHost: e\r\nOrigin: https://app.example\r\n\r\n");
    let text = String::from_utf8(client.take_bytes()).expect("it is text");
    assert!(text.starts_with("HTTP/1.1 204") && text.contains("Access-Control-Allow-Methods: GET"), "{text}");
}

#[test]
fn a_drain_answers_those_who_wait() {
    let node = Node::new();
    push_numbers(&node, "ann", 0..1);
    let first = Poll::ask(&node, "inbox=1&user=ann").json();
    let mut poll = Poll::ask(&node, &format!("inbox=1&user=ann&after={}", next(&first)));
    poll.waits();
    node.handle().drain();
    node.run();
    let answer = poll.json();
    assert_eq!((payloads(&answer), next(&answer)), (vec![], next(&first)));
}

#[test]
fn a_plain_poll_of_a_log_that_does_not_answer_ends_in_the_time_of_a_request() {
    let node = Node::new();
    push_numbers(&node, "ann", 0..1);
    let first = Poll::ask(&node, "inbox=1&user=ann&timeout_ms=0").json();
    node.hold_commits();
    let mut poll = Poll::ask(&node, &format!("inbox=1&user=ann&timeout_ms=0&after={}", next(&first)));
    poll.waits();
    node.advance(HANDSHAKE_TIMEOUT.as_millis() as u64 + 200);
    let (head, _) = poll.answer();
    assert!(head.starts_with("HTTP/1.1 503"), "where it stands is not known: {head}");
}
