//! The memory store's records: an ordered map in pages of a few KiB, each one allocation, because every session that
//! outlives its connection owns at least one record and RAM per connection is what the product sells.

mod page;

use super::{Record, RecordChange};
use crate::limits::RECORD_KEY_BYTES_MAX;
use core::ops::Bound;
use page::{Before, Page};
use std::collections::BTreeMap;

/// All records. A page holds the keys from its name on, up to the next page's name; the first one's is empty and it is
/// always there, so every key has its page.
pub(super) struct Records {
    pages: BTreeMap<Box<[u8]>, Page>,
    count: u64,
    bytes: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self { pages: BTreeMap::from([(Box::default(), Page::default())]), count: 0, bytes: 0 }
    }
}

impl Records {
    pub(super) fn apply(&mut self, change: &RecordChange) {
        let key = &*change.key;
        assert!(key.len() <= RECORD_KEY_BYTES_MAX, "the session layer makes keys of bounded parts");
        let (name, page) = self
            .pages
            .range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .expect("the first page is always there");
        let before = match &change.value {
            Some(value) => {
                let before = page.put(key, value);
                self.count += 1;
                self.bytes += (key.len() + value.len()) as u64;
                if page.is_over_full() {
                    let name = name.clone();
                    self.make_room(&name, key);
                }
                before
            }
            None => {
                let before = page.remove(key);
                if page.is_sparse() {
                    let name = name.clone();
                    self.thin_out(&name);
                }
                before
            }
        };
        if let Some(Before { value_bytes }) = before {
            self.count -= 1;
            self.bytes -= (key.len() + value_bytes) as u64;
        }
    }

    pub(super) fn read(&self, prefix: &[u8], after: &[u8], limit: usize) -> Vec<Record> {
        // `after` may lie before the prefix (it is empty for the first page) or behind it; the later bound decides.
        let from = if after < prefix { prefix } else { after };
        let (first, _) = self.page_of(from);
        let mut found = Vec::new();
        for (_, page) in self.pages.range::<[u8], _>((Bound::Included(first), Bound::Unbounded)) {
            let goes_on = page.each_from(from, |key, value| {
                if found.len() >= limit || !key.starts_with(prefix) {
                    return false;
                }
                // The empty key is nobody's, so the first page of the empty prefix excludes nothing.
                if key != after {
                    found.push((key.into(), value.into()));
                }
                true
            });
            if !goes_on {
                break;
            }
        }
        found
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Box<[u8]>> {
        let (_, page) = self.page_of(key);
        let mut found = None;
        page.each_from(key, |first, value| {
            found = (first == key).then(|| value.into());
            false
        });
        found
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Of keys and values.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The page in which a key is or would be, and its name.
    fn page_of(&self, key: &[u8]) -> (&[u8], &Page) {
        let mut before = self.pages.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        let (name, page) = before.next_back().expect("the first page is always there");
        (name, page)
    }

    /// Gives entries of a page that a put of `key` has made too large to the page before it or the one behind it; if those
    /// are as good as full, to a new one.
    fn make_room(&mut self, name: &[u8], key: &[u8]) {
        let before = self.pages.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(name))).next_back();
        let mut from = self.pages.range::<[u8], _>((Bound::Included(name), Bound::Unbounded));
        let page = from.next();
        let shares = [before.zip(page), page.zip(from.next())]
            .into_iter()
            .flatten()
            .find(|((_, front), (_, back))| front.shares_with(back))
            .map(|((front, _), (back, _))| (front.clone(), back.clone()));
        let (first, tail) = match shares {
            Some((front, back)) => {
                let tail = self.pages.remove(&back).expect("it was just found");
                self.pages.get_mut(&front).expect("it was just found").share(&tail)
            }
            None => self.pages.get_mut(name).expect("it was just put into").split(key),
        };
        self.pages.insert(first, tail);
    }

