//! Event ids: the client's own position, given back as `Last-Event-ID`.

use crate::base::ids::{Epoch, Offset, Seq};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io::Write;

/// Characters of a [`Token`]; they are always as many, so that a copy of a block can be made another connection's.
pub const TOKEN_BYTES: usize = 43;
const RAW_BYTES: usize = 32;

/// A position over several streams. Opaque to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The life of the log whose numbers these are.
    pub log: Epoch,
    /// Up to where topics and everyone were served.
    pub topics: Seq,
    /// The inbox's life, and up to where it was served; `Epoch(0)`: it was not asked for, or has never had a message.
    pub inbox: (Epoch, Offset),
}

/// What an id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventId {
    /// `EPOCH:OFFSET` of the one stream that was asked for; both 0 while there is none.
    One(Epoch, Offset),
    /// Of several.
    Several(Token),
}

impl Token {
    /// Writes it; `out` has [`TOKEN_BYTES`].
    pub fn write(&self, out: &mut [u8]) {
        let mut raw = [0; RAW_BYTES];
        for (chunk, number) in raw.chunks_exact_mut(8).zip([self.log.0, self.topics.0, self.inbox.0.0, self.inbox.1.0])
        {
            chunk.copy_from_slice(&number.to_be_bytes());
        }
        let written = URL_SAFE_NO_PAD.encode_slice(raw, out).expect("the caller has made room");
        assert_eq!(written, TOKEN_BYTES, "32 bytes are 43 characters");
    }

    fn parse(text: &str) -> Option<Self> {
        // The decoder asks for as much room as the characters could hold.
        let mut raw = [0; RAW_BYTES + 1];
        if text.len() != TOKEN_BYTES || URL_SAFE_NO_PAD.decode_slice(text, &mut raw).ok()? != RAW_BYTES {
            return None;
        }
        let mut numbers = raw[..RAW_BYTES].chunks_exact(8).map(|chunk| {
            let bytes: [u8; 8] = chunk.try_into().expect("the chunks have eight bytes");
            u64::from_be_bytes(bytes)
        });
        let mut next = || numbers.next().expect("there are four");
        Some(Self { log: Epoch(next()), topics: Seq(next()), inbox: (Epoch(next()), Offset(next())) })
    }
}

impl EventId {
    /// Reads what a client gives back; none: we never wrote that.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((epoch, offset)) = text.split_once(':') else { return Token::parse(text).map(Self::Several) };
        if !offset.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let (epoch, offset) = (Epoch::parse(epoch)?, offset.parse().ok()?);
        // No stream has the epoch 0: it stands for the place before a stream begins.
        (epoch != Epoch(0) || offset == 0).then_some(Self::One(epoch, Offset(offset)))
    }

    /// Appends it as text.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::One(epoch, offset) => write!(out, "{:016x}:{offset}", epoch.0).expect("a Vec takes all"),
            Self::Several(token) => {
                let start = out.len();
                out.resize(start + TOKEN_BYTES, 0);
                token.write(&mut out[start..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_streams_id_is_its_epoch_and_offset_as_the_api_says_them() {
        let mut text = Vec::new();
        EventId::One(Epoch(0xabc), Offset(17)).write(&mut text);
        assert_eq!(text, b"0000000000000abc:17");
    }

    #[test]
    fn what_we_never_wrote_is_no_position() {
        let overlong = format!("{:016x}:{}0", 1, u64::MAX);
        for text in ["", ":", "1", "1:2", "0000000000000000:1", "000000000000000g:1", "0000000000000001:", &overlong]
            .into_iter()
            .chain(["0000000000000001:+1", "0000000000000001:-1", "+000000000000001:1", "é:1"])
        {
            assert_eq!(EventId::parse(text), None, "{text:?}");
        }
        for text in ["A".repeat(TOKEN_BYTES - 1), "A".repeat(TOKEN_BYTES + 1), "=".repeat(TOKEN_BYTES)] {
            assert_eq!(EventId::parse(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn ids_are_read_as_they_were_written(numbers in any::<[u64; 4]>(), one in any::<bool>()) {
            let [log, topics, epoch, offset] = numbers;
            let id = if one {
                EventId::One(Epoch(epoch.max(1)), Offset(offset))
            } else {
                EventId::Several(Token { log: Epoch(log), topics: Seq(topics), inbox: (Epoch(epoch), Offset(offset)) })
            };
            let mut text = Vec::new();
            id.write(&mut text);
            prop_assert!(text.iter().all(u8::is_ascii_graphic));
            prop_assert_eq!(EventId::parse(core::str::from_utf8(&text).expect("it is text")), Some(id));
        }

        #[test]
        fn any_text_is_answered_with_a_value(text in ".{0,60}") {
            let _any = EventId::parse(&text);
        }
    }
}
