//! UNSUBSCRIBE: out of the router at once, UNSUBACK after the record.

use super::super::core::state::{PendingFilters, Purpose, flag};
use super::super::{Effect, Effects, Session};
use super::on_subscribe;
use crate::wire::mqtt::{Reason, Unsubscribe};

pub(super) fn handle(session: &mut Session, unsubscribe: &Unsubscribe<'_>, effects: &mut Effects) {
    let mut codes = Vec::new();
    let served = session.served();
    let mut left = core::mem::take(&mut session.subscriptions).into_vec();
    for name in unsubscribe.filters.iter() {
        let reason = match left.iter().position(|subscription| &*subscription.text == name) {
            Some(at) => {
                let gone = left.remove(at);
                let effect = gone.leave(session);
                effects.push(effect);
                Reason::Success
            }
            None => Reason::NoSubscriptionExisted,
        };
        codes.push(reason.code());
    }
    session.replace_subscriptions(left);
    session.narrow_replay(effects);
    if let Some(served) = served.filter(|_| !session.covers_inbox()) {
        effects.push(Effect::InboxLeft { served });
    }
    let changed = codes.contains(&Reason::Success.code());
    let (attachment, id) = (session.attachment, unsubscribe.packet_id.get());
    let ticket = Purpose::Filters.ticket(attachment, id);
    let granted = Vec::new();
    let (is_subscribe, is_installed) = (false, false);
    on_subscribe::begin(session, PendingFilters { ticket, attachment, id, is_subscribe, is_installed, codes, granted });
    if changed {
        session.pause(flag::PAUSED_FILTERS, true, effects);
        on_subscribe::commit_or_answer(session, ticket, effects);
    } else {
        on_subscribe::answer(session, ticket, effects);
    }
}
