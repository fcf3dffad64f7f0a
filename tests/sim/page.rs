//! Web pages with an event stream, or that poll: they keep their own position, lose their connections, and come back with
//! it.
//!
//! A page's checks go by what it was told. A position covers every entry of its streams up to there, so all of them
//! must have come by then; and an entry comes once, in the order of its stream, over all of the page's connections.

use crate::coverage::Seen;
use crate::event_stream::{Event, Parser, payload_of};
use crate::ledger::{Ledger, Subscription};
use kittiwake::base::ids::{Epoch, Offset, Qos, Seq};
use kittiwake::io::sim::{Peer, PeerState, Random, SimNet};
use kittiwake::limits::{RATE_BURST_SECONDS, USER_CONNECT_RATE};
use kittiwake::wire::sse::EventId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

pub struct Page {
    /// Among the lives of the ledger.
    life: usize,
    user: String,
    device: String,
    filters: Vec<String>,
    net: SimNet,
    address: SocketAddr,
    ledger: Rc<RefCell<Ledger>>,
    peer: Option<Peer>,
    /// Connections it has given up without closing them.
    abandoned: Vec<Peer>,
    outgoing: Vec<u8>,
    head: Vec<u8>,
    is_open: bool,
    parser: Parser,
    /// What it comes back with.
    last_id: String,
    /// Up to where its position has covered topics, and its inbox.
    covered: (Seq, Offset),
    /// The last place of each stream that has come.
    places: BTreeMap<Epoch, Offset>,
    not_before_ms: u64,
    reads: bool,
    /// It asks again and again, and waits so long each time, for so many messages; none: it has a stream.
    polls: Option<(u32, u16)>,
    /// Its last poll was answered with nothing.
    is_idle: bool,
    /// How often it has asked.
    asked: u32,
    /// It was told to ask no sooner.
    rests_ms: u64,
}

const INBOX: &str = "$inbox/#";
/// Between two polls of a page that was told of nothing.
const IDLE_REST_MS: u64 = 50;

impl Page {
    /// The first streams of a page are its inbox alone or one topic; others have several.
    pub fn new(life: usize, user: &str, random: &mut Random, net: &SimNet, address: SocketAddr) -> Self {
        let filters: &[&str] = match random.below(4) {
            0 => &[INBOX],
            1 => &["rooms/1"],
            2 => &[INBOX, "rooms/#"],
            _ => &["a", "rooms/+", "news"],
        };
        Self {
            life,
            user: user.to_owned(),
            device: format!("page-{life}"),
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
            net: net.clone(),
            address,
            ledger: Rc::default(),
            peer: None,
            abandoned: Vec::new(),
            outgoing: Vec::new(),
            head: Vec::new(),
            is_open: false,
            parser: Parser::default(),
            last_id: String::new(),
            covered: (Seq(0), Offset(0)),
            places: BTreeMap::new(),
            not_before_ms: 0,
            reads: true,
            polls: (random.below(2) == 0)
                .then(|| ([0, 300, 2_500][random.below(3) as usize], [1, 3, 100][random.below(3) as usize])),
            is_idle: false,
            asked: 0,
            rests_ms: 0,
        }
    }

    /// Ties it to the ledger, in which its life is.
    pub fn enter(&mut self, ledger: &Rc<RefCell<Ledger>>) {
        self.ledger = Rc::clone(ledger);
    }

    /// Its life in the ledger.
    pub fn life(&self) -> usize {
        self.life
    }

    pub fn is_polling(&self) -> bool {
        self.polls.is_some()
    }

    pub fn device(&self) -> (String, String) {
        (self.user.clone(), self.device.clone())
    }

