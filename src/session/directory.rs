//! Finds sessions by user and device. One shard's; every operation is O(1).

use super::Effect;
use super::core::Session;
use super::core::record::{self, Rebuild, Taken};
use super::{Effects, Identity};
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, Epoch, Offset, Seq, SessionId};
use crate::base::log::RecordChange;
use crate::base::parts::Parts;
use crate::base::pieces::Pieces;
use slab::Slab;

const NONE: u32 = u32::MAX;
/// The first of a user's sessions has no session before it. It has this bit in that one's place, and the index of the user's
/// details, or `NONE`, which has the bit as well. So a user costs the table 4 bytes: its parts double as they grow, and each
/// byte of a place in it is up to 2.3 of each user.
const FIRST: u32 = 1 << 31;

/// A record's key and value.
pub type Record = (Box<[u8]>, Box<[u8]>);

/// All sessions of a shard.
#[derive(Debug)]
pub struct Directory {
    hash: KeyedHash,
    sessions: Slab<Session>,
    sessions_max: usize,
    devices_max: usize,
    /// By (app, user): the index of the user's first session, whose names are the user's.
    users: Parts<u32>,
    /// What there is to say of some users.
    details: Pieces<Details>,
    /// By (app, user, device): the index, of all sessions but each user's first. Most users have one session and cost
    /// nothing here. The names are the sessions' own.
    devices: Parts<u32>,
    next_generation: u32,
    /// Above every index that was ever in use.
    end: u32,
    rebuild: Rebuild,
}

/// Of a user who has several sessions, or a read mark that its only one does not say itself.
#[derive(Debug)]
struct Details {
    sessions: u32,
    /// Offsets of different epochs do not compare.
    read_mark: (Epoch, Offset),
}

impl Session {
    fn is_first(&self) -> bool {
        self.previous & FIRST != 0
    }

    fn is_of(&self, app: AppId, user: &str) -> bool {
        self.app() == app && self.name.as_bytes()[..usize::from(self.user_bytes)] == *user.as_bytes()
    }

    /// What there is to say of the user whose first it is; none: one session, and no read mark, or the one that the session
    /// says itself.
    fn details<'d>(&self, all: &'d Pieces<Details>) -> Option<&'d Details> {
        assert!(self.is_first(), "a user's first session leads to its details");
        if self.previous == NONE { None } else { all.get(self.previous & !FIRST) }
    }

    fn details_mut<'d>(&mut self, all: &'d mut Pieces<Details>) -> &'d mut Details {
        assert!(self.is_first(), "a user's first session leads to its details");
        if self.previous == NONE {
            // A user with details has a session, so the index is below `FIRST`.
            self.previous = FIRST | all.insert(Details { sessions: 1, read_mark: Default::default() });
        }
        &mut all[self.previous & !FIRST]
    }

    fn forget_details(&mut self, all: &mut Pieces<Details>) {
        assert!(self.is_first(), "a user's first session leads to its details");
        let details = core::mem::replace(&mut self.previous, NONE);
        if details != NONE {
            all.remove(details & !FIRST);
        }
    }
}

fn hash_of(hash: &KeyedHash, session: &Session) -> u64 {
    hash.of(&(session.app(), session.user(), session.device()))
}

