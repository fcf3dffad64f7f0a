//! What the store keeps of a session, in five kinds of records under one prefix, so that what changes often is small:
//! main (expiry, will, filters), cursor (positions, marks; lazy), one per durable QoS 2 or retained delivery in flight
//! (with the message, which pins it against retention), one per QoS 2 identifier received, and how far retained
//! messages were sent.
//!
//! Key: `s`, app, user, 0, device (nothing if it is the user's name), 0, kind; for the last two kinds also the incarnation
//! and the identifier. Names never hold 0 [MQTT-1.5.4-2], and no device's is empty.
//!
//! A publish of a session is committed at its topic's home, and that may be after the session's removal. The
//! incarnation, which the main record names, tells what was committed for an earlier session of the same device.

use super::super::Identity;
use super::bytes::{ReadSession, Reader, Write, WriteSession};
use super::cursor::Prefix;
use super::expiry::{TICK_MS, tick};
use super::protocol::Protocol;
use super::retained::{Pending, Replay};
use super::state::{Flight, InFlight, Link, LoggedAt, Received, Session, flag};
use super::text::Texts;
use crate::base::clock::Now;
use crate::base::ids::{AppId, Epoch, Offset, Qos, Seq};
use crate::base::log::RecordChange;
use crate::base::message::Message;
use std::sync::Arc;

/// The prefix of all session records.
pub const PREFIX: &[u8] = b"s";
const VERSION: u8 = 2;
const MAIN: u8 = 0;
const CURSOR: u8 = 1;
const FLIGHT: u8 = 2;
const RECEIVED: u8 = 3;
const REPLAY: u8 = 4;

fn key(session: &Session, kind: u8, id: Option<u16>) -> Box<[u8]> {
    let mut key = Vec::with_capacity(session.user().len() + session.device().len() + 8);
    key.extend_from_slice(PREFIX);
    key.u16(session.app.0);
    key.extend_from_slice(session.user().as_bytes());
    key.push(0);
    // Often a user has one device of the same name. A session's records are kept in RAM.
    if session.device() != session.user() {
        key.extend_from_slice(session.device().as_bytes());
    }
    key.extend_from_slice(&[0, kind]);
    if let Some(id) = id {
        key.u32(session.generation);
        key.u16(id);
    }
    key.into_boxed_slice()
}

/// Whose session a record is about; none when the key is not one of ours.
pub fn owner(key: &[u8]) -> Option<(AppId, &str)> {
    let rest = key.strip_prefix(PREFIX)?;
    let (app, rest) = rest.split_first_chunk::<2>()?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    Some((AppId(u16::from_be_bytes(*app)), core::str::from_utf8(&rest[..end]).ok()?))
}

fn change(session: &Session, kind: u8, id: Option<u16>, value: Option<Vec<u8>>) -> RecordChange {
    RecordChange { key: key(session, kind, id), value: value.map(Vec::into_boxed_slice) }
}

/// Expiry, will, filters, and where it began.
pub(in crate::session) fn main(session: &Session) -> RecordChange {
    let mut out = vec![VERSION];
    out.u32(session.generation);
    out.number(u64::from(session.expiry));
    let mqtt5 = if session.is_mqtt5() { flag::MQTT5 } else { 0 };
    let flags = session.flags & flag::INBOX_UNKNOWN | mqtt5;
    out.number(u64::from(flags));
    write_positions(session, &mut out);
    out.option(session.extra.as_ref().and_then(|extra| extra.will.as_deref()), Vec::will);
    // What has not begun yet is committed once it has.
    let begun = || session.subscriptions.iter().filter(|subscription| subscription.has_begun());
    out.number(begun().count() as u64);
    begun().for_each(|subscription| out.recorded_subscription(subscription));
    change(session, MAIN, None, Some(out))
}

/// Most are small, and an inbox that has never had a message has no epoch: a session's records are kept in RAM.
fn write_positions(session: &Session, out: &mut Vec<u8>) {
    let Prefix { inbox, topics } = session.prefix();
    let epoch = session.positions.inbox_epoch;
    out.option((epoch != Epoch(0)).then_some(epoch.0), Vec::u64);
    out.number(inbox.0);
    out.number(topics.0);
}

