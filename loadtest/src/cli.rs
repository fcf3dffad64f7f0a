//! The command line.

mod values;

use crate::compare::rows::Row;
use crate::compare::targets::Target;
use crate::fleet::squad::Carriage;
use crate::source::Door;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kittiwake::base::ids::Qos;
use kittiwake::io::probe::Choice;
use kittiwake::wire::mqtt::Version;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use values::*;

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
    /// One message to one client, again and again: server CPU beside a bare send, latency.
    Unicast(Unicast),
    /// Keep-alives: server CPU beside a bare receive and send, latency.
    Heartbeat(Heartbeat),
    /// Clients that come and go beside others that stay: server CPU beside bare sockets.
    Churn(Churn),
    /// Everybody drops and returns at once; what was pushed meanwhile must come.
    Storm(Storm),
    /// One address connects without end and is refused: server CPU beside a bare accept and close, others' pings.
    #[command(
        mut_arg("connections", |argument| argument.default_value("20000")),
        mut_arg("target", |argument| argument.default_value("127.0.0.1:21883")),
        mut_arg("api", |argument| argument.default_value("127.0.0.1:21700"))
    )]
    Flood(Flood),
    /// Some subscribers read slowly or not at all.
    Slow(Slow),
    /// Heartbeats, messages to one and to many, clients that come and go: all at once.
    Mixed(Mixed),
    /// A million connections to a gateway of its own: reached, dropped, back, gone.
    #[command(
        mut_arg("connections", |argument| argument.default_value("1000000")),
        mut_arg("target", |argument| argument.default_value("127.0.0.1:21883")),
        mut_arg("api", |argument| argument.default_value("127.0.0.1:21700")),
        mut_arg("rate", |argument| argument.default_value("0"))
    )]
    C1m(C1m),
    /// Every row of the budgets that loadtest can measure, as a table.
    Budgets(Budgets),
    /// Bare sockets without a protocol: what the kernel asks for accept, receive and send.
    Floor(Floor),
    /// The same against several servers in turns, each started here, beside bare sockets.
    Compare(Compare),
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
    /// User name of every client, in which an `n` in braces stands for its number; without it each has one of its own.
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password of every client.
    #[arg(long, value_name = "TEXT", requires = "username")]
    pub password: Option<String>,
    /// MQTT within TLS, with servers whose certificate leads to one of this PEM file and has their IP address.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// MQTT within TLS, with any server.
    #[arg(long, conflicts_with = "ca")]
    pub insecure_tls: bool,
    /// Connections take up earlier handshakes; without it each is a whole one.
    #[arg(long)]
    pub tls_resume: bool,
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
    /// A step in which nothing moves for so many seconds is given up.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub patience: Seconds,
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
    /// Subscribers' sessions outlive their connections, so that QoS 1 and 2 are stored.
    #[arg(long)]
    pub keep_sessions: bool,
    /// Other clients, which are connected and do nothing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub idle: u32,
    /// Without the floor: the server alone.
    #[arg(long)]
    pub no_floor: bool,
}

#[derive(Args, Debug)]
pub struct Unicast {
    #[command(flatten)]
    pub common: Common,
    /// How messages reach the server.
    #[arg(long, value_enum, default_value_t = Via::Grpc)]
    pub via: Via,
    /// QoS of pushing and subscribing.
    #[arg(long, value_enum, default_value = "0")]
    pub qos: QosLevel,
    /// Bytes of the payload, at least 24.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=65_536))]
    pub payload: u32,
    /// Pushes in one batch at most.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: u32,
    /// Messages under way at most.
    #[arg(long, value_name = "W", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    pub window: u32,
    /// Messages a second that are due, whatever the server does; without it each is due when the window has room.
    #[arg(long, value_name = "N")]
    pub push_rate: Option<u32>,
    /// Pairs of a stretch against the server and one against the floor.
    #[arg(long, value_name = "K", default_value_t = 9)]
    pub pairs: u32,
    /// Length of a stretch, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub stretch: Seconds,
    /// Messages of a stretch, instead of its length.
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
    /// Sessions outlive their connections.
    #[arg(long)]
    pub keep_sessions: bool,
    /// Without the floor: the server alone.
    #[arg(long)]
    pub no_floor: bool,
}

