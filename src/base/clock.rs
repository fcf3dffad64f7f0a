//! Time as a value. Nobody below `node/` reads a clock except a driver, once per turn; all others are told.

use core::time::Duration;

/// What the clock said at the start of the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; its zero is unspecified. Deadlines are in this.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970-01-01 UTC. What is stored (creation, expiry) is in this.
    pub wall_ms: u64,
}

impl Now {
    /// The monotonic millisecond `after` from now.
    pub fn deadline(self, after: Duration) -> u64 {
        self.monotonic_ms.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
    }
}
