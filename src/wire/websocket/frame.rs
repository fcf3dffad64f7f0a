//! The head of a frame (RFC 6455 §5.2):
//!
//! ```text
//!   1   1   1   1    4      1       7         0, 2 or 8 bytes      0 or 4 bytes
//! ┌───┬───┬───┬───┬──────┬──────┬────────┬──────────────────────┬──────────────┐
//! │fin│ reserved  │opcode│masked│ length │ 126: 16 bits, 127: 64│ masking key  │ payload
//! └───┴───┴───┴───┴──────┴──────┴────────┴──────────────────────┴──────────────┘
//! ```

use super::reader::Violation;

/// Longest head: two bytes, a length of eight, a masking key.
pub const HEAD_BYTES_MAX: usize = 14;
/// Longest payload of a control frame (§5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The last frame of a message.
pub(super) const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// The first reserved bit: the message that begins is packed (RFC 7692 §6).
const PACKED: u8 = 0x40;
const MASKED: u8 = 0x80;
/// The length follows in 16 bits.
const LENGTH_16: u8 = 126;
/// The length follows in 64 bits.
const LENGTH_64: u8 = 127;

/// What a frame is (§11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message that an earlier frame began.
    Continuation = 0,
    /// Begins a message of text.
    Text = 1,
    /// Begins a message of bytes.
    Binary = 2,
    /// The end.
    Close = 8,
    /// To be answered.
    Ping = 9,
    /// The answer, or a sign of life.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Control frames may come between the frames of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// A head that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The last frame of its message.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// It begins a message that is packed.
    pub packed: bool,
    /// What its payload is masked with.
    pub mask: Option<[u8; 4]>,
    /// Length of its payload.
    pub payload: u64,
    /// Its own length.
    pub bytes: usize,
}

/// Reads the head at the start of `bytes`; none while it is not whole. What is wrong with it is said as soon as the
/// bytes that show it are there.
pub fn decode_head(bytes: &[u8]) -> Result<Option<FrameHead>, Violation> {
    decode_agreed_head(bytes, false)
}

