//! A socket that letters are written to and that answers nothing.

use super::{Order, Push, Shared};
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::Thread;

/// The connection, and whom to tell that letters have left.
pub struct Line {
    pub stream: TcpStream,
    shared: Arc<Shared>,
    builder: Thread,
    buffer: Vec<u8>,
}

impl Line {
    pub fn open(order: &Order, shared: Arc<Shared>, builder: Thread) -> io::Result<Self> {
        let stream = TcpStream::connect(order.api)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, shared, builder, buffer: Vec::new() })
    }

    /// Writes all of them at once, each as it is told. What has left is answered, since nothing else will.
    pub fn send(&mut self, pushes: &[Push], encode: impl Fn(&Push, &mut Vec<u8>)) -> io::Result<()> {
        self.buffer.clear();
        pushes.iter().for_each(|push| encode(push, &mut self.buffer));
        self.stream.write_all(&self.buffer)?;
        pushes.iter().for_each(|push| self.shared.answered(&self.builder, push.due, None));
        Ok(())
    }
}
