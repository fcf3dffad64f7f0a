//! What a fleet is told to do over many turns, in bounded steps.

use super::content::{Letter, Words};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// 2⁶⁴ divided by the golden ratio: its multiples, modulo 2⁶⁴, are the most even sequence there is.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Members connected, written to or told to leave in one turn.
pub const STEP_MAX: u32 = 256;

/// Connect a squad.
#[derive(Debug)]
pub struct Ramp {
    pub squad: u8,
    /// The first member not yet asked to connect, counted within the squad.
    pub next: u32,
    /// One past the last.
    pub end: u32,
    /// When all of them were due, if not when each is asked: latencies count from then.
    pub due: Option<Instant>,
    /// Members that connect again, and when, in monotonic milliseconds.
    pub again: VecDeque<(u32, u64)>,
    /// Handshakes under way.
    pub under_way: u32,
    pub under_way_max: u32,
    /// New connections a second; 0: no bound.
    pub rate: u32,
    pub started_ms: u64,
    pub issued: u64,
}

impl Ramp {
    /// Connections that may be started now.
    pub fn allowance(&self, now_ms: u64) -> u32 {
        let room = self.under_way_max.saturating_sub(self.under_way).min(STEP_MAX);
        if self.rate == 0 {
            return room;
        }
        let elapsed_ms = now_ms.saturating_sub(self.started_ms) + 1;
        let due = elapsed_ms * u64::from(self.rate) / 1_000;
        room.min(u32::try_from(due.saturating_sub(self.issued)).unwrap_or(room))
    }
}

/// Publish to a squad.
#[derive(Debug)]
pub struct Drive {
    /// Who is to get it.
    pub squad: u8,
    /// Who publishes: a member's number in the fleet.
    pub publisher: u32,
    /// Messages under way at most.
    pub window: u64,
    /// Messages published together.
    pub unit: u64,
    /// What goes in front of them: the head of the frame that a server would put them into, where the floor's bytes
    /// are to be a WebSocket's.
    pub head: Vec<u8>,
    /// Messages still to publish.
    pub left: u64,
    /// Nothing is published from then on.
    pub until: Option<Instant>,
    /// When each message is due, if not when there is room.
    pub pace: Option<Pace>,
}

/// A steady rate, out of step with every other: each message has a period of its own, and is due at a place in it that
/// is another each time, spread evenly. At exactly 500 a second every second message would meet the kernel's tick, every
/// 4 ms, throughout a stretch, or none, as the stretch began.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub started: Instant,
    /// Messages a second.
    pub rate: u32,
    pub issued: u64,
}

impl Pace {
    /// When the next message is due.
    pub fn due(&self) -> Instant {
        self.due_of(self.issued)
    }

    /// When the first one after `now` is due, whatever has been issued.
    pub fn next_due(&self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.started).as_nanos() * u128::from(self.rate) / 1_000_000_000;
        let this = u64::try_from(passed).unwrap_or(u64::MAX);
        let due = self.due_of(this);
        if due > now { due } else { self.due_of(this.saturating_add(1)) }
    }

    fn due_of(&self, number: u64) -> Instant {
        let rate = u128::from(self.rate.max(1));
        let begins = u128::from(number) * 1_000_000_000 / rate;
        let place = (u128::from(number.wrapping_mul(GOLDEN)) * (1_000_000_000 / rate)) >> 64;
        self.started + Duration::from_nanos(u64::try_from(begins + place).unwrap_or(u64::MAX))
    }
}

/// Letters that a member publishes, each to one member of a squad.
#[derive(Debug)]
pub struct Mailing {
    /// Who is to get them.
    pub squad: u8,
    /// Who publishes: a member's number in the fleet.
    pub publisher: u32,
    /// `{n}` stands for the receiver's number.
    pub topic: String,
    /// Letters under way at most: not yet delivered.
    pub window: u64,
    pub left: u64,
    pub until: Option<Instant>,
    pub pace: Option<Pace>,
    pub plan: Plan,
}

/// Who gets the next letter, and what it says. The same seed gives the same letters.
#[derive(Clone, Debug)]
pub struct Plan {
    words: Words,
    run: u32,
    started: Instant,
    /// Letters to each member so far.
    pub issued: Vec<u32>,
    /// Letters in all.
    pub total: u64,
}