/// The same where it was agreed that messages may be packed: the bit that says so is set in the first frame of a message
/// and in no other (RFC 7692 §6.1).
pub(super) fn decode_agreed_head(bytes: &[u8], may_pack: bool) -> Result<Option<FrameHead>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let packed = first & RESERVED == PACKED && may_pack;
    if first & RESERVED != 0 && !packed {
        return Err(Violation::ReservedBits);
    }
    let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
    if packed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(Violation::ReservedBits);
    }
    let fin = first & FIN != 0;
    if opcode.is_control() && !fin {
        return Err(Violation::FragmentedControl);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    let short = second & !MASKED;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    let (payload, key_at) = match short {
        LENGTH_16 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        LENGTH_64 => match bytes.get(2..10).and_then(|length| length.first_chunk::<8>()) {
            Some(&length) => (u64::from_be_bytes(length), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if payload > i64::MAX as u64 {
        return Err(Violation::Length);
    }
    if short == LENGTH_16 && payload < u64::from(LENGTH_16) || short == LENGTH_64 && payload <= u64::from(u16::MAX) {
        return Err(Violation::LengthNotMinimal);
    }
    if second & MASKED == 0 {
        return Ok(Some(FrameHead { fin, opcode, packed, mask: None, payload, bytes: key_at }));
    }
    let key = bytes.get(key_at..).and_then(|rest| rest.first_chunk::<4>());
    Ok(key.map(|&key| FrameHead { fin, opcode, packed, mask: Some(key), payload, bytes: key_at + 4 }))
}

/// Writes a head at the start of `into` and returns its length. The shortest form, as §5.2 demands.
pub fn encode_head(
    fin: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    payload: u64,
    into: &mut [u8; HEAD_BYTES_MAX],
) -> usize {
    into[0] = opcode as u8 | if fin { FIN } else { 0 };
    let mut bytes = 2;
    into[1] = if payload < u64::from(LENGTH_16) {
        payload as u8
    } else if let Ok(length) = u16::try_from(payload) {
        into[2..4].copy_from_slice(&length.to_be_bytes());
        bytes = 4;
        LENGTH_16
    } else {
        into[2..10].copy_from_slice(&payload.to_be_bytes());
        bytes = 10;
        LENGTH_64
    };
    if let Some(key) = mask {
        into[1] |= MASKED;
        into[bytes..bytes + 4].copy_from_slice(&key);
        bytes += 4;
    }
    bytes
}

/// The same for the one frame of a packed message.
pub fn encode_packed_head(opcode: Opcode, payload: u64, into: &mut [u8; HEAD_BYTES_MAX]) -> usize {
    let bytes = encode_head(true, opcode, None, payload, into);
    into[0] |= PACKED;
    bytes
}

/// Masks or unmasks a piece of a payload (§5.3) and returns the key turned to where the next piece begins.
pub fn apply_mask(piece: &mut [u8], key: [u8; 4]) -> [u8; 4] {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = piece.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
    let mut turned = key;
    turned.rotate_left(piece.len() % 4);
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(opcode: Opcode, mask: Option<[u8; 4]>, payload: u64) -> Vec<u8> {
        let mut into = [0; HEAD_BYTES_MAX];
        let bytes = encode_head(true, opcode, mask, payload, &mut into);
        into[..bytes].to_vec()
    }

    #[test]
    fn rfc6455_5_7_the_examples_are_read_as_the_standard_says() {
        let text = decode_head(&[0x81, 0x05]).expect("well formed").expect("whole");
        assert_eq!((text.fin, text.opcode, text.mask, text.payload), (true, Opcode::Text, None, 5));
        let masked = decode_head(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d]).expect("well formed").expect("whole");
        assert_eq!((masked.mask, masked.bytes), (Some([0x37, 0xfa, 0x21, 0x3d]), 6));
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply_mask(&mut payload, [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(&payload, b"Hello");
        let long = decode_head(&[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]).expect("well formed").expect("whole");
        assert_eq!((long.payload, long.bytes), (65_536, 10));
    }

    #[test]
    fn rfc6455_5_2_lengths_are_written_in_their_shortest_form_and_read_in_no_other() {
        for (payload, bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (i64::MAX as u64, 10)] {
            let written = head(Opcode::Binary, None, payload);
            assert_eq!(written.len(), bytes, "{payload}");
            assert_eq!(decode_head(&written).expect("well formed").expect("whole").payload, payload);
        }
        assert_eq!(decode_head(&[0x82, 126, 0, 125]), Err(Violation::LengthNotMinimal));
        assert_eq!(decode_head(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), Err(Violation::LengthNotMinimal));
        assert_eq!(decode_head(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(Violation::Length));
    }

    #[test]
    fn what_is_wrong_is_said_as_early_as_it_shows() {
        assert_eq!(decode_head(&[0xC1]), Err(Violation::ReservedBits));
        assert_eq!(decode_head(&[0x83]), Err(Violation::ReservedOpcode));
        assert_eq!(decode_head(&[0x8B]), Err(Violation::ReservedOpcode));
        assert_eq!(decode_head(&[0x09]), Err(Violation::FragmentedControl));
        assert_eq!(decode_head(&[0x89, 126]), Err(Violation::ControlTooLong));
        assert_eq!(decode_head(&[0x89, 0x80 | 127]), Err(Violation::ControlTooLong));
    }

    #[test]
    fn rfc7692_6_1_the_bit_of_packed_messages_is_taken_where_it_was_agreed_and_a_message_begins() {
        for opcode in [Opcode::Text, Opcode::Binary] {
            let first = [PACKED | opcode as u8, 5];
            let head = decode_agreed_head(&first, true).expect("well formed").expect("whole");
            assert_eq!((head.packed, head.fin, head.opcode), (true, false, opcode));
            assert_eq!(decode_head(&first), Err(Violation::ReservedBits));
        }
        let mut packed = [0; HEAD_BYTES_MAX];
        let bytes = encode_packed_head(Opcode::Binary, 300, &mut packed);
        let head = decode_agreed_head(&packed[..bytes], true).expect("well formed").expect("whole");
        assert_eq!((head.packed, head.fin, head.payload), (true, true, 300));
        for first in [0x40, 0xC8, 0xC9, 0xCA, 0x61, 0x51, 0x22, 0x12] {
            assert_eq!(decode_agreed_head(&[first], true), Err(Violation::ReservedBits), "{first:x}");
        }
        assert!(!decode_agreed_head(&[0x81, 0], true).expect("well formed").expect("whole").packed);
    }

    proptest! {
        #[test]
        fn a_head_is_read_as_it_was_written_and_not_before_it_is_whole(
            opcode in prop_oneof![Just(Opcode::Text), Just(Opcode::Binary), Just(Opcode::Continuation)],
            fin in any::<bool>(),
            mask in any::<Option<[u8; 4]>>(),
            payload in prop_oneof![0u64..200, 65_500u64..65_600, 0..=i64::MAX as u64],
        ) {
            let mut into = [0; HEAD_BYTES_MAX];
            let bytes = encode_head(fin, opcode, mask, payload, &mut into);
            let head = FrameHead { fin, opcode, packed: false, mask, payload, bytes };
            prop_assert_eq!(decode_head(&into[..bytes]), Ok(Some(head)));
            for end in 0..bytes {
                prop_assert_eq!(decode_head(&into[..end]), Ok(None));
            }
        }

        #[test]
        fn a_payload_in_pieces_is_unmasked_as_a_whole_one(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            key in any::<[u8; 4]>(),
            cut in 0usize..80,
        ) {
            let slowly: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
            let (first, second) = { let middle = cut.min(bytes.len()); bytes.split_at_mut(middle) };
            let turned = apply_mask(first, key);
            apply_mask(second, turned);
            prop_assert_eq!(bytes, slowly);
        }
    }
}
