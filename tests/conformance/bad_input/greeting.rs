//! What is wrong before there is a session: first packets, CONNECTs, silence.

use super::Scene;
use crate::client::{Hello, will};
use kittiwake::base::ids::Qos;
use kittiwake::limits::{HANDSHAKE_TIMEOUT, IDENTITY_BYTES_MAX};
use kittiwake::wire::mqtt::Version;

const HANDSHAKE_MS: u64 = HANDSHAKE_TIMEOUT.as_millis() as u64;

/// A CONNECT's bytes from its parts after the fixed header.
fn connect(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut frame = vec![0x10, u8::try_from(body.len()).expect("tests' CONNECTs are short")];
    frame.extend_from_slice(&body);
    frame
}

const NAME: &[u8] = b"\0\x04MQTT";
/// Keep alive 0.
const NO_KEEP_ALIVE: &[u8] = b"\0\0";
/// MQTT 5: no properties.
const NO_PROPERTIES: &[u8] = b"\0";
const ID: &[u8] = b"\0\x03bad";

#[test]
fn mqtt5_3_1_0_1_a_first_packet_other_than_connect_is_closed_without_a_word() {
    let mut scene = Scene::new();
    for frame in [
        &b"\xC0\0"[..],
        b"\xE0\0",
        b"\x30\x03\0\x01a",
        b"\x82\x06\0\x01\0\x01a\0",
        b"\x40\x02\0\x01",
        b"\x20\x03\0\0\0",
        b"\xF0\x02\0\0",
        b"\xD0\0",
    ] {
        scene.is_turned_away(frame, "closed_protocol_error");
    }
    scene.ends();
}

#[test]
fn a_first_packet_other_than_connect_is_not_waited_for() {
    let mut scene = Scene::new();
    for start in [&b"\x30"[..], b"\x30\xFF\xFF\x0F", b"\xC0", b"\x16", b"g", b"\x82\x7F\0"] {
        scene.is_turned_away(start, "closed_protocol_error");
    }
    // Not even where it names our protocol.
    scene.is_turned_away(b"\x30\x0A\0\xFF\0\x04MQTT\x05\0", "closed_protocol_error");
    scene.ends();
}

#[test]
fn garbage_of_other_protocols_and_of_none_is_closed_without_a_word() {
    let mut scene = Scene::new();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and what a TLS client says then";
    scene.is_turned_away(hello, "closed_protocol_error");
    scene.is_turned_away(b"SSH-2.0-OpenSSH_9.2\r\n", "closed_protocol_error");
    scene.is_turned_away(&[0; 4_096], "closed_protocol_error");
    scene.is_turned_away(&[0xFF; 4_096], "closed_protocol_error");
    scene.ends();
}

#[test]
fn random_bytes_never_hurt_anybody() {
    let mut scene = Scene::new();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for round in 0..200_usize {
        let bytes: Vec<u8> = (0..1 + round * 7 % 300).map(|_| random()).collect();
        // As a guest, and as a connected client.
        let mut guest = scene.node.dial();
        guest.send(&bytes);
        let mut client = scene.node.connect("random");
        client.send(&bytes);
        if round % 20 == 0 {
            scene.bystander_is_served();
        }
    }
    scene.node.advance(HANDSHAKE_MS);
    scene.bystander_is_served();
    scene.node.assert_holds_no_buffers();
    scene.ends();
}

#[test]
fn connections_that_say_nothing_end_with_the_handshake_timeout() {
    let mut scene = Scene::new();
    let mut silent: Vec<_> = (0..20).map(|_| scene.node.dial()).collect();
    scene.node.advance(HANDSHAKE_MS - 200);
    assert!(silent.iter_mut().all(|client| !client.is_closed()), "they still have time");
    scene.node.advance(400);
    silent.iter_mut().for_each(|client| client.expect_closed());
    assert_eq!(scene.node.counter("closed_handshake_timeout"), 20);
    scene.bystander_is_served();
    scene.ends();
}

