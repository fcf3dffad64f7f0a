//! A live session as bytes and back, with the same behaviour afterwards. What only the shard knows (the connection's
//! id, the directory's links) is given again at the thaw.

use super::super::{Claim, DeliveryId, GrantedFilter, Identity, Ticket};
use super::aliases::AliasesOut;
use super::bytes::{ReadSession, Reader, Write, WriteSession};
use super::cursor::Positions;
use super::own_position::{Missing, PollWish, Polling, Streaming};
use super::protocol::Protocol;
use super::retained::{Note, Pending, Replay};
use super::shared::Claiming;
use super::state::{
    Extra, Flight, InFlight, Link, PendingFilters, PendingPublish, Received, Session, State, Welcome, Work,
};
use crate::auth::{Lists, Pattern, Publishers, Rights};
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, Seq};
use std::sync::Arc;

const VERSION: u8 = 5;

impl Session {
    /// Appends everything it is.
    pub fn freeze(&self, out: &mut Vec<u8>) {
        out.u8(VERSION);
        out.u16(self.app.0);
        out.text(self.user());
        out.text(self.device());
        out.u32(self.expiry);
        out.u16(self.attachment);
        out.u16(self.last_delivery);
        out.u16(self.keep_alive);
        out.u8(self.state as u8);
        out.u8(self.window);
        out.u8(match self.protocol {
            Protocol::Mqtt311 => 0,
            Protocol::Mqtt5 => 1,
            Protocol::Sse { raw: false } => 2,
            Protocol::Sse { raw: true } => 3,
            Protocol::Poll => 4,
        });
        out.u16(self.flags);
        out.flag(self.has_cursor_record);
        match self.link {
            Link::Online { .. } => out.u8(0),
            Link::Offline { since_tick } => {
                out.u8(1);
                out.u32(since_tick);
            }
        }
        let Positions { inbox_epoch, inbox_delivered, inbox_notified, topics_delivered, topics_missed } =
            self.positions;
        for number in [inbox_epoch.0, inbox_delivered.0, inbox_notified.0, topics_delivered.0, topics_missed.0] {
            out.u64(number);
        }
        out.count(self.subscriptions.len());
        self.subscriptions.iter().for_each(|subscription| out.subscription(subscription));
        out.option(self.extra.as_deref(), freeze_extra);
        out.option(self.work.as_deref(), freeze_work);
    }

    /// Reads a frozen session; one that had a connection has `connection` now. None: the bytes are not a session of
    /// this version.
    pub fn thaw(bytes: &[u8], connection: Option<ConnectionId>) -> Option<Self> {
        let reader = &mut Reader(bytes);
        if reader.u8()? != VERSION {
            return None;
        }
        let app = AppId(reader.u16()?);
        let identity = Identity { app, user: reader.text()?.into(), device: reader.text()?.into() };
        let mut session = Self::new(&identity);
        session.expiry = reader.u32()?;
        session.attachment = reader.u16()?;
        session.last_delivery = reader.u16()?;
        session.keep_alive = reader.u16()?;
        session.state = [State::Opening, State::Open, State::Closing, State::Offline, State::Ended]
            .get(usize::from(reader.u8()?))
            .copied()?;
        session.window = reader.u8()?;
        session.protocol = match reader.u8()? {
            0 => Protocol::Mqtt311,
            1 => Protocol::Mqtt5,
            2 => Protocol::Sse { raw: false },
            3 => Protocol::Sse { raw: true },
            4 => Protocol::Poll,
            _ => return None,
        };
        session.flags = reader.u16()?;
        session.has_cursor_record = reader.flag()?;
        session.link = match reader.u8()? {
            0 => Link::online(connection?),
            _ => Link::Offline { since_tick: reader.u32()? },
        };
        session.positions = Positions {
            inbox_epoch: Epoch(reader.u64()?),
            inbox_delivered: Offset(reader.u64()?),
            inbox_notified: Offset(reader.u64()?),
            topics_delivered: Seq(reader.u64()?),
            topics_missed: Seq(reader.u64()?),
        };
        session.subscriptions = reader.list(Reader::subscription)?.into();
        session.extra = reader.option(thaw_extra)?.map(Box::new);
        session.work = reader.option(thaw_work)?.map(Box::new);
        reader.0.is_empty().then_some(session)
    }
}

