//! A guest's CONNECT, before it is anybody's.

use super::super::CloseReason;
use super::on_auth::METHOD;
use super::{ConnectRequest, Greeting, Refusal, WillRequest};
use crate::base::ids::Qos;
use crate::base::message::Properties;
use crate::limits::IDENTITY_BYTES_MAX;
use crate::wire::mqtt::{self as wire, ConnAck, Connect, DecodeError, Encode, FrameLen, Packet, Reason, Version, Will};
use bytes::Bytes;

/// Type and flags of a CONNECT `[MQTT-2.1.3-1]`.
const CONNECT_FIRST_BYTE: u8 = 0x10;

/// Reads a guest's first frame.
pub fn greet(bytes: &[u8], packet_bytes_max: usize) -> Greeting {
    if bytes.first().is_some_and(|&first| first != CONNECT_FIRST_BYTE) {
        // [MQTT-3.1.0-1]: closed without a word, and without waiting for the rest of it.
        return Greeting::Refuse { frames: Vec::new(), reason: CloseReason::ProtocolError };
    }
    let total = match wire::frame_len(bytes, packet_bytes_max) {
        Ok(FrameLen::Known { total_bytes, .. }) if total_bytes <= bytes.len() => total_bytes,
        Ok(FrameLen::NeedMore | FrameLen::Known { .. }) => return Greeting::NeedMore,
        // Only the length was read, so there is no version to answer in.
        Err(DecodeError::TooLarge) => {
            return Greeting::Refuse { frames: Vec::new(), reason: CloseReason::PacketTooLarge };
        }
        Err(_) => return Greeting::Refuse { frames: Vec::new(), reason: CloseReason::ProtocolError },
    };
    match wire::decode(Version::V5, &bytes[..total]) {
        Ok(Packet::Connect(connect)) => match check(&connect) {
            Ok(()) => Greeting::Connect(Box::new(request(&connect)), total),
            Err(reason) => {
                let bytes_max = connect.properties.maximum_packet_bytes.map_or(u32::MAX, Into::into);
                refused(Some(connect.version), reason, bytes_max)
            }
        },
        Ok(_) => unreachable!("the first byte is a CONNECT's"),
        Err(error) => {
            let version = error.connack_version().or(match error {
                DecodeError::ClientIdentifier(_) => Some(Version::V311),
                _ => level(&bytes[..total]),
            });
            refused(version, error.reason(), u32::MAX)
        }
    }
}

/// The version a CONNECT that is broken further on names, if its name and level are whole.
fn level(bytes: &[u8]) -> Option<Version> {
    let name = bytes.windows(7).take(6).find(|window| window.starts_with(b"\0\x04MQTT"))?;
    match name[6] {
        4 => Some(Version::V311),
        5 => Some(Version::V5),
        _ => None,
    }
}

fn check(connect: &Connect<'_>) -> Result<(), Reason> {
    if connect.properties.authentication_method.is_some_and(|method| method != METHOD) {
        return Err(Reason::BadAuthenticationMethod);
    }
    if connect.client_id.len() > IDENTITY_BYTES_MAX {
        return Err(Reason::ClientIdentifierNotValid);
    }
    if connect.user_name.is_some_and(|name| name.len() > IDENTITY_BYTES_MAX) {
        return Err(Reason::BadUserNameOrPassword);
    }
    match &connect.will {
        Some(will) if will.topic.starts_with('$') => Err(Reason::NotAuthorized),
        Some(will) if !wire::topic::within_limits(will.topic) => match connect.version {
            Version::V5 => Err(Reason::TopicNameInvalid),
            Version::V311 => Err(Reason::NotAuthorized),
        },
        Some(will) => will.check_payload_format().map_err(DecodeError::reason),
        _ => Ok(()),
    }
}

