//! A page of records: entries in the order of their keys, each key without what it shares with the one before it.
//!
//! ```text
//!   shared ┊ rest bytes ┊ value bytes ┊ rest of the key ┊ value        lengths are numbers of 7 bits a byte
//! ```
//! Two records of one session differ in the last byte of their keys, so the second costs little more than its value.
//! The first entry shares nothing, so a page can be read on its own.

/// Bytes above which a page is split. Finding a record reads half a page, an insertion moves half of one: both take
/// less time than a miss of the cache or two.
pub(super) const PAGE_BYTES_MAX: usize = 2_048;
/// Two neighbours share what they hold when one of them is too large, if neither is larger than this afterwards: pages are
/// fuller so than by splitting alone, whatever the order of the keys.
const PAGE_BYTES_SHARED: usize = PAGE_BYTES_MAX * 7 / 8;
/// Below this a page looks for another to be joined with.
const PAGE_BYTES_SPARSE: usize = PAGE_BYTES_MAX / 4;
/// Pages grow by this, so that a full one has little room to spare.
const PAGE_GROWTH_BYTES: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Page {
    bytes: Vec<u8>,
}

/// What a record was before it was replaced or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub value_bytes: usize,
}

/// Where an entry stands.
struct Entry {
    start: usize,
    shared: usize,
    rest: usize,
    value: usize,
    end: usize,
}

/// The place of a key: what stands before it and behind it.
struct Place {
    /// The key before it; empty: none.
    previous: Vec<u8>,
    /// Where it is, or would be.
    start: usize,
    /// Where it ends; `start` when it is not there.
    end: usize,
    before: Option<Before>,
    /// The entry behind it: its key, its value's start, its end.
    next: Option<(Vec<u8>, usize, usize)>,
}

