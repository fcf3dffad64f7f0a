//! Devices: correct MQTT clients on bad phones.

use crate::client_state::{Conversation, Out, Waiting};
use crate::coverage::Seen;
use crate::ledger::{Aim, Author, Ledger, Subscription};
use kittiwake::base::ids::Qos;
use kittiwake::io::sim::{Peer, PeerState, Random, SimNet};
use kittiwake::wire::mqtt::properties::TopicAlias;
use kittiwake::wire::mqtt::{
    Ack, AckKind, Connect, Disconnect, Encode, Filter, FilterNames, Filters, PacketId, PingReq, Publish, Reason,
    RetainHandling, Subscribe, Unsubscribe, Version, Will,
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
pub const EXPIRY: u32 = 60;
/// Who has found nothing to read for so long has emptied the server's outbox.
const QUIET_MS: u64 = 3_000;
/// A server ends what it was told of, and a will is published and committed, within this of being due.
const SLACK_MS: u64 = 10_000;
/// Message expiries, seconds: some run out in a run, some never do.
pub const TTLS: [u32; 3] = [1, 5, 864_000];
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
    /// Seconds for which its session outlives its connection, if it is durable.
    pub expiry: u32,
    pub packet_bytes_max: Option<u32>,
    /// It does all that clients can do; otherwise what earlier runs knew.
    pub is_wide: bool,
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
    /// It has said goodbye and waits for the server to close: then that was heard.
    is_parting: bool,
    /// It has found nothing to read since then.
    quiet_since_ms: Option<u64>,
    /// When the server knows at the latest that the last connection is over.
    ended_by_ms: Option<u64>,
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
            is_parting: false,
            quiet_since_ms: None,
            ended_by_ms: None,
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
        if self.is_parting {
            // A connection that is cut tells nothing.
            if random.below(40) == 0 {
                self.leave(random);
            }
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
        let is_v5 = self.traits.version == Version::V5;
        let unsure = self.traits.is_wide && durable && is_v5 && self.talk.is_unsure(self.traits.expiry, now_ms);
        if unsure && !forget {
            // It cannot tell its session from one that an unanswered CONNECT has made since that one expired.
            self.talk.forget();
        }
        let forget = forget || unsure;
        // Until it is answered, the session of before may still be there.
        self.clean_pending |= forget;
        self.clean_start = !durable || self.clean_pending;
        let away_ms = now_ms - self.last_open_ms.min(now_ms);
        let expiry_ms = u64::from(self.traits.expiry) * 1_000;
        self.talk.greet(self.clean_start, self.traits.version == Version::V5 && away_ms > expiry_ms, self.net.now());
        let is_alone = self.abandoned.is_empty();
        let ended_by_ms = self.ended_by_ms.filter(|_| is_alone);
        let expired_by_ms = ended_by_ms.map(|at_ms| at_ms + expiry_ms + SLACK_MS);
        self.talk.must_have_expired =
            self.traits.version == Version::V5 && expired_by_ms.is_some_and(|at_ms| at_ms < now_ms);
        if self.clean_start {
            self.ledger.borrow_mut().wills.clean_start(self.traits.index);
        }
        self.peer = Some(Peer::connect(&self.net, self.address));
        self.reads = true;
        let will = self.make_will(random, ended_by_ms);
        let mut connect = Connect::new(self.traits.version, &self.traits.device);
        connect.clean_start = self.clean_start;
        connect.user_name = Some(&self.traits.user);
        connect.keep_alive_seconds = self.traits.keep_alive;
        if self.traits.version == Version::V5 {
            connect.properties.session_expiry_seconds = durable.then_some(self.traits.expiry);
            connect.properties.receive_maximum = core::num::NonZeroU16::new(self.traits.receive_maximum);
            connect.properties.maximum_packet_bytes = self.traits.packet_bytes_max.and_then(core::num::NonZeroU32::new);
        }
        connect.will = will.as_ref().map(MadeWill::borrowed);
        self.talk.send(&connect);
        self.flush();
    }

    /// A will for the connection that begins, or none.
    fn make_will(&mut self, random: &mut Random, ended_by_ms: Option<u64>) -> Option<MadeWill> {
        let (now_ms, is_alone) = (self.net.now().monotonic_ms, self.abandoned.is_empty());
        if !self.traits.is_wide || random.below(2) == 0 {
            self.ledger.borrow_mut().wills.connect(self.traits.index, now_ms, None, ended_by_ms, is_alone);
            return None;
        }
        let topic = ["wills/0", "wills/1"][random.below(2) as usize];
        let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][random.below(2) as usize];
        let is_v5 = self.traits.version == Version::V5;
        let delay = if is_v5 { [0, 0, 1, 5, 100][random.below(5) as usize] } else { 0 };
        let ledger = &mut *self.ledger.borrow_mut();
        let (id, payload) = ledger.begin_will(self.traits.index, topic, qos);
        let expiry = if self.traits.durable { self.traits.expiry } else { 0 };
        // 3.1.1's last for a week, if they last.
        let expiry = if is_v5 || !self.traits.durable { expiry } else { u32::MAX };
        ledger.wills.connect(self.traits.index, now_ms, Some((id, delay, expiry)), ended_by_ms, is_alone);
        Some(MadeWill { topic, qos, delay: (is_v5 && delay > 0).then_some(delay), payload })
    }

    /// Reads what has come, and notices the end.
    fn read(&mut self) {
        let Some(peer) = self.peer.as_mut() else { return };
        let bytes = peer.read_all();
        let state = peer.state();
        let now = self.net.now();
        let quiet_since_ms = self.quiet_since_ms.take().unwrap_or(now.monotonic_ms);
        if bytes.is_empty() && self.talk.is_open() {
            self.quiet_since_ms = Some(quiet_since_ms);
            if now.monotonic_ms >= quiet_since_ms + QUIET_MS {
                self.talk.quiet_at = Some(now);
            }
        }
        self.talk.received(&bytes, now);
        self.clean_pending &= !self.talk.is_open();
        if matches!(state, PeerState::Dead | PeerState::Ended) {
            self.peer = None;
            let was_refused = state == PeerState::Dead && !self.talk.is_open();
            if (self.is_parting || self.is_leaving) && state == PeerState::Ended {
                self.talk.goodbye_was_heard(self.net.now().monotonic_ms);
            }
            self.gone();
            if was_refused && self.traits.is_wide {
                // Nobody listens while a node is drained.
                self.not_before_ms += 200;
            }
        }
    }

    fn gone(&mut self) {
        let now_ms = self.net.now().monotonic_ms;
        if self.talk.is_open() {
            self.last_open_ms = now_ms;
        }
        self.not_before_ms = now_ms + if self.clean_pending { SETTLES_MS } else { 1 };
        self.is_parting = false;
        self.quiet_since_ms = None;
        // Whoever sends nothing is noticed by its keep alive, or not at all.
        let keep_alive_ms = u64::from(self.traits.keep_alive) * 1_500;
        self.ended_by_ms = (keep_alive_ms > 0).then(|| now_ms + keep_alive_ms);
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
        let how = random.below(3);
        match how {
            0 => peer.close(),
            1 => peer.reset(),
            _ => peer.vanish(),
        }
        self.gone();
        if how < 2 {
            self.ended_by_ms = Some(self.net.now().monotonic_ms);
        }
        if random.below(20) == 0 {
            self.not_before_ms += 70_000;
        } else if random.below(4) == 0 {
            let is_short = self.traits.is_wide && self.traits.expiry < EXPIRY;
            // Long enough for a short expiry to run out.
            self.not_before_ms += random.within(1, if is_short { 40_000 } else { 5_000 });
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
        self.talk.part();
        self.flush();
        if self.talk.outgoing.is_empty() && self.traits.is_wide && random.below(4) > 0 {
            self.is_parting = true;
        } else if self.talk.outgoing.is_empty() {
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
        let mut out = Out { id, topic: topic.to_owned(), payload, qos, retain, released: false, ttl: None };
        let mut alias = None;
        if self.traits.is_wide && self.traits.version == Version::V5 && !retain {
            out.ttl = (random.below(3) == 0).then(|| TTLS[random.below(3) as usize]);
            alias = (random.below(2) == 0).then(|| random.within(1, 3) as u16);
        }
        if let Some(seconds) = out.ttl {
            self.ledger.borrow_mut().mortal(id, u64::from(seconds) * 1_000, None);
        }
        self.talk.publish(out, alias);
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
        let handling =
            [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][random.below(3) as usize];
        let qos = match (shared, self.traits.is_wide) {
            (false, _) => wanted,
            (true, false) => Qos::AtLeastOnce,
            // One group is granted QoS 2 alone, the other this and that.
            (true, true) if self.traits.index % 2 == 1 => Qos::ExactlyOnce,
            (true, true) => wanted.max(Qos::AtLeastOnce),
        };
        if shared {
            self.ledger.borrow_mut().asks_share(self.traits.index, qos);
        }
        self.subscribe_to(filter, qos, handling);
    }

    fn subscribe_to(&mut self, filter: &str, qos: Qos, handling: RetainHandling) {
        let shared = filter.starts_with("$share/");
        let is_new = self.talk.begin_subscribe(Subscription { filter: filter.to_owned(), qos, acked: false });
        let packet_id = self.talk.next_packet_id();
        self.talk.waiting = Waiting::SubAck(packet_id, filter.to_owned(), qos);
        let mut filters = [Filter::new(filter, qos)];
        if self.traits.version == Version::V5 {
            filters[0].retain_handling = handling;
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

    /// Does what it takes to subscribe to a filter.
    pub fn watch(&mut self, random: &mut Random, filter: &str) {
        self.act(random, Mood::Good);
        let is_asked = self.talk.waiting != Waiting::Nothing || !self.talk.is_open();
        if !is_asked && !self.has_subscribed(filter) {
            self.subscribe_to(filter, Qos::ExactlyOnce, RetainHandling::Send);
            self.flush();
        }
    }

    /// Gives one of its filters up, if it has any.
    pub fn unwatch(&mut self, random: &mut Random) {
        self.act(random, Mood::Good);
        if self.talk.is_open() {
            self.unsubscribe(random);
            self.flush();
        }
    }

    pub fn has_subscribed(&self, filter: &str) -> bool {
        let ledger = self.ledger.borrow();
        ledger.lives[self.traits.index].subscriptions.iter().any(|known| known.acked && known.filter == filter)
    }

    /// Closes its connection.
    pub fn hang_up(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.close();
            self.gone();
        }
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
            let must_be_heard = self.traits.durable && self.traits.version == Version::V5;
            if self.peer.is_none() && must_be_heard && !self.talk.goodbye_heard {
                // The server had closed it before, for another reason.
                self.is_leaving = false;
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
        self.talk.part();
        self.flush();
        self.is_leaving = self.talk.outgoing.is_empty();
        false
    }

    /// An acknowledgement as bytes.
    pub fn ack(kind: AckKind, id: PacketId) -> Ack<'static> {
        Ack::success(kind, id)
    }
}

/// What is in a CONNECT about a will.
struct MadeWill {
    topic: &'static str,
    qos: Qos,
    delay: Option<u32>,
    payload: Vec<u8>,
}

impl MadeWill {
    fn borrowed(&self) -> Will<'_> {
        let mut will = Will {
            topic: self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: false,
            properties: Default::default(),
        };
        will.properties.delay_seconds = self.delay;
        will
    }
}

/// Encodes a PUBLISH, its topic as it says or by an alias.
pub fn publish_of(
    out: &Out,
    packet_id: Option<PacketId>,
    dup: bool,
    (topic, alias): (&str, Option<TopicAlias>),
    version: Version,
    into: &mut Vec<u8>,
) {
    let mut publish = Publish {
        dup,
        qos: out.qos,
        retain: out.retain,
        topic,
        packet_id,
        properties: Default::default(),
        payload: &out.payload,
    };
    publish.properties.message_expiry_seconds = out.ttl;
    publish.properties.topic_alias = alias;
    publish.encode_to(version, into);
}