fn freeze_extra(out: &mut Vec<u8>, extra: &Extra) {
    out.option(extra.will.as_deref(), Vec::will);
    out.count(extra.aliases.len());
    extra.aliases.iter().for_each(|alias| out.option(alias.as_deref(), Vec::text));
    out.u16(extra.aliases_out.max);
    out.count(extra.aliases_out.topics.len());
    extra.aliases_out.topics.iter().for_each(|topic| out.text(topic));
    out.u32(extra.packet_bytes_max);
    out.count(extra.received.len());
    for received in &extra.received {
        out.u16(received.id);
        out.flag(received.routed);
    }
    out.option(extra.filters.as_deref(), |out, filters| {
        out.u64(filters.ticket.0);
        out.u16(filters.attachment);
        out.u16(filters.id);
        out.flag(filters.is_subscribe);
        out.flag(filters.is_installed);
        out.binary(&filters.codes);
        out.count(filters.granted.len());
        for granted in &filters.granted {
            out.text(&granted.filter);
            out.u8(granted.qos as u8);
            out.flag(granted.no_local);
            out.flag(granted.retain_as_published);
            out.u32(granted.identifier);
            out.flag(granted.retained);
            out.option(granted.replaces, |out, (filter, position)| {
                out.u32(filter);
                out.u32(position);
            });
        }
    });
    out.option(extra.welcome.as_deref(), |out, welcome| {
        out.flag(welcome.session_present);
        out.flag(welcome.assigned);
        out.flag(welcome.expiry_lowered);
        out.u32(welcome.packet_bytes);
        out.option(welcome.server_keep_alive, Vec::u16);
        out.flag(welcome.response_information);
    });
    out.option(extra.replay.as_deref(), |out, replay| {
        out.count(replay.filters.len());
        for pending in &replay.filters {
            out.text(&pending.filter);
            out.text(&pending.after);
            out.flag(pending.resumed);
        }
        out.count(replay.notes.len());
        for note in &replay.notes {
            out.text(&note.topic);
            out.flag(note.in_order);
            out.u64(note.created_ms);
        }
        out.flag(replay.reading);
        out.flag(replay.is_outdated);
        out.flag(replay.recorded);
    });
    out.flag(extra.sees_node);
    out.flag(extra.awaits_share);
    out.u8(extra.asks);
    out.option(extra.streaming.as_deref(), freeze_streaming);
    out.option(extra.rights.as_deref(), freeze_rights);
    out.flag(extra.by_method);
    out.flag(extra.is_asking);
    out.option(extra.polling.as_deref(), freeze_polling);
}

fn freeze_rights(out: &mut Vec<u8>, rights: &Rights) {
    out.count(rights.node.publishers.len());
    for rule in &rights.node.publishers {
        out.text(&rule.filter);
        out.count(rule.users.len());
        rule.users.iter().for_each(|user| out.text(user));
    }
    for list in [&rights.node.publish, &rights.node.subscribe, &rights.own.publish, &rights.own.subscribe] {
        out.option(list.as_deref(), |out, list| {
            out.count(list.len());
            list.iter().for_each(|pattern| out.text(pattern.text()));
        });
    }
}

fn thaw_rights(reader: &mut Reader<'_>) -> Option<Rights> {
    let list = |reader: &mut Reader<'_>| {
        let patterns = reader.option(|reader| reader.list(|reader| Pattern::parse(reader.text()?).ok()))?;
        Some(patterns.map(Vec::into_boxed_slice))
    };
    let publishers = reader.list(|reader| {
        let filter = reader.text()?.into();
        Some(Publishers { filter, users: reader.list(|reader| reader.text().map(Into::into))?.into() })
    })?;
    let mut lists = || Some(Lists { publish: list(reader)?, subscribe: list(reader)?, ..Lists::default() });
    let (node, own) = (lists()?, lists()?);
    Some(Rights { node: Arc::new(Lists { publishers: publishers.into(), ..node }), own })
}

