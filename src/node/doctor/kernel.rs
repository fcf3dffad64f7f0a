//! What is no setting of the kernel's: the driver, the process's own limits.

use super::checks::Situation;
use super::memory;
use super::report::{Finding, Verdict, grouped};
use crate::io::probe::{Choosing, Chosen};
use crate::limits;
use crate::node::capacity::Machine;

const OPEN_FILES: &str = "Max open files";
const LOCKED_MEMORY: &str = "Max locked memory";
/// CAP_IPC_LOCK, by its bit in `CapEff`: whoever has it may lock as much memory as it wants.
const CAP_IPC_LOCK: u32 = 14;

/// What the machine gives, as the start-up message counts it. What cannot be read bounds nothing.
pub(super) fn machine(situation: &Situation<'_>) -> Machine {
    let files = situation.root.hard_limit(OPEN_FILES).unwrap_or(u64::MAX);
    Machine { files, memory: memory::available(situation.root).unwrap_or(u64::MAX) }
}

/// Whether io_uring is there, tried for real.
pub(super) fn driver(situation: &Situation<'_>, probed: &Result<Choosing, String>) -> Finding {
    let disabled = situation.root.number("proc/sys/kernel/io_uring_disabled").filter(|&mode| mode > 0);
    let (found, verdict) = match probed {
        Ok(Choosing { chosen: Chosen::Uring, .. }) => ("io_uring works".to_owned(), Verdict::Ok),
        Ok(Choosing { fallback: None, .. }) => ("epoll, as asked for".to_owned(), Verdict::Ok),
        Ok(Choosing { fallback: Some(reason), .. }) => {
            (format!("epoll, for io_uring fails: {reason}"), Verdict::Change)
        }
        Err(reason) => (format!("io_uring fails: {reason}"), Verdict::Obstacle),
    };
    let set = match (verdict, disabled) {
        (Verdict::Ok, _) => None,
        (_, Some(_)) => Some("kernel.io_uring_disabled = 0".to_owned()),
        (_, None) => Some("Linux 6.1 or later, without a seccomp filter on io_uring".to_owned()),
    };
    Finding {
        name: "driver",
        found,
        needed: "io_uring".to_owned(),
        formula: "whatever N; tried on a ring of its own".to_owned(),
        verdict,
        set,
        why: "With io_uring a connection is no open file of the process, and sends of a turn share system calls. With \
              epoll all works as well, each connection being an open file."
            .to_owned(),
    }
}

/// Places in the rings' tables.
pub(super) fn slots(situation: &Situation<'_>) -> Finding {
    let plan = situation.plan;
    let table = machine(situation).files.min(limits::RING_SLOTS_MAX as u64);
    let rings_max = plan.shards * limits::SLOT_RINGS_MAX as u64;
    let rings = plan.rings(table);
    let verdict = if rings <= rings_max { Verdict::Ok } else { Verdict::Obstacle };
    Finding {
        name: "slots of io_uring's tables",
        found: format!("{} a table, {} tables at most", grouped(table), grouped(rings_max)),
        needed: format!("{} tables", grouped(rings)),
        formula: format!(
            "for each shard, (N / shards, and of several shards an eighth and 64 more) / min(open files, {}), rounded up; at most {}",
            grouped(limits::RING_SLOTS_MAX as u64),
            limits::SLOT_RINGS_MAX
        ),
        verdict,
        set: (verdict != Verdict::Ok).then(|| "a higher limit of open files, or more shards".to_owned()),
        why:
            "A ring's table holds no more than the process may have files open, and a shard takes as many rings as it \
              needs."
                .to_owned(),
    }
}

/// Memory that rings lock.
pub(super) fn locked_memory(situation: &Situation<'_>) -> Finding {
    let found = situation.root.hard_limit(LOCKED_MEMORY);
    let needed = if situation.io_uring { situation.plan.locked_bytes() } else { 0 };
    let may_lock = may_lock(situation);
    let verdict = match found {
        _ if needed == 0 || may_lock == Some(true) => Verdict::Ok,
        Some(limit) if limit >= needed => Verdict::Ok,
        Some(_) if counts_rings(situation) == Some(false) => Verdict::Ok,
        Some(_) if may_lock == Some(false) => Verdict::Obstacle,
        _ => Verdict::Unknown,
    };
    let found = match found {
        Some(limit) if may_lock == Some(true) => format!("{}, which CAP_IPC_LOCK overrides", unlimited_or(limit)),
        Some(limit) => format!("{} bytes", unlimited_or(limit)),
        None => "cannot be read".to_owned(),
    };
    Finding {
        name: "locked memory",
        found,
        needed: format!("{} bytes", grouped(needed)),
        formula: "544,768 bytes a shard, and 139,264 for each further ring of it".to_owned(),
        verdict,
        set: (verdict != Verdict::Ok).then(|| format!("memlock {} (LimitMEMLOCK)", needed.div_ceil(1_024) * 1_024)),
        why: "Since Linux 6.14 the queues of io_uring are charged to it, unless the process has CAP_IPC_LOCK. Where it is \
              used up a shard cannot start, or takes no more connections."
            .to_owned(),
    }
}

fn may_lock(situation: &Situation<'_>) -> Option<bool> {
    let status = situation.root.text("proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(effective.trim(), 16).ok().map(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

/// Whether this kernel charges rings to the limit.
fn counts_rings(situation: &Situation<'_>) -> Option<bool> {
    let release = situation.root.text("proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(|digits| digits.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??) >= (6, 14))
}

/// RLIMIT_NOFILE. The gateway raises its soft limit to the hard one when it starts.
pub(super) fn open_files(situation: &Situation<'_>) -> Finding {
    let plan = situation.plan;
    let found = situation.root.hard_limit(OPEN_FILES);
    let (needed, formula) = if situation.io_uring {
        let formula = format!(
            "{} handshakes a shard + 2 a ring + {}",
            grouped(limits::GUESTS_MAX as u64),
            grouped(limits::FDS_RESERVED as u64)
        );
        (plan.files_beside_tables(), formula)
    } else {
        (plan.files(), format!("N + {}", grouped(limits::FDS_RESERVED as u64)))
    };
    let verdict = match found {
        None => Verdict::Unknown,
        Some(found) if found >= needed => Verdict::Ok,
        // Fewer handshakes at a time make a storm last longer, no more.
        Some(_) if situation.io_uring => Verdict::Change,
        Some(_) => Verdict::Obstacle,
    };
    Finding {
        name: "open files of the process",
        found: found.map_or_else(|| "cannot be read".to_owned(), unlimited_or),
        needed: grouped(needed),
        formula,
        verdict,
        // What would do for epoll does for both.
        set: (verdict != Verdict::Ok).then(|| format!("nofile {} (LimitNOFILE)", plan.files())),
        why:
            "With epoll each connection is an open file. With io_uring only those are that have not said who they are."
                .to_owned(),
    }
}

fn unlimited_or(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { grouped(limit) }
}
