//! The store's answers: what had to wait for a commit leaves now.

use super::super::core::state::{Purpose, State};
use super::super::{CloseReason, Effect, Effects, Session, Ticket};
use super::{frame, on_connect, on_subscribe};
use crate::base::log::StoreError;
use crate::wire::mqtt::{AckKind, ConnAck, Reason};

/// Answers [`Effect::Commit`]. After a failure the connection closes: the client comes back and all is tried again.
pub fn on_committed(session: &mut Session, ticket: Ticket, result: Result<(), StoreError>, effects: &mut Effects) {
    let (purpose, attachment, id) = Purpose::of(ticket);
    let current = attachment == session.attachment;
    if result.is_err() {
        return on_failed(session, purpose, current, effects);
    }
    match purpose {
        Purpose::Greeting => {
            if current && session.state == State::Opening {
                on_connect::welcome(session, effects);
            }
        }
        Purpose::Filters => on_subscribe::answer(session, ticket, effects),
        Purpose::Flight => session.on_flight_committed(id, effects),
        Purpose::Release => {
            if session.on_release_committed(id) {
                frame::ack(session, AckKind::PubRel, id, Reason::Success, effects);
            }
        }
        Purpose::Forget => {
            if current && session.is_open() {
                frame::ack(session, AckKind::PubComp, id, Reason::Success, effects);
            }
        }
        Purpose::Publish1 | Purpose::Publish2 => unreachable!("publishes are answered by on_published"),
    }
}

fn on_failed(session: &mut Session, purpose: Purpose, current: bool, effects: &mut Effects) {
    if purpose == Purpose::Filters {
        on_subscribe::abandon(session, effects);
    }
    if purpose == Purpose::Greeting && current && session.state == State::Opening {
        frame::answer(session, None, |_| ConnAck::refused(Reason::ServerUnavailable), effects);
    }
    // An answer to an earlier connection says nothing about this one, except where the window waits for it.
    if current || matches!(purpose, Purpose::Flight | Purpose::Release) {
        // 0x88 is for CONNACK alone (§3.14.2.1).
        let why = Some("the store failed");
        frame::close_with(session, Reason::ImplementationSpecific, CloseReason::StoreFailed, why, effects);
    }
    debug_assert!(!effects.list.iter().any(|effect| matches!(effect, Effect::End { .. })));
}
