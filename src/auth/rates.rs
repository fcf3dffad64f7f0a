//! A table of token buckets and weights of a fixed size.

use crate::base::bucket::Bucket;
use crate::base::clock::Now;
use crate::limits::{OFFENCE_HALF_LIFE, RATE_WAYS};

/// A weight that halves each `OFFENCE_HALF_LIFE` in which nothing is added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weight {
    value: f32,
    at_s: u32,
}

impl Weight {
    /// What it is by now.
    pub fn at(self, now: Now) -> f32 {
        let passed = seconds(now).saturating_sub(self.at_s);
        if passed == 0 { self.value } else { self.value * (-(passed as f32) / OFFENCE_HALF_LIFE.as_secs_f32()).exp2() }
    }

    /// Adds to it; what it is then.
    pub fn add(&mut self, more: f32, now: Now) -> f32 {
        *self = Self { value: self.at(now) + more, at_s: seconds(now) };
        self.value
    }
}

fn seconds(now: Now) -> u32 {
    u32::try_from(now.monotonic_ms / 1_000).unwrap_or(u32::MAX)
}

/// What a [`Table`] knows of somebody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// The hash of who it is; 0: nobody.
    key: u64,
    /// Its bucket.
    pub bucket: Bucket,
    /// How much has been seen of it lately.
    pub weight: Weight,
}

const _: () = assert!(size_of::<Entry>() == 24);

/// Entries by hash, at most as many as there is room for; memory is taken as they come. A newcomer displaces the lightest
/// of the few that it could stand with: of a million sources that were seen once each, those seen often stay. Whoever
/// was displaced begins anew with a full bucket.
#[derive(Debug)]
pub struct Table {
    /// A power of two.
    sets: Vec<Option<Box<[Entry; RATE_WAYS]>>>,
    displaced: u64,
}

impl Table {
    /// Room for so many, a power of two and at least `RATE_WAYS`.
    pub fn new(entries: usize) -> Self {
        assert!(entries.is_power_of_two() && entries >= RATE_WAYS, "sets are found by bits of the hash");
        Self { sets: vec![None; entries / RATE_WAYS], displaced: 0 }
    }

    /// The entry of whoever hashes to `key`, by a hash that nobody outside can foresee.
    pub fn entry(&mut self, key: u64, now: Now) -> &mut Entry {
        let key = key.max(1);
        let number = key as usize & (self.sets.len() - 1);
        let set = self.sets[number].get_or_insert_default();
        let place = set.iter().position(|entry| entry.key == key || entry.key == 0).unwrap_or_else(|| {
            let weigh = |entry: &Entry| entry.weight.at(now);
            let lightest = (0..RATE_WAYS).min_by(|&one, &other| weigh(&set[one]).total_cmp(&weigh(&set[other])));
            let lightest = lightest.expect("a set has ways");
            self.displaced += 1;
            set[lightest] = Entry::default();
            lightest
        });
        set[place].key = key;
        &mut set[place]
    }

    /// How many were displaced since the start.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bucket::Rate;
    use crate::base::hash::KeyedHash;

    fn at(ms: u64) -> Now {
        Now { monotonic_ms: ms, wall_ms: 0 }
    }

    #[test]
    fn a_weight_halves_with_every_half_life() {
        let mut weight = Weight::default();
        assert_eq!(weight.add(8.0, at(1_000)), 8.0);
        assert_eq!(weight.at(at(61_000)), 4.0);
        assert_eq!(weight.add(1.0, at(121_000)), 3.0);
        assert!(weight.at(at(u64::MAX)) < 0.001);
    }

    /// A million sources that are seen once each, and one that floods among them.
    #[test]
    fn a_million_sources_take_no_more_memory_and_do_not_displace_one_that_floods() {
        const FLOOD: Rate = Rate { per_second: 1_000, burst_seconds: 10 };
        let hash = KeyedHash::new(7);
        let mut table = Table::new(1 << 12);
        let (mut passed, mut refused) = (0u32, 0u32);
        for n in 0..1_000_000u32 {
            let now = at(u64::from(n) / 1_000);
            let source = table.entry(hash.of(&n), now);
            source.weight.add(1.0, now);
            assert_eq!(source.bucket.take(FLOOD, 1, now), Ok(()), "who comes once is let in");
            if n % 10 == 0 {
                let flooding = table.entry(hash.of("floods"), now);
                flooding.weight.add(1.0, now);
                match flooding.bucket.take(FLOOD, 1, now) {
                    Ok(()) => passed += 1,
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(
            table.sets.len() * RATE_WAYS == 1 << 12
                && size_of_val(table.sets[0].as_ref().expect("used").as_ref()) == 24 * 8
        );
        assert!(table.displaced() > 900_000, "{}", table.displaced());
        assert!((10_000..=11_100).contains(&passed) && refused > 88_000, "{passed} passed, {refused} refused");
    }
}
