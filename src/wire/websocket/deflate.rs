//! Messages packed with DEFLATE, each by itself (RFC 7692 §7.2): neither side keeps a window from one to the next, so one
//! packer and one unpacker serve all connections of a thread, and a message is packed once for all who get it.

use super::frame::{HEAD_BYTES_MAX, Opcode, encode_packed_head};
use crate::base::transform::Unpacked;
use crate::limits::DEFLATE_LEVEL;
use core::fmt;
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::core::{CompressionStrategy, CompressorOxide, TDEFLFlush, TDEFLStatus, compress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Largest window, in bits: all that DEFLATE can refer back to.
pub const WINDOW_BITS_MAX: u8 = 15;
/// Smallest window that can be agreed to (§7.1.2.1).
pub const WINDOW_BITS_MIN: u8 = 8;

/// What ends a packed message and is left out of it (§7.2.1): an empty block, whose first bits are in the byte before.
const LEFT_OUT: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// The same, and behind it an empty block that is the last one: who reads that has read whole blocks up to it.
const END: [u8; 9] = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];

/// Whether a message can be packed for a peer whose window is so small: nothing in it lies further back than its length.
pub fn fits_window(message_bytes: usize, window_bits: u8) -> bool {
    window_bits >= WINDOW_BITS_MAX || message_bytes <= 1 << window_bits
}

/// Unpacks messages. Its tables, some 11 KB, are taken when the first one comes.
#[derive(Default)]
pub struct Inflater {
    tables: Option<Box<DecompressorOxide>>,
    /// What it has done.
    pub totals: Inflated,
}

/// What an [`Inflater`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inflated {
    /// Messages that were unpacked.
    pub messages: u64,
    /// Their bytes as they came.
    pub bytes_packed: u64,
    /// Their bytes as they were meant.
    pub bytes: u64,
    /// Messages that were longer than is taken.
    pub too_long: u64,
    /// Messages that were none.
    pub broken: u64,
}

impl Inflater {
    /// Unpacks a whole message into the start of `into`, which it never grows beyond. One that fills `into` to its end is
    /// told as [`Unpacked::NoRoom`]: whether more would follow is not known then.
    pub fn inflate(&mut self, packed: &[u8], into: &mut [u8]) -> Unpacked {
        let tables = self.tables.get_or_insert_default();
        tables.init();
        let mut written = 0;
        for (mut part, is_end) in [(packed, false), (&END[..], true)] {
            while !part.is_empty() {
                let more = if is_end { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
                let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | more;
                let (status, used, count) = decompress(tables, part, into, written, flags);
                part = &part[used..];
                written += count;
                match status {
                    TINFLStatus::NeedsMoreInput if !is_end && part.is_empty() => {}
                    TINFLStatus::HasMoreOutput => return Unpacked::NoRoom,
                    // Also where the message's own last block said that it is: some leave out the byte behind it.
                    TINFLStatus::Done if part.is_empty() => {
                        self.totals.messages += 1;
                        self.totals.bytes_packed += packed.len() as u64;
                        self.totals.bytes += written as u64;
                        return Unpacked::Whole(written);
                    }
                    // A block says that it is the last one; in a message others may follow it (§7.2.1), at the next whole
                    // byte. All that was written so far stays their window.
                    TINFLStatus::Done => tables.init(),
                    _ => return Unpacked::Broken,
                }
            }
        }
        Unpacked::Broken
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("totals", &self.totals).finish_non_exhaustive()
    }
}

/// Packs messages. Its tables, some 400 KB, are taken when the first one is packed.
#[derive(Default)]
pub struct Deflater {
    tables: Option<Box<CompressorOxide>>,
}

impl Deflater {
    /// Appends a message as one packed frame, if that makes it smaller; else nothing. Whether it did.
    pub fn deflate(&mut self, opcode: Opcode, message: &[u8], into: &mut Vec<u8>) -> bool {
        let start = into.len();
        // Should the packed message be longer than the plain one, it is of no use how much longer; the packer asks for
        // room for all that it may write at its end.
        into.resize(start + HEAD_BYTES_MAX + message.len() + message.len() / 8 + 128, 0);
        let body = start + HEAD_BYTES_MAX;
        let tables = self.tables.get_or_insert_with(new_tables);
        let (status, read, written) = compress(tables, message, &mut into[body..], TDEFLFlush::Full);
        let packed = into[body..body + written].strip_suffix(&LEFT_OUT).map(<[u8]>::len);
        let packed = packed.filter(|_| status == TDEFLStatus::Okay && read == message.len());
        if packed.is_none() {
            // What it has not written yet must not begin the next message.
            tables.reset();
        }
        let mut head = [0; HEAD_BYTES_MAX];
        let Some((packed, head_bytes)) = packed.map(|packed| {
            let head_bytes = encode_packed_head(opcode, packed as u64, &mut head);
            (packed, head_bytes)
        }) else {
            into.truncate(start);
            return false;
        };
        if packed >= message.len() {
            into.truncate(start);
            return false;
        }
        into[start..start + head_bytes].copy_from_slice(&head[..head_bytes]);
        into.copy_within(body..body + packed, start + head_bytes);
        into.truncate(start + head_bytes + packed);
        true
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

fn new_tables() -> Box<CompressorOxide> {
    let strategy = CompressionStrategy::Default;
    Box::new(CompressorOxide::with_params(DataFormat::Raw, DEFLATE_LEVEL, strategy, WINDOW_BITS_MAX))
}

#[cfg(test)]
#[path = "deflate_tests.rs"]
mod tests;
