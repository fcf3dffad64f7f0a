//! Owns: reading and checking the configuration.
//! In: a TOML file's text, `KITTIWAKE_SECTION_KEY` variables, flags. Out: [`Config`], plain validated data, or a
//! [`ConfigError`] of one line. Must not: open sockets, start threads, decide anything at run time.
//! Invariants: a key that is not in [`keys::KEYS`] is an error wherever it comes from; a flag beats the environment,
//! which beats the file, which beats the default; a [`Config`] that exists can be served.

mod api_keys;
mod defence;
pub mod keys;
mod layers;
mod listeners;
mod quotas;
pub mod tls;
pub mod token_keys;
mod topics;
mod webhook;

use crate::auth::{Lists, Pattern, Rules, UserTemplate};
use crate::base::ids::AppId;
use crate::base::prefix::Prefix;
use crate::io::probe::Choice;
use crate::limits;
use crate::push::ApiKey;
use crate::shard::{Defence, Door, Quota, TlsUse, TopicRules};
use crate::wire::http::{OriginError, Origins};
use axum::http::Uri;
use core::fmt;
use core::time::Duration;
use layers::{Values, one_line};
use std::net::SocketAddr;
use std::path::PathBuf;
use tls::TlsFiles;
use token_keys::TokenKeys;

/// What all our environment variables start with.
pub const ENVIRONMENT_PREFIX: &str = "KITTIWAKE_";

/// A mistake in the configuration, on one line: which key, what is wrong, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key as its author wrote it: `section.key`, the variable's name, or the flag.
    pub key: String,
    /// What is wrong.
    pub wrong: String,
    /// What is allowed.
    pub allowed: String,
}

impl ConfigError {
    fn new(key: &str, wrong: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { key: key.to_owned(), wrong: wrong.into(), allowed: allowed.into() }
    }

    /// A file that is not TOML.
    fn file(text: &str, error: &toml::de::Error) -> Self {
        let line =
            error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|&byte| byte == b'\n').count());
        Self::new("--config", format!("line {line}: {}", one_line(error.message())), "TOML: [section] and key = value")
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; allowed: {}", self.key, self.wrong, self.allowed)
    }
}

impl std::error::Error for ConfigError {}

/// Bounds an operator may change; the reasons for the defaults are in `limits.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node; `None`: what the machine can hold.
    pub max_connections: Option<usize>,
    /// Longest MQTT packet.
    pub packet_bytes: usize,
    /// Data waiting for one connection; at least `packet_bytes`.
    pub outbox_bytes: usize,
    /// Unacknowledged messages towards a device.
    pub receive_maximum_out: u16,
    /// Unacknowledged messages from a device.
    pub receive_maximum_in: u16,
    /// Subscriptions of a session.
    pub subscriptions: usize,
    /// Devices of a user.
    pub devices_per_user: usize,
    /// From accept to CONNECT.
    pub handshake_timeout: Duration,
    /// Idle limit of connections with keep alive 0.
    pub idle_timeout: Duration,
    /// TLS handshakes under way on one shard.
    pub tls_handshakes: usize,
    /// An event stream says something at least this often.
    pub sse_heartbeat: Duration,
    /// Payloads from this long on are packed for WebSockets that agree to it; `None`: it is not agreed to.
    pub deflate_bytes: Option<usize>,
    /// Longest session expiry granted.
    pub session_expiry_max: Duration,
    /// Messages an inbox keeps.
    pub inbox_entries: usize,
    /// How long an inbox keeps them.
    pub inbox_age: Duration,
    /// Retained messages of the node.
    pub retained_messages: usize,
    /// Bytes of their topics, payloads and properties.
    pub retained_bytes: usize,
    /// Bytes on their way in or out; `None`: so many a shard.
    pub buffer_bytes: Option<usize>,
    /// Events that an app's backends may still read.
    pub events_keep: usize,
    /// Bytes of what they hold.
    pub events_keep_bytes: u64,
    /// How long they may.
    pub events_keep_age: Duration,
}

