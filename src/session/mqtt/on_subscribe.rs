//! SUBSCRIBE: checks, the router's places, interest everywhere, the record, then SUBACK.

use super::super::core::record;
use super::super::core::state::{PendingFilters, Purpose, flag};
use super::super::core::subscriptions::is_inbox;
use super::super::{Counter, Effect, Effects, GrantedFilter, Session, Ticket};
use super::frame;
use crate::base::ids::{Qos, Seq};
use crate::wire::mqtt::properties::AckProperties;
use crate::wire::mqtt::suback::Reasons;
use crate::wire::mqtt::{Filter, PacketId, Reason, RetainHandling, SubAck, Subscribe, UnsubAck, topic};

pub(super) fn handle(session: &mut Session, subscribe: &Subscribe<'_>, effects: &mut Effects) {
    let identifier = subscribe.properties.subscription_id.map_or(0, |id| id.get());
    let mut codes = Vec::new();
    let mut granted: Vec<GrantedFilter> = Vec::new();
    let mut new = 0;
    for filter in subscribe.filters.iter() {
        codes.push(grant(session, &filter, identifier, &mut granted, &mut new, effects).code());
    }
    let id = subscribe.packet_id.get();
    let ticket = Purpose::Filters.ticket(session.attachment, id);
    let filters = granted.clone();
    let (attachment, is_subscribe, is_installed) = (session.attachment, true, false);
    begin(session, PendingFilters { ticket, attachment, id, is_subscribe, is_installed, codes, granted });
    if filters.is_empty() {
        return answer(session, ticket, effects);
    }
    session.pause(flag::PAUSED_FILTERS, true, effects);
    effects.push(Effect::Subscribe { ticket, filters });
}

/// Frames stay unread while one is under way, so there is at most one.
pub(super) fn begin(session: &mut Session, filters: PendingFilters) {
    let previous = session.extra().filters.replace(Box::new(filters));
    assert!(previous.is_none(), "one SUBSCRIBE or UNSUBSCRIBE at a time");
}

/// Whether its device may have what a filter covers: live, and as history.
pub(super) fn may_subscribe(session: &Session, filter: &str) -> bool {
    let is_of_node = filter.split('/').next() == Some("$SYS");
    let sees_node = session.extra.as_ref().is_some_and(|extra| extra.sees_node);
    (!is_of_node || sees_node) && session.may_subscribe(filter)
}

fn grant(
    session: &Session,
    filter: &Filter<'_>,
    identifier: u32,
    granted: &mut Vec<GrantedFilter>,
    new: &mut usize,
    effects: &mut Effects,
) -> Reason {
    let Ok(parsed) = topic::parse_filter(filter.filter) else {
        // In 3.1.1 the decoder does not take shared subscriptions apart.
        return Reason::TopicFilterInvalid;
    };
    let is_below = |name: &str| parsed.filter.split('/').next() == Some(name);
    if parsed.group.is_some() && (is_below("$inbox") || is_below("$presence") || is_below("$api")) {
        return Reason::TopicFilterInvalid;
    }
    if !may_subscribe(session, parsed.filter) {
        return Reason::NotAuthorized;
    }
    if !topic::within_limits(filter.filter) {
        return Reason::TopicFilterInvalid;
    }
    let known = session.subscriptions().iter().find(|known| &*known.text == filter.filter);
    let again = granted.iter().position(|earlier| &*earlier.filter == filter.filter);
    if known.is_none() && again.is_none() {
        if session.subscriptions().len() + *new >= usize::from(effects.bounds.subscriptions) {
            return Reason::QuotaExceeded;
        }
        if effects.subscriptions_left.is_some_and(|left| left <= *new as u64) {
            effects.count(Counter::SubscriptionOverQuota);
            return Reason::QuotaExceeded;
        }
        *new += 1;
    }
    let qos = filter.qos;
    let retained = !is_inbox(filter.filter)
        && parsed.group.is_none()
        && match filter.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => known.is_none() && again.is_none_or(|at| granted[at].retained),
            RetainHandling::DoNotSend => false,
        };
    let made = GrantedFilter {
        filter: effects.spare.filter(filter.filter),
        qos,
        no_local: filter.no_local,
        retain_as_published: filter.retain_as_published,
        identifier,
        retained,
        replaces: known.map(|known| (known.filter, known.position)),
    };
    match again {
        Some(at) => granted[at] = made,
        None => granted.push(made),
    }
    match qos {
        Qos::AtMostOnce => Reason::Success,
        Qos::AtLeastOnce => Reason::GrantedQos1,
        Qos::ExactlyOnce => Reason::GrantedQos2,
    }
}

