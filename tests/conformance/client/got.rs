//! What a client got, as tests look at it.

use core::num::{NonZeroU16, NonZeroU32};
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::properties::SubscriptionId;
use kittiwake::wire::mqtt::{AckKind, Packet, PacketId, Publish};
use std::collections::BTreeMap;

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// As it is called, or as its alias was said to stand for.
    pub topic: String,
    pub alias: Option<u16>,
    /// The topic itself was there.
    pub is_named: bool,
    pub payload: Vec<u8>,
    pub qos: Qos,
    pub dup: bool,
    pub retain: bool,
    /// 0 at QoS 0.
    pub id: u16,
    pub subscriptions: Vec<u32>,
    pub expiry: Option<u32>,
    pub is_utf8: Option<bool>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation: Option<Vec<u8>>,
    pub user: Vec<(String, String)>,
}

impl Arrived {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("tests send text")
    }
}

/// A packet that arrived, with what tests look at; reasons by their codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    ConnAck(Welcome),
    Publish(Arrived),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16, u8),
    PubComp(u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    PingResp,
    Disconnect(u8),
    /// Its code and the method it names.
    Auth(u8, Option<String>),
}

/// A CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    pub session_present: bool,
    /// The return code of 3.1.1, the reason code of 5.
    pub code: u8,
    pub assigned: Option<String>,
    pub receive_maximum: Option<u16>,
    pub packet_bytes: Option<u32>,
    pub expiry: Option<u32>,
    pub alias_maximum: Option<u16>,
    pub retain_available: Option<bool>,
    pub shared_available: Option<bool>,
    pub keep_alive: Option<u16>,
    pub responses: Option<String>,
    pub server_reference: Option<String>,
    pub maximum_qos: Option<Qos>,
    pub authentication_method: Option<String>,
}

pub(super) fn arrived(publish: &Publish<'_>, aliases: &mut BTreeMap<u16, String>) -> Arrived {
    let properties = &publish.properties;
    let alias = properties.topic_alias.map(|alias| alias.0.get());
    if let Some(alias) = alias.filter(|_| !publish.topic.is_empty()) {
        aliases.insert(alias, publish.topic.into());
    }
    let topic = match alias {
        Some(alias) => aliases.get(&alias).expect("an alias is said before it is used").clone(),
        None => publish.topic.into(),
    };
    Arrived {
        topic,
        alias,
        is_named: !publish.topic.is_empty(),
        payload: publish.payload.into(),
        qos: publish.qos,
        dup: publish.dup,
        retain: publish.retain,
        id: publish.packet_id.map_or(0, PacketId::get),
        subscriptions: properties.subscription_ids.iter().map(SubscriptionId::get).collect(),
        expiry: properties.message_expiry_seconds,
        is_utf8: properties.payload_is_utf8,
        content_type: properties.content_type.map(Into::into),
        response_topic: properties.response_topic.map(Into::into),
        correlation: properties.correlation_data.map(Into::into),
        user: properties.user.iter().map(|(name, value)| (name.into(), value.into())).collect(),
    }
}

pub(super) fn got(packet: &Packet<'_>, frame: &[u8]) -> Got {
    match packet {
        Packet::ConnAck(ack) => Got::ConnAck(Welcome {
            session_present: ack.session_present,
            code: frame[3],
            assigned: ack.properties.assigned_client_id.map(Into::into),
            receive_maximum: ack.properties.receive_maximum.map(NonZeroU16::get),
            packet_bytes: ack.properties.maximum_packet_bytes.map(NonZeroU32::get),
            expiry: ack.properties.session_expiry_seconds,
            alias_maximum: ack.properties.topic_alias_maximum,
            retain_available: ack.properties.retain_available,
            shared_available: ack.properties.shared_available,
            keep_alive: ack.properties.server_keep_alive_seconds,
            responses: ack.properties.response_information.map(Into::into),
            server_reference: ack.properties.server_reference.map(Into::into),
            maximum_qos: ack.properties.maximum_qos,
            authentication_method: ack.properties.authentication_method.map(Into::into),
        }),
        Packet::Ack(ack) => {
            let (id, code) = (ack.packet_id.get(), ack.reason.code());
            match ack.kind {
                AckKind::PubAck => Got::PubAck(id, code),
                AckKind::PubRec => Got::PubRec(id, code),
                AckKind::PubRel => Got::PubRel(id, code),
                AckKind::PubComp => Got::PubComp(id, code),
            }
        }
        // The last bytes of the frame, as written: 3.1.1 has its own codes.
        Packet::SubAck(ack) => Got::SubAck(ack.packet_id.get(), frame[frame.len() - ack.reasons.len()..].into()),
        Packet::UnsubAck(ack) => Got::UnsubAck(ack.packet_id.get(), frame[frame.len() - ack.reasons.len()..].into()),
        Packet::PingResp => Got::PingResp,
        Packet::Disconnect(goodbye) => Got::Disconnect(goodbye.reason.code()),
        Packet::Auth(auth) => Got::Auth(auth.reason.code(), auth.properties.authentication_method.map(Into::into)),
        other => panic!("a server does not send {other:?}"),
    }
}
