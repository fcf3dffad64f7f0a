//! What comes to members that may miss messages, for they read too slowly: in order, none twice, every byte as sent.

use super::content::Words;
use super::ledger::Faults;
use crate::figures::Checked;

/// Messages of a stream that members saw.
#[derive(Debug, Default)]
pub struct Sightings {
    /// Messages that were right.
    pub deliveries: u64,
    /// `skipped` is what they missed.
    pub faults: Faults,
}

impl Sightings {
    /// A payload has come to a member whose next number is `next`, if it misses none.
    #[inline]
    pub fn arrived(&mut self, next: &mut u32, payload: &[u8], again: bool) {
        let made =
            payload.split_first_chunk().filter(|(number, rest)| Words::of(u64::from_be_bytes(**number)).made(rest));
        let Some(number) = made.and_then(|(number, _)| u32::try_from(u64::from_be_bytes(*number)).ok()) else {
            self.faults.foreign += 1;
            return;
        };
        if number < *next {
            if again {
                self.faults.redelivered += 1
            } else {
                self.faults.repeated += 1
            }
            return;
        }
        self.faults.skipped += u64::from(number - *next);
        *next = number + 1;
        self.deliveries += 1;
    }

    /// What came of so many messages to so many members. What they missed is `missing`, whether or not a later one came.
    pub fn checked(&self, messages: u64, members: u32) -> Checked {
        let expected = messages * u64::from(members);
        let Faults { repeated, foreign, redelivered, .. } = self.faults;
        let missing = expected.saturating_sub(self.deliveries);
        Checked { expected, right: self.deliveries, missing, repeated, skipped: 0, foreign, redelivered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(number: u64) -> Vec<u8> {
        let mut payload = vec![0; 40];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        Words::of(number).fill(&mut payload[8..]);
        payload
    }

    #[test]
    fn what_is_missed_is_counted_and_what_comes_twice_or_late_or_changed_is_a_fault() {
        let (mut seen, mut next) = (Sightings::default(), 0);
        seen.arrived(&mut next, &payload(0), false);
        seen.arrived(&mut next, &payload(4), false);
        assert_eq!(seen.checked(5, 1), Checked { expected: 5, right: 2, missing: 3, ..Checked::default() });
        seen.arrived(&mut next, &payload(4), false);
        seen.arrived(&mut next, &payload(2), false);
        seen.arrived(&mut next, &payload(2), true);
        let mut changed = payload(5);
        changed[39] ^= 1;
        seen.arrived(&mut next, &changed, false);
        let found = seen.checked(6, 1);
        assert_eq!((found.repeated, found.redelivered, found.foreign, found.missing), (2, 1, 1, 4));
    }
}
