//! Token buckets without timers.
//!
//! A bucket is one number: when it is full again if nobody takes anything. To take moves that away by what flows in
//! meanwhile (the generic cell rate algorithm), so nothing has to run between two takes, and a bucket that nobody has
//! used for a while is the same as a new one.

use crate::base::clock::Now;

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

    /// Takes so much if nothing is owed, and owes what is not there: for takes that may be larger than the bucket.
    ///
    /// # Errors
    /// Something is owed.
    pub fn borrow(&mut self, rate: Rate, amount: u64, now: Now) -> Result<(), Later> {
        match self.wait_ms(rate, now) {
            0 => {
                self.spend(rate, amount, now);
                Ok(())
            }
            ms => Err(Later { ms }),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_take_that_is_larger_than_the_bucket_is_owed() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.borrow(TEN, 120, at(0)), Ok(()), "twelve seconds' worth, two of which were there");
        assert_eq!(bucket.borrow(TEN, 1, at(9_900)), Err(Later { ms: 100 }));
        assert_eq!(bucket.borrow(TEN, 1, at(10_000)), Ok(()));
    }
}
