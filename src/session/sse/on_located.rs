//! The place in the only topic a client asks for: `EPOCH:OFFSET` becomes a seq, for that is what sessions read by.

use super::super::core::own_position::{Missing, OnlyStream, Streaming, only_stream};
use super::super::core::state::State;
use super::super::{Effect, Effects, Session};
use super::on_installed::subscribe;
use crate::base::ids::{Epoch, Offset, Seq};
use crate::base::log::StreamHead;
use crate::base::message::Entry;

/// Asks for the entry at the client's place, which tells the seq, or for the one behind it, if that one is gone.
pub(super) fn question(streaming: &Streaming) -> Effect {
    let after = match streaming.topic {
        Some((_, offset)) => Offset(offset.0.saturating_sub(1)),
        None => Offset(u64::MAX),
    };
    Effect::Locate { topic: streaming.filters[0].shared().as_ref().into(), after }
}

/// A read failed: the question is asked again, if it is still open.
pub fn locate_again(session: &mut Session, effects: &mut Effects) {
    let streaming = session.extra.as_ref().and_then(|extra| extra.streaming.as_ref());
    let waits = session.extra.as_ref().is_some_and(|extra| extra.filters.is_none()) && session.state == State::Opening;
    let is_open =
        |streaming: &&Streaming| waits && streaming.topics.is_none() && !streaming.is_installed && is_topic(streaming);
    if let Some(streaming) = streaming.map(Box::as_ref).filter(is_open) {
        effects.push(question(streaming));
    }
}

fn is_topic(streaming: &Streaming) -> bool {
    matches!(&streaming.filters[..], [only] if only_stream(only) == OnlyStream::Topic)
}

/// Answers it. A client without a place begins behind the newest entry; one whose place is another life's, at the
/// oldest one there is.
pub fn on_located(session: &mut Session, head: StreamHead, entries: &[Entry], effects: &mut Effects) {
    if session.state != State::Opening {
        return;
    }
    let Some(streaming) = session.extra().streaming.as_mut() else { return };
    if head.epoch == Epoch(0) {
        // There is no such stream, so all that it will ever have comes behind what was logged when the client asked.
        if streaming.topic.is_some_and(|(epoch, _)| epoch != Epoch(0)) {
            streaming.topics_missing = Some(Missing::Unknown);
        }
        streaming.topic = Some((Epoch(0), Offset(0)));
        streaming.topics = Some(streaming.log.1);
        return subscribe(session, effects);
    }
    match streaming.topic {
        Some((epoch, offset)) if epoch == head.epoch && offset <= head.last => {
            let (topics, place, missing) = place(head, offset, entries);
            streaming.topics = Some(topics);
            streaming.topic = Some((epoch, place));
            streaming.topics_missing = streaming.topics_missing.or(missing);
            subscribe(session, effects);
        }
        Some((epoch, _)) => {
            // Who stood before the beginning has missed nothing but what was trimmed since.
            let first = if epoch == Epoch(0) { Offset(0) } else { Offset(head.first.0 - 1) };
            if epoch != Epoch(0) {
                streaming.topics_missing = Some(Missing::Unknown);
            }
            streaming.topic = Some((head.epoch, first));
            effects.push(question(streaming));
        }
        None => {
            streaming.topic = Some((head.epoch, head.last));
            effects.push(question(streaming));
        }
    }
}

/// Where a client that has all up to `offset` goes on: the seq, the offset, and what it has missed.
fn place(head: StreamHead, offset: Offset, entries: &[Entry]) -> (Seq, Offset, Option<Missing>) {
    let missing =
        |next: u64| (next > offset.0 + 1).then(|| Missing::Trimmed(Offset(offset.0 + 1), next - offset.0 - 1));
    match entries.first() {
        Some(entry) if entry.offset == offset => (entry.seq, offset, None),
        Some(entry) => (Seq(entry.seq.0 - 1), Offset(entry.offset.0 - 1), missing(entry.offset.0)),
        // Nothing is left of what was there.
        None => (head.trimmed, head.last, missing(head.last.0 + 1)),
    }
}
