//! The memory store's records: an ordered set of packed records, one allocation each, because every session that
//! outlives its connection owns at least one and RAM per connection is what the product sells.

use super::{Record, RecordChange};
use crate::limits::RECORD_KEY_BYTES_MAX;
use core::cmp::Ordering;
use core::ops::Bound;
use std::borrow::Borrow;
use std::collections::BTreeSet;

const KEY_LENGTH_BYTES: usize = 2;

/// Key length (two bytes), key, value. Compares by key alone.
struct Packed(Box<[u8]>);

impl Packed {
    fn new(key: &[u8], value: &[u8]) -> Self {
        assert!(key.len() <= RECORD_KEY_BYTES_MAX, "the session layer makes keys of bounded parts");
        let length = u16::try_from(key.len()).expect("asserted above");
        let mut bytes = Vec::with_capacity(KEY_LENGTH_BYTES + key.len() + value.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let length = usize::from(u16::from_le_bytes([self.0[0], self.0[1]]));
        self.0[KEY_LENGTH_BYTES..].split_at(length)
    }

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

impl Borrow<[u8]> for Packed {
    fn borrow(&self) -> &[u8] {
        self.split().0
    }
}

impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        self.split().0 == other.split().0
    }
}

impl Eq for Packed {}

impl PartialOrd for Packed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Packed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.split().0.cmp(other.split().0)
    }
}

/// All records.
#[derive(Default)]
pub(super) struct Records {
    set: BTreeSet<Packed>,
    bytes: u64,
}

impl Records {
    pub(super) fn apply(&mut self, change: &RecordChange) {
        let before = match &change.value {
            Some(value) => {
                let packed = Packed::new(&change.key, value);
                self.bytes += packed.bytes();
                self.set.replace(packed)
            }
            None => self.set.take(&*change.key),
        };
        self.bytes -= before.map_or(0, |packed| packed.bytes());
    }

    pub(super) fn read(&self, prefix: &[u8], after: &[u8], limit: usize) -> Vec<Record> {
        // `after` may lie before the prefix (it is empty for the first page) or behind it; the later bound decides.
        let from = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        // The empty key is nobody's, so the first page of the empty prefix excludes nothing.
        self.set
            .range::<[u8], _>((from, Bound::Unbounded))
            .map(Packed::split)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }

    pub(super) fn count(&self) -> u64 {
        self.set.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(records: &mut Records, key: &[u8], value: &[u8]) {
        records.apply(&RecordChange { key: key.into(), value: Some(value.into()) });
    }

    fn keys(records: &Records, prefix: &[u8], after: &[u8], limit: usize) -> Vec<Vec<u8>> {
        records.read(prefix, after, limit).into_iter().map(|(key, _)| key.into_vec()).collect()
    }

    #[test]
    fn pages_of_a_prefix_follow_each_other_and_end_at_the_prefix() {
        let mut records = Records::default();
        for key in [&b"a"[..], b"s/1", b"s/2", b"s/3", b"t", b"s"] {
            put(&mut records, key, b"v");
        }
        assert_eq!(keys(&records, b"s/", b"", 2), [b"s/1", b"s/2"]);
        assert_eq!(keys(&records, b"s/", b"s/2", 2), [b"s/3"]);
        assert!(keys(&records, b"s/", b"s/3", 2).is_empty());
        assert!(keys(&records, b"s/", b"z", 2).is_empty());
        assert_eq!(keys(&records, b"", b"", 10).len(), 6);
        assert_eq!(keys(&records, b"s", b"s", 10), [b"s/1", b"s/2", b"s/3"]);
    }

    #[test]
    fn a_record_is_replaced_and_removed_and_its_bytes_are_counted_once() {
        let mut records = Records::default();
        put(&mut records, b"key", b"first");
        put(&mut records, b"key", b"second");
        assert_eq!((records.count(), records.bytes()), (1, 2 + 3 + 6));
        assert_eq!(records.read(b"", b"", 9), [(b"key"[..].into(), b"second"[..].into())]);
        records.apply(&RecordChange { key: b"key"[..].into(), value: None });
        records.apply(&RecordChange { key: b"key"[..].into(), value: None });
        assert_eq!((records.count(), records.bytes()), (0, 0));
    }

    #[test]
    fn the_longest_key_and_an_empty_value_survive_packing() {
        let mut records = Records::default();
        let key = vec![0xff; RECORD_KEY_BYTES_MAX];
        put(&mut records, &key, b"");
        assert_eq!(records.read(&key, b"", 1), [(key.clone().into_boxed_slice(), b""[..].into())]);
    }
}
