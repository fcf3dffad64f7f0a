//! Wakes a source that waits for its socket as well.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const RUNG: u8 = 2;

/// One thread waits, any may ring; only a wait costs a system call, or a ring that ends one.
#[derive(Debug)]
pub struct Bell {
    eventfd: OwnedFd,
    state: AtomicU8,
}

impl Bell {
    pub fn new() -> io::Result<Self> {
        Ok(Self { eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, state: AtomicU8::new(AWAKE) })
    }

    /// Ends the wait, or the next one before it begins.
    pub fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            // A counter that is full has woken it already.
            let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    /// Waits until somebody rings or the socket has something to say, for so long at most.
    pub fn wait(&self, socket: impl AsFd, at_most: Duration) -> io::Result<()> {
        if self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            wait_for(&[PollFd::new(&socket, PollFlags::IN), PollFd::new(&self.eventfd, PollFlags::IN)], at_most)?;
            // Nothing is there if it was the socket or the time.
            let _ = rustix::io::read(&self.eventfd, &mut [0; 8]);
        }
        self.state.store(AWAKE, Ordering::Release);
        Ok(())
    }
}

/// Waits for one of these, for so long at most.
pub fn wait_for(fds: &[PollFd<'_>], at_most: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(at_most).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut fds.to_vec(), Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_ring_or_the_socket_ends_a_wait_and_a_ring_before_it_does_too() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let mut client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (socket, _) = listener.accept().expect("one is there");
        let (bell, started) = (Bell::new().expect("there is an fd"), Instant::now());
        bell.ring();
        bell.ring();
        bell.wait(&socket, LONG).expect("it waits");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while bell.state.load(Ordering::Acquire) != ASLEEP {
                    std::thread::yield_now();
                }
                bell.ring();
            });
            bell.wait(&socket, LONG).expect("it waits");
        });
        assert!(started.elapsed() < LONG);
        // What ended one wait does not end the next.
        let pause = Duration::from_millis(20);
        let before = Instant::now();
        bell.wait(&socket, pause).expect("it waits");
        assert!(before.elapsed() >= pause);
        client.write_all(b"x").expect("it is open");
        bell.wait(&socket, LONG).expect("it waits");
        assert!(started.elapsed() < LONG);
    }
}
