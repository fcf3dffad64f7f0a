//! CONNECT: MQTT 5 §3.1, 3.1.1 §3.1.

use super::bytes::{Reader, Sink};
use super::properties::{ConnectProperties, PropertySet, WillProperties};
use super::publish::check_response_topic;
use super::{CONNECT, DecodeError, Encode, Version, topic};
use crate::base::ids::Qos;

/// The first packet of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// By its protocol level.
    pub version: Version,
    /// Clean Start, in 3.1.1 Clean Session.
    pub clean_start: bool,
    /// 0 turns it off.
    pub keep_alive_seconds: u16,
    /// May be empty; in 3.1.1 then only with `clean_start`.
    pub client_id: &'a str,
    /// Published when the connection ends otherwise than agreed.
    pub will: Option<Will<'a>>,
    /// As sent.
    pub user_name: Option<&'a str>,
    /// Any bytes. In 3.1.1 only with a user name.
    pub password: Option<&'a [u8]>,
    /// Version 5 only.
    pub properties: ConnectProperties<'a>,
}

/// A will message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// A topic name, checked.
    pub topic: &'a str,
    /// Any bytes, at most 65,535.
    pub payload: &'a [u8],
    /// To publish with.
    pub qos: Qos,
    /// To publish with.
    pub retain: bool,
    /// Version 5 only.
    pub properties: WillProperties<'a>,
}

const USER_NAME: u8 = 0x80;
const PASSWORD: u8 = 0x40;
const WILL_RETAIN: u8 = 0x20;
const WILL_QOS: u8 = 0x18;
const WILL_QOS_SHIFT: u32 = 3;
const WILL: u8 = 0x04;
const CLEAN_START: u8 = 0x02;
const RESERVED: u8 = 0x01;

/// A password or a token is nobody's to print.
impl core::fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_seconds", &self.keep_alive_seconds)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &self.password.map(|_| "…"))
            .field("properties", &self.properties)
            .finish()
    }
}

impl<'a> Connect<'a> {
    /// A plain one: clean start, keep alive off, no will, no credentials.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_seconds: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let version = read_version(reader)?;
        let flags = reader.u8()?;
        check_flags(version, flags)?;
        let keep_alive_seconds = reader.u16()?;
        let properties = match version {
            Version::V311 => ConnectProperties::default(),
            Version::V5 => ConnectProperties::decode(reader)?,
        };
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::Protocol("authentication data without a method"));
        }
        let client_id = reader.string()?;
        let will = if flags & WILL != 0 { Some(Will::decode(version, flags, reader)?) } else { None };
        let user_name = if flags & USER_NAME != 0 { Some(reader.string()?) } else { None };
        let password = if flags & PASSWORD != 0 { Some(reader.binary()?) } else { None };
        let clean_start = flags & CLEAN_START != 0;
        // Last, as only a packet that is right in all else is answered so.
        reader.end()?;
        if version == Version::V311 && client_id.is_empty() && !clean_start {
            return Err(DecodeError::ClientIdentifier("an empty client identifier without clean session"));
        }
        Ok(Self { version, clean_start, keep_alive_seconds, client_id, will, user_name, password, properties })
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let will =
            self.will.map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | flag(will.retain, WILL_RETAIN));
        will | flag(self.clean_start, CLEAN_START)
            | flag(self.user_name.is_some(), USER_NAME)
            | flag(self.password.is_some(), PASSWORD)
    }
}

impl<'a> Will<'a> {
    fn decode(version: Version, flags: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let qos = Qos::from_bits((flags & WILL_QOS) >> WILL_QOS_SHIFT).ok_or(WILL_QOS_3)?;
        let properties = match version {
            Version::V311 => WillProperties::default(),
            Version::V5 => WillProperties::decode(reader)?,
        };
        check_response_topic(properties.response_topic)?;
        let topic = reader.string()?;
        topic::check_name(topic)?;
        Ok(Self { topic, payload: reader.binary()?, qos, retain: flags & WILL_RETAIN != 0, properties })
    }

    /// Whether the payload is what the Payload Format Indicator says; as of [`super::Publish::check_payload_format`].
    pub fn check_payload_format(&self) -> Result<(), DecodeError> {
        super::publish::check_payload_format(self.properties.payload_is_utf8, self.payload)
    }
}

const WILL_QOS_3: DecodeError = DecodeError::Malformed("will QoS 3");

/// The protocol name and level (§3.1.2.1, §3.1.2.2). Another name is not an MQTT client; another level is one that
/// is told so.
fn read_version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::Malformed("the protocol name is not MQTT"));
    }
    match reader.u8()? {
        4 if name == b"MQTT" => Ok(Version::V311),
        5 if name == b"MQTT" => Ok(Version::V5),
        level => Err(DecodeError::UnsupportedVersion { level }),
    }
}

fn check_flags(version: Version, flags: u8) -> Result<(), DecodeError> {
    if flags & RESERVED != 0 {
        return Err(DecodeError::Malformed("the reserved CONNECT flag is set"));
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::Malformed("will QoS or will retain without a will"));
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(WILL_QOS_3);
    }
    if version == Version::V311 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(DecodeError::Malformed("a password without a user name"));
    }
    Ok(())
}

/// Writes its own version; the argument is not looked at. Panics when 3.1.1 has a password without a user name.
impl Encode for Connect<'_> {
    fn first_byte(&self) -> u8 {
        CONNECT << 4
    }

    fn write_body<S: Sink>(&self, _version: Version, sink: &mut S) {
        assert!(
            self.version == Version::V5 || self.password.is_none() || self.user_name.is_some(),
            "3.1.1 has no password without a user name"
        );
        sink.string("MQTT");
        sink.u8(match self.version {
            Version::V311 => 4,
            Version::V5 => 5,
        });
        sink.u8(self.flags());
        sink.u16(self.keep_alive_seconds);
        if self.version == Version::V5 {
            self.properties.write(sink);
        }
        sink.string(self.client_id);
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                will.properties.write(sink);
            }
            sink.string(will.topic);
            sink.binary(will.payload);
        }
        if let Some(user_name) = self.user_name {
            sink.string(user_name);
        }
        if let Some(password) = self.password {
            sink.binary(password);
        }
    }
}
