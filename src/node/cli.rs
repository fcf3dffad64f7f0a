//! The command line.

use super::doctor::DoctorArguments;
use crate::config::keys::parse_duration;
use crate::config::{self, Flags};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A push gateway: holds millions of long connections and delivers what backends hand it.
#[derive(Parser)]
#[command(name = "kittiwake", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve devices and backends.
    Serve(ServeArguments),
    /// Push a message through the API and print the reply.
    Push(PushArguments),
    /// Connect as a device and print what arrives.
    Sub(SubArguments),
    /// Sign a token that a device can show.
    Token(TokenArguments),
    /// Draw a key for the API: print it once, and the entry of `api.keys` that knows it by its hash.
    Key(KeyArguments),
    /// Check this machine for a number of connections: each limit, what to set, why.
    Doctor(DoctorArguments),
}

// Values that are also configuration keys stay texts here: one place checks them and words the error.
#[derive(Args)]
struct ServeArguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where devices connect; may be given more than once.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// Where the API listens.
    #[arg(long, value_name = "ADDR")]
    api: Option<String>,
    /// Directory of the durable store; empty: messages live in memory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Event loop threads; 0: one per core.
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// auto, io_uring or epoll.
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,
    /// Serve other hosts although nobody is authenticated.
    #[arg(long)]
    insecure: bool,
    /// Go on with what is left of a store that has lost something; all streams get new epochs.
    #[arg(long)]
    accept_loss: bool,
}

/// What `push` was asked to do.
#[derive(Args)]
#[command(group = ArgGroup::new("target").required(true).args(["user", "topic", "device", "everyone"]))]
pub(super) struct PushArguments {
    /// To a user's inbox.
    #[arg(long, value_name = "U")]
    pub(super) user: Option<String>,
    /// To a topic.
    #[arg(long, value_name = "T")]
    pub(super) topic: Option<String>,
    /// To one device of a user.
    #[arg(long, value_name = "U/D")]
    pub(super) device: Option<String>,
    /// To every session.
    #[arg(long)]
    pub(super) everyone: bool,
    /// Label of the inbox message: it arrives as $inbox/LABEL.
    #[arg(long, value_name = "L")]
    pub(super) label: Option<String>,
    /// 0, 1 or 2.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) qos: Option<u8>,
    /// How long it is worth delivering: 500ms, 10s, 5m, 1h, 7d.
    #[arg(long, value_parser = duration_argument)]
    pub(super) ttl: Option<core::time::Duration>,
    /// Idempotency key.
    #[arg(long, value_name = "K")]
    pub(super) key: Option<String>,
    /// accepted or stored.
    #[arg(long, value_name = "WHEN")]
    pub(super) wait: Option<String>,
    /// The API.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7700")]
    pub(super) api: String,
    /// PEM file with the certificates that the API's leads to; without one, those that the system trusts.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Take any certificate for the API's: nobody knows then who reads the push and its key.
    #[arg(long, conflicts_with = "ca")]
    pub(super) insecure_tls: bool,
    /// Bearer key of the API.
    #[arg(long, value_name = "K")]
    pub(super) api_key: Option<String>,
    /// The app.
    #[arg(long, value_name = "A")]
    pub(super) app: Option<String>,
    /// The payload; `-` reads it from stdin; none is an empty one.
    #[arg(value_name = "PAYLOAD")]
    pub(super) payload: Option<String>,
}

/// What `sub` was asked to do.
#[derive(Args)]
pub(super) struct SubArguments {
    /// mqtt://HOST:PORT, ws://HOST:PORT/PATH, or mqtts and wss for TLS.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    pub(super) url: String,
    /// The user to be.
    #[arg(long, value_name = "U")]
    pub(super) user: Option<String>,
    /// The device to be: a name makes the session outlive the connection; without one the server assigns it.
    #[arg(long, value_name = "D")]
    pub(super) device: Option<String>,
    /// Token, sent as the MQTT password.
    #[arg(long, value_name = "T")]
    pub(super) token: Option<String>,
    /// PEM file with the certificates that the server's leads to; without one, those that the system trusts.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Take any certificate for the server's: nobody knows then who reads the token and who sends.
    #[arg(long, conflicts_with = "ca")]
    pub(super) insecure_tls: bool,
    /// QoS asked for: 0, 1 or 2.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) qos: u8,
    /// What to subscribe to.
    #[arg(value_name = "FILTER", required = true)]
    pub(super) filters: Vec<String>,
}

