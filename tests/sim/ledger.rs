//! What was said, what was committed and what arrived: the checkers. It knows nothing of the node but its contract.

use crate::coverage::{Coverage, Seen};
use kittiwake::base::ids::{Epoch, Offset, Qos, Seq};
use kittiwake::base::message::{Entry, StreamKey};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Names a message; it is in the payload.
pub type MessageId = u64;

/// Who made a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Author {
    Client(usize),
    Backend,
}

/// For whom a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    Topic,
    Users(Vec<String>),
    Device(String, String),
    Everyone,
}

#[derive(Debug)]
pub struct Message {
    pub author: Author,
    pub aim: Aim,
    /// As receivers see it.
    pub topic: String,
    pub qos: Qos,
    pub bytes: usize,
    /// Sent so often by its author; above 1, a QoS 1 message may be logged more than once.
    pub sends: u32,
    pub acked: bool,
    /// It was called for again under its key: nobody knows which call was the first to be heard.
    is_repeated: bool,
    /// Sessions that had their SUBACK before it was sent: client, life.
    owed: Vec<(usize, u32, Qos)>,
    entries: Vec<(StreamKey, Offset)>,
    first_delivery: Option<usize>,
}

/// A subscription as its client knows it.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub filter: String,
    pub qos: Qos,
    pub acked: bool,
}

/// A client's session as the client knows it.
#[derive(Debug, Default)]
pub struct Life {
    pub user: String,
    pub device: String,
    pub durable: bool,
    /// It keeps its own position, and is owed what its user's inbox has, over all its connections.
    pub is_page: bool,
    number: u32,
    /// Messages before this one are not owed any more: filters have changed since.
    owed_from: MessageId,
    pub subscriptions: Vec<Subscription>,
    /// An UNSUBSCRIBE was sent: what was in flight may still come.
    pub has_unsubscribed: bool,
    got: HashMap<MessageId, u32>,
    got_twice: HashSet<MessageId>,
    last_offset: HashMap<(StreamKey, Qos), (Offset, MessageId)>,
    last_of_author: HashMap<(Author, String, Qos), MessageId>,
}

#[derive(Debug, Default)]
pub struct Ledger {
    pub messages: BTreeMap<MessageId, Message>,
    pub lives: Vec<Life>,
    pub coverage: Coverage,
    next: MessageId,
    /// Counts everything that happens, to say what was before what.
    pub step: usize,
    /// Prints what happens: `KITTIWAKE_STORY` is set.
    pub is_told: bool,
    /// Everything committed, in the order of seq.
    log: Vec<(Seq, StreamKey, Epoch, Offset, MessageId)>,
    /// Main records of sessions in the store, by user and device.
    pub mains: HashMap<(String, String), Vec<u8>>,
    /// The oldest entry that retention has left of an inbox.
    pub first_kept: HashMap<StreamKey, Offset>,
    /// Retention takes entries that are still owed, which is said by a gap notice.
    pub trims: bool,
    /// The last step at which the node was killed.
    pub crashed_at: Option<usize>,
}

const MARK: u8 = b'.';

impl Ledger {
    /// A new message; its payload is the answer. Who has a confirmed subscription now is owed it once it is acked.
    pub fn begin(&mut self, author: Author, aim: Aim, topic: &str, qos: Qos, padding: usize) -> (MessageId, Vec<u8>) {
        self.next += 1;
        let id = self.next;
        let mut payload = format!("m{id}|").into_bytes();
        payload.resize(payload.len() + padding, MARK);
        let owed = self.lives.iter().enumerate().filter_map(|(client, life)| {
            // What is not logged for somebody else, a page gets while it is there.
            let is_kept = !life.is_page || !matches!(aim, Aim::Topic | Aim::Everyone);
            let granted = life.granted(topic, true).filter(|_| is_kept && life.is_aimed_at(&aim))?;
            Some((client, life.number, granted.min(qos))).filter(|(_, _, qos)| *qos > Qos::AtMostOnce)
        });
        let owed = owed.collect();
        let message = Message {
            author,
            aim,
            topic: topic.to_owned(),
            qos,
            bytes: payload.len(),
            sends: 0,
            acked: false,
            is_repeated: false,
            owed,
            entries: Vec::new(),
            first_delivery: None,
        };
        self.tell(|| format!("m{id} begins: {message:?}"));
        self.messages.insert(id, message);
        (id, payload)
    }

