//! The few system calls that neither `std` nor `socket2` offers in the shape needed: each takes borrowed fds and
//! slices, so that all `unsafe` of this driver is in this file.
#![allow(unsafe_code, reason = "system calls")]

use crate::base::clock::Now;
use socket2::SockAddr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Not yet an event; what [`wait`] fills in.
pub(super) const NO_EVENT: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

/// A non-blocking, close-on-exec eventfd at 0.
pub(in crate::io) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes no pointers; what it returns is a new fd that nobody else owns.
    unsafe {
        let fd = check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Lets a bind to port 0 leave the port open until connect (`IP_BIND_ADDRESS_NO_PORT`, which both families take).
pub(in crate::io) fn bind_address_without_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (value, length) = ((&raw const on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes of a live local; the fd is open for the length of the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, value, length) })
        .map(drop)
}

/// The clock, both ways.
pub(in crate::io) fn now() -> Now {
    Now { monotonic_ms: milliseconds(libc::CLOCK_MONOTONIC), wall_ms: milliseconds(libc::CLOCK_REALTIME) }
}

/// The first descriptor that a process is passed (sd_listen_fds(3)).
pub(in crate::io) const PASSED_FIRST: u32 = 3;

/// Takes the descriptors from `PASSED_FIRST` on, which whoever started the process left open for it. Once: a second call
/// takes none. They close at the next exec.
pub(in crate::io) fn passed(count: u32) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let numbers = PASSED_FIRST..PASSED_FIRST.saturating_add(count);
    let take = |number: u32| {
        let number = libc::c_int::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        // SAFETY: fcntl takes no pointers here, and says EBADF of what is no descriptor. What it takes for one was open
        // when this process began: its starter says so by the count, and nothing in this process owns it, for this
        // function, which runs to here once, is the only one that makes an owner of a number.
        unsafe {
            check(libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC))?;
            Ok(OwnedFd::from_raw_fd(number))
        }
    };
    numbers.map(take).collect()
}

/// What the calling thread has taken of a processor.
pub(in crate::io) fn thread_cpu_us() -> u64 {
    let time = read_clock(libc::CLOCK_THREAD_CPUTIME_ID);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// How the kernel schedules the calling thread. Since 6.12 `sched_runtime` is a fair thread's time slice, in nanoseconds.
pub(in crate::io) fn scheduling() -> io::Result<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).expect("the struct is small");
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes, which is what the live local has; 0 names the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

/// Has the calling thread scheduled so.
pub(in crate::io) fn schedule(attributes: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the kernel reads the size that the borrowed struct says of itself; 0 names the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The soft limit of open fds.
pub(in crate::io) fn fds_max() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit that the call fills in.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(result, 0, "getrlimit fails only on a bad pointer or resource");
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

pub(super) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the new fd is ours.
    unsafe {
        let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Adds, changes or removes (`operation`) what is waited for on `fd`.
pub(super) fn epoll_control(
    epoll: &OwnedFd,
    operation: libc::c_int,
    fd: BorrowedFd<'_>,
    events: u32,
    data: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: both fds are open for the length of the call, and the event is a live local that the kernel only reads.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }).map(drop)
}

/// Takes the descriptor of that number out of the set. If it is not there, nothing was to be done.
pub(super) fn epoll_forget(epoll: &OwnedFd, fd: RawFd) {
    // SAFETY: a removal takes no pointer; of a number that is no descriptor, or not in the set, the kernel says so.
    let _ = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
}

/// Waits; returns how many events were filled in. An interrupting signal is no event.
pub(super) fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event], timeout_ms: i32) -> io::Result<usize> {
    let room = i32::try_from(events.len()).expect("the event buffer has a fixed, small length");
    // SAFETY: the kernel writes at most `room` events into the slice, which is borrowed for the length of the call.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, timeout_ms) };
    match check(count) {
        Ok(count) => Ok(usize::try_from(count).expect("a checked count is not negative")),
        Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Accepts one connection, non-blocking and close-on-exec, with its peer's address.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: storage and length are live for the call, the length says how long the storage is, and the kernel writes no
    // more than that; the new fd is ours.
    let (fd, peer) = unsafe {
        SockAddr::try_init(|storage, length| {
            let fd = check(libc::accept4(listener.as_raw_fd(), storage.cast(), length, flags))?;
            Ok(OwnedFd::from_raw_fd(fd))
        })?
    };
    let peer = peer.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))?;
    Ok((fd, peer))
}

/// Receives without waiting.
#[inline]
pub(super) fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `into.len()` bytes to a slice that is borrowed for the length of the call.
    let count = unsafe { libc::recv(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Sends without waiting and without SIGPIPE.
#[inline]
pub(super) fn send(fd: BorrowedFd<'_>, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: the kernel reads at most `bytes.len()` bytes from a slice that is borrowed for the length of the call.
    let count = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

fn read_clock(clock: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec that the call fills in.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "clock_gettime fails only on a bad pointer or clock");
    time
}

fn milliseconds(clock: libc::clockid_t) -> u64 {
    let time = read_clock(clock);
    // Neither clock can be before its zero; a wall clock set before 1970 reads as 1970.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