impl Page {
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Option<Before> {
        let place = self.place(key);
        let mut patch = Vec::with_capacity(key.len() + value.len() + 16);
        encode(&mut patch, &place.previous, key, value);
        self.patch(&place, key, patch);
        place.before
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Before> {
        let place = self.place(key);
        place.before?;
        self.patch(&place, &place.previous, Vec::new());
        place.before
    }

    /// Whether a put has made it too large. A single record is never too large.
    pub(super) fn is_over_full(&self) -> bool {
        self.bytes.len() > PAGE_BYTES_MAX && self.entry(0).end < self.bytes.len()
    }

    /// Splits a page that is too large by a put of `key`: the second half, and its first key. Who appends in the order of
    /// keys leaves full pages behind.
    pub(super) fn split(&mut self, key: &[u8]) -> (Box<[u8]>, Page) {
        let (last, last_key) = self.last().expect("it is too large");
        let at = if last_key == key { last } else { self.bytes.len() / 2 };
        self.split_off(at)
    }

    /// Whether neither this page nor the one behind it is as good as full once they share.
    pub(super) fn shares_with(&self, next: &Page) -> bool {
        self.bytes.len() + next.bytes.len() <= 2 * PAGE_BYTES_SHARED
    }

    /// Shares entries with the page behind it, about as many bytes each: that one anew, and its first key.
    pub(super) fn share(&mut self, next: &Page) -> (Box<[u8]>, Page) {
        self.append(next);
        self.split_off(self.bytes.len() / 2)
    }

    /// Splits before the first entry that starts at `from` or behind it, or before the last: what stands there, and its
    /// first key. There are two entries or more.
    fn split_off(&mut self, from: usize) -> (Box<[u8]>, Page) {
        let (mut start, mut first) = (0, Vec::new());
        loop {
            let entry = self.entry(start);
            self.read_key(&entry, &mut first);
            if start > 0 && (start >= from || entry.end == self.bytes.len()) {
                let mut tail = Vec::with_capacity(self.bytes.len() - start + entry.shared + 4);
                encode(&mut tail, &[], &first, &self.bytes[entry.value..entry.end]);
                tail.extend_from_slice(&self.bytes[entry.end..]);
                self.bytes.truncate(start);
                self.bytes.shrink_to_fit();
                return (first.into(), Page { bytes: tail });
            }
            start = entry.end;
        }
    }

    /// Where the last entry starts, and its key.
    fn last(&self) -> Option<(usize, Vec<u8>)> {
        let (mut start, mut last, mut key) = (0, None, Vec::new());
        while start < self.bytes.len() {
            let entry = self.entry(start);
            self.read_key(&entry, &mut key);
            last = Some(start);
            start = entry.end;
        }
        last.map(|last| (last, key))
    }

    /// Whether so little is left that it should be joined with another page.
    pub(super) fn is_sparse(&self) -> bool {
        self.bytes.len() < PAGE_BYTES_SPARSE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the page behind it would fit behind its entries without making it nearly full again.
    pub(super) fn has_room_for(&self, next: &Page) -> bool {
        self.bytes.len() + next.bytes.len() <= PAGE_BYTES_MAX * 3 / 4
    }

    /// Takes over the entries of the page behind it. The first of them shares what it can from now on.
    pub(super) fn append(&mut self, next: &Page) {
        if next.is_empty() {
            return;
        }
        let (_, last) = self.last().unwrap_or_default();
        let entry = next.entry(0);
        self.bytes.reserve_exact(next.bytes.len());
        encode(&mut self.bytes, &last, &next.bytes[entry.rest..entry.value], &next.bytes[entry.value..entry.end]);
        self.bytes.extend_from_slice(&next.bytes[entry.end..]);
    }

    /// Shows keys and values from a key on; false when `show` said that it has seen enough.
    pub(super) fn each_from(&self, from: &[u8], mut show: impl FnMut(&[u8], &[u8]) -> bool) -> bool {
        let (mut key, mut start) = (Vec::new(), 0);
        while start < self.bytes.len() {
            let entry = self.entry(start);
            self.read_key(&entry, &mut key);
            if &*key >= from && !show(&key, &self.bytes[entry.value..entry.end]) {
                return false;
            }
            start = entry.end;
        }
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    fn place(&self, wanted: &[u8]) -> Place {
        let mut place = Place { previous: Vec::new(), start: 0, end: 0, before: None, next: None };
        let mut key = Vec::new();
        while place.end < self.bytes.len() {
            let entry = self.entry(place.end);
            self.read_key(&entry, &mut key);
            if *key > *wanted {
                place.next = Some((key, entry.value, entry.end));
                break;
            }
            place.end = entry.end;
            if *key == *wanted {
                place.before = Some(Before { value_bytes: entry.end - entry.value });
            } else {
                place.start = entry.end;
                place.previous.clone_from(&key);
            }
        }
        place
    }

    /// Puts `patch` in the place of what is there; the entry behind it shares with `previous` from now on.
    fn patch(&mut self, place: &Place, previous: &[u8], mut patch: Vec<u8>) {
        let mut end = place.end;
        if let Some((key, value, next_end)) = &place.next {
            encode(&mut patch, previous, key, &self.bytes[*value..*next_end]);
            end = *next_end;
        }
        let length = self.bytes.len() - (end - place.start) + patch.len();
        if length > self.bytes.capacity() {
            self.bytes.reserve_exact(length.next_multiple_of(PAGE_GROWTH_BYTES) - self.bytes.len());
        }
        self.bytes.splice(place.start..end, patch);
    }

    fn entry(&self, start: usize) -> Entry {
        let mut at = start;
        let [shared, rest_bytes, value_bytes] = core::array::from_fn(|_| {
            let (number, length) = number(&self.bytes[at..]);
            at += length;
            number
        });
        let value = at + rest_bytes;
        Entry { start, shared, rest: at, value, end: value + value_bytes }
    }

    /// Makes the key of the entry before this one into this one's.
    fn read_key(&self, entry: &Entry, key: &mut Vec<u8>) {
        debug_assert!(entry.start > 0 || entry.shared == 0, "the first entry shares nothing");
        key.truncate(entry.shared);
        key.extend_from_slice(&self.bytes[entry.rest..entry.value]);
    }
}

fn encode(into: &mut Vec<u8>, previous: &[u8], key: &[u8], value: &[u8]) {
    let shared = previous.iter().zip(key).take_while(|(a, b)| a == b).count();
    for number in [shared, key.len() - shared, value.len()] {
        put_number(into, number);
    }
    into.extend_from_slice(&key[shared..]);
    into.extend_from_slice(value);
}

fn put_number(into: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// A number and its length. The page wrote it itself.
fn number(bytes: &[u8]) -> (usize, usize) {
    let mut number = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (number, index + 1);
        }
    }
    unreachable!("a page ends with a whole entry")
}
