//! What is stored for backends: one stream an app of what happened to its devices, and a record a consumer group of what
//! it wants and how far it has acknowledged.
//!
//! An entry is a message like any other to the log; only its payload is ours. A client's publish is committed with the
//! message itself, so what was acknowledged to the client has been stored for the group as well.

use super::command::{AppWatch, Happened, Happening, Receipt, Told};
use crate::base::bytes::{Reader, Write};
use crate::base::ids::{AppId, Epoch, Offset, Qos};
use crate::base::log::RecordChange;
use crate::base::message::{Message, StreamKey};
use crate::store::NewEntry;
use std::sync::Arc;

/// The prefix of the records of all groups. Key: `u`, app, group.
pub const GROUPS: &[u8] = b"u";
/// Of entries and records.
const VERSION: u8 = 1;

const MISSED: u8 = 0;
const CONNECTED: u8 = 1;
const DISCONNECTED: u8 = 2;
const PUBLISHED: u8 = 3;
const RECEIPT: u8 = 4;

/// A consumer group as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it is told of.
    pub wants: AppWatch,
    /// Up to where it has acknowledged the app's stream. Epoch 0: from the stream's beginning, which was not made yet.
    pub acknowledged: (Epoch, Offset),
    /// When it was last read or acknowledged, wall-clock milliseconds.
    pub used_ms: u64,
}

/// A group's record.
pub fn record(app: AppId, name: &str, group: &Group) -> RecordChange {
    let mut out = vec![VERSION];
    out.u64(group.acknowledged.0.0);
    out.number(group.acknowledged.1.0);
    out.number(group.used_ms);
    out.flag(group.wants.connections);
    out.flag(group.wants.receipts);
    out.count(group.wants.publishes.len());
    group.wants.publishes.iter().for_each(|filter| out.text(filter));
    RecordChange { key: key(app, name), value: Some(out.into_boxed_slice()) }
}

/// The removal of a group's record.
pub fn removal(app: AppId, name: &str) -> RecordChange {
    RecordChange { key: key(app, name), value: None }
}

fn key(app: AppId, name: &str) -> Box<[u8]> {
    let mut key = GROUPS.to_vec();
    key.u16(app.0);
    key.put(name.as_bytes());
    key.into_boxed_slice()
}

/// Reads a group's record; none: it is not one that this version has written.
pub fn parse_record<'a>(key: &'a [u8], value: &[u8]) -> Option<(AppId, &'a str, Group)> {
    let mut key = Reader(key.strip_prefix(GROUPS)?);
    let app = AppId(key.u16()?);
    let name = core::str::from_utf8(key.0).ok()?;
    let mut reader = Reader(value);
    (reader.u8()? == VERSION).then_some(())?;
    let acknowledged = (Epoch(reader.u64()?), Offset(reader.number()?));
    let used_ms = reader.number()?;
    let (connections, receipts) = (reader.flag()?, reader.flag()?);
    let publishes = reader.list(|reader| reader.text().map(Arc::from))?;
    Some((app, name, Group { wants: AppWatch { connections, receipts, publishes }, acknowledged, used_ms }))
}

/// The entry of something that happened.
pub(crate) fn entry(app: AppId, user: &str, device: &str, what: &Happening, wall_ms: u64) -> NewEntry {
    let mut out = Vec::with_capacity(16 + user.len() + device.len());
    out.u8(VERSION);
    out.u8(kind(what));
    out.text(user);
    out.text(device);
    match what {
        Happening::Connected { session_present } => out.flag(*session_present),
        Happening::Disconnected { reason } => out.text(reason),
        Happening::Published(message) => out.message(message),
        Happening::Receipt { topic, inbox, receipt, count } => {
            out.text(topic);
            out.option(*inbox, |out, (epoch, offset)| {
                out.u64(epoch.0);
                out.number(offset.0);
            });
            out.u8(*receipt as u8);
            out.number(*count);
        }
    }
    entry_of(app, out, wall_ms)
}

/// The entry that says that so many things are missing here.
pub(crate) fn missed(app: AppId, count: u64, wall_ms: u64) -> NewEntry {
    let mut out = vec![VERSION, MISSED];
    out.number(count);
    entry_of(app, out, wall_ms)
}