/// Everything `serve` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where devices connect.
    pub edge_listen: Vec<SocketAddr>,
    /// What is spoken there.
    pub doors: Vec<Door>,
    /// Where certificates and their keys are; none: TLS is not spoken.
    pub tls: Option<TlsFiles>,
    /// Web pages that may connect.
    pub origins: Origins,
    /// Where the API listens.
    pub api_listen: SocketAddr,
    /// Who may use the API; none: whoever reaches it.
    pub api_keys: Vec<ApiKey>,
    /// Messages a second that each app may push; none: any.
    pub push_rate: Option<u32>,
    /// From where it may be used; none: from anywhere.
    pub api_allow: Vec<Prefix>,
    /// Shards; `None`: one per core.
    pub shards: Option<usize>,
    /// How shards wait on sockets.
    pub driver: Choice,
    /// Serve other hosts although nobody is authenticated.
    pub insecure: bool,
    /// Tenants, at least one; the first is `default`, which devices without a token belong to.
    pub apps: Vec<String>,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// Connections closed a second meanwhile; none: as many as it can.
    pub drain_rate: Option<usize>,
    /// Where MQTT 5 clients are sent while the node stops.
    pub server_reference: Option<Box<str>>,
    /// How often the node's figures are published on `$SYS`.
    pub sys_interval: Duration,
    /// Users who may subscribe to them.
    pub sys_users: Vec<String>,
    /// Where messages are stored; none: in memory.
    pub data_dir: Option<PathBuf>,
    /// Log lines are JSON.
    pub log_json: bool,
    /// The least important lines that are logged: error, warn, info or debug.
    pub log_level: String,
    /// Go on with what is left of a store that has lost something.
    pub accept_loss: bool,
    /// What is kept and shown of topics.
    pub topics: TopicRules,
    /// Where events are sent by HTTP; none: nowhere.
    pub webhook: Option<crate::push::webhook::Settings>,
    /// Template of the user's name.
    pub user_template: UserTemplate,
    /// How tokens are checked; none: nobody is asked for one.
    pub tokens: Option<Tokens>,
    /// Who is asked who devices are; none: nobody.
    pub hook: Option<Hook>,
    /// What devices may do.
    pub rights: Lists,
    /// Bounds.
    pub limits: Limits,
    /// Rates and bans.
    pub defence: Defence,
    /// What each app may have, by its number; empty: any.
    pub quotas: Vec<Quota>,
}

/// `auth.mode = "jwt"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The keys, or where they are.
    pub keys: TokenKeys,
    /// What tokens have to say.
    pub rules: Rules,
}

/// `auth.mode = "http"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Where the question goes: an `http` or `https` address with a host.
    pub url: Uri,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Questions at a time.
    pub in_flight: usize,
    /// How long a good answer holds.
    pub cache: Duration,
    /// How long a refusal holds.
    pub cache_denied: Duration,
}

/// What the command line of `serve` says; each is stronger than file and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`: the file.
    pub config: Option<PathBuf>,
    /// `--listen`, any number of times.
    pub listen: Vec<String>,
    /// `--api`.
    pub api: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// `--shards`.
    pub shards: Option<String>,
    /// `--driver`.
    pub driver: Option<String>,
    /// `--insecure`.
    pub insecure: bool,
    /// `--accept-loss`. It is no key: in a file it would accept every later loss, too.
    pub accept_loss: bool,
}

/// Reads the file that the flags name, then [`parse`]s it.
pub fn load(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let text = match &flags.config {
        None => None,
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(
                "--config",
                format!("cannot read {}: {error}", path.display()),
                "the path of a readable TOML file",
            )
        })?),
    };
    parse(text.as_deref(), environment, flags)
}

/// Whether a text can be an entry of `api.keys` where there are these apps.
pub fn check_api_key(entry: &str, apps: &[String]) -> Result<(), ConfigError> {
    api_keys::parse(&[entry.to_owned()], apps).map(drop)
}

/// Lays defaults, file, environment and flags over each other and checks what comes out.
pub fn parse(
    file: Option<&str>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
) -> Result<Config, ConfigError> {
    let mut values = Values::defaults();
    if let Some(text) = file {
        values.lay_file(text)?;
    }
    values.lay_environment(environment)?;
    lay_flags(&mut values, flags)?;
    let config = Config { accept_loss: flags.accept_loss, ..assemble(&values)? };
    check_doors(&config)?;
    check_exposure(&config)?;
    Ok(config)
}

