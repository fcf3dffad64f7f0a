//! Letters to the floor's sockets: each a PUBLISH as the gateway would send it, for the floor to hand on as it is.

use super::line::Line;
use super::{Order, Push, Shared};
use crate::fleet::squad::publish;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{Encode, Version};
use std::sync::Arc;
use std::thread::Thread;

/// The connection that the floor listens to.
pub struct Wire {
    line: Line,
    topic: &'static str,
    version: Version,
}

impl Wire {
    pub fn open(
        order: &Order,
        (topic, version): (&'static str, Version),
        shared: Arc<Shared>,
        builder: Thread,
    ) -> Result<Self, String> {
        Ok(Self { line: Line::open(order, shared, builder).map_err(text)?, topic, version })
    }

    /// Each letter behind its socket's number and its length.
    pub fn send(&mut self, pushes: &[Push]) -> Result<(), String> {
        let (topic, version) = (self.topic, self.version);
        let encode = |push: &Push, out: &mut Vec<u8>| {
            let packet = publish(topic, Qos::AtMostOnce, 0, &push.payload);
            let bytes = packet.encoded_len(version);
            out.extend_from_slice(&push.member.to_be_bytes());
            out.extend_from_slice(&(bytes as u32).to_be_bytes());
            packet.encode_to(version, out);
        };
        self.line.send(pushes, encode).map_err(text)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    format!("the floor: {error}")
}
