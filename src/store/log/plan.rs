//! A group commit before it is written: idempotency, offsets and seq are decided here, against the store's state and
//! what the group itself has planned so far.

use super::Outcome;
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, Epoch, Offset, Seq};
use crate::base::message::{Entry, StreamKey};
use crate::store::shares::app_of;
use crate::store::{
    Answer, Group, IdempotencyKey, KeyOutcome, KnownKey, NewEntry, Position, RecordChange, Store, StoreError,
    StoreFault,
};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as TableEntry;
use smallvec::SmallVec;
use std::sync::Arc;

/// Epochs: the SplitMix64 sequence of a seed (Steele, Lea and Flood, 2014), which visits every number once before it
/// repeats; 0 is left out because it means "no such stream".
pub(super) struct Epochs(u64);

impl Epochs {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> Epoch {
        loop {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            if mixed != 0 {
                return Epoch(mixed);
            }
        }
    }
}

/// Where a stream will stand when the group is written.
struct Ahead {
    stream: StreamKey,
    epoch: Epoch,
    last: Offset,
}

pub(super) struct Plan {
    epochs: Epochs,
    hash: KeyedHash,
    seq: Seq,
    bytes: u64,
    entries: Vec<Entry>,
    records: Vec<RecordChange>,
    keys: Vec<KeyOutcome>,
    /// Index into `keys`.
    by_key: HashTable<usize>,
    ahead: HashTable<Ahead>,
    /// Payload bytes of the group, of apps with a quota of them.
    shares: Vec<(AppId, u64)>,
}

impl Plan {
    pub(super) fn new(epochs: Epochs, hash: KeyedHash) -> Self {
        Self {
            epochs,
            hash,
            seq: Seq(0),
            bytes: 0,
            entries: Vec::new(),
            records: Vec::new(),
            keys: Vec::new(),
            by_key: HashTable::new(),
            ahead: HashTable::new(),
            shares: Vec::new(),
        }
    }

    /// Starts a group after the log's last commit number.
    pub(super) fn begin(&mut self, seq: Seq) {
        assert!(self.is_empty(), "the last group was written or cleared");
        self.seq = seq;
    }

    /// Plans one append. An error leaves the plan useless; the log is poisoned then.
    pub(super) fn append<S: Store>(
        &mut self,
        store: &S,
        key: Option<IdempotencyKey>,
        entries: Vec<NewEntry>,
        records: Vec<RecordChange>,
        now: Now,
    ) -> Result<Outcome, StoreFault> {
        if let Some(key) = &key
            && let Some(outcome) = self.known(store, key, now)?
        {
            return Ok(outcome);
        }
        if !self.has_room(store, &entries) {
            return Ok(Outcome::Settled(Err(StoreError::OverQuota)));
        }
        let positions = self.place(store, entries)?;
        for change in &records {
            self.bytes += (change.key.len() + change.value.as_ref().map_or(0, |value| value.len())) as u64;
        }
        self.records.extend(records);
        if let Some(key) = key {
            self.remember(KeyOutcome { key, positions: positions.clone() });
        }
        Ok(Outcome::WithGroup(Ok(Answer::Appended { positions, duplicate: None, seq: self.seq })))
    }

    /// What a key that was seen before answers. One seen in this group holds only if the group is written.
    fn known<S: Store>(&self, store: &S, key: &IdempotencyKey, now: Now) -> Result<Option<Outcome>, StoreFault> {
        let answer = |first: KnownKey, seq: Seq| {
            if first.body_hash != key.body_hash {
                return Err(StoreError::KeyConflict);
            }
            Ok(Answer::Appended { positions: first.positions, duplicate: Some(first.id), seq })
        };
        let hash = self.hash.of(&(key.app, &*key.key));
        if let Some(index) = self.by_key.find(hash, |index| is_same(&self.keys[*index].key, key)) {
            let KeyOutcome { key: first, positions } = &self.keys[*index];
            let first = KnownKey { body_hash: first.body_hash, id: first.id, positions: positions.clone() };
            return Ok(Some(Outcome::WithGroup(answer(first, self.seq))));
        }
        let Some(known) = store.key(key.app, &key.key, now)? else { return Ok(None) };
        // The store's own number, not the group's: this answer must hold also when the group fails.
        let seq = store.last_seq()?;
        Ok(Some(Outcome::Settled(answer(known, seq))))
    }

