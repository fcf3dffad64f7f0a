//! Finds sessions by user and device. One shard's; every operation is O(1).

use super::core::Session;
use super::core::record::Rebuild;
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, Offset, Seq, SessionId};
use crate::base::log::RecordChange;
use crate::limits::DEVICES_PER_USER_MAX;
use hashbrown::HashTable;
use slab::Slab;

const NONE: u32 = u32::MAX;

/// A record's key and value.
pub type Record = (Box<[u8]>, Box<[u8]>);

/// All sessions of a shard.
#[derive(Debug)]
pub struct Directory {
    hash: KeyedHash,
    sessions: Slab<Session>,
    /// By (app, user, device): the index. The names are the sessions' own.
    devices: HashTable<u32>,
    /// By (app, user).
    users: HashTable<User>,
    next_generation: u32,
    rebuild: Rebuild,
}

/// A user with sessions, named by the first of them.
#[derive(Debug)]
struct User {
    first: u32,
    sessions: u32,
    read_mark: Offset,
}

/// The user has `DEVICES_PER_USER_MAX` sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Sessions of one user.
#[derive(Clone, Debug)]
pub struct SessionsOf<'d> {
    directory: &'d Directory,
    next: u32,
}

impl Iterator for SessionsOf<'_> {
    type Item = SessionId;
    fn next(&mut self) -> Option<SessionId> {
        if self.next == NONE {
            return None;
        }
        let index = self.next;
        let session = &self.directory.sessions[index as usize];
        self.next = session.next;
        Some(SessionId { index, generation: session.generation })
    }
}

impl Directory {
    /// Room for `sessions_max` without growing by copying; untouched pages cost nothing.
    pub fn new(hash: KeyedHash, sessions_max: usize) -> Self {
        Self {
            hash,
            sessions: Slab::with_capacity(sessions_max),
            devices: HashTable::new(),
            users: HashTable::new(),
            next_generation: 0,
            rebuild: Rebuild::default(),
        }
    }

    /// Sessions, connected or away.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Users that have one.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The session of a device.
    pub fn find(&self, app: AppId, user: &str, device: &str) -> Option<SessionId> {
        let is_it = |&index: &u32| {
            let session = &self.sessions[index as usize];
            session.app() == app && session.user() == user && session.device() == device
        };
        let &index = self.devices.find(self.hash.of(&(app, user, device)), is_it)?;
        Some(SessionId { index, generation: self.sessions[index as usize].generation })
    }

