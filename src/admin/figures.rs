//! What all parts of the node count, at one moment per shard: read once, shown as `/v1/stats`, `/metrics` and `$SYS`.

use crate::limits;
use crate::push::control::{Control, Failure};
use crate::shard::command::ShardStats;
use std::collections::BTreeMap;

/// A list of named numbers.
pub(super) type List = Vec<(&'static str, u64)>;

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) draining: bool,
    pub(super) api: List,
    pub(super) store: List,
    /// In order.
    pub(super) shards: Vec<ShardStats>,
}

impl Figures {
    /// Asks every shard.
    pub(super) async fn read(control: &Control) -> Result<Self, Failure> {
        let shards = control.stats()?.wait(limits::STATS_TIMEOUT).await?;
        let (mut api, store) = (control.own_stats(), control.store_stats());
        api.push(("resident_bytes", resident_bytes()));
        Ok(Self { draining: control.draining(), api, store, shards })
    }

    /// What the shards hold together.
    pub(super) fn gauges(&self) -> BTreeMap<&'static str, u64> {
        sum(self.shards.iter().map(|shard| &shard.gauges))
    }

    /// What the shards have done together.
    pub(super) fn counters(&self) -> BTreeMap<&'static str, u64> {
        sum(self.shards.iter().map(|shard| &shard.counters))
    }
}

/// Bytes of the process that are in memory; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = || std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok();
    pages().unwrap_or(0) * rustix::param::page_size() as u64
}

fn sum<'list>(lists: impl Iterator<Item = &'list List>) -> BTreeMap<&'static str, u64> {
    let mut total = BTreeMap::new();
    for &(name, value) in lists.flatten() {
        *total.entry(name).or_default() += value;
    }
    total
}
