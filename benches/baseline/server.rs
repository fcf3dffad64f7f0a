//! Holding and fanning out, a task per connection.
//!
//! It does what the load generator's `hold` and `fanout` ask for at QoS 0: CONNECT, SUBSCRIBE to exact topics, PUBLISH,
//! PINGREQ, DISCONNECT, with kittiwake's own codec, on one thread, with kittiwake's allocator. It does it well: a message
//! is encoded once, output of a connection is gathered while a write is under way and leaves in one, and input is read
//! into one buffer a connection.
//!
//! It leaves out what the gateway does besides: sessions, QoS 1 and 2, retained messages, wildcards, keep-alive deadlines,
//! bounds on what all connections take together, moving between threads. So it is ahead by what those cost, and behind by
//! what a task, a buffer under read and two wake-ups per message cost.

use kittiwake::base::ids::Qos;
use kittiwake::limits;
use kittiwake::wire::mqtt::suback::Reasons;
use kittiwake::wire::mqtt::{self, ConnAck, Encode, FrameLen, Packet, PingResp, Reason, SubAck, Version, frame_len};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio_uring::net::{TcpListener, TcpStream};

/// A read has to have its buffer while it waits: with a completion-based runtime an idle connection owns one. As small as
/// does not cost further reads at this load.
const READ_BYTES: usize = 512;
/// Submission entries: many connections are written to in one turn of the loop.
const RING_ENTRIES: u32 = 4_096;

type Topics = RefCell<HashMap<Box<str>, Vec<Rc<Outbox>>>>;

/// What waits to be written to a connection.
#[derive(Default)]
struct Outbox {
    bytes: RefCell<Vec<u8>>,
    news: Notify,
    closed: Cell<bool>,
}

impl Outbox {
    /// Drops what a client that does not read has no room for, as the gateway does by default.
    fn put(&self, frame: &[u8]) {
        let mut bytes = self.bytes.borrow_mut();
        if bytes.len() + frame.len() <= limits::OUTBOX_BYTES_MAX {
            let was_empty = bytes.is_empty();
            bytes.extend_from_slice(frame);
            if was_empty {
                self.news.notify_one();
            }
        }
    }
}

/// Serves until the process is ended.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    tokio_uring::builder().entries(RING_ENTRIES).start(async {
        let listener = TcpListener::bind(address)?;
        let topics: Rc<Topics> = Rc::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let topics = Rc::clone(&topics);
            tokio_uring::spawn(async move { hold(stream, &topics).await });
        }
    })
}

/// A connection's task.
async fn hold(stream: TcpStream, topics: &Topics) {
    let outbox: Rc<Outbox> = Rc::default();
    let mut subscriptions = Vec::new();
    // Whatever ends one ends the other: the peer has gone, or said something else than MQTT.
    tokio::select! {
        _ = read(&stream, &outbox, topics, &mut subscriptions) => {}
        _ = write(&stream, &outbox) => {}
    }
    outbox.closed.set(true);
    let mut topics = topics.borrow_mut();
    for topic in subscriptions {
        if let Some(subscribers) = topics.get_mut(&topic) {
            subscribers.retain(|subscriber| !subscriber.closed.get());
        }
    }
    // A shutdown also ends an operation that is still under way.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

async fn write(stream: &TcpStream, outbox: &Outbox) -> io::Result<()> {
    loop {
        let bytes = outbox.bytes.take();
        if bytes.is_empty() {
            outbox.news.notified().await;
        } else {
            stream.write_all(bytes).await.0?;
        }
    }
}

async fn read(
    stream: &TcpStream,
    outbox: &Rc<Outbox>,
    topics: &Topics,
    subscriptions: &mut Vec<Box<str>>,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    // What is left of a packet that has not come whole.
    let mut partial: Vec<u8> = Vec::new();
    let mut version = None;
    loop {
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        if result? == 0 {
            return Ok(());
        }
        let mut input = core::mem::take(&mut partial);
        let bytes = if input.is_empty() {
            &buffer[..]
        } else {
            input.extend_from_slice(&buffer);
            &input[..]
        };
        let mut at = 0;
        while let FrameLen::Known { total_bytes, .. } =
            frame_len(&bytes[at..], limits::PACKET_BYTES_MAX).map_err(wrong)?
        {
            let Some(frame) = bytes.get(at..at + total_bytes) else { break };
            let packet = mqtt::decode(version.unwrap_or(Version::V311), frame).map_err(wrong)?;
            if !handle(packet, &mut version, outbox, topics, subscriptions) {
                return Ok(());
            }
            at += total_bytes;
        }
        if at < bytes.len() {
            partial = bytes[at..].to_vec();
        }
        buffer.clear();
    }
}

fn wrong(error: mqtt::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// False: the connection ends.
fn handle(
    packet: Packet<'_>,
    version: &mut Option<Version>,
    outbox: &Rc<Outbox>,
    topics: &Topics,
    subscriptions: &mut Vec<Box<str>>,
) -> bool {
    let reply = |packet: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        packet(&mut bytes);
        outbox.put(&bytes);
    };
    match (packet, *version) {
        (Packet::Connect(connect), None) => {
            *version = Some(connect.version);
            let connack = ConnAck { session_present: false, reason: Reason::Success, properties: Default::default() };
            reply(&|bytes| connack.encode_to(connect.version, bytes));
        }
        (Packet::Subscribe(subscribe), Some(version)) => {
            let mut reasons = Vec::new();
            for filter in subscribe.filters.iter() {
                topics.borrow_mut().entry(filter.filter.into()).or_default().push(Rc::clone(outbox));
                subscriptions.push(filter.filter.into());
                reasons.push(Reason::Success);
            }
            let packet_id = subscribe.packet_id;
            let reasons = Reasons::borrowed(&reasons);
            let suback = SubAck { packet_id, properties: Default::default(), reasons };
            reply(&|bytes| suback.encode_to(version, bytes));
        }
        (Packet::Publish(mut publish), Some(version)) => {
            (publish.qos, publish.packet_id, publish.dup, publish.retain) = (Qos::AtMostOnce, None, false, false);
            let mut frame = Vec::new();
            publish.encode_to(version, &mut frame);
            if let Some(subscribers) = topics.borrow().get(publish.topic) {
                subscribers.iter().for_each(|subscriber| subscriber.put(&frame));
            }
        }
        (Packet::PingReq, Some(version)) => reply(&|bytes| PingResp.encode_to(version, bytes)),
        _ => return false,
    }
    true
}
