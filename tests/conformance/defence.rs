//! Who floods, holds, abuses or has been banned, and everybody else meanwhile.

use crate::client::{Client, Got, Hello, publish};
use crate::node::Node;
use crate::sse::stream::answer;
use core::time::Duration;
use kittiwake::auth::{BanRule, Key, KeyApps, KeySet, Signing, Wanted, sign};
use kittiwake::base::bucket::Rate;
use kittiwake::base::ids::{AppId, Qos};
use kittiwake::limits::HANDSHAKE_TIMEOUT;
use kittiwake::shard::command::{Author, BanAnswer, BanCommand, NamedBan, Subject};
use kittiwake::shard::{Defence, Enforce, OverPublish};
use kittiwake::wire::mqtt::Version;
use std::sync::Arc;

const ABUSER: &str = "192.0.2.66";
const TEN: Rate = Rate { per_second: 10, burst_seconds: 10 };
/// Nobody is banned by the node.
const NEVER: BanRule = BanRule { weight: 0, time: Duration::from_secs(1), time_max: Duration::from_secs(1) };

fn node_with(change: impl FnOnce(&mut Defence)) -> Node {
    Node::with(1, |limits| {
        limits.connections = 500;
        limits.defence.bans = NEVER;
        change(&mut limits.defence);
    })
}

/// Dials so often; how many were closed at once.
fn flood(node: &Node, from: &str, count: usize) -> usize {
    let mut clients: Vec<Client> = (0..count).map(|_| node.dial_from(from)).collect();
    node.run();
    clients.iter_mut().filter_map(|client| client.is_closed().then_some(())).count()
}

fn connect_from(node: &Node, from: &str, hello: &Hello<'_>) -> Client {
    let mut client = node.dial_from(from);
    client.hello(hello);
    client.expect_connack(0);
    client
}

#[test]
fn a_flood_from_one_address_is_turned_away_before_a_byte_and_others_connect() {
    let node = node_with(|defence| defence.connects = Some(TEN));
    for dials in [99, 1] {
        assert_eq!(flood(&node, ABUSER, dials), 0, "the burst is a hundred");
    }
    assert_eq!(flood(&node, ABUSER, 300), 300);
    for number in 0..50 {
        let name = format!("phone-{number}");
        connect_from(&node, &format!("192.0.2.{number}"), &Hello::v5(&name)).expect_pong();
    }
    node.advance(1_000);
    assert_eq!(flood(&node, ABUSER, 20), 10, "ten a second flow in");
    assert_eq!((node.counter("refused_source_rate"), node.counter("turned_away")), (310, 310));
    assert_eq!(node.counter("alerts_source_rate"), 0);
    node.assert_at_rest();
}

#[test]
fn addresses_of_one_ipv6_network_are_one_source_and_allowed_ones_are_not_counted() {
    let node = node_with(|defence| {
        defence.connects = Some(TEN);
        defence.allow = vec!["198.51.100.0/24".parse().expect("a range")];
    });
    let refused: usize = (0..150).map(|number| flood(&node, &format!("2001:db8::{number:x}"), 1)).sum();
    assert_eq!(refused, 50);
    assert_eq!(flood(&node, "2001:db8:0:1::1", 1), 0, "another network");
    assert_eq!(flood(&node, "198.51.100.7", 300), 0);
}

#[test]
fn a_source_that_says_nothing_leaves_half_of_the_places_to_others() {
    let node = node_with(|defence| defence.connects = None);
    let mut silent: Vec<Client> = (0..600).map(|_| node.dial_from(ABUSER)).collect();
    let held = silent.iter_mut().filter_map(|client| (!client.is_closed()).then_some(())).count();
    assert_eq!((held, node.counter("refused_handshakes")), (250, 350));
    for number in 0..100 {
        let name = format!("phone-{number}");
        connect_from(&node, &format!("198.51.100.{number}"), &Hello::v5(&name)).expect_pong();
    }
    node.advance(HANDSHAKE_TIMEOUT.as_millis() as u64 + 200);
    assert!(silent.iter_mut().all(Client::is_closed), "their time is over");
    connect_from(&node, ABUSER, &Hello::v5("again")).expect_pong();
}

