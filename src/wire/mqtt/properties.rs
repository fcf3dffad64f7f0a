//! Properties of MQTT 5 (§2.2.2): read, checked and written in one place; each packet has its own set of them.

use super::bytes::{Reader, Sink, count};
use super::error::DecodeError;
use super::varint::VARINT_MAX;
use crate::base::ids::Qos;
use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

/// A topic alias; 0 is none `[MQTT-3.3.2-8]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicAlias(pub NonZeroU16);

/// A subscription identifier: 1 to 268,435,455 (§3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    /// None for 0 and above 268,435,455.
    #[inline]
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(id) if value <= VARINT_MAX => Some(Self(id)),
            _ => None,
        }
    }
    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// A type that a property's value has on the wire, with the rule that goes with it.
trait Value<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    fn write<S: Sink>(&self, sink: &mut S);
}

macro_rules! value {
    ($ty:ty, |$reader:ident| $read:expr, |$value:ident, $sink:ident| $write:expr) => {
        impl<'a> Value<'a> for $ty {
            #[inline]
            fn read($reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                $read
            }
            #[inline]
            fn write<S: Sink>(&self, $sink: &mut S) {
                let $value = *self;
                $write
            }
        }
    };
}

value!(bool, |reader| read_flag(reader), |value, sink| sink.u8(u8::from(value)));
value!(u16, |reader| reader.u16(), |value, sink| sink.u16(value));
value!(u32, |reader| reader.u32(), |value, sink| sink.u32(value));
value!(&'a str, |reader| reader.string(), |value, sink| sink.string(value));
value!(&'a [u8], |reader| reader.binary(), |value, sink| sink.binary(value));
value!(NonZeroU16, |reader| NonZeroU16::new(reader.u16()?).ok_or(ZERO), |value, sink| sink.u16(value.get()));
value!(NonZeroU32, |reader| NonZeroU32::new(reader.u32()?).ok_or(ZERO), |value, sink| sink.u32(value.get()));
value!(SubscriptionId, |reader| SubscriptionId::new(reader.varint()?).ok_or(ZERO), |value, sink| sink
    .varint(value.get()));
value!(
    TopicAlias,
    |reader| NonZeroU16::new(reader.u16()?).map(TopicAlias).ok_or(DecodeError::TopicAlias),
    |value, sink| sink.u16(value.0.get())
);
// Maximum QoS is 0 or 1; 2 is said by leaving it out (§3.2.2.3.4).
value!(Qos, |reader| if read_flag(reader)? { Ok(Qos::AtLeastOnce) } else { Ok(Qos::AtMostOnce) }, |value, sink| sink
    .u8(value as u8));
value!((&'a str, &'a str), |reader| Ok((reader.string()?, reader.string()?)), |value, sink| {
    sink.string(value.0);
    sink.string(value.1);
});

const ZERO: DecodeError = DecodeError::Protocol("a property is 0 where 0 is not allowed");
const NOT_HERE: DecodeError = DecodeError::Protocol("a property that this packet does not have");
const TWICE: DecodeError = DecodeError::Protocol("a property is there twice");

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Protocol("a property is neither 0 nor 1")),
    }
}

macro_rules! properties {
    ($($name:ident($ty:ty) = $id:literal,)*) => {
        /// One property, as in table 2-4.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Property<'a> {
            $($name($ty),)*
        }

        impl<'a> Property<'a> {
            #[inline]
            fn read(id: u32, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match id {
                    $($id => Value::read(reader).map(Self::$name),)*
                    _ => Err(DecodeError::Malformed("a property identifier that does not exist")),
                }
            }

            #[inline]
            fn write<S: Sink>(&self, sink: &mut S) {
                match self {
                    $(Self::$name(value) => {
                        sink.u8($id);
                        value.write(sink);
                    })*
                }
            }
        }
    };
}

