//! The Variable Byte Integer of MQTT 5 §1.5.5, which is the Remaining Length of 3.1.1 §2.2.3.

/// The largest value: four bytes of seven bits.
pub const VARINT_MAX: u32 = 268_435_455;

/// What the bytes at hand say of a variable byte integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varint {
    /// It goes on beyond the bytes at hand.
    NeedMore,
    /// Whole.
    Known {
        /// Its value, at most [`VARINT_MAX`].
        value: u32,
        /// Bytes it takes, 1 to 4.
        bytes: usize,
    },
    /// Longer than four bytes, or than it needs to be: `[MQTT-1.5.5-1]`, and table 2.4 of 3.1.1, which gives each
    /// value exactly one length.
    Invalid,
}

/// Looks at a variable byte integer at the start of `bytes`.
#[inline]
pub fn peek(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let minimal = index == 0 || byte != 0;
            return if minimal { Varint::Known { value, bytes: index + 1 } } else { Varint::Invalid };
        }
    }
    if bytes.len() < 4 { Varint::NeedMore } else { Varint::Invalid }
}

/// Bytes that `value` takes. Panics above [`VARINT_MAX`], which is a bug of the caller.
#[inline]
pub const fn encoded_len(value: u32) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        2_097_152..=VARINT_MAX => 4,
        _ => panic!("no variable byte integer is that large"),
    }
}

/// The bytes of `value` and how many of them count. Panics above [`VARINT_MAX`], which is a bug of the caller.
#[inline]
pub const fn encode(value: u32) -> ([u8; 4], usize) {
    let len = encoded_len(value);
    let mut bytes = [0; 4];
    let mut index = 0;
    while index < len {
        let more = if index + 1 < len { 0x80 } else { 0 };
        bytes[index] = ((value >> (7 * index)) & 0x7F) as u8 | more;
        index += 1;
    }
    (bytes, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_borders_of_table_1_1_have_the_bytes_it_gives() {
        let borders: [(u32, &[u8]); 8] = [
            (0, &[0x00]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_151, &[0xFF, 0xFF, 0x7F]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
            (VARINT_MAX, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ];
        for (value, wire) in borders {
            let (bytes, len) = encode(value);
            assert_eq!(&bytes[..len], wire);
            assert_eq!(peek(wire), Varint::Known { value, bytes: wire.len() });
            for end in 0..wire.len() {
                assert_eq!(peek(&wire[..end]), Varint::NeedMore);
            }
        }
    }

    #[test]
    fn a_fourth_continuation_bit_is_invalid_at_once() {
        assert_eq!(peek(&[0xFF, 0xFF, 0xFF, 0xFF]), Varint::Invalid);
        assert_eq!(peek(&[0x80, 0x80, 0x80, 0x80, 0x01]), Varint::Invalid);
    }

    #[test]
    fn mqtt5_1_5_5_1_a_value_in_more_bytes_than_needed_is_invalid() {
        for wire in [&[0x80, 0x00][..], &[0xFF, 0x00], &[0x80, 0x80, 0x00], &[0x81, 0x80, 0x80, 0x00]] {
            assert_eq!(peek(wire), Varint::Invalid);
        }
    }

    #[test]
    #[should_panic(expected = "no variable byte integer is that large")]
    fn one_more_than_the_maximum_has_no_encoding() {
        encode(VARINT_MAX + 1);
    }

    proptest! {
        #[test]
        fn every_value_survives(value in 0..=VARINT_MAX) {
            let (bytes, len) = encode(value);
            prop_assert_eq!(peek(&bytes[..len]), Varint::Known { value, bytes: len });
        }
    }
}