fn lay_flags(values: &mut Values, flags: &Flags) -> Result<(), ConfigError> {
    if !flags.listen.is_empty() {
        values.lay_flag("edge.listen", "--listen", &flags.listen.join(","))?;
    }
    let texts = [
        ("api.listen", "--api", &flags.api),
        ("store.data_dir", "--data-dir", &flags.data_dir),
        ("node.shards", "--shards", &flags.shards),
        ("node.driver", "--driver", &flags.driver),
    ];
    for (key, flag, text) in texts {
        if let Some(text) = text {
            values.lay_flag(key, flag, text)?;
        }
    }
    if flags.insecure {
        values.lay_flag("node.insecure", "--insecure", "true")?;
    }
    Ok(())
}

fn assemble(values: &Values) -> Result<Config, ConfigError> {
    let (edge_listen, doors) = listeners::parse(values.list("edge.listen"))?;
    let limits = Limits {
        max_connections: whole(values, "limits.max_connections"),
        packet_bytes: size(values, "limits.packet_bytes"),
        outbox_bytes: size(values, "limits.outbox_bytes"),
        receive_maximum_out: short(values, "limits.receive_maximum_out"),
        receive_maximum_in: short(values, "limits.receive_maximum_in"),
        subscriptions: size(values, "limits.subscriptions"),
        devices_per_user: size(values, "limits.devices_per_user"),
        handshake_timeout: values.duration("limits.handshake_timeout"),
        idle_timeout: values.duration("limits.idle_timeout"),
        tls_handshakes: size(values, "limits.tls_handshakes"),
        sse_heartbeat: values.duration("edge.sse_heartbeat"),
        deflate_bytes: values.bool("edge.deflate").then(|| size(values, "edge.deflate_bytes")),
        session_expiry_max: values.duration("limits.session_expiry_max"),
        inbox_entries: size(values, "limits.inbox_entries"),
        inbox_age: values.duration("limits.inbox_age"),
        retained_messages: size(values, "limits.retained_messages"),
        retained_bytes: size(values, "limits.retained_bytes"),
        buffer_bytes: whole(values, "limits.buffer_bytes"),
        events_keep: size(values, "events.keep"),
        events_keep_bytes: values.integer("events.keep_bytes"),
        events_keep_age: values.duration("events.keep_age"),
    };
    if limits.outbox_bytes < limits.packet_bytes {
        return Err(ConfigError::new(
            "limits.outbox_bytes",
            format!("{} cannot hold a packet of limits.packet_bytes", limits.outbox_bytes),
            format!("at least {}", limits.packet_bytes),
        ));
    }
    let apps = apps(values.list("node.apps"))?;
    Ok(Config {
        edge_listen,
        push_rate: whole(values, "api.push_rate").and_then(|rate| u32::try_from(rate).ok()),
        doors,
        tls: tls::parse(values)?,
        api_keys: api_keys::parse(values.list("api.keys"), &apps)?,
        api_allow: api_keys::networks("api.allow", values.list("api.allow"))?,
        origins: origins(values.list("edge.origins"))?,
        api_listen: address("api.listen (--api)", values.text("api.listen"))?,
        shards: whole(values, "node.shards"),
        driver: match values.text("node.driver") {
            "io_uring" => Choice::IoUring,
            "epoll" => Choice::Epoll,
            _ => Choice::Auto,
        },
        insecure: values.bool("node.insecure"),
        drain_timeout: values.duration("node.drain_timeout"),
        drain_rate: whole(values, "node.drain_rate"),
        server_reference: server_reference(values.text("node.server_reference"))?,
        sys_interval: values.duration("node.sys_interval"),
        sys_users: values.list("auth.sys_users").to_vec(),
        data_dir: Some(values.text("store.data_dir")).filter(|text| !text.is_empty()).map(PathBuf::from),
        log_json: values.text("log.format") == "json",
        log_level: values.text("log.level").to_owned(),
        accept_loss: false,
        topics: topics::parse(topics::Lists {
            history: values.list("topics.history"),
            presence: values.list("topics.presence"),
            slow: values.list("topics.slow"),
            rate: values.list("topics.rate"),
        })?,
        webhook: webhook::parse(values, &apps)?,
        user_template: user_template(values.text("auth.user"))?,
        tokens: tokens(values, &apps)?,
        hook: hook(values)?,
        rights: Lists {
            publish: patterns(values, "auth.publish")?,
            subscribe: patterns(values, "auth.subscribe")?,
            publishers: topics::publishers(values.list("topics.publishers"))?,
        },
        quotas: quotas::parse(values.list("limits.quotas"), &apps)?,
        apps,
        limits,
        defence: defence::parse(values)?,
    })
}

