//! Encode once: a pass's messages as each kind of subscriber gets them. A flavour is (dialect, granted QoS, retain as
//! published); its frames stand one after the other, so that a subscriber of QoS 0 is served by one copy.

use super::deflating::Framed;
use super::fanout::Parcel;
use crate::base::ids::{Epoch, Offset, Qos};
use crate::base::message::Message;
use crate::limits::SHARED_SEGMENT_BYTES_MIN;
use crate::router::fanout::PassId;
use crate::router::subscribers::Options;
use crate::session::{Naming, OnlyStream, Protocol, Session};
use crate::wire::json::Said;
use crate::wire::mqtt::properties::{PublishProperties, SubscriptionId, SubscriptionIds, TopicAlias, UserProperties};
use crate::wire::mqtt::{PacketId, Publish, PublishLayout, Version};
use crate::wire::sse::{self, EventLayout, Format, Mark};
use bytes::Bytes;
use smallvec::SmallVec;

/// Flavours of one pass, kept until another pass is visited.
#[derive(Debug, Default)]
pub(crate) struct Flavours {
    pass: PassId,
    kept: [Flavour; KINDS],
}

const MQTT_KINDS: usize = 2 * 3 * 2;
/// Format, QoS 0 or 1, token or not.
const SSE_KINDS: usize = 2 * 2 * 2;
const KINDS: usize = MQTT_KINDS + SSE_KINDS;

/// How a session's messages are encoded: the one place where that is asked of its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Mqtt(Version),
    Sse(Format, Ids),
}

/// Which ids an event stream's logged messages bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    /// None: what goes to everyone has no place in an inbox.
    None,
    /// `EPOCH:OFFSET` of the one stream.
    Place,
    /// A token over several streams, the connection's own.
    Token,
}

impl Dialect {
    /// For messages of the topics that a session subscribes to.
    pub(crate) fn of_topics(session: &Session) -> Self {
        Self::of(session, false)
    }

    /// For one message. An epoch names one stream, so it tells whether that is the session's inbox.
    pub(crate) fn of_message(session: &Session, place: Option<(Epoch, Offset)>) -> Self {
        Self::of(session, place.is_some_and(|(epoch, _)| epoch == session.inbox_epoch()))
    }

    fn of(session: &Session, in_inbox: bool) -> Self {
        match session.protocol() {
            Protocol::Mqtt311 => Self::Mqtt(Version::V311),
            Protocol::Mqtt5 => Self::Mqtt(Version::V5),
            Protocol::Poll => unreachable!("what a poll gets is gathered, not sent"),
            Protocol::Sse { raw } => {
                let format = if raw { Format::Raw } else { Format::Json };
                let ids = match (session.only_stream(), in_inbox) {
                    (OnlyStream::Several, _) => Ids::Token,
                    (OnlyStream::Inbox, true) | (OnlyStream::Topic, false) => Ids::Place,
                    (OnlyStream::Inbox, false) | (OnlyStream::Topic, true) => Ids::None,
                };
                Self::Sse(format, ids)
            }
        }
    }

    /// The flavour's number.
    fn kind(self, options: Options) -> usize {
        match self {
            Self::Mqtt(version) => {
                usize::from(version == Version::V5) * 6
                    + usize::from(options.qos() as u8) * 2
                    + usize::from(options.retain_as_published())
            }
            Self::Sse(format, ids) => {
                assert!(ids != Ids::None, "who is in a topic's list has a position in it");
                let qos = usize::from(options.qos() > Qos::AtMostOnce);
                MQTT_KINDS + usize::from(format == Format::Raw) * 4 + qos * 2 + usize::from(ids == Ids::Token)
            }
        }
    }
}

/// Which flavour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind(usize);

/// One flavour. Its buffers are used again for the next pass.
#[derive(Debug, Default)]
pub(crate) struct Flavour {
    is_encoded: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Frame>,
    /// What all frames have, if they have one. At QoS 0 nothing of them is a connection's own.
    qos: Option<Qos>,
    /// When the first one's time is over: a pass may take longer than that.
    expires_ms: Option<u64>,
    /// Every frame has its payload in `bytes`: all of `bytes` may be copied at once.
    pub(crate) is_whole: bool,
    /// Of the longest frame.
    pub(crate) frame_bytes: usize,
    /// Of all frames, payloads that are sent by reference too.
    pub(crate) all_bytes: usize,
    /// Of the longest payload.
    pub(crate) payload_bytes: usize,
    /// The same for who takes packed messages; made at the first such visit.
    pub(super) framed: Framed,
}

