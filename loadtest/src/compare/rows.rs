//! The rows of a comparison.

use clap::ValueEnum;
use kittiwake::base::ids::Qos;

/// What is compared. Set-up and memory come with the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Row {
    #[value(skip)]
    Memory,
    #[value(skip)]
    SetUp,
    #[value(name = "fanout-1")]
    Fanout1,
    #[value(name = "fanout-16")]
    Fanout16,
    #[value(name = "qos1-1")]
    Qos1Fanout1,
    #[value(name = "qos1-16")]
    Qos1Fanout16,
    Ping,
    Unicast,
    /// Latency, idle and at half load.
    Latency,
}

/// The order of the report.
pub const REPORTED: &[Row] = &[
    Row::Fanout1,
    Row::Fanout16,
    Row::Qos1Fanout1,
    Row::Qos1Fanout16,
    Row::Ping,
    Row::Unicast,
    Row::SetUp,
    Row::Memory,
];

impl Row {
    pub fn title(self) -> &'static str {
        match self {
            Self::Memory => "Memory of a connection",
            Self::SetUp => "Connect and subscribe",
            Self::Fanout1 => "Fan-out, one message at a time",
            Self::Fanout16 => "Fan-out, 16 under way",
            Self::Qos1Fanout1 => "QoS 1 with acks, one at a time",
            Self::Qos1Fanout16 => "QoS 1 with acks, 16 under way",
            Self::Ping => "Keep-alive answered",
            Self::Unicast => "One message to one client",
            Self::Latency => "Latency",
        }
    }

    /// A name for machines.
    pub fn name(self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::SetUp => "set-up".to_owned(),
            row => row.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
        }
    }

    pub fn about(self) -> &'static str {
        match self {
            Self::Memory => "resident memory above that of the idle server, without the kernel's",
            Self::SetUp => "server CPU until the subscription is in force",
            Self::Fanout1 => "QoS 0; server CPU of a delivery to one of many subscribers",
            Self::Fanout16 => "a server that coalesces can send several in one go",
            Self::Qos1Fanout1 | Self::Qos1Fanout16 => "where there is QoS; sessions that end with their connections",
            Self::Ping => "each protocol's own ping, or WebSocket's",
            Self::Unicast => "each to another topic with one subscriber; QoS 0",
            Self::Latency => "",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Memory => "bytes of user space a connection",
            Self::SetUp => "µs of server CPU a connection",
            Self::Ping => "µs of server CPU a ping",
            _ => "µs of server CPU a delivery",
        }
    }

    /// QoS and messages under way, of a fan-out.
    pub fn fanout(self) -> Option<(Qos, u64)> {
        match self {
            Self::Fanout1 => Some((Qos::AtMostOnce, 1)),
            Self::Fanout16 => Some((Qos::AtMostOnce, 16)),
            Self::Qos1Fanout1 => Some((Qos::AtLeastOnce, 1)),
            Self::Qos1Fanout16 => Some((Qos::AtLeastOnce, 16)),
            _ => None,
        }
    }

    /// Whether it needs subscribers of a topic each, instead of one for all.
    pub fn is_single(self) -> bool {
        matches!(self, Self::Unicast | Self::Latency)
    }
}