fn thaw_extra(reader: &mut Reader<'_>) -> Option<Extra> {
    Some(Extra {
        will: reader.option(Reader::will)?.map(Box::new),
        aliases: reader.list(|reader| reader.option(|reader| reader.text().map(Arc::from)))?,
        aliases_out: AliasesOut { max: reader.u16()?, topics: reader.list(|reader| reader.text().map(Arc::from))? },
        packet_bytes_max: reader.u32()?,
        received: reader.list(|reader| Some(Received { id: reader.u16()?, routed: reader.flag()? }))?,
        filters: reader.option(thaw_filters)?.map(Box::new),
        welcome: reader
            .option(|reader| {
                Some(Welcome {
                    session_present: reader.flag()?,
                    assigned: reader.flag()?,
                    expiry_lowered: reader.flag()?,
                    packet_bytes: reader.u32()?,
                    server_keep_alive: reader.option(Reader::u16)?,
                    response_information: reader.flag()?,
                })
            })?
            .map(Box::new),
        replay: reader.option(thaw_replay)?.map(Box::new),
        sees_node: reader.flag()?,
        awaits_share: reader.flag()?,
        asks: reader.u8()?,
        streaming: reader.option(thaw_streaming)?.map(Box::new),
        rights: reader.option(thaw_rights)?.map(Arc::new),
        by_method: reader.flag()?,
        is_asking: reader.flag()?,
        polling: reader.option(thaw_polling)?.map(Box::new),
    })
}

fn thaw_replay(reader: &mut Reader<'_>) -> Option<Replay> {
    let filters = reader.list(|reader| {
        Some(Pending { filter: reader.text()?.into(), after: reader.text()?.into(), resumed: reader.flag()? })
    })?;
    let notes = reader.list(|reader| {
        let (topic, in_order, created_ms) = (reader.text()?.into(), reader.flag()?, reader.u64()?);
        Some(Note { topic, in_order, created_ms })
    })?;
    let (reading, is_outdated, recorded) = (reader.flag()?, reader.flag()?, reader.flag()?);
    Some(Replay { filters: filters.into(), notes: notes.into(), reading, is_outdated, recorded })
}

fn thaw_filters(reader: &mut Reader<'_>) -> Option<PendingFilters> {
    Some(PendingFilters {
        ticket: Ticket(reader.u64()?),
        attachment: reader.u16()?,
        id: reader.u16()?,
        is_subscribe: reader.flag()?,
        is_installed: reader.flag()?,
        codes: reader.binary()?.to_vec(),
        granted: reader.list(|reader| {
            Some(GrantedFilter {
                filter: reader.text()?.into(),
                qos: reader.qos()?,
                no_local: reader.flag()?,
                retain_as_published: reader.flag()?,
                identifier: reader.u32()?,
                retained: reader.flag()?,
                replaces: reader.option(|reader| Some((reader.u32()?, reader.u32()?)))?,
            })
        })?,
    })
}

fn place(out: &mut Vec<u8>, (epoch, offset): (Epoch, Offset)) {
    out.u64(epoch.0);
    out.u64(offset.0);
}

fn thaw_place(reader: &mut Reader<'_>) -> Option<(Epoch, Offset)> {
    Some((Epoch(reader.u64()?), Offset(reader.u64()?)))
}

fn freeze_streaming(out: &mut Vec<u8>, streaming: &Streaming) {
    out.count(streaming.filters.len());
    streaming.filters.iter().for_each(|filter| out.text(filter));
    out.u8(streaming.qos as u8);
    out.u64(streaming.log.0.0);
    out.u64(streaming.log.1.0);
    out.option(streaming.inbox, place);
    out.option(streaming.topics, |out, seq| out.u64(seq.0));
    out.option(streaming.topic, place);
    out.flag(streaming.is_installed);
    for missing in [streaming.inbox_missing, streaming.topics_missing] {
        out.option(missing, |out, missing| match missing {
            Missing::Trimmed(first, entries) => [first.0, entries].into_iter().for_each(|number| out.u64(number)),
            // No offset is 0.
            Missing::Unknown => [0, 0].into_iter().for_each(|number| out.u64(number)),
        });
    }
    out.flag(streaming.wants_retained);
    out.option(streaming.page.as_deref(), Vec::text);
    out.option(streaming.poll, freeze_wish);
}

fn freeze_wish(out: &mut Vec<u8>, wish: PollWish) {
    out.u32(wish.timeout_ms);
    out.u16(wish.limit);
}

fn thaw_wish(reader: &mut Reader<'_>) -> Option<PollWish> {
    Some(PollWish { timeout_ms: reader.u32()?, limit: reader.u16()? })
}

fn freeze_polling(out: &mut Vec<u8>, polling: &Polling) {
    freeze_wish(out, polling.wish);
    out.u64(polling.log.0);
    out.option(polling.place, place);
    out.binary(&polling.events);
    out.u16(polling.count);
    out.binary(&polling.gaps);
    out.flag(polling.is_full);
    out.flag(polling.is_listed);
    out.option(polling.page.as_deref(), Vec::text);
}

