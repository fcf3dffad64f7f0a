//! Letters from an MQTT publisher, at QoS 0: a thread of its own, as a backend's is, that sends each when it is due.

use super::line::Line;
use super::{Order, Push, Shared};
use crate::fleet::squad::{Carriage, Mqtt, NUMBER_MARK, Reading, publish};
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::{self, Encode, FrameLen, Packet, Reason, Version};
use std::io::{Read, Write};
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

/// Start of the publisher's client id.
const PREFIX: &str = "source";
/// Half its keep-alive, for some servers take nobody without one: it sends all the time, and ends long before that.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// CONNACK must have come by then.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest CONNACK that is taken.
const ANSWER_BYTES_MAX: usize = 1 << 10;

/// The publisher's connection.
pub struct Publisher {
    line: Line,
    topic: &'static str,
    version: Version,
}

impl Publisher {
    /// Connects. In the topic `{n}` stands for the receiver's number.
    pub fn open(
        order: &Order,
        (topic, version): (&'static str, Version),
        shared: Arc<Shared>,
        builder: Thread,
    ) -> Result<Self, String> {
        let mut publisher = Self { line: Line::open(order, shared, builder).map_err(text)?, topic, version };
        publisher.introduce()?;
        Ok(publisher)
    }

    fn introduce(&mut self) -> Result<(), String> {
        let who = Mqtt {
            carriage: Carriage::Tcp,
            prefix: PREFIX.to_owned(),
            clean: true,
            heartbeat: Some(HEARTBEAT),
            subscription: None,
            reading: Reading::Freely,
        };
        let (version, stream, mut hello) = (self.version, &mut self.line.stream, Vec::new());
        who.connect(version, std::process::id(), None, |connect| connect.encode_to(version, &mut hello));
        stream.write_all(&hello).map_err(text)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let (mut answer, mut got) = ([0; ANSWER_BYTES_MAX], 0);
        loop {
            match mqtt::frame_len(&answer[..got], ANSWER_BYTES_MAX).map_err(|error| text(error.text()))? {
                FrameLen::Known { total_bytes, .. } if total_bytes <= got => {
                    let packet = mqtt::decode(version, &answer[..total_bytes]);
                    return match packet.map_err(|error| text(error.text()))? {
                        Packet::ConnAck(answer) if answer.reason == Reason::Success => Ok(()),
                        other => Err(format!("MQTT publisher: the server answers {other:?}")),
                    };
                }
                _ => got += stream.read(&mut answer[got..]).map_err(text).and_then(some)?,
            }
        }
    }

    /// At QoS 0 nothing is answered.
    pub fn send(&mut self, pushes: &[Push]) -> Result<(), String> {
        let (topic, version) = (self.topic, self.version);
        let encode = |push: &Push, out: &mut Vec<u8>| {
            let topic = topic.replace(NUMBER_MARK, &push.member.to_string());
            publish(&topic, Qos::AtMostOnce, 0, &push.payload).encode_to(version, out);
        };
        self.line.send(pushes, encode).map_err(text)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    format!("MQTT publisher: {error}")
}

fn some(count: usize) -> Result<usize, String> {
    if count == 0 { Err(text("the server has closed the connection")) } else { Ok(count) }
}
