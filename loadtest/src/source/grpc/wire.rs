//! A socket as HTTP/2 wants it, for a thread that asks again by itself: nothing ever wakes a task. And when it is read.

use super::LOOK_FOR_ANSWERS;
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whether the socket is read: whoever has just sent looks for answers now and then, not each time.
#[derive(Debug)]
pub struct Ear(Cell<Instant>);

impl Ear {
    pub fn new() -> Rc<Self> {
        Rc::new(Self(Cell::new(Instant::now())))
    }

    /// The next read is done.
    pub fn listen(&self) {
        self.0.set(Instant::now());
    }

    /// No read is done before so much time has passed.
    fn close(&self) {
        self.0.set(Instant::now() + LOOK_FOR_ANSWERS);
    }

    /// Puts a read off that would be done now; whether there is one.
    pub fn put_off(&self) -> bool {
        let is_open = self.is_open();
        if is_open {
            self.close();
        }
        is_open
    }

    fn is_open(&self) -> bool {
        Instant::now() >= self.0.get()
    }
}

/// See the module.
pub struct Wire {
    socket: TcpStream,
    ear: Rc<Ear>,
}

impl Wire {
    pub fn new(socket: TcpStream, ear: Rc<Ear>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, ear })
    }
}

/// Not now is later.
fn later<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ear.is_open() {
            return Poll::Pending;
        }
        let room = into.initialize_unfilled();
        let room_bytes = room.len();
        let read = self.socket.read(room);
        // What did not fill the room was all there is.
        if !matches!(read, Ok(count) if count == 0 || count == room_bytes) {
            self.ear.close();
        }
        later(read.map(|count| into.advance(count)))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        later((&self.socket).write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        later((&self.socket).write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        later(self.socket.shutdown(std::net::Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_read_that_is_due_is_put_off_once_and_then_not_due_for_a_while() {
        let ear = Ear::new();
        assert!(ear.is_open() && ear.put_off());
        ear.0.set(Instant::now() + Duration::from_secs(20));
        let next = ear.0.get();
        assert!(!ear.is_open() && !ear.put_off());
        // Whoever sends all the time does not put it off for ever.
        assert_eq!(ear.0.get(), next);
        ear.listen();
        assert!(ear.is_open());
    }
}