/// Positions, marks, and since when it is away.
pub(in crate::session) fn cursor(session: &Session, now: Now) -> RecordChange {
    let mut out = vec![VERSION];
    write_positions(session, &mut out);
    out.flag(session.has(flag::INBOX_UNKNOWN));
    let away_ms = match session.link {
        Link::Online { .. } => None,
        Link::Offline { since_tick } => Some(now.monotonic_ms.saturating_sub(u64::from(since_tick) * TICK_MS)),
    };
    out.option(away_ms.map(|away| now.wall_ms.saturating_sub(away)), Vec::u64);
    let marks = || session.flights().filter(|flight| flight.state == Flight::Settled);
    out.number(marks().count() as u64);
    marks().filter_map(|flight| flight.at).for_each(|at| out.at(at));
    change(session, CURSOR, None, Some(out))
}

/// A durable QoS 2 delivery, sent or released, or a retained one.
pub(in crate::session) fn flight(session: &Session, flight: &InFlight) -> RecordChange {
    let mut out = vec![VERSION];
    out.at(flight.at.expect("only deliveries with a place are recorded"));
    if let Some(LoggedAt::Retained(_)) = flight.at {
        out.u8(flight.qos as u8);
    }
    out.option(flight.message.as_deref(), Vec::message);
    change(session, FLIGHT, Some(flight.delivery.0), Some(out))
}

/// A received QoS 2 identifier, or its removal.
pub(in crate::session) fn received(session: &Session, id: u16, held: bool) -> RecordChange {
    change(session, RECEIVED, Some(id), held.then(|| vec![VERSION]))
}

/// What is left of the retained messages for new subscriptions; nothing: its removal.
pub(in crate::session) fn replay<'a>(
    session: &Session,
    left: impl Iterator<Item = &'a Pending> + Clone,
) -> RecordChange {
    let count = left.clone().count();
    let mut out = vec![VERSION];
    out.number(count as u64);
    for Pending { filter, after, .. } in left {
        out.text(filter);
        out.text(after);
    }
    change(session, REPLAY, Some(0), (count > 0).then_some(out))
}

/// Removes whatever may be there.
pub(in crate::session) fn removals(session: &Session, records: &mut Vec<RecordChange>) {
    if !session.has(flag::RECORDED) {
        return;
    }
    records.push(change(session, MAIN, None, None));
    records.push(change(session, CURSOR, None, None));
    let recorded = |flight: &&InFlight| flight.is_recorded() && flight.delivery.0 != 0;
    let flights = session.flights().filter(recorded).map(|flight| flight.delivery.0);
    let gone = session.work.iter().flat_map(|work| work.gone.iter().copied());
    records.extend(flights.chain(gone).map(|id| change(session, FLIGHT, Some(id), None)));
    let ids = session.extra.iter().flat_map(|extra| &extra.received);
    records.extend(ids.map(|held| received(session, held.id, false)));
    let replay = session.extra.as_ref().and_then(|extra| extra.replay.as_ref());
    if replay.is_some_and(|replay| replay.recorded) {
        records.push(change(session, REPLAY, Some(0), None));
    }
}

impl Session {
    /// Appends the lazily written part of the record if it changed since the last call. `shard_seq`: the highest seq
    /// up to which every entry has been offered to every session of this shard.
    pub fn record_lazy(&mut self, shard_seq: Seq, now: Now, records: &mut Vec<RecordChange>) {
        self.set(flag::FILED, false);
        if !self.is_durable() || !self.has(flag::RECORDED) {
            return self.set(flag::MAIN_DIRTY | flag::CURSOR_DIRTY, false);
        }
        self.positions.stand_at(shard_seq);
        if self.has(flag::MAIN_DIRTY) {
            records.push(main(self));
            self.main_recorded();
        }
        if self.has(flag::CURSOR_DIRTY) {
            records.push(cursor(self, now));
            self.has_cursor_record = true;
            let gone = self.work.as_mut().map(|work| core::mem::take(&mut work.gone)).unwrap_or_default();
            records.extend(gone.into_iter().map(|id| change(self, FLIGHT, Some(id), None)));
            records.extend(self.forget_replay());
        }
        self.set(flag::MAIN_DIRTY | flag::CURSOR_DIRTY, false);
    }

    /// The main record is being written: while a connected session has no cursor's record and nothing in flight, the
    /// positions there are the cursor's, and a record of its own would say nothing more.
    pub(in crate::session) fn main_recorded(&mut self) {
        self.set(flag::MAIN_DIRTY, false);
        if self.link.connection().is_some() && self.work.is_none() && !self.has_cursor_record {
            self.set(flag::CURSOR_DIRTY, false);
        }
    }
}

/// The prefix of all records of retained messages.
pub const RETAINED_PREFIX: &[u8] = b"t";

