//! One io_uring and its table of direct descriptors.
#![allow(unsafe_code, reason = "handing pointers to the kernel")]

use super::slots::{DirectTable, UserData};
use crate::io::epoll::sys;
use crate::limits::{RING_SLOTS_MAX, RING_WORKERS_MAX};
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Completions taken out of the kernel's queue at a time.
const REAP_CHUNK: usize = 64;

/// How long to wait, for how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingWait {
    /// Completions that end the wait.
    pub(super) want: usize,
    /// Until this has passed; from then on one does.
    pub(super) batch: Duration,
    /// The end of the wait, completions or not.
    pub(super) timeout: Duration,
}

/// A ring. Everything of it is done on the thread that made it.
pub(super) struct Ring {
    uring: IoUring,
    /// Entries that found no room because the kernel did not take any; in order.
    backlog: VecDeque<squeue::Entry>,
    /// The direct descriptors.
    pub(super) table: DirectTable,
    /// Signalled when a slot ring has completions; the main ring polls it. The main ring has none.
    pub(super) signal: Option<Signal>,
    table_registered: bool,
    /// Entries into the kernel that waited for nothing.
    #[cfg(test)]
    pub(super) entries: u64,
}

/// A slot ring's way of waking the main one.
pub(super) struct Signal {
    eventfd: File,
    /// The main ring has a poll on it that has not fired.
    pub(super) armed: bool,
}

impl Signal {
    /// Forgets what was signalled so far.
    pub(super) fn clear(&self) {
        // Would block: nothing was signalled, which is as well.
        let _ = (&self.eventfd).read(&mut [0; 8]);
    }

    /// A one-shot poll of it.
    pub(super) fn poll_entry(&self, user_data: UserData) -> squeue::Entry {
        let fd = types::Fd(self.eventfd.as_raw_fd());
        opcode::PollAdd::new(fd, libc::POLLIN as u32).build().user_data(user_data.bits())
    }
}

impl Ring {
    /// A ring whose table, registered when it is first needed, holds `table_slots`.
    pub(super) fn new(submissions: u32, completions: u32, table_slots: usize) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            // Says in shared memory that task work is left, which saves asking by system call.
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(completions)
            .setup_clamp()
            .build(submissions)?;
        uring.submitter().register_iowq_max_workers(&mut [RING_WORKERS_MAX, RING_WORKERS_MAX])?;
        let slots = table_slots.min(RING_SLOTS_MAX).min(sys::fds_max());
        Ok(Self {
            uring,
            backlog: VecDeque::new(),
            table: DirectTable::new(slots),
            signal: None,
            table_registered: false,
            #[cfg(test)]
            entries: 0,
        })
    }

    /// Makes this a slot ring: its completions signal an eventfd.
    pub(super) fn with_signal(mut self) -> io::Result<Self> {
        let eventfd = sys::eventfd()?;
        self.uring.submitter().register_eventfd(eventfd.as_fd().as_raw_fd())?;
        self.signal = Some(Signal { eventfd: File::from(eventfd), armed: false });
        Ok(self)
    }

    /// Whether waits can be batched (since Linux 6.12).
    pub(super) fn batches_waits(&self) -> bool {
        self.uring.params().is_feature_min_timeout()
    }

    /// Asks the kernel which operations it knows.
    pub(super) fn probe(&self) -> io::Result<io_uring::Probe> {
        let mut probe = io_uring::Probe::new();
        self.uring.submitter().register_probe(&mut probe)?;
        Ok(probe)
    }

    /// Makes sure that there is a table to install into.
    pub(super) fn register_table(&mut self) -> io::Result<()> {
        if !self.table_registered {
            let slots = u32::try_from(self.table.capacity()).expect("tables are bounded by RING_SLOTS_MAX");
            self.uring.submitter().register_files_sparse(slots)?;
            self.table_registered = true;
        }
        Ok(())
    }

    /// Queues an entry.
    ///
    /// # Safety
    /// What the entry points to must stay valid, and untouched, until its completion.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the caller's promise is just what `squeue::push` asks for.
        if self.backlog.is_empty() && unsafe { self.uring.submission().push(&entry) }.is_ok() {
            return;
        }
        self.backlog.push_back(entry);
        self.drain_backlog();
    }

    /// Queues an entry that points to nothing.
    pub(super) fn push_plain(&mut self, entry: squeue::Entry) {
        // SAFETY: there is no memory to keep valid.
        unsafe { self.push(entry) }
    }

    fn drain_backlog(&mut self) {
        while !self.backlog.is_empty() {
            // A refused submission (memory is short, completions are in the way) is tried again by the next poll.
            if !matches!(self.uring.submit(), Ok(1..)) {
                return;
            }
            let mut queue = self.uring.submission();
            while let Some(entry) = self.backlog.front() {
                // SAFETY: whoever pushed the entry promised to keep what it points to until its completion.
                if unsafe { queue.push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
        }
    }

    /// Whether the kernel has something to take or to give that needs a system call.
    #[inline]
    pub(super) fn needs_enter(&mut self) -> bool {
        let queue = self.uring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    /// Whether its next completion will signal; the main ring's never do.
    pub(super) fn is_armed(&self) -> bool {
        self.signal.as_ref().is_some_and(|signal| signal.armed)
    }

    /// Whether there are completions to be reaped.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Whether there may be completions without waiting: the mark that says so may be wrong.
    pub(super) fn has_news(&mut self) -> bool {
        if self.has_completions() {
            return true;
        }
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Submits what is queued and lets the kernel complete what it has ready.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        #[cfg(test)]
        (self.entries += 1);
        self.drain_backlog();
        ignore_transient(self.uring.submit())
    }

    /// The same, and waits.
    pub(super) fn enter_and_wait(&mut self, wait: RingWait) -> io::Result<()> {
        self.drain_backlog();
        let timeout = Timespec::from(wait.timeout);
        let mut args = SubmitArgs::new().timespec(&timeout);
        if !wait.batch.is_zero() {
            args = args.min_wait_usec(u32::try_from(wait.batch.as_micros()).unwrap_or(u32::MAX));
        }
        ignore_transient(self.uring.submitter().submit_with_args(wait.want, &args))
    }

    /// Takes at most `max` completions, in a buffer that the caller keeps.
    pub(super) fn reap<'a>(&mut self, max: usize, chunk: &'a mut ReapBuffer) -> &'a mut [cqueue::Entry] {
        let room = max.min(REAP_CHUNK);
        self.uring.completion().fill(&mut chunk.0[..room])
    }
}

/// Room for completions between the kernel's queue and the driver.
pub(super) struct ReapBuffer([MaybeUninit<cqueue::Entry>; REAP_CHUNK]);

impl ReapBuffer {
    pub(super) fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; REAP_CHUNK])
    }
}

/// The end of a wait, a signal, and a kernel that wants its completions taken first are no errors: the queue keeps
/// what was not submitted, and the next round tries again.
fn ignore_transient(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}
