//! Names: what a `Slot` and an entry's `user_data` say, and the tables of what is known of a slot (16 bytes each).

use crate::io::{Slot, Token};
use crate::limits::{RING_SLOTS_MAX, SLOT_RINGS_MAX};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The slot is open.
pub(super) const OPEN: u32 = 1;
/// A watch is armed.
pub(super) const WATCHED: u32 = 1 << 1;
/// It is a one-shot.
pub(super) const ONCE: u32 = 1 << 2;
/// Its end was asked for.
pub(super) const UNWATCHING: u32 = 1 << 3;
/// A receive is in flight.
pub(super) const RECEIVING: u32 = 1 << 4;
/// A send is in flight.
pub(super) const SENDING: u32 = 1 << 5;
/// A shutdown is in flight.
pub(super) const SHUTTING: u32 = 1 << 6;
/// While any of these is set the slot must not be closed or given out.
pub(super) const IN_FLIGHT: u32 = WATCHED | RECEIVING | SENDING | SHUTTING;

const GUEST_BIT: u32 = 1 << 31;
const RING_SHIFT: u32 = 24;
const INDEX_MASK: u32 = (1 << RING_SHIFT) - 1;
const _: () = assert!(RING_SLOTS_MAX <= 1 << RING_SHIFT);
const _: () = assert!(SLOT_RINGS_MAX <= 1 << (31 - RING_SHIFT));

/// Where a slot's socket is: `guest (1 bit) | ring (7) | index (24)`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// An ordinary fd, in the guests' table.
    Guest { index: usize },
    /// A direct descriptor of a ring.
    Direct { ring: usize, index: u32 },
}

impl Place {
    #[inline]
    pub(super) fn of(slot: Slot) -> Self {
        if slot.0 & GUEST_BIT != 0 {
            Self::Guest { index: (slot.0 & !GUEST_BIT) as usize }
        } else {
            Self::Direct { ring: (slot.0 >> RING_SHIFT) as usize, index: slot.0 & INDEX_MASK }
        }
    }

    pub(super) fn guest(index: usize) -> Slot {
        let index = u32::try_from(index).expect("there are fewer than 2^31 fds");
        Slot(GUEST_BIT | index)
    }

    pub(super) fn direct(ring: usize, index: usize) -> Slot {
        let (ring, index) = (ring as u32, u32::try_from(index).expect("tables are smaller than 2^24"));
        Slot(ring << RING_SHIFT | index)
    }
}

/// What an entry is for; it comes back in the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Receive,
    Send,
    Shutdown,
    Watch,
    Unwatch,
    Close,
    Install,
    Accept,
    StopAccept,
    Connect,
    Wake,
    RingSignal,
    CancelAll,
}

const KINDS: [Kind; 13] = [
    Kind::Receive,
    Kind::Send,
    Kind::Shutdown,
    Kind::Watch,
    Kind::Unwatch,
    Kind::Close,
    Kind::Install,
    Kind::Accept,
    Kind::StopAccept,
    Kind::Connect,
    Kind::Wake,
    Kind::RingSignal,
    Kind::CancelAll,
];

/// `kind (8 bits) | flight (24) | slot, or another index (32)`: a completion leads to its slot's entry and to what is
/// in flight without a search.
#[derive(Clone, Copy, Debug)]
pub(super) struct UserData {
    pub(super) kind: Kind,
    pub(super) flight: u32,
    pub(super) index: u32,
}

impl UserData {
    #[inline]
    pub(super) fn of_flight(kind: Kind, flight: usize, slot: Slot) -> Self {
        let flight = u32::try_from(flight).expect("flights are bounded by slots");
        assert!(flight <= INDEX_MASK, "more ops are in flight than fit into 24 bits");
        Self { kind, flight, index: slot.0 }
    }

    pub(super) fn of_slot(kind: Kind, slot: Slot) -> Self {
        Self { kind, flight: 0, index: slot.0 }
    }

    pub(super) fn of_index(kind: Kind, index: usize) -> Self {
        Self { kind, flight: 0, index: u32::try_from(index).expect("indices are bounded by fds") }
    }

    #[inline]
    pub(super) fn bits(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.flight) << 32 | u64::from(self.index)
    }

    #[inline]
    pub(super) fn from_bits(bits: u64) -> Self {
        Self {
            kind: KINDS[(bits >> 56) as usize],
            flight: (bits >> 32) as u32 & INDEX_MASK,
            index: (bits & u64::from(u32::MAX)) as u32,
        }
    }

    pub(super) fn slot(self) -> Slot {
        Slot(self.index)
    }
}