fn thaw_polling(reader: &mut Reader<'_>) -> Option<Polling> {
    Some(Polling {
        wish: thaw_wish(reader)?,
        log: Epoch(reader.u64()?),
        place: reader.option(thaw_place)?,
        events: reader.binary()?.to_vec(),
        count: reader.u16()?,
        gaps: reader.binary()?.to_vec(),
        is_full: reader.flag()?,
        is_listed: reader.flag()?,
        page: reader.option(|reader| reader.text().map(Into::into))?,
    })
}

fn thaw_streaming(reader: &mut Reader<'_>) -> Option<Streaming> {
    let missing = |reader: &mut Reader<'_>| {
        Some(match (reader.u64()?, reader.u64()?) {
            (0, _) => Missing::Unknown,
            (first, entries) => Missing::Trimmed(Offset(first), entries),
        })
    };
    Some(Streaming {
        filters: reader.list(|reader| reader.text().map(Into::into))?,
        qos: reader.qos()?,
        log: (Epoch(reader.u64()?), Seq(reader.u64()?)),
        inbox: reader.option(thaw_place)?,
        topics: reader.option(|reader| reader.u64().map(Seq))?,
        topic: reader.option(thaw_place)?,
        is_installed: reader.flag()?,
        inbox_missing: reader.option(missing)?,
        topics_missing: reader.option(missing)?,
        wants_retained: reader.flag()?,
        page: reader.option(|reader| reader.text().map(Into::into))?,
        poll: reader.option(thaw_wish)?,
    })
}

fn freeze_work(out: &mut Vec<u8>, work: &Work) {
    out.count(work.window.len());
    for flight in &work.window {
        out.u16(flight.delivery.0);
        out.u8(flight.state as u8);
        out.u8(flight.qos as u8);
        out.option(flight.at, Vec::at);
        out.option(flight.message.as_deref(), Vec::message);
    }
    out.count(work.places.len());
    for &(delivery, epoch, offset) in &work.places {
        out.u16(delivery.0);
        place(out, (epoch, offset));
    }
    out.count(work.pending.len());
    for pending in &work.pending {
        out.u16(pending.id);
        out.u8(pending.qos as u8);
        out.option(pending.answer, Vec::u8);
    }
    out.count(work.gone.len());
    work.gone.iter().for_each(|&id| out.u16(id));
    out.count(work.claiming.len());
    for Claiming { delivery, claim } in &work.claiming {
        out.u16(delivery.0);
        out.text(&claim.share);
        out.u64(claim.seq.0);
    }
}

fn thaw_work(reader: &mut Reader<'_>) -> Option<Work> {
    const STATES: [Flight; 7] = [
        Flight::Committing,
        Flight::Queued,
        Flight::Held,
        Flight::Sent,
        Flight::Releasing,
        Flight::Released,
        Flight::Settled,
    ];
    let window = reader.list(|reader| {
        Some(InFlight {
            delivery: DeliveryId(reader.u16()?),
            state: STATES.get(usize::from(reader.u8()?)).copied()?,
            qos: reader.qos()?,
            at: reader.option(Reader::at)?,
            message: reader.option(Reader::message)?.map(Arc::new),
        })
    })?;
    let places = reader.list(|reader| {
        let delivery = DeliveryId(reader.u16()?);
        thaw_place(reader).map(|(epoch, offset)| (delivery, epoch, offset))
    })?;
    let pending = reader.list(|reader| {
        Some(PendingPublish { id: reader.u16()?, qos: reader.qos()?, answer: reader.option(Reader::u8)? })
    })?;
    Some(Work {
        sent: window.iter().filter(|flight| flight.state.is_sent()).count(),
        queued: window.iter().filter(|flight| flight.state == Flight::Queued).count(),
        held: window.iter().filter(|flight| flight.state == Flight::Held).count(),
        window: window.into(),
        places,
        pending: pending.into(),
        gone: reader.list(Reader::u16)?,
        claiming: reader.list(|reader| {
            let delivery = DeliveryId(reader.u16()?);
            let claim = Claim { share: reader.text()?.into(), seq: Seq(reader.u64()?) };
            Some(Claiming { delivery, claim })
        })?,
    })
}
