//! Keys and values of the durable store. All live in one keyspace, told apart by their first byte, so that one sequence
//! of commits covers all of them: what a lost commit took with it is seen in one chain of numbers.
//!
//! ```text
//!   g group                    the state after a commit; the numbers follow each other without a hole
//!   s kind app name            a stream's head
//!   e id offset                an entry of an inbox or for backends: seq, age, message or the number of a shared one
//!   o id offset                where a topic entry is: seq, age, bytes
//!   t app seq                  a topic or everyone entry, whole: readers of topics go along these
//!   d app seq                  the stream of which retention took this seq as the newest
//!   f app seq                  the same of a stream that is forgotten
//!   p seq  /  c seq            a message that a list shares, by the seq of its first entry; how many entries are left
//!   r key                      a record
//!   k app key                  an idempotency key
//!   q number                   the keys in order of arrival
//! ```
//! Numbers in keys are big-endian, so that they are in order. A stream's `id` is the seq of its first entry.

use crate::base::bytes::{Reader, Write};
use crate::base::ids::{AppId, Epoch, Offset, PushId, Seq};
use crate::base::message::{Entry, Message, StreamKey};
use crate::store::{IdempotencyKey, KnownKey, Position};
use std::sync::Arc;

pub(super) const GROUP: u8 = b'g';
pub(super) const STREAM: u8 = b's';
pub(super) const INBOX_ENTRY: u8 = b'e';
pub(super) const TOPIC_OFFSET: u8 = b'o';
pub(super) const TOPIC_ENTRY: u8 = b't';
pub(super) const GAP: u8 = b'd';
pub(super) const FORGOTTEN: u8 = b'f';
pub(super) const SHARED: u8 = b'p';
pub(super) const SHARED_COUNT: u8 = b'c';
pub(super) const RECORD: u8 = b'r';
pub(super) const KEY: u8 = b'k';
pub(super) const KEY_NUMBER: u8 = b'q';

const KIND_INBOX: u8 = 0;
const KIND_TOPIC: u8 = 1;
const KIND_EVERYONE: u8 = 2;
const KIND_UPSTREAM: u8 = 3;

/// How a topic entry names its stream.
const NAME_IS_THE_TOPIC: u8 = 0;
const NAME_IS_EVERYONE: u8 = 1;
const NAME_FOLLOWS: u8 = 2;

/// A key of one number.
pub(super) fn numbered(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The key of an entry by its stream's id.
pub(super) fn placed(kind: u8, id: u64, offset: Offset) -> [u8; 17] {
    let mut key = [kind; 17];
    key[1..9].copy_from_slice(&id.to_be_bytes());
    key[9..].copy_from_slice(&offset.0.to_be_bytes());
    key
}

/// The key of what an app has at a seq.
pub(super) fn sequenced(kind: u8, app: AppId, seq: Seq) -> [u8; 11] {
    let mut key = [kind; 11];
    key[1..3].copy_from_slice(&app.0.to_be_bytes());
    key[3..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// The number at a key's end.
pub(super) fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The offset at the end of an entry's key.
pub(super) fn offset_of(key: &[u8]) -> Option<Offset> {
    last_number(key).map(Offset)
}

/// The app in a sequenced key.
pub(super) fn app_of(key: &[u8]) -> Option<AppId> {
    let bytes = key.get(1..3)?.try_into().ok()?;
    Some(AppId(u16::from_be_bytes(bytes)))
}

pub(super) fn prefixed(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(rest.len() + 1);
    key.push(kind);
    key.put(rest);
    key
}

fn put_name(out: &mut Vec<u8>, stream: &StreamKey) {
    let (kind, app, name) = match stream {
        StreamKey::Inbox(app, user) => (KIND_INBOX, app, &**user),
        StreamKey::Topic(app, topic) => (KIND_TOPIC, app, &**topic),
        StreamKey::Everyone(app) => (KIND_EVERYONE, app, ""),
        StreamKey::Upstream(app) => (KIND_UPSTREAM, app, ""),
    };
    out.u8(kind);
    out.u16(app.0);
    out.put(name.as_bytes());
}

fn name(bytes: &[u8]) -> Option<StreamKey> {
    let mut reader = Reader(bytes);
    let (kind, app) = (reader.u8()?, AppId(reader.u16()?));
    let name = core::str::from_utf8(reader.0).ok()?;
    match kind {
        KIND_INBOX => Some(StreamKey::Inbox(app, name.into())),
        KIND_TOPIC => Some(StreamKey::Topic(app, name.into())),
        KIND_EVERYONE => Some(StreamKey::Everyone(app)),
        KIND_UPSTREAM => Some(StreamKey::Upstream(app)),
        _ => None,
    }
}

pub(super) fn stream_key(stream: &StreamKey) -> Vec<u8> {
    let mut key = vec![STREAM];
    put_name(&mut key, stream);
    key
}

pub(super) fn parse_stream_key(key: &[u8]) -> Option<StreamKey> {
    name(key.get(1..)?)
}

/// The value of a gap: its stream.
pub(super) fn gap_value(stream: &StreamKey) -> Vec<u8> {
    let mut value = Vec::new();
    put_name(&mut value, stream);
    value
}

pub(super) fn parse_gap_value(value: &[u8]) -> Option<StreamKey> {
    name(value)
}

/// What is kept of a stream besides its entries. The default is that of a stream that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub id: u64,
    /// As it was when the stream was made: what counts is [`State::epoch`] of it.
    pub made_epoch: u64,
    /// Offset of the oldest entry, or of the next one when there is none.
    pub first: u64,
    pub last: u64,
    pub trimmed: Seq,
    pub touched_ms: u64,
    /// When the oldest entry came; means nothing when there is none.
    pub first_ms: u64,
    /// Of the entries' payloads. A head that was written before this was counted has 0, and what it held then never
    /// counts.
    pub bytes: u64,
}

impl Head {
    pub fn len(&self) -> u64 {
        self.last + 1 - self.first
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        out.u64(self.made_epoch);
        for number in [self.id, self.first, self.last, self.trimmed.0, self.touched_ms, self.first_ms, self.bytes] {
            out.number(number);
        }
    }

    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        let made_epoch = reader.u64()?;
        let mut next = || reader.number();
        let (id, first, last, trimmed) = (next()?, next()?, next()?, Seq(next()?));
        let (touched_ms, first_ms) = (next()?, next()?);
        let bytes = if reader.0.is_empty() { 0 } else { reader.number()? };
        (first >= 1 && first <= last.checked_add(1)?).then_some(Self {
            id,
            made_epoch,
            first,
            last,
            trimmed,
            touched_ms,
            first_ms,
            bytes,
        })
    }
}

/// An entry as retention sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    pub seq: Seq,
    pub at_ms: u64,
    pub payload_bytes: u64,
    /// Of the message that it shares with others.
    pub shared: Option<u64>,
}

