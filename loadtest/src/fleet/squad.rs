//! A squad: clients that do the same thing, numbered in one piece.

use super::addresses::Routes;
use super::inboxes::Inboxes;
use super::ledger::{LATENCY_US_MAX, Ledger};
use super::sightings::Sightings;
use crate::figures::Checked;
use crate::foreign::Tongue;
use hdrhistogram::Histogram;
use kittiwake::base::ids::{ConnectionId, Qos};
use kittiwake::wire::mqtt::subscribe::{Filter, Filters};
use kittiwake::wire::mqtt::{Connect, PacketId, Publish, Subscribe, Version};
use std::borrow::Cow;
use std::time::Duration;

/// Bytes of a client id and of a user name.
const NAME_BYTES: usize = 20;

/// What a squad says on its connections.
#[derive(Clone, Debug)]
pub enum Speech {
    /// MQTT: CONNECT, then SUBSCRIBE if there is a filter.
    Mqtt(Mqtt),
    /// Nothing but acknowledgements; PUBLISH packets come without any handshake, carried so. What the floor's fan-out
    /// sends.
    Packets(Carriage),
    /// Nothing; any bytes come.
    Raw,
    /// What clients say that do not speak MQTT.
    Foreign(Foreign),
}

/// A client that does not speak MQTT.
#[derive(Clone, Debug)]
pub struct Foreign {
    pub tongue: Tongue,
    /// What it subscribes to, in which `{n}` stands for the client's number; none if it publishes.
    pub topic: Option<String>,
}

impl Speech {
    /// What it is if it is not MQTT.
    pub fn tongue(&self) -> Option<Tongue> {
        match self {
            Self::Foreign(foreign) => Some(foreign.tongue),
            _ => None,
        }
    }
}

impl Foreign {
    /// The topic of a client.
    pub fn topic_of(&self, number: u32) -> Option<Cow<'_, str>> {
        let topic = self.topic.as_deref()?;
        let own = topic.contains(NUMBER_MARK);
        Some(if own { Cow::Owned(topic.replace(NUMBER_MARK, &number.to_string())) } else { Cow::Borrowed(topic) })
    }
}

/// What carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// The socket itself.
    Tcp,
    /// Binary messages of a WebSocket.
    WebSocket,
}

/// An MQTT client; the version is that of the whole fleet.
#[derive(Clone, Debug)]
pub struct Mqtt {
    pub carriage: Carriage,
    /// Start of client id and user name; the client's number follows, up to 20 bytes.
    pub prefix: String,
    pub clean: bool,
    /// A PINGREQ so often.
    pub heartbeat: Option<Duration>,
    /// A filter, in which `{n}` stands for the client's number.
    pub subscription: Option<(String, Qos)>,
    pub reading: Reading,
}

/// What clients say of who they are, instead of a user name each.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `{n}` stands for the client's number.
    pub username: String,
    pub password: Option<String>,
}

/// How a client reads once it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// All that comes.
    #[default]
    Freely,
    /// Only when told to, once each time.
    WhenTold,
}

/// Stands for a client's number in filters and topics.
pub const NUMBER_MARK: &str = "{n}";

/// How long a session outlives its connection where the client says so, in seconds: a day.
const SESSION_EXPIRY_SECONDS: u32 = 86_400;

/// The identifier of a client's only SUBSCRIBE.
pub const SUBSCRIBE_ID: PacketId = PacketId::MIN;

/// A squad and how it fares.
#[derive(Debug)]
pub struct Squad {
    /// Number of its first member in the fleet.
    pub first: u32,
    pub count: u32,
    pub routes: Routes,
    pub speech: Speech,
    /// Members ready: connected, and subscribed if they are to be.
    pub ready: u32,
    /// Members that have left as told.
    pub left: u32,
    /// What is to reach all of it.
    pub ledger: Option<Ledger>,
    /// What may reach it, where its members read slowly.
    pub sightings: Option<Sightings>,
    /// What is to reach single members.
    pub inboxes: Option<Inboxes>,
    /// Answers to [`super::orders::Beat`].
    pub beats: Beats,
    /// Bytes received, for [`Speech::Raw`].
    pub bytes: u64,
    /// PUBACK and PUBCOMP received, for publishers.
    pub acknowledged: u64,
}

/// Heartbeats of a squad.
#[derive(Debug)]
pub struct Beats {
    pub sent: u64,
    /// Answers that were waited for.
    pub answered: u64,
    /// Answers that nobody had asked for, or that were not what was asked for.
    pub foreign: u64,
    /// From when a heartbeat was due to its answer, in microseconds.
    pub latency: Histogram<u64>,
}

impl Default for Beats {
    fn default() -> Self {
        let latency = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("three digits of ten minutes can be kept");
        Self { sent: 0, answered: 0, foreign: 0, latency }
    }
}

impl Beats {
    /// What came of what was sent.
    pub fn checked(&self) -> Checked {
        let missing = self.sent - self.answered;
        Checked { expected: self.sent, right: self.answered, missing, foreign: self.foreign, ..Checked::default() }
    }
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not connected.
    Out,
    /// Waits for the answer to its request for a WebSocket.
    Upgrading,
    /// Waits for CONNACK.
    Connecting,
    /// Waits for SUBACK.
    Subscribing,
    Ready,
    /// Said DISCONNECT.
    Leaving,
}

