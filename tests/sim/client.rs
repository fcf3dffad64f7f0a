//! Devices: correct MQTT clients on bad phones.

use crate::client_state::{Conversation, Out, Waiting};
use crate::coverage::Seen;
use crate::ledger::{Aim, Author, Ledger, Subscription};
use kittiwake::base::ids::Qos;
use kittiwake::io::sim::{Peer, PeerState, Random, SimNet};
use kittiwake::wire::mqtt::{
    Ack, AckKind, Connect, Disconnect, Encode, Filter, FilterNames, Filters, PacketId, PingReq, Publish, Reason,
    RetainHandling, Subscribe, Unsubscribe, Version,
};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

/// What clients publish to and subscribe to.
const TOPICS: [&str; 5] = ["a", "rooms/1", "rooms/2", "rooms/1/x", "news"];
const FILTERS: [&str; 10] =
    ["a", "rooms/1", "rooms/+", "rooms/#", "#", "news", "$inbox/#", "$inbox/orders/+", "kept/+", "kept/2"];
/// Of clients with an even and an odd number: each is in one group at most.
pub const SHARES: [&str; 2] = ["$share/even/$work/+", "$share/odd/$work/+"];
/// What they publish to with RETAIN, and only so.
const KEPT: [&str; 4] = ["kept/1", "kept/2", "kept/3", "kept"];
/// Session expiry of durable MQTT 5 clients, seconds: shorter than a long absence in a run.
const EXPIRY: u32 = 60;
/// A clean start that was not answered may still be taken in for this long.
const SETTLES_MS: u64 = 15_000;

/// What of a client never changes.
#[derive(Clone, Debug)]
pub struct Traits {
    pub index: usize,
    pub user: String,
    pub device: String,
    pub version: Version,
    pub durable: bool,
    pub receive_maximum: u16,
    pub keep_alive: u16,
}

pub struct Client {
    pub traits: Traits,
    net: SimNet,
    address: SocketAddr,
    ledger: Rc<RefCell<Ledger>>,
    peer: Option<Peer>,
    /// Connections it has given up without closing them.
    abandoned: Vec<Peer>,
    pub talk: Conversation,
    not_before_ms: u64,
    reads: bool,
    last_sent_ms: u64,
    last_open_ms: u64,
    clean_start: bool,
    /// A clean start was sent and its fate is unknown.
    clean_pending: bool,
    /// It has said goodbye for good.
    is_leaving: bool,
}

/// What the world lets clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Anything.
    Wild,
    /// Come back, read and acknowledge everything.
    Good,
}

impl Client {
    pub fn new(traits: Traits, net: &SimNet, address: SocketAddr, ledger: &Rc<RefCell<Ledger>>) -> Self {
        Self {
            talk: Conversation::new(traits.clone(), Rc::clone(ledger)),
            traits,
            net: net.clone(),
            address,
            ledger: Rc::clone(ledger),
            peer: None,
            abandoned: Vec::new(),
            not_before_ms: 0,
            reads: true,
            last_sent_ms: 0,
            last_open_ms: 0,
            clean_start: false,
            clean_pending: false,
            is_leaving: false,
        }
    }

    /// Something, or nothing.
    pub fn act(&mut self, random: &mut Random, mood: Mood) {
        let now_ms = self.net.now().monotonic_ms;
        if self.peer.is_none() {
            if now_ms >= self.not_before_ms && (mood == Mood::Good || random.below(3) == 0) {
                self.connect(random, mood);
            }
            return;
        }
        if mood == Mood::Good {
            self.reads = true;
            self.abandoned.clear();
        } else if !self.abandoned.is_empty() && random.below(8) == 0 {
            self.drop_abandoned(random);
        }
        if self.reads {
            self.read();
        }
        if self.peer.is_none() {
            return;
        }
        if self.talk.is_open() {
            self.last_open_ms = now_ms;
            match mood {
                Mood::Good => while self.talk.acknowledge(random) {},
                Mood::Wild => self.be_wild(random),
            }
        } else if mood == Mood::Wild && random.below(60) == 0 {
            self.leave(random);
        }
        let half_ms = u64::from(self.traits.keep_alive) * 500;
        if half_ms > 0 && self.talk.is_open() && now_ms >= self.last_sent_ms + half_ms {
            let must = mood == Mood::Good || random.below(3) > 0;
            if must {
                self.talk.send(&PingReq);
            }
        }
        self.flush();
    }