/// What `token` was asked to sign.
#[derive(Args)]
pub(super) struct TokenArguments {
    /// The configuration file, whose auth.keys sign.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The user that its bearer is.
    #[arg(long, value_name = "U")]
    pub(super) user: String,
    /// The app; without it, the first one of the key.
    #[arg(long, value_name = "A")]
    pub(super) app: Option<String>,
    /// How long it is good: 10s, 5m, 1h, 7d.
    #[arg(long, default_value = "1h", value_parser = duration_argument)]
    pub(super) ttl: core::time::Duration,
    /// What its bearer may publish inside of; may be given more than once.
    #[arg(long, value_name = "F")]
    pub(super) publish: Vec<String>,
    /// What its bearer may subscribe inside of; may be given more than once.
    #[arg(long, value_name = "F")]
    pub(super) subscribe: Vec<String>,
    /// A private key (PEM) to sign with, instead of the configured secret.
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// The name of that key.
    #[arg(long, value_name = "ID", requires = "key")]
    pub(super) key_id: Option<String>,
}

/// What key was asked for.
#[derive(Args)]
pub(super) struct KeyArguments {
    /// The apps it may speak for; may be given more than once. None: all of them, and the node as a whole.
    #[arg(long = "app", value_name = "A")]
    pub(super) apps: Vec<String>,
    /// push, read, events or admin; may be given more than once. None: all of them.
    #[arg(long = "scope", value_name = "S")]
    pub(super) scopes: Vec<String>,
    /// An address or a prefix such as 10.0.0.0/8 that it is good from; may be given more than once. None: anywhere.
    #[arg(long = "from", value_name = "NETWORK")]
    pub(super) from: Vec<String>,
    /// A key of this name that signs requests and is never sent. It stands in the configuration as it is.
    #[arg(long, value_name = "NAME")]
    pub(super) sign: Option<String>,
}

fn duration_argument(text: &str) -> Result<core::time::Duration, String> {
    parse_duration(text).ok_or_else(|| "allowed: a number with ms, s, m, h or d".to_owned())
}

/// Why the process ends with another code than 0.
pub(super) enum Failure {
    /// 1: something did not work.
    Runtime(String),
    /// 2: the person asked for something impossible.
    Usage(String),
}

/// Runs the command that the process was started with. See [`crate::shard::start`] for `give_back`.
pub fn run(give_back: fn()) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    let result = match arguments.command {
        Command::Serve(serve) => self::serve(serve, give_back),
        Command::Push(push) => super::push_client::run(&push),
        Command::Sub(sub) => super::sub::run(&sub),
        Command::Token(token) => self::token(token),
        Command::Key(key) => super::key::run(&key),
        Command::Doctor(doctor) => super::doctor::run(&doctor),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Runtime(line)) => fail(&line, 1),
        Err(Failure::Usage(line)) => fail(&line, 2),
    }
}

/// Help and version are answers; anything else is bad usage, on one line.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody is left to tell when stdout is closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Its text is the help, whose first line does not say what is wrong.
        let commands = Arguments::command();
        let names: Vec<_> = commands.get_subcommands().map(clap::Command::get_name).collect();
        return fail(&format!("no command; allowed: {} (see kittiwake --help)", names.join(", ")), 2);
    }
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let joined = lines.filter(|line| !line.is_empty()).fold(first, |joined, line| joined + " " + line);
    fail(&format!("{} (see kittiwake --help)", joined.trim()), 2)
}

fn fail(line: &str, code: u8) -> ExitCode {
    // Nobody is left to tell when stderr is closed; the code still says it.
    let _ = writeln!(std::io::stderr(), "kittiwake: {line}");
    ExitCode::from(code)
}

fn serve(arguments: ServeArguments, give_back: fn()) -> Result<(), Failure> {
    let ServeArguments { config, listen, api, data_dir, shards, driver, insecure, accept_loss } = arguments;
    let flags = Flags { config, listen, api, data_dir, shards, driver, insecure, accept_loss };
    let config = config::load(&flags, environment()?).map_err(|error| Failure::Usage(error.to_string()))?;
    super::serve::run(&config, give_back)
}

fn token(mut arguments: TokenArguments) -> Result<(), Failure> {
    let flags = Flags { config: arguments.config.take(), ..Flags::default() };
    let config = config::load(&flags, environment()?).map_err(|error| Failure::Usage(error.to_string()))?;
    super::token::run(&arguments, &config)
}

/// Our variables. One that is not UTF-8 is an error, like any other value that cannot be read.
fn environment() -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(config::ENVIRONMENT_PREFIX)) else {
            continue;
        };
        let value = value
            .into_string()
            .map_err(|_| Failure::Usage(format!("{name}: the value is not UTF-8; allowed: UTF-8")))?;
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}
