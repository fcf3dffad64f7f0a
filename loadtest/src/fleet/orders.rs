//! What a fleet is told to do over many turns, in bounded steps.

use std::collections::VecDeque;
use std::time::Instant;

/// Members connected, written to or told to leave in one turn.
pub const STEP_MAX: u32 = 256;

/// Connect a squad.
#[derive(Debug)]
pub struct Ramp {
    pub squad: u8,
    /// The first member not yet asked to connect, counted within the squad.
    pub next: u32,
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

/// A steady rate.
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
        let nanos = u128::from(self.issued) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.started + std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Tell members of a squad something, one after the other.
#[derive(Debug)]
pub struct Round {
    pub squad: u8,
    pub next: u32,
    pub what: Saying,
}

/// What members say in a round.
#[derive(Debug)]
pub enum Saying {
    /// DISCONNECT, and close.
    Goodbye,
    /// These bytes.
    Bytes(Vec<u8>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_keeps_its_rate_and_its_bound() {
        let mut ramp = Ramp {
            squad: 0,
            next: 0,
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
}
