//! Why bytes are not a packet, in the words of MQTT 5's reason codes.

use super::Version;
use super::reason::Reason;
use core::fmt;

/// What is wrong with a frame; always the peer's fault. Each stands for one MQTT 5 reason code, and says in a short
/// static text what it was, fit for a log line or a reason string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes cannot be parsed as the specification says (§1.2 Malformed Packet).
    Malformed(&'static str),
    /// They can, but say what is not allowed or not possible (§1.2 Protocol Error).
    Protocol(&'static str),
    /// A longer packet than is accepted.
    TooLarge,
    /// A CONNECT of a protocol level not spoken here; see [`DecodeError::connack_version`].
    UnsupportedVersion {
        /// The level it asked for.
        level: u8,
    },
    /// The client identifier cannot be used: empty without a clean session, `[MQTT-3.1.3-8]` of 3.1.1.
    ClientIdentifier(&'static str),
    /// A topic name that is none: empty, or with wildcards.
    TopicName(&'static str),
    /// A topic filter that is none.
    TopicFilter(&'static str),
    /// A topic alias of 0, `[MQTT-3.3.2-8]`.
    TopicAlias,
    /// A payload that is not the UTF-8 its Payload Format Indicator says.
    PayloadFormat,
}

impl DecodeError {
    /// The reason code for the DISCONNECT, CONNACK or acknowledgement that answers.
    pub fn reason(self) -> Reason {
        match self {
            Self::Malformed(_) => Reason::MalformedPacket,
            Self::Protocol(_) => Reason::ProtocolError,
            Self::TooLarge => Reason::PacketTooLarge,
            Self::UnsupportedVersion { .. } => Reason::UnsupportedProtocolVersion,
            Self::ClientIdentifier(_) => Reason::ClientIdentifierNotValid,
            Self::TopicName(_) => Reason::TopicNameInvalid,
            Self::TopicFilter(_) => Reason::TopicFilterInvalid,
            Self::TopicAlias => Reason::TopicAliasInvalid,
            Self::PayloadFormat => Reason::PayloadFormatInvalid,
        }
    }

    /// What it was, in a few words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed(text)
            | Self::Protocol(text)
            | Self::ClientIdentifier(text)
            | Self::TopicName(text)
            | Self::TopicFilter(text) => text,
            Self::TooLarge => "the packet is too large",
            Self::UnsupportedVersion { .. } => "the protocol level is not supported",
            Self::TopicAlias => "topic alias 0",
            Self::PayloadFormat => "the payload is not the UTF-8 it is said to be",
        }
    }

    /// In whose words the refusing CONNACK is written when it was the protocol level: peers up to level 4 know the
    /// return code 0x01 of `[MQTT-3.1.2-2]`, later ones the reason code 0x84.
    pub fn connack_version(self) -> Option<Version> {
        match self {
            Self::UnsupportedVersion { level: 0..=4 } => Some(Version::V311),
            Self::UnsupportedVersion { .. } => Some(Version::V5),
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X})", self.text(), self.reason().code())
    }
}

impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_stands_for_its_reason_code() {
        for (error, code) in [
            (DecodeError::Malformed(""), 0x81),
            (DecodeError::Protocol(""), 0x82),
            (DecodeError::UnsupportedVersion { level: 6 }, 0x84),
            (DecodeError::ClientIdentifier(""), 0x85),
            (DecodeError::TopicFilter(""), 0x8F),
            (DecodeError::TopicName(""), 0x90),
            (DecodeError::TopicAlias, 0x94),
            (DecodeError::TooLarge, 0x95),
            (DecodeError::PayloadFormat, 0x99),
        ] {
            assert_eq!(error.reason().code(), code);
        }
    }

    #[test]
    fn a_refused_level_is_answered_in_words_its_peer_knows() {
        assert_eq!(DecodeError::UnsupportedVersion { level: 3 }.connack_version(), Some(Version::V311));
        assert_eq!(DecodeError::UnsupportedVersion { level: 6 }.connack_version(), Some(Version::V5));
        assert_eq!(DecodeError::TooLarge.connack_version(), None);
    }
}
