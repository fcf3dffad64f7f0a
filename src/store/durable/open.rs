//! Opening a data directory: what is there, whether it is all that was committed, and what to do when it is not.

use super::chain::Chain;
use super::directory::{Directory, Found, Mark};
use super::draft::Draft;
use super::heads::Heads;
use super::layout::{self, FORGOTTEN, GROUP, Head, INBOX_ENTRY, STREAM, State, TOPIC_OFFSET};
use super::{DurableStore, unreadable};
use crate::base::hash::KeyedHash;
use crate::base::ids::Offset;
use crate::limits::{
    STORE_CACHE_BYTES, STORE_FILES_MAX, STORE_FORMAT, STORE_JOURNAL_BYTES_MAX, STORE_MEMORY_TABLE_BYTES, STORE_WORKERS,
};
use crate::store::StoreFault;
use crate::store::memory::Retentions;
use crate::store::shares::{Shares, app_of};
use core::fmt;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Why a data directory is not opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process holds it.
    InUse,
    /// It holds something else.
    NotOurs,
    /// A later version has made it, in this format.
    Format(u32),
    /// It lacks what was committed.
    Lost(Box<str>),
    /// The database does not open.
    Damaged(Box<str>),
    /// The system says no: to what, and why.
    Io(&'static str, io::Error),
}

impl OpenError {
    /// Whether another directory would do: the operator's choice, and no failure of the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::InUse | Self::NotOurs | Self::Format(_))
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("another process uses this directory"),
            Self::NotOurs => f.write_str("this directory holds something else than a kittiwake store"),
            Self::Format(found) => {
                write!(f, "a later version has made this store: format {found}, here {STORE_FORMAT} is known")
            }
            Self::Lost(what) => write!(f, "{what}; --accept-loss goes on with what is left"),
            Self::Damaged(what) => write!(f, "the store is damaged: {what}"),
            Self::Io(what, error) => write!(f, "cannot {what}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// What a store is opened with.
pub struct Opening<'path> {
    /// The directory; made where there is none.
    pub path: &'path Path,
    /// What streams keep.
    pub retentions: Retentions,
    /// Guards tables in memory; nothing that is stored depends on it.
    pub hash: KeyedHash,
    /// Random bits: the life of a new store, and what epochs change by after a loss. Never the same for two calls.
    pub seed: u64,
    /// Go on with what is left where something is lost. All epochs change, so that nobody takes what comes for what
    /// there was.
    pub accept_loss: bool,
}

impl DurableStore {
    /// Opens the directory and everything in it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(opening: Opening<'_>) -> Result<Self, OpenError> {
        let Opening { path, retentions, hash, seed, accept_loss } = opening;
        let (directory, found) = Directory::open(path)?;
        let (database, space) = open_database(&directory.database())?;
        let damaged = |fault: StoreFault| OpenError::Damaged(fault.reason);
        let Numbers { state, chain, hole } = read_chain(&space).map_err(damaged)?;
        let forgotten = count_forgotten(&space).map_err(damaged)?;
        let loss = loss(&found, state, hole);
        let mut shares = Shares::new(&retentions.quotas);
        count_shares(&space, &mut shares).map_err(damaged)?;
        let mut store = Self {
            database,
            space,
            directory,
            retentions,
            state: state.unwrap_or_default(),
            shares,
            draft: Draft::new(hash.clone()),
            chain,
            heads: Heads::new(hash).into(),
            shared: Default::default(),
            topics_gone: Default::default(),
            forgotten,
            oldest_key_ms: None,
            round: Default::default(),
            mark_synced_ms: 0,
            trimmed: 0,
            keys_dropped: 0,
            scratch: Vec::new(),
        };
        if let Some(what) = loss {
            if !accept_loss {
                return Err(OpenError::Lost(what));
            }
            store.go_on_without(&found, seed).map_err(damaged)?;
        } else if state.is_none() {
            store.state.life = seed.max(1);
            store.begin().map_err(damaged)?;
        }
        Ok(store)
    }

    /// Nothing that was told before counts any more: positions of before compare with no epoch of now, and commit
    /// numbers go on behind any that was given.
    fn go_on_without(&mut self, found: &Found, seed: u64) -> Result<(), StoreFault> {
        let mark = match found {
            Found::Marked(mark) => *mark,
            Found::Nothing | Found::Unmarked => Mark::default(),
        };
        self.state.life = seed.max(1);
        self.state.epoch_shift ^= seed.rotate_left(32).max(1);
        self.state.group = self.state.group.max(mark.group);
        self.state.seq = self.state.seq.max(mark.seq);
        // The chain begins anew behind the hole.
        for found in self.space.prefix([GROUP]) {
            let key = found.key().map_err(super::fault("read the store"))?;
            self.draft.remove(&key);
        }
        self.chain = Chain::new(self.state.group + 1);
        self.begin()
    }