properties! {
    PayloadFormat(bool) = 0x01,
    MessageExpiry(u32) = 0x02,
    ContentType(&'a str) = 0x03,
    ResponseTopic(&'a str) = 0x08,
    CorrelationData(&'a [u8]) = 0x09,
    SubscriptionId(SubscriptionId) = 0x0B,
    SessionExpiry(u32) = 0x11,
    AssignedClientId(&'a str) = 0x12,
    ServerKeepAlive(u16) = 0x13,
    AuthenticationMethod(&'a str) = 0x15,
    AuthenticationData(&'a [u8]) = 0x16,
    RequestProblemInformation(bool) = 0x17,
    WillDelay(u32) = 0x18,
    RequestResponseInformation(bool) = 0x19,
    ResponseInformation(&'a str) = 0x1A,
    ServerReference(&'a str) = 0x1C,
    ReasonString(&'a str) = 0x1F,
    ReceiveMaximum(NonZeroU16) = 0x21,
    TopicAliasMaximum(u16) = 0x22,
    TopicAlias(TopicAlias) = 0x23,
    MaximumQos(Qos) = 0x24,
    RetainAvailable(bool) = 0x25,
    User((&'a str, &'a str)) = 0x26,
    MaximumPacketSize(NonZeroU32) = 0x27,
    WildcardAvailable(bool) = 0x28,
    SubscriptionIdAvailable(bool) = 0x29,
    SharedAvailable(bool) = 0x2A,
}

const USER_BIT: u64 = 1 << 0x26;
const SUBSCRIPTION_ID_BIT: u64 = 1 << 0x0B;

/// Goes through the properties of one section and refuses a second one of a kind (§2.2.2.2).
#[derive(Clone, Copy, Debug)]
struct PropertyReader<'a> {
    reader: Reader<'a>,
    /// One bit for each identifier; all are below 64.
    seen: u64,
    repeatable: u64,
}

impl<'a> PropertyReader<'a> {
    #[inline]
    fn new(section: &'a [u8], repeatable: u64) -> Self {
        Self { reader: Reader::new(section), seen: 0, repeatable }
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        // An identifier is a variable byte integer (§2.2.2.2); all that exist take one byte.
        let id = self.reader.varint()?;
        let property = Property::read(id, &mut self.reader)?;
        let bit = 1 << id;
        if self.seen & bit & !self.repeatable != 0 {
            return Err(TWICE);
        }
        self.seen |= bit;
        Ok(Some(property))
    }

    /// Of a section that was checked when it was decoded, so that nothing can be wrong with it any more.
    fn next_checked(&mut self) -> Option<Property<'a>> {
        self.next().ok().flatten()
    }
}

/// A packet's own set of properties.
pub(super) trait PropertySet<'a>: Default {
    /// Reads a section into a set that is still empty, in its place: most sections are empty, and a set is up to 200 bytes
    /// to move.
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError>;

    /// Reads a section.
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut set = Self::default();
        set.read(reader)?;
        Ok(set)
    }

    /// Writes the properties that are there, without the section's length.
    fn write_each<S: Sink>(&self, sink: &mut S);

    /// Writes the section: its length, then the properties.
    #[inline]
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.varint(count(|counter| self.write_each(counter)));
        self.write_each(sink);
    }
}

#[inline]
fn section<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let bytes = reader.varint()?;
    reader.take(usize::try_from(bytes).unwrap_or(usize::MAX))
}

macro_rules! property_set {
    (
        $(#[$doc:meta])*
        $name:ident<$a:lifetime>, repeatable $repeatable:expr
        $(, lists $list:ident: $list_variant:ident($list_ty:ty))? => {
            $($(#[$field_doc:meta])* $field:ident: $variant:ident($ty:ty),)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name<$a> {
            $($(#[$field_doc])* pub $field: Option<$ty>,)*
            $(
                /// One for each subscription that matched, in order.
                pub $list: $list_ty,
            )?
            /// User Properties, in order.
            pub user: UserProperties<$a>,
        }

        impl<$a> $name<$a> {
            #[inline(never)]
            fn read_each(&mut self, section: &$a [u8]) -> Result<(), DecodeError> {
                let mut properties = PropertyReader::new(section, $repeatable);
                while let Some(property) = properties.next()? {
                    match property {
                        $(Property::$variant(value) => self.$field = Some(value),)*
                        $(Property::$list_variant(_) => self.$list = <$list_ty>::wire(section),)?
                        Property::User(_) => self.user = UserProperties::wire(section),
                        _ => return Err(NOT_HERE),
                    }
                }
                Ok(())
            }
        }

        impl<$a> PropertySet<$a> for $name<$a> {
            #[inline]
            fn read(&mut self, reader: &mut Reader<$a>) -> Result<(), DecodeError> {
                let section = section(reader)?;
                if section.is_empty() { Ok(()) } else { self.read_each(section) }
            }

            #[inline]
            fn write_each<S: Sink>(&self, sink: &mut S) {
                $(if let Some(value) = self.$field {
                    Property::$variant(value).write(sink);
                })*
                $(for id in self.$list.iter() {
                    Property::$list_variant(id).write(sink);
                })?
                for pair in self.user.iter() {
                    Property::User(pair).write(sink);
                }
            }
        }
    };
}

property_set! {
    /// Of a PUBLISH (§3.3.2.3).
    PublishProperties<'a>, repeatable USER_BIT | SUBSCRIPTION_ID_BIT, lists subscription_ids: SubscriptionId(SubscriptionIds<'a>) => {
        /// Seconds. The first one written, so that it can be found and lowered in an encoded frame.
        message_expiry_seconds: MessageExpiry(u32),
        /// Whether the payload is UTF-8.
        payload_is_utf8: PayloadFormat(bool),
        /// Stands for the topic.
        topic_alias: TopicAlias(TopicAlias),
        /// A topic name, checked.
        response_topic: ResponseTopic(&'a str),
        /// For the requester.
        correlation_data: CorrelationData(&'a [u8]),
        /// Defined by the applications.
        content_type: ContentType(&'a str),
    }
}

property_set! {
    /// Of a will, in CONNECT's payload (§3.1.3.2).
    WillProperties<'a>, repeatable USER_BIT => {
        /// Seconds; none is 0.
        delay_seconds: WillDelay(u32),
        /// Whether the payload is UTF-8.
        payload_is_utf8: PayloadFormat(bool),
        /// Seconds.
        message_expiry_seconds: MessageExpiry(u32),
        /// Defined by the applications.
        content_type: ContentType(&'a str),
        /// A topic name, checked.
        response_topic: ResponseTopic(&'a str),
        /// For the requester.
        correlation_data: CorrelationData(&'a [u8]),
    }
}

property_set! {
    /// Of a CONNECT (§3.1.2.11).
    ConnectProperties<'a>, repeatable USER_BIT => {
        /// Seconds; none is 0, 0xFFFFFFFF never.
        session_expiry_seconds: SessionExpiry(u32),
        /// QoS 1 and 2 messages the client takes at a time; none is 65,535.
        receive_maximum: ReceiveMaximum(NonZeroU16),
        /// Bytes of a packet the client takes; none is no limit.
        maximum_packet_bytes: MaximumPacketSize(NonZeroU32),
        /// Highest alias the client takes; none is 0.
        topic_alias_maximum: TopicAliasMaximum(u16),
        /// Whether CONNACK may have Response Information; none is no.
        request_response_information: RequestResponseInformation(bool),
        /// Whether reason strings and user properties may be sent on failures; none is yes.
        request_problem_information: RequestProblemInformation(bool),
        /// Name of the extended authentication.
        authentication_method: AuthenticationMethod(&'a str),
        /// Only with a method.
        authentication_data: AuthenticationData(&'a [u8]),
    }
}

property_set! {
    /// Of a CONNACK (§3.2.2.3).
    ConnAckProperties<'a>, repeatable USER_BIT => {
        /// Seconds; none is what the client asked for.
        session_expiry_seconds: SessionExpiry(u32),
        /// QoS 1 and 2 messages the server takes at a time; none is 65,535.
        receive_maximum: ReceiveMaximum(NonZeroU16),
        /// 0 or 1; none is 2.
        maximum_qos: MaximumQos(Qos),
        /// None is yes.
        retain_available: RetainAvailable(bool),
        /// Bytes of a packet the server takes; none is no limit.
        maximum_packet_bytes: MaximumPacketSize(NonZeroU32),
        /// For a client that sent an empty one.
        assigned_client_id: AssignedClientId(&'a str),
        /// Highest alias the server takes; none is 0.
        topic_alias_maximum: TopicAliasMaximum(u16),
        /// For people.
        reason_string: ReasonString(&'a str),
        /// None is yes.
        wildcard_available: WildcardAvailable(bool),
        /// None is yes.
        subscription_id_available: SubscriptionIdAvailable(bool),
        /// None is yes.
        shared_available: SharedAvailable(bool),
        /// Seconds; overrides what the client asked for.
        server_keep_alive_seconds: ServerKeepAlive(u16),
        /// For making response topics.
        response_information: ResponseInformation(&'a str),
        /// Where else to go.
        server_reference: ServerReference(&'a str),
        /// Name of the extended authentication.
        authentication_method: AuthenticationMethod(&'a str),
        /// Its data.
        authentication_data: AuthenticationData(&'a [u8]),
    }
}

property_set! {
    /// Of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK (§3.4.2.2, §3.9.2.1).
    AckProperties<'a>, repeatable USER_BIT => {
        /// For people.
        reason_string: ReasonString(&'a str),
    }
}

property_set! {
    /// Of a SUBSCRIBE (§3.8.2.1).
    SubscribeProperties<'a>, repeatable USER_BIT => {
        /// Comes back with each message that one of these filters matched.
        subscription_id: SubscriptionId(SubscriptionId),
    }
}

property_set! {
    /// Of an UNSUBSCRIBE (§3.10.2.1).
    UnsubscribeProperties<'a>, repeatable USER_BIT => {}
}

property_set! {
    /// Of a DISCONNECT (§3.14.2.2).
    DisconnectProperties<'a>, repeatable USER_BIT => {
        /// Seconds; only from a client.
        session_expiry_seconds: SessionExpiry(u32),
        /// For people.
        reason_string: ReasonString(&'a str),
        /// Where else to go; only from a server.
        server_reference: ServerReference(&'a str),
    }
}

property_set! {
    /// Of an AUTH (§3.15.2.2).
    AuthProperties<'a>, repeatable USER_BIT => {
        /// Name of the extended authentication.
        authentication_method: AuthenticationMethod(&'a str),
        /// Its data.
        authentication_data: AuthenticationData(&'a [u8]),
        /// For people.
        reason_string: ReasonString(&'a str),
    }
}

/// User Properties: from a decoded packet, or to encode.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a>(Pairs<'a>);

#[derive(Clone, Copy)]
enum Pairs<'a> {
    /// A whole section of checked properties.
    Wire(&'a [u8]),
    Borrowed(&'a [(&'a str, &'a str)]),
    Owned(&'a [(Box<str>, Box<str>)]),
}

impl Default for Pairs<'_> {
    fn default() -> Self {
        Self::Borrowed(&[])
    }
}

impl<'a> UserProperties<'a> {
    /// To encode.
    pub const fn borrowed(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Pairs::Borrowed(pairs))
    }

    /// To encode, as a message keeps them.
    pub const fn owned(pairs: &'a [(Box<str>, Box<str>)]) -> Self {
        Self(Pairs::Owned(pairs))
    }

    const fn wire(section: &'a [u8]) -> Self {
        Self(Pairs::Wire(section))
    }

    /// Names and values, in order; names may repeat.
    #[inline]
    pub fn iter(&self) -> UserPropertyIter<'a> {
        UserPropertyIter(match self.0 {
            Pairs::Wire(section) => PairIter::Wire(PropertyReader::new(section, u64::MAX)),
            Pairs::Borrowed(pairs) => PairIter::Borrowed(pairs.iter()),
            Pairs::Owned(pairs) => PairIter::Owned(pairs.iter()),
        })
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Goes through [`UserProperties`].
#[derive(Clone, Debug)]
pub struct UserPropertyIter<'a>(PairIter<'a>);

#[derive(Clone, Debug)]
enum PairIter<'a> {
    Wire(PropertyReader<'a>),
    Borrowed(core::slice::Iter<'a, (&'a str, &'a str)>),
    Owned(core::slice::Iter<'a, (Box<str>, Box<str>)>),
}

impl<'a> Iterator for UserPropertyIter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            PairIter::Wire(properties) => loop {
                if let Property::User(pair) = properties.next_checked()? {
                    return Some(pair);
                }
            },
            PairIter::Borrowed(pairs) => pairs.next().copied(),
            PairIter::Owned(pairs) => pairs.next().map(|(name, value)| (&**name, &**value)),
        }
    }
}

/// Subscription identifiers of a PUBLISH: from a decoded packet, or to encode.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a>(Ids<'a>);

#[derive(Clone, Copy)]
enum Ids<'a> {
    /// A whole section of checked properties.
    Wire(&'a [u8]),
    List(&'a [SubscriptionId]),
}

impl Default for Ids<'_> {
    fn default() -> Self {
        Self::List(&[])
    }
}

impl<'a> SubscriptionIds<'a> {
    /// To encode.
    pub const fn list(ids: &'a [SubscriptionId]) -> Self {
        Self(Ids::List(ids))
    }

    const fn wire(section: &'a [u8]) -> Self {
        Self(Ids::Wire(section))
    }

    /// Each of them, in order.
    #[inline]
    pub fn iter(&self) -> SubscriptionIdIter<'a> {
        SubscriptionIdIter(match self.0 {
            Ids::Wire(section) => IdIter::Wire(PropertyReader::new(section, u64::MAX)),
            Ids::List(ids) => IdIter::List(ids.iter()),
        })
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Goes through [`SubscriptionIds`].
#[derive(Clone, Debug)]
pub struct SubscriptionIdIter<'a>(IdIter<'a>);

#[derive(Clone, Debug)]
enum IdIter<'a> {
    Wire(PropertyReader<'a>),
    List(core::slice::Iter<'a, SubscriptionId>),
}

impl Iterator for SubscriptionIdIter<'_> {
    type Item = SubscriptionId;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            IdIter::Wire(properties) => loop {
                if let Property::SubscriptionId(id) = properties.next_checked()? {
                    return Some(id);
                }
            },
            IdIter::List(ids) => ids.next().copied(),
        }
    }
}

macro_rules! compared_by_content {
    ($name:ident) => {
        impl PartialEq for $name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }
        impl Eq for $name<'_> {}
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    };
}

compared_by_content!(UserProperties);
compared_by_content!(SubscriptionIds);

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
