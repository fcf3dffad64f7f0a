//! Tokens and rights: who is let in as whom, what they may do, and when they have to go.

use crate::client::{Client, Got, Hello, publish, will};
use crate::node::Node;
use crate::sse::stream::{Stream, answer};
use kittiwake::auth::{Key, KeyApps, KeySet, Lists, Pattern, Rights, Signing, Wanted, sign};
use kittiwake::base::ids::{AppId, Qos};
use kittiwake::limits::{HANDSHAKE_TIMEOUT, TOKEN_BYTES_MAX};
use kittiwake::shard::command::Target;
use kittiwake::shard::settings::Settings;
use kittiwake::wire::mqtt::properties::AuthProperties;
use kittiwake::wire::mqtt::{Auth, Filter, Reason, Version};
use std::sync::Arc;

const SECRET: &[u8] = b"a secret of the tests, long enough for all";
const OTHER: &[u8] = b"a secret of somebody else, long enough, too";

fn keys() -> KeySet {
    let apps = KeyApps::Some([AppId(0), AppId(1)].into());
    let key = Key::secret(None, apps, SECRET).expect("it is long enough");
    KeySet::new(vec![key], Arc::from(["default", "shop", "games"].map(str::to_owned))).expect("it is one")
}

fn node() -> Node {
    node_with(1, |_| {})
}

fn node_with(shards: u16, change: impl FnOnce(&mut Settings)) -> Node {
    let node = Node::with_settings(shards, |settings| {
        settings.tokens = true;
        settings.apps = ["default", "shop", "games"].map(str::to_owned).to_vec();
        change(settings);
    });
    node.check_with(Some(keys()));
    node
}

fn now(node: &Node) -> u64 {
    node.net().now().wall_ms / 1000
}

fn with_secret(wanted: &Wanted, secret: &[u8]) -> String {
    sign(wanted, &Signing::secret(None, secret).expect("it is long enough")).expect("it signs")
}

/// Good for a minute, changed before it is signed.
fn token_with(node: &Node, user: &str, change: impl FnOnce(&mut Wanted)) -> String {
    let mut wanted = Wanted { sub: user.into(), exp: now(node) + 60, ..Wanted::default() };
    change(&mut wanted);
    with_secret(&wanted, SECRET)
}

fn token(node: &Node, user: &str) -> String {
    token_with(node, user, |_| {})
}

fn list(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|&text| text.to_owned()).collect())
}

/// Everybody's rights.
fn everybody(publish: &[&str], subscribe: &[&str]) -> Arc<Rights> {
    let list = |texts: &[&str]| {
        (!texts.is_empty()).then(|| texts.iter().map(|text| Pattern::parse(text).expect("a filter")).collect())
    };
    let node = Lists { publish: list(publish), subscribe: list(subscribe), ..Lists::default() };
    Arc::new(Rights { node: Arc::new(node), own: Lists::default() })
}

