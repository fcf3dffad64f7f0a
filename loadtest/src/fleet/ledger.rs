//! Every message under way and who has it: nothing is taken for delivered that was not compared byte by byte.
//!
//! A payload begins with its number in the stream, eight bytes; the others follow from the number. A subscriber must
//! get each number once and in order.

use super::content::Words;
use crate::figures::Checked;
use hdrhistogram::Histogram;
use std::time::Instant;

/// Messages that can be under way.
pub const WINDOW_MAX: usize = 128;
/// Shortest payload.
pub const PAYLOAD_BYTES_MIN: usize = 16;
/// Longest latency that is told apart from longer ones, in microseconds.
pub const LATENCY_US_MAX: u64 = 600_000_000;

/// What deliveries were wrong, each way by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Numbers that a subscriber had already, or had skipped.
    pub repeated: u64,
    /// Numbers that a subscriber has not got although it got a later one.
    pub skipped: u64,
    /// Payloads that are none of the messages under way.
    pub foreign: u64,
    /// Repeated, but marked as a redelivery: QoS 1 may say so after a lost connection.
    pub redelivered: u64,
}

impl Faults {
    pub fn any(self) -> bool {
        Self { redelivered: 0, ..self } != Self::default()
    }
}

/// A message under way.
#[derive(Debug)]
struct Message {
    number: u64,
    due: Instant,
    arrived: u32,
    payload: Box<[u8]>,
}

/// The messages of one stream to one squad.
#[derive(Debug)]
pub struct Ledger {
    receivers: u32,
    ring: Vec<Message>,
    published: u64,
    /// All before it have arrived everywhere.
    oldest: u64,
    /// Deliveries that were right.
    pub deliveries: u64,
    pub faults: Faults,
    /// From when a message was due to each of its arrivals, in microseconds.
    pub latency: Histogram<u64>,
}

impl Ledger {
    pub fn new(receivers: u32, payload_bytes: usize) -> Self {
        assert!(payload_bytes >= PAYLOAD_BYTES_MIN, "the command line allows no shorter payload");
        let now = Instant::now();
        let message = || Message { number: u64::MAX, due: now, arrived: 0, payload: vec![0; payload_bytes].into() };
        let latency = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("three digits of ten minutes can be kept");
        Self {
            receivers,
            ring: (0..WINDOW_MAX).map(|_| message()).collect(),
            published: 0,
            oldest: 0,
            deliveries: 0,
            faults: Faults::default(),
            latency,
        }
    }

    /// Messages that have not arrived everywhere.
    #[inline]
    pub fn under_way(&self) -> u64 {
        self.published - self.oldest
    }

    /// Messages so far.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// Bytes of a payload.
    pub fn payload_bytes(&self) -> usize {
        self.ring[0].payload.len()
    }

    /// The next message, due at that time; its payload.
    pub fn next(&mut self, due: Instant) -> &[u8] {
        assert!(self.under_way() < WINDOW_MAX as u64, "the window is smaller than the ring");
        let number = self.published;
        self.published += 1;
        let message = &mut self.ring[number as usize % WINDOW_MAX];
        (message.number, message.due, message.arrived) = (number, due, 0);
        fill(number, &mut message.payload);
        &message.payload
    }

    /// What came of what was published so far.
    pub fn checked(&self) -> Checked {
        let expected = self.published * u64::from(self.receivers);
        let Faults { repeated, skipped, foreign, redelivered } = self.faults;
        let missing = expected.saturating_sub(self.deliveries + skipped);
        Checked { expected, right: self.deliveries, missing, repeated, skipped, foreign, redelivered }
    }

    /// A payload has come to a subscriber whose next number is `next`; `again`: marked as a redelivery.
    #[inline]
    pub fn arrived(&mut self, next: &mut u32, payload: &[u8], again: bool, now: Instant) {
        let Some(number) = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            self.faults.foreign += 1;
            return;
        };
        let message = &mut self.ring[number as usize % WINDOW_MAX];
        if message.number != number || *message.payload != *payload {
            // An old number is a repetition of a message that has left the ring.
            match number < self.oldest {
                true if again => self.faults.redelivered += 1,
                true => self.faults.repeated += 1,
                false => self.faults.foreign += 1,
            }
            return;
        }
        let expected = u64::from(*next);
        if number < expected {
            if again {
                self.faults.redelivered += 1
            } else {
                self.faults.repeated += 1
            }
            return;
        }
        self.faults.skipped += number - expected;
        *next = number as u32 + 1;
        message.arrived += 1;
        self.deliveries += 1;
        let late = now.saturating_duration_since(message.due).as_micros() as u64;
        self.latency.saturating_record(late);
        if message.arrived == self.receivers {
            self.settle();
        }
    }

    #[inline]
    fn settle(&mut self) {
        while self.oldest < self.published && self.ring[self.oldest as usize % WINDOW_MAX].arrived == self.receivers {
            self.oldest += 1;
        }
    }
}

/// The payload of a number: the number, then bytes of a generator that starts from it.
fn fill(number: u64, payload: &mut [u8]) {
    payload[..8].copy_from_slice(&number.to_be_bytes());
    Words::of(number).fill(&mut payload[8..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_done_when_every_subscriber_has_it() {
        let (mut ledger, now) = (Ledger::new(2, 64), Instant::now());
        let payload = ledger.next(now).to_vec();
        let mut next = [0, 0];
        ledger.arrived(&mut next[0], &payload, false, now);
        assert_eq!(ledger.under_way(), 1);
        ledger.arrived(&mut next[1], &payload, false, now);
        assert_eq!((ledger.under_way(), ledger.deliveries, ledger.faults), (0, 2, Faults::default()));
    }

    #[test]
    fn repeated_skipped_and_foreign_payloads_are_told_apart() {
        let (mut ledger, now) = (Ledger::new(1, 20), Instant::now());
        let first = ledger.next(now).to_vec();
        let second = ledger.next(now).to_vec();
        let mut next = 0;
        ledger.arrived(&mut next, &second, false, now);
        assert_eq!(ledger.faults, Faults { skipped: 1, ..Faults::default() });
        ledger.arrived(&mut next, &first, false, now);
        assert_eq!(ledger.faults, Faults { skipped: 1, repeated: 1, ..Faults::default() });
        let mut wrong = second.clone();
        wrong[19] ^= 1;
        ledger.arrived(&mut next, &wrong, false, now);
        ledger.arrived(&mut next, b"short", false, now);
        assert_eq!(ledger.faults, Faults { skipped: 1, repeated: 1, foreign: 2, redelivered: 0 });
        assert_eq!(ledger.under_way(), 2);
        let found = ledger.checked();
        assert_eq!((found.expected, found.right, found.missing, found.is_right()), (2, 1, 0, false));
        ledger.arrived(&mut next, &second, true, now);
        assert_eq!(ledger.checked().redelivered, 1);
    }

    #[test]
    fn an_incomplete_message_holds_the_window_although_later_ones_are_done() {
        let (mut ledger, now) = (Ledger::new(2, 16), Instant::now());
        let payloads: Vec<Vec<u8>> = (0..2).map(|_| ledger.next(now).to_vec()).collect();
        let mut next = [0, 0];
        ledger.arrived(&mut next[0], &payloads[0], false, now);
        ledger.arrived(&mut next[0], &payloads[1], false, now);
        assert_eq!(ledger.under_way(), 2);
        ledger.arrived(&mut next[1], &payloads[0], false, now);
        assert_eq!(ledger.under_way(), 1);
    }
}