    /// For people who repeat a seed.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>6} {}", self.step, what());
        }
    }

    pub fn sent(&mut self, id: MessageId) {
        self.message(id).sends += 1;
    }

    pub fn repeated(&mut self, id: MessageId) {
        self.message(id).is_repeated = true;
    }

    /// Its author has been told that it is safe.
    pub fn acked(&mut self, id: MessageId) {
        self.message(id).acked = true;
    }

    fn message(&mut self, id: MessageId) -> &mut Message {
        self.messages.get_mut(&id).expect("only what was begun is spoken of")
    }

    pub fn payload_id(payload: &[u8]) -> MessageId {
        let end = payload.iter().position(|&byte| byte == b'|').expect("every payload is one of ours");
        let text = std::str::from_utf8(&payload[1..end]).expect("every payload is one of ours");
        assert!(payload[end + 1..].iter().all(|&byte| byte == MARK), "a payload was damaged");
        text.parse().expect("every payload is one of ours")
    }

    /// The store has an entry.
    pub fn committed(&mut self, entry: &Entry) {
        let id = Self::payload_id(&entry.message.payload);
        let message = self.message(id);
        if let Some(step) = message.first_delivery
            && message.sends <= 1
            && message.entries.is_empty()
        {
            panic!("m{id} was delivered at step {step} before it was committed: {message:?}");
        }
        message.entries.push((entry.stream.clone(), entry.offset));
        self.log.push((entry.seq, entry.stream.clone(), entry.epoch, entry.offset, id));
        self.tell(|| format!("log: m{id} at {:?} {} seq {}", entry.stream, entry.offset, entry.seq));
    }

    /// A QoS 2 message is sent again; its entry may be gone from the log.
    pub fn sent_again(&mut self, id: MessageId) {
        self.coverage.hit(Seen::DuplicateDelivery);
        let is_gone =
            |(stream, offset): &(StreamKey, Offset)| self.first_kept.get(stream).is_some_and(|kept| kept > offset);
        if self.messages[&id].qos == Qos::ExactlyOnce && self.messages[&id].entries.iter().any(is_gone) {
            self.coverage.hit(Seen::Point5TrimmedEntrySentAgain);
        }
    }

    /// The application of a client has a message: `qos` is that of the PUBLISH.
    pub fn delivered(&mut self, client: usize, topic: &str, payload: &[u8], qos: Qos) {
        let id = Self::payload_id(payload);
        self.tell(|| format!("client {client}: m{id} delivered at {qos:?}"));
        let Self { messages, lives, step, crashed_at, .. } = self;
        let message = messages.get_mut(&id).unwrap_or_else(|| panic!("m{id} came from nowhere"));
        let life = &mut lives[client];
        assert_eq!(message.topic, topic, "m{id} came under another topic");
        assert_eq!(message.bytes, payload.len(), "m{id} has another length");
        assert!(life.is_aimed_at(&message.aim), "m{id} is not for client {client}: {message:?}");
        let granted = life.granted(topic, false);
        assert!(granted.is_some() || life.has_unsubscribed, "client {client} did not ask for m{id} {topic}: {life:?}");
        assert!(qos <= message.qos, "m{id} came at a higher QoS than it was published with");
        let is_his = |&(who, number, _): &(usize, u32, Qos)| who == client && number == life.number;
        let is_owed = id >= life.owed_from && message.owed.iter().any(is_his);
        let in_log = message.aim != Aim::Topic || life.durable && qos > Qos::AtMostOnce && is_owed;
        if message.qos > Qos::AtMostOnce && in_log {
            assert!(!message.entries.is_empty(), "m{id} reached client {client} before its commit: {message:?}");
        }
        message.first_delivery.get_or_insert(*step);
        let times = life.got.entry(id).or_default();
        *times += 1;
        if qos == Qos::ExactlyOnce {
            let is_first = life.got_twice.insert(id);
            assert!(is_first, "client {client} got QoS 2 m{id} twice (crash at {crashed_at:?}): {message:?} {life:?}");
        }
        // What is not owed may come late: it was passed over under a filter of QoS 0, say, and is read again after a crash.
        if *times == 1 && qos > Qos::AtMostOnce && message.sends <= 1 && is_owed {
            life.check_order(client, id, message, qos, *crashed_at);
        }
    }

    /// CONNACK of a session that outlives its connection follows its commit.
    pub fn check_connack(&self, client: usize) {
        let life = &self.lives[client];
        let is_there = self.mains.contains_key(&(life.user.clone(), life.device.clone()));
        assert!(is_there, "client {client} had its CONNACK before its session was committed");
    }

    /// So does SUBACK.
    pub fn check_suback(&self, client: usize, filter: &str) {
        let life = &self.lives[client];
        if life.durable {
            let record = self.mains.get(&(life.user.clone(), life.device.clone()));
            let filter = filter.as_bytes();
            let holds = record.is_some_and(|record| record.windows(filter.len()).any(|part| part == filter));
            assert!(holds, "client {client} had its SUBACK before its filter was committed");
        }
    }

    /// The seq of an entry; of those before the first one, the one before that.
    pub fn seq_of(&self, epoch: Epoch, offset: Offset) -> Seq {
        let of_it = self.log.iter().filter(|(_, _, other, ..)| *other == epoch);
        of_it.take_while(|(.., at, _)| *at <= offset).last().map_or(Seq(0), |(seq, ..)| *seq)
    }

    /// A page's position has moved from `old` to `new` over topics and its inbox: all that lies between and is for it has
    /// come, or is gone from its inbox.
    pub fn check_covered(&self, page: usize, filters: &[&str], old: (Seq, Offset), new: (Seq, Offset)) {
        let life = &self.lives[page];
        for (seq, stream, _, offset, id) in &self.log {
            let is_between = match stream {
                StreamKey::Inbox(_, user) => **user == *life.user && *offset > old.1 && *offset <= new.1,
                StreamKey::Topic(..) | StreamKey::Everyone(_) => *seq > old.0 && *seq <= new.0,
            };
            let message = &self.messages[id];
            let is_kept = self.first_kept.get(stream).is_none_or(|first| first <= offset);
            let is_his = life.is_aimed_at(&message.aim) && filters.iter().any(|filter| matches(filter, &message.topic));
            if is_between && is_kept && is_his {
                assert!(
                    life.got.contains_key(id),
                    "page {page} stands at {new:?} and never got m{id} at {seq}: {message:?}"
                );
            }
        }
    }

    /// The session is over, or nobody knows what has become of it: nothing is owed it any more.
    pub fn end_life(&mut self, client: usize) {
        self.tell(|| format!("client {client}: a new life"));
        let life = &mut self.lives[client];
        let (user, device, durable) = (life.user.clone(), life.device.clone(), life.durable);
        *life = Life { user, device, durable, number: life.number + 1, ..Life::default() };
    }

    /// Filters change: what is owed from before is not asked for any more.
    pub fn forgive(&mut self, client: usize) {
        self.lives[client].owed_from = self.next + 1;
    }

    /// Acked messages that have not arrived where they are owed.
    pub fn missing(&self) -> Vec<(MessageId, usize)> {
        let mut missing = Vec::new();
        let kept = |message: &&Message| !self.trims || matches!(message.aim, Aim::Topic | Aim::Everyone);
        for (&id, message) in self.messages.iter().filter(|(_, message)| message.acked && kept(message)) {
            for &(client, number, _) in &message.owed {
                let life = &self.lives[client];
                if life.number == number && id >= life.owed_from && !life.got.contains_key(&id) {
                    missing.push((id, client));
                }
            }
        }
        missing
    }

    /// Says what was proven, so that a run that proves nothing shows.
    pub fn count_proofs(&mut self) {
        for (&id, message) in self.messages.iter().filter(|(_, message)| message.acked) {
            for &(client, number, qos) in &message.owed {
                let life = &self.lives[client];
                if life.number == number && id >= life.owed_from {
                    let seen = match (life.durable, qos) {
                        (true, Qos::ExactlyOnce) => Seen::OwedDurableQos2Arrived,
                        (true, _) => Seen::OwedDurableQos1Arrived,
                        (false, _) => Seen::OwedCleanArrived,
                    };
                    self.coverage.hit(seen);
                }
            }
        }
    }
}

