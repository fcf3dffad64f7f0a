//! Owns: the answer to a poll over the neutral session: what goes in, when it is ready, where its client stands with it.
//! In: messages, gaps, the end. Out: [`super::Effects`], the whole answer at once.
//! Must not: know a socket, a clock, the engine or the router.
//! Invariants: a poll is answered once; `next` never passes a logged message that is not in the answer.
//!
//! A poll is opened as an event stream is (`session/sse`): it finds its place, interest is installed, it reads the log.
//! What a stream would send goes into the answer. That leaves when the poll has read all there is and something was in
//! it, or when it is full, or when its time is over. While it waits it costs a session and no buffer.

use super::core::own_position::{PollWish, Polling, Streaming};
use super::core::state::State;
use super::sse::{go_on, send};
use super::{CloseReason, Effect, Effects, OnlyStream, Protocol, Session};
use crate::base::ids::{Epoch, Offset};
use crate::wire::json::{Said, write_message};
use crate::wire::poll::Answer;
use crate::wire::sse::{EventId, Gap, Token, write_gap};

/// What became of a message for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// It is in it.
    Taken,
    /// There was no room: the next poll reads it.
    Full,
    /// It would fit into no answer.
    TooLarge,
}

/// Whether a poll is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Now.
    Due,
    /// There is more in the log, which is being read.
    Reading,
    /// There is nothing for it yet.
    Waiting,
}

/// It knows where it begins: from now on it reads.
pub(in crate::session) fn begin(session: &mut Session, streaming: Streaming, wish: PollWish, effects: &mut Effects) {
    let Streaming { log, topic, page, inbox_missing, topics_missing, .. } = streaming;
    let polling = Polling { wish, log: log.0, place: topic, page, is_listed: true, ..Polling::default() };
    session.extra().polling = Some(Box::new(polling));
    go_on(session, inbox_missing, topics_missing, effects);
}

/// Milliseconds it waits for something; none: it is no poll, or has not begun.
pub fn timeout_ms(session: &Session) -> Option<u32> {
    polling(session).map(|polling| polling.wish.timeout_ms)
}

/// Puts a message into the answer, whose messages may have so many bytes; then whether the shard does not look at it yet.
pub fn gather(session: &mut Session, said: &Said<'_>, bytes_max: usize) -> (Gathered, bool) {
    let is_only_topic = session.only_stream() == OnlyStream::Topic;
    let Some(polling) = session.extra.as_mut().and_then(|extra| extra.polling.as_mut()) else {
        return (Gathered::Full, false);
    };
    let Polling { wish, events, count, is_full, is_listed, place, .. } = &mut **polling;
    let before = events.len();
    if !*is_full {
        if before > 0 {
            events.push(b',');
        }
        write_message(said, events);
    }
    if *is_full || events.len() > bytes_max {
        let is_alone = before == 0 && !*is_full;
        events.truncate(before);
        if is_alone {
            return (Gathered::TooLarge, !core::mem::replace(is_listed, true));
        }
        *is_full = true;
        return (Gathered::Full, !core::mem::replace(is_listed, true));
    }
    *count += 1;
    *is_full = *count >= wish.limit;
    if is_only_topic && said.place.is_some() {
        *place = said.place;
    }
    (Gathered::Taken, !core::mem::replace(is_listed, true))
}

/// Notes that something is missing.
pub(in crate::session) fn on_gap(session: &mut Session, gap: &Gap<'_>) {
    let Some(polling) = session.extra.as_mut().and_then(|extra| extra.polling.as_mut()) else { return };
    if !polling.gaps.is_empty() {
        polling.gaps.push(b',');
    }
    write_gap(gap, &mut polling.gaps);
}

/// Whether it is to be answered. If it waits, it has to be listed again before the shard looks at it again.
pub fn readiness(session: &mut Session) -> Readiness {
    let is_behind = session.is_behind();
    let Some(polling) = session.extra.as_mut().and_then(|extra| extra.polling.as_mut()) else {
        return Readiness::Waiting;
    };
    let has_something = polling.count > 0 || !polling.gaps.is_empty();
    if polling.is_full || !is_behind && (has_something || polling.wish.timeout_ms == 0) {
        return Readiness::Due;
    }
    if is_behind {
        return Readiness::Reading;
    }
    polling.is_listed = false;
    Readiness::Waiting
}

/// Answers with what there is; the connection ends.
pub fn answer(session: &mut Session, reason: CloseReason, effects: &mut Effects) {
    if session.state != State::Open || session.protocol != Protocol::Poll {
        return;
    }
    let polling = session.extra().polling.take().expect("an open poll has an answer");
    let standing = session.standing(None);
    let next = match session.only_stream() {
        OnlyStream::Inbox => EventId::One(standing.inbox.0, standing.inbox.1),
        OnlyStream::Topic => {
            let (epoch, offset) = polling.place.unwrap_or((Epoch(0), Offset(0)));
            EventId::One(epoch, offset)
        }
        OnlyStream::Several => {
            EventId::Several(Token { log: polling.log, topics: standing.topics, inbox: standing.inbox })
        }
    };
    let (events, gaps, origin) = (&polling.events[..], &polling.gaps[..], polling.page.as_deref());
    send(effects, |out| Answer { events, gaps, next, origin }.encode(out));
    session.state = State::Closing;
    effects.push(Effect::Close(reason));
}

fn polling(session: &Session) -> Option<&Polling> {
    session.extra.as_ref().and_then(|extra| extra.polling.as_deref())
}

#[cfg(test)]
mod tests;
