//! What lately happened to connections, kept for the case that one of them ends badly; nobody is told otherwise.
//!
//! One ring a shard, of a fixed size, holds what happened to all of its connections: nothing is kept per connection and
//! nothing is noted per message. When a connection ends in an error its own entries are picked out and told, a bounded
//! number of times a second. While an operator follows a user, an address or an app, what happens to those is told at
//! once.

use super::command::{Follow, Noted, Story, What};
use super::gateway::{Core, Gateway};
use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::engine::CloseCause;
use crate::io::Driver;
use crate::limits::{DIARY_ENTRIES_MAX, STORIES_PER_SECOND_MAX};
use crate::session::CloseReason;
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    ring: VecDeque<(ConnectionId, Noted)>,
    followed: Arc<[Follow]>,
    /// Whoever writes the log; none: nobody does.
    to: Option<Sender<Story>>,
    /// The second that stories are counted in, and how many it has had.
    second: u64,
    told: u32,
    /// Connections that ended badly.
    pub(crate) ends: u64,
    /// Of those, the ones that nobody was told of.
    pub(crate) untold: u64,
}

impl Diary {
    /// Stories go there, as far as there is room.
    pub(crate) fn new(to: Sender<Story>) -> Self {
        Self { to: Some(to), ..Self::default() }
    }

    /// Follows these and nobody else from now on.
    pub(crate) fn follow(&mut self, followed: Arc<[Follow]>) {
        self.followed = followed;
    }

    fn note(&mut self, id: ConnectionId, happened: Noted) {
        if self.ring.len() == DIARY_ENTRIES_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back((id, happened));
    }

    /// All that is still known of a connection. A place in the table is another connection's with another generation.
    fn of(&self, id: ConnectionId) -> Vec<Noted> {
        self.ring.iter().filter(|(other, _)| *other == id).map(|(_, happened)| *happened).collect()
    }

    fn tell(&mut self, story: Story) {
        if self.to.as_ref().is_some_and(|to| to.try_send(story).is_err()) {
            self.untold += 1;
        }
    }

    /// Whether another story may be told in this second.
    fn may_tell(&mut self, now: Now) -> bool {
        let second = now.monotonic_ms / 1_000;
        if second != self.second {
            (self.second, self.told) = (second, 0);
        }
        self.told += 1;
        self.told <= STORIES_PER_SECOND_MAX
    }
}

impl Gateway {
    /// Something happened to a connection.
    pub(super) fn note<D: Driver>(&mut self, core: &Core<D>, id: ConnectionId, what: What) {
        let happened = Noted { at_ms: core.now().wall_ms, what };
        self.diary.note(id, happened);
        if !self.diary.followed.is_empty() {
            self.tell_followed(core, id, happened);
        }
    }

    /// A connection is told to close, and whoever reads the log why, if something is wrong.
    pub(super) fn note_close<D: Driver>(&mut self, core: &Core<D>, id: ConnectionId, reason: CloseReason) {
        self.note(core, id, What::Closing(reason));
        if reason.is_error() {
            self.tell_story(core, id, reason.name().trim_start_matches("closed_"));
        }
    }

    /// A connection has ended.
    pub(super) fn note_ended<D: Driver>(&mut self, core: &Core<D>, id: ConnectionId, cause: CloseCause) {
        let why = match cause {
            CloseCause::Misframed => "misframed",
            CloseCause::FrameTooLong => "frame_too_long",
            CloseCause::DoesNotRead => "does_not_read",
            CloseCause::OutOfBlocks => "out_of_blocks",
            CloseCause::NotInstalled(_) => "not_installed",
            // Most of these are networks and people who go.
            _ => return self.note(core, id, What::Ended(cause)),
        };
        self.note(core, id, What::Ended(cause));
        self.tell_story(core, id, why);
    }

    fn tell_story<D: Driver>(&mut self, core: &Core<D>, id: ConnectionId, why: &'static str) {
        self.diary.ends += 1;
        if !self.diary.may_tell(core.now()) {
            self.diary.untold += 1;
            return;
        }
        let events = self.diary.of(id);
        let story = self.story(core, id, Some(why), events);
        self.diary.tell(story);
    }

    fn tell_followed<D: Driver>(&mut self, core: &Core<D>, id: ConnectionId, happened: Noted) {
        let wall_ms = core.now().wall_ms;
        if self.diary.followed.iter().all(|follow| follow.until_ms <= wall_ms) {
            return self.diary.followed = Arc::default();
        }
        let story = self.story(core, id, None, vec![happened]);
        let is_followed = |follow: &Follow| {
            follow.until_ms > wall_ms
                && follow.app.is_none_or(|app| story.app == Some(app))
                && follow.user.as_deref().is_none_or(|user| story.user.as_deref() == Some(user))
                && follow.address.is_none_or(|range| story.peer.is_some_and(|peer| range.contains(peer.ip())))
        };
        if self.diary.followed.iter().any(is_followed) {
            self.diary.tell(story);
        }
    }

    fn story<D: Driver>(
        &self,
        core: &Core<D>,
        id: ConnectionId,
        why: Option<&'static str>,
        events: Vec<Noted>,
    ) -> Story {
        let session = core.tag(id).and_then(|tag| self.session_of(id, tag)).and_then(|id| self.directory.get(id));
        Story {
            name: super::command::ConnectionName { shard: self.shard, id },
            peer: core.peer(id),
            app: session.map(|session| session.app()),
            user: session.map(|session| session.user().into()),
            device: session.map(|session| session.device().into()),
            why,
            events,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32, generation: u32) -> ConnectionId {
        ConnectionId { index, generation }
    }

    fn happened(at_ms: u64) -> Noted {
        Noted { at_ms, what: What::Accepted }
    }

    #[test]
    fn a_connection_is_told_of_by_its_own_entries_alone() {
        let mut diary = Diary::default();
        for (connection, at_ms) in [(id(1, 1), 1), (id(2, 1), 2), (id(1, 2), 3), (id(1, 1), 4)] {
            diary.note(connection, happened(at_ms));
        }
        assert_eq!(diary.of(id(1, 1)), [happened(1), happened(4)]);
        assert_eq!(diary.of(id(1, 2)), [happened(3)]);
        assert!(diary.of(id(3, 1)).is_empty());
    }

    #[test]
    fn the_ring_is_bounded_and_the_oldest_go() {
        let mut diary = Diary::default();
        for at_ms in 0..=DIARY_ENTRIES_MAX as u64 {
            diary.note(id(1, 1), happened(at_ms));
        }
        assert_eq!(diary.ring.len(), DIARY_ENTRIES_MAX);
        assert_eq!(diary.of(id(1, 1)).first(), Some(&happened(1)));
    }

    #[test]
    fn stories_are_bounded_in_a_second() {
        let mut diary = Diary::default();
        let at = |monotonic_ms| Now { monotonic_ms, wall_ms: 0 };
        let told = (0..STORIES_PER_SECOND_MAX + 5).filter(|_| diary.may_tell(at(5_000))).count();
        assert_eq!(told, STORIES_PER_SECOND_MAX as usize);
        assert!(!diary.may_tell(at(5_999)) && diary.may_tell(at(6_000)));
    }
}
