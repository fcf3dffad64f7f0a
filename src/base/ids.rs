//! Newtypes for everything that is counted, numbered or pointed at.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One core's event loop thread, from 0.
    ShardId(u16)
);
number!(
    /// A tenant: the index of its entry in the configuration.
    AppId(u16)
);
number!(
    /// Position in a stream, from 1, without gaps within an epoch. 0 is "before the first".
    Offset(u64)
);
number!(
    /// The log's own commit number over all streams, from 1. 0 is "before the first".
    Seq(u64)
);
number!(
    /// Identity of a stream's life: 64 random bits; offsets compare only within one.
    Epoch(u64)
);

impl Epoch {
    /// Reads its text, 16 hexadecimal digits; none: it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_one = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

/// Names a push for ever: a UUID, drawn by who takes it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PushId(pub u128);

impl fmt::Display for PushId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each answer to a push has one, so it is not left to the formatter of numbers.
        let (mut text, mut at) = ([b'-'; 36], 0);
        for (index, byte) in self.0.to_be_bytes().into_iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                at += 1;
            }
            for nibble in [byte >> 4, byte & 15] {
                text[at] = b"0123456789abcdef"[usize::from(nibble)];
                at += 1;
            }
        }
        f.write_str(core::str::from_utf8(&text).expect("it is ASCII"))
    }
}

/// A connection of one shard: an index that is re-used and a generation that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Index into the shard's connection table.
    pub index: u32,
    /// Generation of that entry, 24 bits.
    pub generation: u32,
}

/// A session of one shard: as [`ConnectionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Index into the shard's session slab.
    pub index: u32,
    /// Generation of that entry.
    pub generation: u32,
}

/// Quality of service of a message or a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// From the wire's two bits; 3 is nobody's QoS.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_id_is_written_as_a_uuid() {
        let id = PushId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0011-223344556677");
        assert_eq!(PushId(1).to_string(), "00000000-0000-0000-0000-000000000001");
    }
}