#[test]
fn connections_that_come_and_go_without_a_byte_leave_nothing() {
    let mut scene = Scene::new();
    for round in 0..100 {
        let client = scene.node.dial();
        if round % 2 == 0 { client.hang_up() } else { client.reset() }
    }
    assert_eq!(scene.node.gauge("connections"), 1);
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
    scene.ends();
}

#[test]
fn a_byte_every_nine_seconds_does_not_outlast_the_handshake_timeout() {
    let mut scene = Scene::new();
    let mut slow = scene.node.dial();
    let frame = Hello::v5("slow").frame();
    slow.send(&frame[..1]);
    scene.node.advance(9_000);
    slow.send(&frame[1..2]);
    assert!(!slow.is_closed());
    scene.node.advance(1_200);
    slow.expect_closed();
    assert_eq!(scene.node.counter("closed_handshake_timeout"), 1);
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
    scene.ends();
}

#[test]
fn a_connect_that_stays_half_is_closed_in_time_and_its_bytes_are_given_back() {
    let mut scene = Scene::new();
    let frame = Hello::v5("half").frame();
    let mut half: Vec<_> = (1..frame.len()).map(|_| scene.node.dial()).collect();
    for (count, client) in half.iter_mut().enumerate() {
        client.send(&frame[..count + 1]);
    }
    assert_eq!(scene.node.gauge("partial_frames"), half.len() as u64);
    scene.node.advance(HANDSHAKE_MS + 200);
    half.iter_mut().for_each(|client| client.expect_closed());
    scene.node.assert_holds_no_buffers();
    scene.bystander_is_served();
    scene.ends();
}

#[test]
fn a_connect_that_comes_byte_by_byte_is_a_connect() {
    let scene = Scene::new();
    for hello in [Hello::v5("bytewise"), Hello::v3("bytewise")] {
        let mut client = scene.node.dial();
        client.speak(hello.0.version);
        client.send_slowly(&hello.frame());
        client.expect_connack(0);
        client.expect_pong();
    }
    scene.ends();
}

#[test]
fn mqtt5_3_1_2_2_an_unsupported_level_is_refused_in_words_its_peer_knows() {
    let mut scene = Scene::new();
    for (level, version, code) in
        [(3, Version::V311, 0x01), (0, Version::V311, 0x01), (6, Version::V5, 0x84), (255, Version::V5, 0x84)]
    {
        let before = scene.node.counter("closed_refused");
        let mut client = scene.node.dial();
        client.speak(version);
        client.send(&connect(&[NAME, &[level, 0x02], NO_KEEP_ALIVE, ID]));
        client.expect_connack(code);
        client.expect_closed();
        scene.was_counted("closed_refused", before);
    }
    // MQTT 3.1 had another name.
    let mut client = scene.node.dial();
    client.speak(Version::V311);
    client.send(&connect(&[b"\0\x06MQIsdp", &[3, 0x02], NO_KEEP_ALIVE, ID]));
    client.expect_connack(0x01);
    client.expect_closed();
    scene.ends();
}

#[test]
fn mqtt5_3_1_2_1_a_wrong_protocol_name_is_closed_without_a_word() {
    let mut scene = Scene::new();
    for name in [&b"\0\x04mqtt"[..], b"\0\x04HTTP", b"\0\0", b"\0\x05MQTTT", b"\0\x04\xFF\xFE\xFD\xFC"] {
        scene.is_turned_away(&connect(&[name, &[5, 0x02], NO_KEEP_ALIVE, NO_PROPERTIES, ID]), "closed_refused");
    }
    scene.ends();
}

/// Refused with this reason code in MQTT 5.
#[track_caller]
fn is_refused(scene: &mut Scene, frame: &[u8], code: u8) {
    let before = scene.node.counter("closed_refused");
    let mut client = scene.node.dial();
    client.send(frame);
    client.expect_connack(code);
    client.expect_closed();
    scene.was_counted("closed_refused", before);
}

