//! The subscriptions of an event stream: interest everywhere, the inbox's beginning, then the answer's head.

use super::super::core::own_position::{Missing, OnlyStream};
use super::super::core::state::{PendingFilters, Purpose, State};
use super::super::core::subscriptions::is_inbox;
use super::super::{Effect, Effects, GrantedFilter, LoggedAt, Session, Ticket, poll};
use super::{on_gap, send};
use crate::base::ids::{Epoch, Offset, Seq};
use crate::base::log::StreamHead;
use crate::limits::SSE_RETRY;
use crate::wire::sse::{EventId, Token, encode_head, encode_position, encode_retry};

/// Asks for interest in all its filters.
pub(super) fn subscribe(session: &mut Session, effects: &mut Effects) {
    let ticket = Purpose::Filters.ticket(session.attachment, 0);
    let attachment = session.attachment;
    let streaming = session.extra().streaming.as_ref().expect("it is being opened");
    let granted = |filter: &super::super::Text| GrantedFilter {
        filter: filter.clone(),
        qos: streaming.qos,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
        retained: streaming.wants_retained && !is_inbox(filter),
        replaces: None,
    };
    let granted: Vec<GrantedFilter> = streaming.filters.iter().map(granted).collect();
    let filters = granted.clone();
    let (id, is_subscribe, is_installed, codes) = (0, true, false, Vec::new());
    let pending = PendingFilters { ticket, attachment, id, is_subscribe, is_installed, codes, granted };
    session.extra().filters = Some(Box::new(pending));
    effects.push(Effect::Subscribe { ticket, filters });
}

/// Interest is installed at every home; `shard_seq` is the last seq that may have missed it.
pub fn on_interest_installed(session: &mut Session, ticket: Ticket, shard_seq: Seq, effects: &mut Effects) {
    let is_pending = session.extra().filters.as_ref().is_some_and(|filters| filters.ticket == ticket);
    if !is_pending || session.state != State::Opening {
        return;
    }
    session.extra().filters = None;
    let streaming = session.extra().streaming.as_mut().expect("it is being opened");
    streaming.is_installed = true;
    match streaming.topics {
        Some(own) => session.begin_after(own, shard_seq),
        None => session.begin(shard_seq),
    }
    answer_if_ready(session, effects);
}

/// Where the inbox begins for a new device, and where it stands. The client's own position goes before the read mark.
pub fn on_inbox_known(session: &mut Session, start: Offset, head: StreamHead, effects: &mut Effects) {
    let streaming = session.extra.as_mut().and_then(|extra| extra.streaming.as_mut());
    let own = streaming.and_then(|streaming| {
        let (epoch, offset) = streaming.inbox.take()?;
        let is_known = epoch == head.epoch && offset <= head.last;
        // Who stood before the first entry ever has missed none of this life.
        if !is_known && epoch != Epoch(0) {
            streaming.inbox_missing = Some(Missing::Unknown);
        }
        Some(if is_known { offset } else { Offset(0) })
    });
    session.on_inbox_known(own.unwrap_or(start), head, effects);
    if session.state == State::Opening {
        answer_if_ready(session, effects);
    }
}

/// The head, how long to wait before coming back, what is missing, the position it begins at; then the log.
fn answer_if_ready(session: &mut Session, effects: &mut Effects) {
    let is_installed = session.extra().streaming.as_ref().is_some_and(|streaming| streaming.is_installed);
    if !is_installed || session.wants_inbox_start() {
        return;
    }
    let streaming = session.extra().streaming.take().expect("it was just looked at");
    if let Some(wish) = streaming.poll {
        return poll::begin(session, *streaming, wish, effects);
    }
    send(effects, |out| {
        encode_head(streaming.page.as_deref(), out);
        encode_retry(SSE_RETRY, out);
    });
    // The field before belongs to this block.
    let standing = session.standing(None);
    let id = match session.only_stream() {
        OnlyStream::Inbox => Some(EventId::One(standing.inbox.0, standing.inbox.1)),
        OnlyStream::Topic => streaming.topic.map(|(epoch, offset)| EventId::One(epoch, offset)),
        OnlyStream::Several => {
            let (log, topics, inbox) = (streaming.log.0, standing.topics, standing.inbox);
            Some(EventId::Several(Token { log, topics, inbox }))
        }
    };
    send(effects, |out| encode_position(id, out));
    go_on(session, streaming.inbox_missing, streaming.topics_missing, effects);
}

/// What is missing before the first message; then the log.
pub(in crate::session) fn go_on(
    session: &mut Session,
    inbox_missing: Option<Missing>,
    topics_missing: Option<Missing>,
    effects: &mut Effects,
) {
    if let Some(missing) = inbox_missing {
        on_gap(session, LoggedAt::Inbox(Offset(0)), Some(missing), effects);
    }
    if let Some(missing) = topics_missing {
        on_gap(session, LoggedAt::Topics(Seq(0)), Some(missing), effects);
    }
    effects.push(Effect::Opened);
    session.start(effects, |_, _| unreachable!("nothing of a new session is in flight"));
}
