//! What a new connection speaks, told by its first bytes.

use super::mqtt::varint::{self, Varint};
use super::tls;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// Not decided yet: more bytes are needed. Never said of [`DETECT_BYTES_MAX`] bytes or more.
    NeedMore,
    /// An MQTT CONNECT of any protocol level.
    Mqtt,
    /// An HTTP/1 request.
    Http,
    /// A TLS record that carries a ClientHello.
    Tls,
    /// Nothing that is spoken here.
    Unknown,
}

/// This many bytes always decide: an MQTT fixed header of five bytes and the older protocol name `MQIsdp` with its
/// length is the longest beginning there is.
pub const DETECT_BYTES_MAX: usize = 13;

/// Methods of RFC 9110 §9 and RFC 5789, each with the space that must follow it.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"DELETE ", b"PATCH ", b"CONNECT ", b"TRACE "];
/// Protocol names with their length: MQTT 3.1.1 and 5.0, and 3.1, which is refused in its own words later.
const MQTT_NAMES: [&[u8]; 2] = [b"\x00\x04MQTT", b"\x00\x06MQIsdp"];
/// The fixed header's first byte of a CONNECT.
const MQTT_CONNECT: u8 = 0x10;
/// Handshake type `client_hello`, RFC 8446 §4.
const TLS_CLIENT_HELLO: u8 = 1;
/// Longest fragment of a TLS plaintext record, RFC 8446 §5.1.
const TLS_FRAGMENT_BYTES_MAX: u16 = 1 << 14;

/// Tells the protocol by its first bytes, which stay unconsumed.
pub fn detect(bytes: &[u8]) -> Detected {
    match bytes.first() {
        None => Detected::NeedMore,
        Some(&MQTT_CONNECT) => detect_mqtt(&bytes[1..]),
        Some(&tls::HANDSHAKE) => detect_tls(&bytes[1..]),
        Some(_) => one_of(bytes, &METHODS, Detected::Http),
    }
}

fn detect_mqtt(after_type: &[u8]) -> Detected {
    match varint::peek(after_type) {
        Varint::NeedMore => Detected::NeedMore,
        Varint::Invalid => Detected::Unknown,
        Varint::Known { bytes, .. } => one_of(&after_type[bytes..], &MQTT_NAMES, Detected::Mqtt),
    }
}

fn detect_tls(after_type: &[u8]) -> Detected {
    let fragment_fits = |high: u8, low: u8| (4..=TLS_FRAGMENT_BYTES_MAX).contains(&u16::from_be_bytes([high, low]));
    match *after_type {
        [major, ..] if major != 3 => Detected::Unknown,
        [_, minor, ..] if minor > 4 => Detected::Unknown,
        [_, _, high, low, ..] if !fragment_fits(high, low) => Detected::Unknown,
        [_, _, _, _, handshake, ..] if handshake == TLS_CLIENT_HELLO => Detected::Tls,
        [_, _, _, _, _, ..] => Detected::Unknown,
        _ => Detected::NeedMore,
    }
}

/// `found` when `bytes` begins with one of `beginnings`, `NeedMore` while it may still come to that.
fn one_of(bytes: &[u8], beginnings: &[&[u8]], found: Detected) -> Detected {
    if beginnings.iter().any(|beginning| bytes.starts_with(beginning)) {
        found
    } else if beginnings.iter().any(|beginning| beginning.starts_with(bytes)) {
        Detected::NeedMore
    } else {
        Detected::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_protocol_is_told_by_its_first_bytes() {
        assert_eq!(detect(b"\x10\x10\x00\x04MQTT\x04\x02"), Detected::Mqtt);
        assert_eq!(detect(b"\x10\x80\x02\x00\x04MQTT"), Detected::Mqtt);
        assert_eq!(detect(b"\x10\x10\x00\x06MQIsdp\x03"), Detected::Mqtt);
        assert_eq!(detect(b"GET /mqtt HTTP/1.1\r\n"), Detected::Http);
        assert_eq!(detect(b"POST "), Detected::Http);
        assert_eq!(detect(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), Detected::Tls);
    }

    #[test]
    fn what_is_not_spoken_here_is_unknown_at_the_first_wrong_byte() {
        for bytes in [
            &b"\x00"[..],
            b"\x30",
            b"get /",
            b"GETS",
            b"PRI * HTTP/2.0",
            b"SSH-2.0-",
            b"\x10\x80\x80\x80\x80",
            b"\x10\x10\x00\x05",
            b"\x10\x10\x00\x04MQTX",
            b"\x16\x02",
            b"\x16\x03\x05",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\x02\x00\x02",
        ] {
            assert_eq!(detect(bytes), Detected::Unknown, "{bytes:x?}");
        }
    }

    #[test]
    fn every_proper_prefix_of_a_beginning_needs_more() {
        for beginning in [&b"\x10\x80\x80\x01\x00\x06MQIsdp"[..], b"OPTIONS ", b"\x16\x03\x03\x02\x00\x01"] {
            for end in 0..beginning.len() {
                assert_eq!(detect(&beginning[..end]), Detected::NeedMore, "{:x?}", &beginning[..end]);
            }
            assert!(!matches!(detect(beginning), Detected::NeedMore | Detected::Unknown));
        }
    }

    #[test]
    fn the_longest_beginning_is_the_named_bound() {
        let mut longest = vec![MQTT_CONNECT, 0x80, 0x80, 0x80, 0x01];
        longest.extend_from_slice(MQTT_NAMES[1]);
        assert_eq!(longest.len(), DETECT_BYTES_MAX);
        assert_eq!(detect(&longest[..DETECT_BYTES_MAX - 1]), Detected::NeedMore);
        assert_eq!(detect(&longest), Detected::Mqtt);
    }

    proptest! {
        #[test]
        fn enough_bytes_always_decide(bytes in proptest::collection::vec(any::<u8>(), DETECT_BYTES_MAX..32)) {
            prop_assert_ne!(detect(&bytes), Detected::NeedMore);
        }

        #[test]
        fn a_decision_never_changes_with_more_bytes(
            start in proptest::sample::select(vec![&b"\x10\x10\x00\x04MQTT"[..], b"\x16\x03\x01\x02\x00\x01", b"GET ", b""]),
            tail in proptest::collection::vec(any::<u8>(), 0..16),
            cut in 0usize..32,
        ) {
            let bytes = [start, &tail].concat();
            let early = detect(&bytes[..cut.min(bytes.len())]);
            prop_assert!(early == Detected::NeedMore || early == detect(&bytes));
        }
    }
}
