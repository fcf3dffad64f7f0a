//! The bytes of records and frozen sessions: what only sessions have, beside [`crate::base::bytes`].

use super::expiry::Will;
use super::state::{LoggedAt, Subscription};
use super::text::Texts;
use crate::base::ids::{Offset, Qos, Seq};

pub(super) use crate::base::bytes::{Reader, Write};

/// Bits of a recorded subscription's options, behind its QoS.
const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;

/// What a session reads.
pub(super) trait ReadSession {
    fn at(&mut self) -> Option<LoggedAt>;
    fn will(&mut self) -> Option<Will>;
    /// A subscription of a record: its place in the router is that of another process.
    fn recorded_subscription(&mut self, texts: &mut Texts) -> Option<Subscription>;
    fn subscription(&mut self) -> Option<Subscription>;
}

impl ReadSession for Reader<'_> {
    fn at(&mut self) -> Option<LoggedAt> {
        match self.u8()? {
            0 => self.u64().map(|offset| LoggedAt::Inbox(Offset(offset))),
            1 => self.u64().map(|seq| LoggedAt::Topics(Seq(seq))),
            2 => self.u32().map(LoggedAt::Retained),
            3 => Some(LoggedAt::Shared { number: self.u64()?, mark: self.u32()? }),
            _ => None,
        }
    }
    fn will(&mut self) -> Option<Will> {
        Some(Will { message: self.message()?, delay: self.u32()?, message_expiry: self.option(Self::u32)? })
    }
    fn recorded_subscription(&mut self, texts: &mut Texts) -> Option<Subscription> {
        let bytes = self.small()?;
        let text = core::str::from_utf8(self.take(usize::try_from(bytes).ok()?)?).ok()?;
        let (since, identifier, options) = (Seq(self.number()?), self.small()?, self.u8()?);
        Some(Subscription {
            text: texts.shared(text),
            since,
            filter: 0,
            position: 0,
            identifier,
            qos: Qos::from_bits(options & 0b11)?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
        })
    }
    fn subscription(&mut self) -> Option<Subscription> {
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

/// What a session writes.
pub(super) trait WriteSession: Write {
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

impl<T: Write> WriteSession for T {}
