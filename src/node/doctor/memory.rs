//! Whether the memory suffices.

use super::checks::Situation;
use super::report::{Finding, Verdict, grouped};
use super::root::Root;
use crate::limits;
use crate::node::capacity;

/// The sum for N connections, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// What the process takes for each connection.
    pub(super) user_each: u64,
    /// What the kernel takes for each.
    pub(super) kernel_each: u64,
    /// Both, N times.
    pub(super) connections: u64,
    /// What all pools of blocks may take under load.
    pub(super) pools: u64,
    /// What is free to take; none: unknown.
    pub(super) available: Option<u64>,
}

/// Free memory of the machine, or what its control groups leave the process if that is less.
pub(super) fn available(root: &Root) -> Option<u64> {
    let bytes = capacity::memory(&|path| root.text(path).unwrap_or_default());
    (bytes != u64::MAX).then_some(bytes)
}

pub(super) fn sum(situation: &Situation<'_>) -> Sum {
    Sum {
        user_each: limits::CONNECTION_USER_BYTES,
        kernel_each: limits::CONNECTION_KERNEL_BYTES,
        connections: situation.plan.memory_bytes(),
        pools: situation.plan.pool_bytes(),
        available: available(situation.root),
    }
}

pub(super) fn finding(situation: &Situation<'_>) -> Finding {
    let sum = sum(situation);
    let verdict = match sum.available {
        None => Verdict::Unknown,
        Some(available) if available < sum.connections => Verdict::Obstacle,
        Some(available) if available < sum.connections + sum.pools => Verdict::Change,
        Some(_) => Verdict::Ok,
    };
    let all = sum.connections + sum.pools;
    Finding {
        name: "memory",
        found: sum.available.map_or_else(|| "cannot be read".to_owned(), |bytes| format!("{} available", mebibytes(bytes))),
        needed: format!("{} idle, {} under load", mebibytes(sum.connections), mebibytes(all)),
        formula: format!(
            "N × ({} of the process + {} of the kernel); under load {} of blocks a shard",
            grouped(sum.user_each),
            grouped(sum.kernel_each),
            mebibytes(limits::POOL_BYTES_MAX as u64),
        ),
        verdict,
        set: (verdict != Verdict::Ok).then(|| format!("{} of free memory, or fewer connections", mebibytes(all))),
        why: "Measured for plain MQTT. Messages that wait in inboxes come on top, what TCP has on its way as well, and with \
              the clients on the same machine the kernel's share counts twice."
            .to_owned(),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes.div_ceil(1 << 20)))
}
