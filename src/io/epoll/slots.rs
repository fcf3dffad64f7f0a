//! The table of open sockets: 16 bytes each, found by index, free entries linked through themselves.

use crate::io::{Slot, Token};
use crate::limits::{EPOLL_PARKED_SENDS_MAX, EPOLL_SLOTS_RESERVED_MAX};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A guest, which may be given out again.
pub(super) const GUEST: u32 = 1;
/// A `Watch` or `WatchOnce` is on.
pub(super) const WATCHED: u32 = 1 << 1;
/// That watch ends with its first `Ready`.
pub(super) const ONCE: u32 = 1 << 2;
/// The kernel reports when something arrives, whether or not a watch is on.
pub(super) const ARMED: u32 = 1 << 3;
/// It has reported that since a receive found everything: it will not again.
pub(super) const UNREAD: u32 = 1 << 4;
/// It has reported that the peer's end or an urgent byte is behind that: a receive that could take more bytes may not have
/// found everything.
pub(super) const CUT: u32 = 1 << 5;
/// A `Ready` is queued; another would say nothing new.
pub(super) const READY: u32 = 1 << 6;
/// A `WatchEnded` is queued.
pub(super) const ENDING: u32 = 1 << 7;
/// A receive's completion is queued.
pub(super) const RECEIVING: u32 = 1 << 8;
/// A send is parked or its completion is queued.
pub(super) const SENDING: u32 = 1 << 9;
/// That send is parked, in the place that the upper bits name, and the kernel reports when there is room.
pub(super) const PARKED: u32 = 1 << 10;
/// A shutdown's completion is queued.
pub(super) const SHUTTING: u32 = 1 << 11;
/// While any of these is set the slot must not be closed or given out.
pub(super) const IN_FLIGHT: u32 = WATCHED | READY | ENDING | RECEIVING | SENDING | SHUTTING;

const PARKED_SHIFT: u32 = 12;
const FREE_END: u64 = u64::MAX;
const _: () = assert!(EPOLL_PARKED_SENDS_MAX <= 1 << (32 - PARKED_SHIFT));
const _: () = assert!(size_of::<Entry>() == 16);

/// One open socket, or a free place.
#[derive(Debug)]
pub(super) struct Entry {
    socket: Option<OwnedFd>,
    /// The flags above and, from `PARKED_SHIFT` on, where the parked send is.
    pub(super) flags: u32,
    /// The watch's token; in a free place the next free one.
    pub(super) watch: u64,
}

impl Entry {
    /// The socket of an open slot.
    #[inline]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().expect("an op names an open slot").as_fd()
    }

    /// The same, where an owner is asked for.
    pub(super) fn owned(&self) -> &OwnedFd {
        self.socket.as_ref().expect("an op names an open slot")
    }

    /// Whether any of the flags is set.
    #[inline]
    pub(super) fn is(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    /// The watch's token.
    pub(super) fn watch_token(&self) -> Token {
        Token(self.watch)
    }

    /// Remembers where the send is parked.
    pub(super) fn park(&mut self, place: usize) {
        let place = u32::try_from(place).expect("places are bounded by EPOLL_PARKED_SENDS_MAX");
        self.flags = (self.flags & ((1 << PARKED_SHIFT) - 1)) | PARKED | (place << PARKED_SHIFT);
    }

    /// Where the parked send is.
    pub(super) fn parked(&self) -> usize {
        (self.flags >> PARKED_SHIFT) as usize
    }

    /// Forgets it.
    pub(super) fn unpark(&mut self) {
        self.flags &= ((1 << PARKED_SHIFT) - 1) & !PARKED;
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct SlotTable {
    entries: Vec<Entry>,
    free: u64,
    open: usize,
}

impl SlotTable {
    /// A table that will not move while fewer than `expected` slots are open.
    pub(super) fn new(expected: usize) -> Self {
        let entries = Vec::with_capacity(expected.min(EPOLL_SLOTS_RESERVED_MAX));
        Self { entries, free: FREE_END, open: 0 }
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn insert(&mut self, socket: OwnedFd, flags: u32) -> Slot {
        self.open += 1;
        let entry = Entry { socket: Some(socket), flags, watch: 0 };
        if self.free == FREE_END {
            self.entries.push(entry);
            return Slot(u32::try_from(self.entries.len() - 1).expect("there are fewer than 2^31 fds"));
        }
        let index = u32::try_from(self.free).expect("the free list links indices");
        let place = &mut self.entries[index as usize];
        self.free = place.watch;
        *place = entry;
        Slot(index)
    }

    /// Takes the socket out. Its slot is free at once.
    pub(super) fn remove(&mut self, slot: Slot) -> OwnedFd {
        let socket = self.vacate(slot);
        self.free(slot);
        socket
    }

    /// Takes the socket out and keeps its place and its flags, for [`SlotTable::refill`] or [`SlotTable::free`].
    pub(super) fn vacate(&mut self, slot: Slot) -> OwnedFd {
        let entry = &mut self.entries[slot.0 as usize];
        assert!(!entry.is(IN_FLIGHT), "a slot was closed with ops in flight: {:#x}", entry.flags);
        self.open -= 1;
        entry.socket.take().expect("a slot is closed once")
    }

    /// Puts the socket that was taken out of a place back into it, without some of its flags.
    pub(super) fn refill(&mut self, slot: Slot, socket: OwnedFd, without: u32) {
        let entry = &mut self.entries[slot.0 as usize];
        debug_assert!(entry.socket.is_none(), "a place is refilled that was vacated");
        entry.socket = Some(socket);
        entry.flags &= !without;
        self.open += 1;
    }

    /// Lets a place go that was vacated.
    pub(super) fn free(&mut self, slot: Slot) {
        self.entries[slot.0 as usize] = Entry { socket: None, flags: 0, watch: self.free };
        self.free = u64::from(slot.0);
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> &Entry {
        &self.entries[slot.0 as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Entry {
        &mut self.entries[slot.0 as usize]
    }
}