    /// A user's sessions, the newest first.
    pub fn sessions_of(&self, app: AppId, user: &str) -> SessionsOf<'_> {
        SessionsOf { directory: self, next: self.user(app, user).map_or(NONE, |user| user.first) }
    }

    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(index, session)| {
            let index = u32::try_from(index).expect("inserts are checked");
            (SessionId { index, generation: session.generation }, session)
        })
    }

    /// The id of a session by its slab index; for the router, which keeps only that.
    pub fn id_at(&self, index: u32) -> Option<SessionId> {
        let session = self.sessions.get(index as usize)?;
        Some(SessionId { index, generation: session.generation })
    }

    /// None when it is gone.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.index as usize).filter(|session| session.generation == id.generation)
    }

    /// None when it is gone.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.index as usize).filter(|session| session.generation == id.generation)
    }

    /// Takes a session in, whose device must not have one.
    pub fn insert(&mut self, mut session: Session) -> Result<SessionId, Full> {
        let Self { hash, sessions, devices, users, next_generation, .. } = self;
        let app = session.app();
        let device_hash = hash.of(&(app, session.user(), session.device()));
        let user_hash = hash.of(&(app, session.user()));
        let named = |user: &User, session: &Session, sessions: &Slab<Session>| {
            let first = &sessions[user.first as usize];
            first.app() == session.app() && first.user() == session.user()
        };
        let known = users.find_mut(user_hash, |user| named(user, &session, sessions));
        if known.as_ref().is_some_and(|user| user.sessions as usize >= DEVICES_PER_USER_MAX) {
            return Err(Full);
        }
        session.generation = *next_generation;
        *next_generation = next_generation.wrapping_add(1);
        session.previous = NONE;
        session.next = known.as_ref().map_or(NONE, |user| user.first);
        let (generation, next) = (session.generation, session.next);
        let index = u32::try_from(sessions.vacant_key()).expect("a shard holds fewer than 2^32 sessions");
        if next != NONE {
            sessions[next as usize].previous = index;
        }
        sessions.insert(session);
        match known {
            Some(user) => {
                user.first = index;
                user.sessions += 1;
            }
            None => {
                let rehash = |user: &User| {
                    let first = &sessions[user.first as usize];
                    hash.of(&(first.app(), first.user()))
                };
                users.insert_unique(user_hash, User { first: index, sessions: 1, read_mark: Offset(0) }, rehash);
            }
        }
        devices.insert_unique(device_hash, index, |&index| {
            let session = &sessions[index as usize];
            hash.of(&(session.app(), session.user(), session.device()))
        });
        Ok(SessionId { index, generation })
    }

    /// Takes it out; its id is stale from now on.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        self.get(id)?;
        let Self { hash, sessions, devices, users, .. } = self;
        let session = &sessions[id.index as usize];
        let (next, previous) = (session.next, session.previous);
        let device_hash = hash.of(&(session.app(), session.user(), session.device()));
        let user_hash = hash.of(&(session.app(), session.user()));
        if let Ok(entry) = devices.find_entry(device_hash, |&index| index == id.index) {
            entry.remove();
        }
        let is_it = |user: &User| {
            let first = &sessions[user.first as usize];
            first.app() == session.app() && first.user() == session.user()
        };
        if let Ok(mut entry) = users.find_entry(user_hash, is_it) {
            let user = entry.get_mut();
            user.sessions -= 1;
            if user.first == id.index {
                user.first = next;
            }
            if user.sessions == 0 {
                entry.remove();
            }
        }
        if next != NONE {
            sessions[next as usize].previous = previous;
        }
        if previous != NONE {
            sessions[previous as usize].next = next;
        }
        Some(sessions.remove(id.index as usize))
    }

    fn user(&self, app: AppId, name: &str) -> Option<&User> {
        self.users.find(self.hash.of(&(app, name)), |user| {
            let first = &self.sessions[user.first as usize];
            first.app() == app && first.user() == name
        })
    }

    /// The session behind `id` among its user's: as [`Directory::sessions_of`], for those who change it on the way.
    pub fn after(&self, id: SessionId) -> Option<SessionId> {
        SessionsOf { directory: self, next: self.get(id)?.next }.next()
    }

    /// How many sessions a user has.
    pub fn devices_of(&self, app: AppId, user: &str) -> usize {
        self.user(app, user).map_or(0, |user| user.sessions as usize)
    }

    /// The user's read mark; none when no session of the user is here.
    pub fn read_mark(&self, app: AppId, user: &str) -> Option<Offset> {
        self.user(app, user).map(|user| user.read_mark)
    }

    /// Moves the user's read mark up to `mark` (read from the store, or what a session has settled); true: it moved.
    pub fn raise_read_mark(&mut self, app: AppId, name: &str, mark: Offset) -> bool {
        let Self { hash, sessions, users, .. } = self;
        let found = users.find_mut(hash.of(&(app, name)), |user| {
            let first = &sessions[user.first as usize];
            first.app() == app && first.user() == name
        });
        let Some(user) = found else { return false };
        let moves = user.read_mark < mark;
        user.read_mark = user.read_mark.max(mark);
        moves
    }

    /// Appends what the session has to write lazily, and its user's read mark if its filters cover the inbox and the
    /// mark moved: it outlives the user's sessions ([`super::core::record::read_mark_key`]).
    pub fn record_lazy(&mut self, id: SessionId, shard_seq: Seq, now: Now, records: &mut Vec<RecordChange>) {
        let Some(session) = self.get_mut(id) else { return };
        session.record_lazy(shard_seq, now, records);
        records.extend(self.read_mark_moved(id));
    }

    /// The record of the user's read mark if the session, whose filters cover the inbox, has moved it.
    pub fn read_mark_moved(&mut self, id: SessionId) -> Option<RecordChange> {
        let session = self.get(id).filter(|session| session.covers_inbox())?;
        let (app, user, (epoch, mark)) = (session.app(), session.user().to_owned(), session.inbox_settled());
        let moved = self.raise_read_mark(app, &user, mark);
        moved.then(|| super::core::record::read_mark(app, &user, epoch, mark))
    }

    /// Makes every session anew from its own frozen bytes, in its place.
    pub fn freeze_and_thaw(&mut self) {
        let mut bytes = Vec::new();
        for (_, session) in &mut self.sessions {
            bytes.clear();
            session.freeze(&mut bytes);
            let mut thawed = Session::thaw(&bytes, session.connection()).expect("what was frozen just now thaws");
            (thawed.next, thawed.previous, thawed.generation) = (session.next, session.previous, session.generation);
            *session = thawed;
        }
    }

    /// Rebuilds sessions from records, which must come in key order, page after page, without the same record twice;
    /// an empty page ends it. Each one's filters are then to be registered again ([`Session::relocate_all`]). An error
    /// names what is wrong with the record at that index of the page.
    pub fn thaw_records(&mut self, page: &[Record], now: Now) -> Result<(), Unreadable> {
        for (index, (key, value)) in page.iter().enumerate() {
            let done = self.rebuild.push(key, value, now).ok_or(Unreadable { index })?;
            self.take_rebuilt(done).map_err(|Full| Unreadable { index })?;
        }
        if page.is_empty() {
            let done = self.rebuild.finish();
            self.take_rebuilt(done).map_err(|Full| Unreadable { index: 0 })?;
        }
        Ok(())
    }

    fn take_rebuilt(&mut self, session: Option<Session>) -> Result<(), Full> {
        let Some(session) = session else { return Ok(()) };
        let read_mark = session.covers_inbox().then(|| session.inbox_settled().1);
        let (app, user) = (session.app(), session.user().to_owned());
        self.insert(session)?;
        if let Some(mark) = read_mark {
            self.raise_read_mark(app, &user, mark);
        }
        Ok(())
    }
}

