//! Why a WebSocket ends (RFC 6455 §7.4).

use super::frame::{FIN, Opcode};

/// A code in a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the rules.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Data of a kind that is not taken.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Data that is not what its kind says: text that is no UTF-8.
    pub const INVALID: Self = Self(1007);
    /// It did what it may not.
    pub const POLICY: Self = Self(1008);
    /// Too much to take.
    pub const TOO_BIG: Self = Self(1009);
    /// Our own fault.
    pub const INTERNAL: Self = Self(1011);
    /// The server restarts: come back.
    pub const RESTART: Self = Self(1012);

    /// Whether a peer may send it: the defined ones that are not reserved for local use (§7.4.1 and the registry that
    /// §11.7 opens), those of libraries and frameworks, and private ones (§7.4.2).
    pub fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// A whole unmasked close frame that says so, without words.
    pub fn frame(self) -> [u8; 4] {
        let [high, low] = self.0.to_be_bytes();
        [FIN | Opcode::Close as u8, 2, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6455_7_4_2_codes_are_valid_as_the_registry_says() {
        for code in [1000, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(CloseCode(code).may_be_sent(), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(!CloseCode(code).may_be_sent(), "{code}");
        }
    }

    #[test]
    fn a_close_frame_is_a_control_frame_with_its_code() {
        assert_eq!(CloseCode::GOING_AWAY.frame(), [0x88, 2, 0x03, 0xE9]);
    }
}
