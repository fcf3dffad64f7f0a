//! What goes to single members: each letter must reach the member it names, once, in order, with every byte as sent.
//!
//! Senders and receivers share nothing but the run's number and start: a letter says itself when it was due.

use super::content::Letter;
use super::ledger::{Faults, LATENCY_US_MAX};
use crate::figures::Checked;
use hdrhistogram::Histogram;
use std::time::Instant;

/// The letters of one run to one squad.
#[derive(Debug)]
pub struct Inboxes {
    run: u32,
    started: Instant,
    /// The sequence number that each member must get next.
    next: Vec<u32>,
    /// Letters that were right.
    pub deliveries: u64,
    pub faults: Faults,
    /// From when a letter was due to its arrival, in microseconds.
    pub latency: Histogram<u64>,
}

impl Inboxes {
    pub fn new(members: u32, run: u32, started: Instant) -> Self {
        let latency = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("three digits of ten minutes can be kept");
        let next = vec![0; members as usize];
        Self { run, started, next, deliveries: 0, faults: Faults::default(), latency }
    }

    /// A letter has come to a member; `again`: marked as a redelivery.
    #[inline]
    pub fn arrived(&mut self, member: u32, payload: &[u8], again: bool, now: Instant) {
        let Some(letter) = Letter::read(payload).filter(|letter| letter.member == member && letter.run == self.run)
        else {
            self.faults.foreign += 1;
            return;
        };
        let next = &mut self.next[member as usize];
        if letter.sequence < *next {
            if again {
                self.faults.redelivered += 1
            } else {
                self.faults.repeated += 1
            }
            return;
        }
        self.faults.skipped += u64::from(letter.sequence - *next);
        *next = letter.sequence + 1;
        self.deliveries += 1;
        let now_us = now.saturating_duration_since(self.started).as_micros() as u64;
        self.latency.saturating_record(now_us.saturating_sub(letter.due_us));
    }

    /// What came of what was sent to each member.
    pub fn checked(&self, issued: &[u32]) -> Checked {
        let (mut missing, mut foreign) = (0, self.faults.foreign);
        for (&sent, &next) in issued.iter().zip(&self.next) {
            missing += u64::from(sent.saturating_sub(next));
            foreign += u64::from(next.saturating_sub(sent));
        }
        let Faults { repeated, skipped, redelivered, .. } = self.faults;
        let expected = issued.iter().map(|&sent| u64::from(sent)).sum();
        Checked { expected, right: self.deliveries, missing, repeated, skipped, foreign, redelivered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 5;

    struct Case {
        inboxes: Inboxes,
        now: Instant,
    }

    impl Case {
        fn new() -> Self {
            let now = Instant::now();
            Self { inboxes: Inboxes::new(2, RUN, now), now }
        }

        fn comes(&mut self, to: u32, named: u32, sequence: u32, again: bool) {
            let mut payload = [0; 40];
            Letter { member: named, sequence, run: RUN, due_us: 0 }.write(&mut payload);
            self.inboxes.arrived(to, &payload, again, self.now);
        }
    }

    #[test]
    fn letters_that_reach_their_members_once_and_in_order_are_right() {
        let mut case = Case::new();
        for sequence in 0..3 {
            case.comes(0, 0, sequence, false);
        }
        case.comes(1, 1, 0, false);
        let checked = case.inboxes.checked(&[3, 1]);
        assert!(checked.is_right(), "{checked:?}");
        assert_eq!(case.inboxes.latency.len(), 4);
    }

    #[test]
    fn lost_doubled_reordered_and_misdirected_letters_are_each_found() {
        let mut lost = Case::new();
        lost.comes(0, 0, 0, false);
        assert_eq!(lost.inboxes.checked(&[2, 0]), Checked { expected: 2, right: 1, missing: 1, ..Checked::default() });
        let mut doubled = Case::new();
        doubled.comes(0, 0, 0, false);
        doubled.comes(0, 0, 0, false);
        assert_eq!(doubled.inboxes.checked(&[1, 0]).repeated, 1);
        let mut reordered = Case::new();
        reordered.comes(0, 0, 1, false);
        reordered.comes(0, 0, 0, false);
        let found = reordered.inboxes.checked(&[2, 0]);
        assert_eq!((found.skipped, found.repeated, found.is_right()), (1, 1, false));
        let mut misdirected = Case::new();
        misdirected.comes(1, 0, 0, false);
        let found = misdirected.inboxes.checked(&[1, 0]);
        assert_eq!((found.foreign, found.missing, found.is_right()), (1, 1, false));
        let mut unsent = Case::new();
        unsent.comes(0, 0, 0, false);
        assert_eq!(unsent.inboxes.checked(&[0, 0]).foreign, 1);
    }

    #[test]
    fn a_marked_redelivery_of_what_came_is_no_fault_and_one_of_what_did_not_is_the_delivery() {
        let mut case = Case::new();
        case.comes(0, 0, 0, true);
        case.comes(0, 0, 0, true);
        let checked = case.inboxes.checked(&[1, 0]);
        assert!(checked.is_right());
        assert_eq!(checked.redelivered, 1);
    }

    #[test]
    fn a_letter_of_an_earlier_run_is_foreign() {
        let mut case = Case::new();
        let mut payload = [0; 24];
        Letter { member: 0, sequence: 0, run: RUN - 1, due_us: 0 }.write(&mut payload);
        case.inboxes.arrived(0, &payload, false, case.now);
        assert_eq!(case.inboxes.faults.foreign, 1);
    }
}