fn address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        ConfigError::new(
            key,
            format!("`{}` is not an address", one_line(text)),
            "IP:PORT, such as 127.0.0.1:1883 or [::1]:1883",
        )
    })
}

fn origins(list: &[String]) -> Result<Origins, ConfigError> {
    Origins::new(list).map_err(|OriginError(text)| {
        let allowed = "SCHEME://HOST or SCHEME://HOST:PORT, such as https://example.com, or *";
        ConfigError::new("edge.origins", format!("`{}` is not an origin", one_line(&text)), allowed)
    })
}

/// 0 in the file means "decide yourself".
fn whole(values: &Values, name: &str) -> Option<usize> {
    Some(size(values, name)).filter(|&number| number > 0)
}

fn size(values: &Values, name: &str) -> usize {
    usize::try_from(values.integer(name)).expect("the table bounds every integer below 2^32")
}

fn short(values: &Values, name: &str) -> u16 {
    u16::try_from(values.integer(name)).expect("the table bounds this integer to 16 bits")
}

fn apps(names: &[String]) -> Result<Vec<String>, ConfigError> {
    let allowed =
        format!("`default` first, then at most {} other names of letters, digits, - and _", limits::APPS_MAX - 1);
    let error = |wrong: String| Err(ConfigError::new("node.apps", wrong, allowed.clone()));
    if names.first().map(String::as_str) != Some("default") {
        return error("devices without a token belong to `default`, which is not its first".to_owned());
    }
    if names.len() > limits::APPS_MAX {
        return error(format!("{} are too many", names.len()));
    }
    for (index, name) in names.iter().enumerate() {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if name.is_empty() || name.len() > limits::IDENTITY_BYTES_MAX || !plain {
            return error(format!("`{}` is not a name", one_line(name)));
        }
        if names[..index].contains(name) {
            return error(format!("`{name}` is there twice"));
        }
    }
    Ok(names.to_vec())
}

/// Names of apps joined by `+`; none: `*`, all. The error says what is wrong.
fn app_ids(names: &str, apps: &[String]) -> Result<Option<Vec<AppId>>, String> {
    if names == "*" {
        return Ok(None);
    }
    let id = |name: &str| {
        let index = apps.iter().position(|app| app == name);
        let id = index.and_then(|index| u16::try_from(index).ok()).map(AppId);
        id.ok_or_else(|| format!("`{}` is not an app of node.apps", one_line(name)))
    };
    names.split('+').map(id).collect::<Result<_, _>>().map(Some)
}

fn tokens(values: &Values, apps: &[String]) -> Result<Option<Tokens>, ConfigError> {
    let keys = token_keys::parse(values.list("auth.keys"), apps)?;
    match (values.text("auth.mode") == "jwt", keys.is_empty()) {
        (false, true) => Ok(None),
        (false, false) => {
            Err(ConfigError::new("auth.keys", "auth.mode is not jwt, so nobody is asked", "auth.mode jwt"))
        }
        (true, true) => Err(ConfigError::new("auth.keys", "it is empty, so that no token is good", "at least one")),
        (true, false) => {
            let text = |name| Some(values.text(name)).filter(|text| !text.is_empty()).map(Into::into);
            let (issuer, audience) = (text("auth.issuer"), text("auth.audience"));
            let rules = Rules { leeway: values.duration("auth.leeway"), issuer, audience };
            Ok(Some(Tokens { keys, rules }))
        }
    }
}

