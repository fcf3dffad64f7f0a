//! What flags take.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// MQTT 3.1.1 over TCP.
    Mqtt,
    /// MQTT 5.0 over TCP.
    Mqtt5,
    /// MQTT 3.1.1 inside WebSocket, at the path /mqtt.
    MqttWs,
    /// nchan: a WebSocket for subscribers, HTTP for publishers.
    Nchan,
    /// NATS, its own protocol.
    Nats,
    /// loadtest/targets/ws.js.
    Ws,
    /// loadtest/targets/socketio.js.
    #[value(name = "socketio")]
    SocketIo,
    /// Event streams of kittiwake, to which an MQTT client publishes.
    Sse,
}

impl Protocol {
    pub fn carriage(self) -> Carriage {
        match self {
            Self::MqttWs => Carriage::WebSocket,
            _ => Carriage::Tcp,
        }
    }
    pub fn is_mqtt(self) -> bool {
        matches!(self, Self::Mqtt | Self::Mqtt5 | Self::MqttWs)
    }
    /// The version of MQTT, where it is MQTT.
    pub fn version(self) -> Version {
        if self == Self::Mqtt5 { Version::V5 } else { Version::V311 }
    }
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT",
            Self::Mqtt5 => "MQTT 5",
            Self::Nchan => "nchan",
            Self::Nats => "NATS",
            Self::Ws => "WebSocket",
            Self::SocketIo => "Socket.IO",
            Self::Sse => "event streams",
            Self::MqttWs => "MQTT over WebSocket",
        }
    }
}

/// How a message to one client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// Batches in one gRPC stream.
    Grpc,
    /// HTTP requests.
    Http,
    /// An MQTT client that publishes to a topic of each receiver.
    Mqtt,
}

impl Via {
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "PushStream",
            Self::Http => "HTTP",
            Self::Mqtt => "an MQTT publisher",
        }
    }

    /// The API's door; a publisher needs none, and is asked for elsewhere.
    pub fn door(self) -> Door {
        if self == Self::Http { Door::Http } else { Door::Grpc }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DriverName {
    Auto,
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
}

impl DriverName {
    pub fn choice(self) -> Choice {
        match self {
            Self::Auto => Choice::Auto,
            Self::IoUring => Choice::IoUring,
            Self::Epoll => Choice::Epoll,
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

#[allow(clippy::enum_variant_names, reason = "the field's names for the three levels do end alike")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QosLevel {
    #[value(name = "0")]
    AtMostOnce,
    #[value(name = "1")]
    AtLeastOnce,
    #[value(name = "2")]
    ExactlyOnce,
}

impl QosLevel {
    pub fn qos(self) -> Qos {
        match self {
            Self::AtMostOnce => Qos::AtMostOnce,
            Self::AtLeastOnce => Qos::AtLeastOnce,
            Self::ExactlyOnce => Qos::ExactlyOnce,
        }
    }
}

/// A length of time on the command line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seconds(pub Duration);

pub(super) fn seconds(text: &str) -> Result<Seconds, String> {
    let value: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(value).map(Seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn no_help_breaks_a_line_where_a_word_in_braces_was_meant() {
        for scenario in Arguments::command().get_subcommands_mut() {
            let help = scenario.render_long_help().to_string();
            assert!(!help.contains("`\n"), "{}: clap takes `{{n}}` for the end of a line\n{help}", scenario.get_name());
        }
    }

    #[test]
    fn a_million_connections_is_what_the_preset_asks_for_and_what_is_said_overrides_it() {
        let preset = |words: &[&str]| match Arguments::try_parse_from(words).map(|arguments| arguments.scenario) {
            Ok(Scenario::C1m(preset)) => preset.common,
            other => panic!("{other:?}"),
        };
        let common = preset(&["loadtest", "c1m"]);
        assert_eq!((common.connections, common.rate), (1_000_000, 0));
        assert!(common.api.is_some());
        assert_eq!(preset(&["loadtest", "c1m", "--connections", "200000"]).connections, 200_000);
    }
}