/// A topic's retained message, or the removal of the record when it has no payload. Key: `t`, app, topic.
pub fn retained(message: &Message) -> RecordChange {
    let mut key = RETAINED_PREFIX.to_vec();
    key.u16(message.app.0);
    key.extend_from_slice(message.topic.as_bytes());
    let value = (!message.payload.is_empty()).then(|| {
        let mut out = vec![VERSION];
        out.message(message);
        out.into_boxed_slice()
    });
    RecordChange { key: key.into_boxed_slice(), value }
}

/// The removal of a topic's retained message.
pub fn not_retained(message: &Message) -> RecordChange {
    RecordChange { value: None, ..retained(message) }
}

/// Reads the value of a retained message's record.
pub fn parse_retained(value: &[u8]) -> Option<Message> {
    let reader = &mut Reader(value);
    (reader.u8()? == VERSION).then_some(())?;
    reader.message()
}

/// The key of a share group's record: `g`, app, `$share/group/filter`, 0.
pub fn share_key(app: AppId, share: &str) -> Box<[u8]> {
    let mut key = vec![b'g'];
    key.u16(app.0);
    key.extend_from_slice(share.as_bytes());
    key.push(0);
    key.into_boxed_slice()
}

/// How far a share group is: done with all that is logged up to `through`, but for what is `open`, ascending.
pub fn share(key: Box<[u8]>, through: Seq, open: &[Seq]) -> RecordChange {
    let mut out = vec![VERSION];
    out.number(through.0);
    out.number(open.len() as u64);
    let mut last = 0;
    for seq in open {
        // Neighbours are near each other.
        out.number(seq.0 - last);
        last = seq.0;
    }
    RecordChange { key, value: Some(out.into_boxed_slice()) }
}

/// Reads the value of a share group's record.
pub fn parse_share(value: &[u8]) -> Option<(Seq, Vec<Seq>)> {
    let reader = &mut Reader(value);
    (reader.u8()? == VERSION).then_some(())?;
    let through = Seq(reader.number()?);
    let mut last = 0_u64;
    let open = list(reader, |reader| {
        last = last.checked_add(reader.number()?)?;
        Some(Seq(last))
    })?;
    Some((through, open))
}

/// The key of the record that a share group's message is taken: the group's key and the seq. What the group's own record
/// says is done with has none.
pub fn share_taken_key(app: AppId, share: &str, seq: Seq) -> Box<[u8]> {
    let mut key = share_key(app, share).into_vec();
    key.u64(seq.0);
    key.into_boxed_slice()
}

/// A share group's message is taken: it belongs to the session in whose commit this is.
pub(in crate::session) fn share_taken(app: AppId, share: &str, seq: Seq) -> RecordChange {
    RecordChange { key: share_taken_key(app, share, seq), value: Some(Box::new([VERSION])) }
}

/// Which message of a share group a record of being taken is about; none: it is no such record, but the group's own.
pub fn share_taken_seq(share_key: &[u8], key: &[u8]) -> Option<Seq> {
    Reader(key.strip_prefix(share_key)?).u64().map(Seq)
}

/// The key of a user's read mark: `r`, app, user, 0, so that no user's key begins another's.
pub fn read_mark_key(app: AppId, user: &str) -> Box<[u8]> {
    let mut key = vec![b'r'];
    key.u16(app.0);
    key.extend_from_slice(user.as_bytes());
    key.push(0);
    key.into_boxed_slice()
}

pub(in crate::session) fn read_mark(app: AppId, user: &str, epoch: Epoch, mark: Offset) -> RecordChange {
    let mut out = vec![VERSION];
    out.u64(epoch.0);
    out.u64(mark.0);
    RecordChange { key: read_mark_key(app, user), value: Some(out.into_boxed_slice()) }
}

/// Reads the value of a read mark; it counts only within its epoch.
pub fn parse_read_mark(value: &[u8]) -> Option<(Epoch, Offset)> {
    let reader = &mut Reader(value);
    (reader.u8()? == VERSION).then_some(())?;
    Some((Epoch(reader.u64()?), Offset(reader.u64()?)))
}

/// Builds a session from its records, one after another in key order.
#[derive(Debug, Default)]
pub(in crate::session) struct Rebuild {
    session: Option<Session>,
    /// Up to the kind, the key of a main record that cannot be read: what else there is of its session is let be.
    unreadable: Option<Box<[u8]>>,
    texts: Texts,
}

/// What a record was.
#[derive(Debug)]
pub(in crate::session) enum Taken {
    /// The beginning of another session.
    Next {
        /// The one before it, which is whole now.
        whole: Option<Session>,
        /// Else the one that begins is left out.
        is_readable: bool,
    },
    /// A part of the session that has begun.
    Part,
    /// A part of a session that was over when it was committed: nobody's any more.
    Orphan,
}