#[test]
fn mqtt5_3_1_2_3_connect_flags_that_cannot_be_are_malformed() {
    let mut scene = Scene::new();
    // Reserved; will QoS 3; will QoS and will retain without a will.
    for flags in [0x03, 0x1E, 0x0A, 0x22] {
        let will = b"\0\0\x01w\0\0";
        let parts = [NAME, &[5, flags], NO_KEEP_ALIVE, NO_PROPERTIES, ID, if flags & 4 == 0 { b"" } else { &will[..] }];
        is_refused(&mut scene, &connect(&parts), 0x81);
        scene.is_turned_away(&connect(&[NAME, &[4, flags], NO_KEEP_ALIVE, ID]), "closed_refused");
    }
    scene.ends();
}

#[test]
fn lying_lengths_in_a_connect_are_malformed() {
    let mut scene = Scene::new();
    for tail in [&b"\xFF\xFFbad"[..], b"\0\x04bad", b"\0", b"", b"\0\x03bad and more than the flags say"] {
        is_refused(&mut scene, &connect(&[NAME, &[5, 0x02], NO_KEEP_ALIVE, NO_PROPERTIES, tail]), 0x81);
    }
    // A property section longer than the frame; a property cut short.
    is_refused(&mut scene, &connect(&[NAME, &[5, 0x02], NO_KEEP_ALIVE, b"\x7F", ID]), 0x81);
    is_refused(&mut scene, &connect(&[NAME, &[5, 0x02], NO_KEEP_ALIVE, b"\x03\x11\0\0", ID]), 0x81);
    scene.ends();
}

#[test]
fn mqtt5_1_5_4_1_a_client_identifier_that_is_no_utf8_is_malformed() {
    let mut scene = Scene::new();
    for id in [&b"\0\x02\xC3\x28"[..], b"\0\x01\0", b"\0\x03\xED\xA0\x80", b"\0\x01\xFF"] {
        is_refused(&mut scene, &connect(&[NAME, &[5, 0x02], NO_KEEP_ALIVE, NO_PROPERTIES, id]), 0x81);
        scene.is_turned_away(&connect(&[NAME, &[4, 0x02], NO_KEEP_ALIVE, id]), "closed_refused");
    }
    scene.ends();
}

#[test]
fn mqtt5_2_2_2_2_properties_that_are_twice_unknown_or_zero_are_refused() {
    let mut scene = Scene::new();
    for (properties, code) in [
        (&b"\x0A\x11\0\0\0\x01\x11\0\0\0\x01"[..], 0x82),
        (b"\x02\x7F\0", 0x81),
        (b"\x03\x21\0\0", 0x82),
        (b"\x05\x27\0\0\0\0", 0x82),
        (b"\x02\x17\x02", 0x82),
        (b"\x03\x23\0\x01", 0x82),
    ] {
        is_refused(&mut scene, &connect(&[NAME, &[5, 0x02], NO_KEEP_ALIVE, properties, ID]), code);
    }
    scene.ends();
}

#[test]
fn mqtt5_4_12_0_1_an_authentication_method_we_do_not_know_is_refused() {
    let mut scene = Scene::new();
    let mut hello = Hello::v5("bad");
    hello.0.properties.authentication_method = Some("SCRAM-SHA-1");
    is_refused(&mut scene, &hello.frame(), 0x8C);
    scene.ends();
}

#[test]
fn identities_are_taken_up_to_their_limit_and_refused_beyond_it() {
    let mut scene = Scene::new();
    for bytes in [IDENTITY_BYTES_MAX - 1, IDENTITY_BYTES_MAX] {
        let long = "x".repeat(bytes);
        scene.node.hello(&Hello::v5(&long)).bye();
        scene.node.hello(&Hello::v5("bad").user(&long)).bye();
        scene.node.hello(&Hello::v3(&long)).bye();
    }
    let long = "x".repeat(IDENTITY_BYTES_MAX + 1);
    is_refused(&mut scene, &Hello::v5(&long).frame(), 0x85);
    is_refused(&mut scene, &Hello::v5("bad").user(&long).frame(), 0x86);
    for (hello, code) in [(Hello::v3(&long), 0x02), (Hello::v3("bad").user(&long), 0x04)] {
        let mut client = scene.node.dial();
        client.hello(&hello);
        client.expect_connack(code);
        client.expect_closed();
    }
    scene.bystander_is_served();
    scene.ends();
}

