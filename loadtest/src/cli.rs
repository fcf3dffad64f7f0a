//! The command line.

use crate::fleet::squad::Carriage;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kittiwake::base::ids::Qos;
use kittiwake::io::probe::Choice;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Load for kittiwake and other MQTT brokers.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,
}

#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Connects, subscribes, stays idle, is reached by one push, leaves: memory per connection and set-up cost.
    Hold(Hold),
    /// One topic with many subscribers: server CPU per delivery beside a bare send loop, latency.
    Fanout(Fanout),
    /// Bare sockets without a protocol: what the kernel asks for accept, receive and send.
    Floor(Floor),
    /// Draws report.html anew from a result.json, and of a comparison chart.svg.
    Page(Page),
    /// The floor's own server process.
    #[command(hide = true)]
    FloorServer(FloorServer),
}

/// Where the server is and what this client is made of.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Address of the server; more than one spreads the connections over them.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1883")]
    pub target: Vec<SocketAddr>,
    /// What the clients speak.
    #[arg(long, value_enum, default_value_t = Protocol::Mqtt)]
    pub protocol: Protocol,
    /// Connections, or subscribers.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub connections: u32,
    /// The client's own driver.
    #[arg(long, value_enum, default_value_t = DriverName::Auto)]
    pub driver: DriverName,
    /// Writes DIR/result.json.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// The server's HTTP API, for pushes and statistics.
    #[arg(long, value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// Bearer key of the API.
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// New connections a second; 0: as fast as handshakes in flight allow.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub rate: u32,
    /// Handshakes under way at a time.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub handshakes: u32,
    /// Pins the server's process to one CPU.
    #[arg(long, value_name = "CPU")]
    pub server_cpu: Option<usize>,
    /// Pins this process to one CPU.
    #[arg(long, value_name = "CPU")]
    pub client_cpu: Option<usize>,
    /// Decodes one delivery in a thousand with a codec that is not kittiwake's.
    #[arg(long)]
    pub verify: bool,
    /// No progress bars.
    #[arg(long)]
    pub quiet: bool,
    #[command(flatten)]
    pub server: ServerChoice,
}

/// Whose CPU and memory are measured.
#[derive(Args, Clone, Debug)]
pub struct ServerChoice {
    /// Measures this process.
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    pub server_pid: Option<u32>,
    /// Starts the gateway on the first target and measures it.
    #[arg(long)]
    pub spawn: bool,
    /// The gateway's binary.
    #[arg(long, value_name = "PATH", default_value = "target/release/kittiwake")]
    pub gateway: PathBuf,
    /// The gateway's shards; 0: its own choice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub gateway_shards: u16,
    /// The gateway's driver.
    #[arg(long, value_enum, default_value_t = DriverName::Auto)]
    pub gateway_driver: DriverName,
    /// More configuration for the gateway, as environment variables.
    #[arg(long, value_name = "NAME=VALUE")]
    pub gateway_env: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Hold {
    #[command(flatten)]
    pub common: Common,
    /// Sessions end with their connections.
    #[arg(long)]
    pub clean: bool,
    /// What each connection subscribes to.
    #[arg(long, value_name = "FILTER", default_value = "$inbox/#")]
    pub subscribe: String,
    /// QoS asked for.
    #[arg(long, value_enum, default_value = "1")]
    pub qos: QosLevel,
    /// Start of every client id and user name.
    #[arg(long, value_name = "TEXT", default_value = "k")]
    pub prefix: String,
    /// How long to stay idle, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub hold: Seconds,
    /// A PINGREQ of each connection every so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub heartbeat: Option<Seconds>,
    /// One push to everyone through the API; each connection must get it exactly once.
    #[arg(long, requires = "api")]
    pub push_everyone: bool,
    /// One message published to this topic instead; each connection must get it exactly once.
    #[arg(long, value_name = "TOPIC", conflicts_with = "push_everyone")]
    pub push_topic: Option<String>,
    /// QoS of that push.
    #[arg(long, value_enum, default_value = "1")]
    pub push_qos: QosLevel,
    /// Bytes of its payload, at least 16.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub payload: u32,
    /// After all have left, the server's gauges must fall back to what they were.
    #[arg(long, requires = "api")]
    pub expect_free: bool,
}

#[derive(Args, Debug)]
pub struct Fanout {
    #[command(flatten)]
    pub common: Common,
    /// Messages under way at a time.
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub window: u32,
    /// QoS of publishing and subscribing.
    #[arg(long, value_enum, default_value = "0")]
    pub qos: QosLevel,
    /// Bytes of the payload, at least 16.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub payload: u32,
    /// The topic.
    #[arg(long, value_name = "TOPIC", default_value = "load/fanout")]
    pub topic: String,
    /// Pairs of a stretch against the server and one against the floor.
    #[arg(long, value_name = "K", default_value_t = 9)]
    pub pairs: u32,
    /// Length of a stretch, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub stretch: Seconds,
    /// Messages of a stretch, instead of its length.
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
    /// Messages a second that are due, whatever the server does; without it each is due when the window has room.
    #[arg(long, value_name = "N")]
    pub publish_rate: Option<u32>,
    /// Without the floor: the server alone.
    #[arg(long)]
    pub no_floor: bool,
}

#[derive(Args, Debug)]
pub struct Floor {
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub connections: u32,
    /// Bytes of what is sent; may be given more than once.
    #[arg(long, value_name = "N", default_values_t = [64, 512, 1_280])]
    pub send: Vec<u32>,
    /// Bytes of what is received.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub receive: u32,
    /// Rounds over all sockets for each figure.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub rounds: u32,
    /// Times each figure is taken.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repeats: u32,
    /// The client's driver.
    #[arg(long, value_enum, default_value_t = DriverName::Auto)]
    pub driver: DriverName,
    /// Pins the server end to one CPU.
    #[arg(long, value_name = "CPU")]
    pub server_cpu: Option<usize>,
    /// Pins the client end to one CPU.
    #[arg(long, value_name = "CPU")]
    pub client_cpu: Option<usize>,
    /// Writes DIR/result.json.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// No progress bars.
    #[arg(long)]
    pub quiet: bool,
}

#[derive(Args, Debug)]
pub struct Page {
    /// The result.
    #[arg(value_name = "RESULT.JSON")]
    pub result: PathBuf,
    /// Where the page goes.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

#[derive(Args, Debug)]
pub struct FloorServer {
    /// Pins the process to one CPU.
    #[arg(long, value_name = "CPU")]
    pub cpu: Option<usize>,
}

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
}

impl Protocol {
    pub fn carriage(self) -> Carriage {
        match self {
            Self::MqttWs => Carriage::WebSocket,
            _ => Carriage::Tcp,
        }
    }
    pub fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "MQTT",
            Self::Mqtt5 => "MQTT 5",
            Self::Nchan => "nchan",
            Self::Nats => "NATS",
            Self::Ws => "WebSocket",
            Self::SocketIo => "Socket.IO",
            Self::MqttWs => "MQTT over WebSocket",
        }
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

fn seconds(text: &str) -> Result<Seconds, String> {
    let value: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(value).map(Seconds).map_err(|error| error.to_string())
}
