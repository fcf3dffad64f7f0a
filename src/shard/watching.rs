//! What backends are told of: devices that come and go, clients' publishes, what became of messages.
//!
//! Nothing is made unless a consumer group wants it. A publish goes to the log with its message, in one commit. All else
//! is collected here and goes to the log at the end of a turn, many in one request, so that it costs a turn one request
//! and a slow log holds up no connection: what finds no room is dropped, and the next one that does is preceded by how
//! many were.

use super::command::{AppWatch, Happening, Receipt, Watch};
use super::gateway::{Core, Gateway};
use super::log_port::Waiting;
use super::upstream;
use crate::base::clock::Now;
use crate::base::ids::{AppId, Offset, SessionId};
use crate::base::message::{Message, StreamKey};
use crate::io::Driver;
use crate::limits::{UPSTREAM_APPEND_MAX, UPSTREAM_WAITING_MAX};
use crate::router::filter;
use crate::session::{CloseReason, Gap, LoggedAt, Protocol};
use crate::store::{NewEntry, Record, Request};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    watch: Arc<Watch>,
    /// The control plane has said what is wanted; until then the records of the groups say it.
    is_told: bool,
    /// For the log.
    waiting: VecDeque<NewEntry>,
    /// With the log.
    under_way: usize,
    /// What found no room since the last one that did, by app.
    missed: BTreeMap<AppId, u64>,
    /// All that ever found none, or whose commit failed.
    pub(crate) dropped: u64,
}

impl Watching {
    /// Watches these from now on. What was missed is still told to those who watch on.
    pub(crate) fn set(&mut self, watch: Arc<Watch>) {
        self.is_told = true;
        self.watch = watch;
        let watch = &self.watch;
        self.missed.retain(|app, _| watch.apps.iter().any(|(other, _)| other == app));
    }

    /// Groups of an earlier process, from their records.
    pub(crate) fn restore(&mut self, page: &[Record]) -> u64 {
        let mut unreadable = 0;
        if self.is_told {
            return unreadable;
        }
        let mut watch = Watch::clone(&self.watch);
        for (key, value) in page {
            match upstream::parse_record(key, value) {
                Some((app, _, group)) => watch.add(app, &group.wants),
                None => unreadable += 1,
            }
        }
        self.watch = Arc::new(watch);
        unreadable
    }

    /// Anything at all is watched.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        !self.watch.apps.is_empty()
    }

    /// Something waits for the log.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || !self.missed.is_empty() && self.has_room()
    }

    /// What waits for the log or is with it.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.under_way
    }

    fn has_room(&self) -> bool {
        self.len() < UPSTREAM_WAITING_MAX
    }

    /// The log has answered so many.
    pub(crate) fn answered(&mut self, count: usize, is_stored: bool) {
        self.under_way -= count;
        if !is_stored {
            self.dropped += count as u64;
        }
    }

    fn wants(&self, app: AppId, kind: impl FnOnce(&AppWatch) -> bool) -> bool {
        self.watch.apps.iter().find(|(other, _)| *other == app).is_some_and(|(_, watch)| kind(watch))
    }

    /// Tells of drops as far as there is room.
    fn tell_missed(&mut self, wall_ms: u64) {
        while self.has_room()
            && let Some((app, count)) = self.missed.pop_first()
        {
            self.waiting.push_back(upstream::missed(app, count, wall_ms));
        }
    }

    fn tell(&mut self, app: AppId, entry: NewEntry) {
        // What was missed comes before what is told.
        self.tell_missed(entry.message.created_ms);
        if self.has_room() {
            return self.waiting.push_back(entry);
        }
        *self.missed.entry(app).or_default() += 1;
        self.dropped += 1;
    }

    /// The next ones for the log, of all apps.
    fn take(&mut self) -> Vec<NewEntry> {
        let count = self.waiting.len().min(UPSTREAM_APPEND_MAX);
        self.under_way += count;
        let taken = self.waiting.drain(..count).collect();
        if self.waiting.is_empty() {
            // After a moment of many there may be hours of few.
            self.waiting.shrink_to(UPSTREAM_APPEND_MAX);
        }
        taken
    }
}

impl Gateway {
    fn notice(
        &mut self,
        id: SessionId,
        now: Now,
        wants: impl FnOnce(&AppWatch) -> bool,
        what: impl FnOnce() -> Happening,
    ) {
        let Some(session) = self.directory.get(id) else { return };
        let app = session.app();
        if self.watching.wants(app, wants) {
            let entry = upstream::entry(app, session.user(), session.device(), &what(), now.wall_ms);
            self.watching.tell(app, entry);
        }
    }

    /// As [`Gateway::notice`], of a connection. A poll is a question, and not somebody's coming and going.
    fn notice_connection(&mut self, id: SessionId, now: Now, what: impl FnOnce() -> Happening) {
        if self.directory.get(id).is_some_and(|session| session.protocol() != Protocol::Poll) {
            self.notice(id, now, |watch| watch.connections, what);
        }
    }

    /// A session has a connection.
    pub(super) fn notice_connected(&mut self, id: SessionId, session_present: bool, now: Now) {
        if self.watching.any() {
            self.notice_connection(id, now, || Happening::Connected { session_present });
        }
    }

