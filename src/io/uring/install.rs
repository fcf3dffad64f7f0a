//! Moving ordinary sockets into the tables: all installs of a turn in a few entries.
#![allow(unsafe_code, reason = "the kernel writes indices into a batch")]

use super::UringDriver;
use super::ring::Ring;
use super::slots::{Kind, Place, UserData};
use crate::io::{Outcome, Socket, Token};
use crate::limits::{INSTALL_BATCH_MAX, SLOT_RING_COMPLETIONS_MAX, SLOT_RING_SUBMISSIONS_MAX, SLOT_RINGS_MAX};
use io_uring::opcode;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The kernel chooses the index (`IORING_FILE_INDEX_ALLOC`).
const INDEX_ALLOC: i32 = -1;

/// Installs on their way.
pub(super) struct Batch {
    /// The fds; the kernel overwrites them with indices.
    indices: Box<[RawFd]>,
    /// Whose they are. An ordinary fd is closed only when its entry is reported.
    sockets: Vec<(OwnedFd, Token)>,
}

impl UringDriver {
    /// Submits what was queued since the last time, table by table.
    pub(super) fn flush_installs(&mut self) {
        while !self.installing.is_empty() {
            let ring = match self.ring_with_room() {
                Ok(ring) => ring,
                Err(error) => return self.fail_installs(&error),
            };
            let room = self.rings[ring].table.room();
            let count = self.installing.len().min(room).min(INSTALL_BATCH_MAX);
            let sockets: Vec<_> = self.installing.drain(..count).collect();
            let indices = sockets.iter().map(|(fd, _)| fd.as_raw_fd()).collect();
            self.rings[ring].table.reserve(count);
            self.note_room(ring);
            let batch = self.batches.insert(Batch { indices, sockets });
            let length = u32::try_from(count).expect("batches are bounded by INSTALL_BATCH_MAX");
            let indices = self.batches[batch].indices.as_mut_ptr().cast_const();
            let user_data = UserData::of_flight(Kind::Install, batch, Place::direct(ring, 0));
            let entry = opcode::FilesUpdate::new(indices, length).offset(INDEX_ALLOC).build();
            // SAFETY: the boxed indices stay where they are, and are not looked at, until the batch is taken out of
            // `batches` by its completion.
            unsafe { self.ring_mut(ring).push(entry.user_data(user_data.bits())) };
        }
    }

    fn fail_installs(&mut self, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::ENFILE);
        for (fd, token) in std::mem::take(&mut self.installing) {
            let outcome =
                Outcome::InstallFailed { socket: Socket::from(fd), error: io::Error::from_raw_os_error(errno) };
            self.push_ready(token, outcome);
        }
    }

    /// The first ring whose table has room, made if need be.
    fn ring_with_room(&mut self) -> io::Result<usize> {
        if let Some(ring) = self.roomy.first() {
            self.rings[ring].register_table()?;
            return Ok(ring);
        }
        if self.rings.len() >= SLOT_RINGS_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let ring = Ring::new(SLOT_RING_SUBMISSIONS_MAX, SLOT_RING_COMPLETIONS_MAX, self.table_slots)?;
        let mut ring = ring.with_signal()?;
        ring.register_table()?;
        if ring.table.room() == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        self.rings.push(ring);
        let ring = self.rings.len() - 1;
        self.roomy.insert(ring);
        Ok(ring)
    }

    fn note_room(&mut self, ring: usize) {
        match self.rings[ring].table.room() {
            0 => self.roomy.remove(ring),
            _ => self.roomy.insert(ring),
        }
    }

    /// A batch is done: its first `result` sockets are in the table, or none and `result` says why not the first.
    pub(super) fn on_install(&mut self, user_data: UserData, result: i32) {
        let Place::Direct { ring, .. } = Place::of(user_data.slot()) else { unreachable!("installs go to rings") };
        let Batch { indices, sockets } = self.batches.remove(user_data.flight as usize);
        let done = usize::try_from(result).unwrap_or(0);
        let mut left = Vec::new();
        for (position, (fd, token)) in sockets.into_iter().enumerate() {
            if position >= done {
                left.push((fd, token));
                continue;
            }
            let index = usize::try_from(indices[position]).expect("the kernel reports indices for what it installed");
            self.rings[ring].table.insert(index);
            self.push_ready(token, Outcome::Installed(Place::direct(ring, index)));
            drop(fd);
        }
        let table = &mut self.rings[ring].table;
        table.release(left.len());
        if result == -libc::ENFILE {
            // Other tables may do better; this one is asked again when something of it is closed.
            table.refuse();
        } else if result < 0 {
            let (fd, token) = left.remove(0);
            let error = io::Error::from_raw_os_error(-result);
            self.push_ready(token, Outcome::InstallFailed { socket: Socket::from(fd), error });
        }
        self.note_room(ring);
        // What did not fit goes first in the next batch: each round installs, refuses or fails at least one.
        self.installing.splice(0..0, left);
    }
}