fn request(connect: &Connect<'_>) -> ConnectRequest {
    let properties = &connect.properties;
    let assigned = connect.client_id.is_empty();
    let wanted = match connect.version {
        Version::V5 => properties.session_expiry_seconds.unwrap_or(0),
        Version::V311 if connect.clean_start => 0,
        // As long as it may.
        Version::V311 => u32::MAX,
    };
    // Nobody could come back to a session whose name was drawn.
    let session_expiry = if assigned { 0 } else { wanted };
    ConnectRequest {
        mqtt5: connect.version == Version::V5,
        client_id: connect.client_id.into(),
        assigned,
        username: connect.user_name.map(Into::into),
        password: properties.authentication_data.or(connect.password).map(Into::into),
        by_method: properties.authentication_method.is_some(),
        rights: None,
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive_seconds,
        session_expiry,
        expiry_lowered: session_expiry < wanted,
        receive_maximum: properties.receive_maximum.map_or(u16::MAX, Into::into),
        packet_bytes_max: properties.maximum_packet_bytes.map_or(u32::MAX, Into::into),
        topic_alias_max: properties.topic_alias_maximum.unwrap_or(0),
        request_response_information: properties.request_response_information.unwrap_or(false),
        request_problem_information: properties.request_problem_information.unwrap_or(true),
        will: connect.will.as_ref().map(|will| Box::new(will_request(will))),
    }
}

fn will_request(will: &Will<'_>) -> WillRequest {
    let given = &will.properties;
    let properties = Properties {
        payload_is_utf8: given.payload_is_utf8,
        content_type: given.content_type.map(Into::into),
        response_topic: given.response_topic.map(Into::into),
        correlation_data: given.correlation_data.map(Into::into),
        user: given.user.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        ..Properties::default()
    };
    WillRequest {
        topic: will.topic.into(),
        payload: Bytes::copy_from_slice(will.payload),
        qos: will.qos.max(Qos::AtMostOnce),
        retain: will.retain,
        delay: given.delay_seconds.unwrap_or(0),
        message_expiry: given.message_expiry_seconds,
        properties: (properties != Properties::default()).then(|| Box::new(properties)),
    }
}

fn refused(version: Option<Version>, reason: Reason, bytes_max: u32) -> Greeting {
    let mut frames = Vec::new();
    if let Some(version) = version {
        encode_refusal(version, reason, None, bytes_max, &mut frames);
    }
    Greeting::Refuse { frames, reason: CloseReason::Refused }
}

/// At most `bytes_max` of them: what is larger is left out, first the reference, then the CONNACK `[MQTT-3.1.2-24]`.
fn encode_refusal(version: Version, reason: Reason, reference: Option<&str>, bytes_max: u32, out: &mut Vec<u8>) {
    // Where 3.1.1 has no return code the connection closes without a CONNACK [MQTT-3.2.2-6].
    if version == Version::V311 && reason.to_v3_connack().is_none() {
        return;
    }
    let fits = |ack: &ConnAck<'_>| u32::try_from(ack.encoded_len(version)).is_ok_and(|bytes| bytes <= bytes_max);
    let mut ack = ConnAck::refused(reason);
    ack.properties.server_reference = reference;
    if !fits(&ack) {
        ack.properties.server_reference = None;
    }
    if fits(&ack) {
        ack.encode_to(version, out);
    }
}

/// Refuses a CONNECT that was read but is not authorized, or that there is no room for: appends the CONNACK. With a
/// server reference an unavailable server says which one to use instead (§4.11).
pub fn refuse(request: &ConnectRequest, why: Refusal, server_reference: Option<&str>, out: &mut Vec<u8>) {
    let reason = match (why, request.mqtt5) {
        (Refusal::Unavailable, true) if server_reference.is_some() => Reason::UseAnotherServer,
        (Refusal::BadCredentials, _) => Reason::BadUserNameOrPassword,
        (Refusal::NotAuthorized, _) => Reason::NotAuthorized,
        (Refusal::AuthenticationMethod, _) => Reason::BadAuthenticationMethod,
        (Refusal::ClientIdentifier, _) => Reason::ClientIdentifierNotValid,
        (Refusal::QuotaExceeded | Refusal::AppFull, true) => Reason::QuotaExceeded,
        (Refusal::RateExceeded, true) => Reason::ConnectionRateExceeded,
        (Refusal::Busy, true) => Reason::ServerBusy,
        (Refusal::Banned, _) => Reason::Banned,
        (
            Refusal::QuotaExceeded | Refusal::AppFull | Refusal::RateExceeded | Refusal::Busy | Refusal::Unavailable,
            _,
        ) => Reason::ServerUnavailable,
    };
    let version = if request.mqtt5 { Version::V5 } else { Version::V311 };
    let reference = server_reference.filter(|_| reason == Reason::UseAnotherServer);
    encode_refusal(version, reason, reference, request.packet_bytes_max, out);
}
