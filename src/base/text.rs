//! Text that is written once and kept for long: in place when it is short, so that it costs no allocation.

use core::fmt;
use core::ops::Deref;

/// Bytes that lie in place: as many as fit where the pointer to others would be, and one word.
const IN_PLACE_BYTES: usize = 22;

/// A text of 24 bytes, or those and an allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct ShortText(Kept);

const _: () = assert!(size_of::<ShortText>() == 24);

#[derive(Clone, PartialEq, Eq)]
enum Kept {
    /// The first `len` bytes are whole characters; the others are 0.
    InPlace {
        len: u8,
        bytes: [u8; IN_PLACE_BYTES],
    },
    Apart(Box<str>),
}

impl From<&str> for ShortText {
    fn from(text: &str) -> Self {
        let mut bytes = [0; IN_PLACE_BYTES];
        Self(match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text.as_bytes());
                Kept::InPlace { len, bytes }
            }
            _ => Kept::Apart(text.into()),
        })
    }
}

impl ShortText {
    /// Its bytes, for those who compare them: to read it as text in place, it is looked through.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kept::InPlace { len, bytes } => &bytes[..usize::from(*len)],
            Kept::Apart(text) => text.as_bytes(),
        }
    }
}

impl Deref for ShortText {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match &self.0 {
            Kept::InPlace { len, bytes } => {
                core::str::from_utf8(&bytes[..usize::from(*len)]).expect("nothing but `from` makes it, of a text")
            }
            Kept::Apart(text) => text,
        }
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_whether_it_fits_in_place_or_not() {
        let long = "ä".repeat(40);
        for end in (0..=long.len()).filter(|&end| long.is_char_boundary(end)) {
            let text = ShortText::from(&long[..end]);
            assert_eq!(&*text, &long[..end]);
            assert_eq!(text.as_bytes(), &long.as_bytes()[..end]);
            assert_eq!(matches!(text.0, Kept::InPlace { .. }), end <= IN_PLACE_BYTES);
        }
        assert_eq!(format!("{:?}", ShortText::from("a\"b")), r#""a\"b""#);
    }
}