/// Whoever stops in the middle, at every stage of becoming somebody.
#[test]
fn a_handshake_that_stops_anywhere_ends_at_its_deadline() {
    let hello = Hello::v5("phone").frame();
    let upgrade = crate::websocket::request("/mqtt", &[]);
    let started: [(&str, Vec<u8>); 6] = [
        ("nothing", Vec::new()),
        ("half a CONNECT", hello[..hello.len() / 2].to_vec()),
        ("a CONNECT but for its last byte", hello[..hello.len() - 1].to_vec()),
        ("half a head", upgrade.as_bytes()[..upgrade.len() / 2].to_vec()),
        ("a head but for its last byte", upgrade.as_bytes()[..upgrade.len() - 1].to_vec()),
        ("a byte that may begin anything", vec![0x10]),
    ];
    for (what, bytes) in started {
        let node = node_with(|_| {});
        let mut slow = node.dial();
        slow.send_raw(&bytes);
        node.advance(HANDSHAKE_TIMEOUT.as_millis() as u64 - 500);
        slow.expect_nothing();
        node.advance(1_000);
        assert!(slow.is_closed(), "{what}");
        assert_eq!(node.counter("closed_handshake_timeout"), 1, "{what}");
        node.assert_at_rest();
    }
}

#[test]
fn bytes_that_trickle_in_do_not_move_the_deadline_of_a_handshake() {
    let hello = Hello::v5("phone").frame();
    let node = node_with(|_| {});
    let mut slow = node.dial();
    let seconds = HANDSHAKE_TIMEOUT.as_secs() as usize;
    assert!(hello.len() > seconds);
    for byte in &hello[..seconds] {
        slow.send_raw(&[*byte]);
        node.advance(1_000);
    }
    node.advance(200);
    assert!(slow.is_closed());
    assert_eq!(node.counter("closed_handshake_timeout"), 1);
}