/// A record that is damaged or of an unknown version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// In the page.
    pub index: usize,
}

#[cfg(test)]
mod tests {
    use super::super::Identity;
    use super::*;

    fn session(user: &str, device: usize) -> Session {
        Session::new(&Identity { app: AppId(1), user: user.into(), device: device.to_string().into() })
    }

    #[test]
    fn a_user_has_at_most_so_many_devices() {
        let mut directory = Directory::new(KeyedHash::new(1), 8);
        for device in 0..DEVICES_PER_USER_MAX {
            directory.insert(session("alice", device)).expect("room is left");
        }
        assert_eq!(directory.insert(session("alice", DEVICES_PER_USER_MAX)), Err(Full));
        let bob = directory.insert(session("bob", 0)).expect("another user's");
        let gone = directory.find(AppId(1), "alice", "7").expect("it was inserted");
        assert!(directory.remove(gone).is_some() && directory.get(gone).is_none() && directory.remove(gone).is_none());
        assert_eq!(directory.sessions_of(AppId(1), "alice").count(), DEVICES_PER_USER_MAX - 1);
        assert!(directory.sessions_of(AppId(1), "alice").all(|id| id != bob));
        let again = directory.insert(session("alice", 7)).expect("its place is free");
        assert!(again.index == gone.index && again != gone, "the index is used again, the generation is not");
    }

    #[test]
    fn the_last_session_takes_its_user_along() {
        let mut directory = Directory::new(KeyedHash::new(1), 8);
        let ids: Vec<_> = (0..3).map(|at| directory.insert(session("alice", at)).expect("room")).collect();
        assert!(directory.raise_read_mark(AppId(1), "alice", Offset(4)));
        assert!(!directory.raise_read_mark(AppId(1), "alice", Offset(3)));
        for id in [ids[1], ids[2], ids[0]] {
            assert_eq!(directory.read_mark(AppId(1), "alice"), Some(Offset(4)));
            directory.remove(id);
        }
        assert_eq!((directory.users(), directory.read_mark(AppId(1), "alice")), (0, None));
    }
}
