//! A whole node over the simulated network: bytes of several connections, pushes, held commits, time. Whatever comes, a
//! bystander is served, nobody is sent what is no packet, and when all have left nothing is held.

use super::draw::Draw;
use crate::client::{Client, Got, Hello};
use crate::node::Node;
use crate::packets::with_packet;
use kittiwake::base::ids::Qos;
use kittiwake::shard::command::Target;
use kittiwake::wire::mqtt::{AckKind, Encode, PingReq, Version};

const CLIENTS: usize = 4;
const OPERATIONS_MAX: usize = 120;
const NAMES: [&str; 3] = ["ann", "bob", ""];

struct Peer {
    client: Client,
    version: Version,
    /// What it is sent is read as packets of its version.
    is_read: bool,
}

/// Runs what `bytes` say on a fresh node.
pub fn run(bytes: &[u8]) {
    let draw = &mut Draw(bytes);
    let (shards, packet_bytes) = (1 + u16::from(draw.flag()), draw.pick(&[256 << 10, 1_024, 60]));
    let node = Node::with(shards, |limits| {
        limits.connections = 16;
        limits.packet_bytes = packet_bytes;
    });
    let mut bystander = node.hello(&Hello::lasting("bystander").keep_alive(0));
    bystander.subscribe(&[("$inbox/#", Qos::AtLeastOnce)]);
    let mut peers: [Option<Peer>; CLIENTS] = Default::default();
    let mut holds = false;
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = draw.next() else { break };
        let peer = &mut peers[usize::from(operation >> 6)];
        match operation & 0x0F {
            0 => *peer = Some(greeted(&node, draw)),
            1 => {
                let client = node.dial();
                *peer = Some(Peer { client, version: Version::V5, is_read: false });
            }
            2..=6 => send_packet(peer, draw),
            7 => send_raw(peer, draw),
            8 => push(&node, draw),
            9 => {
                let topic = draw.pick(&["a", "a/b", "rooms/42"]);
                let qos = draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
                let _ = node.start_push(Target::Topic(topic.into()), draw.bytes(20), qos, |_| {});
                node.run();
            }
            10 => node.advance(u64::from(draw.byte()) * 40),
            11 if holds => {
                node.release_commits();
                holds = false;
            }
            11 => {
                node.hold_commits();
                holds = true;
            }
            12 | 13 => answer(peer, draw),
            14 => leave(peer.take(), draw),
            _ => read(peer),
        }
    }
    node.release_commits();
    for peer in &mut peers {
        read(peer);
    }
    node.push_user("bystander", b"still there?", Qos::AtLeastOnce);
    assert!(takes_all(&mut bystander).iter().any(|payload| payload == b"still there?"));
    peers.into_iter().for_each(|peer| leave(peer, draw));
    bystander.bye();
    node.assert_at_rest();
}

/// Acknowledges what has come to the bystander, until nothing more does. What is for everyone may come behind its own.
fn takes_all(bystander: &mut Client) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    bystander.send_packet(&PingReq);
    let mut is_answered = false;
    loop {
        match bystander.next() {
            Some(Got::Publish(arrived)) => {
                if arrived.id > 0 {
                    bystander.puback(arrived.id);
                }
                payloads.push(arrived.payload);
            }
            Some(Got::PingResp) => is_answered = true,
            Some(other) => panic!("it is owed messages and an answer, not {other:?}"),
            None => break,
        }
    }
    assert!(is_answered);
    payloads
}

/// A client that says a proper CONNECT.
fn greeted(node: &Node, draw: &mut Draw<'_>) -> Peer {
    let name = draw.pick(&NAMES);
    let mut hello = if draw.flag() { Hello::v5(name) } else { Hello::v3(name) };
    hello = hello.clean(name.is_empty() || draw.flag()).keep_alive(draw.pick(&[0, 0, 5]));
    let version = hello.0.version;
    if version == Version::V5 {
        hello = hello.expiry(draw.pick(&[0, 10, 3_600])).alias_maximum(draw.pick(&[0, 2]));
        hello = hello.receive_maximum(draw.pick(&[1, 3, 100])).packet_bytes(draw.pick(&[1 << 20, 80, 6]));
    }
    let mut client = node.dial();
    client.hello(&hello);
    Peer { client, version, is_read: true }
}

/// A valid packet of its version, or one with a byte changed.
fn send_packet(peer: &mut Option<Peer>, draw: &mut Draw<'_>) {
    let Some(Peer { client, version, .. }) = peer else { return };
    let spoil = draw.byte();
    let mut frame = with_packet(*version, draw.bytes(24), |packet| {
        let mut frame = Vec::new();
        packet.encode_to(*version, &mut frame);
        frame
    });
    if spoil >= 240 {
        let at = usize::from(draw.byte()) % frame.len();
        frame[at] ^= draw.byte();
    }
    let cut = if spoil & 7 == 0 { usize::from(draw.byte()) % (frame.len() + 1) } else { frame.len() };
    client.send(&frame[..cut]);
    client.send(&frame[cut..]);
}

fn send_raw(peer: &mut Option<Peer>, draw: &mut Draw<'_>) {
    if let Some(Peer { client, .. }) = peer {
        client.send(draw.bytes(60));
    }
}

fn push(node: &Node, draw: &mut Draw<'_>) {
    let target = match draw.below(4) {
        0 => Target::Everyone,
        1 => Target::Users(vec!["ann".into(), "bob".into(), "nobody".into()]),
        2 => Target::Device { user: "ann".into(), device: "ann".into() },
        _ => Target::User(draw.pick(&["ann", "bob"]).into()),
    };
    let qos = draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
    let _ = node.start_push(target, draw.bytes(20), qos, |_| {});
    node.run();
}

/// Reads what has come and acknowledges some of it.
fn answer(peer: &mut Option<Peer>, draw: &mut Draw<'_>) {
    let Some(Peer { client, is_read: true, .. }) = peer else { return read(peer) };
    for got in client.all() {
        match got {
            Got::Publish(arrived) if arrived.qos == Qos::AtLeastOnce && draw.flag() => client.puback(arrived.id),
            Got::Publish(arrived) if arrived.qos == Qos::ExactlyOnce => client.ack(AckKind::PubRec, arrived.id),
            Got::PubRec(id, code) if code < 0x80 => client.ack(AckKind::PubRel, id),
            Got::PubRel(id, _) if draw.flag() => client.ack(AckKind::PubComp, id),
            _ => {}
        }
    }
}

fn read(peer: &mut Option<Peer>) {
    // Bytes of nobody knows which version stay where they are.
    if let Some(Peer { client, is_read: true, .. }) = peer {
        client.all();
    }
}

fn leave(peer: Option<Peer>, draw: &mut Draw<'_>) {
    let Some(Peer { client, .. }) = peer else { return };
    match draw.below(3) {
        0 => client.bye(),
        1 => client.reset(),
        _ => client.hang_up(),
    }
}
