//! How much one side may send (RFC 9113 §5.2, §6.9).

/// The largest window there may be.
pub(super) const WINDOW_MAX: u32 = (1 << 31) - 1;
/// What a window is before anybody said otherwise.
pub(super) const WINDOW_DEFAULT: u32 = 65_535;

/// A window. One of a stream may be less than nothing, when the peer has made all windows smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window(i64);

/// It would be wider than any window may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooWide;

impl Window {
    pub(super) fn new(bytes: u32) -> Self {
        Self(i64::from(bytes))
    }

    /// What may be sent.
    pub(super) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Opens it by this much, or closes it.
    pub(super) fn change(&mut self, bytes: i64) -> Result<(), TooWide> {
        self.0 = Some(self.0 + bytes).filter(|&bytes| bytes <= i64::from(WINDOW_MAX)).ok_or(TooWide)?;
        Ok(())
    }

    /// Takes so much of it; false: it does not hold that.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let holds = bytes <= self.bytes();
        if holds {
            self.0 -= bytes as i64;
        }
        holds
    }
}

/// What a peer may send to us, and what of it we have used and not said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inbound {
    window: Window,
    used: u32,
    /// When so much is used, it is said.
    worth_saying: u32,
}

impl Inbound {
    pub(super) fn new(bytes: u32) -> Self {
        Self { window: Window::new(bytes), used: 0, worth_saying: bytes / 2 }
    }

    /// Something has come; false: more than the window held.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.window.take(bytes)
    }

    /// So much was used. By how much to open the peer's window, if it is worth a frame.
    pub(super) fn give_back(&mut self, bytes: usize) -> Option<u32> {
        self.used += u32::try_from(bytes).expect("no more than a window");
        if self.used == 0 || self.used < self.worth_saying {
            return None;
        }
        let used = core::mem::take(&mut self.used);
        self.window.change(i64::from(used)).expect("no wider than it was");
        Some(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_gives_what_it_holds_and_may_be_less_than_nothing() {
        let mut window = Window::new(10);
        assert!(window.take(10) && !window.take(1) && window.take(0));
        assert_eq!(window.change(-5), Ok(()));
        assert_eq!((window.bytes(), window.take(0)), (0, true));
        assert_eq!(window.change(7), Ok(()));
        assert_eq!(window.bytes(), 2);
        assert_eq!(window.change(i64::from(WINDOW_MAX) - 2), Ok(()));
        assert_eq!(window.change(1), Err(TooWide));
    }

    #[test]
    fn what_was_used_is_said_when_it_is_half_of_a_window() {
        let mut inbound = Inbound::new(100);
        assert!(inbound.take(100) && !inbound.take(1));
        assert_eq!(inbound.give_back(49), None);
        assert!(!inbound.take(1), "the peer does not know of it");
        assert_eq!(inbound.give_back(1), Some(50));
        assert!(inbound.take(50) && !inbound.take(1));
    }
}
