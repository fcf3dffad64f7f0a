//! A client's half of the conversation: what it holds, what it waits for, and what it checks of every frame.

use crate::client::{Client, EXPIRY, Traits, publish_of};
use crate::coverage::Seen;
use crate::ledger::{Ledger, MessageId, Subscription};
use kittiwake::base::clock::Now;
use kittiwake::base::ids::Qos;
use kittiwake::io::sim::Random;
use kittiwake::wire::mqtt::properties::TopicAlias;
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
    /// Seconds it lives.
    pub ttl: Option<u32>,
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
    /// The step at which the last CONNECT or SUBSCRIBE was sent.
    asked_at: usize,
    /// When the CONNECT of this connection was sent, and of the last one that was accepted.
    began_ms: u64,
    accepted_ms: u64,
    /// The session cannot be there any more, unless the node has died since.
    pub must_have_expired: bool,
    /// The server has said that it closes this connection.
    was_cast_out: bool,
    /// It has closed it because of a goodbye.
    pub goodbye_heard: bool,
    /// The last time at which the server had nothing in its outbox: when this connection began, or later.
    pub quiet_at: Option<Now>,
    /// Topics by alias, on this connection.
    aliases: [Option<String>; 3],
    pub waiting: Waiting,
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
            asked_at: 0,
            began_ms: 0,
            accepted_ms: 0,
            must_have_expired: false,
            was_cast_out: false,
            goodbye_heard: false,
            quiet_at: None,
            aliases: Default::default(),
            waiting: Waiting::Nothing,
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

    /// Its session may have expired, and a CONNECT was sent since that nobody has answered.
    pub fn is_unsure(&self, expiry: u32, now_ms: u64) -> bool {
        let may_be_over = now_ms > self.accepted_ms + u64::from(expiry) * 1_000
            || self.ledger.borrow().restarted_in_other_time(self.accepted_ms);
        self.confirmed && self.began_ms > self.accepted_ms && may_be_over
    }

    /// A connection begins.
    pub fn greet(&mut self, clean_start: bool, may_have_expired: bool, now: Now) {
        self.asked_at = self.ledger.borrow().step;
        self.began_ms = now.monotonic_ms;
        self.is_greeting = true;
        self.must_come = false;
        self.clean_start = clean_start;
        self.may_have_expired = may_have_expired;
        self.was_cast_out = false;
        self.goodbye_heard = false;
        // What comes on it without DUP is sent for the first time, and on no earlier connection.
        self.quiet_at = Some(now);
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
        self.aliases = Default::default();
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

    /// DISCONNECT is on its way.
    pub fn part(&mut self) {
        self.ledger.borrow_mut().wills.part(self.traits.index);
    }

    /// The server closed because of a goodbye.
    pub fn goodbye_was_heard(&mut self, now_ms: u64) {
        // 3.1.1 is not told of other reasons.
        if self.version == Version::V5 && !self.was_cast_out && self.connack {
            self.goodbye_heard = true;
            self.ledger.borrow_mut().goodbye_was_heard(self.traits.index, now_ms);
        }
    }

    /// The topic as the PUBLISH says it: in full, with an alias for later, or by the alias alone.
    fn aliased(&mut self, topic: &str, alias: Option<u16>) -> (String, Option<TopicAlias>) {
        let Some(alias) = alias else { return (topic.to_owned(), None) };
        let known = &mut self.aliases[usize::from(alias) - 1];
        let text = if known.as_deref() == Some(topic) { String::new() } else { topic.to_owned() };
        *known = Some(topic.to_owned());
        if text.is_empty() {
            self.ledger.borrow_mut().coverage.hit(Seen::TopicByAlias);
        }
        (text, core::num::NonZeroU16::new(alias).map(TopicAlias))
    }

    pub fn publish(&mut self, out: Out, alias: Option<u16>) {
        self.ledger.borrow().tell(|| format!("client {}: publishes m{}", self.traits.index, out.id));
        self.ledger.borrow_mut().sent(out.id);
        let (topic, alias) = self.aliased(&out.topic, alias);
        if out.qos == Qos::AtMostOnce {
            return publish_of(&out, None, false, (&topic, alias), self.version, &mut self.outgoing);
        }
        let id = self.next_packet_id();
        publish_of(&out, Some(id), false, (&topic, alias), self.version, &mut self.outgoing);
        self.unanswered[out.qos as usize - 1].push_back(id);
        self.flights.push_back((id, out));
    }

    /// True: the client did not have this filter.
    pub fn begin_subscribe(&mut self, wanted: Subscription) -> bool {
        let ledger = &mut *self.ledger.borrow_mut();
        self.asked_at = ledger.step;
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
    pub fn received(&mut self, bytes: &[u8], now: Now) {
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
            if let Some(most) = self.traits.packet_bytes_max {
                assert!(frame.len() <= most as usize, "client {}: {packet:?} is too large", self.traits.index);
            }
            self.packet(&packet, now);
        }
        self.incoming = rest.to_vec();
    }

    fn packet(&mut self, packet: &Packet<'_>, now: Now) {
        let client = self.traits.index;
        self.ledger.borrow().tell(|| format!("client {client}: hears {packet:?}"));
        if let Packet::ConnAck(connack) = packet {
            return self.on_connack(connack, now.monotonic_ms);
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
                ledger.check_suback(client, &filter, self.asked_at);
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
                    Reason::ServerShuttingDown,
                ];
                self.was_cast_out = true;
                assert!(expected.contains(&goodbye.reason), "client {client}: {goodbye:?}");
                if goodbye.reason == Reason::KeepAliveTimeout {
                    self.ledger.borrow_mut().coverage.hit(Seen::KeepAliveEnded);
                }
            }
            other => panic!("client {client}: a server does not send {other:?}"),
        }
    }

    fn on_connack(&mut self, connack: &ConnAck<'_>, now_ms: u64) {
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
            self.ledger.borrow_mut().check_connack(client, self.asked_at);
        }
        if self.must_have_expired && self.traits.is_wide {
            let ledger = &mut *self.ledger.borrow_mut();
            let is_sure = self.confirmed && !ledger.wills.node_died_since_accepted(client);
            assert!(!(is_sure && present), "client {client}: its session has not expired");
            if is_sure {
                ledger.coverage.hit(Seen::SessionExpiredInTime);
            }
        }
        self.ledger.borrow_mut().accepted(client, present, now_ms);
        // A short expiry may run out while answers and goodbyes are on their way.
        let is_short = self.traits.expiry < EXPIRY && self.version == Version::V5;
        let may_be_over = is_short && now_ms > self.accepted_ms + u64::from(self.traits.expiry) * 1_000;
        // How long it was away before a restart only the wall clock tells.
        let may_be_over = may_be_over
            || self.version == Version::V5 && self.ledger.borrow().restarted_in_other_time(self.accepted_ms);
        self.accepted_ms = self.began_ms;
        if self.confirmed && !present {
            assert!(self.may_have_expired || may_be_over, "client {client}: its session is lost");
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
                publish_of(&out, Some(id), true, (&out.topic, None), self.version, &mut self.outgoing);
                self.unanswered[out.qos as usize - 1].push_back(id);
            }
        }
    }

    fn heard_of_gap(&self, gap: &str) {
        if gap.contains("kept_from") {
            self.ledger.borrow_mut().coverage.hit(Seen::TopicGapTold);
        }
    }

    fn on_publish(&mut self, publish: &Publish<'_>) {
        let client = self.traits.index;
        if publish.topic == "$inbox/$gap" {
            self.heard_of_gap(&String::from_utf8_lossy(publish.payload));
            return self.ledger.borrow_mut().coverage.hit(Seen::GapNotice);
        }
        for (_, gap) in publish.properties.user.iter().filter(|(name, _)| *name == "gap") {
            self.heard_of_gap(gap);
            self.ledger.borrow_mut().coverage.hit(Seen::GapNamed);
        }
        let message = if publish.payload.is_empty() { 0 } else { Ledger::payload_id(publish.payload) };
        if self.version == Version::V5 && message > 0 {
            let expiry = publish.properties.message_expiry_seconds;
            self.ledger.borrow_mut().check_expiry(client, message, expiry, self.quiet_at.filter(|_| !publish.dup));
        }
        if publish.dup && publish.qos == Qos::ExactlyOnce && publish.topic.starts_with("$work/") {
            self.ledger.borrow_mut().coverage.hit(Seen::SharedTwiceSentAgain);
        }
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
            if self.outstanding.len() == 1 {
                self.ledger.borrow_mut().coverage.hit(Seen::ReceiveMaximumOneFull);
            }
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
