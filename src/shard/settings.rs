//! What the data plane is told at start: validated plain data.

use super::quotas::Quota;
use crate::auth::{BanRule, Rights, UserTemplate};
use crate::base::bucket::Rate;
use crate::base::filter;
use crate::base::prefix::Prefix;
use crate::io::probe::Choice;
use crate::limits;
use crate::router::retained::Capacity;
use crate::session::Bounds;
use crate::store::{Retention, Retentions};
use crate::wire::http::Origins;
use crate::wire::tls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Everything the shards and the log need to know. Made by `config/`, already checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Shards, at least 1.
    pub shards: u16,
    /// Which driver.
    pub driver: Choice,
    /// Edge listeners.
    pub listen: Vec<SocketAddr>,
    /// What is spoken at each of them, in their order; at those beyond the list everything is.
    pub doors: Vec<Door>,
    /// TLS; none: without a certificate it is not spoken.
    pub tls: Option<tls::Server>,
    /// Tenants by name; the index is the [`crate::base::ids::AppId`].
    pub apps: Vec<String>,
    /// Where clients are sent while this node drains; none: they are told that it shuts down.
    pub server_reference: Option<Box<str>>,
    /// How mode `none` names users.
    pub user: UserTemplate,
    /// Devices show tokens, and are who those say; else they are who they say themselves.
    pub tokens: bool,
    /// Somebody else is asked who devices are; nobody is asked for a token then.
    pub hook: bool,
    /// What everybody may do.
    pub rights: Arc<Rights>,
    /// Users of the first app who may subscribe to the node's figures.
    pub sys_users: Vec<Box<str>>,
    /// Web pages that may connect.
    pub origins: Origins,
    /// Key of the hash that decides homes; drawn at start.
    pub hash_key: u64,
    /// Seed of epochs and server-assigned client identifiers; drawn at start.
    pub random_seed: u64,
    /// What is kept and shown of topics.
    pub topics: TopicRules,
    /// Bounds an operator may change.
    pub limits: Limits,
}

/// What is spoken at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Whether it is TLS.
    pub tls: TlsUse,
    /// What is spoken, within TLS or without.
    pub protocols: Protocols,
    /// Balancers, who have to say for whom they speak before anything else.
    pub proxies: Vec<Prefix>,
}

impl Door {
    /// Everything is spoken, by everybody for themselves.
    pub const OPEN: Self = Self { tls: TlsUse::Detected, protocols: Protocols::ALL, proxies: Vec::new() };
}

/// What a listener is that nothing is said of.
pub(super) static OPEN_DOOR: Door = Door::OPEN;

/// Whether TLS is spoken, where there is a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsUse {
    /// By nobody.
    Never,
    /// By who begins with a ClientHello.
    #[default]
    Detected,
    /// By everybody.
    Always,
}

/// Protocols of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// MQTT over TCP.
    pub mqtt: bool,
    /// MQTT over WebSocket.
    pub websocket: bool,
    /// Event streams.
    pub sse: bool,
    /// Polling.
    pub poll: bool,
}

impl Protocols {
    /// All of them.
    pub const ALL: Self = Self { mqtt: true, websocket: true, sse: true, poll: true };
}

/// What an operator wants of topics, by filter. Each list has at most `TOPIC_RULES_MAX`; none matches `$`-topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRules {
    /// Topics whose history is kept. The first rule that matches decides.
    pub history: Vec<HistoryRule>,
    /// Topics of which is shown who subscribes to them.
    pub presence: Vec<Box<str>>,
    /// What becomes of messages for a client that reads slowly. The first rule that matches decides.
    pub slow: Vec<SlowRule>,
    /// How many messages a topic takes. The first rule that matches decides.
    pub rate: Vec<RateRule>,
}

/// How many messages each of these topics takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// Which topics.
    pub filter: Box<str>,
    /// How many.
    pub rate: Rate,
}

