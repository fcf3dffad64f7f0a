//! UNSUBSCRIBE: MQTT 5 §3.10, 3.1.1 §3.10.

use super::bytes::{Reader, Sink};
use super::properties::{PropertySet, UnsubscribeProperties};
use super::{DecodeError, Encode, PacketId, UNSUBSCRIBE, Version, read_packet_id, topic};
use core::fmt;

/// The end of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// For its UNSUBACK.
    pub packet_id: PacketId,
    /// Version 5 only.
    pub properties: UnsubscribeProperties<'a>,
    /// At least one.
    pub filters: FilterNames<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(version: Version, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let packet_id = read_packet_id(reader)?;
        let properties = match version {
            Version::V311 => UnsubscribeProperties::default(),
            Version::V5 => UnsubscribeProperties::decode(reader)?,
        };
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(DecodeError::Protocol("UNSUBSCRIBE without a filter"));
        }
        let mut filters = Reader::new(bytes);
        while !filters.is_empty() {
            let filter = filters.string()?;
            match version {
                Version::V311 => topic::check_filter(filter)?,
                Version::V5 => topic::parse_filter(filter).map(|_| ())?,
            }
        }
        Ok(Self { packet_id, properties, filters: FilterNames(List::Wire(bytes)) })
    }
}

/// Panics without a filter.
impl Encode for Unsubscribe<'_> {
    fn first_byte(&self) -> u8 {
        UNSUBSCRIBE << 4 | 0b0010
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        assert!(self.filters.iter().next().is_some(), "an UNSUBSCRIBE has at least one filter");
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.write(sink);
        }
        for filter in self.filters.iter() {
            sink.string(filter);
        }
    }
}

/// Filters of an UNSUBSCRIBE: from a decoded packet, or to encode.
#[derive(Clone, Copy)]
pub struct FilterNames<'a>(List<'a>);

#[derive(Clone, Copy)]
enum List<'a> {
    /// Checked.
    Wire(&'a [u8]),
    Borrowed(&'a [&'a str]),
}

impl<'a> FilterNames<'a> {
    /// To encode; at least one.
    pub const fn borrowed(filters: &'a [&'a str]) -> Self {
        Self(List::Borrowed(filters))
    }

    /// Each of them, in order.
    pub fn iter(&self) -> FilterNameIter<'a> {
        FilterNameIter(match self.0 {
            List::Wire(bytes) => ListIter::Wire(Reader::new(bytes)),
            List::Borrowed(filters) => ListIter::Borrowed(filters.iter()),
        })
    }
}

impl PartialEq for FilterNames<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
impl Eq for FilterNames<'_> {}

impl fmt::Debug for FilterNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Goes through [`FilterNames`].
#[derive(Clone, Debug)]
pub struct FilterNameIter<'a>(ListIter<'a>);

#[derive(Clone, Debug)]
enum ListIter<'a> {
    Wire(Reader<'a>),
    Borrowed(core::slice::Iter<'a, &'a str>),
}

impl<'a> Iterator for FilterNameIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            // The bytes were checked when they were decoded, and they end where a filter ends.
            ListIter::Wire(reader) => reader.string().ok(),
            ListIter::Borrowed(filters) => filters.next().copied(),
        }
    }
}