#[test]
fn a_websocket_that_stops_in_the_middle_of_a_frame_ends_at_its_deadline() {
    let hello = Hello::v5("phone").frame();
    let frame = crate::websocket::frame(true, kittiwake::wire::websocket::Opcode::Binary, &hello);
    for length in [0, 1, frame.len() / 2, frame.len() - 1] {
        let node = node_with(|_| {});
        let mut slow = Client::dial_websocket(&node);
        slow.send_raw(&frame[..length]);
        node.advance(HANDSHAKE_TIMEOUT.as_millis() as u64 + 500);
        slow.all();
        assert!(slow.is_closed(), "{length} bytes");
        assert_eq!(node.counter("closed_handshake_timeout"), 1, "{length} bytes");
        node.assert_at_rest();
    }
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_packet_ends_with_its_keep_alive() {
    let node = node_with(|_| {});
    let mut slow = node.hello(&Hello::v5("phone").keep_alive(10));
    let packet = crate::client::encoded(Version::V5, &publish("a", &[0; 4_000], Qos::AtMostOnce, 0));
    slow.send_raw(&packet[..2_000]);
    node.advance(14_000);
    slow.expect_nothing();
    node.advance(2_000);
    slow.expect_goodbye(0x8d);
    node.assert_at_rest();
}

#[test]
fn who_publishes_more_than_it_may_is_read_more_slowly_and_loses_nothing() {
    let node = node_with(|defence| defence.publishes = Some(Rate { per_second: 10, burst_seconds: 1 }));
    let mut reader = node.connect("reader");
    reader.subscribe(&[("a", Qos::AtMostOnce)]);
    let mut flooder = node.hello(&Hello::v5("flooder").keep_alive(1));
    let mut calm = node.connect("calm");
    for number in 0..100 {
        flooder.publish("a", number.to_string().as_bytes(), Qos::AtMostOnce, 0);
    }
    let first = reader.drain().len();
    assert!((10..=11).contains(&first), "{first} at once");
    calm.publish("a", b"calm", Qos::AtMostOnce, 0);
    reader.expect_text("calm");
    assert_eq!(node.gauge("paced_connections"), 1);
    node.advance(1_000);
    let second = reader.drain().len();
    assert!((9..=11).contains(&second), "{second} in the next second");
    node.advance(8_000);
    assert_eq!(first + second + reader.drain().len(), 100);
    assert!(node.counter("slowed_publish_rate") >= 80);
    flooder.expect_pong();
    assert_eq!(node.gauge("paced_connections"), 0);
}

#[test]
fn bytes_are_paced_as_messages_are() {
    let node = node_with(|defence| defence.publish_bytes = Some(Rate { per_second: 1_000, burst_seconds: 1 }));
    let mut reader = node.connect("reader");
    reader.subscribe(&[("a", Qos::AtMostOnce)]);
    let mut flooder = node.connect("flooder");
    for _ in 0..4 {
        flooder.publish("a", &[b'x'; 999], Qos::AtMostOnce, 0);
    }
    assert_eq!(reader.drain().len(), 2, "a thousand are within the burst, the second is paid for later");
    node.advance(900);
    assert_eq!(reader.drain().len(), 0);
    node.advance(200);
    assert_eq!(reader.drain().len(), 1);
}

#[test]
fn who_publishes_more_than_it_may_can_be_closed_for_it() {
    let node = node_with(|defence| {
        defence.publishes = Some(Rate { per_second: 5, burst_seconds: 1 });
        defence.over_publish = OverPublish::Close;
        defence.bans = BanRule { weight: 1_000, time: Duration::from_secs(60), time_max: Duration::from_secs(60) };
    });
    let mut flooder = node.connect("flooder");
    for id in 1..=5 {
        flooder.publish("a", b"x", Qos::AtLeastOnce, id);
        flooder.expect(&Got::PubAck(id, 0x10));
    }
    flooder.publish("a", b"x", Qos::AtLeastOnce, 6);
    flooder.expect_goodbye(0x96);
    assert_eq!(node.counter("closed_message_rate"), 1);
    // It weighs enough to be banned, and another user of the same address is not.
    node.advance(1_500);
    refused(&node, &Hello::v5("flooder"), 0x8a);
    node.connect("somebody").expect_pong();
    node.advance(60_000);
    node.connect("flooder").expect_pong();
}

fn refused(node: &Node, hello: &Hello<'_>, code: u8) {
    let mut client = node.dial();
    client.hello(hello);
    client.expect_connack(code);
    client.expect_closed();
}

#[test]
fn an_address_that_goes_on_is_banned_for_longer_each_time_and_let_in_again() {
    let node = node_with(|defence| {
        defence.connects = Some(TEN);
        defence.bans = BanRule { weight: 50, time: Duration::from_secs(60), time_max: Duration::from_secs(100) };
    });
    let mut others = 0;
    for seconds in [60, 100, 100] {
        node.advance(20_000);
        assert_eq!(flood(&node, ABUSER, 160), 60);
        assert_eq!(node.gauge("bans_in_force"), 0, "offences are reported once a second");
        node.advance(1_000);
        assert_eq!(node.gauge("bans_in_force"), 1);
        node.advance((seconds - 5) * 1_000);
        assert_eq!(flood(&node, ABUSER, 1), 1, "it is banned");
        others += 1;
        connect_from(&node, "192.0.2.7", &Hello::v5(&format!("other-{others}"))).expect_pong();
        node.advance(6_000);
        connect_from(&node, ABUSER, &Hello::v5("reformed")).expect_pong();
        assert_eq!(node.gauge("bans_in_force"), 0);
    }
    assert_eq!((node.counter("bans"), node.counter("refused_banned_source")), (3, 3));
}

#[test]
fn who_is_let_in_and_becomes_banned_is_closed() {
    let node = Node::with(2, |limits| limits.connections = 64);
    let mut abuser = connect_from(&node, ABUSER, &Hello::lasting("abuser"));
    let mut other = connect_from(&node, "192.0.2.7", &Hello::v5("other"));
    let mut user = connect_from(&node, "192.0.2.8", &Hello::v5("phone").user("mallory"));
    add(&node, source("192.0.2.66"), u64::MAX);
    abuser.expect_goodbye(0x98);
    add(&node, Subject::User(AppId(0), "mallory".into()), u64::MAX);
    user.expect_goodbye(0x98);
    other.expect_pong();
    assert_eq!(node.counter("closed_banned"), 2);
}

fn source(text: &str) -> Subject {
    Subject::Source(text.parse().expect("a prefix"))
}

#[track_caller]
fn add(node: &Node, subject: Subject, until_ms: u64) {
    let added = node.ban(BanCommand::Add { subject: subject.clone(), until_ms, reason: "abuse".into() });
    let Ok(BanAnswer::Added(ban)) = added else { panic!("{added:?}") };
    assert_eq!(ban.subject, subject);
}

fn listed(node: &Node) -> Vec<NamedBan> {
    let Ok(BanAnswer::List(bans)) = node.ban(BanCommand::List) else { panic!("a list was asked for") };
    bans
}

#[test]
fn an_operators_ban_holds_across_a_restart_until_it_is_lifted_or_over() {
    let node = node_with(|_| {});
    let soon = node.net().now().wall_ms + 60_000;
    let mallory = Subject::User(AppId(0), "mallory".into());
    add(&node, source("192.0.2.0/24"), u64::MAX);
    add(&node, source("2001:db8::/64"), soon);
    add(&node, mallory.clone(), u64::MAX);
    for _ in 0..2 {
        assert_eq!(flood(&node, "192.0.2.1", 1), 1);
        assert_eq!(flood(&node, "2001:db8::1", 1), 1);
        assert_eq!(flood(&node, "198.51.100.1", 1), 0);
        refused(&node, &Hello::v5("phone").user("mallory"), 0x8a);
        refused(&node, &Hello::v3("phone").user("mallory"), 5);
        let subjects: Vec<Subject> = listed(&node).into_iter().map(|ban| ban.subject).collect();
        assert_eq!(subjects, [source("192.0.2.0/24"), source("2001:db8::/64"), mallory.clone()]);
        assert_eq!(listed(&node)[0].ban.author, Author::Operator("abuse".into()));
        node.restart();
    }
    assert_eq!(node.ban(BanCommand::Remove(source("192.0.2.0/24"))), Ok(BanAnswer::Removed(true)));
    assert_eq!(node.ban(BanCommand::Remove(source("192.0.2.0/24"))), Ok(BanAnswer::Removed(false)));
    assert_eq!(flood(&node, "192.0.2.1", 1), 0);
    node.advance(60_000);
    assert_eq!(flood(&node, "2001:db8::1", 1), 0);
    assert_eq!(node.ban(BanCommand::Remove(mallory.clone())), Ok(BanAnswer::Removed(true)));
    node.connect("mallory").expect_pong();
    node.restart();
    assert_eq!(listed(&node), []);
}

#[test]
fn in_alert_mode_everything_is_counted_and_nobody_is_refused() {
    let node = node_with(|defence| {
        *defence = Defence {
            enforce: Enforce::Alert,
            connects: Some(TEN),
            user_connects: Some(Rate { per_second: 1, burst_seconds: 1 }),
            publishes: Some(Rate { per_second: 1, burst_seconds: 1 }),
            over_publish: OverPublish::Close,
            bans: BanRule { weight: 20, ..Defence::default().bans },
            ..Defence::default()
        };
    });
    assert_eq!(flood(&node, ABUSER, 150), 0);
    node.advance(1_500);
    assert_eq!(node.counter("bans"), 1, "it would be banned");
    let mut phone = connect_from(&node, ABUSER, &Hello::v5("phone"));
    phone.bye();
    phone = connect_from(&node, ABUSER, &Hello::v5("phone"));
    phone.publish("a", b"x", Qos::AtMostOnce, 0);
    phone.publish("a", b"x", Qos::AtMostOnce, 0);
    phone.expect_pong();
    for name in ["alerts_source_rate", "alerts_banned_source", "alerts_user_rate", "alerts_publish_rate"] {
        assert!(node.counter(name) > 0, "{name}");
    }
    for name in ["refused_source_rate", "refused_banned_source", "refused_user_rate", "slowed_publish_rate"] {
        assert_eq!(node.counter(name), 0, "{name}");
    }
    an_operators_ban_holds(&node);
}

#[test]
fn with_enforcement_off_nobody_is_counted() {
    let node = node_with(|defence| {
        defence.enforce = Enforce::Off;
        defence.connects = Some(TEN);
    });
    assert_eq!(flood(&node, ABUSER, 150), 0);
    assert_eq!((node.counter("alerts_source_rate"), node.counter("refused_source_rate")), (0, 0));
    an_operators_ban_holds(&node);
}

fn an_operators_ban_holds(node: &Node) {
    let mut there = connect_from(node, "192.0.2.99", &Hello::v5("there"));
    add(node, source("192.0.2.99"), u64::MAX);
    there.expect_goodbye(0x98);
    assert_eq!(flood(node, "192.0.2.99", 1), 1);
}

const SECRET: &[u8] = b"a secret of the tests, long enough for all";

fn node_with_tokens(change: impl FnOnce(&mut Defence)) -> Node {
    let node = Node::with_settings(1, |settings| {
        settings.tokens = true;
        settings.limits.connections = 500;
        change(&mut settings.limits.defence);
    });
    let key = Key::secret(None, KeyApps::Some([AppId(0)].into()), SECRET).expect("it is long enough");
    node.check_with(Some(KeySet::new(vec![key], Arc::from(["default".to_owned()])).expect("it is one")));
    node
}

fn token(node: &Node, user: &str) -> String {
    let wanted = Wanted { sub: user.into(), exp: node.net().now().wall_ms / 1_000 + 600, ..Wanted::default() };
    sign(&wanted, &Signing::secret(None, SECRET).expect("it is long enough")).expect("it signs")
}

/// The office: one address, many users with tokens, and one of them in a loop.
#[test]
fn one_abuser_behind_an_address_does_not_take_the_others_there_down() {
    const OFFICE: &str = "198.51.100.1";
    let node = node_with_tokens(|defence| {
        defence.connects = Some(TEN);
        defence.user_connects = Some(Rate { per_second: 1, burst_seconds: 10 });
        defence.bans = BanRule { weight: 20, time: Duration::from_secs(60), time_max: Duration::from_secs(60) };
    });
    let mallory = token(&node, "mallory");
    let mut codes = Vec::new();
    for _ in 0..60 {
        let mut client = node.dial_from(OFFICE);
        client.hello(&Hello::v5("loop").token(&mallory));
        if let Some(Got::ConnAck(welcome)) = client.next() {
            codes.push(welcome.code);
        }
    }
    assert_eq!(codes.iter().filter(|&&code| code == 0).count(), 10);
    assert_eq!(codes.iter().filter(|&&code| code == 0x9f).count(), 50);
    node.advance(1_500);
    let mut banned = node.dial_from(OFFICE);
    banned.hello(&Hello::v5("loop").token(&mallory));
    banned.expect_connack(0x8a);
    // Two hundred users are twice as many as an address may bring at once, but each has proven who it is.
    for number in 0..200 {
        let user = format!("user-{number}");
        let token = token(&node, &user);
        connect_from(&node, OFFICE, &Hello::v5("phone").token(&token)).expect_pong();
    }
    assert_eq!(node.counter("refused_source_rate"), 0);
}

#[test]
fn bad_tokens_are_their_addresss_and_get_it_banned() {
    let node = node_with_tokens(|defence| {
        defence.bans = BanRule { weight: 100, time: Duration::from_secs(60), time_max: Duration::from_secs(60) };
    });
    for _ in 0..11 {
        let mut guesser = node.dial_from(ABUSER);
        guesser.hello(&Hello::v5("phone").token("guess"));
        guesser.expect_connack(0x86);
    }
    node.advance(1_500);
    assert_eq!(flood(&node, ABUSER, 1), 1);
}

#[test]
fn who_comes_too_often_is_told_in_its_own_words() {
    let node = node_with(|defence| defence.user_connects = Some(Rate { per_second: 1, burst_seconds: 3 }));
    for _ in 0..3 {
        node.connect("ann").bye();
    }
    refused(&node, &Hello::v5("ann"), 0x9f);
    refused(&node, &Hello::v3("ann"), 3);
    let said = answer(&node, "GET /events?topic=a&user=ann HTTP/1.1\r\nHost: kittiwake\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 429 ") && said.contains("\r\nRetry-After: "), "{said}");
    node.connect("bob").bye();
    node.advance(1_000);
    node.connect("ann").bye();
    assert_eq!(node.counter("refused_user_rate"), 3);
}