#[test]
fn mqtt311_3_1_3_8_an_empty_client_identifier_without_a_clean_session_is_refused() {
    let mut scene = Scene::new();
    let mut client = scene.node.dial();
    client.speak(Version::V311);
    client.send(&connect(&[NAME, &[4, 0], NO_KEEP_ALIVE, b"\0\0"]));
    client.expect_connack(0x02);
    client.expect_closed();
    scene.bystander_is_served();
    scene.ends();
}

#[test]
fn a_will_that_may_not_be_published_is_refused_at_connect() {
    let mut scene = Scene::new();
    for (topic, code) in [("$SYS/x", 0x87), ("$inbox/x", 0x87), ("a/+", 0x90), ("#", 0x90)] {
        is_refused(&mut scene, &Hello::v5("bad").will(will(topic, b"w", Qos::AtMostOnce)).frame(), code);
    }
    let empty = connect(&[NAME, &[5, 0x06], NO_KEEP_ALIVE, NO_PROPERTIES, ID, b"\0\0\0\0\0"]);
    is_refused(&mut scene, &empty, 0x90);
    let deep = "a/".repeat(40);
    is_refused(&mut scene, &Hello::v5("bad").will(will(&deep, b"w", Qos::AtMostOnce)).frame(), 0x90);
    scene.ends();
}

#[test]
fn a_first_packet_of_a_huge_length_is_closed_before_it_comes() {
    let mut scene = Scene::new();
    scene.is_turned_away(b"\x10\xFF\xFF\xFF\x7F", "closed_packet_too_large");
    scene.is_turned_away(b"\x10\xFF\xFF\xFF\xFF", "closed_protocol_error");
    scene.is_turned_away(b"\x10\x80\x80\x80\x80\x01", "closed_protocol_error");
    scene.ends();
}

/// A CONNECT with these flags and this payload, refused in both versions.
#[track_caller]
fn is_malformed_in_both(scene: &mut Scene, flags: u8, five: &[&[u8]], three: &[&[u8]]) {
    let head: [&[u8]; 4] = [NAME, &[5, flags], NO_KEEP_ALIVE, NO_PROPERTIES];
    is_refused(scene, &connect(&[&head[..], five].concat()), 0x81);
    let head: [&[u8]; 3] = [NAME, &[4, flags], NO_KEEP_ALIVE];
    scene.is_turned_away(&connect(&[&head[..], three].concat()), "closed_refused");
}

#[test]
fn mqtt5_3_1_2_9_a_will_flag_without_its_fields_is_malformed() {
    let mut scene = Scene::new();
    // Nothing; a topic without a payload; half a payload. In MQTT 5 the will's properties come before.
    is_malformed_in_both(&mut scene, 0x06, &[ID], &[ID]);
    is_malformed_in_both(&mut scene, 0x06, &[ID, b"\0"], &[ID, b"\0"]);
    is_malformed_in_both(&mut scene, 0x06, &[ID, b"\0\0\x01w"], &[ID, b"\0\x01w"]);
    is_malformed_in_both(&mut scene, 0x06, &[ID, b"\0\0\x01w\0\x02x"], &[ID, b"\0\x01w\0\x02x"]);
    scene.ends();
}

