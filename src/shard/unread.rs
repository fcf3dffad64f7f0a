//! What is known of a user: the devices, and how many messages of the inbox nobody, or not a device, has read.
//!
//! ```text
//!  asked ──► read marks that moved, written ──► the read mark ──► pages of the inbox from the earliest place on ──► answer
//! ```
//! A page is shorter the more devices the user has, so that a step is bounded. Devices may come and go meanwhile: each
//! entry is judged by what is there when its page comes.

use super::command::{CommandError, CommandToken, DeviceState, Event, UserState};
use super::flavours::is_expired;
use super::gateway::Gateway;
use super::log_port::Waiting;
use super::publish::command_error;
use crate::base::ids::{AppId, Epoch, Offset, SessionId};
use crate::base::message::{Entry, StreamKey};
use crate::limits::{HISTORY_STEP_ENTRIES, UNREAD_COUNTS_MAX, UNREAD_VISITS_MAX};
use crate::session::Session;
use crate::session::core::record;
use crate::store::{Answer, Request, StoreError};
use std::sync::Arc;

/// A user whose unread messages are being counted.
#[derive(Debug)]
pub(crate) struct UnreadCount {
    token: CommandToken,
    app: AppId,
    user: Arc<str>,
    sessions: Vec<SessionId>,
    state: UserState,
    /// Up to where the inbox has been looked at.
    after: Offset,
}

impl Gateway {
    /// Says what is known of a user.
    pub(super) fn on_user(&mut self, app: AppId, user: Arc<str>, token: CommandToken) {
        if self.is_log_congested() || self.unread.len() >= UNREAD_COUNTS_MAX {
            return self.tell(Event::User { token, result: Err(CommandError::Busy) });
        }
        let sessions: Vec<SessionId> = self.directory.sessions_of(app, &user).collect();
        let devices = sessions.iter().filter_map(|&id| self.directory.get(id)).map(device).collect();
        self.write_read_marks(&sessions);
        let prefix = record::read_mark_key(app, &user);
        let state = UserState { devices, ..UserState::default() };
        let count = UnreadCount { token, app, user, sessions, state, after: Offset(0) };
        let index = self.unread.insert(count);
        self.log
            .submit(Request::ReadRecords { prefix, after: Box::default(), limit: 1 }, Waiting::UnreadMark { index });
    }

    /// The user's read mark; now the inbox from the earliest place of all.
    pub(super) fn on_unread_mark(&mut self, index: usize, result: Result<Answer, StoreError>) {
        let records = match result {
            Ok(Answer::Records(records)) => records,
            Ok(other) => unreachable!("a read of records was answered with {other:?}"),
            Err(error) => return self.end_unread(index, Err(command_error(error))),
        };
        let count = &mut self.unread[index];
        let mark = records.first().and_then(|(_, value)| record::parse_read_mark(value));
        count.state.read = mark;
        let places = count.state.devices.iter().filter(|device| device.unread.is_some()).map(|device| device.inbox);
        let mut earliest = places.chain([mark]).map(|place| place.unwrap_or_default());
        let first = earliest.next().unwrap_or_default();
        // Offsets of different lives do not compare: then all there is has to be looked at.
        let (epoch, offset) = earliest.fold(first, |(epoch, offset), (other, at)| match epoch == other {
            true => (epoch, offset.min(at)),
            false => (Epoch(0), Offset(0)),
        });
        count.after = if epoch == Epoch(0) { Offset(0) } else { offset };
        self.read_unread(index);
    }

    fn read_unread(&mut self, index: usize) {
        let count = &self.unread[index];
        let limit = (UNREAD_VISITS_MAX / (count.sessions.len() + 1)).clamp(1, HISTORY_STEP_ENTRIES);
        let stream = StreamKey::Inbox(count.app, count.user.clone());
        let request = Request::ReadStream { stream, after: count.after, limit };
        self.log.submit(request, Waiting::UnreadPage { index });
    }

    /// A page of the inbox.
    pub(super) fn on_unread_page(&mut self, index: usize, wall_ms: u64, result: Result<Answer, StoreError>) {
        let (head, entries) = match result {
            Ok(Answer::Stream { head, entries }) => (head, entries),
            Ok(other) => unreachable!("a read of a stream was answered with {other:?}"),
            Err(error) => return self.end_unread(index, Err(command_error(error))),
        };
        let Self { unread, directory, .. } = self;
        let count = &mut unread[index];
        if count.state.read.is_some_and(|(epoch, _)| epoch != head.epoch) {
            // It was read in an earlier life of the inbox; of this one nothing.
            count.state.read = None;
            if count.after > Offset(0) {
                count.after = Offset(0);
                count.state.unread = 0;
                count
                    .state
                    .devices
                    .iter_mut()
                    .filter_map(|device| device.unread.as_mut())
                    .for_each(|unread| *unread = 0);
                return self.read_unread(index);
            }
        }
        let read = count.state.read.map_or(Offset(0), |(_, offset)| offset);
        for entry in entries.iter().filter(|entry| !is_expired(&entry.message, wall_ms)) {
            count.state.unread += u64::from(entry.offset > read);
            for (device, &id) in count.state.devices.iter_mut().zip(&count.sessions) {
                let Some(unread) = &mut device.unread else { continue };
                *unread += u64::from(directory.get(id).is_some_and(|session| is_unread(session, entry)));
            }
        }
        match entries.last() {
            Some(last) if last.offset < head.last => {
                count.after = last.offset;
                self.read_unread(index);
            }
            _ => {
                let state = std::mem::take(&mut count.state);
                self.end_unread(index, Ok(state));
            }
        }
    }

    fn end_unread(&mut self, index: usize, result: Result<UserState, CommandError>) {
        let UnreadCount { token, .. } = self.unread.remove(index);
        self.tell(Event::User { token, result });
    }
}

fn device(session: &Session) -> DeviceState {
    let count = |number: usize| u32::try_from(number).expect("a session's lists are bounded");
    let (epoch, offset) = session.inbox_settled();
    DeviceState {
        device: session.device().into(),
        online: session.connection().is_some(),
        expiry_seconds: session.expiry_seconds(),
        subscriptions: count(session.subscriptions().len()),
        in_flight: count(session.in_flight_count()),
        inbox: (epoch != Epoch::default()).then_some((epoch, offset)),
        unread: session.knows_inbox().then_some(0),
    }
}

/// Whether an entry of its user's inbox is for this session, and still in its hands.
fn is_unread(session: &Session, entry: &Entry) -> bool {
    let message = &entry.message;
    message.only_device.as_deref().is_none_or(|device| device == session.device())
        && session.effective(&message.topic, None).is_some()
        && !session.is_done_with(entry.epoch, entry.offset)
}
