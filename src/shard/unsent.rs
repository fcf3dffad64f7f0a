//! In-flight messages that found the outbox full: sent in order when it has drained. At most a window a session.

use crate::session::DeliveryId;
use std::collections::{HashMap, VecDeque};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    sessions: HashMap<u32, VecDeque<(DeliveryId, bool)>>,
}

impl Unsent {
    /// Whether the session has any, so that later ones must wait as well.
    #[inline]
    pub(crate) fn has(&self, session: u32) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(&session)
    }

    pub(crate) fn push(&mut self, session: u32, delivery: DeliveryId, dup: bool) {
        self.sessions.entry(session).or_default().push_back((delivery, dup));
    }

    /// Takes all of a session's, in order.
    pub(crate) fn take(&mut self, session: u32) -> VecDeque<(DeliveryId, bool)> {
        self.sessions.remove(&session).unwrap_or_default()
    }

    pub(crate) fn forget(&mut self, session: u32) {
        self.sessions.remove(&session);
    }

    /// Sessions that wait for their outbox.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}