#[test]
fn mqtt5_3_1_2_16_the_payload_has_what_the_flags_say_and_nothing_else() {
    let mut scene = Scene::new();
    const NAME_FIELD: &[u8] = b"\0\x04user";
    const WORD: &[u8] = b"\0\x04word";
    // Said and not there.
    is_malformed_in_both(&mut scene, 0x82, &[ID], &[ID]);
    is_malformed_in_both(&mut scene, 0xC2, &[ID, NAME_FIELD], &[ID, NAME_FIELD]);
    // There and not said: a user name, a password, a will.
    is_malformed_in_both(&mut scene, 0x02, &[ID, NAME_FIELD], &[ID, NAME_FIELD]);
    is_malformed_in_both(&mut scene, 0x82, &[ID, NAME_FIELD, WORD], &[ID, NAME_FIELD, WORD]);
    is_malformed_in_both(&mut scene, 0x02, &[ID, b"\0\0\x01w\0\0"], &[ID, b"\0\x01w\0\0"]);
    // Said and there.
    for (level, properties) in [(5, NO_PROPERTIES), (4, b"")] {
        let mut client = scene.node.dial();
        client.speak(if level == 5 { Version::V5 } else { Version::V311 });
        client.send(&connect(&[NAME, &[level, 0xC2], NO_KEEP_ALIVE, properties, ID, NAME_FIELD, WORD]));
        client.expect_connack(0);
        client.bye();
    }
    // MQTT 5 takes a password alone (§3.1.2.9).
    let mut client = scene.node.dial();
    client.send(&connect(&[NAME, &[5, 0x42], NO_KEEP_ALIVE, NO_PROPERTIES, ID, WORD]));
    client.expect_connack(0);
    client.bye();
    scene.ends();
}

#[test]
fn mqtt311_3_1_2_22_a_password_without_a_user_name_is_malformed() {
    let mut scene = Scene::new();
    scene.is_turned_away(&connect(&[NAME, &[4, 0x42], NO_KEEP_ALIVE, ID, b"\0\x04word"]), "closed_refused");
    scene.ends();
}

#[test]
fn mqtt5_3_1_3_1_the_fields_of_a_connect_are_read_in_their_order() {
    let scene = Scene::new();
    let mut watcher = scene.node.connect("watcher");
    watcher.subscribe(&[("topic", Qos::AtMostOnce)]);
    for (level, none) in [(5, NO_PROPERTIES), (4, b"")] {
        let parts: [&[u8]; 9] = [
            NAME,
            &[level, 0xC6],
            NO_KEEP_ALIVE,
            none,
            b"\0\x05first",
            none,
            b"\0\x05topic\0\x07payload",
            b"\0\x04user",
            b"\0\x04word",
        ];
        let mut client = scene.node.dial();
        client.speak(if level == 5 { Version::V5 } else { Version::V311 });
        client.send(&connect(&parts));
        client.expect_connack(0);
        // The user and the device are those, or nobody would take over.
        scene.node.hello(&Hello::v5("first").user("user")).bye();
        assert!(client.all().len() <= 1 && client.is_closed());
        watcher.expect_text("payload");
    }
    watcher.bye();
    scene.ends();
}

#[test]
fn mqtt5_3_1_3_3_a_connect_without_a_client_identifier_is_malformed() {
    let mut scene = Scene::new();
    is_malformed_in_both(&mut scene, 0x02, &[], &[]);
    is_malformed_in_both(&mut scene, 0x02, &[b"\0"], &[b"\0"]);
    // It is the first field: what follows the flags is read as it.
    is_malformed_in_both(&mut scene, 0x82, &[b"\0\x04user"], &[b"\0\x04user"]);
    scene.ends();
}

#[test]
fn mqtt5_3_1_3_11_will_topics_and_user_names_are_text() {
    let mut scene = Scene::new();
    for text in [&b"\0\x01\xFF"[..], b"\0\x02\xC3\x28", b"\0\x01\0", b"\0\x03\xED\xA0\x80"] {
        is_malformed_in_both(&mut scene, 0x82, &[ID, text], &[ID, text]);
        is_malformed_in_both(&mut scene, 0x06, &[ID, b"\0", text, b"\0\0"], &[ID, text, b"\0\0"]);
    }
    scene.ends();
}