/// What an inbox entry says.
pub(super) enum Body {
    Own(Message),
    Shared(u64),
}

/// `shared`: the number of a message that is kept once for a list.
pub(super) fn write_inbox_entry(entry: &Entry, at_ms: u64, shared: Option<u64>, out: &mut Vec<u8>) {
    out.number(entry.seq.0);
    out.number(at_ms);
    out.number(entry.message.payload.len() as u64);
    out.option(shared, Write::number);
    if shared.is_none() {
        out.message(&entry.message);
    }
}

fn inbox_front(reader: &mut Reader<'_>) -> Option<Front> {
    let (seq, at_ms, payload_bytes) = (Seq(reader.number()?), reader.number()?, reader.number()?);
    Some(Front { seq, at_ms, payload_bytes, shared: reader.option(Reader::number)? })
}

pub(super) fn parse_inbox_front(value: &[u8]) -> Option<Front> {
    inbox_front(&mut Reader(value))
}

pub(super) fn parse_inbox_entry(value: &[u8]) -> Option<(Seq, Body)> {
    let mut reader = Reader(value);
    let front = inbox_front(&mut reader)?;
    match front.shared {
        Some(id) => Some((front.seq, Body::Shared(id))),
        None => Some((front.seq, Body::Own(reader.message()?))),
    }
}

pub(super) fn write_topic_offset(front: Front, out: &mut Vec<u8>) {
    out.number(front.seq.0);
    out.number(front.at_ms);
    out.number(front.payload_bytes);
}

pub(super) fn parse_topic_offset(value: &[u8]) -> Option<Front> {
    let mut reader = Reader(value);
    let (seq, at_ms, payload_bytes) = (Seq(reader.number()?), reader.number()?, reader.number()?);
    Some(Front { seq, at_ms, payload_bytes, shared: None })
}

pub(super) fn write_topic_entry(entry: &Entry, made_epoch: u64, out: &mut Vec<u8>) {
    out.u64(made_epoch);
    out.number(entry.offset.0);
    match &entry.stream {
        StreamKey::Topic(_, topic) if *topic == entry.message.topic => out.u8(NAME_IS_THE_TOPIC),
        StreamKey::Everyone(_) => out.u8(NAME_IS_EVERYONE),
        StreamKey::Upstream(_) => unreachable!("what is for backends is no topic's"),
        StreamKey::Topic(_, topic) | StreamKey::Inbox(_, topic) => {
            out.u8(NAME_FOLLOWS);
            out.text(topic);
        }
    }
    out.message(&entry.message);
}

