//! The bytes of records and frozen sessions: big-endian numbers, texts and lists behind their lengths. What is read
//! may come from a damaged store, so every read can fail.

use super::expiry::Will;
use super::state::{LoggedAt, Subscription};
use crate::base::ids::{AppId, Offset, Qos, Seq};
use crate::base::message::{Message, Properties};
use bytes::Bytes;

/// Bits of a recorded subscription's options, behind its QoS.
const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;

#[derive(Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(bytes)?;
        self.0 = left;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
    /// A number that is mostly small: 7 bits a byte, the lowest first.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
    pub fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }
    pub fn flag(&mut self) -> Option<bool> {
        self.u8().map(|byte| byte != 0)
    }
    pub fn binary(&mut self) -> Option<&'a [u8]> {
        let bytes = self.u32()?;
        self.take(usize::try_from(bytes).ok()?)
    }
    pub fn text(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.binary()?).ok()
    }
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }
    /// A list, whose length is not believed before its items are there.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| read(self)).collect()
    }
    pub fn qos(&mut self) -> Option<Qos> {
        Qos::from_bits(self.u8()?)
    }
    pub fn at(&mut self) -> Option<LoggedAt> {
        match self.u8()? {
            0 => self.u64().map(|offset| LoggedAt::Inbox(Offset(offset))),
            1 => self.u64().map(|seq| LoggedAt::Topics(Seq(seq))),
            2 => self.u32().map(LoggedAt::Retained),
            3 => Some(LoggedAt::Shared { number: self.u64()?, mark: self.u32()? }),
            _ => None,
        }
    }
    pub fn message(&mut self) -> Option<Message> {
        Some(Message {
            app: AppId(self.u16()?),
            topic: self.text()?.into(),
            only_device: self.option(|reader| reader.text().map(Into::into))?,
            payload: Bytes::copy_from_slice(self.binary()?),
            qos: self.qos()?,
            retain: self.flag()?,
            created_ms: self.u64()?,
            expires_ms: self.option(Self::u64)?,
            publisher: self.option(Self::u64)?,
            properties: self.option(Self::properties)?.map(Box::new),
        })
    }
    fn properties(&mut self) -> Option<Properties> {
        Some(Properties {
            payload_is_utf8: self.option(Self::flag)?,
            content_type: self.option(|reader| reader.text().map(Into::into))?,
            response_topic: self.option(|reader| reader.text().map(Into::into))?,
            correlation_data: self.option(|reader| reader.binary().map(Into::into))?,
            user: self.list(|reader| Some((reader.text()?.into(), reader.text()?.into())))?,
        })
    }
    pub fn will(&mut self) -> Option<Will> {
        Some(Will { message: self.message()?, delay: self.u32()?, message_expiry: self.option(Self::u32)? })
    }
    /// A subscription of a record: its place in the router is that of another process.
    pub fn recorded_subscription(&mut self) -> Option<Subscription> {
        let bytes = self.small()?;
        let text = core::str::from_utf8(self.take(usize::try_from(bytes).ok()?)?).ok()?;
        let (since, identifier, options) = (Seq(self.number()?), self.small()?, self.u8()?);
        Some(Subscription {
            text: text.into(),
            since,
            filter: 0,
            position: 0,
            identifier,
            qos: Qos::from_bits(options & 0b11)?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
        })
    }
    pub fn subscription(&mut self) -> Option<Subscription> {
        Some(Subscription {
            text: self.text()?.into(),
            since: Seq(self.u64()?),
            filter: self.u32()?,
            position: self.u32()?,
            identifier: self.u32()?,
            qos: self.qos()?,
            no_local: self.flag()?,
            retain_as_published: self.flag()?,
        })
    }
}

pub(super) trait Write {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }
    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("lists and texts are bounded far below 4 G"));
    }
    fn binary(&mut self, value: &[u8]) {
        self.count(value.len());
        self.put(value);
    }
    fn text(&mut self, value: &str) {
        self.binary(value.as_bytes());
    }
    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
    fn at(&mut self, at: LoggedAt) {
        match at {
            LoggedAt::Inbox(offset) => {
                self.u8(0);
                self.u64(offset.0);
            }
            LoggedAt::Topics(seq) => {
                self.u8(1);
                self.u64(seq.0);
            }
            LoggedAt::Retained(identifier) => {
                self.u8(2);
                self.u32(identifier);
            }
            LoggedAt::Shared { number, mark } => {
                self.u8(3);
                self.u64(number);
                self.u32(mark);
            }
        }
    }
    fn message(&mut self, message: &Message) {
        self.u16(message.app.0);
        self.text(&message.topic);
        self.option(message.only_device.as_deref(), Self::text);
        self.binary(&message.payload);
        self.u8(message.qos as u8);
        self.flag(message.retain);
        self.u64(message.created_ms);
        self.option(message.expires_ms, Self::u64);
        self.option(message.publisher, Self::u64);
        self.option(message.properties.as_deref(), |out, properties| {
            out.option(properties.payload_is_utf8, Self::flag);
            out.option(properties.content_type.as_deref(), Self::text);
            out.option(properties.response_topic.as_deref(), Self::text);
            out.option(properties.correlation_data.as_deref(), Self::binary);
            out.count(properties.user.len());
            for (name, value) in &properties.user {
                out.text(name);
                out.text(value);
            }
        });
    }
    fn will(&mut self, will: &Will) {
        self.message(&will.message);
        self.u32(will.delay);
        self.option(will.message_expiry, Self::u32);
    }
    fn recorded_subscription(&mut self, subscription: &Subscription) {
        self.number(subscription.text.len() as u64);
        self.put(subscription.text.as_bytes());
        self.number(subscription.since.0);
        self.number(u64::from(subscription.identifier));
        let no_local = if subscription.no_local { NO_LOCAL } else { 0 };
        let retain = if subscription.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
        self.u8(subscription.qos as u8 | no_local | retain);
    }
    fn subscription(&mut self, subscription: &Subscription) {
        self.text(&subscription.text);
        self.u64(subscription.since.0);
        self.u32(subscription.filter);
        self.u32(subscription.position);
        self.u32(subscription.identifier);
        self.u8(subscription.qos as u8);
        self.flag(subscription.no_local);
        self.flag(subscription.retain_as_published);
    }
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
