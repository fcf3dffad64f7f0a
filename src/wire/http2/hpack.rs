//! Header fields as HTTP/2 packs them (RFC 7541). The decoder keeps the table that a peer fills, which has a bound of its
//! own; what is sent enters no table, so there is no state on the way out.

use super::huffman;
use std::collections::VecDeque;

/// What a table may take unless both sides agree on more, as nobody here does.
const TABLE_BYTES_MAX: usize = 4_096;
/// What an entry counts beside its name and its value.
const ENTRY_OVERHEAD: usize = 32;

/// The entries that everybody has (Appendix A); the first one is number 1.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What a block may unpack to: a byte that names an entry stands for up to 4 KiB. Requests are refused by a smaller bound.
const UNPACKED_BYTES_MAX: usize = 1 << 20;

/// A block that cannot be read, or is not meant to be: the tables of both ends differ from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A field that may be named by its number.
#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    /// What they count together.
    bytes: usize,
    bytes_max: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES_MAX, name: Vec::new(), value: Vec::new() }
    }

    /// Gives each field of a block to `each`.
    pub(super) fn decode(&mut self, block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Unreadable> {
        let mut rest = block;
        let (mut has_fields, mut unpacked) = (false, 0);
        while let Some(&first) = rest.first() {
            match first {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    self.load(index, true)?;
                }
                0x40.. => {
                    self.literal(&mut rest, 6)?;
                    self.remember();
                }
                0x20.. if has_fields => return Err(Unreadable),
                0x20.. => {
                    let size = integer(&mut rest, 5)?;
                    self.bytes_max = Some(size).filter(|&size| size <= TABLE_BYTES_MAX).ok_or(Unreadable)?;
                    self.evict(0);
                    continue;
                }
                _ => self.literal(&mut rest, 4)?,
            }
            has_fields = true;
            unpacked += self.name.len() + self.value.len();
            if unpacked > UNPACKED_BYTES_MAX {
                return Err(Unreadable);
            }
            each(&self.name, &self.value);
        }
        Ok(())
    }

    /// An entry of the tables: its name, and its value if that is wanted.
    fn load(&mut self, index: usize, with_value: bool) -> Result<(), Unreadable> {
        let index = index.checked_sub(1).ok_or(Unreadable)?;
        let (name, value) = match (STATIC.get(index), index.checked_sub(STATIC.len())) {
            (Some((name, value)), _) => (name.as_bytes(), value.as_bytes()),
            (None, Some(index)) => {
                self.entries.get(index).map(|entry| (&*entry.name, &*entry.value)).ok_or(Unreadable)?
            }
            (None, None) => unreachable!("what lies before the end of the static table is in it"),
        };
        self.name.clear();
        self.name.extend_from_slice(name);
        if with_value {
            self.value.clear();
            self.value.extend_from_slice(value);
        }
        Ok(())
    }

    /// A field of which at least the value is spelled out; its first byte's last `bits` say where the name is.
    fn literal(&mut self, rest: &mut &[u8], bits: u32) -> Result<(), Unreadable> {
        match integer(rest, bits)? {
            0 => string(rest, &mut self.name)?,
            index => self.load(index, false)?,
        }
        string(rest, &mut self.value)
    }

    fn remember(&mut self) {
        let entry = Entry { name: self.name.as_slice().into(), value: self.value.as_slice().into() };
        let size = entry.size();
        self.evict(size);
        // One that is larger than the table empties it, and that is all.
        if size <= self.bytes_max {
            self.entries.push_front(entry);
            self.bytes += size;
        }
    }

    /// Makes room for an entry of this size.
    fn evict(&mut self, size: usize) {
        while self.bytes + size > self.bytes_max
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.size();
        }
    }
}