impl Plan {
    pub fn new(members: u32, run: u32, started: Instant) -> Self {
        assert!(members > 0, "letters go to somebody");
        Self { words: Words::of(u64::from(run) + 1), run, started, issued: vec![0; members as usize], total: 0 }
    }

    /// The next letter, due at that time.
    pub fn letter(&mut self, due: Instant) -> Letter {
        let word = self.words.next().expect("words do not end");
        // The upper half of a product is an even share of the members.
        let member = ((u128::from(word) * self.issued.len() as u128) >> 64) as usize;
        let sequence = self.issued[member];
        self.issued[member] += 1;
        self.total += 1;
        let due_us = due.saturating_duration_since(self.started).as_micros() as u64;
        Letter { member: member as u32, sequence, run: self.run, due_us }
    }
}

/// PINGREQs, or two bare bytes, of one member after the other; each is answered before the member's next.
#[derive(Debug)]
pub struct Beat {
    pub squad: u8,
    /// The next member's number within the squad.
    pub next: u32,
    /// Answers that may be outstanding.
    pub window: u32,
    pub under_way: u32,
    pub left: u64,
    pub until: Option<Instant>,
    pub pace: Option<Pace>,
}

/// Members that do not read get to receive once, one after the other.
#[derive(Debug)]
pub struct Sip {
    pub squad: u8,
    pub next: u32,
    pub pace: Pace,
}

/// Tell members of a squad something, one after the other.
#[derive(Debug)]
pub struct Round {
    pub squad: u8,
    pub next: u32,
    /// One past the last.
    pub end: u32,
    pub what: Saying,
}

/// What members say in a round.
#[derive(Debug)]
pub enum Saying {
    /// DISCONNECT, and close.
    Goodbye,
    /// Nothing: the connection is gone, as when a network fails.
    Drop,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing: they read again.
    Read,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_keeps_its_rate_and_its_bound() {
        let mut ramp = Ramp {
            squad: 0,
            next: 0,
            end: 10,
            due: None,
            again: VecDeque::new(),
            under_way: 0,
            under_way_max: 10,
            rate: 1_000,
            started_ms: 100,
            issued: 0,
        };
        assert_eq!(ramp.allowance(100), 1);
        assert_eq!(ramp.allowance(104), 5);
        ramp.issued = 5;
        assert_eq!(ramp.allowance(104), 0);
        assert_eq!(ramp.allowance(1_000), 10);
        ramp.under_way = 10;
        assert_eq!(ramp.allowance(1_000), 0);
    }

    #[test]
    fn a_plan_reaches_members_evenly_and_says_the_same_again() {
        let started = Instant::now();
        let mut plan = Plan::new(10, 3, started);
        let letters: Vec<Letter> = (0..10_000).map(|_| plan.letter(started)).collect();
        assert!(plan.issued.iter().all(|&count| (800..1_200).contains(&count)), "{:?}", plan.issued);
        assert_eq!(plan.total, 10_000);
        let mut again = Plan::new(10, 3, started);
        assert!(letters.iter().all(|letter| *letter == again.letter(started)));
        assert_ne!(Plan::new(1_000_000, 4, started).letter(started), Plan::new(1_000_000, 3, started).letter(started));
    }

    #[test]
    fn a_pace_is_due_by_number_and_not_by_what_came_before() {
        let mut pace = Pace { started: Instant::now(), rate: 1_000, issued: 0 };
        assert_eq!(pace.due(), pace.started);
        pace.issued = 2_500;
        let due = pace.due() - pace.started;
        assert!((Duration::from_millis(2_500)..Duration::from_millis(2_501)).contains(&due), "{due:?}");
        for number in 0..3_000 {
            let (this, next) = (pace.due_of(number), pace.due_of(number + 1));
            assert!((600..=1_650).contains(&(next - this).as_micros()), "{number}: {:?}", next - this);
            let just_before = next - Duration::from_nanos(1);
            assert_eq!((pace.next_due(this), pace.next_due(just_before)), (next, next));
        }
    }

    #[test]
    fn a_pace_is_out_of_step_with_the_kernels_tick() {
        let pace = Pace { started: Instant::now(), rate: 500, issued: 0 };
        // A stretch of a second, by the half milliseconds of ticks of 4 ms.
        let mut met = [0_u32; 8];
        for number in 0..500 {
            met[(pace.due_of(number) - pace.started).as_micros() as usize % 4_000 / 500] += 1;
        }
        assert!(met.iter().all(|count| (58..=67).contains(count)), "{met:?}");
    }
}
