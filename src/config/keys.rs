//! Every configuration key, once: its name, kind, bounds, default and what it is for. The file, the environment and
//! the flags are all read against this table, and a test holds README's table to it.

use crate::limits;
use core::time::Duration;

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its value when nobody sets it.
    pub default: Default,
    /// One line for people.
    pub about: &'static str,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number, both bounds included.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A number with a unit, both bounds included.
    Duration {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text; checked by what uses it.
    Text,
    /// Texts; in the environment separated by commas.
    List,
}

/// A default, as a constant.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// For [`Kind::Integer`].
    Integer(u64),
    /// For [`Kind::Duration`].
    Duration(Duration),
    /// For [`Kind::Bool`].
    Bool(bool),
    /// For [`Kind::Choice`] and [`Kind::Text`].
    Text(&'static str),
    /// For [`Kind::List`].
    List(&'static [&'static str]),
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
const YEAR: Duration = Duration::from_secs(366 * 24 * 3_600);

const fn key(name: &'static str, kind: Kind, default: Default, about: &'static str) -> Key {
    Key { name, kind, default, about }
}

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn duration(min: Duration, max: Duration) -> Kind {
    Kind::Duration { min, max }
}

/// All keys, in the order of README's table. A key's place is its index in the loader's values.
pub const KEYS: &[Key] = &[
    key(
        "edge.listen",
        Kind::List,
        Default::List(&["127.0.0.1:1883"]),
        "addresses that devices connect to, each with what is spoken there, see TLS",
    ),
    key(
        "edge.origins",
        Kind::List,
        Default::List(&[]),
        "web pages that may connect, as origins such as https://example.com, or *; none: those of the same host",
    ),
    key(
        "edge.sse_heartbeat",
        duration(SECOND, HOUR),
        Default::Duration(limits::SSE_HEARTBEAT),
        "an event stream that has nothing to say sends a comment this often",
    ),
    key("edge.deflate", Kind::Bool, Default::Bool(true), "pack messages for WebSockets that offer permessage-deflate"),
    key(
        "edge.deflate_bytes",
        integer(64, limits::DEFLATE_BYTES_MAX as u64),
        Default::Integer(limits::DEFLATE_BYTES_MIN as u64),
        "shortest payload that is packed; ones beyond 64 KiB are not either",
    ),
    key(
        "tls.certificates",
        Kind::List,
        Default::List(&[]),
        "certificates of the edge, each CHAIN:KEY, two PEM files, or one file with both; the first is shown to who asks for another name",
    ),
    key("tls.version_min", Kind::Choice(&["1.2", "1.3"]), Default::Text("1.2"), "oldest version of TLS that is spoken"),
    key(
        "tls.client_certificates",
        Kind::Choice(&["none", "optional", "required"]),
        Default::Text("none"),
        "whether devices show a certificate; who does is the user that it names",
    ),
    key("tls.client_ca", Kind::Text, Default::Text(""), "PEM file with the certificates that those of devices lead to"),
    key(
        "tls.client_user",
        Kind::Choice(&["cn", "dns", "uri"]),
        Default::Text("cn"),
        "where in a certificate the user stands: subject's common name, first DNS name or first URI",
    ),
    key(
        "tls.ticket_keys",
        Kind::Text,
        Default::Text(""),
        "file with the keys of resumption tickets, for nodes to share; none: drawn here, anew every 12 hours",
    ),
    key("api.listen", Kind::Text, Default::Text("127.0.0.1:7700"), "address of the API: HTTP with JSON, and gRPC"),
    key(
        "api.tls",
        Kind::Bool,
        Default::Bool(false),
        "the API speaks TLS, with the certificates of tls.certificates, and nothing else",
    ),
    key(
        "api.client_ca",
        Kind::Text,
        Default::Text(""),
        "PEM file with the certificates that those of callers lead to; with one, nobody calls without a certificate",
    ),
    key(
        "api.keys",
        Kind::List,
        Default::List(&[]),
        "keys of the API, each APPS:KEY with apps joined by + or *, as `kittiwake key` prints them: hashed, with scopes and addresses",
    ),
    key(
        "api.allow",
        Kind::List,
        Default::List(&[]),
        "addresses that the API answers, such as 10.0.0.0/8, whatever the key; none: all. Health is for everybody",
    ),
    key(
        "api.push_rate",
        integer(0, limits::RATE_MAX as u64),
        Default::Integer(0),
        "messages a second that one app may push, a list counting each user, ten times as many at once; 0: any",
    ),
    key(
        "node.shards",
        integer(0, limits::SHARDS_MAX as u64),
        Default::Integer(0),
        "event loop threads; 0: one per core",
    ),
    key(
        "node.driver",
        Kind::Choice(&["auto", "io_uring", "epoll"]),
        Default::Text("auto"),
        "how shards wait on sockets; auto: io_uring where it works, else epoll",
    ),
    key("node.insecure", Kind::Bool, Default::Bool(false), "serve other hosts although nobody is authenticated"),
    key("node.apps", Kind::List, Default::List(&["default"]), "tenants; devices without a token belong to the first"),
    key(
        "node.drain_timeout",
        duration(SECOND, HOUR),
        Default::Duration(limits::DRAIN_TIMEOUT),
        "how long a stop may take; what is left of connections shortly before is cut off",
    ),
    key(
        "node.drain_rate",
        integer(0, 10_000_000),
        Default::Integer(limits::DRAIN_RATE as u64),
        "connections closed a second while the node stops, more where the time would not do; 0: as many as it can",
    ),
    key(
        "node.server_reference",
        Kind::Text,
        Default::Text(""),
        "where MQTT 5 clients are sent while this node stops, in the words of their Server Reference",
    ),
    key(
        "node.sys_interval",
        duration(SECOND, HOUR),
        Default::Duration(limits::SYS_INTERVAL),
        "how often the node's figures are published on `$SYS/#`",
    ),
    key(
        "log.format",
        Kind::Choice(&["human", "json"]),
        Default::Text("human"),
        "how lines of the log are written, to stderr",
    ),
    key(
        "log.level",
        Kind::Choice(&["error", "warn", "info", "debug"]),
        Default::Text("info"),
        "how much is logged; what happens to single connections is followed by `POST /v1/log`",
    ),
    key(
        "topics.history",
        Kind::List,
        Default::List(&[]),
        "topics whose messages are kept, of every QoS, each FILTER=COUNT/AGE such as rooms/+=100/24h; the first that matches decides",
    ),
    key(
        "topics.presence",
        Kind::List,
        Default::List(&[]),
        "topics of which is told who subscribes to them by name, as filters",
    ),
    key(
        "topics.slow",
        Kind::List,
        Default::List(&[]),
        "what becomes of messages of QoS 0 for a client that reads slowly, each FILTER=POLICY such as ticks/#=conflate; the first that matches decides, without one it is drop_newest",
    ),
    key(
        "topics.publishers",
        Kind::List,
        Default::List(&[]),
        "users who alone may publish to topics, besides the API, each FILTER=USERS such as news/#=ann+bob; no user: the API alone; the first that matches decides",
    ),
    key(
        "topics.rate",
        Kind::List,
        Default::List(&[]),
        "messages a second that each topic takes, as many at once, whoever sends them, each FILTER=NUMBER such as chat/+=20; the first that matches decides",
    ),
    key(
        "store.data_dir",
        Kind::Text,
        Default::Text("kittiwake-data"),
        "directory of the durable store; empty: messages live in memory",
    ),
    key(
        "events.keep",
        integer(1, 100_000_000),
        Default::Integer(limits::UPSTREAM_ENTRIES_MAX as u64),
        "events of an app that are kept for its backends; the oldest go first, and who has not read them is told",
    ),
    key(
        "events.keep_bytes",
        integer(1 << 20, 1 << 40),
        Default::Integer(limits::UPSTREAM_BYTES_MAX),
        "bytes of what they hold; the oldest go first, likewise",
    ),
    key(
        "events.keep_age",
        duration(SECOND, YEAR),
        Default::Duration(limits::UPSTREAM_AGE_MAX),
        "how long they are kept",
    ),
    key("webhook.url", Kind::Text, Default::Text(""), "where events are sent by HTTP POST; empty: nowhere"),
    key("webhook.secret", Kind::Text, Default::Text(""), "what the requests are signed with, 16 to 256 bytes"),
    key("webhook.app", Kind::Text, Default::Text("default"), "the tenant whose events are sent"),
    key("webhook.connections", Kind::Bool, Default::Bool(false), "send devices that connect and disconnect"),
    key("webhook.receipts", Kind::Bool, Default::Bool(false), "send what becomes of messages at devices"),
    key(
        "webhook.publishes",
        Kind::List,
        Default::List(&[]),
        "send what clients publish to topics that match one of these filters",
    ),
    key(
        "webhook.batch",
        integer(1, limits::WEBHOOK_EVENTS_MAX as u64),
        Default::Integer(limits::WEBHOOK_EVENTS_MAX as u64),
        "events of one request",
    ),
    key(
        "webhook.timeout",
        duration(SECOND, Duration::from_secs(300)),
        Default::Duration(limits::WEBHOOK_TIMEOUT),
        "how long the backend has for its answer",
    ),
    key(
        "auth.mode",
        Kind::Choice(&["none", "jwt", "http"]),
        Default::Text("none"),
        "how devices prove who they are; jwt: each shows a token, whose `sub` is its user; http: auth.url is asked",
    ),
    key(
        "auth.url",
        Kind::Text,
        Default::Text(""),
        "in mode http: where what a device says of itself is posted as JSON, and who it is comes back",
    ),
    key(
        "auth.timeout",
        duration(Duration::from_millis(10), Duration::from_secs(60)),
        Default::Duration(Duration::from_secs(5)),
        "in mode http: who is not let in by then is not let in; below limits.handshake_timeout",
    ),
    key(
        "auth.in_flight",
        integer(1, limits::AUTH_HOOK_IN_FLIGHT_MAX as u64),
        Default::Integer(64),
        "in mode http: questions at a time; others wait, and when very many do, new ones are refused",
    ),
    key(
        "auth.cache",
        duration(Duration::ZERO, DAY),
        Default::Duration(Duration::from_secs(60)),
        "in mode http: how long a device that was let in is let in again without a question; 0s: never",
    ),
    key(
        "auth.cache_denied",
        duration(Duration::ZERO, HOUR),
        Default::Duration(Duration::from_secs(5)),
        "in mode http: how long one that was not let in is refused without a question; 0s: never",
    ),
    key(
        "auth.keys",
        Kind::List,
        Default::List(&[]),
        "what tokens are checked with, each ALGORITHM:APPS:SOURCE; files are read again when they change",
    ),
    key(
        "auth.leeway",
        duration(Duration::ZERO, Duration::from_secs(300)),
        Default::Duration(limits::AUTH_LEEWAY),
        "how far the clocks of whoever signs tokens may be from this machine's",
    ),
    key("auth.issuer", Kind::Text, Default::Text(""), "what the `iss` of tokens has to be"),
    key("auth.audience", Kind::Text, Default::Text(""), "what the `aud` of tokens has to name"),
    key(
        "auth.publish",
        Kind::List,
        Default::List(&[]),
        "topic filters that devices may publish inside of, with {user} and {device} for their names; none: all",
    ),
    key(
        "auth.subscribe",
        Kind::List,
        Default::List(&[]),
        "topic filters that subscriptions have to be inside of, likewise; none: all",
    ),
    key(
        "auth.user",
        Kind::Text,
        Default::Text("{username}"),
        "in mode none: user of a device, from {username} and {client_id}; where there is no user name, the client id",
    ),
    key("auth.sys_users", Kind::List, Default::List(&[]), "users of the default app who may subscribe to `$SYS/#`"),
    key(
        "limits.max_connections",
        integer(0, limits::NODE_CONNECTIONS_MAX as u64),
        Default::Integer(0),
        "connections of the node, an eighth and 64 more on each of several shards; 0: what this machine can hold",
    ),
    key(
        "limits.packet_bytes",
        integer(1_024, limits::PACKET_BYTES_CEILING as u64),
        Default::Integer(limits::PACKET_BYTES_MAX as u64),
        "longest MQTT packet, and what a push may become",
    ),
    key(
        "limits.outbox_bytes",
        integer(16 << 10, 64 << 20),
        Default::Integer(limits::OUTBOX_BYTES_MAX as u64),
        "data waiting for one connection; at least limits.packet_bytes",
    ),
    key(
        "limits.receive_maximum_out",
        integer(1, limits::RECEIVE_MAXIMUM_OUT_MAX as u64),
        Default::Integer(limits::RECEIVE_MAXIMUM_OUT as u64),
        "unacknowledged messages towards a device, which may ask for fewer",
    ),
    key(
        "limits.receive_maximum_in",
        integer(1, limits::RECEIVE_MAXIMUM_IN_MAX as u64),
        Default::Integer(limits::RECEIVE_MAXIMUM_IN as u64),
        "unacknowledged messages from a device",
    ),
    key(
        "limits.subscriptions",
        integer(1, limits::SUBSCRIPTIONS_MAX_MAX as u64),
        Default::Integer(limits::SUBSCRIPTIONS_MAX as u64),
        "subscriptions of a session",
    ),
    key(
        "limits.devices_per_user",
        integer(1, limits::DEVICES_PER_USER_MAX_MAX as u64),
        Default::Integer(limits::DEVICES_PER_USER_MAX as u64),
        "devices of a user; who has more already keeps them",
    ),
    key(
        "limits.handshake_timeout",
        duration(SECOND, HOUR),
        Default::Duration(limits::HANDSHAKE_TIMEOUT),
        "time from accept to CONNECT",
    ),
    key(
        "limits.tls_handshakes",
        integer(1, limits::GUESTS_MAX as u64),
        Default::Integer(limits::TLS_HANDSHAKES_MAX as u64),
        "TLS handshakes that one shard has under way; who comes then is refused",
    ),
    key(
        "limits.idle_timeout",
        duration(SECOND, YEAR),
        Default::Duration(limits::IDLE_TIMEOUT),
        "a connection with keep alive 0 ends after this long without a byte",
    ),
    key(
        "limits.session_expiry_max",
        duration(Duration::ZERO, YEAR),
        Default::Duration(limits::SESSION_EXPIRY_MAX),
        "longest life of a session without a connection; 0s: none outlives it",
    ),
    key(
        "limits.inbox_entries",
        integer(1, 10_000_000),
        Default::Integer(limits::INBOX_ENTRIES_MAX as u64),
        "messages an inbox keeps",
    ),
    key(
        "limits.inbox_age",
        duration(SECOND, YEAR),
        Default::Duration(limits::INBOX_AGE_MAX),
        "how long an inbox keeps them",
    ),
    key(
        "limits.retained_messages",
        integer(0, 100_000_000),
        Default::Integer(limits::RETAINED_MESSAGES_MAX as u64),
        "retained messages of the node, shared out among the shards",
    ),
    key(
        "limits.retained_bytes",
        integer(0, 1 << 40),
        Default::Integer(limits::RETAINED_BYTES_MAX as u64),
        "bytes of their topics, payloads and properties, likewise",
    ),
    key(
        "limits.buffer_bytes",
        integer(0, 1 << 40),
        Default::Integer(0),
        "bytes on their way in or out, shared out among the shards, at least 16 MiB each; 0: 256 MiB a shard",
    ),
    key(
        "limits.enforce",
        Kind::Choice(&["refuse", "alert", "off"]),
        Default::Text("refuse"),
        "what happens to whoever is over a rate or banned; alert: it is let in and counted",
    ),
    key(
        "limits.allow",
        Kind::List,
        Default::List(&["127.0.0.0/8", "::1"]),
        "addresses and ranges that are never refused for a rate or a ban of their address",
    ),
    key(
        "limits.connect_rate",
        integer(0, limits::RATE_MAX as u64),
        Default::Integer(limits::CONNECT_RATE as u64),
        "connections a second of one address (IPv6: one /64), ten times as many at once; 0: any",
    ),
    key(
        "limits.user_connect_rate",
        integer(0, limits::RATE_MAX as u64),
        Default::Integer(limits::USER_CONNECT_RATE as u64),
        "connections a second of one user, likewise",
    ),
    key(
        "limits.publish_rate",
        integer(0, limits::RATE_MAX as u64),
        Default::Integer(0),
        "publishes a second of one device, as many at once; 0: any",
    ),
    key(
        "limits.publish_bytes",
        integer(0, limits::RATE_MAX as u64),
        Default::Integer(0),
        "bytes a second of those, likewise",
    ),
    key(
        "limits.publish_over",
        Kind::Choice(&["pause", "close"]),
        Default::Text("pause"),
        "what happens to whoever publishes more: it is read more slowly, or closed with 0x96",
    ),
    key(
        "limits.quotas",
        Kind::List,
        Default::List(&[]),
        "what an app may have at most, each APPS:WHAT=NUMBER with apps joined by + or *, such as *:connections=10000; WHAT is connections, subscriptions, push_rate or stored_bytes; the first entry for an app decides",
    ),
    key(
        "limits.ban_weight",
        integer(0, limits::RATE_MAX as u64),
        Default::Integer(limits::BAN_WEIGHT as u64),
        "weight of recent offences from which on an address or a user is banned; 0: nobody is",
    ),
    key(
        "limits.ban_time",
        duration(SECOND, YEAR),
        Default::Duration(limits::BAN_TIME),
        "how long the first ban lasts; each further one lasts twice as long",
    ),
    key(
        "limits.ban_time_max",
        duration(SECOND, YEAR),
        Default::Duration(limits::BAN_TIME_MAX),
        "how long a ban lasts at most",
    ),
];

