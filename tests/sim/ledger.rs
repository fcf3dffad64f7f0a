//! What was said, what was committed and what arrived: the checkers. It knows nothing of the node but its contract.

use crate::coverage::{Coverage, Seen};
use crate::kept::Kept;
use crate::share::{Member, Shares};
use crate::upstream::Upstream;
use crate::wills::Wills;
use kittiwake::base::clock::Now;
use kittiwake::base::ids::{Epoch, Offset, Qos, Seq};
use kittiwake::base::message::{Entry, StreamKey};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Names a message; it is in the payload.
pub type MessageId = u64;

/// Who made a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Author {
    Client(usize),
    /// A client's will: nobody knows when it is published.
    Will(usize),
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
    /// It is sent without a payload.
    pub is_blank: bool,
    /// It was called for again under its key: nobody knows which call was the first to be heard.
    is_repeated: bool,
    /// Sessions that had their SUBACK before it was sent: client, life.
    owed: Vec<(usize, u32, Qos)>,
    entries: Vec<(StreamKey, Offset)>,
    pub first_delivery: Option<usize>,
    /// How long it lives, and until when, if that is known.
    lives_ms: Option<u64>,
    expires_ms: Option<u64>,
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
    pub packet_bytes_max: Option<u32>,
    pub number: u32,
    /// Messages before this one are not owed any more: filters have changed since.
    pub owed_from: MessageId,
    pub subscriptions: Vec<Subscription>,
    /// An UNSUBSCRIBE was sent: what was in flight may still come.
    pub has_unsubscribed: bool,
    got: HashMap<MessageId, u32>,
    got_twice: HashSet<MessageId>,
    pub kept: Kept,
    pub share: Member,
    last_offset: HashMap<StreamKey, (Offset, MessageId)>,
    /// With whether it was logged.
    last_of_author: HashMap<(Author, String, Qos), (MessageId, bool)>,
}

/// A session's main record.
#[derive(Debug)]
pub struct Main {
    pub value: Vec<u8>,
    /// The step at which it went.
    pub gone_at: Option<usize>,
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
    pub mains: HashMap<(String, String), Main>,
    /// The oldest entry that retention has left of a stream. What is gone is owed no more, which is said by a gap.
    pub first_kept: HashMap<StreamKey, Offset>,
    pub shares: Shares,
    /// What was retained of each topic, in the order of its commits; none: nothing.
    pub retained: HashMap<String, Vec<Option<MessageId>>>,
    /// The last step at which the node was killed or stopped.
    pub died_at: Option<usize>,
    pub wills: Wills,
    pub upstream: Upstream,
    /// The last time at which the wall clock was set.
    pub wall_stepped_ms: Option<u64>,
}