impl Life {
    pub fn new(user: &str, device: &str, durable: bool) -> Self {
        Self { user: user.to_owned(), device: device.to_owned(), durable, ..Self::default() }
    }

    pub fn of_page(user: &str, device: &str) -> Self {
        Self { is_page: true, ..Self::new(user, device, false) }
    }

    /// The highest QoS asked for over the matching filters, or over those of them that were confirmed.
    fn granted(&self, topic: &str, confirmed: bool) -> Option<Qos> {
        let matching = |sub: &&Subscription| (sub.acked || !confirmed) && matches(&sub.filter, topic);
        self.subscriptions.iter().filter(matching).map(|sub| sub.qos).max()
    }

    fn is_aimed_at(&self, aim: &Aim) -> bool {
        match aim {
            Aim::Topic | Aim::Everyone => true,
            Aim::Users(users) => users.contains(&self.user),
            Aim::Device(user, device) => *user == self.user && *device == self.device,
        }
    }

    /// First deliveries come in offset order per stream, and in the author's order per topic and QoS.
    fn check_order(&mut self, client: usize, id: MessageId, message: &Message, qos: Qos, crashed_at: Option<usize>) {
        let is_mine = |stream: &StreamKey| !matches!(stream, StreamKey::Inbox(_, user) if **user != *self.user);
        if let Some((stream, offset)) = message.entries.iter().find(|(stream, _)| is_mine(stream)) {
            // After a restart what was in flight at QoS 2 is sent before the rest is read again.
            let kind = if crashed_at.is_some() { qos } else { Qos::AtMostOnce };
            let last = self.last_offset.entry((stream.clone(), kind)).or_default();
            assert!(
                last.0 < *offset,
                "client {client}: m{id} at {stream:?} {offset} after m{} at {} (crash at {crashed_at:?}, {message:?})",
                last.1,
                last.0
            );
            *last = (*offset, id);
        }
        if message.aim == Aim::Topic && qos == message.qos && !message.is_repeated {
            let last = self.last_of_author.entry((message.author, message.topic.clone(), qos)).or_default();
            assert!(*last < id, "client {client}: m{id} after m{last} of the same author, topic and QoS: {message:?}");
            *last = id;
        }
    }
}

/// MQTT's matching, written a second time.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') != filter.starts_with('$') {
        return false;
    }
    let (filter, topic): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    if let Some((&"#", parents)) = filter.split_last() {
        return topic.len() >= parents.len() && levels_match(parents, &topic[..parents.len()]);
    }
    filter.len() == topic.len() && levels_match(&filter, &topic)
}

fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
    filter.iter().zip(topic).all(|(wanted, level)| *wanted == "+" || wanted == level)
}
