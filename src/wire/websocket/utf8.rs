//! Text that comes in pieces: wrong at the first byte that no valid text can have there (RFC 6455 §8.1, RFC 3629 §4).

/// What the last piece left open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Utf8 {
    /// Nothing: a character may begin, or the text end.
    #[default]
    Whole,
    /// One more byte of a character.
    One,
    /// Two more.
    Two,
    /// Three more.
    Three,
    /// Two more, the first of them not so small that the character would have a shorter form.
    TwoAfterE0,
    /// Two more, the first of them not so large that the character would be half of a surrogate pair.
    TwoAfterEd,
    /// Three more, the first of them not so small that the character would have a shorter form.
    ThreeAfterF0,
    /// Three more, the first of them not so large that the character would be beyond U+10FFFF.
    ThreeAfterF4,
}

impl Utf8 {
    /// Takes the next piece in. False: it is no UTF-8; what comes after does not matter.
    #[must_use]
    pub fn take(&mut self, mut piece: &[u8]) -> bool {
        while *self != Self::Whole {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            let Some(next) = self.after(byte) else { return false };
            *self = next;
            piece = rest;
        }
        let Err(error) = core::str::from_utf8(piece) else { return true };
        if error.error_len().is_some() {
            return false;
        }
        piece[error.valid_up_to()..].iter().all(|&byte| match self.after(byte) {
            Some(next) => {
                *self = next;
                true
            }
            None => false,
        })
    }

    fn after(self, byte: u8) -> Option<Self> {
        let (allowed, next) = match self {
            Self::Whole => return Self::beginning(byte),
            Self::One => (0x80..=0xBF, Self::Whole),
            Self::Two => (0x80..=0xBF, Self::One),
            Self::Three => (0x80..=0xBF, Self::Two),
            Self::TwoAfterE0 => (0xA0..=0xBF, Self::One),
            Self::TwoAfterEd => (0x80..=0x9F, Self::One),
            Self::ThreeAfterF0 => (0x90..=0xBF, Self::Two),
            Self::ThreeAfterF4 => (0x80..=0x8F, Self::Two),
        };
        allowed.contains(&byte).then_some(next)
    }

    fn beginning(byte: u8) -> Option<Self> {
        Some(match byte {
            0x00..=0x7F => Self::Whole,
            0xC2..=0xDF => Self::One,
            0xE0 => Self::TwoAfterE0,
            0xED => Self::TwoAfterEd,
            0xE1..=0xEF => Self::Two,
            0xF0 => Self::ThreeAfterF0,
            0xF4 => Self::ThreeAfterF4,
            0xF1..=0xF3 => Self::Three,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether `bytes` may begin a valid text, and whether they are one.
    fn judged(bytes: &[u8]) -> (bool, bool) {
        match core::str::from_utf8(bytes) {
            Ok(_) => (true, true),
            Err(error) => (error.error_len().is_none(), false),
        }
    }

    #[test]
    fn every_sequence_of_two_bytes_is_judged_as_the_standard_library_does_a_byte_at_a_time() {
        for pair in 0..=u16::MAX {
            let bytes = pair.to_be_bytes();
            let mut utf8 = Utf8::default();
            let taken = bytes.iter().all(|byte| utf8.take(core::slice::from_ref(byte)));
            assert_eq!((taken, taken && utf8 == Utf8::Whole), judged(&bytes), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn text_in_any_pieces_is_judged_as_the_standard_library_judges_it_whole(
            parts in proptest::collection::vec(
                prop_oneof![any::<char>().prop_map(|c| c.to_string().into_bytes()), proptest::collection::vec(any::<u8>(), 0..3)],
                0..12,
            ),
            cuts in proptest::collection::vec(1usize..7, 1..12),
        ) {
            let bytes = parts.concat();
            let (mut utf8, mut rest, mut taken) = (Utf8::default(), &bytes[..], true);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || !taken {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                taken = utf8.take(piece);
                let so_far = &bytes[..bytes.len() - after.len()];
                prop_assert_eq!(taken, judged(so_far).0);
                rest = after;
            }
            prop_assert_eq!(taken && utf8 == Utf8::Whole, judged(&bytes).1);
        }
    }
}
