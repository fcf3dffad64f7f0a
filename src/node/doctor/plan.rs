//! The arithmetic: from a number of connections to what each limit has to be. Nothing here looks at the machine.

use crate::limits;

/// Bytes of a page, which the kernel counts TCP's memory in. Machines with larger pages need fewer of them.
pub(super) const PAGE_BYTES: u64 = 4_096;

/// How many connections, on how many event loop threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) connections: u64,
    pub(super) shards: u64,
}

impl Plan {
    /// Open files of the process when every connection is one, as with epoll. With io_uring it is far fewer.
    pub(super) fn files(self) -> u64 {
        self.connections + limits::FDS_RESERVED as u64
    }

    /// Open files of the process with io_uring: connections that have not said who they are, the rings with their
    /// eventfds, everything else.
    pub(super) fn files_beside_tables(self) -> u64 {
        self.shards * limits::GUESTS_MAX as u64
            + 2 * self.rings(limits::RING_SLOTS_MAX as u64)
            + limits::FDS_RESERVED as u64
    }

    /// Open files of the whole machine: each connection is one here whatever holds it.
    pub(super) fn files_of_machine(self) -> u64 {
        self.files() + limits::FDS_OF_OTHERS
    }

    /// Connections that one shard makes room for, as `Settings` does: users do not spread evenly.
    fn room_of_shard(self) -> u64 {
        let even = self.connections.div_ceil(self.shards);
        if self.shards == 1 { even } else { even + even / 8 + 64 }
    }

    /// Rings of all shards, when each has a table of so many slots.
    pub(super) fn rings(self, slots_of_table: u64) -> u64 {
        self.shards * self.room_of_shard().div_ceil(slots_of_table.max(1)).max(1)
    }

    /// Bytes of the rings' shared memory, which Linux since 6.14 counts as locked.
    pub(super) fn locked_bytes(self) -> u64 {
        let slot_rings = self.rings(limits::RING_SLOTS_MAX as u64) - self.shards;
        let main = ring_bytes(limits::RING_SUBMISSIONS_MAX, limits::RING_COMPLETIONS_MAX);
        let slot = ring_bytes(limits::SLOT_RING_SUBMISSIONS_MAX, limits::SLOT_RING_COMPLETIONS_MAX);
        self.shards * main + slot_rings * slot
    }

    /// Pages of TCP's buffers: below the first the kernel does nothing, from the second on it saves, the third it does
    /// not exceed. A connection counts one page as soon as anything of it is unacknowledged.
    pub(super) fn tcp_pages(self) -> [u64; 3] {
        [self.connections * 3 / 8, self.connections / 2, self.connections]
    }

    /// Largest buffer of one socket in each direction, such that one connection in a hundred may fill its own within
    /// TCP's pages.
    pub(super) fn socket_buffer_bytes() -> u64 {
        100 * PAGE_BYTES
    }

    /// Entries of the table that says which CPU a flow's reader runs on: as many as flows, 4 bytes each.
    pub(super) fn flow_entries(self) -> u64 {
        self.connections.next_power_of_two().clamp(32_768, 1 << 20)
    }

    /// Entries of connection tracking, where it is loaded: a quarter above N, for those that are opening and closing.
    pub(super) fn tracked(self) -> u64 {
        self.connections + self.connections / 4 + 65_536
    }

    /// Hash buckets for those, so that four share one.
    pub(super) fn tracking_buckets(self) -> u64 {
        self.tracked().div_ceil(4)
    }

    /// New connections a second that are let in: all may come back within a minute.
    pub(super) fn arrivals_per_second(self) -> u64 {
        (self.connections / 60).max(1_000)
    }

    /// New connections a second from one address: a hundredth of that, for many devices may share one.
    pub(super) fn arrivals_per_source(self) -> u64 {
        self.arrivals_per_second().div_ceil(100).max(50)
    }

    /// Source addresses that the packet filter remembers at a time.
    pub(super) fn sources(self) -> u64 {
        (self.connections / 10).clamp(4_096, 1 << 20)
    }

    /// What the connections take, kernel and process.
    pub(super) fn memory_bytes(self) -> u64 {
        self.connections * limits::CONNECTION_BYTES_ESTIMATE
    }

    /// What all shards' pools of blocks may take under load, beside that.
    pub(super) fn pool_bytes(self) -> u64 {
        self.shards * limits::POOL_BYTES_MAX as u64
    }
}

/// Bytes that the kernel maps for a ring: submissions of 64 bytes, and completions of 16 with the submissions' indices
/// and a head, each in whole pages. As measured on Linux 6.18: 15 main or 60 slot rings fit into 8 MiB.
fn ring_bytes(submissions: u32, completions: u32) -> u64 {
    const HEAD_BYTES: u64 = 320;
    let (submissions, completions) = (u64::from(submissions), u64::from(completions));
    let queue = submissions * 64;
    let ring = completions * 16 + submissions * 4 + HEAD_BYTES;
    (queue.div_ceil(PAGE_BYTES) + ring.div_ceil(PAGE_BYTES)) * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLION: Plan = Plan { connections: 1_000_000, shards: 2 };

    #[test]
    fn as_many_rings_fit_into_8_mib_of_locked_memory_as_were_measured() {
        let main = ring_bytes(limits::RING_SUBMISSIONS_MAX, limits::RING_COMPLETIONS_MAX);
        let slot = ring_bytes(limits::SLOT_RING_SUBMISSIONS_MAX, limits::SLOT_RING_COMPLETIONS_MAX);
        assert_eq!(((8 << 20) / main, (8 << 20) / slot), (15, 60));
    }

    #[test]
    fn a_shard_has_as_many_rings_as_its_room_takes() {
        let one = |connections| Plan { connections, shards: 1 }.rings(20_000);
        assert_eq!((one(1), one(20_000), one(20_001)), (1, 1, 2));
        // Half of a million, an eighth and 64 more on each of two.
        assert_eq!(MILLION.rings(20_000), 2 * 29);
        assert_eq!(MILLION.locked_bytes(), 2 * 544_768 + 56 * 139_264);
    }

    #[test]
    fn what_each_connection_asks_for_grows_with_the_connections() {
        assert_eq!(MILLION.files(), 1_001_536);
        assert_eq!(MILLION.tcp_pages(), [375_000, 500_000, 1_000_000]);
        assert_eq!(MILLION.memory_bytes(), 4_608_000_000);
        assert_eq!((MILLION.arrivals_per_second(), MILLION.arrivals_per_source()), (16_666, 167));
        let few = Plan { connections: 100, shards: 1 };
        assert_eq!((few.arrivals_per_second(), few.arrivals_per_source(), few.sources()), (1_000, 50, 4_096));
    }

    #[test]
    fn the_largest_number_of_connections_does_not_overflow() {
        let most = Plan { connections: limits::NODE_CONNECTIONS_MAX as u64, shards: limits::SHARDS_MAX as u64 };
        assert!(most.memory_bytes() > 0 && most.locked_bytes() > 0 && most.flow_entries() == 1 << 20);
    }
}