    /// Joins a page that has become small with the next one if both fit into one; an empty one goes.
    fn thin_out(&mut self, name: &[u8]) {
        let mut from = self.pages.range::<[u8], _>((Bound::Included(name), Bound::Unbounded));
        let Some((_, page)) = from.next() else { return };
        let next = from.next().filter(|(_, next)| page.has_room_for(next)).map(|(name, _)| name.clone());
        if let Some(next) = next {
            let tail = self.pages.remove(&next).expect("it was just found");
            self.pages.get_mut(name).expect("it was just found").append(&tail);
        } else if page.is_empty() && !name.is_empty() {
            self.pages.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::page::PAGE_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;

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
        assert_eq!((records.count(), records.bytes()), (1, 3 + 6));
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

    #[test]
    fn two_records_of_a_session_cost_little_more_than_what_differs() {
        let mut records = Records::default();
        for number in 0..1_000 {
            let name = format!("device-{number:013}");
            for kind in [0, 1] {
                let key = [b"s\0\0", name.as_bytes(), b"\0", name.as_bytes(), b"\0", &[kind]].concat();
                put(&mut records, &key, &[7; 16]);
            }
        }
        let held: usize = records.pages.iter().map(|(name, page)| name.len() + page.capacity() + 64).sum();
        assert!(held < 1_000 * (46 + 2 * 16 + 20), "1,000 sessions cost {held} bytes");
    }

    /// Whether sessions come in the order of their names, in about that order as parallel connections do, or in none.
    #[test]
    fn pages_are_well_filled_whatever_the_order_of_the_keys() {
        const COUNT: u64 = 18_000;
        // A bijection of the numbers below 2^16 and more: multiplication by an odd number.
        let scattered = |number: u64| (number * 40_503) % 65_536;
        let nearly = |number: u64| number / 64 * 64 + (number % 64 * 29) % 64;
        let orders: [(&str, &dyn Fn(u64) -> u64); 3] =
            [("in order", &|number| number), ("nearly in order", &nearly), ("in no order", &scattered)];
        for (order, place) in orders {
            let mut records = Records::default();
            for number in 0..COUNT {
                let name = format!("k{:019}", place(number));
                put(&mut records, &[b"s\0\0", name.as_bytes(), b"\0"].concat(), &[7; 26]);
            }
            let (pages, filled) = (records.pages.len(), records.pages.values().map(Page::len).sum::<usize>());
            assert!(filled > pages * PAGE_BYTES_MAX * 3 / 4, "{order}: {pages} pages hold {filled} bytes");
        }
    }

    proptest! {
        #[test]
        fn it_behaves_like_an_ordered_map(
            changes in prop::collection::vec((0_u16..400, prop::option::of(0_usize..300)), 1..600),
            page in 1_usize..40,
        ) {
            let (mut records, mut model) = (Records::default(), BTreeMap::new());
            for (number, value) in changes {
                let key = format!("user-{:03}/device-{}", number / 3, number % 3).into_bytes().into_boxed_slice();
                let value = value.map(|bytes| vec![number as u8; bytes].into_boxed_slice());
                match &value {
                    Some(value) => drop(model.insert(key.clone(), value.clone())),
                    None => drop(model.remove(&key)),
                }
                records.apply(&RecordChange { key, value });
            }
            let bytes: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
            prop_assert_eq!((records.count(), records.bytes()), (model.len() as u64, bytes as u64));
            for number in 0..400 {
                let key = format!("user-{:03}/device-{}", number / 3, number % 3);
                prop_assert_eq!(records.find(key.as_bytes()), model.get(key.as_bytes()).cloned());
                prop_assert_eq!(records.find(&key.as_bytes()[..9]), None, "a longer key begins with it");
            }
            let mut seen: Vec<Record> = Vec::new();
            loop {
                let after = seen.last().map_or(Box::default(), |(key, _)| key.clone());
                let more = records.read(b"user", &after, page);
                let is_last = more.len() < page;
                seen.extend(more);
                if is_last { break }
            }
            prop_assert_eq!(seen, model.into_iter().collect::<Vec<_>>());
        }
    }
}