    /// Whether all entries fit into the quotas of their apps, behind what the group holds of those already. What the group's
    /// own retention will remove counts still: an app at its quota waits for that.
    fn has_room<S: Store>(&mut self, store: &S, entries: &[NewEntry]) -> bool {
        // Mostly of one app, and mostly without a quota.
        let mut more: SmallVec<[(AppId, u64, u64); 2]> = SmallVec::new();
        for NewEntry { stream, message } in entries {
            let Some(app) = app_of(stream) else { continue };
            let bytes = message.payload.len() as u64;
            match more.iter_mut().find(|(other, ..)| *other == app) {
                Some((.., sum)) => *sum += bytes,
                None => more.push((app, store.room(app).unwrap_or(u64::MAX), bytes)),
            }
        }
        let planned =
            |shares: &[(AppId, u64)], app| shares.iter().find(|(other, _)| *other == app).map_or(0, |share| share.1);
        if more.iter().any(|&(app, room, sum)| planned(&self.shares, app).saturating_add(sum) > room) {
            return false;
        }
        for (app, _, sum) in more.into_iter().filter(|(_, room, _)| *room != u64::MAX) {
            match self.shares.iter_mut().find(|(other, _)| *other == app) {
                Some((_, share)) => *share += sum,
                None => self.shares.push((app, sum)),
            }
        }
        true
    }

    fn place<S: Store>(&mut self, store: &S, entries: Vec<NewEntry>) -> Result<Arc<[Position]>, StoreFault> {
        let start = self.entries.len();
        self.entries.reserve(entries.len());
        for NewEntry { stream, message } in entries {
            let hash = self.hash.of(&stream);
            let found = self.ahead.entry(hash, |ahead| ahead.stream == stream, |ahead| self.hash.of(&ahead.stream));
            let ahead = match found {
                TableEntry::Occupied(ahead) => ahead.into_mut(),
                TableEntry::Vacant(vacant) => {
                    let head = store.head(&stream)?;
                    let epoch = if head.epoch == Epoch(0) { self.epochs.next() } else { head.epoch };
                    vacant.insert(Ahead { stream: stream.clone(), epoch, last: head.last }).into_mut()
                }
            };
            ahead.last.0 += 1;
            self.seq.0 += 1;
            self.bytes += message.payload.len() as u64;
            self.entries.push(Entry { stream, epoch: ahead.epoch, offset: ahead.last, seq: self.seq, message });
        }
        let placed = self.entries[start..].iter();
        Ok(placed.map(|entry| Position { epoch: entry.epoch, offset: entry.offset, seq: entry.seq }).collect())
    }

    fn remember(&mut self, outcome: KeyOutcome) {
        let hash = self.hash.of(&(outcome.key.app, &*outcome.key.key));
        let Self { keys, by_key, hash: keyed, .. } = self;
        by_key.insert_unique(hash, keys.len(), |index| {
            let key = &keys[*index].key;
            keyed.of(&(key.app, &*key.key))
        });
        keys.push(outcome);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.records.is_empty() && self.keys.is_empty()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Payload and record bytes of the group.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn group(&self) -> Group<'_> {
        Group { entries: &self.entries, records: &self.records, keys: &self.keys, seq: self.seq }
    }

    pub(super) fn take_entries(&mut self) -> Vec<Entry> {
        core::mem::take(&mut self.entries)
    }

    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.entries.clear();
        self.records.clear();
        self.keys.clear();
        self.by_key.clear();
        self.ahead.clear();
        self.shares.clear();
    }
}

fn is_same(one: &IdempotencyKey, other: &IdempotencyKey) -> bool {
    one.app == other.app && one.key == other.key
}