impl Rebuild {
    /// Takes the next record in. None: it is damaged or of an unknown version.
    pub fn push(&mut self, key: &[u8], value: &[u8], now: Now) -> Option<Taken> {
        let mut reader = Reader(key);
        let (prefix, app) = (reader.take(PREFIX.len())?, AppId(reader.u16()?));
        if prefix != PREFIX {
            return None;
        }
        let mut parts = reader.0.splitn(3, |&byte| byte == 0);
        let mut name = || core::str::from_utf8(parts.next()?).ok();
        let (user, device) = (name()?, name()?);
        let device = if device.is_empty() { user } else { device };
        let mut rest = Reader(parts.next()?);
        let whose = &key[..key.len() - rest.0.len()];
        let kind = rest.u8()?;
        let mut value = Reader(value);
        let is_known = value.u8()? == VERSION;
        if kind == MAIN {
            let identity = Identity { app, user: user.into(), device: device.into() };
            let whole = self.finish();
            self.session = is_known.then(|| read_main(&identity, &mut value, &mut self.texts, now)).flatten();
            let is_readable = self.session.is_some();
            self.unreadable = (!is_readable).then(|| whose.into());
            return Some(Taken::Next { whole, is_readable });
        }
        if !is_known || self.unreadable.as_deref() == Some(whose) {
            return None;
        }
        let same = |session: &&mut Session| (session.app, session.user(), session.device()) == (app, user, device);
        let Some(session) = self.session.as_mut().filter(same) else { return Some(Taken::Orphan) };
        if kind != CURSOR && rest.u32()? != session.generation {
            return Some(Taken::Orphan);
        }
        match kind {
            CURSOR => read_cursor(session, &mut value, now)?,
            FLIGHT => read_flight(session, rest.u16()?, &mut value)?,
            REPLAY => read_replay(session, &mut value)?,
            RECEIVED => session.extra().received.push(Received { id: rest.u16()?, routed: true }),
            _ => return None,
        }
        Some(Taken::Part)
    }

    /// The last one.
    pub fn finish(&mut self) -> Option<Session> {
        let mut session = self.session.take()?;
        // Marks and identifiers of what the cursor has passed have done their work.
        let prefix = Prefix { inbox: session.positions.inbox_delivered, topics: session.positions.topics_delivered };
        if let Some(work) = session.work.as_mut() {
            work.window
                .retain(|flight| flight.state != Flight::Settled || flight.at.is_some_and(|at| !prefix.covers(at)));
        }
        session.work.take_if(|work| work.is_empty());
        session.notice_held();
        Some(session)
    }
}

fn read_main(identity: &Identity, reader: &mut Reader<'_>, texts: &mut Texts, now: Now) -> Option<Session> {
    let mut session = Session::new(identity);
    session.generation = reader.u32()?;
    session.expiry = reader.small()?;
    let flags = u16::try_from(reader.number()?).ok()?;
    session.protocol = if flags & flag::MQTT5 != 0 { Protocol::Mqtt5 } else { Protocol::Mqtt311 };
    session.flags = flags & !flag::MQTT5 | flag::RECORDED | flag::INBOX_STALE;
    read_positions(&mut session, reader)?;
    if let Some(will) = reader.option(Reader::will)? {
        session.extra().will = Some(Box::new(will));
    }
    let subscriptions = list(reader, |reader| reader.recorded_subscription(texts))?;
    session.replace_subscriptions(subscriptions);
    // Without a better knowledge its absence begins now: it was connected when the process ended.
    session.link = Link::Offline { since_tick: tick(now.monotonic_ms) };
    Some(session)
}

/// A list, whose length is not believed before its items are there.
fn list<'a, T>(reader: &mut Reader<'a>, mut read: impl FnMut(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
    let count = reader.number()?;
    (0..count).map(|_| read(reader)).collect()
}

fn read_positions(session: &mut Session, reader: &mut Reader<'_>) -> Option<()> {
    session.positions.inbox_epoch = Epoch(reader.option(Reader::u64)?.unwrap_or(0));
    session.positions.inbox_delivered = Offset(reader.number()?);
    session.positions.inbox_notified = session.positions.inbox_delivered;
    session.positions.topics_delivered = Seq(reader.number()?);
    session.positions.topics_missed = session.positions.topics_delivered;
    Some(())
}