/// What becomes of messages of these topics for a client that reads slowly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRule {
    /// Which topics.
    pub filter: Box<str>,
    /// What.
    pub policy: SlowPolicy,
}

/// What becomes of a message of QoS 0 that finds no room in its receiver's outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowPolicy {
    /// It is dropped.
    #[default]
    DropNewest,
    /// It waits, and the oldest that waits for this receiver is dropped when there are too many.
    DropOldest,
    /// It waits in place of the one that waits with the same key.
    Conflate,
    /// The receiver's connection is closed.
    Close,
}

/// How much of a topic is kept, for whoever asks and for sessions that are away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    /// Which topics.
    pub filter: Box<str>,
    /// Messages.
    pub entries: usize,
    /// For so long.
    pub age: Duration,
}

impl TopicRules {
    /// Whether all messages of a topic are logged, whoever listens.
    #[inline]
    pub(super) fn keep(&self, topic: &str) -> bool {
        self.history.iter().any(|rule| filter::matches(&rule.filter, topic))
    }

    /// What becomes of a topic's messages for a client that reads slowly.
    pub(super) fn slow(&self, topic: &str) -> SlowPolicy {
        let rule = self.slow.iter().find(|rule| filter::matches(&rule.filter, topic));
        rule.map_or(SlowPolicy::DropNewest, |rule| rule.policy)
    }

    /// How many messages a topic takes; none: any.
    pub(super) fn rate(&self, topic: &str) -> Option<Rate> {
        self.rate.iter().find(|rule| filter::matches(&rule.filter, topic)).map(|rule| rule.rate)
    }

    /// Whether it is shown who subscribes to a topic.
    pub(super) fn show(&self, topic: &str) -> bool {
        self.presence.iter().any(|rule| filter::matches(rule, topic))
    }
}

/// Bounds an operator may change, with their defaults from [`limits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the whole process.
    pub connections: usize,
    /// A whole packet, bytes.
    pub packet_bytes: usize,
    /// Data waiting for one connection, bytes.
    pub outbox_bytes: usize,
    /// In-flight messages towards a client.
    pub receive_maximum_out: u16,
    /// Unacknowledged messages of a client.
    pub receive_maximum_in: u16,
    /// Subscriptions a session.
    pub subscriptions: usize,
    /// Longest session expiry granted.
    pub session_expiry: Duration,
    /// CONNECT must arrive within.
    pub handshake_timeout: Duration,
    /// Idle limit of connections without a keep alive.
    pub idle_timeout: Duration,
    /// Handshakes of TLS that one shard has under way.
    pub tls_handshakes: usize,
    /// An event stream says something at least this often.
    pub sse_heartbeat: Duration,
    /// Payloads from this long on are packed for WebSockets that agree to it; none: it is not agreed to.
    pub deflate_bytes: Option<usize>,
    /// Devices of one user.
    pub devices_per_user: usize,
    /// A drain is over after this long, whoever is left.
    pub drain_within: Duration,
    /// Connections closed a second in a drain; none: as many as it can.
    pub drain_rate: Option<usize>,
    /// Inbox retention, entries.
    pub inbox_entries: usize,
    /// Inbox retention, age.
    pub inbox_age: Duration,
    /// Retained messages of the whole process.
    pub retained_messages: usize,
    /// Bytes of their topics, payloads and properties.
    pub retained_bytes: usize,
    /// Events that an app's backends may still read.
    pub events_entries: usize,
    /// Bytes of what they hold.
    pub events_bytes: u64,
    /// How long they may.
    pub events_age: Duration,
    /// Bytes of blocks and payloads that are on their way in or out, of the whole process; none: `POOL_BYTES_MAX` a shard.
    pub buffer_bytes: Option<usize>,
    /// Rates and bans.
    pub defence: Defence,
    /// What each app may have, by its number; those beyond the list any.
    pub quotas: Vec<Quota>,
}