#[derive(Args, Debug)]
pub struct Heartbeat {
    #[command(flatten)]
    pub common: Common,
    /// Heartbeats a second that are due; 0: as many as the window allows.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub beat_rate: u32,
    /// Answers that may be outstanding.
    #[arg(long, value_name = "W", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Sessions end with their connections.
    #[arg(long)]
    pub clean: bool,
    /// Pairs of a stretch against the server and one against the floor.
    #[arg(long, value_name = "K", default_value_t = 9)]
    pub pairs: u32,
    /// Length of a stretch, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub stretch: Seconds,
    /// Without the floor: the server alone.
    #[arg(long)]
    pub no_floor: bool,
}

/// `--connections` stay.
#[derive(Args, Debug)]
pub struct Churn {
    #[command(flatten)]
    pub common: Common,
    /// Clients that come and go.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub guests: u32,
    /// How often they do.
    #[arg(long, value_name = "K", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Sessions outlive their connections.
    #[arg(long)]
    pub keep_sessions: bool,
    /// What each connection subscribes to; an `n` in braces stands for the client's number.
    #[arg(long, value_name = "FILTER", default_value = "$inbox/#")]
    pub subscribe: String,
    /// QoS asked for.
    #[arg(long, value_enum, default_value = "0")]
    pub qos: QosLevel,
    /// Without the floor: the server alone.
    #[arg(long)]
    pub no_floor: bool,
    /// In turns with another gateway beside this one, where so many stay, instead of with the floor.
    #[arg(long, value_name = "N", requires = "spawn", conflicts_with = "no_floor")]
    pub beside: Option<u32>,
}

#[derive(Args, Debug)]
pub struct Storm {
    #[command(flatten)]
    pub common: Common,
    /// How often everybody drops and returns.
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub storms: u32,
    /// Handshakes under way at a time while they return.
    #[arg(long, value_name = "N", default_value_t = 4_000)]
    pub together: u32,
    /// Messages to everyone while all are away, each time; needs --api.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=32))]
    pub messages: u32,
    /// Clients that stand by and ping.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub standing: u32,
}

/// `--connections` are those of one stretch whose cost is measured, `--handshakes` at a time; `--rate` is that of the
/// floods beside which others ping.
#[derive(Args, Clone, Debug)]
pub struct Flood {
    #[command(flatten)]
    pub common: Common,
    /// Clients that stand by and ping.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub standing: u32,
    /// Pairs of a stretch against the gateway and one against the floor.
    #[arg(long, value_name = "K", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub pairs: u32,
    /// Length of a stretch beside which others ping, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub stretch: Seconds,
}

#[derive(Args, Debug)]
pub struct Slow {
    #[command(flatten)]
    pub common: Common,
    /// Of a hundred connections so many read slowly.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub slow_percent: u8,
    /// Of a hundred connections so many do not read.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=49))]
    pub stalled_percent: u8,
    /// Receives a second of one who reads slowly.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub sips: u32,
    /// QoS of publishing and subscribing; above 0 sessions outlive their connections and must miss nothing.
    #[arg(long, value_enum, default_value = "0")]
    pub qos: QosLevel,
    /// Bytes of the payload, at least 16.
    #[arg(long, value_name = "N", default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub payload: u32,
    /// Messages a second.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub publish_rate: u32,
    /// Messages under way at most to those who read. Together they must fit into the server's room for one connection,
    /// or it drops some for those who read as well.
    #[arg(long, value_name = "W", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub window: u32,
    /// How long messages are published, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub stretch: Seconds,
    /// So many messages, instead of a time.
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
}

