//! What it gives to pack a payload once for all its receivers, its PUBLISH's head apart, beside packing each receiver's
//! whole PUBLISH by itself: the thread's CPU time and the bytes of a delivery over WebSocket, at the level of the codec.
//! All ways in turns, medians with their quartiles. `cargo bench -p benches --bench deflate`.
//!
//! ```text
//!   apart   WebSocket head │ head of the PUBLISH ║ packed: payload      packed once, copied for each, as the gateway does
//!   each    packed: the whole PUBLISH                                   packed for each: its packet identifier is inside
//!   shared  packed: the whole PUBLISH                                   packed once, copied for each: at QoS 0 alone
//!   plain   WebSocket head │ the whole PUBLISH                          copied for each
//! ```

#![allow(missing_docs, reason = "a benchmark")]

use kittiwake::base::ids::Qos;
use kittiwake::base::transform::Unpacked;
use kittiwake::wire::mqtt::{Encode, PacketId, Publish, PublishLayout, Version};
use kittiwake::wire::websocket::{Deflater, HEAD_BYTES_MAX, Inflater, Opcode, encode_head};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

/// As the gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that get a message; a fan-out's visits of a turn.
const RECEIVERS: u16 = 64;
/// Stretches of each way, in turns with those of the others, after one that warms up.
const ROUNDS: usize = 41;
/// Messages of a stretch.
const MESSAGES: u32 = 8;
const PAYLOAD_BYTES: [usize; 3] = [256, 1_024, 4_096];
const TOPIC: &str = "rooms/42/events";
const VERSION: Version = Version::V5;
/// The first byte of a packed frame that is whole: FIN and RSV1, binary.
const PACKED_BINARY: u8 = 0xc2;

/// How a message becomes what its receivers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Apart,
    Each,
    Shared,
    Plain,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Apart => "payload packed once, head apart",
            Self::Each => "whole PUBLISH packed for each",
            Self::Shared => "whole PUBLISH packed once",
            Self::Plain => "not packed",
        }
    }

    /// Those that a QoS allows.
    fn of(qos: Qos) -> &'static [Self] {
        match qos {
            Qos::AtMostOnce => &[Self::Apart, Self::Each, Self::Shared, Self::Plain],
            _ => &[Self::Apart, Self::Each, Self::Plain],
        }
    }
}

/// A message and what is used again for each of its deliveries.
struct Sender {
    qos: Qos,
    payload: Vec<u8>,
    whole: Vec<u8>,
    layout: PublishLayout,
    deflater: Deflater,
    /// What is the same for all receivers but for the identifier in it.
    model: Vec<u8>,
    out: Vec<u8>,
}

impl Sender {
    fn new(qos: Qos, payload: Vec<u8>) -> Self {
        let packet_id = (qos != Qos::AtMostOnce).then_some(PacketId::MIN);
        let (properties, dup, retain) = (Default::default(), false, false);
        let publish = Publish { dup, qos, retain, topic: TOPIC, packet_id, properties, payload: &payload };
        let mut whole = Vec::new();
        publish.encode_to(VERSION, &mut whole);
        let layout = publish.encode_head(VERSION, &mut whole);
        let (model, out) = (Vec::new(), Vec::with_capacity(16 << 10));
        Self { qos, payload, whole, layout, deflater: Deflater::default(), model, out }
    }

    /// Makes a message's deliveries to all receivers, one after the other in one buffer; their bytes in all.
    fn deliver(&mut self, way: Way) -> usize {
        self.model.clear();
        let mut head = [0; HEAD_BYTES_MAX];
        // Where the PUBLISH begins in the model.
        let mut content = 0;
        match way {
            Way::Apart => {
                let bytes = self.layout.head_bytes;
                content = encode_head(true, Opcode::Binary, None, bytes as u64, &mut head);
                self.model.extend_from_slice(&head[..content]);
                self.model.extend_from_slice(&self.whole[..bytes]);
                assert!(self.deflater.deflate(Opcode::Binary, &self.payload, &mut self.model), "it becomes smaller");
            }
            Way::Shared => {
                assert!(self.deflater.deflate(Opcode::Binary, &self.whole, &mut self.model), "it becomes smaller");
            }
            Way::Plain => {
                content = encode_head(true, Opcode::Binary, None, self.whole.len() as u64, &mut head);
                self.model.extend_from_slice(&head[..content]);
                self.model.extend_from_slice(&self.whole);
            }
            Way::Each => {}
        }
        let mut bytes = 0;
        for receiver in 1..=RECEIVERS {
            let id = PacketId::new(receiver).filter(|_| self.qos != Qos::AtMostOnce);
            self.out.clear();
            match way {
                Way::Each => {
                    self.layout.patch(&mut self.whole, id, false, false);
                    assert!(self.deflater.deflate(Opcode::Binary, &self.whole, &mut self.out), "it becomes smaller");
                }
                Way::Shared => self.out.extend_from_slice(&self.model),
                Way::Apart | Way::Plain => {
                    self.out.extend_from_slice(&self.model);
                    self.layout.patch(&mut self.out[content..], id, false, false);
                }
            }
            bytes += black_box(&self.out).len();
        }
        bytes
    }

