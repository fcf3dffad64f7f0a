//! A client's half of the conversation: what it holds, what it waits for, and what it checks of every frame.

use crate::client::{Client, Traits, publish_of};
use crate::coverage::Seen;
use crate::ledger::{Ledger, MessageId, Subscription};
use kittiwake::base::ids::Qos;
use kittiwake::io::sim::Random;
use kittiwake::wire::mqtt::{
    Ack, AckKind, ConnAck, Encode, FrameLen, Packet, PacketId, Publish, Reason, RetainHandling, Version, decode,
    frame_len,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::rc::Rc;

/// A publish on its way to the server.
#[derive(Clone, Debug)]
pub struct Out {
    pub id: MessageId,
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: Qos,
    pub retain: bool,
    /// QoS 2: PUBREC has come.
    pub released: bool,
}

/// One SUBSCRIBE or UNSUBSCRIBE at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    Nothing,
    SubAck(PacketId, String, Qos),
    UnsubAck(PacketId),
}

pub struct Conversation {
    traits: Traits,
    ledger: Rc<RefCell<Ledger>>,
    version: Version,
    pub outgoing: Vec<u8>,
    incoming: Vec<u8>,
    connack: bool,
    /// CONNECT was sent and not answered.
    is_greeting: bool,
    /// CONNACK has confirmed the session, so that it must be there next time.
    confirmed: bool,
    clean_start: bool,
    may_have_expired: bool,
    pub waiting: Waiting,
    /// The server has said why it closes, so what was said last was not heard.
    pub was_closed: bool,
    /// The SUBSCRIBE under way asks for what is retained.
    must_come: bool,
    last_packet_id: u16,
    /// In the order of first sending.
    flights: VecDeque<(PacketId, Out)>,
    /// Sent on this connection and not answered, in order, by QoS.
    unanswered: [VecDeque<PacketId>; 2],
    /// QoS 2 identifiers received and not released, with their message.
    held: BTreeMap<PacketId, MessageId>,
    /// Acknowledgements to be sent.
    acks: Vec<(AckKind, PacketId)>,
    /// Deliveries of this connection that are not acknowledged to their end.
    outstanding: BTreeSet<PacketId>,
}