impl Key {
    /// `KITTIWAKE_SECTION_KEY`.
    pub fn environment(&self) -> String {
        format!("{}{}", super::ENVIRONMENT_PREFIX, self.name.replace('.', "_").to_uppercase())
    }

    /// What is allowed, for error lines and README.
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Integer { min, max } => format!("{min} to {max}"),
            Kind::Duration { min, max } => {
                format!("{} to {}, such as 500ms, 10s, 5m, 1h or 7d", format_duration(min), format_duration(max))
            }
            Kind::Bool => "true or false".to_owned(),
            Kind::Choice(words) => words.join(", "),
            Kind::Text => "text".to_owned(),
            Kind::List => "a list of texts".to_owned(),
        }
    }

    /// The default, as it would be written in the environment.
    pub fn default_text(&self) -> String {
        match self.default {
            Default::Integer(number) => number.to_string(),
            Default::Duration(duration) => format_duration(duration),
            Default::Bool(flag) => flag.to_string(),
            Default::Text(text) => text.to_owned(),
            Default::List(texts) => texts.join(","),
        }
    }
}

/// The largest unit that divides it: `7d`, `90s`, `1500ms`.
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(DAY, "d"), (HOUR, "h"), (Duration::from_secs(60), "m"), (SECOND, "s")];
    for (unit, name) in units {
        let unit = unit.as_millis();
        if milliseconds > 0 && milliseconds.is_multiple_of(unit) {
            return format!("{}{name}", milliseconds / unit);
        }
    }
    if milliseconds == 0 { "0s".to_owned() } else { format!("{milliseconds}ms") }
}

/// Reads `500ms`, `10s`, `5m`, `1h` or `7d`. `None`: not such a text, or too large for a duration.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
