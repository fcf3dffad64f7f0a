//! The data types of MQTT §1.5 read from and written to slices.

use super::error::DecodeError;
use super::text;
use super::varint::{self, Varint};

/// What is left of a packet to read. Every read is bounded by the slice and fails as Malformed beyond it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    left: &'a [u8],
}

const SHORT: DecodeError = DecodeError::Malformed("the packet ends inside a field");

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    #[inline]
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, left) = self.left.split_at_checked(bytes).ok_or(SHORT)?;
        self.left = left;
        Ok(taken)
    }

    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.left)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, left) = self.left.split_first_chunk().ok_or(SHORT)?;
        self.left = left;
        Ok(*taken)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        match varint::peek(self.left) {
            Varint::Known { value, bytes } => {
                self.left = &self.left[bytes..];
                Ok(value)
            }
            Varint::NeedMore => Err(SHORT),
            Varint::Invalid => Err(DecodeError::Malformed("a variable byte integer is not in its shortest form")),
        }
    }

    /// Binary Data, and the raw bytes of a string.
    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let bytes = self.u16()?;
        self.take(usize::from(bytes))
    }

    #[inline]
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        text::check(self.binary()?)
    }

    /// A topic name's text, and whether it is known to have no wildcard.
    #[inline]
    pub fn topic(&mut self) -> Result<(&'a str, bool), DecodeError> {
        text::check_topic(self.binary()?)
    }

    /// A packet ends where its fields end.
    #[inline]
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.left.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes are left after the last field")) }
    }
}

/// Where encoders write: into a slice, or only into a sum, so that lengths and bytes come from the same lines.
pub trait Sink {
    /// Appends `bytes`.
    fn bytes(&mut self, bytes: &[u8]);

    /// One byte.
    #[inline]
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }
    /// Two Byte Integer.
    #[inline]
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }
    /// Four Byte Integer.
    #[inline]
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }
    /// Variable Byte Integer.
    #[inline]
    fn varint(&mut self, value: u32) {
        let (bytes, len) = varint::encode(value);
        self.bytes(&bytes[..len]);
    }
    /// Binary Data. Panics above 65,535 bytes: what kittiwake sends is bounded well below.
    #[inline]
    fn binary(&mut self, value: &[u8]) {
        self.u16(u16::try_from(value.len()).expect("fields on the wire are bounded to 65,535 bytes"));
        self.bytes(value);
    }
    /// UTF-8 Encoded String; the bound is [`Sink::binary`]'s.
    #[inline]
    fn string(&mut self, value: &str) {
        self.binary(value.as_bytes());
    }
}

/// Counts what would be written.
#[derive(Debug, Default)]
pub(super) struct Counter(pub usize);

impl Sink for Counter {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Writes from the start of a slice that was measured before.
#[derive(Debug)]
pub(super) struct Writer<'o> {
    out: &'o mut [u8],
    pub at: usize,
}

impl<'o> Writer<'o> {
    #[inline]
    pub fn new(out: &'o mut [u8]) -> Self {
        Self { out, at: 0 }
    }
}

impl Sink for Writer<'_> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        self.out[self.at..end].copy_from_slice(bytes);
        self.at = end;
    }
}

/// Bytes that `write` writes.
#[inline]
pub(super) fn count(write: impl FnOnce(&mut Counter)) -> u32 {
    let mut counter = Counter::default();
    write(&mut counter);
    u32::try_from(counter.0).expect("packets are bounded far below 4 GiB")
}
