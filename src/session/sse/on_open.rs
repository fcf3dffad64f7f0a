//! A request for an event stream at its user's home.

use super::super::core::own_position::{Missing, Streaming, only_stream};
use super::super::core::state::{Purpose, State};
use super::super::directory::{Directory, NoRoom};
use super::super::mqtt::{OpenAt, Refusal};
use super::super::{CloseReason, Effect, Effects, Identity, OnlyStream, Protocol, Session, Ticket};
use super::on_installed::subscribe;
use super::{EventsRequest, Given, disconnect, refuse, send};
use crate::base::ids::{ConnectionId, Epoch, Offset, Seq, SessionId};
use crate::base::log::StoreError;
use crate::wire::sse::EventId;

/// Opens the device's session on `connection`; it must not have another one any more. None: refused, the effects say
/// so.
pub fn open(
    directory: &mut Directory,
    identity: &Identity,
    request: EventsRequest,
    connection: ConnectionId,
    at: OpenAt,
    effects: &mut Effects,
) -> Option<SessionId> {
    let is_of_node = |filter: &str| filter == "$SYS" || filter.starts_with("$SYS/");
    if !at.sees_node && request.filters.iter().any(|filter| is_of_node(filter)) {
        send(effects, |out| refuse(Refusal::NotAuthorized, out));
        effects.push(Effect::Close(CloseReason::Refused));
        return None;
    }
    let (id, _, removed) = match directory.admit(identity, true, at.now, effects) {
        Ok(admitted) => admitted,
        Err(why) => {
            let why = match why {
                NoRoom::OfUser => Refusal::QuotaExceeded,
                NoRoom::OfShard => Refusal::Unavailable,
            };
            send(effects, |out| refuse(why, out));
            effects.push(Effect::Close(CloseReason::Refused));
            return None;
        }
    };
    let session = directory.get_mut(id).expect("it was just made");
    let protocol = if request.poll.is_some() { Protocol::Poll } else { Protocol::Sse { raw: request.raw } };
    session.attach(connection, protocol, u16::MAX, effects);
    session.positions.stand_at(at.shard_seq);
    session.extra().streaming = Some(Box::new(streaming(request, at, effects)));
    if removed.is_empty() {
        go_on(session, effects);
    } else {
        // The device's earlier session is gone for good before its client hears from this one.
        effects.push(Effect::Commit { ticket: Purpose::Greeting.ticket(session.attachment, 0), records: removed });
    }
    Some(id)
}

/// What the request says of positions, as far as it can be judged now.
fn streaming(request: EventsRequest, at: OpenAt, effects: &mut Effects) -> Streaming {
    let EventsRequest { filters, qos, given, page, poll, .. } = request;
    let only = match &filters[..] {
        [only] => only_stream(only),
        _ => OnlyStream::Several,
    };
    let filters = filters.iter().map(|filter| effects.spare.filter(filter)).collect();
    // Who comes back has had them; an answer to a poll would hold nothing else for ever.
    let wants_retained = given == Given::Nothing && poll.is_none();
    let mut streaming = Streaming { filters, qos, log: at.log, wants_retained, page, poll, ..Streaming::default() };
    match given {
        // Not from when interest will be installed: what its first position says is behind it has to come.
        Given::Nothing => streaming.topics = (only == OnlyStream::Several).then_some(at.shard_seq),
        Given::Position(EventId::Several(token)) if token.log == at.log.0 && token.topics <= at.log.1 => {
            streaming.inbox = Some(token.inbox);
            // The inbox alone has no place for everyone.
            streaming.topics = (only != OnlyStream::Inbox).then_some(token.topics);
        }
        Given::Position(EventId::One(epoch, offset)) if only == OnlyStream::Inbox => {
            streaming.inbox = Some((epoch, offset));
        }
        Given::Position(EventId::One(epoch, offset)) if only == OnlyStream::Topic => {
            streaming.topic = Some((epoch, offset));
        }
        Given::Position(_) | Given::Unreadable => nowhere(&mut streaming, only),
    }
    streaming
}

/// A position that means nothing here: all there is may be new to the client.
fn nowhere(streaming: &mut Streaming, only: OnlyStream) {
    if only != OnlyStream::Topic
        && streaming.filters.iter().any(|filter| super::super::core::subscriptions::is_inbox(filter))
    {
        streaming.inbox = Some((Epoch(0), Offset(0)));
        streaming.inbox_missing = Some(Missing::Unknown);
    }
    match only {
        OnlyStream::Inbox => {}
        OnlyStream::Topic => {
            streaming.topic = Some((Epoch(0), Offset(0)));
            streaming.topics_missing = Some(Missing::Unknown);
        }
        OnlyStream::Several => {
            streaming.topics = Some(Seq(0));
            streaming.topics_missing = Some(Missing::Unknown);
        }
    }
}

/// Finds the place in an only topic, else subscribes at once.
fn go_on(session: &mut Session, effects: &mut Effects) {
    let streaming = session.extra().streaming.as_ref().expect("it is being opened");
    match &streaming.filters[..] {
        [only] if only_stream(only) == OnlyStream::Topic && streaming.topics.is_none() => {
            effects.push(super::on_located::question(streaming));
        }
        _ => subscribe(session, effects),
    }
}

/// Answers [`Effect::Commit`]: the device's earlier session is gone.
pub fn on_committed(session: &mut Session, ticket: Ticket, result: Result<(), StoreError>, effects: &mut Effects) {
    let (purpose, attachment, _) = Purpose::of(ticket);
    if purpose != Purpose::Greeting || attachment != session.attachment || session.state != State::Opening {
        return;
    }
    match result {
        Ok(()) => go_on(session, effects),
        Err(_) => disconnect(session, CloseReason::StoreFailed, effects),
    }
}
