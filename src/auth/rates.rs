//! Token buckets without timers, and a table of them of a fixed size.
//!
//! A bucket is one number: when it is full again if nobody takes anything. To take moves that away by what flows in
//! meanwhile (the generic cell rate algorithm), so nothing has to run between two takes, and a bucket that nobody has
//! used for a while is the same as a new one.

use crate::base::clock::Now;
use crate::limits::{OFFENCE_HALF_LIFE, RATE_WAYS};

const SECOND_NS: u64 = 1_000_000_000;

/// So much a second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Flows in each second; at least 1.
    pub per_second: u32,
    /// The bucket's size, in seconds of that.
    pub burst_seconds: u32,
}

impl Rate {
    fn ns(self, amount: u64) -> u64 {
        let ns = u128::from(amount) * u128::from(SECOND_NS) / u128::from(self.per_second.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    fn size_ns(self) -> u64 {
        u64::from(self.burst_seconds) * SECOND_NS
    }
}

/// What was asked for is not in the bucket; it is after so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    /// At least 1.
    pub ms: u64,
}

/// See the module. A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes so much, or nothing.
    ///
    /// # Errors
    /// It is not there.
    pub fn take(&mut self, rate: Rate, amount: u64, now: Now) -> Result<(), Later> {
        let after = Self { full_at_ns: self.after(rate, amount, now) };
        match after.wait_ms(rate, now) {
            0 => {
                *self = after;
                Ok(())
            }
            ms => Err(Later { ms }),
        }
    }

    /// Takes so much whether it is there or not, and says for how many milliseconds nothing more should be taken. What
    /// has come already has been paid for by the one who sent it.
    pub fn spend(&mut self, rate: Rate, amount: u64, now: Now) -> u64 {
        self.full_at_ns = self.after(rate, amount, now);
        self.wait_ms(rate, now)
    }

    /// As it was kept by [`Bucket::full_at_ns`].
    pub fn kept(full_at_ns: u64) -> Self {
        Self { full_at_ns }
    }

    /// All there is of it; 0: it is full.
    pub fn full_at_ns(self) -> u64 {
        self.full_at_ns
    }

    /// Puts back what was taken and not used.
    pub fn give_back(&mut self, rate: Rate, amount: u64) {
        self.full_at_ns = self.full_at_ns.saturating_sub(rate.ns(amount));
    }

    fn after(self, rate: Rate, amount: u64, now: Now) -> u64 {
        self.full_at_ns.max(now_ns(now)).saturating_add(rate.ns(amount))
    }

    fn wait_ms(self, rate: Rate, now: Now) -> u64 {
        let empty_from = now_ns(now).saturating_add(rate.size_ns());
        self.full_at_ns.saturating_sub(empty_from).div_ceil(1_000_000)
    }
}

fn now_ns(now: Now) -> u64 {
    now.monotonic_ms.saturating_mul(1_000_000)
}

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
    use crate::base::hash::KeyedHash;

    fn at(ms: u64) -> Now {
        Now { monotonic_ms: ms, wall_ms: 0 }
    }

    const TEN: Rate = Rate { per_second: 10, burst_seconds: 2 };

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = Bucket::default();
        for _ in 0..20 {
            assert_eq!(bucket.take(TEN, 1, at(5_000)), Ok(()));
        }
        assert_eq!(bucket.take(TEN, 1, at(5_000)), Err(Later { ms: 100 }));
        assert_eq!(bucket.take(TEN, 1, at(5_099)), Err(Later { ms: 1 }), "what is refused takes nothing");
        assert_eq!(bucket.take(TEN, 1, at(5_100)), Ok(()));
        let taken = (0..10_000).filter(|ms| bucket.take(TEN, 1, at(5_100 + ms)).is_ok()).count();
        assert_eq!(taken, 99, "ten a second, and the first of them a tenth of a second later");
        let full = (0..100).filter(|_| bucket.take(TEN, 1, at(1_000_000)).is_ok()).count();
        assert_eq!(full, 20, "it holds no more than its burst, however long nobody took anything");
    }

    #[test]
    fn what_was_spent_beyond_the_burst_has_to_be_waited_for() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.spend(TEN, 20, at(0)), 0);
        assert_eq!(bucket.spend(TEN, 5, at(0)), 500);
        assert_eq!(bucket.spend(TEN, 1, at(600)), 0);
        bucket.give_back(TEN, 6);
        assert_eq!(bucket.take(TEN, 6, at(600)), Ok(()));
        assert_eq!(bucket.take(TEN, u64::MAX, at(600)).map_err(|later| later.ms > 1_000_000), Err(true));
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
