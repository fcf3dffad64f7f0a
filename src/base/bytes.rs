//! Bytes of what is kept: big-endian numbers, texts and lists behind their lengths. What is read may come from a damaged
//! store, so every read can fail.

use super::ids::{AppId, Qos};
use super::message::{Message, Properties};
use bytes::Bytes;

/// What is left to be read. `None` from a read: it is not there, or not what it should be.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// That many bytes.
    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(bytes)?;
        self.0 = left;
        Some(taken)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }
    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
    /// Eight bytes.
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
    /// A number that fits.
    pub fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }
    /// Anything but 0 is true.
    pub fn flag(&mut self) -> Option<bool> {
        self.u8().map(|byte| byte != 0)
    }
    /// Bytes behind their length.
    pub fn binary(&mut self) -> Option<&'a [u8]> {
        let bytes = self.u32()?;
        self.take(usize::try_from(bytes).ok()?)
    }
    /// UTF-8 behind its length.
    pub fn text(&mut self) -> Option<&'a str> {
        core::str::from_utf8(self.binary()?).ok()
    }
    /// A flag, then the value if there is one.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Some(None) }
    }
    /// A list, whose length is not believed before its items are there.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| read(self)).collect()
    }
    /// Its two bits.
    pub fn qos(&mut self) -> Option<Qos> {
        Qos::from_bits(self.u8()?)
    }
    /// All of it.
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
            collapse: None,
        })
    }
}

/// Where bytes are collected.
pub trait Write {
    /// Bytes as they are.
    fn put(&mut self, bytes: &[u8]);

    /// One byte.
    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    /// Two bytes.
    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }
    /// Four bytes.
    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }
    /// Eight bytes.
    fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }
    /// Mostly small ones: 7 bits a byte, the lowest first.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }
    /// Anything but 0 is true.
    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    /// Of items that follow.
    fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("lists and texts are bounded far below 4 G"));
    }
    /// Bytes behind their length.
    fn binary(&mut self, value: &[u8]) {
        self.count(value.len());
        self.put(value);
    }
    /// UTF-8 behind its length.
    fn text(&mut self, value: &str) {
        self.binary(value.as_bytes());
    }
    /// A flag, then the value if there is one.
    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
    /// All of it.
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
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
