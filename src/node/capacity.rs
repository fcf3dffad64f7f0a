//! How many connections this machine can hold, for the start-up message and as the default of
//! `limits.max_connections`.

use crate::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the machine gives one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// RLIMIT_NOFILE; it also bounds the slot table of an io_uring.
    pub(super) files: u64,
    /// Bytes of memory that are free to take.
    pub(super) memory: u64,
}

/// How many connections, and what would have to grow for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) connections: u64,
    pub(super) bound: Bound,
}

/// What ends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// RLIMIT_NOFILE.
    Files,
    /// The io_uring tables of all shards.
    Rings,
    /// Memory.
    Memory,
    /// `limits.max_connections`.
    Configured,
}

/// Raises the soft limit of open files to the hard one, which an ordinary process may, and looks around.
pub(super) fn survey() -> Machine {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused: the soft limit stays, and the figure below says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    // "No limit" is a missing value.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let read = |path: &str| std::fs::read_to_string(std::path::Path::new("/").join(path)).unwrap_or_default();
    Machine { files, memory: memory(&read) }
}

/// `MemAvailable`, or the smallest limit of the control groups the process is in, if that is less. `read` gives the text
/// of a file, named without the first slash; one that cannot be read bounds nothing.
pub(super) fn memory(read: &dyn Fn(&str) -> String) -> u64 {
    let available = read("proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .map_or(u64::MAX, |kib| kib.saturating_mul(1_024));
    let groups = read("proc/self/cgroup");
    // Only version 2 has a line without controllers. The groups above bound this one, the mounted root as well: in a
    // container that is the container's.
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let above = std::path::Path::new(group).ancestors();
    let limits =
        above.map(|group| read(&format!("sys/fs/cgroup/{}/memory.max", group.display())).trim().parse::<u64>());
    limits.filter_map(Result::ok).fold(available, u64::min)
}

/// What fits. With io_uring each shard has as many tables as it needs, and each its own slots; with epoll all
/// connections share the open files.
pub(super) fn estimate(machine: Machine, io_uring: bool, shards: usize, configured: Option<usize>) -> Capacity {
    let tables = (limits::SLOT_RINGS_MAX as u64).saturating_mul(shards as u64);
    let rings = machine.files.min(limits::RING_SLOTS_MAX as u64).saturating_mul(tables);
    let files = machine.files - (machine.files / 2).min(limits::FDS_RESERVED as u64);
    let by_driver = if io_uring { (rings, Bound::Rings) } else { (files, Bound::Files) };
    let by_memory = (machine.memory / limits::CONNECTION_BYTES_ESTIMATE, Bound::Memory);
    let by_operator = (configured.map_or(u64::MAX, |number| number as u64), Bound::Configured);
    let (connections, bound) = [by_driver, by_memory, by_operator]
        .into_iter()
        .min_by_key(|&(connections, _)| connections)
        .expect("there are three");
    Capacity { connections, bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn epoll_is_bound_by_open_files() {
        let capacity = estimate(Machine { files: 20_000, memory: 24 * GIB }, false, 2, None);
        assert_eq!(capacity, Capacity { connections: 18_464, bound: Bound::Files });
    }

    #[test]
    fn io_uring_is_bound_by_the_tables_of_its_rings() {
        let capacity = estimate(Machine { files: 20, memory: 24 * GIB }, true, 2, None);
        let connections = 20 * 2 * limits::SLOT_RINGS_MAX as u64;
        assert_eq!(capacity, Capacity { connections, bound: Bound::Rings });
    }

    #[test]
    fn little_memory_bounds_before_files_do() {
        let capacity = estimate(Machine { files: 1_000_000, memory: GIB }, false, 2, None);
        assert_eq!(capacity.bound, Bound::Memory);
        assert_eq!(capacity.connections, GIB / limits::CONNECTION_BYTES_ESTIMATE);
    }

    #[test]
    fn the_operators_bound_wins_when_it_is_the_smallest() {
        let capacity = estimate(Machine { files: 20_000, memory: 24 * GIB }, false, 2, Some(100));
        assert_eq!(capacity, Capacity { connections: 100, bound: Bound::Configured });
    }

    #[test]
    fn few_open_files_still_leave_half_for_connections() {
        assert_eq!(estimate(Machine { files: 1_024, memory: GIB }, false, 1, None).connections, 512);
    }

    #[test]
    fn memory_is_the_smaller_of_machine_and_control_group() {
        let of = |slice: &str, root: &str| {
            memory(&|path| {
                let text = match path {
                    "proc/meminfo" => "MemTotal: 100 kB\nMemAvailable:    2048 kB\n",
                    "proc/self/cgroup" => "0::/system.slice/kittiwake.service\n",
                    "sys/fs/cgroup/system.slice/memory.max" => slice,
                    "sys/fs/cgroup//memory.max" => root,
                    _ => "max\n",
                };
                text.to_owned()
            })
        };
        assert_eq!(of("max\n", "max\n"), 2_048 * 1_024);
        assert_eq!(of("4096\n", "max\n"), 4_096);
        assert_eq!(of("max\n", "8192\n"), 8_192);
        assert_eq!(memory(&|_| String::new()), u64::MAX);
    }
}
