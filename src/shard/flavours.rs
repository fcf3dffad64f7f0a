//! Encode once: a pass's messages as each kind of subscriber gets them. A flavour is (protocol version, granted QoS,
//! retain as published); its frames stand one after the other, so that a subscriber of QoS 0 is served by one copy.

use super::fanout::Parcel;
use crate::base::ids::Qos;
use crate::base::message::Message;
use crate::limits::SHARED_SEGMENT_BYTES_MIN;
use crate::router::fanout::PassId;
use crate::router::subscribers::Options;
use crate::session::Naming;
use crate::wire::mqtt::properties::{PublishProperties, SubscriptionId, SubscriptionIds, TopicAlias, UserProperties};
use crate::wire::mqtt::{PacketId, Publish, PublishLayout, Version};
use bytes::Bytes;
use smallvec::SmallVec;

/// Flavours of one pass, kept until another pass is visited.
#[derive(Debug, Default)]
pub(crate) struct Flavours {
    pass: PassId,
    kept: [Flavour; KINDS],
}

const KINDS: usize = 2 * 3 * 2;

/// Which flavour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind(usize);

/// One flavour. Its buffers are used again for the next pass.
#[derive(Debug, Default)]
pub(crate) struct Flavour {
    is_encoded: bool,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Frame>,
    /// Every frame is QoS 0 and has its payload in `bytes`: all of `bytes` may be copied as it is.
    pub(crate) is_plain: bool,
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
    pub(crate) layout: PublishLayout,
}

impl Flavours {
    /// Where the flavour of a subscriber is kept; it is encoded at its first call in a pass.
    pub(crate) fn find(
        &mut self,
        pass: PassId,
        version: Version,
        options: Options,
        parcels: &[Parcel],
        wall_ms: u64,
    ) -> Kind {
        if self.pass != pass {
            self.pass = pass;
            self.kept.iter_mut().for_each(|flavour| flavour.is_encoded = false);
        }
        let kind = usize::from(version == Version::V5) * 6
            + usize::from(options.qos() as u8) * 2
            + usize::from(options.retain_as_published());
        let flavour = &mut self.kept[kind];
        if !flavour.is_encoded {
            flavour.encode(version, options, parcels, wall_ms);
        }
        Kind(kind)
    }

    /// A flavour of the pass visited last.
    pub(crate) fn of(&self, Kind(kind): Kind) -> &Flavour {
        &self.kept[kind]
    }
}

impl Flavour {
    fn encode(&mut self, version: Version, options: Options, parcels: &[Parcel], wall_ms: u64) {
        self.is_encoded = true;
        self.bytes.clear();
        self.frames.clear();
        self.is_plain = true;
        for parcel in parcels {
            let message = &*parcel.message;
            let qos = message.qos.min(options.qos());
            let retain = message.retain && options.retain_as_published();
            // Copied to many connections, so without aliases, which are each connection's own.
            let wanted = Wanted { version, qos, retain, identifiers: &[], naming: Naming::Name };
            let frame = encode_frame(message, wanted, wall_ms, &mut self.bytes);
            self.is_plain &= qos == Qos::AtMostOnce && frame.payload.is_none() && !is_expired(message, wall_ms);
            self.frames.push(frame);
        }
    }
}

/// Whether a message's time is over.
pub(crate) fn is_expired(message: &Message, wall_ms: u64) -> bool {
    message.expires_ms.is_some_and(|at| at <= wall_ms)
}

/// How a client gets a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) version: Version,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Of its subscriptions that match.
    pub(crate) identifiers: &'a [u32],
    pub(crate) naming: Naming,
}

/// Appends one PUBLISH to `bytes`: all of it, or its head when the payload is to be sent by reference. Its packet
/// identifier, if it has one, is to be patched.
pub(crate) fn encode_frame(message: &Message, wanted: Wanted<'_>, wall_ms: u64, bytes: &mut Vec<u8>) -> Frame {
    let Wanted { version, qos, retain, identifiers, naming } = wanted;
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
    Frame { start, end: bytes.len(), payload, qos, layout }
}

/// What is left of an expiry, rounded up so that it is never sent as 0 while time is left.
fn seconds_left(expires_ms: u64, wall_ms: u64) -> u32 {
    u32::try_from(expires_ms.saturating_sub(wall_ms).div_ceil(1000)).unwrap_or(u32::MAX)
}