    fn be_wild(&mut self, random: &mut Random) {
        match random.below(100) {
            0..30 => drop(self.talk.acknowledge(random)),
            30..55 => self.publish(random),
            55..67 => self.subscribe(random),
            67..69 => self.unsubscribe(random),
            69..71 => {
                self.reads = !self.reads;
                if !self.reads {
                    self.ledger.borrow_mut().coverage.hit(Seen::StoppedReading);
                }
            }
            71..74 => self.leave(random),
            74..75 => self.goodbye(random),
            75..76 => {
                // Another connection of the same device, while this one is still there.
                self.ledger.borrow_mut().coverage.hit(Seen::TakenOver);
                let peer = self.peer.take().expect("it is connected");
                self.abandoned.push(peer);
                self.gone();
                self.not_before_ms = 0;
                self.connect(random, Mood::Wild);
            }
            _ => {}
        }
    }

    fn connect(&mut self, random: &mut Random, mood: Mood) {
        let now_ms = self.net.now().monotonic_ms;
        let durable = self.traits.durable;
        // A deliberate clean start of a durable session: all is forgotten on both sides.
        // With 3.1.1 the next session would not be one that lasts.
        let forget = durable
            && self.traits.version == Version::V5
            && mood == Mood::Wild
            && self.abandoned.is_empty()
            && random.below(12) == 0;
        if forget {
            self.ledger.borrow_mut().coverage.hit(Seen::CleanStart);
            self.talk.forget();
        }
        // Until it is answered, the session of before may still be there.
        self.clean_pending |= forget;
        self.clean_start = !durable || self.clean_pending;
        let away_ms = now_ms - self.last_open_ms.min(now_ms);
        self.talk.greet(self.clean_start, self.traits.version == Version::V5 && away_ms > u64::from(EXPIRY) * 1_000);
        self.peer = Some(Peer::connect(&self.net, self.address));
        self.reads = true;
        let mut connect = Connect::new(self.traits.version, &self.traits.device);
        connect.clean_start = self.clean_start;
        connect.user_name = Some(&self.traits.user);
        connect.keep_alive_seconds = self.traits.keep_alive;
        if self.traits.version == Version::V5 {
            connect.properties.session_expiry_seconds = durable.then_some(EXPIRY);
            connect.properties.receive_maximum = core::num::NonZeroU16::new(self.traits.receive_maximum);
        }
        self.talk.send(&connect);
        self.flush();
    }

    /// Reads what has come, and notices the end.
    fn read(&mut self) {
        let Some(peer) = self.peer.as_mut() else { return };
        let bytes = peer.read_all();
        let state = peer.state();
        self.talk.received(&bytes);
        self.clean_pending &= !self.talk.is_open();
        if matches!(state, PeerState::Dead | PeerState::Ended) {
            self.peer = None;
            self.gone();
        }
    }

    fn gone(&mut self) {
        let now_ms = self.net.now().monotonic_ms;
        if self.talk.is_open() {
            self.last_open_ms = now_ms;
        }
        self.not_before_ms = now_ms + if self.clean_pending { SETTLES_MS } else { 1 };
        self.talk.disconnected();
    }

    fn flush(&mut self) {
        let Some(peer) = self.peer.as_mut() else { return };
        if self.talk.outgoing.is_empty() {
            return;
        }
        if let Ok(count) = peer.write(&self.talk.outgoing) {
            self.talk.outgoing.drain(..count);
            self.last_sent_ms = self.net.now().monotonic_ms;
        }
    }

    /// Ends the connection in one of the ways in which connections end.
    fn leave(&mut self, random: &mut Random) {
        let Some(peer) = self.peer.take() else { return };
        match random.below(3) {
            0 => peer.close(),
            1 => peer.reset(),
            _ => peer.vanish(),
        }
        self.gone();
        if random.below(20) == 0 {
            self.not_before_ms += 70_000;
        } else if random.below(4) == 0 {
            self.not_before_ms += random.within(1, 5_000);
        }
    }

    fn drop_abandoned(&mut self, random: &mut Random) {
        let at = random.below(self.abandoned.len() as u64) as usize;
        let peer = self.abandoned.swap_remove(at);
        match random.below(3) {
            0 => peer.close(),
            1 => peer.reset(),
            _ => peer.vanish(),
        }
    }

    /// DISCONNECT, then an orderly end.
    fn goodbye(&mut self, random: &mut Random) {
        self.talk.send(&Disconnect::new(Reason::Success));
        self.flush();
        if self.talk.outgoing.is_empty() {
            self.peer.take().expect("it is connected").close();
            self.gone();
            self.not_before_ms += random.within(1, 1_000);
        } else {
            self.leave(random);
        }
    }