/// The user has as many sessions as may be, or the shard all it has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Why a device that has no session cannot have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum NoRoom {
    /// Its user has as many as one may have.
    OfUser,
    /// The shard has as many as it has room for.
    OfShard,
}

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
    /// Room for `sessions_max`, and so no index above, without growing by copying; untouched pages cost nothing. A user
    /// may have `devices_max` of them.
    ///
    /// # Panics
    /// `sessions_max` is 2^31 or more: that is more than a machine has memory for.
    pub fn new(hash: KeyedHash, sessions_max: usize, devices_max: usize) -> Self {
        assert!(sessions_max < FIRST as usize, "sessions are numbered with 31 bits");
        Self {
            hash,
            sessions: Slab::with_capacity(sessions_max),
            sessions_max,
            devices_max,
            users: Parts::new(),
            details: Pieces::new(),
            devices: Parts::new(),
            next_generation: 0,
            end: 0,
            rebuild: Rebuild::default(),
        }
    }

    /// Sessions, connected or away.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no room for another session.
    pub fn is_full(&self) -> bool {
        self.sessions.len() >= self.sessions_max
    }

    /// Users that have one.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// The session of a device.
    pub fn find(&self, app: AppId, user: &str, device: &str) -> Option<SessionId> {
        let first = self.user(app, user)?;
        let session = &self.sessions[first as usize];
        let index = match session.next {
            _ if session.device() == device => first,
            NONE => return None,
            _ => {
                let is_it = |&index: &u32| {
                    let session = &self.sessions[index as usize];
                    session.app() == app && session.user() == user && session.device() == device
                };
                *self.devices.find(self.hash.of(&(app, user, device)), is_it)?
            }
        };
        Some(SessionId { index, generation: self.sessions[index as usize].generation })
    }

    /// A user's sessions, the newest first.
    pub fn sessions_of(&self, app: AppId, user: &str) -> SessionsOf<'_> {
        SessionsOf { directory: self, next: self.user(app, user).unwrap_or(NONE) }
    }

    /// All sessions of the user whose session `id` is.
    pub fn sessions_beside(&self, id: SessionId) -> SessionsOf<'_> {
        SessionsOf { directory: self, next: self.first_beside(id).unwrap_or(NONE) }
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

    /// All indices are below this: for those who look at some sessions at a time.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// None when it is gone.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.index as usize).filter(|session| session.generation == id.generation)
    }

    /// None when it is gone.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.index as usize).filter(|session| session.generation == id.generation)
    }

    /// Takes a new session in, whose device must not have one. Its generation also says in its records which session
    /// of the device they are of.
    pub fn insert(&mut self, mut session: Session) -> Result<SessionId, Full> {
        if self.devices_of(session.app(), session.user()) >= self.devices_max {
            return Err(Full);
        }
        let generation = self.next_generation;
        session.generation = generation;
        let id = self.place(session)?;
        self.next_generation = generation.wrapping_add(1);
        Ok(id)
    }

    /// Takes a session in as the one of its generation.
    fn place(&mut self, mut session: Session) -> Result<SessionId, Full> {
        if self.is_full() {
            return Err(Full);
        }
        let Self { hash, sessions, users, details, devices, end, .. } = self;
        let user_hash = hash.of(&(session.app(), session.user()));
        let known = users.find_mut(user_hash, |&first| sessions[first as usize].is_of(session.app(), session.user()));
        let generation = session.generation;
        session.previous = NONE;
        session.next = known.as_deref().copied().unwrap_or(NONE);
        let index = u32::try_from(sessions.insert(session)).expect("a shard holds fewer than 2^31 sessions");
        *end = (*end).max(index + 1);
        match known {
            Some(first) => {
                let second = core::mem::replace(first, index);
                sessions[index as usize].previous = core::mem::replace(&mut sessions[second as usize].previous, index);
                sessions[index as usize].details_mut(details).sessions += 1;
                let rehash = |&index: &u32| hash_of(hash, &sessions[index as usize]);
                devices.insert_unique(rehash(&second), second, rehash);
            }
            None => {
                let rehash = |&first: &u32| {
                    let first = &sessions[first as usize];
                    hash.of(&(first.app(), first.user()))
                };
                users.insert_unique(user_hash, index, rehash);
            }
        }
        Ok(SessionId { index, generation })
    }

    /// The device's session: its own one (true), or a new one. `afresh`: its own one, which must have no connection any
    /// more, goes first; the last are the changes that remove its records.
    pub(in crate::session) fn admit(
        &mut self,
        identity: &Identity,
        afresh: bool,
        now: Now,
        effects: &mut Effects,
    ) -> Result<(SessionId, bool, Vec<RecordChange>), NoRoom> {
        let Identity { app, user, device } = identity;
        let mut removed = Vec::new();
        match self.find(*app, user, device) {
            Some(id) if !afresh => return Ok((id, true, removed)),
            Some(id) => {
                let served = self.get(id).and_then(Session::served);
                removed.extend(served.and_then(|served| self.read_mark_moved(id, served)));
                let mut old = self.remove(id).expect("it was just found");
                old.dismantle(now, effects);
                for effect in &mut effects.list {
                    if let Effect::LeaveShare { member, .. } | Effect::Orphan { member, .. } = effect {
                        // The effects are carried out as the new session's.
                        *member = Some(id);
                    }
                }
                record::removals(&old, &mut removed);
            }
            None if self.devices_of(*app, user) >= self.devices_max() => return Err(NoRoom::OfUser),
            None if self.is_full() => return Err(NoRoom::OfShard),
            None => {}
        }
        let made = self.insert(Session::new(identity));
        Ok((made.expect("the limit was asked for, and a replaced session left its place"), false, removed))
    }

    /// Takes it out; its id is stale from now on.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        self.get(id)?;
        let Self { hash, sessions, users, details, devices, .. } = self;
        let session = &sessions[id.index as usize];
        let (next, previous, is_first) = (session.next, session.previous, session.is_first());
        let user_hash = hash.of(&(session.app(), session.user()));
        let is_it = |&first: &u32| sessions[first as usize].is_of(session.app(), session.user());
        let entry = users.find_mut(user_hash, is_it).expect("every session's user is in the table");
        let first = *entry;
        // Of the second one, if the first leaves: a user's first is not among the devices.
        let device = if is_first { next } else { id.index };
        if device != NONE {
            let found = devices.remove(hash_of(hash, &sessions[device as usize]), |&index| index == device);
            assert!(found.is_some(), "all but the first are in the table");
        }
        match (is_first, next) {
            (true, NONE) => {
                sessions[first as usize].forget_details(details);
                users.remove(user_hash, |&index| index == first);
            }
            _ => {
                sessions[first as usize].details_mut(details).sessions -= 1;
                if is_first {
                    *entry = next;
                }
            }
        }
        if next != NONE {
            // The next first one takes over what leads to the details.
            sessions[next as usize].previous = previous;
        }
        if !is_first {
            sessions[previous as usize].next = next;
        }
        Some(sessions.remove(id.index as usize))
    }

    /// The index of the user's first session.
    fn user(&self, app: AppId, name: &str) -> Option<u32> {
        self.users.find(self.hash.of(&(app, name)), |&first| self.sessions[first as usize].is_of(app, name)).copied()
    }

    /// The index of the first session of the user whose session `id` is. Mostly that is the one, and nothing is looked up.
    fn first_beside(&self, id: SessionId) -> Option<u32> {
        let session = self.get(id)?;
        if session.is_first() { Some(id.index) } else { self.user(session.app(), session.user()) }
    }

    /// The session behind `id` among its user's: as [`Directory::sessions_of`], for those who change it on the way.
    pub fn after(&self, id: SessionId) -> Option<SessionId> {
        SessionsOf { directory: self, next: self.get(id)?.next }.next()
    }

    /// How many sessions a user may have.
    pub fn devices_max(&self) -> usize {
        self.devices_max
    }

    /// How many sessions a user has.
    pub fn devices_of(&self, app: AppId, user: &str) -> usize {
        let Some(first) = self.user(app, user) else { return 0 };
        self.sessions[first as usize].details(&self.details).map_or(1, |details| details.sessions as usize)
    }

    /// The user's read mark as far as it is known here; none when no session of the user is here.
    pub fn read_mark(&self, app: AppId, user: &str) -> Option<(Epoch, Offset)> {
        Some(self.read_mark_at(self.user(app, user)?))
    }

    /// Takes in the read mark of a session's user as the store has it, unless sessions here have moved it since.
    pub fn learn_read_mark(&mut self, id: SessionId, mark: (Epoch, Offset)) {
        let Some(first) = self.first_beside(id) else { return };
        if self.read_mark_at(first).0 == Epoch(0) {
            self.raise_read_mark(first, mark);
        }
    }

    /// As the user's first session leads to it.
    fn read_mark_at(&self, first: u32) -> (Epoch, Offset) {
        self.sessions[first as usize].details(&self.details).map(|details| details.read_mark).unwrap_or_default()
    }

    /// Moves the read mark of the user whose first session it is up to `mark`, which a session here has settled; true: it
    /// moved. Within an epoch it only rises; a mark of another epoch, which began later, takes its place.
    fn raise_read_mark(&mut self, first: u32, mark: (Epoch, Offset)) -> bool {
        let (epoch, offset) = self.read_mark_at(first);
        let known = if mark.0 == epoch { offset } else { Offset(0) };
        if mark.1 <= known {
            return false;
        }
        self.sessions[first as usize].details_mut(&mut self.details).read_mark = mark;
        true
    }

    /// Appends what the session has to write lazily, and its user's read mark if its filters cover the inbox and the
    /// mark moved: it outlives the user's sessions ([`super::core::record::read_mark_key`]).
    pub fn record_lazy(&mut self, id: SessionId, shard_seq: Seq, now: Now, records: &mut Vec<RecordChange>) {
        let Some(session) = self.get_mut(id) else { return };
        session.record_lazy(shard_seq, now, records);
        if let Some(served) = session.served() {
            records.extend(self.read_mark_moved(id, served));
            self.leave_mark_to_session(id, served);
        }
    }

    /// The read mark of a user whose only session is away is where that stands, and on record: it needs no place of its own
    /// for as long. Should the session write it once more, it writes the same.
    fn leave_mark_to_session(&mut self, id: SessionId, served: (Epoch, Offset)) {
        let session = &mut self.sessions[id.index as usize];
        if session.connection().is_some() || !session.is_first() {
            return;
        }
        let is_left = |details: &Details| details.sessions == 1 && details.read_mark == served;
        if session.details(&self.details).is_some_and(is_left) {
            session.forget_details(&mut self.details);
        }
    }

    /// The record of the user's read mark if the session moves it: its filters cover the inbox, or did until it ended.
    pub fn read_mark_moved(&mut self, id: SessionId, served: (Epoch, Offset)) -> Option<RecordChange> {
        let first = self.first_beside(id)?;
        let moved = self.raise_read_mark(first, served);
        let session = &self.sessions[first as usize];
        moved.then(|| record::read_mark(session.app(), session.user(), served.0, served.1))
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
    /// an empty page ends it. Each one's filters are then to be registered again ([`Session::relocate_all`]).
    pub fn thaw_records<'r>(&mut self, page: impl IntoIterator<Item = &'r Record>, now: Now) -> Thawed {
        let mut thawed = Thawed::default();
        let mut is_empty = true;
        for (key, value) in page {
            is_empty = false;
            let whole = match self.rebuild.push(key, value, now) {
                Some(Taken::Next { whole, is_readable }) => {
                    thawed.unreadable += u64::from(!is_readable);
                    whole
                }
                Some(Taken::Part) => continue,
                Some(Taken::Orphan) => {
                    thawed.orphans.push(RecordChange { key: key.clone(), value: None });
                    continue;
                }
                None => {
                    thawed.unreadable += 1;
                    continue;
                }
            };
            self.take_rebuilt(whole, &mut thawed);
        }
        if is_empty {
            let whole = core::mem::take(&mut self.rebuild).finish();
            self.take_rebuilt(whole, &mut thawed);
        }
        thawed
    }

    /// A user who has more devices than may be by now keeps them.
    fn take_rebuilt(&mut self, session: Option<Session>, thawed: &mut Thawed) {
        let Some(session) = session else { return };
        if session.generation >= self.next_generation {
            self.next_generation = session.generation.wrapping_add(1);
        }
        thawed.without_room += u64::from(self.place(session) == Err(Full));
    }
}