/// One message in a flavour.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Where it begins in `bytes`.
    pub(crate) start: usize,
    /// One past its end there.
    pub(crate) end: usize,
    /// A large payload, sent by reference behind the head in `bytes`.
    pub(crate) payload: Option<Bytes>,
    /// The smaller of the message's and the subscription's.
    pub(crate) qos: Qos,
    /// Of the whole frame.
    pub(crate) total_bytes: usize,
    pub(crate) layout: Layout,
}

/// Where a frame is to be made a connection's own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    Mqtt(PublishLayout),
    Sse(EventLayout),
}

impl Flavours {
    /// Where the flavour of a subscriber is kept; it is encoded at its first call in a pass.
    pub(crate) fn find(
        &mut self,
        pass: PassId,
        dialect: Dialect,
        options: Options,
        parcels: &[Parcel],
        wall_ms: u64,
    ) -> Kind {
        if self.pass != pass {
            self.pass = pass;
            self.kept.iter_mut().for_each(|flavour| flavour.is_encoded = false);
        }
        let kind = dialect.kind(options);
        let flavour = &mut self.kept[kind];
        if !flavour.is_encoded {
            flavour.encode(dialect, options, parcels, wall_ms);
        }
        Kind(kind)
    }

    /// A flavour of the pass visited last.
    pub(crate) fn of(&self, Kind(kind): Kind) -> &Flavour {
        &self.kept[kind]
    }

    pub(super) fn of_mut(&mut self, Kind(kind): Kind) -> &mut Flavour {
        &mut self.kept[kind]
    }
}

impl Flavour {
    /// What all frames have, if they have one and the time of none is over.
    pub(crate) fn qos_at(&self, wall_ms: u64) -> Option<Qos> {
        self.qos.filter(|_| self.expires_ms.is_none_or(|at| at > wall_ms))
    }

    fn encode(&mut self, dialect: Dialect, options: Options, parcels: &[Parcel], wall_ms: u64) {
        self.is_encoded = true;
        self.bytes.clear();
        self.frames.clear();
        self.framed.forget();
        self.expires_ms = parcels.iter().filter_map(|parcel| parcel.message.expires_ms).min();
        (self.qos, self.is_whole) = (parcels.first().map(|parcel| parcel.message.qos.min(options.qos())), true);
        (self.frame_bytes, self.all_bytes, self.payload_bytes) = (0, 0, 0);
        for parcel in parcels {
            let message = &*parcel.message;
            let qos = message.qos.min(options.qos());
            let retain = message.retain && options.retain_as_published();
            // Copied to many connections, so without aliases, which are each connection's own.
            let (place, own) = (parcel.place(), Own { qos, retain, identifiers: &[], naming: Naming::Name });
            let frame = encode_frame(dialect, message, place, own, wall_ms, &mut self.bytes);
            self.qos = self.qos.filter(|all| *all == qos);
            self.is_whole &= frame.payload.is_none();
            self.frame_bytes = self.frame_bytes.max(frame.total_bytes);
            self.all_bytes += frame.total_bytes;
            self.payload_bytes = self.payload_bytes.max(message.payload.len());
            self.frames.push(frame);
        }
    }
}

/// Whether a message's time is over.
pub(crate) fn is_expired(message: &Message, wall_ms: u64) -> bool {
    message.expires_ms.is_some_and(|at| at <= wall_ms)
}

/// Appends one PUBLISH to `bytes`: all of it, or its head when the payload is to be sent by reference. Its packet
/// identifier, if it has one, is to be patched.
pub(crate) fn encode_frame(
    dialect: Dialect,
    message: &Message,
    place: Option<(Epoch, Offset)>,
    own: Own<'_>,
    wall_ms: u64,
    bytes: &mut Vec<u8>,
) -> Frame {
    match dialect {
        Dialect::Mqtt(version) => encode_publish(version, message, own, wall_ms, bytes),
        Dialect::Sse(format, ids) => encode_event((format, ids), message, place, (own.qos, wall_ms), bytes),
    }
}

/// What of a message is its subscriber's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    /// The smaller of the message's and the subscription's.
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Of its subscriptions that match.
    pub(crate) identifiers: &'a [u32],
    pub(crate) naming: Naming,
}

