//! Letters to the floor's sockets: each a PUBLISH as the gateway would send it, for the floor to hand on as it is.

use super::{Order, Push, Shared};
use crate::fleet::squad::publish;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{Encode, Version};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::Thread;

/// The connection that the floor listens to.
pub struct Wire {
    stream: TcpStream,
    topic: &'static str,
    version: Version,
    shared: Arc<Shared>,
    builder: Thread,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn open(
        order: &Order,
        (topic, version): (&'static str, Version),
        shared: Arc<Shared>,
        builder: Thread,
    ) -> Result<Self, String> {
        let stream = TcpStream::connect(order.api).and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|error| format!("the floor: {error}"))?;
        Ok(Self { stream, topic, version, shared, builder, buffer: Vec::new() })
    }

    /// Each letter behind its socket's number and its length. The floor answers nothing, so none waits for an answer.
    pub fn send(&mut self, pushes: &[Push]) -> Result<(), String> {
        self.buffer.clear();
        for push in pushes {
            let packet = publish(self.topic, Qos::AtMostOnce, 0, &push.payload);
            let bytes = packet.encoded_len(self.version);
            self.buffer.extend_from_slice(&push.member.to_be_bytes());
            self.buffer.extend_from_slice(&(bytes as u32).to_be_bytes());
            packet.encode_to(self.version, &mut self.buffer);
        }
        self.stream.write_all(&self.buffer).map_err(|error| format!("the floor: {error}"))?;
        for push in pushes {
            self.shared.answered(&self.builder, push.due, None);
        }
        Ok(())
    }
}