const MARK: u8 = b'.';
/// What was on its way when it expired arrives within this where everybody reads.
const EXPIRED_SLACK_MS: u64 = 5_000;
/// What lives shorter may expire before anybody reads it.
const LASTING_MS: u64 = 86_400_000;
/// More than a PUBLISH adds to its topic and payload.
const PUBLISH_BYTES: usize = 24;

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
            is_blank: false,
            is_repeated: false,
            owed,
            entries: Vec::new(),
            first_delivery: None,
            lives_ms: None,
            expires_ms: None,
        };
        self.tell(|| format!("m{id} begins: {message:?}"));
        self.messages.insert(id, message);
        if topic.starts_with("$work/") {
            self.owes_shares(id, qos);
        }
        (id, payload)
    }

    /// A will that a CONNECT brings; it may never be published.
    pub fn begin_will(&mut self, client: usize, topic: &str, qos: Qos) -> (MessageId, Vec<u8>) {
        let (id, payload) = self.begin(Author::Will(client), Aim::Topic, topic, qos, 0);
        let message = self.message(id);
        message.owed.clear();
        message.is_repeated = true;
        message.sends = 1;
        (id, payload)
    }

    /// A message does not live for ever.
    pub fn mortal(&mut self, id: MessageId, lives_ms: u64, expires_ms: Option<u64>) {
        let message = self.message(id);
        (message.lives_ms, message.expires_ms) = (Some(lives_ms), expires_ms);
    }

    /// A PUBLISH says how long its message lives; `quiet_at`: the server's outbox was empty, and this is
    /// sent for the first time.
    pub fn check_expiry(&mut self, client: usize, id: MessageId, seconds: Option<u32>, quiet_at: Option<Now>) {
        let Some(message) = self.messages.get(&id) else { return };
        assert_eq!(seconds.is_some(), message.lives_ms.is_some(), "client {client}: m{id} expires? {message:?}");
        let Some((seconds, lives_ms)) = seconds.zip(message.lives_ms) else { return };
        self.coverage.hit(Seen::ExpirySaid);
        let stepped_ms = self.wall_stepped_ms;
        let is_too_long = stepped_ms.is_none() && u64::from(seconds) * 1_000 > lives_ms;
        assert!(!is_too_long, "client {client}: m{id} has {seconds} s left of {lives_ms} ms");
        let Some((quiet_at, expires_ms)) = quiet_at.zip(message.expires_ms) else { return };
        let is_sure = stepped_ms.is_none_or(|at_ms| at_ms + EXPIRED_SLACK_MS < quiet_at.monotonic_ms);
        // What is sent again lives anew, and until when only the log tells, if this copy is there.
        let is_sure = is_sure && message.sends as usize <= message.entries.len().max(1);
        let is_late = is_sure && quiet_at.wall_ms > expires_ms + EXPIRED_SLACK_MS;
        assert!(!is_late, "client {client}: m{id} had expired before it was sent, quiet {quiet_at:?}: {message:?}");
    }

    /// Whether the wall clock was set and the node died since.
    pub fn restarted_in_other_time(&self, since_ms: u64) -> bool {
        self.died_at.is_some() && self.wall_stepped_ms.is_some_and(|at_ms| at_ms >= since_ms)
    }

    /// CONNACK.
    pub fn accepted(&mut self, client: usize, present: bool, now_ms: u64) {
        self.wills.accepted(client, present, now_ms, &mut self.coverage);
        self.share_accepted(client, present);
    }

    /// The server closed because of a DISCONNECT.
    pub fn goodbye_was_heard(&mut self, client: usize, now_ms: u64) {
        self.tell(|| format!("client {client}: its goodbye was heard"));
        self.wills.goodbye_was_heard(client, now_ms, &mut self.coverage);
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
        self.acked_upstream(id);
    }

    /// It is sent without a payload: nobody keeps account of who gets it.
    pub fn empties(&mut self, id: MessageId) {
        let message = self.message(id);
        message.owed.clear();
        message.is_blank = true;
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
    pub fn committed(&mut self, entry: &Entry, now: Now) {
        if let StreamKey::Upstream(_) = entry.stream {
            return self.told_upstream(entry);
        }
        if entry.message.payload.is_empty() {
            return;
        }
        let id = Self::payload_id(&entry.message.payload);
        self.wills.committed(id, now.monotonic_ms, &mut self.coverage);
        let message = self.message(id);
        assert_eq!(entry.message.expires_ms.is_some(), message.lives_ms.is_some(), "m{id} expires? {message:?}");
        message.expires_ms = message.expires_ms.max(entry.message.expires_ms);
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
        let Self { messages, lives, coverage, step, died_at, wall_stepped_ms, retained, .. } = self;
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
        life.kept.came(retained, topic, id, qos);
        let times = life.got.entry(id).or_default();
        *times += 1;
        if qos == Qos::ExactlyOnce {
            let is_first = life.got_twice.insert(id);
            // A will is published again if the node dies before its record says that it was.
            let is_first = is_first || matches!(message.author, Author::Will(_)) && message.entries.len() > 1;
            assert!(is_first, "client {client} got QoS 2 m{id} twice (died at {died_at:?}): {message:?} {life:?}");
        }
        // What is not owed may come late: it was passed over under a filter of QoS 0, say, and is read again after a crash.
        // What had expired is alive again when the wall clock is set back, and read again after a crash.
        let is_revived = message.lives_ms.is_some() && wall_stepped_ms.is_some() && died_at.is_some();
        if *times == 1 && qos > Qos::AtMostOnce && message.sends <= 1 && is_owed && !is_revived {
            let is_behind_unlogged = life.check_order(client, id, message, qos, *died_at);
            if is_behind_unlogged {
                coverage.hit(Seen::LoggedBehindUnlogged);
            }
        }
    }

    /// The record of a client's session, unless it went before that step: an answer may be read long after it was given.
    fn main_since(&self, client: usize, since: usize) -> Option<&Main> {
        let life = &self.lives[client];
        let main = self.mains.get(&(life.user.clone(), life.device.clone()))?;
        main.gone_at.is_none_or(|step| step >= since).then_some(main)
    }

    /// CONNACK of a session that outlives its connection follows its commit. It was asked for at a step.
    pub fn check_connack(&self, client: usize, since: usize) {
        let is_there = self.main_since(client, since).is_some();
        assert!(is_there, "client {client} had its CONNACK before its session was committed");
    }

    /// So does SUBACK.
    pub fn check_suback(&self, client: usize, filter: &str, since: usize) {
        if self.lives[client].durable {
            let filter = filter.as_bytes();
            let main = self.main_since(client, since);
            let holds = main.is_some_and(|main| main.value.windows(filter.len()).any(|part| part == filter));
            assert!(holds, "client {client} had its SUBACK before its filter was committed");
        }
    }

    /// The seq of an entry; of those before the first one, the one before that.
    pub fn seq_of(&self, epoch: Epoch, offset: Offset) -> Seq {
        let of_it = self.log.iter().filter(|(_, _, other, ..)| *other == epoch);
        of_it.take_while(|(.., at, _)| *at <= offset).last().map_or(Seq(0), |(seq, ..)| *seq)
    }

    /// A page's position has moved from `old` to `new` over topics and its inbox: all that lies between, is of QoS `least`
    /// or more and is for it has come, or is gone from its inbox.
    pub fn check_covered(&self, page: usize, filters: &[&str], least: Qos, old: (Seq, Offset), new: (Seq, Offset)) {
        let life = &self.lives[page];
        for (seq, stream, _, offset, id) in &self.log {
            let is_between = match stream {
                StreamKey::Inbox(_, user) => **user == *life.user && *offset > old.1 && *offset <= new.1,
                StreamKey::Topic(..) | StreamKey::Everyone(_) | StreamKey::Upstream(_) => *seq > old.0 && *seq <= new.0,
            };
            let message = &self.messages[id];
            let is_kept = self.first_kept.get(stream).is_none_or(|first| first <= offset);
            let is_his = life.is_aimed_at(&message.aim) && filters.iter().any(|filter| matches(filter, &message.topic));
            // What had a short life may have been over before the page was there.
            let lasts = message.lives_ms.is_none_or(|lives_ms| lives_ms > LASTING_MS);
            if is_between && is_kept && is_his && lasts && message.qos >= least {
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
        let (number, packet_bytes_max) = (life.number + 1, life.packet_bytes_max);
        let share = life.share.reborn();
        *life = Life { user, device, durable, number, packet_bytes_max, share, ..Life::default() };
    }

    /// Filters change: what is owed from before is not asked for any more.
    pub fn forgive(&mut self, client: usize) {
        self.lives[client].owed_from = self.next + 1;
        self.lives[client].kept.forgive();
    }

    /// Acked messages that have not arrived where they are owed.
    pub fn missing(&self) -> Vec<(MessageId, usize)> {
        let mut missing = Vec::new();
        // What has to come, unless retention has taken it.
        let has_to_come = |life: &Life, message: &Message| {
            life.takes(message) && message.lives_ms.is_none_or(|lives_ms| lives_ms > LASTING_MS)
        };
        let is_gone = |life: &Life, message: &Message| {
            let mut entries = message.entries.iter().filter(|(stream, _)| life.is_its(stream));
            entries.any(|(stream, offset)| self.first_kept[stream] > *offset)
        };
        for (&id, message) in self.messages.iter().filter(|(_, message)| message.acked) {
            for &(client, number, _) in &message.owed {
                let life = &self.lives[client];
                let is_owed = life.number == number && id >= life.owed_from;
                let is_owed = is_owed && has_to_come(life, message) && !is_gone(life, message);
                if is_owed && !life.got.contains_key(&id) {
                    missing.push((id, client));
                }
            }
        }
        for (client, life) in self.lives.iter().enumerate() {
            let shared = self.shares.missing(&self.messages, client, life).into_iter().filter(|id| {
                let message = &self.messages[id];
                has_to_come(life, message) && !is_gone(life, message)
            });
            missing.extend(shared.map(|id| (id, client)));
            let kept = life.kept.missing(&self.retained, &self.messages, |message| has_to_come(life, message));
            missing.extend(kept.map(|id| (id, client)));
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
        let proven = self.lives.iter().map(|life| life.kept.proven).sum::<u32>();
        (0..proven).for_each(|_| self.coverage.hit(Seen::OwedRetainedArrived));
        self.check_shares();
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

    /// Whether it has a confirmed subscription of just this filter.
    pub fn has_by_name(&self, filter: &str) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.acked && subscription.filter == filter)
    }

    /// Whether the node may have such a subscription: one that nobody has confirmed counts, or may have been taken back.
    pub fn may_have_by_name(&self, filter: &str) -> bool {
        self.has_unsubscribed || self.subscriptions.iter().any(|subscription| subscription.filter == filter)
    }

    /// Whether a message fits in what the client takes.
    pub fn takes(&self, message: &Message) -> bool {
        let bytes = message.topic.len() + message.bytes + PUBLISH_BYTES;
        self.packet_bytes_max.is_none_or(|most| bytes <= most as usize)
    }

    fn is_aimed_at(&self, aim: &Aim) -> bool {
        match aim {
            Aim::Topic | Aim::Everyone => true,
            Aim::Users(users) => users.contains(&self.user),
            Aim::Device(user, device) => *user == self.user && *device == self.device,
        }
    }

    /// Whether it may read a stream: not another user's inbox.
    fn is_its(&self, stream: &StreamKey) -> bool {
        !matches!(stream, StreamKey::Inbox(_, user) if **user != *self.user)
    }

    /// First deliveries come in offset order per stream, and in the author's order per topic and QoS. True: it is logged
    /// and follows an unlogged one of its author, topic and QoS.
    fn check_order(
        &mut self,
        client: usize,
        id: MessageId,
        message: &Message,
        qos: Qos,
        died_at: Option<usize>,
    ) -> bool {
        if let Some((stream, offset)) = message.entries.iter().find(|(stream, _)| self.is_its(stream)) {
            let last = self.last_offset.entry(stream.clone()).or_default();
            assert!(
                last.0 < *offset,
                "client {client}: m{id} at {stream:?} {offset} after m{} at {} (died at {died_at:?}, {message:?})",
                last.1,
                last.0
            );
            *last = (*offset, id);
        }
        if message.aim != Aim::Topic || qos != message.qos || message.is_repeated {
            return false;
        }
        let (author, is_logged) = ((message.author, message.topic.clone(), qos), !message.entries.is_empty());
        let before = self.last_of_author.insert(author, (id, is_logged));
        let Some((last, was_logged)) = before else { return false };
        assert!(last < id, "client {client}: m{id} after m{last} of the same author, topic and QoS: {message:?}");
        is_logged && !was_logged
    }
}

/// MQTT's matching, written a second time.
pub fn matches(filter: &str, topic: &str) -> bool {
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