/// What came of a page of records, besides sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Thawed {
    /// Records that are damaged or of an unknown version, and those of a session whose main record is. They are let be.
    pub unreadable: u64,
    /// Sessions for which there was no room.
    pub without_room: u64,
    /// Removals of what was committed for sessions that were over.
    pub orphans: Vec<RecordChange>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DEVICES_PER_USER_MAX;

    fn session(user: &str, device: usize) -> Session {
        Session::new(&Identity { app: AppId(1), user: user.into(), device: device.to_string().into() })
    }

    #[test]
    fn there_are_at_most_so_many_sessions() {
        let mut directory = Directory::new(KeyedHash::new(1), 2, 1);
        let first = directory.insert(session("alice", 0)).expect("room is left");
        assert!(!directory.is_full());
        directory.insert(session("bob", 0)).expect("room is left");
        assert!(directory.is_full());
        assert_eq!(directory.insert(session("carol", 0)), Err(Full));
        directory.remove(first);
        assert_eq!(directory.insert(session("carol", 0)).map(|id| id.index), Ok(first.index));
    }

    #[test]
    fn a_user_has_at_most_so_many_devices() {
        let mut directory = Directory::new(KeyedHash::new(1), DEVICES_PER_USER_MAX + 2, DEVICES_PER_USER_MAX);
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
        let mut directory = Directory::new(KeyedHash::new(1), 8, 8);
        let ids: Vec<_> = (0..3).map(|at| directory.insert(session("alice", at)).expect("room")).collect();
        let mark = (Epoch(7), Offset(4));
        assert!(
            directory.read_mark_moved(ids[0], mark).is_some(),
            "the oldest finds the newest, which leads to the mark"
        );
        for id in &ids {
            assert_eq!(directory.sessions_beside(*id).collect::<Vec<_>>(), [ids[2], ids[1], ids[0]]);
        }
        for id in [ids[1], ids[2], ids[0]] {
            assert_eq!(directory.read_mark(AppId(1), "alice"), Some(mark));
            directory.remove(id);
        }
        assert_eq!((directory.users(), directory.read_mark(AppId(1), "alice")), (0, None));
    }

    #[test]
    fn a_read_mark_rises_within_an_epoch_and_counts_for_nothing_in_the_next() {
        let mut directory = Directory::new(KeyedHash::new(1), 8, 8);
        let id = directory.insert(session("alice", 0)).expect("room");
        directory.learn_read_mark(id, (Epoch(7), Offset(3)));
        directory.learn_read_mark(id, (Epoch(6), Offset(9)));
        assert_eq!(directory.read_mark(AppId(1), "alice"), Some((Epoch(7), Offset(3))));
        let mut raise = |epoch, offset| directory.read_mark_moved(id, (Epoch(epoch), Offset(offset))).is_some();
        assert!(raise(7, 4));
        assert!(!raise(7, 3) && !raise(7, 4));
        assert!(!raise(8, 0), "nothing has been read of it");
        assert!(raise(8, 1));
        assert!(raise(8, 2));
        assert_eq!(directory.read_mark(AppId(1), "alice"), Some((Epoch(8), Offset(2))));
        directory.remove(id);
        assert!(directory.read_mark_moved(id, (Epoch(8), Offset(3))).is_none(), "it has gone");
    }
}
