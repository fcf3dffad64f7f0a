//! What sessions know of the protocols that are spoken to them: no more than their names and manners.

/// What a session's connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    #[default]
    Mqtt311,
    /// MQTT 5.0.
    Mqtt5,
    /// Server-Sent Events.
    Sse {
        /// Payloads alone, without their envelope.
        raw: bool,
    },
    /// One answer to one request, and then it is over.
    Poll,
}

const _: () = assert!(size_of::<Protocol>() == 1);

impl Protocol {
    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt311 => "mqtt 3.1.1",
            Self::Mqtt5 => "mqtt 5.0",
            Self::Sse { .. } => "sse",
            Self::Poll => "poll",
        }
    }

    /// Whether its clients say what they have. Others keep their position themselves: what was handed to the socket is
    /// settled here, and moves no read mark, for nobody knows whether it arrived.
    pub fn acknowledges(self) -> bool {
        !matches!(self, Self::Sse { .. } | Self::Poll)
    }
}
