//! Who is in the topics whose home this is: each user once, however many devices, and for a while after the last one has
//! gone.
//!
//! ```text
//!   (none) ──first device──► present ──last device goes──► leaving ──its time is over──► (none)
//!                               ▲                             │
//!                               └────────a device comes───────┘
//! ```

use crate::base::ids::AppId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// See the module. Full: who comes is not taken in.
#[derive(Debug)]
pub struct Presence {
    /// Each with somebody in it.
    topics: HashMap<(AppId, Arc<str>), BTreeMap<Arc<str>, Standing>>,
    /// Users over all topics.
    entries: usize,
    entries_max: usize,
    /// Those of them that have no device any more.
    leaving: BTreeSet<Leaving>,
}

/// A user in a topic.
#[derive(Debug)]
struct Standing {
    devices: u32,
    /// When it will have left; none: it is there.
    leaves_ms: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Leaving {
    at_ms: u64,
    app: AppId,
    topic: Arc<str>,
    user: Arc<str>,
}

/// What a device's coming means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Its user is in the topic now, with so many in all.
    New(usize),
    /// Its user was there already, or had not left yet.
    Known,
    /// There is no room.
    Full,
}

/// A user that has come into a topic, or left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Tenant.
    pub app: AppId,
    /// What.
    pub topic: Arc<str>,
    /// Who.
    pub user: Arc<str>,
    /// Users that are there now.
    pub present: usize,
}

impl Presence {
    /// Room for so many users, each counted once a topic.
    pub fn new(entries_max: usize) -> Self {
        Self { topics: HashMap::new(), entries: 0, entries_max, leaving: BTreeSet::new() }
    }

    /// A device of a user is in a topic.
    pub fn join(&mut self, app: AppId, topic: &Arc<str>, user: &Arc<str>) -> Joined {
        let key = (app, topic.clone());
        if let Some(standing) = self.topics.get_mut(&key).and_then(|users| users.get_mut(user)) {
            standing.devices += 1;
            if let Some(at_ms) = standing.leaves_ms.take() {
                self.leaving.remove(&Leaving { at_ms, app, topic: topic.clone(), user: user.clone() });
            }
            return Joined::Known;
        }
        if self.entries >= self.entries_max {
            return Joined::Full;
        }
        self.entries += 1;
        let users = self.topics.entry(key).or_default();
        users.insert(user.clone(), Standing { devices: 1, leaves_ms: None });
        Joined::New(users.len())
    }

    /// A device of a user is not in a topic any more; if it was the last one, the user will have left at `leaves_ms`. Who
    /// found no room when it came has no place to leave.
    pub fn leave(&mut self, app: AppId, topic: Arc<str>, user: Arc<str>, leaves_ms: u64) {
        let key = (app, topic);
        let Some(standing) = self.topics.get_mut(&key).and_then(|users| users.get_mut(&user)) else { return };
        standing.devices = standing.devices.saturating_sub(1);
        if standing.devices == 0 && standing.leaves_ms.is_none() {
            standing.leaves_ms = Some(leaves_ms);
            self.leaving.insert(Leaving { at_ms: leaves_ms, app, topic: key.1, user });
        }
    }

    /// Whose time is over by now, one at a time.
    pub fn next_departed(&mut self, now_ms: u64) -> Option<Change> {
        self.next_ms().filter(|&at_ms| at_ms <= now_ms)?;
        let Leaving { app, topic, user, .. } = self.leaving.pop_first()?;
        let key = (app, topic);
        let users = self.topics.get_mut(&key).expect("who leaves is there");
        users.remove(&user).expect("who leaves is there");
        let present = users.len();
        if present == 0 {
            self.topics.remove(&key);
        }
        self.entries -= 1;
        Some(Change { app, topic: key.1, user, present })
    }

    /// When somebody will have left.
    pub fn next_ms(&self) -> Option<u64> {
        self.leaving.first().map(|leaving| leaving.at_ms)
    }

    /// Who is in a topic, by name.
    pub fn users(&self, app: AppId, topic: &Arc<str>) -> impl ExactSizeIterator<Item = &Arc<str>> {
        static NOBODY: BTreeMap<Arc<str>, Standing> = BTreeMap::new();
        self.topics.get(&(app, topic.clone())).unwrap_or(&NOBODY).keys()
    }

    /// Users over all topics.
    pub fn entries(&self) -> usize {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId(0);

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    fn users(presence: &Presence, topic: &str) -> Vec<String> {
        presence.users(APP, &name(topic)).map(|user| user.to_string()).collect()
    }

    #[test]
    fn a_user_is_there_until_its_time_is_over_after_its_last_device() {
        let mut presence = Presence::new(10);
        let (room, ann) = (name("room"), name("ann"));
        assert_eq!(presence.join(APP, &room, &ann), Joined::New(1));
        assert_eq!(presence.join(APP, &room, &ann), Joined::Known);
        assert_eq!(presence.join(APP, &room, &name("bob")), Joined::New(2));
        presence.leave(APP, room.clone(), ann.clone(), 5);
        assert_eq!((presence.next_ms(), presence.next_departed(99)), (None, None));
        presence.leave(APP, room.clone(), ann.clone(), 10);
        assert_eq!((presence.next_ms(), presence.next_departed(9)), (Some(10), None));
        assert_eq!(users(&presence, "room"), ["ann", "bob"]);
        let gone = Change { app: APP, topic: room, user: ann, present: 1 };
        assert_eq!((presence.next_departed(10), presence.next_departed(10)), (Some(gone), None));
        assert_eq!((users(&presence, "room"), presence.entries()), (vec!["bob".to_owned()], 1));
    }

    #[test]
    fn who_returns_in_time_has_not_been_away() {
        let mut presence = Presence::new(10);
        let (room, ann) = (name("room"), name("ann"));
        presence.join(APP, &room, &ann);
        for at_ms in [10, 20] {
            presence.leave(APP, room.clone(), ann.clone(), at_ms);
            assert_eq!(presence.join(APP, &room, &ann), Joined::Known);
        }
        assert_eq!((presence.next_departed(99), presence.next_ms()), (None, None));
        presence.leave(APP, room.clone(), ann.clone(), 30);
        presence.leave(APP, room, ann, 40);
        assert!(presence.next_departed(30).is_some() && presence.next_departed(99).is_none(), "it leaves once");
        assert_eq!((users(&presence, "room").len(), presence.entries()), (0, 0));
    }

    #[test]
    fn entries_are_bounded_at_n_and_who_finds_no_room_has_none_to_leave() {
        let mut presence = Presence::new(2);
        assert_eq!(presence.join(APP, &name("a"), &name("ann")), Joined::New(1));
        assert_eq!(presence.join(APP, &name("b"), &name("ann")), Joined::New(1));
        assert_eq!(presence.join(APP, &name("b"), &name("bob")), Joined::Full);
        assert_eq!(presence.join(APP, &name("c"), &name("bob")), Joined::Full);
        assert_eq!(presence.join(AppId(1), &name("a"), &name("ann")), Joined::Full, "another app's topic is another");
        assert_eq!(presence.join(APP, &name("a"), &name("ann")), Joined::Known);
        presence.leave(APP, name("c"), name("bob"), 5);
        assert_eq!((presence.next_ms(), users(&presence, "c").len()), (None, 0));
        presence.leave(APP, name("b"), name("ann"), 5);
        assert!(presence.next_departed(5).is_some());
        assert_eq!(presence.join(APP, &name("c"), &name("bob")), Joined::New(1));
    }
}