/// Rates and bans. A rate that is none is not watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defence {
    /// What happens to whoever is over a rate, or banned.
    pub enforce: Enforce,
    /// Addresses that are never refused.
    pub allow: Vec<Prefix>,
    /// Connections of a source.
    pub connects: Option<Rate>,
    /// Connections of a user.
    pub user_connects: Option<Rate>,
    /// Publishes of a connection.
    pub publishes: Option<Rate>,
    /// Bytes of those.
    pub publish_bytes: Option<Rate>,
    /// What happens to whoever publishes more.
    pub over_publish: OverPublish,
    /// When somebody is banned.
    pub bans: BanRule,
}

/// What happens to whoever is over a rate, or banned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforce {
    /// It is refused.
    #[default]
    Refuse,
    /// It is let in, and counted.
    Alert,
    /// Nobody looks.
    Off,
}

/// What happens to a connection that publishes more than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverPublish {
    /// It is not read until it may again.
    #[default]
    Pause,
    /// It is closed, with 0x96.
    Close,
}

impl Default for Defence {
    fn default() -> Self {
        let rate = |per_second| Some(Rate { per_second, burst_seconds: limits::RATE_BURST_SECONDS });
        Self {
            enforce: Enforce::Refuse,
            allow: Vec::new(),
            connects: rate(limits::CONNECT_RATE),
            user_connects: rate(limits::USER_CONNECT_RATE),
            publishes: None,
            publish_bytes: None,
            over_publish: OverPublish::Pause,
            bans: BanRule { weight: limits::BAN_WEIGHT, time: limits::BAN_TIME, time_max: limits::BAN_TIME_MAX },
        }
    }
}

impl Settings {
    /// Connections one shard has room for: users do not spread quite evenly.
    pub(super) fn connections_per_shard(&self) -> usize {
        let even = self.limits.connections / usize::from(self.shards);
        if self.shards == 1 { even } else { even + even / 8 + 64 }
    }

    /// Sessions one shard has room for, connected or away.
    pub(super) fn sessions_per_shard(&self) -> usize {
        self.connections_per_shard() * limits::SESSIONS_PER_CONNECTION_MAX
    }

    /// Retained messages one shard has room for: its topics' share.
    pub(super) fn retained_per_shard(&self) -> Capacity {
        let shards = usize::from(self.shards);
        Capacity {
            messages: self.limits.retained_messages.div_ceil(shards),
            bytes: self.limits.retained_bytes.div_ceil(shards),
        }
    }

    /// What a session is given that has no rights of its own; none: there is nothing to refuse.
    pub(super) fn shared_rights(&self) -> Option<Arc<Rights>> {
        (!self.rights.node.is_empty()).then(|| Arc::clone(&self.rights))
    }

    /// What each engine is told.
    pub(super) fn engine(&self) -> crate::engine::Settings {
        crate::engine::Settings {
            connections_max: u32::try_from(self.connections_per_shard()).unwrap_or(limits::CONNECTIONS_MAX),
            pool_bytes_max: match self.limits.buffer_bytes {
                Some(bytes) => (bytes / usize::from(self.shards)).max(limits::POOL_BYTES_MIN),
                None => limits::POOL_BYTES_MAX,
            },
            frame_bytes_max: self.limits.packet_bytes,
            outbox_bytes_max: self.limits.outbox_bytes,
            handshake_timeout: self.limits.handshake_timeout,
            ..Default::default()
        }
    }

    /// What sessions may have.
    pub(super) fn sessions(&self) -> Bounds {
        let limits = &self.limits;
        let fits = "the configuration bounds it";
        Bounds {
            receive_maximum_out: u8::try_from(limits.receive_maximum_out).expect(fits),
            receive_maximum_in: limits.receive_maximum_in,
            subscriptions: u16::try_from(limits.subscriptions).expect(fits),
            expiry: u32::try_from(limits.session_expiry.as_secs()).expect(fits),
        }
    }

