//! Parts of streams for who asks: the control plane, or a device by `$api/history`.

use super::command::{CommandError, CommandToken, Event, HistoryPage, HistoryQuery, Missing, Place};
use super::flavours::is_expired;
use super::gateway::{Core, Gateway};
use super::log_port::Waiting;
use super::publish::command_error;
use crate::base::ids::{Epoch, Offset, SessionId};
use crate::base::log::StreamHead;
use crate::base::message::Entry;
use crate::io::Driver;
use crate::limits::{ANSWER_BYTES_MAX, HISTORY_PAGE_BYTES_MAX, HISTORY_PAGE_MAX, HISTORY_STEP_ENTRIES};
use crate::session::ReplyTo;
use crate::store::{Answer, Request, StoreError};

/// Who asks for a part of a stream.
#[derive(Debug)]
pub(crate) enum HistoryAsker {
    /// The control plane.
    Control(CommandToken),
    /// A device.
    Device(SessionId, Box<ReplyTo>),
}

/// A part of a stream that is being read.
#[derive(Debug)]
pub(crate) struct HistoryRead {
    query: HistoryQuery,
    asker: HistoryAsker,
    /// The place that was asked for is not of this life of the stream.
    is_lost: bool,
    /// What was read so far, and its bytes.
    entries: Vec<Entry>,
    bytes: usize,
}

impl Gateway {
    /// The control plane asks.
    pub(super) fn on_history(&mut self, query: HistoryQuery, token: CommandToken) {
        if self.is_log_congested() {
            return self.tell(Event::History { token, result: Err(CommandError::Busy) });
        }
        self.read_history(query, HistoryAsker::Control(token));
    }

    pub(super) fn read_history(&mut self, query: HistoryQuery, asker: HistoryAsker) {
        self.submit_history(HistoryRead { query, asker, is_lost: false, entries: Vec::new(), bytes: 0 });
    }

    fn submit_history(&mut self, read: HistoryRead) {
        let asked = read.query.after.map_or(Offset(0), |place| place.offset);
        let after = read.entries.last().map_or(asked, |entry| entry.offset);
        let limit = (read.wanted() - read.entries.len()).min(HISTORY_STEP_ENTRIES);
        let stream = read.query.stream.clone();
        self.log.submit(Request::ReadStream { stream, after, limit }, Waiting::History(Box::new(read)));
    }

    /// The log's answer. A place of another life of the stream means nothing in this one: it is read from its beginning.
    pub(super) fn on_history_read<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        mut read: HistoryRead,
        result: Result<Answer, StoreError>,
    ) {
        let page = match result {
            Ok(Answer::Stream { head, entries }) => {
                if read.query.after.is_some_and(|place| is_of_another_life(place, head)) {
                    read.is_lost = true;
                    read.query.after = None;
                    read.entries.clear();
                    read.bytes = 0;
                    return self.submit_history(read);
                }
                let is_more = entries.last().is_some_and(|last| last.offset < head.last);
                if read.take(entries) && is_more {
                    return self.submit_history(read);
                }
                Ok(page(&mut read, head, core.now().wall_ms))
            }
            Ok(other) => unreachable!("a read of a stream was answered with {other:?}"),
            Err(error) => Err(command_error(error)),
        };
        match read.asker {
            HistoryAsker::Control(token) => self.tell(Event::History { token, result: page }),
            HistoryAsker::Device(session, to) => self.answer_history(core, session, &to, page.ok().as_ref()),
        }
    }
}

impl HistoryRead {
    fn wanted(&self) -> usize {
        self.query.limit.min(HISTORY_PAGE_MAX)
    }

    /// Takes in what was read, as far as there is room for its bytes; true: there is room for more.
    fn take(&mut self, entries: Vec<Entry>) -> bool {
        let bytes_max = match self.asker {
            HistoryAsker::Control(_) => HISTORY_PAGE_BYTES_MAX,
            HistoryAsker::Device(..) => ANSWER_BYTES_MAX,
        };
        // In the middle of it the stream may have begun anew.
        let epoch = self.entries.first().map(|first| first.epoch);
        for entry in entries {
            let bytes = self.bytes + entry.message.payload.len();
            if bytes > bytes_max && !self.entries.is_empty() || epoch.is_some_and(|epoch| epoch != entry.epoch) {
                return false;
            }
            self.bytes = bytes;
            self.entries.push(entry);
        }
        self.entries.len() < self.wanted()
    }
}

/// `Epoch(0)` is the life of a stream that has none yet: who stands before its beginning has missed nothing.
fn is_of_another_life(place: Place, head: StreamHead) -> bool {
    let differs = |epoch| epoch != Epoch(0) && (epoch != head.epoch || place.offset > head.last);
    place.epoch.is_some_and(differs)
}

fn page(read: &mut HistoryRead, head: StreamHead, at_ms: u64) -> HistoryPage {
    let after = read.query.after.map_or(Offset(head.first.0 - 1), |place| place.offset);
    let mut entries = core::mem::take(&mut read.entries);
    let next = match entries.last() {
        Some(last) => last.offset,
        // Behind that place there is nothing; who asked for no message has read none.
        None if read.query.limit > 0 => head.last,
        None => after.min(head.last),
    };
    let missing = match read.query.after {
        _ if read.is_lost => Some(Missing::Unknown),
        Some(_) if after.0 + 1 < head.first.0 => {
            Some(Missing::Trimmed(Offset(after.0 + 1), head.first.0 - after.0 - 1))
        }
        _ => None,
    };
    entries.retain(|entry| !is_expired(&entry.message, at_ms));
    HistoryPage { head, entries, next, missing, at_ms }
}