    /// Something, or nothing.
    pub fn act(&mut self, random: &mut Random, is_wild: bool) {
        let now_ms = self.net.now().monotonic_ms;
        if self.peer.is_none() {
            // In wild times it asks at once, as fast as it can; later others may be away for long, and it is patient.
            let rest_ms = if !is_wild && self.is_idle { IDLE_REST_MS } else { 0 };
            if now_ms >= self.not_before_ms + rest_ms && (!is_wild || random.below(3) == 0) {
                self.connect();
            }
            return;
        }
        if !is_wild {
            self.reads = true;
            self.abandoned.clear();
        } else if !self.abandoned.is_empty() && random.below(8) == 0 {
            let mut old = self.abandoned.swap_remove(0);
            if old.read_all().windows(12).any(|part| part == b"event: close") {
                self.hit(Seen::PageTold);
            }
        }
        self.flush();
        if self.reads {
            self.read();
        }
        if !is_wild || self.peer.is_none() {
            return;
        }
        match random.below(100) {
            0..4 => {
                self.reads = !self.reads;
                if !self.reads && self.is_open {
                    self.hit(Seen::PageStoppedReading);
                }
            }
            4..8 => {
                match (self.peer.take().expect("it is connected"), random.below(3)) {
                    (peer, 0) => peer.close(),
                    (peer, 1) => peer.reset(),
                    (peer, _) => peer.vanish(),
                }
                self.gone();
                self.not_before_ms += random.below(4_000);
            }
            8..10 => {
                // The same device again, while the old connection is still there.
                self.abandoned.extend(self.peer.take());
                self.gone();
                self.connect();
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        let mut query = format!("user={}&device={}", self.user, self.device);
        for filter in &self.filters {
            match filter.as_str() {
                INBOX => query.push_str("&inbox=1"),
                filter => query.push_str(&format!("&topic={}", filter.replace('+', "%2B").replace('#', "%23"))),
            }
        }
        let path = match self.polls {
            Some((timeout_ms, limit)) => {
                query.push_str(&format!("&timeout_ms={timeout_ms}&limit={limit}&after={}", self.last_id));
                "/poll"
            }
            None => "/events",
        };
        let mut request = format!("GET {path}?{query} HTTP/1.1\r\nHost: edge\r\n");
        if !self.last_id.is_empty() && self.polls.is_none() {
            request.push_str(&format!("Last-Event-ID: {}\r\n", self.last_id));
        }
        request.push_str("\r\n");
        self.tell(|| format!("asks with {:?}", self.last_id));
        self.asked += 1;
        self.outgoing = request.into_bytes();
        (self.head, self.is_open, self.parser, self.reads) = (Vec::new(), false, Parser::default(), true);
        let subscription =
            |filter: &String| Subscription { filter: filter.clone(), qos: Qos::AtLeastOnce, acked: false };
        let mut ledger = self.ledger.borrow_mut();
        let known = &mut ledger.lives[self.life].subscriptions;
        if known.is_empty() {
            *known = self.filters.iter().map(subscription).collect();
        }
        drop(ledger);
        self.peer = Some(Peer::connect(&self.net, self.address));
        self.flush();
    }

    fn flush(&mut self) {
        let Some(peer) = self.peer.as_mut() else { return };
        if let Ok(count) = peer.write(&self.outgoing) {
            self.outgoing.drain(..count);
        }
    }

    fn read(&mut self) {
        let Some(peer) = self.peer.as_mut() else { return };
        let mut bytes = peer.read_all();
        let state = peer.state();
        if self.polls.is_some() {
            self.head.append(&mut bytes);
            if matches!(state, PeerState::Dead | PeerState::Ended) {
                let answer = std::mem::take(&mut self.head);
                self.answered(&answer);
                self.peer = None;
                self.gone();
            }
            return;
        }
        if !self.is_open {
            self.head.append(&mut bytes);
            if let Some(end) = self.head.windows(4).position(|part| part == b"\r\n\r\n") {
                bytes = self.head.split_off(end + 4);
                self.is_open = self.head.starts_with(b"HTTP/1.1 200 OK\r\n");
                assert!(self.is_open || self.head.starts_with(b"HTTP/1.1 503 "), "a request of ours is refused");
            }
        }
        if self.is_open {
            let comments = self.parser.comments;
            let mut events = Vec::new();
            // Byte by byte, so that a position is known with the event that brings it.
            for byte in bytes {
                self.parser.feed(&[byte], &mut events);
                self.note_beginning();
                events.drain(..).for_each(|event| self.event(&event));
            }
            if self.parser.comments > comments {
                self.hit(Seen::PageHeartbeat);
            }
        }
        if matches!(state, PeerState::Dead | PeerState::Ended) {
            self.peer = None;
            self.gone();
        }
    }

    /// All that a poll got before its connection ended. What is not whole says nothing, and is asked for again.
    fn answered(&mut self, answer: &[u8]) {
        let text = std::str::from_utf8(answer).unwrap_or_default();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return };
        if head.starts_with("HTTP/1.1 429 ") {
            return self.told_to_rest(head);
        }
        let is_ok = head.starts_with("HTTP/1.1 200 OK\r\n");
        assert!(is_ok || head.starts_with("HTTP/1.1 503 "), "a poll of ours is refused: {head}");
        if !is_ok || !head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())) {
            return;
        }
        let json: serde_json::Value = serde_json::from_str(body).expect("a whole answer is JSON");
        let list = |name: &str| json[name].as_array().cloned().unwrap_or_default();
        let (events, gaps) = (list("events"), list("gaps"));
        for gap in &gaps {
            assert_eq!(gap["reason"], "trimmed", "page {}: no other gap is there", self.life);
            self.hit(Seen::PageGap);
        }
        events.iter().for_each(|event| self.message(event, &payload_of(event)));
        self.hit(if events.is_empty() { Seen::PollEmpty } else { Seen::PollAnswered });
        self.is_idle = events.is_empty() && gaps.is_empty();
        self.ledger.borrow_mut().lives[self.life].subscriptions.iter_mut().for_each(|known| known.acked = true);
        let had_one = !self.last_id.is_empty();
        self.last_id = json["next"].as_str().expect("every answer says where to go on").to_owned();
        if had_one {
            self.check_position();
        } else {
            self.covered = self.position();
        }
    }

    /// The head and what comes with it: from now on all that its user's inbox gets is owed it.
    fn note_beginning(&mut self) {
        let is_new = !self.parser.last_id.is_empty() && self.parser.last_id != self.last_id;
        if self.parser.retry.is_none() {
            return;
        }
        let mut ledger = self.ledger.borrow_mut();
        ledger.lives[self.life].subscriptions.iter_mut().for_each(|known| known.acked = true);
        if self.last_id.is_empty() && is_new {
            drop(ledger);
            self.last_id.clone_from(&self.parser.last_id);
            self.covered = self.position();
            self.tell(|| format!("begins at {:?}", self.covered));
        } else if is_new && self.parser.first_id.as_ref() == Some(&self.parser.last_id) {
            ledger.coverage.hit(Seen::PageResumed);
        }
    }

    /// What its id says.
    fn position(&self) -> (Seq, Offset) {
        match EventId::parse(&self.last_id).expect("the node gives ids that it reads") {
            EventId::One(_, offset) if self.filters[0] == INBOX => (Seq(0), offset),
            EventId::One(epoch, offset) => (self.ledger.borrow().seq_of(epoch, offset), Offset(0)),
            EventId::Several(token) => (token.topics, token.inbox.1),
        }
    }

    fn event(&mut self, event: &Event) {
        match event.name.as_str() {
            "close" => return self.hit(Seen::PageTold),
            "gap" => {
                self.tell(|| format!("hears of a gap: {}", event.data));
                let json = event.json();
                assert_eq!(json["reason"], "trimmed", "page {}: no other gap is there", self.life);
                return self.hit(Seen::PageGap);
            }
            name => assert_eq!(name, "message"),
        }
        self.message(&event.json(), &event.payload());
        if event.id != self.last_id {
            let had_one = !self.last_id.is_empty();
            self.last_id.clone_from(&event.id);
            if had_one {
                self.check_position();
            } else {
                self.covered = self.position();
            }
        }
    }

    fn message(&mut self, json: &serde_json::Value, payload: &str) {
        let topic = json["topic"].as_str().expect("a text");
        let qos = Qos::from_bits(json["qos"].as_u64().expect("a number") as u8).expect("a QoS");
        self.ledger.borrow_mut().delivered(self.life, topic, payload.as_bytes(), qos);
        if let Some(offset) = json["offset"].as_u64() {
            let epoch = u64::from_str_radix(json["epoch"].as_str().expect("a text"), 16).expect("hexadecimal");
            let last = self.places.insert(Epoch(epoch), Offset(offset));
            assert!(last < Some(Offset(offset)), "page {}: {json} after {last:?} of its stream", self.life);
            self.hit(Seen::PageGotLogged);
        }
    }

    /// All that its position covers has come.
    fn check_position(&mut self) {
        let (topics, inbox) = self.position();
        assert!(topics >= self.covered.0 && inbox >= self.covered.1, "page {}: its position went back", self.life);
        let filters: Vec<&str> = self.filters.iter().map(String::as_str).collect();
        // What a topic's history has of QoS 0 may be dropped for a stream that does not read, and never for a poll.
        let least = if self.polls.is_some() { Qos::AtMostOnce } else { Qos::AtLeastOnce };
        self.ledger.borrow().check_covered(self.life, &filters, least, self.covered, (topics, inbox));
        self.covered = (topics, inbox);
    }

    /// Who does not wait for something to come, and asks again at once, does so more often than a user may.
    fn told_to_rest(&mut self, head: &str) {
        // Its user's devices connect as well, but seldom.
        let most = USER_CONNECT_RATE * RATE_BURST_SECONDS;
        assert!(self.asked > most / 2, "page {}: refused as too frequent, {} polls in all", self.life, self.asked);
        let (_, value) = head.split_once("\r\nRetry-After: ").expect("it is told when to come again");
        let seconds: u64 = value.split("\r\n").next().and_then(|text| text.parse().ok()).expect("a number");
        self.rests_ms = seconds * 1_000;
    }

    fn gone(&mut self) {
        self.tell(|| "loses its connection".to_owned());
        self.is_open = false;
        self.not_before_ms = self.net.now().monotonic_ms + 1 + core::mem::take(&mut self.rests_ms);
        if self.last_id.is_empty() {
            // It has no position yet, so its next connection begins anew.
            self.ledger.borrow_mut().forgive(self.life);
        }
    }

    /// Whether it is connected and has nothing more to ask.
    pub fn is_settled(&self) -> bool {
        match self.polls {
            Some(_) => self.is_idle,
            None => self.peer.is_some() && self.is_open && self.parser.retry.is_some(),
        }
    }

    /// Leaves for good.
    pub fn end(self) {
        if let Some(peer) = self.peer {
            peer.close();
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        self.ledger.borrow().tell(|| format!("page {}: {}", self.life, what()));
    }

    fn hit(&self, seen: Seen) {
        self.ledger.borrow_mut().coverage.hit(seen);
    }
}