/// Tokens that are not good, each in its own way, and the counter of that way.
fn bad_tokens(node: &Node) -> Vec<(&'static str, String)> {
    let wanted = Wanted { sub: "ann".into(), exp: now(node) + 60, ..Wanted::default() };
    let good = token(node, "ann");
    let unsigned = format!("{}.", &good[..good.rfind('.').expect("it has parts")]);
    vec![
        ("token_malformed", "no token".to_owned()),
        ("token_malformed", "x".repeat(TOKEN_BYTES_MAX + 1)),
        ("token_algorithm", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjQwMDAwMDAwMDB9.".to_owned()),
        ("token_signature", unsigned),
        ("token_signature", with_secret(&wanted, OTHER)),
        ("token_expired", token_with(node, "ann", |wanted| wanted.exp = now(node))),
        ("token_claims", token(node, "")),
        ("token_app", token_with(node, "ann", |wanted| wanted.app = Some("games".into()))),
        ("token_app", token_with(node, "ann", |wanted| wanted.app = Some("nothing".into()))),
    ]
}

fn reauthenticate(client: &mut Client, method: &str, data: Option<&str>) {
    let properties = AuthProperties {
        authentication_method: Some(method),
        authentication_data: data.map(str::as_bytes),
        ..AuthProperties::default()
    };
    client.send_packet(&Auth { reason: Reason::ReAuthenticate, properties });
}

#[test]
fn the_user_is_who_the_token_says_and_not_who_the_device_says() {
    let node = node_with(2, |_| {});
    for hello in [Hello::v5("phone"), Hello::v3("tablet")] {
        let token = token(&node, "ann");
        let mut client = node.hello(&hello.user("bob").token(&token));
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
        node.push_user("bob", b"for bob", Qos::AtMostOnce);
        node.push_user("ann", b"for ann", Qos::AtMostOnce);
        client.expect_text("for ann");
        client.expect_nothing();
        client.bye();
    }
    node.assert_at_rest();
}

#[test]
fn a_token_that_is_not_good_is_refused_in_the_same_words_whatever_is_wrong_with_it() {
    let node = node();
    for hello in [Hello::v5("phone"), Hello::v3("phone")] {
        let code = if hello.0.version == Version::V5 { 0x86 } else { 4 };
        let mut words = Vec::new();
        for (counter, bad) in bad_tokens(&node) {
            let before = node.counter(counter);
            let mut client = node.dial();
            client.hello(&hello.token(&bad));
            client.expect_connack(code);
            words.push(client.last_frame().to_vec());
            client.expect_closed();
            assert_eq!(node.counter(counter), before + 1, "{counter}");
        }
        let mut client = node.dial();
        client.hello(&hello.user("ann"));
        client.expect_connack(code);
        words.push(client.last_frame().to_vec());
        client.expect_closed();
        words.dedup();
        assert_eq!(words.len(), 1);
    }
    assert_eq!(node.counter("token_missing"), 2);
    node.assert_at_rest();
}

#[test]
fn an_event_stream_shows_its_token_in_its_header_or_its_query() {
    let node = node();
    let good = token(&node, "ann");
    for request in [
        format!("GET /events?inbox=1&user=bob&token={good} HTTP/1.1\r\nHost: h\r\n\r\n"),
        format!("GET /events?inbox=1&token=bad HTTP/1.1\r\nHost: h\r\nAuthorization: bearer {good}\r\n\r\n"),
    ] {
        let mut client = node.dial();
        client.send(request.as_bytes());
        let head = String::from_utf8(client.take_bytes()).expect("it is text");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        node.push_user("ann", b"for ann", Qos::AtMostOnce);
        assert!(String::from_utf8(client.take_bytes()).expect("it is text").contains("for ann"));
        client.hang_up();
    }
    let mut answers: Vec<String> = bad_tokens(&node)
        .into_iter()
        .filter(|(_, bad)| bad.len() < TOKEN_BYTES_MAX)
        .map(|(_, bad)| {
            answer(&node, &format!("GET /events?inbox=1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {bad}\r\n\r\n"))
        })
        .collect();
    answers.push(answer(&node, "GET /events?inbox=1&user=ann HTTP/1.1\r\nHost: h\r\n\r\n"));
    answers.dedup();
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    assert!(answer.contains("\r\nWWW-Authenticate: Bearer\r\n") && answer.contains("application/problem+json"));
    node.assert_at_rest();
}

#[test]
fn a_websocket_shows_its_token_with_its_request_or_its_connect() {
    let node = node();
    let (good, bearer) = (token(&node, "ann"), format!("Bearer {}", token(&node, "ann")));
    let target = format!("/mqtt?token={good}");
    let bad = |name: &'static str| Hello::v5(name).token("bad");
    for (target, headers, hello, code) in [
        (&*target, &[][..], Hello::v5("a"), 0),
        ("/mqtt", &[("Authorization", &*bearer)][..], Hello::v5("b"), 0),
        ("/mqtt", &[], Hello::v5("c").token(&good), 0),
        ("/mqtt?token=bad", &[], Hello::v5("d").token(&good), 0),
        // What the CONNECT says itself goes first.
        (&*target, &[], bad("e"), 0x86),
        ("/mqtt", &[], Hello::v5("f"), 0x86),
        ("/mqtt?token=bad", &[], Hello::v5("g"), 0x86),
    ] {
        let mut client = Client::dial_websocket_at(&node, target, headers);
        client.hello(&hello);
        client.expect_connack(code);
        client.hang_up();
    }
    // One that says nothing leaves nothing behind.
    Client::dial_websocket_at(&node, &target, &[]).hang_up();
    node.assert_at_rest();
}

#[test]
fn a_connection_ends_when_its_token_does() {
    let node = node();
    let short = token_with(&node, "ann", |wanted| wanted.exp = now(&node) + 6);
    let mut new = node.hello(&Hello::v5("new").token(&short).keep_alive(2));
    let mut old = node.hello(&Hello::v3("old").token(&short).keep_alive(2));
    let mut page = Stream::open(&node, &format!("inbox=1&token={short}"));
    page.expect_nothing();
    for _ in 0..4 {
        node.advance(1_100);
        new.expect_pong();
        old.expect_pong();
    }
    node.advance(1_700);
    new.expect_goodbye(0xa0);
    old.expect_closed();
    assert!(page.rest().iter().any(|event| event.data.contains("token_ended")));
    assert!(page.is_closed());
    assert_eq!(node.counter("closed_token_ended"), 3);
    let mut again = node.dial();
    again.hello(&Hello::v5("new").token(&short));
    again.expect_connack(0x86);
    page.hang_up();
    drop((new, old, again));
    node.run();
    node.assert_at_rest();
}

#[test]
fn a_session_outlives_its_token_and_goes_on_with_the_next() {
    let node = node();
    let first = token_with(&node, "ann", |wanted| wanted.exp = now(&node) + 5);
    let mut client = node.hello(&Hello::lasting("phone").token(&first));
    client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    node.advance(6_000);
    client.expect_goodbye(0xa0);
    node.push_user("ann", b"meanwhile", Qos::AtLeastOnce);
    // Its own end is timed on from there.
    let second = token_with(&node, "ann", |wanted| wanted.exp = now(&node) + 10_000);
    let mut client = node.dial();
    client.hello(&Hello::lasting("phone").token(&second));
    assert!(client.expect_connack(0).session_present);
    client.expect_and_ack("meanwhile");
    client.hang_up();
    node.advance(3_601_000);
    assert_eq!(node.gauge("sessions"), 0);
    node.assert_at_rest();
}

#[test]
fn mqtt5_4_12_1_1_a_client_that_named_the_method_goes_on_with_another_token() {
    let node = node_with(2, |_| {});
    let first = token_with(&node, "ann", |wanted| wanted.exp = now(&node) + 5);
    let mut client = node.dial();
    client.hello(&Hello::v5("phone").method(&first));
    assert_eq!(client.expect_connack(0).authentication_method.as_deref(), Some("jwt"));
    node.advance(3_000);
    let second = token_with(&node, "ann", |wanted| wanted.exp = now(&node) + 10);
    reauthenticate(&mut client, "jwt", Some(&second));
    client.expect(&Got::Auth(0, Some("jwt".into())));
    node.advance(8_500);
    client.expect_nothing();
    node.advance(2_000);
    client.expect_goodbye(0xa0);
}

#[test]
fn mqtt5_4_12_1_2_who_shows_a_token_that_is_not_its_own_or_not_good_is_sent_away() {
    let node = node();
    let good = token(&node, "ann");
    let of_app = token_with(&node, "ann", |wanted| wanted.app = Some("shop".into()));
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    for data in [Some("bad"), Some(&*token(&node, "bob")), Some(&*of_app), Some(&*long), None] {
        let mut client = node.hello(&Hello::v5("phone").method(&good));
        reauthenticate(&mut client, "jwt", data);
        client.expect_goodbye(0x87);
    }
    // Nobody is there to look at it.
    let mut client = node.hello(&Hello::v5("phone").method(&good));
    node.lose_checkers();
    reauthenticate(&mut client, "jwt", Some(&good));
    client.expect_goodbye(0x89);
    assert_eq!(node.counter("closed_not_authorized"), 6);
}

#[test]
fn mqtt5_4_12_0_6_who_named_no_method_sends_no_auth() {
    let node = node();
    let good = token(&node, "ann");
    let mut client = node.hello(&Hello::v5("phone").token(&good));
    reauthenticate(&mut client, "jwt", Some(&good));
    client.expect_goodbye(0x82);
    let mut client = node.hello(&Hello::v5("phone").method(&good));
    reauthenticate(&mut client, "SCRAM", Some(&good));
    client.expect_goodbye(0x8c);
    // One exchange at a time.
    let mut client = node.hello(&Hello::v5("phone").method(&good));
    node.check_with(None);
    reauthenticate(&mut client, "jwt", Some(&good));
    reauthenticate(&mut client, "jwt", Some(&good));
    client.expect_goodbye(0x82);
    node.check_with(Some(keys()));
    node.assert_at_rest();
}

#[test]
fn mqtt5_4_12_0_1_the_method_of_tokens_is_refused_where_none_are_asked_for() {
    let node = Node::new();
    let mut client = node.dial();
    client.hello(&Hello::v5("phone").method("anything"));
    client.expect_connack(0x8c);
    client.expect_closed();
}

#[test]
fn what_the_lists_of_a_token_do_not_contain_is_refused() {
    let node = node();
    let lists = |wanted: &mut Wanted| {
        wanted.publish = list(&["rooms/+/say", "users/{user}/#"]);
        wanted.subscribe = list(&["rooms/+", "d/{device}", "$inbox/#"]);
    };
    let limited = token_with(&node, "ann", lists);
    let asked = ["rooms/1", "rooms/+", "$inbox/#", "d/phone", "#", "rooms/#", "d/+", "$share/g/rooms/1", "$share/g/x"];
    for (hello, refused) in [(Hello::v5("phone"), 0x87), (Hello::v3("phone"), 0x80)] {
        let mut client = node.hello(&hello.token(&limited));
        let filters = asked.map(|filter| Filter::new(filter, Qos::AtLeastOnce));
        let id = client.start_subscribe(&filters, None);
        let codes = [1, 1, 1, 1, refused, refused, refused, 1, refused];
        client.expect(&Got::SubAck(id, codes.to_vec()));
        client.publish("users/ann/x", b"own", Qos::AtLeastOnce, 1);
        assert!(matches!(client.next(), Some(Got::PubAck(1, 0x10 | 0))));
        client.publish("users/bob/x", b"another's", Qos::AtLeastOnce, 2);
        client.publish("rooms/1", b"not said", Qos::ExactlyOnce, 3);
        client.publish("rooms/1", b"not said", Qos::AtMostOnce, 0);
        // 3.1.1 has no word for it.
        let code = if hello.0.version == Version::V5 { 0x87 } else { 0 };
        assert_eq!(client.all(), [Got::PubAck(2, code), Got::PubRec(3, code)]);
        client.bye();
    }
    assert_eq!(node.counter("publish_refused"), 6);
    let refused = answer(&node, &format!("GET /events?topic=%23&token={limited} HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert_eq!(Stream::open(&node, &format!("topic=rooms/%2B&inbox=1&token={limited}")).status(), 200);
    node.run();
    node.assert_at_rest();
}

#[test]
fn what_everybody_may_do_is_asked_for_also_without_tokens_and_beside_theirs() {
    let rights = everybody(&["users/{user}/#", "all/#"], &["all/#"]);
    let open = Node::with_settings(1, |settings| settings.rights = Arc::clone(&rights));
    let mut client = open.hello(&Hello::v5("ann"));
    client.publish("users/bob/x", b"another's", Qos::AtLeastOnce, 1);
    client.expect(&Got::PubAck(1, 0x87));
    let id = client.start_subscribe(&[Filter::new("all/+", Qos::AtMostOnce), Filter::new("#", Qos::AtMostOnce)], None);
    client.expect(&Got::SubAck(id, vec![0, 0x87]));
    client.publish("all/x", b"everybody's", Qos::AtMostOnce, 0);
    client.expect_text("everybody's");

    let node = node_with(1, |settings| settings.rights = rights);
    let wide = token_with(&node, "ann", |wanted| wanted.subscribe = list(&["#"]));
    let mut client = node.hello(&Hello::v5("phone").token(&wide));
    let id = client.start_subscribe(&[Filter::new("all/x", Qos::AtMostOnce), Filter::new("#", Qos::AtMostOnce)], None);
    client.expect(&Got::SubAck(id, vec![0, 0x87]));
}

#[test]
fn whoever_is_called_like_a_wildcard_has_no_more_rights_for_it() {
    let node = Node::with_settings(1, |settings| settings.rights = everybody(&[], &["users/{user}/#"]));
    for user in ["+", "#", "a/b"] {
        let mut client = node.hello(&Hello::v5("phone").user(user));
        let filter = format!("users/{user}/x");
        let filter = if user == "#" { "users/#" } else { &filter };
        let id = client.start_subscribe(&[Filter::new(filter, Qos::AtMostOnce)], None);
        client.expect(&Got::SubAck(id, vec![0x87]));
        client.bye();
    }
}

#[test]
fn a_will_is_judged_when_it_is_made_and_when_it_is_published() {
    let node = node();
    let mut witness = node.hello(&Hello::v5("witness").token(&token(&node, "witness")));
    witness.subscribe(&[("#", Qos::AtMostOnce)]);
    let narrow = token_with(&node, "ann", |wanted| wanted.publish = list(&["a/#"]));
    let narrower = token_with(&node, "ann", |wanted| wanted.publish = list(&["a/b"]));
    for (hello, code) in [(Hello::v5("phone"), 0x87), (Hello::v3("phone"), 5)] {
        let mut client = node.dial();
        client.hello(&hello.token(&narrow).will(will("b", b"refused", Qos::AtMostOnce)));
        client.expect_connack(code);
    }
    assert_eq!(node.counter("refused_rights"), 2);
    node.hello(&Hello::v5("phone").token(&narrow).will(will("a/x", b"last words", Qos::AtMostOnce))).hang_up();
    witness.expect_text("last words");
    let hello = Hello::v5("phone").method(&narrow).will(will("a/x", b"not any more", Qos::AtMostOnce));
    let mut client = node.hello(&hello);
    reauthenticate(&mut client, "jwt", Some(&narrower));
    client.expect(&Got::Auth(0, Some("jwt".into())));
    client.hang_up();
    witness.expect_nothing();
    assert_eq!(node.counter("wills_refused"), 1);
    // One that comes later is judged as its own connection was.
    let mut late = will("a/x", b"later", Qos::AtMostOnce);
    late.properties.delay_seconds = Some(5);
    node.hello(&Hello::lasting("tablet").token(&narrow).will(late)).hang_up();
    node.advance(6_000);
    witness.expect_text("later");
}

#[test]
fn subscriptions_that_a_new_token_does_not_contain_are_ended() {
    let node = node_with(2, |_| {});
    let wide = token(&node, "ann");
    let narrow = token_with(&node, "ann", |wanted| wanted.subscribe = list(&["a/#", "$inbox/orders"]));
    let mut client = node.hello(&Hello::lasting("phone").token(&wide));
    client.subscribe(&[("a/b", Qos::AtLeastOnce), ("c", Qos::AtLeastOnce), ("$inbox/#", Qos::AtLeastOnce)]);
    client.hang_up();
    node.push_topic("c", b"waits for another token", Qos::AtLeastOnce);
    let mut client = node.dial();
    client.hello(&Hello::lasting("phone").method(&narrow));
    assert!(client.expect_connack(0).session_present);
    node.push_user("ann", b"inbox", Qos::AtLeastOnce);
    node.push_topic("c", b"no more", Qos::AtLeastOnce);
    node.push_topic("a/b", b"still", Qos::AtLeastOnce);
    client.expect_and_ack("still");
    client.expect_nothing();
    assert_eq!(node.counter("subscriptions_withdrawn"), 2);
    let none = token_with(&node, "ann", |wanted| wanted.subscribe = list(&[]));
    reauthenticate(&mut client, "jwt", Some(&none));
    client.expect(&Got::Auth(0, Some("jwt".into())));
    node.push_topic("a/b", b"not even this", Qos::AtLeastOnce);
    client.expect_nothing();
    assert_eq!((node.counter("subscriptions_withdrawn"), node.gauge("subscriptions")), (3, 0));
    // What was ended stays so.
    node.advance(2_000);
    client.hang_up();
    node.restart();
    node.check_with(Some(keys()));
    let mut client = node.dial();
    client.hello(&Hello::lasting("phone").token(&wide));
    assert!(client.expect_connack(0).session_present);
    assert_eq!(node.gauge("subscriptions"), 0);
}

#[test]
fn apps_are_apart() {
    let node = node_with(2, |_| {});
    let of = |app: &str| token_with(&node, "ann", |wanted| wanted.app = Some(app.into()));
    let (here, there) = (of("default"), of("shop"));
    let mut one = node.hello(&Hello::v5("phone").token(&here));
    let mut other = node.hello(&Hello::v5("phone").token(&there));
    for client in [&mut one, &mut other] {
        client.subscribe(&[("#", Qos::AtLeastOnce), ("$inbox/#", Qos::AtLeastOnce)]);
    }
    one.send_packet(&publish("a", b"in default", Qos::AtMostOnce, 0));
    one.expect_text("in default");
    other.expect_nothing();
    node.push_with(Target::User("ann".into()), b"in shop", Qos::AtMostOnce, |push| {
        let message = Arc::make_mut(&mut push.message);
        (push.app, message.app) = (AppId(1), AppId(1));
    })
    .expect("it is taken");
    other.expect_text("in shop");
    one.expect_nothing();
}

#[test]
fn while_a_token_is_checked_nothing_is_read_and_nobody_waits_for_ever() {
    let node = node_with(2, |_| {});
    let good = token(&node, "ann");
    node.check_with(None);
    let mut patient = node.dial();
    patient.hello(&Hello::v5("phone").token(&good));
    patient.send(&[0xc0, 0]);
    patient.expect_nothing();
    assert_eq!((node.gauge("authenticating"), node.gauge("sessions")), (1, 0));
    node.check_with(Some(keys()));
    patient.expect_connack(0);
    patient.expect_pong();
    assert_eq!(node.gauge("authenticating"), 0);

    node.check_with(None);
    let gone = {
        let mut client = node.dial();
        client.hello(&Hello::v5("gone").token(&good));
        client
    };
    let mut late = node.dial();
    late.hello(&Hello::v5("late").token(&good));
    gone.hang_up();
    let mut page = Stream::start(&node, &format!("inbox=1&token={good}"));
    node.advance(u64::try_from(HANDSHAKE_TIMEOUT.as_millis()).expect("it is short") + 200);
    late.expect_connack(0x88);
    late.expect_closed();
    assert_eq!(page.status(), 503);
    node.check_with(Some(keys()));
    assert_eq!(node.counter("token_checked_in_vain"), 3, "nobody waits for these answers any more");
    assert_eq!(node.counter("token_checked_late"), 3);
}

#[test]
fn with_nobody_to_check_tokens_nobody_is_let_in() {
    let node = node();
    let good = token(&node, "ann");
    node.lose_checkers();
    let mut client = node.dial();
    client.hello(&Hello::v5("phone").token(&good));
    client.expect_connack(0x88);
    client.expect_closed();
    assert!(answer(&node, &format!("GET /events?inbox=1&token={good} HTTP/1.1\r\nHost: h\r\n\r\n")).contains(" 503 "));
    assert_eq!(node.counter("token_unchecked"), 2);
    node.assert_at_rest();
}