/// One client.
#[derive(Debug)]
pub struct Member {
    pub id: Option<ConnectionId>,
    /// The number it must get next.
    pub next: u32,
    pub squad: u8,
    pub stage: Stage,
    pub attempts: u8,
    /// Waits for the answer to a [`super::orders::Beat`].
    pub beating: bool,
}

impl Mqtt {
    /// Says the CONNECT of a client.
    pub fn connect<R>(
        &self,
        version: Version,
        number: u32,
        credentials: Option<&Credentials>,
        say: impl FnOnce(&Connect<'_>) -> R,
    ) -> R {
        let mut name = [b'0'; NAME_BYTES];
        let name = name_of(&self.prefix, number, &mut name);
        let mut connect = Connect::new(version, name);
        connect.clean_start = self.clean;
        if version == Version::V5 && !self.clean {
            connect.properties.session_expiry_seconds = Some(SESSION_EXPIRY_SECONDS);
        }
        let told = credentials.map(|told| told.username.replace(NUMBER_MARK, &number.to_string()));
        connect.user_name = Some(told.as_deref().unwrap_or(name));
        connect.password = credentials.and_then(|told| told.password.as_deref()).map(str::as_bytes);
        connect.keep_alive_seconds = self
            .heartbeat
            .map_or(0, |pause| u16::try_from(pause.as_secs().saturating_mul(2).max(1)).unwrap_or(u16::MAX));
        say(&connect)
    }

    /// Says the SUBSCRIBE of a client, if it subscribes.
    pub fn subscribe<R>(&self, number: u32, say: impl FnOnce(&Subscribe<'_>) -> R) -> Option<R> {
        let (filter, qos) = self.subscription.as_ref()?;
        let own = filter.contains(NUMBER_MARK).then(|| filter.replace(NUMBER_MARK, &number.to_string()));
        let filters = [Filter::new(own.as_deref().unwrap_or(filter), *qos)];
        let filters = Filters::borrowed(&filters);
        Some(say(&Subscribe { packet_id: SUBSCRIBE_ID, properties: Default::default(), filters }))
    }
}

/// The user name, and client id, of a client.
pub fn user_name(prefix: &str, number: u32) -> String {
    name_of(prefix, number, &mut [b'0'; NAME_BYTES]).to_owned()
}

/// The prefix and the number, 20 bytes in all unless the prefix leaves too little room.
fn name_of<'a>(prefix: &str, number: u32, out: &'a mut [u8; NAME_BYTES]) -> &'a str {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let prefix = &prefix.as_bytes()[..prefix.len().min(NAME_BYTES - digits)];
    out[..prefix.len()].copy_from_slice(prefix);
    let mut rest = number;
    for digit in out[prefix.len()..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    core::str::from_utf8(out).expect("the command line allows ASCII prefixes alone")
}

/// A PUBLISH as publishers send it and the floor's server passes it on.
pub fn publish<'a>(topic: &'a str, qos: Qos, number: u64, payload: &'a [u8]) -> Publish<'a> {
    let packet_id = (qos != Qos::AtMostOnce).then(|| {
        let id = (number % u64::from(u16::MAX)) as u16 + 1;
        PacketId::new(id).expect("it is above 0")
    });
    Publish { dup: false, qos, retain: false, topic, packet_id, properties: Default::default(), payload }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_twenty_bytes_and_differ() {
        let mut out = [b'0'; NAME_BYTES];
        assert_eq!(name_of("k", 0, &mut out), "k0000000000000000000");
        let mut out = [b'0'; NAME_BYTES];
        assert_eq!(name_of("k", 1_234_567, &mut out), "k0000000000001234567");
        let mut out = [b'0'; NAME_BYTES];
        assert_eq!(name_of("a-prefix-that-is-much-too-long", 42, &mut out), "a-prefix-that-is-m42");
    }

    #[test]
    fn credentials_replace_the_name_that_each_client_has() {
        let speech = Mqtt {
            carriage: Carriage::Tcp,
            prefix: "k".to_owned(),
            clean: true,
            heartbeat: None,
            subscription: None,
            reading: Reading::Freely,
        };
        let said = |credentials: Option<&Credentials>| {
            speech.connect(Version::V311, 7, credentials, |connect| {
                (connect.user_name.map(str::to_owned), connect.password.map(<[u8]>::to_vec))
            })
        };
        assert_eq!(said(None), (Some("k0000000000000000007".to_owned()), None));
        let told = Credentials { username: "user-{n}".to_owned(), password: Some("secret".to_owned()) };
        assert_eq!(said(Some(&told)), (Some("user-7".to_owned()), Some(b"secret".to_vec())));
    }

    #[test]
    fn packet_ids_of_publishers_are_never_zero() {
        for number in [0, 65_534, 65_535, u64::MAX] {
            assert!(publish("t", Qos::AtLeastOnce, number, b"").packet_id.is_some());
        }
    }
}
