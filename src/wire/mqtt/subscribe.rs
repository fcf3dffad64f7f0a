//! SUBSCRIBE: MQTT 5 §3.8, 3.1.1 §3.8.

use super::bytes::{Reader, Sink};
use super::properties::{PropertySet, SubscribeProperties};
use super::{DecodeError, Encode, PacketId, SUBSCRIBE, Version, read_packet_id, topic};
use crate::base::ids::Qos;
use core::fmt;

/// A client's wish for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// For its SUBACK.
    pub packet_id: PacketId,
    /// Version 5 only.
    pub properties: SubscribeProperties<'a>,
    /// At least one.
    pub filters: Filters<'a>,
}

/// One filter with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Checked. In version 5 [`topic::parse_filter`] takes it apart without fail.
    pub filter: &'a str,
    /// Highest QoS asked for.
    pub qos: Qos,
    /// Not the client's own messages. Version 5 only; never with a shared subscription.
    pub no_local: bool,
    /// Messages keep the publisher's retain flag. Version 5 only.
    pub retain_as_published: bool,
    /// Version 5 only.
    pub retain_handling: RetainHandling,
}

impl<'a> Filter<'a> {
    /// With the options that 3.1.1 knows.
    pub const fn new(filter: &'a str, qos: Qos) -> Self {
        let retain_handling = RetainHandling::Send;
        Self { filter, qos, no_local: false, retain_as_published: false, retain_handling }
    }
}

/// When retained messages are sent for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE.
    #[default]
    Send = 0,
    /// When the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

const NO_LOCAL: u8 = 0x04;
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const RETAIN_HANDLING_SHIFT: u32 = 4;
const OPTIONS_V311: u8 = 0x03;
const OPTIONS_V5: u8 = 0x3F;

impl<'a> Subscribe<'a> {
    pub(super) fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = read_packet_id(reader)?;
        let properties = match version {
            Version::V311 => SubscribeProperties::default(),
            Version::V5 => SubscribeProperties::decode(reader)?,
        };
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(DecodeError::Protocol("SUBSCRIBE without a filter"));
        }
        let mut filters = Reader::new(bytes);
        while !filters.is_empty() {
            read_filter(version, &mut filters)?;
        }
        Ok(Self { packet_id, properties, filters: Filters(List::Wire { version, bytes }) })
    }
}

fn read_filter<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Filter<'a>, DecodeError> {
    let filter = reader.string()?;
    let options = reader.u8()?;
    let known = if version == Version::V5 { OPTIONS_V5 } else { OPTIONS_V311 };
    if options & !known != 0 {
        return Err(DecodeError::Malformed("reserved subscription options"));
    }
    // QoS 3 and Retain Handling 3 are Protocol Errors in version 5 (§3.8.3.1); in 3.1.1 the QoS is as malformed as
    // the bits beside it `[MQTT-3-8.3-4]`.
    let qos = Qos::from_bits(options & 0b11).ok_or(match version {
        Version::V311 => DecodeError::Malformed("subscription QoS 3"),
        Version::V5 => DecodeError::Protocol("subscription QoS 3"),
    })?;
    let retain_handling = match options >> RETAIN_HANDLING_SHIFT {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(DecodeError::Protocol("Retain Handling 3")),
    };
    let no_local = options & NO_LOCAL != 0;
    match version {
        Version::V311 => topic::check_filter(filter)?,
        Version::V5 if topic::parse_filter(filter)?.group.is_some() && no_local => {
            return Err(DecodeError::Protocol("No Local on a shared subscription"));
        }
        Version::V5 => {}
    }
    Ok(Filter { filter, qos, no_local, retain_as_published: options & RETAIN_AS_PUBLISHED != 0, retain_handling })
}

fn write_filter<S: Sink>(filter: &Filter<'_>, version: Version, sink: &mut S) {
    sink.string(filter.filter);
    let mut options = filter.qos as u8;
    if version == Version::V5 {
        options |= if filter.no_local { NO_LOCAL } else { 0 };
        options |= if filter.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        options |= (filter.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
    }
    sink.u8(options);
}

/// Panics without a filter.
impl Encode for Subscribe<'_> {
    fn first_byte(&self) -> u8 {
        SUBSCRIBE << 4 | 0b0010
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        assert!(self.filters.iter().next().is_some(), "a SUBSCRIBE has at least one filter");
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.write(sink);
        }
        for filter in self.filters.iter() {
            write_filter(&filter, version, sink);
        }
    }
}

/// Filters of a SUBSCRIBE: from a decoded packet, or to encode.
#[derive(Clone, Copy)]
pub struct Filters<'a>(List<'a>);

#[derive(Clone, Copy)]
enum List<'a> {
    /// Checked.
    Wire {
        version: Version,
        bytes: &'a [u8],
    },
    Borrowed(&'a [Filter<'a>]),
}

impl<'a> Filters<'a> {
    /// To encode; at least one.
    pub const fn borrowed(filters: &'a [Filter<'a>]) -> Self {
        Self(List::Borrowed(filters))
    }

    /// Each of them, in order.
    pub fn iter(&self) -> FilterIter<'a> {
        FilterIter(match self.0 {
            List::Wire { version, bytes } => ListIter::Wire { version, reader: Reader::new(bytes) },
            List::Borrowed(filters) => ListIter::Borrowed(filters.iter()),
        })
    }
}

impl PartialEq for Filters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
impl Eq for Filters<'_> {}

impl fmt::Debug for Filters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Goes through [`Filters`].
#[derive(Clone, Debug)]
pub struct FilterIter<'a>(ListIter<'a>);

#[derive(Clone, Debug)]
enum ListIter<'a> {
    Wire { version: Version, reader: Reader<'a> },
    Borrowed(core::slice::Iter<'a, Filter<'a>>),
}

impl<'a> Iterator for FilterIter<'a> {
    type Item = Filter<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            // The bytes were checked when they were decoded, and they end where a filter ends.
            ListIter::Wire { version, reader } => read_filter(*version, reader).ok(),
            ListIter::Borrowed(filters) => filters.next().copied(),
        }
    }
}