/// The made epoch, and the entry with it in place of its epoch.
pub(super) fn parse_topic_entry(key: &[u8], value: &[u8]) -> Option<(u64, Entry)> {
    let (app, seq) = (app_of(key)?, Seq(last_number(key)?));
    let mut reader = Reader(value);
    let (made_epoch, offset) = (reader.u64()?, Offset(reader.number()?));
    let name = match reader.u8()? {
        NAME_IS_THE_TOPIC => None,
        NAME_IS_EVERYONE => Some(StreamKey::Everyone(app)),
        NAME_FOLLOWS => Some(StreamKey::Topic(app, reader.text()?.into())),
        _ => return None,
    };
    let message = Arc::new(reader.message()?);
    let stream = name.unwrap_or_else(|| StreamKey::Topic(app, Arc::clone(&message.topic)));
    Some((made_epoch, Entry { stream, epoch: Epoch(made_epoch), offset, seq, message }))
}

/// A key with its outcome, its number and when it came.
#[derive(Debug)]
pub(super) struct KeptKey {
    pub number: u64,
    pub at_ms: u64,
    pub known: KnownKey,
}

pub(super) fn idempotency_key(app: AppId, key: &str) -> Vec<u8> {
    let mut out = vec![KEY];
    out.u16(app.0);
    out.put(key.as_bytes());
    out
}

/// Positions of a list are many and alike: epochs as they count now, offsets mostly small.
pub(super) fn write_key(key: &IdempotencyKey, positions: &[Position], number: u64, at_ms: u64, out: &mut Vec<u8>) {
    out.number(number);
    out.number(at_ms);
    out.u64(key.body_hash);
    out.put(&key.id.0.to_be_bytes());
    out.count(positions.len());
    for position in positions {
        out.u64(position.epoch.0);
        out.number(position.offset.0);
        out.number(position.seq.0);
    }
}

pub(super) fn parse_key(value: &[u8]) -> Option<KeptKey> {
    let mut reader = Reader(value);
    let (number, at_ms, body_hash) = (reader.number()?, reader.number()?, reader.u64()?);
    let id = PushId(u128::from_be_bytes(reader.take(16)?.try_into().ok()?));
    let positions = reader.list(|reader| {
        let (epoch, offset) = (Epoch(reader.u64()?), Offset(reader.number()?));
        Some(Position { epoch, offset, seq: Seq(reader.number()?) })
    })?;
    Some(KeptKey { number, at_ms, known: KnownKey { body_hash, id, positions: positions.into() } })
}

/// The value of a key's number: when it came, and its key.
pub(super) fn write_key_number(at_ms: u64, key: &[u8], out: &mut Vec<u8>) {
    out.u64(at_ms);
    out.put(key);
}

pub(super) fn parse_key_number(value: &[u8]) -> Option<(u64, &[u8])> {
    let mut reader = Reader(value);
    Some((reader.u64()?, reader.0))
}

/// What is true after a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Number of the commit, from 1.
    pub group: u64,
    pub seq: Seq,
    pub life: u64,
    /// What epochs are changed by, since data was lost and its loss accepted; 0 when that never was.
    pub epoch_shift: u64,
    /// Bytes of keys and values of all commits up to this one.
    pub written_bytes: u64,
    pub streams: u64,
    pub entries: u64,
    pub records: u64,
    /// Of payloads and records.
    pub bytes: u64,
    pub keys: u64,
    /// The keys in order of arrival have the numbers from this one on...
    pub keys_first: u64,
    /// ...up to this one, which is the next.
    pub keys_next: u64,
}

impl State {
    /// The epoch that counts for a stream, by the one it was made with. It is its own inverse.
    pub fn epoch(&self, made: u64) -> u64 {
        // 0 would stand for no stream: the one epoch in 2^64 that would become it stays as it is.
        if made == self.epoch_shift { made } else { made ^ self.epoch_shift }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { seq, life, epoch_shift, written_bytes, streams, entries, records, bytes, .. } = self;
        out.u64(*life);
        out.u64(*epoch_shift);
        for number in [seq.0, *written_bytes, *streams, *entries, *records, *bytes] {
            out.number(number);
        }
        for number in [self.keys, self.keys_first, self.keys_next] {
            out.number(number);
        }
    }

    pub fn parse(group: u64, value: &[u8]) -> Option<Self> {
        let mut reader = Reader(value);
        let (life, epoch_shift) = (reader.u64()?, reader.u64()?);
        let mut next = || reader.number();
        Some(Self {
            group,
            life,
            epoch_shift,
            seq: Seq(next()?),
            written_bytes: next()?,
            streams: next()?,
            entries: next()?,
            records: next()?,
            bytes: next()?,
            keys: next()?,
            keys_first: next()?,
            keys_next: next()?,
        })
    }
}
