//! What the control plane watches: devices that come and go, clients' publishes, acknowledgements.
//!
//! Nothing is made unless it is watched. What finds no room in the queue is dropped; the next thing that finds room is
//! preceded by how many were.

use super::command::{AppWatch, Happening, Notice, Watch};
use super::gateway::Gateway;
use crate::base::ids::{AppId, SessionId};
use crate::base::message::Message;
use crate::router::filter;
use crate::session::{CloseReason, LoggedAt};
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct Watching {
    watch: Arc<Watch>,
    notices: Sender<Notice>,
    /// Notices of each app that found no room since the last one that did.
    missed: BTreeMap<AppId, u64>,
    /// All that ever found none.
    pub(crate) dropped: u64,
}

impl Watching {
    pub(crate) fn new(notices: Sender<Notice>) -> Self {
        Self { watch: Arc::default(), notices, missed: BTreeMap::new(), dropped: 0 }
    }

    /// Watches these from now on. What was missed is still told to those who watch on.
    pub(crate) fn set(&mut self, watch: Arc<Watch>) {
        self.watch = watch;
        let watch = &self.watch;
        self.missed.retain(|app, _| watch.apps.iter().any(|(other, _)| other == app));
    }

    /// Anything at all is watched.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        !self.watch.apps.is_empty()
    }

    /// Somebody has to be told of drops.
    pub(crate) fn misses(&self) -> bool {
        !self.missed.is_empty()
    }

    /// Tells of drops as far as there is room.
    pub(crate) fn tell_missed(&mut self) {
        while let Some((app, count)) = self.missed.pop_first() {
            if self.notices.try_send(Notice::Missed { app, count }).is_err() {
                self.missed.insert(app, count);
                return;
            }
        }
    }

    fn wants(&self, app: AppId, kind: impl FnOnce(&AppWatch) -> bool) -> bool {
        self.watch.apps.iter().find(|(other, _)| *other == app).is_some_and(|(_, watch)| kind(watch))
    }

    /// Tells whoever reads the log, if there is room.
    pub(crate) fn tell_aside(&self, notice: Notice) -> bool {
        self.notices.try_send(notice).is_ok()
    }

    fn tell(&mut self, app: AppId, notice: Notice) {
        // What was missed comes before what is told.
        self.tell_missed();
        if !self.missed.is_empty() || self.notices.try_send(notice).is_err() {
            *self.missed.entry(app).or_default() += 1;
            self.dropped += 1;
        }
    }
}

impl Gateway {
    fn notice(&mut self, id: SessionId, wants: impl FnOnce(&AppWatch) -> bool, what: impl FnOnce() -> Happening) {
        let Some(session) = self.directory.get(id) else { return };
        let app = session.app();
        if self.watching.wants(app, wants) {
            let (user, device) = (session.user().into(), session.device().into());
            self.watching.tell(app, Notice::Happened { app, user, device, what: what() });
        }
    }

    /// A session has a connection.
    pub(super) fn notice_connected(&mut self, id: SessionId, session_present: bool) {
        if self.watching.any() {
            self.notice(id, |watch| watch.connections, || Happening::Connected { session_present });
        }
    }

    /// A session's connection is told to close.
    pub(super) fn notice_close(&mut self, id: Option<SessionId>, reason: CloseReason) {
        if let Some(id) = id.filter(|_| self.watching.any()) {
            let reason = reason.name().trim_start_matches("closed_");
            self.notice(id, |watch| watch.connections, || Happening::Disconnected { reason });
        }
    }

    /// A session's connection has ended. If it was told to, that was told as well.
    pub(super) fn notice_lost(&mut self, id: SessionId) {
        if self.watching.any() && self.directory.get(id).is_some_and(|session| !session.is_closing()) {
            self.notice(id, |watch| watch.connections, || Happening::Disconnected { reason: "lost" });
        }
    }

    /// A client publishes.
    pub(super) fn notice_publish(&mut self, id: SessionId, message: &Arc<Message>) {
        if self.watching.any() {
            let matches = |watch: &AppWatch| watch.publishes.iter().any(|one| filter::matches(one, &message.topic));
            self.notice(id, matches, || Happening::Published(Arc::clone(message)));
        }
    }

    /// A device has acknowledged a message.
    pub(super) fn notice_received(&mut self, id: SessionId, at: Option<LoggedAt>, topic: Arc<str>, refused: bool) {
        if !self.watching.any() {
            return;
        }
        let Some(session) = self.directory.get(id) else { return };
        let inbox = match at {
            Some(LoggedAt::Inbox(offset)) => Some((session.inbox_settled().0, offset)),
            Some(LoggedAt::Topics(_) | LoggedAt::Retained(_) | LoggedAt::Shared { .. }) | None => None,
        };
        self.notice(id, |watch| watch.receipts, || Happening::Received { topic, inbox, refused });
    }
}