/// The id first, so that what is patched and what can be shared stand apart.
fn encode_event(
    (format, ids): (Format, Ids),
    message: &Message,
    place: Option<(Epoch, Offset)>,
    (qos, wall_ms): (Qos, u64),
    bytes: &mut Vec<u8>,
) -> Frame {
    let mark = match (ids, place) {
        (Ids::None, _) | (_, None) => Mark::None,
        (Ids::Place, Some((epoch, offset))) => Mark::Place(epoch, offset),
        (Ids::Token, Some(_)) => Mark::Token,
    };
    let start = bytes.len();
    let layout = Layout::Sse(sse::encode_id(mark, bytes));
    let said = said(message, qos, place, wall_ms);
    let mut payload = None;
    if message.payload.len() >= SHARED_SEGMENT_BYTES_MIN {
        let mut shared = Vec::with_capacity(message.payload.len() * 4 / 3 + EVENT_FRAME_BYTES);
        sse::encode_payload(&said, format, &mut shared);
        payload = Some(Bytes::from(shared));
    } else {
        sse::encode_payload(&said, format, bytes);
    }
    let end = bytes.len();
    let total_bytes = end - start + payload.as_ref().map_or(0, Bytes::len);
    Frame { start, end, payload, qos, total_bytes, layout }
}

/// A message as JSON says it.
pub(super) fn said(message: &Message, qos: Qos, place: Option<(Epoch, Offset)>, wall_ms: u64) -> Said<'_> {
    let content_type = message.properties.as_ref().and_then(|properties| properties.content_type.as_deref());
    let ttl_ms = message.expires_ms.map(|at| at.saturating_sub(wall_ms));
    Said { topic: &message.topic, payload: &message.payload, qos, place, content_type, ttl_ms }
}

/// About what an envelope adds to a payload; only a guess of how much room to ask for.
const EVENT_FRAME_BYTES: usize = 256;

fn encode_publish(version: Version, message: &Message, own: Own<'_>, wall_ms: u64, bytes: &mut Vec<u8>) -> Frame {
    let Own { qos, retain, identifiers, naming } = own;
    let (topic, alias) = match naming {
        Naming::Name => (&*message.topic, None),
        Naming::NameAndAlias(alias) => (&*message.topic, Some(TopicAlias(alias))),
        Naming::Alias(alias) => ("", Some(TopicAlias(alias))),
    };
    let properties = message.properties.as_deref();
    let identifiers: SmallVec<[SubscriptionId; 4]> =
        identifiers.iter().filter_map(|&identifier| SubscriptionId::new(identifier)).collect();
    let publish = Publish {
        dup: false,
        qos,
        retain,
        topic,
        packet_id: (qos != Qos::AtMostOnce).then_some(PacketId::MIN),
        properties: PublishProperties {
            payload_is_utf8: properties.and_then(|p| p.payload_is_utf8),
            message_expiry_seconds: message.expires_ms.map(|at| seconds_left(at, wall_ms)),
            content_type: properties.and_then(|p| p.content_type.as_deref()),
            response_topic: properties.and_then(|p| p.response_topic.as_deref()),
            correlation_data: properties.and_then(|p| p.correlation_data.as_deref()),
            subscription_ids: SubscriptionIds::list(&identifiers),
            user: UserProperties::owned(properties.map_or(&[], |p| &p.user)),
            topic_alias: alias,
        },
        payload: &message.payload,
    };
    let start = bytes.len();
    let by_reference = message.payload.len() >= SHARED_SEGMENT_BYTES_MIN;
    bytes.resize(start + publish.head_len(version), 0);
    let layout = publish.encode_head(version, &mut bytes[start..]);
    if !by_reference {
        bytes.extend_from_slice(&message.payload);
    }
    let payload = by_reference.then(|| message.payload.clone());
    let total_bytes = layout.total_bytes;
    Frame { start, end: bytes.len(), payload, qos, total_bytes, layout: Layout::Mqtt(layout) }
}

/// What is left of an expiry, rounded up so that it is never sent as 0 while time is left.
fn seconds_left(expires_ms: u64, wall_ms: u64) -> u32 {
    u32::try_from(expires_ms.saturating_sub(wall_ms).div_ceil(1000)).unwrap_or(u32::MAX)
}
