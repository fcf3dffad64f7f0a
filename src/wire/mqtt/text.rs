//! UTF-8 Encoded Strings: MQTT 5 §1.5.4, 3.1.1 §1.5.3.

use super::error::DecodeError;
use crate::base::ascii::ascii_without;

/// A string's length is two bytes on the wire.
pub const STRING_BYTES_MAX: usize = u16::MAX as usize;

/// The text of `bytes`. Refuses what is not well-formed UTF-8, surrogates included `[MQTT-1.5.4-1]`, and U+0000
/// `[MQTT-1.5.4-2]`. Control characters and U+FEFF are the receiver's own business `[MQTT-1.5.4-3]` and pass.
#[inline]
pub fn check(bytes: &[u8]) -> Result<&str, DecodeError> {
    match ascii_without(bytes, [0]) {
        Some(text) => Ok(text),
        None => check_each(bytes),
    }
}

/// The text of a topic name's bytes, and whether it is known to have no wildcard: found out in one pass where it is plain.
#[inline]
pub(super) fn check_topic(bytes: &[u8]) -> Result<(&str, bool), DecodeError> {
    match ascii_without(bytes, [0, b'+', b'#']) {
        Some(text) => Ok((text, true)),
        None => check_each(bytes).map(|text| (text, false)),
    }
}

/// What is not plain, or has something that is refused.
#[inline(never)]
fn check_each(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = core::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("a string is not UTF-8"))?;
    if has_null(bytes) { Err(DecodeError::Malformed("a string has U+0000")) } else { Ok(text) }
}

/// Written as a fold over all bytes, without an early way out, so that it runs on vectors.
#[inline]
fn has_null(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |found, &byte| found | (byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt5_1_5_4_figure_1_2_is_text() {
        assert_eq!(check(&[0x41, 0xF0, 0xAA, 0x9B, 0x94]), Ok("A\u{2A6D4}"));
    }

    #[test]
    fn mqtt5_1_5_4_1_surrogates_and_broken_sequences_are_malformed() {
        let malformed = Err(DecodeError::Malformed("a string is not UTF-8"));
        for bytes in [&[0xED, 0xA0, 0x80][..], &[0xED, 0xBF, 0xBF], &[0xC0, 0x80], &[0xFF], &[0xF0, 0xAA, 0x9B]] {
            assert_eq!(check(bytes), malformed);
        }
    }

    #[test]
    fn mqtt5_1_5_4_2_null_is_malformed() {
        assert_eq!(check(b"a\0b"), Err(DecodeError::Malformed("a string has U+0000")));
    }

    #[test]
    fn mqtt5_1_5_4_3_a_byte_order_mark_stays() {
        assert_eq!(check(&[0xEF, 0xBB, 0xBF]), Ok("\u{FEFF}"));
    }
}
