//! Finds sessions by user and device. One shard's; every operation is O(1).

use super::core::Session;
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, Offset, Seq, SessionId};
use crate::store::RecordChange;

/// All sessions of a shard.
#[derive(Debug)]
pub struct Directory {
    hash: KeyedHash,
}

/// The user has `DEVICES_PER_USER_MAX` sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Sessions of one user.
#[derive(Clone, Debug)]
pub struct SessionsOf<'d> {
    directory: &'d Directory,
}

impl Iterator for SessionsOf<'_> {
    type Item = SessionId;
    fn next(&mut self) -> Option<SessionId> {
        let _ = &self.directory.hash;
        unimplemented!()
    }
}

impl Directory {
    /// Room for `sessions_max` without growing by copying; untouched pages cost nothing.
    pub fn new(hash: KeyedHash, sessions_max: usize) -> Self {
        let _ = sessions_max;
        Self { hash }
    }
    /// Sessions, connected or away.
    pub fn sessions(&self) -> usize {
        unimplemented!()
    }
    /// Users that have one.
    pub fn users(&self) -> usize {
        unimplemented!()
    }
    /// The session of a device.
    pub fn find(&self, app: AppId, user: &str, device: &str) -> Option<SessionId> {
        let _ = (app, user, device);
        unimplemented!()
    }
    /// A user's sessions.
    pub fn sessions_of(&self, app: AppId, user: &str) -> SessionsOf<'_> {
        let _ = (app, user);
        SessionsOf { directory: self }
    }
    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        core::iter::empty()
    }
    /// None when it is gone.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        let _ = id;
        unimplemented!()
    }
    /// None when it is gone.
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let _ = id;
        unimplemented!()
    }
    /// Takes a session in, whose device must not have one.
    pub fn insert(&mut self, session: Session) -> Result<SessionId, Full> {
        let _ = session;
        unimplemented!()
    }
    /// Takes it out; its id is stale from now on.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        let _ = id;
        unimplemented!()
    }
    /// The user's read mark; none when no session of the user is here.
    pub fn read_mark(&self, app: AppId, user: &str) -> Option<Offset> {
        let _ = (app, user);
        unimplemented!()
    }
    /// Appends what the session (and its user's read mark) have to write lazily.
    pub fn record_lazy(&mut self, id: SessionId, shard_seq: Seq, now: Now, records: &mut Vec<RecordChange>) {
        let _ = (id, shard_seq, now, records);
        unimplemented!()
    }
    /// Rebuilds sessions from records, which must come in key order, a page at a time; call with an empty page at the
    /// end. Then subscribe each one's filters again and tell their places with [`Session::relocate_text`].
    pub fn thaw_records(&mut self, page: &[(Box<[u8]>, Box<[u8]>)], now: Now) -> Result<(), &'static str> {
        let _ = (page, now);
        unimplemented!()
    }
}