/// `--connections` are idle but for their heartbeats and messages to single ones.
#[derive(Args, Debug)]
pub struct Mixed {
    #[command(flatten)]
    pub common: Common,
    /// Subscribers of one topic.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers: u32,
    /// Clients that come and go.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub guests: u32,
    /// Messages a second to that topic.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub publish_rate: u32,
    /// Messages a second to single clients, through the API; needs --api.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub push_rate: u32,
    /// Heartbeats a second.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub beat_rate: u32,
    /// Bytes of a payload, at least 24.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=65_536))]
    pub payload: u32,
    /// How long, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub stretch: Seconds,
}

#[derive(Args, Clone, Debug)]
pub struct C1m {
    #[command(flatten)]
    pub common: Common,
    /// Messages to single clients.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub unicasts: u32,
    /// Each client pings once within so many seconds; 0: none does.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub heartbeats: Seconds,
    /// Of a hundred connections so many drop and come back.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub drop_percent: u8,
    /// Connects, holds and leaves, nothing else.
    #[arg(long)]
    pub hold_only: bool,
}

#[derive(Args, Debug)]
pub struct Budgets {
    /// Only these rows, such as P1; others are left out.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Every count and every time divided by so much: a look, not a measurement.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub divide: u32,
    /// Longest time of one row's run, in seconds; then it is ended and the row is not met.
    #[arg(long, value_name = "SECONDS", default_value = "900", value_parser = seconds)]
    pub row_timeout: Seconds,
    /// The gateway's binary.
    #[arg(long, value_name = "PATH", default_value = "target/release/kittiwake")]
    pub gateway: PathBuf,
    /// The gateway's driver.
    #[arg(long, value_enum, default_value_t = DriverName::Auto)]
    pub gateway_driver: DriverName,
    /// Pins the server's processes to one CPU.
    #[arg(long, value_name = "CPU")]
    pub server_cpu: Option<usize>,
    /// Pins the client's processes to one CPU.
    #[arg(long, value_name = "CPU")]
    pub client_cpu: Option<usize>,
    /// The gateways store messages and sessions, each run's below this new directory; without it in memory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Port of the gateways that are started; their API has the next one.
    #[arg(long, value_name = "PORT", default_value_t = 21_883)]
    pub port: u16,
    /// Writes DIR/result.json, and each row's own result below DIR.
    #[arg(long, value_name = "DIR", default_value = "loadtest-report")]
    pub report: PathBuf,
}

#[derive(Args, Debug)]
pub struct Floor {
    /// Connections.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub connections: u32,
    /// Connections that are held before, to see what the kernel keeps of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub hold: u32,
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

/// What is not on this machine is left out; how to get it is said.
#[derive(Args, Debug)]
pub struct Compare {
    /// The servers, separated by commas; all without it.
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub servers: Vec<Target>,
    /// The rows, separated by commas; all without it. Set-up and memory are always there.
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// Subscribers of each server.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Bytes of the payload, at least 24.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(24..=4_096))]
    pub payload: u32,
    /// Stretches of each row against each server.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Length of a stretch, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub stretch: Seconds,
    /// Handshakes under way at a time.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub handshakes: u32,
    /// Pins every server, and the floor, to one CPU.
    #[arg(long, value_name = "CPU")]
    pub server_cpu: Option<usize>,
    /// Pins this process to one CPU.
    #[arg(long, value_name = "CPU")]
    pub client_cpu: Option<usize>,
    /// The client's own driver.
    #[arg(long, value_enum, default_value_t = DriverName::Auto)]
    pub driver: DriverName,
    /// The gateway's binary.
    #[arg(long, value_name = "PATH", default_value = "target/release/kittiwake")]
    pub gateway: PathBuf,
    /// Where a server's program is, if not on the PATH: mosquitto, nginx, nats-server, rumqttd or node.
    #[arg(long, value_name = "NAME=PATH", value_parser = program)]
    pub program: Vec<(String, PathBuf)>,
    /// Says which servers are here and how to get the others, and does nothing else.
    #[arg(long)]
    pub list: bool,
    /// Writes DIR/result.json, DIR/report.html and DIR/chart.svg.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// No progress bars.
    #[arg(long)]
    pub quiet: bool,
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("not NAME=PATH")?;
    // Servers are started in directories of their own.
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), path))
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