fn hook(values: &Values) -> Result<Option<Hook>, ConfigError> {
    let text = values.text("auth.url");
    let error = |wrong: &str| Err(ConfigError::new("auth.url", wrong, "http://HOST/PATH or https://HOST/PATH"));
    match (values.text("auth.mode") == "http", text.is_empty()) {
        (false, true) => return Ok(None),
        (false, false) => return Err(ConfigError::new("auth.url", "nobody is asked", "auth.mode http")),
        (true, true) => return error("it is empty, so that nobody can be asked"),
        (true, false) => {}
    }
    let url = text.parse::<Uri>().ok().filter(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    });
    // It may hold a password: it is not repeated.
    let Some(url) = url else { return error("it is no such address") };
    Ok(Some(Hook {
        url,
        timeout: values.duration("auth.timeout"),
        in_flight: size(values, "auth.in_flight"),
        cache: values.duration("auth.cache"),
        cache_denied: values.duration("auth.cache_denied"),
    }))
}

fn patterns(values: &Values, name: &str) -> Result<Option<Box<[Pattern]>>, ConfigError> {
    let list = values.list(name);
    if list.is_empty() {
        return Ok(None);
    }
    if list.len() > limits::AUTH_FILTERS_MAX {
        let allowed = format!("at most {}", limits::AUTH_FILTERS_MAX);
        return Err(ConfigError::new(name, format!("{} are too many", list.len()), allowed));
    }
    let pattern = |text: &String| {
        Pattern::parse(text).map_err(|wrong| {
            let allowed = "topic filters, in which {user} and {device} stand for names";
            ConfigError::new(name, format!("`{}` {wrong}", one_line(text)), allowed)
        })
    };
    list.iter().map(pattern).collect::<Result<_, _>>().map(Some)
}

/// Nothing is none.
fn server_reference(text: &str) -> Result<Option<Box<str>>, ConfigError> {
    if text.len() > limits::SERVER_REFERENCE_BYTES_MAX || text.contains('\0') {
        let wrong = "it is too long or has the character U+0000";
        let allowed = format!("a text of at most {} bytes", limits::SERVER_REFERENCE_BYTES_MAX);
        return Err(ConfigError::new("node.server_reference", wrong, allowed));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}

fn user_template(text: &str) -> Result<UserTemplate, ConfigError> {
    let error = |wrong: String| {
        let allowed =
            format!("text with {{username}} or {{client_id}}, or both, at most {} bytes", limits::IDENTITY_BYTES_MAX);
        ConfigError::new("auth.user", format!("`{}` {wrong}", one_line(text)), allowed)
    };
    if text.len() > limits::IDENTITY_BYTES_MAX || text.contains('\0') {
        return Err(error("is too long or has the character U+0000".to_owned()));
    }
    UserTemplate::parse(text).map_err(|wrong| error(wrong.to_string()))
}

/// A listener cannot ask for what is not configured.
fn check_doors(config: &Config) -> Result<(), ConfigError> {
    let secured = config.edge_listen.iter().zip(&config.doors).find(|(_, door)| door.tls == TlsUse::Always);
    match secured {
        Some((address, _)) if config.tls.is_none() => Err(ConfigError::new(
            "edge.listen (--listen)",
            format!("{address} is to speak TLS, and there is no certificate"),
            "tls=false, or a certificate in tls.certificates",
        )),
        _ => Ok(()),
    }
}

/// Whether nobody comes in at a listener without a certificate of its own.
fn asks_for_certificates(config: &Config, door: &Door) -> bool {
    door.tls == TlsUse::Always && config.tls.as_ref().is_some_and(|tls| tls.requires_client)
}

/// Who is not authenticated is served on an address that other hosts can reach only on demand: devices that show no
/// token, and callers of an API without keys.
fn check_exposure(config: &Config) -> Result<(), ConfigError> {
    if config.insecure {
        return Ok(());
    }
    let edge = config
        .edge_listen
        .iter()
        .zip(&config.doors)
        .filter(|(_, door)| config.tokens.is_none() && config.hook.is_none() && !asks_for_certificates(config, door))
        .map(|(address, _)| ("edge.listen (--listen)", address));
    let api = config.api_keys.is_empty().then_some(("api.listen (--api)", &config.api_listen));
    for (key, address) in edge.chain(api) {
        if !address.ip().to_canonical().is_loopback() {
            return Err(ConfigError::new(
                key,
                format!("{address} is reachable from other hosts and nobody is authenticated"),
                match key {
                    "api.listen (--api)" => "a loopback address, api.keys, or --insecure",
                    _ => {
                        "a loopback address, auth.mode jwt or http, tls=true with tls.client_certificates required, or --insecure"
                    }
                },
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