    /// The last receiver's PUBLISH, read back.
    fn received(&self) -> Vec<u8> {
        let (mut publish, mut rest) = (Vec::new(), &self.out[..]);
        while !rest.is_empty() {
            let (head, length) = match rest[1] {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                short => (2, usize::from(short)),
            };
            let (frame, behind) = rest.split_at(head + length);
            if frame[0] == PACKED_BINARY {
                let mut unpacked = vec![0; self.whole.len() + 1];
                let Unpacked::Whole(bytes) = Inflater::default().inflate(&frame[head..], &mut unpacked) else {
                    panic!("it was packed here");
                };
                publish.extend_from_slice(&unpacked[..bytes]);
            } else {
                publish.extend_from_slice(&frame[head..]);
            }
            rest = behind;
        }
        publish
    }
}

/// JSON as events have it: the same names again and again, and numbers that differ. Exactly so long.
fn json(bytes: usize) -> Vec<u8> {
    let (mut text, mut word) = (String::from("{\"events\":["), 0x9e37_79b9_7f4a_7c15_u64);
    while text.len() < bytes {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let (order, price, state) = (word % 1_000_000, word >> 40, ["open", "paid", "sent"][(word % 3) as usize]);
        write!(text, "{{\"order\":{order},\"price_cents\":{price},\"state\":\"{state}\",\"currency\":\"EUR\"}},")
            .expect("memory takes it");
    }
    text.truncate(bytes - 1);
    text.push('}');
    text.into_bytes()
}

/// This thread's CPU time: what else the machine does is not in it.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Median and quartiles.
fn spread(figures: &mut [f64]) -> (f64, f64, f64) {
    figures.sort_by(f64::total_cmp);
    let at = |part: usize| figures[(figures.len() - 1) * part / 4];
    (at(2), at(1), at(3))
}

fn main() {
    println!("{:<44} {:>8} {:>26} {:>24}", "", "bytes", "CPU, ns a delivery", "× payload once, apart");
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        for payload_bytes in PAYLOAD_BYTES {
            compare(qos, payload_bytes);
        }
    }
}

/// All ways of one kind of message, in turns.
fn compare(qos: Qos, payload_bytes: usize) {
    let mut senders: Vec<_> = Way::of(qos).iter().map(|&way| (way, Sender::new(qos, json(payload_bytes)))).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); senders.len()];
    for round in 0..=ROUNDS {
        for ((way, sender), times) in senders.iter_mut().zip(&mut times) {
            let before = cpu();
            for _ in 0..MESSAGES {
                black_box(sender.deliver(*way));
            }
            let deliveries = f64::from(MESSAGES) * f64::from(RECEIVERS);
            if round > 0 {
                times.push((cpu() - before).as_secs_f64() * 1e9 / deliveries);
            }
        }
    }
    let apart = times[0].clone();
    for ((way, sender), times) in senders.iter_mut().zip(&mut times) {
        let bytes = sender.deliver(*way) as f64 / f64::from(RECEIVERS);
        let id = PacketId::new(RECEIVERS).filter(|_| qos != Qos::AtMostOnce);
        sender.layout.patch(&mut sender.whole, id, false, false);
        assert_eq!(sender.received(), sender.whole, "{way:?} arrives as it was sent");
        let mut ratios: Vec<f64> = times.iter().zip(&apart).map(|(time, apart)| time / apart).collect();
        let ((time, low, high), (ratio, ratio_low, ratio_high)) = (spread(times), spread(&mut ratios));
        println!(
            "QoS {}, {payload_bytes:>5}, {:<31} {bytes:>8.1} {time:>10.0} [{low:>6.0} .. {high:>6.0}] {ratio:>7.2} [{ratio_low:.2} .. {ratio_high:.2}]",
            qos as u8,
            way.name()
        );
    }
}