fn kind(what: &Happening) -> u8 {
    match what {
        Happening::Connected { .. } => CONNECTED,
        Happening::Disconnected { .. } => DISCONNECTED,
        Happening::Published(_) => PUBLISHED,
        Happening::Receipt { .. } => RECEIPT,
    }
}

fn entry_of(app: AppId, payload: Vec<u8>, wall_ms: u64) -> NewEntry {
    let message = Message {
        app,
        topic: Arc::default(),
        only_device: None,
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        created_ms: wall_ms,
        expires_ms: None,
        publisher: None,
        properties: None,
    };
    NewEntry { stream: StreamKey::Upstream(app), message: Arc::new(message) }
}

/// Reads the message of an entry; none: it is not one that this version has written.
pub fn parse(message: &Message) -> Option<Told> {
    let mut reader = Reader(&message.payload);
    (reader.u8()? == VERSION).then_some(())?;
    let kind = reader.u8()?;
    if kind == MISSED {
        return reader.number().map(Told::Missed);
    }
    let (user, device) = (reader.text()?.into(), reader.text()?.into());
    let what = match kind {
        CONNECTED => Happening::Connected { session_present: reader.flag()? },
        DISCONNECTED => Happening::Disconnected { reason: reader.text()?.to_owned().into() },
        PUBLISHED => Happening::Published(Arc::new(reader.message()?)),
        RECEIPT => Happening::Receipt {
            topic: reader.text()?.into(),
            inbox: reader.option(|reader| Some((Epoch(reader.u64()?), Offset(reader.number()?))))?,
            receipt: Receipt::from_number(reader.u8()?)?,
            count: reader.number()?,
        },
        _ => return None,
    };
    Some(Told::Happened(Happened { at_ms: message.created_ms, user, device, what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId(7);

    fn published() -> Happening {
        Happening::Published(entry_of(APP, b"payload".to_vec(), 5).message)
    }

    #[test]
    fn everything_that_happens_is_read_as_it_was_written() {
        let receipt = |receipt, inbox| Happening::Receipt { topic: "$inbox/a".into(), inbox, receipt, count: 3 };
        let all = [
            Happening::Connected { session_present: true },
            Happening::Disconnected { reason: "lost".into() },
            published(),
            receipt(Receipt::Delivered, Some((Epoch(9), Offset(300)))),
            receipt(Receipt::Trimmed, None),
        ];
        for what in all {
            let NewEntry { stream, message } = entry(APP, "alice", "phone", &what, 77);
            assert_eq!(stream, StreamKey::Upstream(APP));
            let expected = Happened { at_ms: 77, user: "alice".into(), device: "phone".into(), what };
            assert_eq!(parse(&message), Some(Told::Happened(expected)));
        }
        assert_eq!(parse(&missed(APP, 1 << 40, 1).message), Some(Told::Missed(1 << 40)));
    }

    #[test]
    fn an_entry_that_is_cut_short_or_of_another_version_is_none() {
        let whole = entry(APP, "alice", "phone", &published(), 77).message;
        for length in 0..whole.payload.len() {
            let cut = Message { payload: whole.payload.slice(..length), ..(*whole).clone() };
            assert_eq!(parse(&cut), None, "{length}");
        }
        let mut later = whole.payload.to_vec();
        later[0] += 1;
        assert_eq!(parse(&Message { payload: later.into(), ..(*whole).clone() }), None);
    }

    #[test]
    fn a_group_is_read_as_it_was_recorded() {
        let publishes = vec![Arc::from("rooms/+"), Arc::from("#")];
        let wants = AppWatch { connections: true, receipts: false, publishes };
        let group = Group { wants, acknowledged: (Epoch(3), Offset(1 << 33)), used_ms: 1_700_000_000_000 };
        let RecordChange { key, value } = record(APP, "billing", &group);
        let value = value.expect("it is put");
        assert_eq!(parse_record(&key, &value), Some((APP, "billing", group)));
        assert_eq!(removal(APP, "billing"), RecordChange { key: key.clone(), value: None });
        for length in 0..value.len() {
            assert_eq!(parse_record(&key, &value[..length]), None, "{length}");
        }
    }
}