    /// What the store keeps: of each stream at least what a session that was away as long as it may has missed by then.
    pub fn retentions(&self) -> Retentions {
        let mut retentions = Retentions::default();
        retentions.inbox.entries = self.limits.inbox_entries;
        retentions.inbox.age = self.limits.inbox_age;
        retentions.upstream.entries = self.limits.events_entries;
        retentions.upstream.bytes = self.limits.events_bytes;
        retentions.upstream.age = self.limits.events_age;
        retentions.quotas = self.limits.quotas.iter().map(|quota| quota.stored_bytes).collect();
        let away = self.limits.session_expiry;
        retentions.inbox.forget_after = retentions.inbox.forget_after.max(self.limits.inbox_age).max(away);
        for topics in [&mut retentions.topic, &mut retentions.everyone] {
            topics.age = topics.age.max(away);
            topics.forget_after = topics.forget_after.max(topics.age);
        }
        let forget_after = retentions.topic.forget_after;
        let rule = |rule: &HistoryRule| {
            let kept = Retention::new(rule.entries, rule.age);
            (rule.filter.clone(), Retention { forget_after: forget_after.max(rule.age), ..kept })
        };
        retentions.history = self.topics.history.iter().map(rule).collect();
        retentions
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            packet_bytes: limits::PACKET_BYTES_MAX,
            outbox_bytes: limits::OUTBOX_BYTES_MAX,
            receive_maximum_out: limits::RECEIVE_MAXIMUM_OUT,
            receive_maximum_in: limits::RECEIVE_MAXIMUM_IN,
            subscriptions: limits::SUBSCRIPTIONS_MAX,
            session_expiry: limits::SESSION_EXPIRY_MAX,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            tls_handshakes: limits::TLS_HANDSHAKES_MAX,
            sse_heartbeat: limits::SSE_HEARTBEAT,
            deflate_bytes: Some(limits::DEFLATE_BYTES_MIN),
            devices_per_user: limits::DEVICES_PER_USER_MAX,
            drain_within: limits::DRAIN_TIMEOUT,
            drain_rate: None,
            inbox_entries: limits::INBOX_ENTRIES_MAX,
            inbox_age: limits::INBOX_AGE_MAX,
            retained_messages: limits::RETAINED_MESSAGES_MAX,
            retained_bytes: limits::RETAINED_BYTES_MAX,
            buffer_bytes: None,
            defence: Defence::default(),
            quotas: Vec::new(),
            events_entries: limits::UPSTREAM_ENTRIES_MAX,
            events_bytes: limits::UPSTREAM_BYTES_MAX,
            events_age: limits::UPSTREAM_AGE_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_kept_for_as_long_as_a_session_may_be_away() {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        for (away, topic_age, forgotten_after) in [(DAY, 7 * DAY, 30 * DAY), (90 * DAY, 90 * DAY, 90 * DAY)] {
            let limits = Limits { session_expiry: away, ..Limits::default() };
            let settings = Settings {
                server_reference: None,
                shards: 1,
                driver: Choice::default(),
                listen: Vec::new(),
                doors: Vec::new(),
                tls: None,
                apps: Vec::new(),
                user: UserTemplate::default(),
                tokens: false,
                hook: false,
                rights: Arc::default(),
                sys_users: Vec::new(),
                origins: Default::default(),
                hash_key: 0,
                random_seed: 0,
                topics: TopicRules::default(),
                limits,
            };
            let kept = settings.retentions();
            for topics in [kept.topic, kept.everyone] {
                assert!(topics.age == topic_age && topics.forget_after >= topic_age, "{topics:?}");
            }
            assert_eq!(kept.inbox.forget_after, forgotten_after);
            assert_eq!(settings.sessions().expiry, u32::try_from(away.as_secs()).expect("it is short"));
        }
    }
}