fn read_cursor(session: &mut Session, reader: &mut Reader<'_>, now: Now) -> Option<()> {
    let main = session.positions;
    read_positions(session, reader)?;
    if reader.flag()? {
        // It is older than a main record that knows where the inbox begins.
        session.positions.inbox_epoch = main.inbox_epoch;
        session.positions.inbox_delivered = main.inbox_delivered;
        session.positions.inbox_notified = main.inbox_notified;
    } else {
        session.set(flag::INBOX_UNKNOWN, false);
    }
    session.has_cursor_record = true;
    if let Some(since_wall_ms) = reader.option(Reader::u64)? {
        // The monotonic clock began with this process, so an absence from before it is brought forward in expiry.
        let away = now.wall_ms.saturating_sub(since_wall_ms);
        match now.monotonic_ms.checked_sub(away) {
            Some(since) => session.link = Link::Offline { since_tick: tick(since) },
            None => {
                let lacking = u32::try_from(away.saturating_sub(now.monotonic_ms) / 1000).unwrap_or(u32::MAX);
                session.expiry = session.expiry.saturating_sub(lacking).max(1);
                if let Some(will) = session.extra.as_mut().and_then(|extra| extra.will.as_mut()) {
                    will.delay = will.delay.saturating_sub(lacking);
                }
                session.link = Link::Offline { since_tick: 0 };
            }
        }
    }
    for at in list(reader, Reader::at)? {
        let state = Flight::Settled;
        let (delivery, qos) = (Default::default(), Qos::ExactlyOnce);
        let mark = InFlight { delivery, state, qos, at: Some(at), message: None };
        session.work.get_or_insert_default().window.push_back(mark);
    }
    Some(())
}

fn read_flight(session: &mut Session, id: u16, reader: &mut Reader<'_>) -> Option<()> {
    let at = match reader.at()? {
        // The group has it no more, and the numbers have begun anew.
        LoggedAt::Shared { mark, .. } => LoggedAt::Shared { number: 0, mark },
        at => at,
    };
    let qos = if matches!(at, LoggedAt::Retained(_)) { reader.qos()? } else { Qos::ExactlyOnce };
    let message = reader.option(Reader::message)?.map(Arc::new);
    let work = session.work.get_or_insert_default();
    let state = match at {
        _ if message.is_none() => Flight::Released,
        // No stream that is read again gets to it.
        LoggedAt::Retained(_) | LoggedAt::Shared { .. } => Flight::Queued,
        _ => Flight::Held,
    };
    match state {
        Flight::Held => work.held += 1,
        Flight::Queued => work.queued += 1,
        _ => work.sent += 1,
    }
    let delivery = super::super::DeliveryId(id);
    work.window.push_back(InFlight { delivery, state, qos, at: Some(at), message });
    session.last_delivery = session.last_delivery.max(id);
    Some(())
}

fn read_replay(session: &mut Session, reader: &mut Reader<'_>) -> Option<()> {
    let filters = list(reader, |reader| {
        Some(Pending { filter: reader.text()?.into(), after: reader.text()?.into(), resumed: true })
    })?;
    session.extra().replay = Some(Box::new(Replay { filters: filters.into(), recorded: true, ..Replay::default() }));
    Some(())
}

/// A change of records that a delivery or an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A delivery is recorded with its message, before its PUBLISH.
    Flight,
    /// It is released, before its PUBREL.
    Released,
    /// A received identifier, with its message, before PUBREC.
    Received,
    /// It is removed, before PUBCOMP.
    ReceivedRemoved,
    /// A delivery is over.
    Settled,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Flight, Self::Released, Self::Received, Self::ReceivedRemoved, Self::Settled];

    /// Its name outside.
    pub fn word(self) -> &'static str {
        match self {
            Self::Flight => "flight",
            Self::Released => "released",
            Self::Received => "received",
            Self::ReceivedRemoved => "received-removed",
            Self::Settled => "settled",
        }
    }
}

/// Which point a change is; none for the lazily written ones and for records of others.
pub fn point(change: &RecordChange) -> Option<Point> {
    let mut parts = change.key.strip_prefix(PREFIX)?.get(2..)?.splitn(3, |&byte| byte == 0);
    let kind = parts.nth(2)?.first().copied()?;
    // Version, place (1 + 8), then whether there is a message.
    let has_message = |value: &[u8]| value.get(10).is_some_and(|&flag| flag == 1);
    match (kind, &change.value) {
        (FLIGHT, Some(value)) if has_message(value) => Some(Point::Flight),
        (FLIGHT, Some(_)) => Some(Point::Released),
        (FLIGHT, None) => Some(Point::Settled),
        (RECEIVED, Some(_)) => Some(Point::Received),
        (RECEIVED, None) => Some(Point::ReceivedRemoved),
        _ => None,
    }
}