#[test]
fn with_memory_short_who_comes_is_told_to_come_back_and_is_let_in_when_there_is_some() {
    let node = Node::with(1, |limits| {
        limits.connections = 100;
        limits.buffer_bytes = Some(16 << 20);
    });
    // Each holds a block of 256 KiB for a packet that has not come whole.
    let packet = crate::client::encoded(Version::V5, &publish("a", &vec![0; 200_000], Qos::AtMostOnce, 0));
    let mut holders: Vec<Client> = (0..53).map(|number| node.connect(&format!("holder-{number}"))).collect();
    holders.iter_mut().for_each(|holder| holder.send_raw(&packet[..150_000]));
    refused(&node, &Hello::v5("late"), 0x89);
    refused(&node, &Hello::v3("late"), 3);
    let said = answer(&node, "GET /events?topic=a&user=late HTTP/1.1\r\nHost: kittiwake\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("\r\nRetry-After: "), "{said}");
    assert_eq!(node.counter("refused_memory"), 3);
    holders.iter_mut().for_each(|holder| holder.send_raw(&packet[150_000..]));
    node.connect("late").expect_pong();
    node.assert_holds_no_buffers();
}

#[test]
fn a_budget_of_memory_is_kept_and_those_who_read_miss_nothing() {
    const BUDGET: usize = 16 << 20;
    let node = Node::with(1, |limits| {
        limits.connections = 100;
        limits.buffer_bytes = Some(BUDGET);
        limits.outbox_bytes = 1 << 20;
    });
    let mut stuck: Vec<Client> = (0..40).map(|number| node.connect(&format!("stuck-{number}"))).collect();
    stuck.iter_mut().for_each(|client| client.subscribe(&[("a", Qos::AtMostOnce)]));
    let mut reader = node.connect("reader");
    reader.subscribe(&[("a", Qos::AtMostOnce)]);
    for number in 0..400 {
        // Copied into each outbox, and every fifth by reference.
        let bytes = if number % 5 == 0 { 5_000 } else { 1_000 };
        node.push_topic("a", format!("{number} {}", "x".repeat(bytes)).as_bytes(), Qos::AtMostOnce);
        reader.expect_message();
        assert!(node.gauge("buffer_bytes") <= BUDGET as u64);
    }
    assert!(node.counter("dropped_outbox_full") > 0);
    node.connect("late").expect_pong();
    let arrived: usize = stuck.iter_mut().map(|client| client.drain().len()).sum();
    let dropped = node.counter("dropped_outbox_full") as usize;
    assert_eq!(arrived + dropped, 40 * 400, "what did not arrive was counted");
    node.assert_holds_no_buffers();
}

/// In virtual time and in small; `loadtest slow` has real sockets and as many as are asked for.
#[test]
fn one_client_that_never_reads_delays_nobody() {
    const READERS: usize = 300;
    let node = Node::with(2, |limits| {
        limits.connections = READERS + 100;
        limits.outbox_bytes = 16 << 10;
        limits.packet_bytes = 16 << 10;
        limits.defence.enforce = Enforce::Off;
    });
    let mut stuck = node.connect("stuck");
    stuck.subscribe(&[("a", Qos::AtMostOnce)]);
    let mut readers: Vec<Client> = (0..READERS)
        .map(|number| {
            let mut reader = node.connect(&format!("reader-{number}"));
            reader.subscribe(&[("a", Qos::AtMostOnce)]);
            reader
        })
        .collect();
    let before_ms = node.net().now().monotonic_ms;
    let payload = vec![b'x'; 8_000];
    for _ in 0..20 {
        node.push_topic("a", &payload, Qos::AtMostOnce);
        readers.iter_mut().for_each(|reader| assert_eq!(reader.messages().len(), 1));
    }
    assert_eq!(node.net().now().monotonic_ms, before_ms, "nobody waited for anything");
    assert!(node.counter("dropped_outbox_full") > 0, "what the one did not take was dropped");
    assert!(stuck.messages().len() < 20);
}

/// A network that broke and is back: everybody returns in the same moment. `loadtest storm` has 100,000 of them do it.
#[test]
fn a_storm_of_reconnects_is_let_in_and_has_missed_nothing() {
    const CLIENTS: usize = 1_000;
    let node = Node::with(4, |limits| limits.connections = 2 * CLIENTS);
    let names: Vec<String> = (0..CLIENTS).map(|number| format!("phone-{number}")).collect();
    let lasting = |name| {
        let mut client = node.hello(&Hello::lasting(name));
        client.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
        client
    };
    let clients: Vec<Client> = names.iter().map(|name| lasting(name)).collect();
    clients.into_iter().for_each(Client::reset);
    assert_eq!((node.gauge("connections"), node.gauge("sessions")), (0, CLIENTS as u64));
    names.iter().for_each(|name| node.push_user(name, b"while away", Qos::AtLeastOnce));
    let mut back: Vec<Client> = names.iter().map(|_| node.dial()).collect();
    for (name, client) in names.iter().zip(&mut back) {
        let frame = Hello::lasting(name).clean(false).frame();
        assert_eq!(client.write(&frame), frame.len());
    }
    for client in &mut back {
        client.speak(Version::V5);
        assert!(client.expect_connack(0).session_present);
        client.expect_and_ack("while away");
    }
    back.iter_mut().for_each(Client::expect_nothing);
    assert_eq!(node.gauge("connections"), CLIENTS as u64);
}
