//! The keyed hash that decides homes and indexes tables: fast, and seeded per process so that peers cannot choose
//! collisions. Nothing durable depends on it.

use core::hash::{BuildHasher, Hash};
use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// A hasher with the process's key. Copies agree with each other.
#[derive(Clone, Debug)]
pub struct KeyedHash(SeedableRandomState);

impl KeyedHash {
    /// The same `key` gives the same hashes; the node draws it at start, the simulator takes it from its seed.
    pub fn new(key: u64) -> Self {
        Self(SeedableRandomState::with_seed(key, SharedSeed::global_fixed()))
    }

    /// Hash of any value.
    pub fn of<T: Hash + ?Sized>(&self, value: &T) -> u64 {
        self.0.hash_one(value)
    }
}
