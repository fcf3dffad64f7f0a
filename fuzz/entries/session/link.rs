//! A connection, as its client sees it: what may be said to it, and when.

use kittiwake::base::ids::{ConnectionId, Offset, Qos, Seq};
use kittiwake::session::core::own_position::Standing;
use kittiwake::session::{DeliveryId, LoggedAt, Session};
use kittiwake::wire::mqtt::{AckKind, FrameLen, Packet, Reason, Version, decode, frame_len};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a client speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Mqtt(Version),
    /// An event stream.
    Events,
}

/// A connection, as its client sees it.
pub struct Link {
    pub connection: ConnectionId,
    pub speech: Speech,
    /// A close was asked for.
    pub is_closing: bool,
    pub is_paused: bool,
    pub is_greeted: bool,
    pub window: usize,
    pub bytes_max: usize,
    /// Deliveries it has not settled.
    pub held: BTreeMap<u16, Held>,
    /// Its own publishes that have no answer yet, per QoS.
    pub asked: [VecDeque<u16>; 2],
    /// What it said PUBREC to without holding it; 3.1.1 answers with a PUBREL like any other.
    pub stray: BTreeSet<u16>,
    /// Of an event stream: deliveries that wait for the socket, in their order.
    pub unsent: VecDeque<DeliveryId>,
    /// Of an event stream: what was logged for it and has not been handed to the socket.
    pub owed: Owed,
    /// Of an event stream: where it stood last.
    pub stood: Option<Standing>,
}

/// Entries of the log.
#[derive(Default)]
pub struct Owed {
    pub inbox: BTreeSet<Offset>,
    pub topics: BTreeSet<Seq>,
}

impl Owed {
    pub fn add(&mut self, at: LoggedAt) {
        match at {
            LoggedAt::Inbox(offset) => drop(self.inbox.insert(offset)),
            LoggedAt::Topics(seq) => drop(self.topics.insert(seq)),
            LoggedAt::Retained(_) | LoggedAt::Shared { .. } => {}
        }
    }

    pub fn settle(&mut self, at: LoggedAt) {
        match at {
            LoggedAt::Inbox(offset) => drop(self.inbox.remove(&offset)),
            LoggedAt::Topics(seq) => drop(self.topics.remove(&seq)),
            LoggedAt::Retained(_) | LoggedAt::Shared { .. } => {}
        }
    }
}

/// A delivery from its PUBLISH, or its PUBREL on a later connection, to its end.
#[derive(Clone, Copy)]
pub struct Held {
    pub qos: Qos,
    /// Its PUBLISH came over this connection, so that it counts against Receive Maximum.
    pub is_counted: bool,
    pub is_received: bool,
    pub is_released: bool,
}

impl Link {
    pub fn new(connection: ConnectionId, speech: Speech, window: usize, bytes_max: usize) -> Self {
        Self {
            connection,
            speech,
            is_closing: false,
            is_paused: false,
            is_greeted: false,
            window,
            bytes_max,
            held: BTreeMap::new(),
            asked: Default::default(),
            stray: BTreeSet::new(),
            unsent: VecDeque::new(),
            owed: Owed::default(),
            stood: None,
        }
    }

    /// It has had its answer, and nobody closes it.
    pub fn is_open(&self) -> bool {
        self.is_greeted && !self.is_closing
    }

    pub fn is_events(&self) -> bool {
        self.speech == Speech::Events
    }

    pub fn receives(&mut self, bytes: &[u8]) {
        assert!(!self.is_closing, "nothing is said after the end");
        match self.speech {
            Speech::Mqtt(version) => self.receives_packets(version, bytes),
            Speech::Events => self.receives_text(bytes),
        }
    }

    /// An answer, then whole lines.
    fn receives_text(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("an event stream is text");
        let is_head = text.starts_with("HTTP/1.1 ");
        assert_eq!(is_head, !self.is_greeted, "the head is the first and only then");
        // A refusal is closed behind its one answer.
        self.is_greeted = true;
        let is_stream = !is_head || text.starts_with("HTTP/1.1 200 ");
        assert!(!is_stream || text.ends_with("\n\n"), "blocks are sent whole");
    }

