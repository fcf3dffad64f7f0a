//! A log in memory that commits at once what it is asked: what the control plane's tests ask in place of the log thread.

use super::{Address, Answer, Batch, Done, Request, RequestToken};
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::ShardId;
use crate::store::{Committed, Log, MemoryStore, NewEntry, Retentions, StoreError};
use core::time::Duration;
use std::sync::Arc;

/// See the module.
pub(crate) struct InMemory {
    log: Log<MemoryStore>,
    now: Now,
}

impl InMemory {
    /// One in which it is always that time.
    pub(crate) fn new(wall_ms: u64) -> Self {
        Self::with(wall_ms, Retentions::default())
    }

    /// One that keeps so many entries for the backends of an app.
    pub(crate) fn keeping(wall_ms: u64, entries: usize) -> Self {
        let mut retentions = Retentions::default();
        retentions.upstream.entries = entries;
        retentions.upstream.age = Duration::from_secs(60);
        Self::with(wall_ms, retentions)
    }

    fn with(wall_ms: u64, retentions: Retentions) -> Self {
        let log = Log::open(MemoryStore::new(retentions, KeyedHash::new(1)), 1).expect("memory opens");
        Self { log, now: Now { monotonic_ms: 0, wall_ms } }
    }

    /// Answers a request of the control plane.
    pub(crate) fn ask(&mut self, request: Request, token: RequestToken) -> Result<Done, StoreError> {
        self.log.submit(Address::Control, token, request).map_err(|(_, error)| error)?;
        let Committed { dones, .. } = self.log.commit(self.now);
        Ok(dones.into_iter().map(|(_, done)| done).next().expect("it was asked"))
    }

    /// Takes entries in, as from a shard.
    pub(crate) fn append(&mut self, entries: Vec<NewEntry>) -> Arc<Batch> {
        let append = Request::Append { key: None, entries, records: Vec::new() };
        self.log.submit(Address::Shard(ShardId(0)), RequestToken(0), append).expect("there is room");
        let Committed { batch, dones } = self.log.commit(self.now);
        assert!(matches!(dones[0].1.result, Ok(Answer::Appended { .. })));
        batch.expect("something was appended")
    }
}
