//! Which shard owns whom: a keyed hash, the same on every shard and in the control plane.

use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, ShardId};

/// Decides homes. Nothing durable depends on it: another key or shard count only moves owners.
#[derive(Clone, Debug)]
pub struct Homes {
    hash: KeyedHash,
    shards: u16,
}

impl Homes {
    /// `shards` is at least 1.
    pub fn new(hash: KeyedHash, shards: u16) -> Self {
        assert!(shards > 0, "a node has at least one shard");
        Self { hash, shards }
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// All shards, in order.
    pub fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    /// The owner of a user: its sessions, inbox, limits and presence.
    pub fn user(&self, app: AppId, user: &str) -> ShardId {
        self.pick(self.hash.of(&(0_u8, app, user)))
    }

    /// The owner of a topic: its interest and the order of its messages.
    pub fn topic(&self, app: AppId, topic: &str) -> ShardId {
        self.pick(self.hash.of(&(1_u8, app, topic)))
    }

    /// The owner of a share group.
    pub fn share(&self, app: AppId, group: &str, filter: &str) -> ShardId {
        self.pick(self.hash.of(&(2_u8, app, group, filter)))
    }

    fn pick(&self, hash: u64) -> ShardId {
        // The high half of a widening multiplication spreads evenly without a division.
        let shard = (u128::from(hash) * u128::from(self.shards)) >> 64;
        ShardId(u16::try_from(shard).expect("the product is below the shard count"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_even_and_stable() {
        let homes = Homes::new(KeyedHash::new(7), 4);
        let mut counts = [0_u32; 4];
        for user in 0..4000 {
            let name = format!("user-{user}");
            let home = homes.user(AppId(0), &name);
            assert_eq!(home, homes.user(AppId(0), &name));
            counts[usize::from(home.0)] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }
}