/// A number whose first bits are the last `bits` of the first byte (§5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize, Unreadable> {
    let (&first, mut bytes) = rest.split_first().ok_or(Unreadable)?;
    let all = (1 << bits) - 1;
    let mut value = usize::from(first & all);
    if value == usize::from(all) {
        let mut shift = 0;
        loop {
            let (&byte, left) = bytes.split_first().ok_or(Unreadable)?;
            // Four more bytes reach beyond anything that may be said here.
            if shift > 21 {
                return Err(Unreadable);
            }
            value += usize::from(byte & 0x7f) << shift;
            (bytes, shift) = (left, shift + 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = bytes;
    Ok(value)
}

/// A string, plain or in Huffman's code (§5.2).
fn string(rest: &mut &[u8], into: &mut Vec<u8>) -> Result<(), Unreadable> {
    let is_packed = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (bytes, left) = rest.split_at_checked(length).ok_or(Unreadable)?;
    *rest = left;
    into.clear();
    if !is_packed {
        into.extend_from_slice(bytes);
        return Ok(());
    }
    huffman::decode(bytes, into).then_some(()).ok_or(Unreadable)
}

/// Appends that what follows uses no table: of size nothing, which every peer allows (§6.3).
pub(super) fn put_empty_table(out: &mut Vec<u8>) {
    put_integer(0, 5, 0x20, out);
}

/// Appends a status.
pub(super) fn put_status(status: u16, out: &mut Vec<u8>) {
    let text = status.to_string();
    match STATIC.iter().position(|&(name, value)| name == ":status" && value == text) {
        Some(place) => put_integer(place + 1, 7, 0x80, out),
        None => put_field(b":status", text.as_bytes(), out),
    }
}

/// Appends a field, spelled out; its name is lowercase.
pub(super) fn put_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    match STATIC.iter().position(|(known, _)| known.as_bytes() == name) {
        Some(place) => put_integer(place + 1, 4, 0, out),
        None => {
            out.push(0);
            put_integer(name.len(), 7, 0, out);
            out.extend_from_slice(name);
        }
    }
    put_integer(value.len(), 7, 0, out);
    out.extend_from_slice(value);
}

fn put_integer(mut value: usize, bits: u32, mark: u8, out: &mut Vec<u8>) {
    let all = (1 << bits) - 1;
    if value < usize::from(all) {
        out.push(mark | value as u8);
        return;
    }
    out.push(mark | all);
    value -= usize::from(all);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Unreadable> {
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| {
            fields.push(format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        })?;
        Ok(fields)
    }

    /// Appendix C.4: three requests on one connection, in Huffman's code.
    #[test]
    fn requests_of_the_examples_are_read() {
        let mut decoder = Decoder::new();
        let first =
            [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let of_all = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(read(&mut decoder, &first).expect("readable"), of_all);
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(
            read(&mut decoder, &second).expect("readable"),
            [&of_all[..], &["cache-control: no-cache"]].concat()
        );
        let third = [
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25, 0xa8, 0x49,
            0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ];
        let expected = [
            ":method: GET",
            ":scheme: https",
            ":path: /index.html",
            ":authority: www.example.com",
            "custom-key: custom-value",
        ];
        assert_eq!(read(&mut decoder, &third).expect("readable"), expected);
        assert_eq!(decoder.bytes, 164);
    }

    #[test]
    fn the_oldest_entries_make_room_and_one_that_is_too_large_empties_the_table() {
        let mut decoder = Decoder::new();
        let entry = |name: &[u8], length: usize| {
            let mut block = vec![0x40];
            put_integer(name.len(), 7, 0, &mut block);
            block.extend_from_slice(name);
            put_integer(length, 7, 0, &mut block);
            block.resize(block.len() + length, b'x');
            block
        };
        for name in [b"a", b"b", b"c"] {
            read(&mut decoder, &entry(name, 2_000)).expect("readable");
        }
        assert_eq!((decoder.entries.len(), decoder.bytes), (2, 2 * 2_033));
        assert!(read(&mut decoder, &[0xbe]).is_ok_and(|fields| fields[0].starts_with("c: ")));
        assert!(read(&mut decoder, &[0xbf]).is_ok_and(|fields| fields[0].starts_with("b: ")));
        assert_eq!(read(&mut decoder, &[0xc0]), Err(Unreadable), "the first is gone");
        read(&mut decoder, &entry(b"d", 5_000)).expect("readable");
        assert_eq!((decoder.entries.len(), decoder.bytes), (0, 0));
    }

    #[test]
    fn a_table_becomes_as_small_as_its_peer_says_and_no_larger_than_agreed() {
        let mut decoder = Decoder::new();
        read(&mut decoder, &[0x40, 1, b'a', 1, b'b']).expect("readable");
        assert_eq!(read(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f, 0x82]), Ok(vec![":method: GET".to_owned()]));
        assert_eq!((decoder.entries.len(), decoder.bytes_max), (0, 4_096));
        assert_eq!(read(&mut decoder, &[0x3f, 0xe2, 0x1f]), Err(Unreadable), "4,097 bytes");
        assert_eq!(read(&mut decoder, &[0x82, 0x20]), Err(Unreadable), "a change of size behind a field");
    }

    #[test]
    fn numbers_take_as_many_bytes_as_they_need_and_not_without_end() {
        for (value, bits) in
            [(0, 5), (10, 5), (30, 5), (31, 5), (1_337, 5), (127, 7), (128, 7), (16_383, 4), (1 << 20, 4)]
        {
            let mut bytes = Vec::new();
            put_integer(value, bits, 0, &mut bytes);
            bytes.push(0xaa);
            let mut rest = &bytes[..];
            assert_eq!(integer(&mut rest, bits), Ok(value));
            assert_eq!(rest, [0xaa]);
            assert_eq!(integer(&mut &bytes[..bytes.len() - 2], bits), Err(Unreadable), "its end is missing");
        }
        assert_eq!(integer(&mut &[0x1f, 0x9a, 0x0a][..], 5), Ok(1_337));
        assert_eq!(integer(&mut &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0][..], 7), Err(Unreadable));
    }

    #[test]
    fn blocks_that_are_cut_or_name_nothing_cannot_be_read() {
        for block in [&[0x80][..], &[0xbe], &[0x40], &[0x40, 3, b'a'], &[0, 1, b'a'], &[0, 1, b'a', 0x81, 0], &[0x7f]] {
            assert_eq!(read(&mut Decoder::new(), block), Err(Unreadable), "{block:x?}");
        }
    }

    #[test]
    fn a_block_that_unpacks_to_a_thousand_times_its_size_is_not_read() {
        let mut decoder = Decoder::new();
        read(&mut decoder, &[&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4_000]].concat()).expect("readable");
        assert_eq!(read(&mut decoder, &[0xbe; 200]).map(|fields| fields.len()), Ok(200));
        assert_eq!(read(&mut decoder, &[0xbe; 300]), Err(Unreadable));
    }

    #[test]
    fn what_is_put_is_read_back() {
        let mut block = Vec::new();
        put_status(200, &mut block);
        put_status(431, &mut block);
        put_field(b"content-type", b"application/grpc", &mut block);
        put_field(b"grpc-status", &[b'7'; 300], &mut block);
        let fields = read(&mut Decoder::new(), &block).expect("readable");
        assert_eq!(fields[..3], [":status: 200", ":status: 431", "content-type: application/grpc"]);
        assert_eq!(fields[3].len(), "grpc-status: ".len() + 300);
        assert_eq!(block[0], 0x88);
    }
}