    /// A session's connection is told to close.
    pub(super) fn notice_close(&mut self, id: Option<SessionId>, reason: CloseReason, now: Now) {
        if let Some(id) = id.filter(|_| self.watching.any()) {
            let reason = reason.name().trim_start_matches("closed_").into();
            self.notice_connection(id, now, || Happening::Disconnected { reason });
        }
    }

    /// A session's connection has ended. If it was told to, that was told as well.
    pub(super) fn notice_lost(&mut self, id: SessionId, now: Now) {
        if self.watching.any() && self.directory.get(id).is_some_and(|session| !session.is_closing()) {
            self.notice_connection(id, now, || Happening::Disconnected { reason: "lost".into() });
        }
    }

    /// A client publishes: what goes to the log with the message, if some group wants it.
    pub(super) fn upstream_of(&self, id: SessionId, message: &Arc<Message>, now: Now) -> Option<Box<NewEntry>> {
        if !self.watching.any() {
            return None;
        }
        let session = self.directory.get(id)?;
        let app = session.app();
        let matches = |watch: &AppWatch| watch.publishes.iter().any(|one| filter::matches(one, &message.topic));
        self.watching.wants(app, matches).then(|| {
            let what = Happening::Published(Arc::clone(message));
            Box::new(upstream::entry(app, session.user(), session.device(), &what, now.wall_ms))
        })
    }

    /// What became of a message of a device, or of `count` of them up to this one.
    pub(super) fn notice_receipt(
        &mut self,
        id: SessionId,
        at: Option<LoggedAt>,
        topic: &Arc<str>,
        (receipt, count): (Receipt, u64),
        now: Now,
    ) {
        if !self.watching.any() {
            return;
        }
        let Some(session) = self.directory.get(id) else { return };
        let inbox = match at {
            Some(LoggedAt::Inbox(offset)) => Some((session.inbox_settled().0, offset)),
            Some(LoggedAt::Topics(_) | LoggedAt::Retained(_) | LoggedAt::Shared { .. }) | None => None,
        };
        let what = || Happening::Receipt { topic: Arc::clone(topic), inbox, receipt, count };
        self.notice(id, now, |watch| watch.receipts, what);
    }

    /// Retention has taken messages before a device had read them.
    pub(super) fn notice_trimmed(&mut self, id: SessionId, gap: &Gap, now: Now) {
        let nobodys: Arc<str> = Arc::default();
        match gap {
            Gap::Inbox { first, entries } => {
                let last = Offset(first.0 + entries - 1);
                self.notice_receipt(id, Some(LoggedAt::Inbox(last)), &nobodys, (Receipt::Trimmed, *entries), now);
            }
            Gap::Topics(gap) => {
                let topic = if let StreamKey::Topic(_, topic) = &gap.stream { topic } else { &nobodys };
                self.notice_receipt(id, None, topic, (Receipt::Trimmed, 0), now);
            }
        }
    }

    /// Brings what has been collected to the log, as far as that has room.
    pub(super) fn tell_upstream<D: Driver>(&mut self, core: &Core<D>) {
        self.watching.tell_missed(core.now().wall_ms);
        while !self.watching.waiting.is_empty() && !self.log.congested() {
            let entries = self.watching.take();
            let waiting = Waiting::Upstream { count: entries.len() };
            self.log.submit(Request::Append { key: None, entries, records: Vec::new() }, waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::command::Told;

    const APP: AppId = AppId(0);

    fn watching() -> Watching {
        let mut watching = Watching::default();
        let wants = AppWatch { connections: true, ..AppWatch::default() };
        watching.set(Arc::new(Watch { apps: vec![(APP, wants)] }));
        watching
    }

    fn tell(watching: &mut Watching, count: usize) {
        for _ in 0..count {
            let what = Happening::Connected { session_present: false };
            watching.tell(APP, upstream::entry(APP, "u", "d", &what, 0));
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_before_the_next_one_that_does() {
        for over in [0, 1, 5] {
            let mut watching = watching();
            tell(&mut watching, UPSTREAM_WAITING_MAX + over);
            assert_eq!((watching.len(), watching.dropped), (UPSTREAM_WAITING_MAX, over as u64));
            let taken = watching.take().len();
            assert_eq!(watching.len(), UPSTREAM_WAITING_MAX, "what is with the log takes room as well");
            watching.tell_missed(0);
            assert_eq!(watching.len(), UPSTREAM_WAITING_MAX);
            watching.answered(taken, true);
            tell(&mut watching, 1);
            let last: Vec<_> =
                watching.waiting.iter().rev().take(2).map(|entry| upstream::parse(&entry.message)).collect();
            assert!(matches!(last[0], Some(Told::Happened(_))));
            let missed = matches!(last[1], Some(Told::Missed(count)) if count == over as u64);
            assert_eq!(missed, over > 0);
            assert_eq!(watching.dropped, over as u64);
        }
    }

    #[test]
    fn what_could_not_be_stored_is_counted() {
        let mut watching = watching();
        tell(&mut watching, 3);
        let taken = watching.take().len();
        watching.answered(taken, false);
        assert_eq!((watching.len(), watching.dropped), (0, 3));
    }
}