/// What is known of a slot.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// A guest's socket.
    fd: Option<OwnedFd>,
    pub(super) flags: u32,
    /// The watch's token; in a free guest's place the next free one.
    pub(super) watch: u64,
}

const _: () = assert!(size_of::<Entry>() == 16);

impl Entry {
    #[inline]
    pub(super) fn is(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    pub(super) fn watch_token(&self) -> Token {
        Token(self.watch)
    }

    /// A guest's socket.
    pub(super) fn fd(&self) -> &OwnedFd {
        self.fd.as_ref().expect("a guest has its fd")
    }

    /// The same, for an entry.
    #[inline]
    pub(super) fn raw_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }

    /// Sets a flag that must not be set.
    #[inline]
    pub(super) fn begin(&mut self, flag: u32) {
        assert!(self.flags & (OPEN | flag) == OPEN, "an op on a closed slot, or a second one of its kind");
        self.flags |= flag;
    }

    fn assert_at_rest(&self) {
        assert!(self.is(OPEN) && !self.is(IN_FLIGHT), "a slot was let go with ops in flight: {:#x}", self.flags);
    }
}

const FREE_END: u64 = u64::MAX;

/// Guests: ordinary fds.
#[derive(Debug)]
pub(super) struct GuestTable {
    entries: Vec<Entry>,
    free: u64,
    open: usize,
}

impl GuestTable {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), free: FREE_END, open: 0 }
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn insert(&mut self, fd: OwnedFd) -> usize {
        self.open += 1;
        let entry = Entry { fd: Some(fd), flags: OPEN, watch: 0 };
        if self.free == FREE_END {
            self.entries.push(entry);
            return self.entries.len() - 1;
        }
        let index = self.free as usize;
        self.free = self.entries[index].watch;
        self.entries[index] = entry;
        index
    }

    pub(super) fn remove(&mut self, index: usize) -> OwnedFd {
        let entry = &mut self.entries[index];
        entry.assert_at_rest();
        let fd = entry.fd.take().expect("a guest has its fd");
        *entry = Entry { fd: None, flags: 0, watch: self.free };
        self.free = index as u64;
        self.open -= 1;
        fd
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> &mut Entry {
        &mut self.entries[index]
    }
}

/// A ring's direct descriptors. The kernel chooses the index, so there is no free list here.
#[derive(Debug)]
pub(super) struct DirectTable {
    entries: Vec<Entry>,
    capacity: usize,
    /// Descriptors that are open, about to be, or not yet known to be closed.
    taken: usize,
    open: usize,
    /// The kernel found no room although we did: nothing is tried until something is closed.
    refused: bool,
}

impl DirectTable {
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Vec::new(), capacity, taken: 0, open: 0, refused: false }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn room(&self) -> usize {
        if self.refused { 0 } else { self.capacity - self.taken }
    }

    /// Sets room aside for installs.
    pub(super) fn reserve(&mut self, count: usize) {
        assert!(count <= self.room(), "more is installed than there is room for");
        if self.entries.capacity() == 0 {
            // Address space only: pages are touched as indices come into use, and the table never moves.
            self.entries.reserve_exact(self.capacity);
        }
        self.taken += count;
    }

    /// Gives back what was reserved, or is closed now.
    pub(super) fn release(&mut self, count: usize) {
        self.taken -= count;
        self.refused = false;
    }

    /// Notes that the kernel saw no room.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    pub(super) fn insert(&mut self, index: usize) {
        assert!(index < self.capacity, "the kernel installed outside of its table");
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, Entry::default);
        }
        assert!(!self.entries[index].is(OPEN), "the kernel gave out a place twice");
        self.entries[index] = Entry { fd: None, flags: OPEN, watch: 0 };
        self.open += 1;
    }

    /// Marks as closed; it is still taken until the kernel says so.
    pub(super) fn remove(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        entry.assert_at_rest();
        *entry = Entry::default();
        self.open -= 1;
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> &mut Entry {
        &mut self.entries[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_comes_back_as_it_went() {
        for (position, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, position, "KINDS is in the order of the enum");
            let slot = Place::direct(SLOT_RINGS_MAX - 1, RING_SLOTS_MAX - 1);
            let back = UserData::from_bits(UserData::of_flight(kind, INDEX_MASK as usize, slot).bits());
            assert_eq!((back.kind, back.flight, back.slot()), (kind, INDEX_MASK, slot));
        }
    }

    #[test]
    fn a_slot_says_where_its_socket_is() {
        assert!(matches!(Place::of(Place::guest(77)), Place::Guest { index: 77 }));
        assert!(matches!(Place::of(Place::direct(127, 19_999)), Place::Direct { ring: 127, index: 19_999 }));
    }
}