    /// Where the client would go on if it came back now.
    pub fn stands(&mut self, session: &Session) {
        if !self.is_events() || !self.is_open() || !session.is_open() {
            return;
        }
        let now = session.standing(None);
        let Owed { inbox, topics } = &self.owed;
        assert!(inbox.first().is_none_or(|first| *first > now.inbox.1), "it stands behind {inbox:?}: {now:?}");
        assert!(topics.first().is_none_or(|first| *first > now.topics), "it stands behind {topics:?}: {now:?}");
        let before = self.stood.unwrap_or(now);
        assert!(
            before.topics <= now.topics && before.inbox.1 <= now.inbox.1,
            "it goes back from {before:?} to {now:?}"
        );
        self.stood = Some(now);
    }

    fn receives_packets(&mut self, version: Version, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            let Ok(FrameLen::Known { total_bytes, .. }) = frame_len(left, usize::MAX) else { panic!("{left:x?}") };
            let (frame, rest) = left.split_at(total_bytes);
            left = rest;
            assert!(frame.len() <= self.bytes_max, "{frame:x?} is larger than {}", self.bytes_max);
            let packet = decode(version, frame).expect("servers encode well");
            assert_eq!(matches!(packet, Packet::ConnAck(_)), !self.is_greeted, "CONNACK is the first and only then");
            self.is_greeted = true;
            let Packet::Ack(ack) = packet else { continue };
            let id = ack.packet_id.get();
            match ack.kind {
                AckKind::PubAck => assert_eq!(self.asked[0].pop_front(), Some(id), "answers have the publishes' order"),
                AckKind::PubRec => assert_eq!(self.asked[1].pop_front(), Some(id), "answers have the publishes' order"),
                AckKind::PubRel if ack.reason == Reason::Success && !self.stray.contains(&id) => {
                    let fresh = Held { qos: Qos::ExactlyOnce, is_counted: false, is_received: true, is_released: true };
                    let held = self.held.entry(id).or_insert(fresh);
                    assert!(held.qos == Qos::ExactlyOnce && held.is_received, "released before it was received");
                    held.is_released = true;
                }
                AckKind::PubRel | AckKind::PubComp => {}
            }
        }
    }

    /// What the client says, before the session hears it.
    pub fn says(&mut self, frame: &[u8]) {
        let Speech::Mqtt(version) = self.speech else { panic!("an event stream's client says nothing") };
        match decode(version, frame) {
            Ok(Packet::Publish(publish)) if publish.qos > Qos::AtMostOnce => {
                let id = publish.packet_id.expect("it goes with the QoS").get();
                self.asked[publish.qos as usize - 1].push_back(id);
            }
            Ok(Packet::Ack(ack)) => {
                let id = ack.packet_id.get();
                let Some(held) = self.held.get_mut(&id) else {
                    self.stray.insert(id);
                    return;
                };
                if ack.kind == AckKind::PubRec && held.qos != Qos::ExactlyOnce {
                    self.stray.insert(id);
                }
                // From here on the session may use the identifier for another message.
                let is_over = match (ack.kind, held.qos) {
                    (AckKind::PubAck, Qos::AtLeastOnce) => true,
                    (AckKind::PubRec, Qos::ExactlyOnce) => ack.reason.is_error() && !held.is_received,
                    (AckKind::PubComp, Qos::ExactlyOnce) => held.is_released,
                    _ => false,
                };
                if is_over {
                    self.held.remove(&id);
                } else if ack.kind == AckKind::PubRec && held.qos == Qos::ExactlyOnce {
                    held.is_received = true;
                }
            }
            _ => {}
        }
    }

    pub fn takes(&mut self, delivery: DeliveryId, qos: Qos, dup: bool) {
        assert!(self.is_greeted && !self.is_closing, "a message is for an open connection");
        self.stray.remove(&delivery.0);
        let held = Held { qos, is_counted: true, is_received: false, is_released: false };
        assert!(self.held.insert(delivery.0, held).is_none(), "an identifier in use is not given again, dup: {dup}");
        let counted = self.held.values().filter(|held| held.is_counted).count();
        if self.is_events() {
            assert!(qos == Qos::AtLeastOnce && !dup, "a new session sends nothing twice");
            self.unsent.push_back(delivery);
        }
        assert!(counted <= self.window, "{counted} messages in flight, but the client takes {}", self.window);
    }
}