    /// The first commit of a life.
    fn begin(&mut self) -> Result<(), StoreFault> {
        self.commit(PersistMode::SyncAll)?;
        self.chain.extend(&self.state);
        let State { life, group, seq, .. } = self.state;
        let mark = self.directory.set_mark(Mark { life, group, seq }).and_then(|()| self.directory.sync_mark());
        mark.map_err(|error| StoreFault { reason: format!("write the mark: {error}").into() })
    }
}

/// What is lost, if anything is.
fn loss(found: &Found, state: Option<State>, hole: Option<(u64, u64)>) -> Option<Box<str>> {
    let last = state.unwrap_or_default();
    if let Some((before, behind)) = hole {
        return Some(format!("the journal is damaged: commits {} to {} are lost", before + 1, behind - 1).into());
    }
    match found {
        Found::Nothing => None,
        Found::Unmarked if state.is_none() => None,
        Found::Unmarked => Some("the mark of what was committed is missing or damaged".into()),
        Found::Marked(mark) if mark.group > last.group => Some(
            format!(
                "commits are lost: the store ends at commit {} (seq {}), and commit {} (seq {}) was acknowledged",
                last.group, last.seq, mark.group, mark.seq
            )
            .into(),
        ),
        Found::Marked(mark) if mark.group > 0 && mark.life != last.life => {
            Some("the mark belongs to another store than the database".into())
        }
        Found::Marked(_) => None,
    }
}

/// fjall says most of what it finds wrong, but some of it in a panic.
fn open_database(path: &Path) -> Result<(Database, Keyspace), OpenError> {
    let open = || -> Result<(Database, Keyspace), fjall::Error> {
        let database = Database::builder(path)
            .worker_threads(STORE_WORKERS)
            .cache_size(STORE_CACHE_BYTES)
            .max_cached_files(Some(STORE_FILES_MAX))
            .max_journaling_size(STORE_JOURNAL_BYTES_MAX)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(STORE_MEMORY_TABLE_BYTES);
        let space = database.keyspace("kittiwake", options)?;
        Ok((database, space))
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fjall::Error::Locked)) => Err(OpenError::InUse),
        Ok(Err(fjall::Error::Io(error))) => Err(OpenError::Io("open the database", error)),
        Ok(Err(error)) => Err(OpenError::Damaged(error.to_string().into())),
        Err(_) => Err(OpenError::Damaged("the database's files contradict each other".into())),
    }
}

/// What the chain of commits says.
struct Numbers {
    /// Of the last commit; none in a new store.
    state: Option<State>,
    chain: Chain,
    /// The numbers around the first hole.
    hole: Option<(u64, u64)>,
}

fn read_chain(space: &Keyspace) -> Result<Numbers, StoreFault> {
    let mut numbers = Numbers { state: None, chain: Chain::new(1), hole: None };
    for found in space.prefix([GROUP]) {
        let (key, value) = found.into_inner().map_err(super::fault("read the store"))?;
        let group = layout::last_number(&key).ok_or_else(|| unreadable("a commit's number"))?;
        let state = State::parse(group, &value).ok_or_else(|| unreadable("a commit's state"))?;
        if let Some(before) = numbers.state.filter(|before| before.group + 1 != group) {
            numbers.hole = numbers.hole.or(Some((before.group, group)));
        }
        numbers.chain.extend(&state);
        numbers.state = Some(state);
    }
    Ok(numbers)
}

/// What each app has stored, where that is asked for: one look at the index of every entry. An entry that cannot be read
/// counts as nothing here, and is an error for whoever reads it.
fn count_shares(space: &Keyspace, shares: &mut Shares) -> Result<(), StoreFault> {
    if !shares.counts() {
        return Ok(());
    }
    for found in space.prefix([STREAM]) {
        let (key, value) = found.into_inner().map_err(super::fault("read the store"))?;
        let head = Head::parse(&value).ok_or_else(|| unreadable("a stream"))?;
        let stream = layout::parse_stream_key(&key).ok_or_else(|| unreadable("a stream's name"))?;
        if app_of(&stream).is_none() || head.len() == 0 {
            continue;
        }
        let is_inbox = stream.topics_of().is_none();
        let kind = if is_inbox { INBOX_ENTRY } else { TOPIC_OFFSET };
        let (first, last) = (Offset(head.first), Offset(head.last));
        let mut bytes = 0;
        for found in space.range(layout::placed(kind, head.id, first)..=layout::placed(kind, head.id, last)) {
            let (_, value) = found.into_inner().map_err(super::fault("read the store"))?;
            let front = if is_inbox { layout::parse_inbox_front(&value) } else { layout::parse_topic_offset(&value) };
            bytes += front.map_or(0, |front| front.payload_bytes);
        }
        shares.add(&stream, bytes);
    }
    Ok(())
}

fn count_forgotten(space: &Keyspace) -> Result<BTreeMap<crate::base::ids::AppId, usize>, StoreFault> {
    let mut forgotten = BTreeMap::new();
    for found in space.prefix([FORGOTTEN]) {
        let key = found.key().map_err(super::fault("read the store"))?;
        *forgotten.entry(layout::app_of(&key).ok_or_else(|| unreadable("a gap"))?).or_default() += 1;
    }
    Ok(forgotten)
}