/// Answers [`Effect::Subscribe`]: the router's (filter, position) of each. If the session is gone meanwhile, the shard
/// takes them out of the router again.
pub fn on_subscribed(session: &mut Session, ticket: Ticket, places: &[(u32, u32)]) {
    let pending = session.extra().filters.take();
    if let Some(pending) = &pending
        && pending.ticket == ticket
    {
        session.install(&pending.granted, places);
        session.begin_replay(&pending.granted);
    }
    session.extra().filters = pending;
}

/// Interest is installed at every home; `shard_seq` is the last seq that may have missed it. A session that outlives
/// its connection commits the filters first.
pub fn on_interest_installed(session: &mut Session, ticket: Ticket, shard_seq: Seq, effects: &mut Effects) {
    if !is_pending(session, ticket) {
        return;
    }
    session.begin(shard_seq);
    if session.is_durable() && session.wants_inbox_start() {
        // What comes after SUBACK is owed, so where the inbox begins is part of what SUBACK promises.
        session.extra().filters.as_mut().expect("it is pending").is_installed = true;
        return;
    }
    commit_or_answer(session, ticket, effects);
}

/// Where the inbox begins is known: a SUBSCRIBE that waited for it goes on.
pub fn on_inbox_known(session: &mut Session, effects: &mut Effects) {
    let pending = session.extra.as_ref().and_then(|extra| extra.filters.as_ref());
    if let Some(ticket) = pending.filter(|pending| pending.is_installed).map(|pending| pending.ticket) {
        session.extra().filters.as_mut().expect("it is pending").is_installed = false;
        commit_or_answer(session, ticket, effects);
    }
}

pub(super) fn commit_or_answer(session: &mut Session, ticket: Ticket, effects: &mut Effects) {
    if session.is_durable() {
        session.set(flag::RECORDED, true);
        let mut records = vec![record::main(session)];
        session.main_recorded();
        // What is retained is promised with SUBACK, like what comes.
        records.extend(session.record_replay());
        effects.push(Effect::Commit { ticket, records });
    } else {
        answer(session, ticket, effects);
    }
}

fn is_pending(session: &Session, ticket: Ticket) -> bool {
    session.extra.as_ref().and_then(|extra| extra.filters.as_ref()).is_some_and(|filters| filters.ticket == ticket)
}

/// SUBACK or UNSUBACK, to the connection that asked, and reading goes on.
pub(super) fn answer(session: &mut Session, ticket: Ticket, effects: &mut Effects) {
    if !is_pending(session, ticket) {
        return;
    }
    let Some(pending) = session.extra().filters.take() else { return };
    if session.is_open() && pending.attachment == session.attachment {
        let packet_id = PacketId::new(pending.id).expect("0 is never a packet identifier");
        let codes = pending.codes.iter().copied();
        let reasons: Vec<Reason> = codes.filter_map(Reason::from_code).collect();
        let why = reasons.iter().find_map(|&reason| text(reason));
        let reasons = Reasons::borrowed(&reasons);
        let properties = |why| AckProperties { reason_string: why, ..AckProperties::default() };
        if pending.is_subscribe {
            let with = |why| SubAck { packet_id, properties: properties(why), reasons };
            frame::answer(session, why, with, effects);
        } else {
            frame::answer(session, None, |why| UnsubAck { packet_id, properties: properties(why), reasons }, effects);
        }
    }
    session.pause(flag::PAUSED_FILTERS, false, effects);
    session.refill(effects);
    session.tidy(effects);
}

/// What is wrong with the first filter that was refused; the others' codes say enough.
fn text(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::NotAuthorized => Some("the client may not subscribe to this"),
        Reason::QuotaExceeded => Some("the session or its app has as many subscriptions as it may"),
        Reason::TopicFilterInvalid => Some("the filter has more levels or bytes than are taken"),
        Reason::SharedSubscriptionsNotSupported => Some("shared subscriptions are not supported"),
        _ => None,
    }
}

/// The commit failed: nobody is answered, the filters stand in memory and are written with the next change. What waited
/// for the answer goes on: what is retained for them, or was left over by an earlier connection.
pub(super) fn abandon(session: &mut Session, effects: &mut Effects) {
    session.extra().filters = None;
    session.set(flag::MAIN_DIRTY, true);
    session.cursor_moved(effects);
    session.pause(flag::PAUSED_FILTERS, false, effects);
    session.refill(effects);
    session.tidy(effects);
}