    fn publish(&mut self, random: &mut Random) {
        if self.talk.flights() >= 8 {
            return;
        }
        let retain = random.below(6) == 0;
        let topics = if retain { &KEPT[..] } else { &TOPICS[..] };
        let topic = topics[random.below(topics.len() as u64) as usize];
        let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][random.below(3) as usize];
        let padding = if random.below(40) == 0 { 5_000 } else { random.below(30) as usize };
        let (id, mut payload) =
            self.ledger.borrow_mut().begin(Author::Client(self.traits.index), Aim::Topic, topic, qos, padding);
        if padding >= 4_096 {
            self.ledger.borrow_mut().coverage.hit(Seen::LargePayload);
        }
        if retain && random.below(6) == 0 {
            payload.clear();
            self.ledger.borrow_mut().empties(id);
        }
        let out = Out { id, topic: topic.to_owned(), payload, qos, retain, released: false };
        self.talk.publish(out);
    }

    fn subscribe(&mut self, random: &mut Random) {
        if self.talk.waiting != Waiting::Nothing {
            return;
        }
        let shared = random.below(6) == 0;
        let filter = match shared {
            true => SHARES[self.traits.index % 2],
            false => FILTERS[random.below(FILTERS.len() as u64) as usize],
        };
        let wanted = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce][random.below(4) as usize];
        let qos = if shared { Qos::AtLeastOnce } else { wanted };
        let is_new = self.talk.begin_subscribe(Subscription { filter: filter.to_owned(), qos, acked: false });
        let packet_id = self.talk.next_packet_id();
        self.talk.waiting = Waiting::SubAck(packet_id, filter.to_owned(), qos);
        let mut filters = [Filter::new(filter, qos)];
        if self.traits.version == Version::V5 {
            filters[0].retain_handling =
                [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][random.below(3) as usize];
        }
        if !shared {
            self.talk.begin_retained(filter, filters[0].retain_handling, is_new);
        }
        self.talk.send(&Subscribe { packet_id, properties: Default::default(), filters: Filters::borrowed(&filters) });
    }

    fn unsubscribe(&mut self, random: &mut Random) {
        let Some(filter) = self.talk.some_filter(random) else { return };
        if self.talk.waiting != Waiting::Nothing {
            return;
        }
        self.talk.begin_unsubscribe(&filter);
        let packet_id = self.talk.next_packet_id();
        self.talk.waiting = Waiting::UnsubAck(packet_id);
        let names = [filter.as_str()];
        self.talk.send(&Unsubscribe {
            packet_id,
            properties: Default::default(),
            filters: FilterNames::borrowed(&names),
        });
    }

    /// Whether it is connected and has nothing more to say or hear.
    pub fn is_settled(&self) -> bool {
        self.peer.is_some() && self.talk.is_settled()
    }

    pub fn close_abandoned(&mut self) {
        self.abandoned.clear();
    }

    /// Leaves for good: first its session has to go.
    pub fn end(&mut self) -> bool {
        if self.is_leaving {
            // To close at once could reset the connection before its goodbye was read.
            self.read();
            if self.peer.is_none() && self.talk.was_closed {
                // Its goodbye came too late.
                self.is_leaving = false;
                self.not_before_ms = 0;
                return false;
            }
            return self.peer.is_none();
        }
        if self.peer.is_none() {
            self.talk.forget();
            self.clean_start = true;
            self.traits.durable = false;
            self.talk.make_clean();
            self.connect(&mut Random::new(0), Mood::Good);
            return false;
        }
        self.read();
        self.flush();
        if self.peer.is_none() || !self.talk.is_open() {
            return false;
        }
        let mut goodbye = Disconnect::new(Reason::Success);
        if self.traits.durable {
            if self.traits.version == Version::V311 {
                // 3.1.1 cannot shorten its session; it comes again with a clean one.
                self.peer.take().expect("it is connected").close();
                self.gone();
                self.not_before_ms = 0;
                return false;
            }
            self.ledger.borrow_mut().coverage.hit(Seen::GoodbyeWithExpiry);
            goodbye.properties.session_expiry_seconds = Some(3);
        }
        self.talk.send(&goodbye);
        self.flush();
        self.is_leaving = self.talk.outgoing.is_empty();
        false
    }

    /// An acknowledgement as bytes.
    pub fn ack(kind: AckKind, id: PacketId) -> Ack<'static> {
        Ack::success(kind, id)
    }
}

/// Encodes a PUBLISH.
pub fn publish_of(out: &Out, packet_id: Option<PacketId>, dup: bool, version: Version, into: &mut Vec<u8>) {
    let publish = Publish {
        dup,
        qos: out.qos,
        retain: out.retain,
        topic: &out.topic,
        packet_id,
        properties: Default::default(),
        payload: &out.payload,
    };
    publish.encode_to(version, into);
}