impl Conversation {
    pub fn new(traits: Traits, ledger: Rc<RefCell<Ledger>>) -> Self {
        Self {
            version: traits.version,
            traits,
            ledger,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            connack: false,
            is_greeting: false,
            confirmed: false,
            clean_start: false,
            may_have_expired: false,
            waiting: Waiting::Nothing,
            was_closed: false,
            must_come: false,
            last_packet_id: 0,
            flights: VecDeque::new(),
            unanswered: Default::default(),
            held: BTreeMap::new(),
            acks: Vec::new(),
            outstanding: BTreeSet::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.connack
    }

    pub fn is_opening(&self) -> bool {
        self.is_greeting && self.traits.durable
    }

    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    pub fn is_settled(&self) -> bool {
        self.connack
            && self.flights.is_empty()
            && self.acks.is_empty()
            && self.held.is_empty()
            && self.outgoing.is_empty()
            && self.waiting == Waiting::Nothing
    }

    pub fn send(&mut self, packet: &(impl Encode + Debug)) {
        self.ledger.borrow().tell(|| format!("client {}: says {packet:?}", self.traits.index));
        packet.encode_to(self.version, &mut self.outgoing);
    }

    /// A connection begins.
    pub fn greet(&mut self, clean_start: bool, may_have_expired: bool) {
        self.is_greeting = true;
        self.must_come = false;
        self.was_closed = false;
        self.clean_start = clean_start;
        self.may_have_expired = may_have_expired;
    }

    /// From now on sessions end with their connections.
    pub fn make_clean(&mut self) {
        self.traits.durable = false;
        self.ledger.borrow_mut().lives[self.traits.index].durable = false;
    }

    /// The connection is gone; a durable session keeps what MQTT says a client keeps.
    pub fn disconnected(&mut self) {
        self.ledger.borrow().tell(|| format!("client {}: disconnected", self.traits.index));
        self.ledger.borrow_mut().lives[self.traits.index].share.connection += 1;
        self.connack = false;
        self.is_greeting = false;
        self.outgoing.clear();
        self.incoming.clear();
        self.acks.clear();
        self.outstanding.clear();
        self.unanswered.iter_mut().for_each(VecDeque::clear);
        self.waiting = Waiting::Nothing;
        if !self.traits.durable {
            self.forget();
        }
    }

    /// The session is over.
    pub fn forget(&mut self) {
        self.confirmed = false;
        self.flights.clear();
        self.held.clear();
        self.ledger.borrow_mut().end_life(self.traits.index);
    }

    pub fn next_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id % 40 + 1;
            let id = PacketId::new(self.last_packet_id).expect("it is at least 1");
            let waits = matches!(self.waiting, Waiting::SubAck(other, ..) | Waiting::UnsubAck(other) if other == id);
            if !waits && self.flights.iter().all(|(other, _)| *other != id) {
                return id;
            }
        }
    }

    pub fn publish(&mut self, out: Out) {
        self.ledger.borrow().tell(|| format!("client {}: publishes m{}", self.traits.index, out.id));
        self.ledger.borrow_mut().sent(out.id);
        if out.qos == Qos::AtMostOnce {
            return publish_of(&out, None, false, self.version, &mut self.outgoing);
        }
        let id = self.next_packet_id();
        publish_of(&out, Some(id), false, self.version, &mut self.outgoing);
        self.unanswered[out.qos as usize - 1].push_back(id);
        self.flights.push_back((id, out));
    }

    /// True: the client did not have this filter.
    pub fn begin_subscribe(&mut self, wanted: Subscription) -> bool {
        let ledger = &mut *self.ledger.borrow_mut();
        let life = &mut ledger.lives[self.traits.index];
        if let Some(at) = life.subscriptions.iter().position(|known| known.filter == wanted.filter) {
            life.subscriptions[at] = wanted;
            // At another QoS what is under way may come at either.
            ledger.forgive(self.traits.index);
            return false;
        }
        life.subscriptions.push(wanted);
        true
    }

    /// What is retained is to come for the SUBSCRIBE that is about to be sent, or not.
    pub fn begin_retained(&mut self, filter: &str, handling: RetainHandling, is_new: bool) {
        // A filter that was asked for on a connection that broke may be new to the server, or not.
        let may_come = handling != RetainHandling::DoNotSend;
        let must_come = handling == RetainHandling::Send || handling == RetainHandling::SendIfNew && is_new;
        self.must_come = must_come;
        if may_come {
            self.ledger.borrow_mut().asks_retained(self.traits.index, filter);
        }
    }

    pub fn begin_unsubscribe(&mut self, filter: &str) {
        let ledger = &mut *self.ledger.borrow_mut();
        let life = &mut ledger.lives[self.traits.index];
        life.subscriptions.retain(|known| known.filter != filter);
        life.has_unsubscribed = true;
        life.share.connection += 1;
        ledger.forgive(self.traits.index);
    }

    pub fn some_filter(&self, random: &mut Random) -> Option<String> {
        let ledger = self.ledger.borrow();
        let known = &ledger.lives[self.traits.index].subscriptions;
        (!known.is_empty()).then(|| known[random.below(known.len() as u64) as usize].filter.clone())
    }

    /// Sends one of the acknowledgements that are due, whichever; false: there was none.
    pub fn acknowledge(&mut self, random: &mut Random) -> bool {
        if self.acks.is_empty() {
            return false;
        }
        let (kind, id) = self.acks.swap_remove(random.below(self.acks.len() as u64) as usize);
        if matches!(kind, AckKind::PubAck | AckKind::PubComp) {
            self.outstanding.remove(&id);
        }
        self.send(&Client::ack(kind, id));
        true
    }

    /// Bytes from the server.
    pub fn received(&mut self, bytes: &[u8]) {
        self.incoming.extend_from_slice(bytes);
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = &incoming[..];
        loop {
            let length = frame_len(rest, usize::MAX).expect("the server sends frames");
            let FrameLen::Known { total_bytes, .. } = length else { break };
            if total_bytes > rest.len() {
                break;
            }
            let (frame, behind) = rest.split_at(total_bytes);
            rest = behind;
            let packet = decode(self.version, frame).expect("the server sends valid frames");
            self.packet(&packet);
        }
        self.incoming = rest.to_vec();
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        let client = self.traits.index;
        self.ledger.borrow().tell(|| format!("client {client}: hears {packet:?}"));
        if let Packet::ConnAck(connack) = packet {
            return self.on_connack(connack);
        }
        assert!(self.connack, "client {client}: {packet:?} before CONNACK");
        match packet {
            Packet::Publish(publish) => self.on_publish(publish),
            Packet::Ack(ack) => self.on_ack(ack),
            Packet::SubAck(suback) => {
                let Waiting::SubAck(id, filter, qos) = std::mem::replace(&mut self.waiting, Waiting::Nothing) else {
                    panic!("client {client}: a SUBACK nobody waits for");
                };
                assert_eq!(suback.packet_id, id, "client {client}: another SUBSCRIBE's SUBACK");
                let codes: Vec<u8> = suback.reasons.iter().map(Reason::code).collect();
                assert_eq!(codes, [qos as u8], "client {client}: SUBACK of {filter}");
                let ledger = &mut *self.ledger.borrow_mut();
                let known = &mut ledger.lives[client].subscriptions;
                let known = known.iter_mut().find(|known| known.filter == filter).expect("it was asked for");
                known.acked = true;
                ledger.check_suback(client, &filter);
                if self.must_come {
                    ledger.owes_retained(client, &filter, qos);
                }
            }
            Packet::UnsubAck(unsuback) => {
                let waited = std::mem::replace(&mut self.waiting, Waiting::Nothing);
                assert_eq!(waited, Waiting::UnsubAck(unsuback.packet_id), "client {client}");
                // What came before this was given before the server knew.
                self.ledger.borrow_mut().lives[client].share.connection += 1;
            }
            Packet::PingResp => {}
            Packet::Disconnect(goodbye) => {
                let expected = [
                    Reason::SessionTakenOver,
                    Reason::KeepAliveTimeout,
                    Reason::ImplementationSpecific,
                    Reason::QuotaExceeded,
                ];
                assert!(expected.contains(&goodbye.reason), "client {client}: {goodbye:?}");
                self.was_closed = true;
                if goodbye.reason == Reason::KeepAliveTimeout {
                    self.ledger.borrow_mut().coverage.hit(Seen::KeepAliveEnded);
                }
            }
            other => panic!("client {client}: a server does not send {other:?}"),
        }
    }

    fn on_connack(&mut self, connack: &ConnAck<'_>) {
        let client = self.traits.index;
        assert!(!self.connack, "client {client}: a second CONNACK");
        if connack.reason != Reason::Success {
            assert_eq!(connack.reason, Reason::ServerUnavailable, "client {client}: refused");
            return;
        }
        self.connack = true;
        self.is_greeting = false;
        let present = connack.session_present;
        assert!(!(self.clean_start && present), "client {client}: a session after a clean start");
        if self.traits.durable {
            self.ledger.borrow_mut().check_connack(client);
        }
        if self.confirmed && !present {
            assert!(self.may_have_expired, "client {client}: its session is lost");
            self.ledger.borrow_mut().coverage.hit(Seen::SessionExpired);
            self.forget();
        }
        self.confirmed = self.traits.durable;
        if present {
            self.ledger.borrow_mut().coverage.hit(Seen::SessionResumed);
        }
        for at in 0..self.flights.len() {
            let (id, out) = self.flights[at].clone();
            if out.released {
                self.send(&Ack::success(AckKind::PubRel, id));
            } else {
                let mut ledger = self.ledger.borrow_mut();
                ledger.sent(out.id);
                ledger.coverage.hit(Seen::DuplicatePublish);
                drop(ledger);
                publish_of(&out, Some(id), true, self.version, &mut self.outgoing);
                self.unanswered[out.qos as usize - 1].push_back(id);
            }
        }
    }

    fn on_publish(&mut self, publish: &Publish<'_>) {
        let client = self.traits.index;
        if publish.topic == "$inbox/$gap" {
            return self.ledger.borrow_mut().coverage.hit(Seen::GapNotice);
        }
        let message = if publish.payload.is_empty() { 0 } else { Ledger::payload_id(publish.payload) };
        if publish.dup && message > 0 && !publish.retain {
            self.ledger.borrow_mut().sent_again(message);
        }
        let Some(id) = publish.packet_id else { return self.delivered(publish) };
        assert!(self.outstanding.insert(id), "client {client}: m{message} under the identifier {id}, which is in use");
        assert!(
            self.outstanding.len() <= usize::from(self.traits.receive_maximum),
            "client {client}: more than its receive maximum"
        );
        if self.outstanding.len() == usize::from(self.traits.receive_maximum) {
            self.ledger.borrow_mut().coverage.hit(Seen::WindowFull);
        }
        let kind = if publish.qos == Qos::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        match self.held.get(&id) {
            Some(&known) => {
                assert_eq!(known, message, "client {client}: identifier {id} names two messages");
                assert!(publish.dup && publish.qos == Qos::ExactlyOnce, "client {client}: {id} again without DUP");
            }
            None => {
                self.delivered(publish);
                if publish.qos == Qos::ExactlyOnce {
                    self.held.insert(id, message);
                }
            }
        }
        self.acks.push((kind, id));
    }

    /// The application has it. Of an empty one, which leaves nothing retained, nobody keeps account.
    fn delivered(&self, publish: &Publish<'_>) {
        let (client, ledger) = (self.traits.index, &mut *self.ledger.borrow_mut());
        if publish.topic.starts_with("$work/") {
            return ledger.delivered_share(client, publish.topic, publish.payload, publish.qos);
        }
        match (publish.payload.is_empty(), publish.retain) {
            (true, retain) => assert!(!retain, "client {client}: an empty message is not retained"),
            (false, true) => {
                ledger.delivered_retained(client, publish.topic, publish.payload, publish.qos, publish.dup);
            }
            (false, false) => ledger.delivered(client, publish.topic, publish.payload, publish.qos),
        }
    }

    fn on_ack(&mut self, ack: &Ack<'_>) {
        let (client, id) = (self.traits.index, ack.packet_id);
        if ack.kind == AckKind::PubRel {
            self.held.remove(&id);
            // Told twice, on a new connection, it is answered once.
            self.acks.retain(|due| *due != (AckKind::PubComp, id));
            return self.acks.push((AckKind::PubComp, id));
        }
        let at = self.flights.iter().position(|(other, _)| *other == id);
        let at = at.unwrap_or_else(|| panic!("client {client}: {ack:?} answers nothing"));
        let out = &mut self.flights[at].1;
        let (qos, released) = match ack.kind {
            AckKind::PubAck => (Qos::AtLeastOnce, false),
            AckKind::PubRec => (Qos::ExactlyOnce, false),
            _ => (Qos::ExactlyOnce, true),
        };
        assert_eq!((out.qos, out.released), (qos, released), "client {client}: {ack:?} does not fit {out:?}");
        if released {
            self.flights.remove(at);
            return;
        }
        let first = self.unanswered[qos as usize - 1].pop_front();
        assert_eq!(first, Some(id), "client {client}: acknowledgements leave in the order of the publishes");
        if ack.reason.is_error() {
            self.flights.remove(at);
            return;
        }
        self.ledger.borrow_mut().acked(out.id);
        if qos == Qos::AtLeastOnce {
            self.flights.remove(at);
        } else {
            out.released = true;
            self.send(&Ack::success(AckKind::PubRel, id));
        }
    }
}
