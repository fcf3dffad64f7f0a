//! Who may come in, and how much it may say.
//!
//! ```text
//!  accept ──► on the allow-list? ──► banned? ──► its source's bucket ──► its share of the guests ──► a guest
//!  CONNECT ──► memory short? ──► token ──► its user banned? ──► (home) its user's bucket ──► a session
//! ```
//! What a connection costs is its source's until a token has proven who it is, then its user's: so a user who abuses is
//! counted beside the address that it shares with others, and does not take them down. Without tokens names prove
//! nothing, and both pay.
//!
//! A shard judges rates by what it sees itself: the kernel spreads a source's connections over all shards, so each has
//! its part of the rate. Offences are reported once a second to the one shard that keeps the bans ([`super::banning`]).

use super::command::CommandError;
use super::gateway::{Core, Gateway};
use super::letter::{Letter, Publish};
use super::settings::{Defence, Enforce, OverPublish, Settings};
use crate::auth::{BanSet, By, Subject, Table};
use crate::base::bucket::{Bucket, Rate};
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, ConnectionId, SessionId, ShardId};
use crate::base::message::Message;
use crate::base::prefix::Prefix;
use crate::io::Driver;
use crate::limits::{
    OFFENCE_PUBLISH, OFFENCE_RATE, OFFENCES_INTERVAL, OFFENCES_REPORTED_MAX, SOURCE_ENTRIES, TOPIC_RATE_ENTRIES,
    USER_ENTRIES,
};
use crate::session::{CloseReason, Identity, Session};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The shard that keeps the bans.
pub(super) const REGISTRAR: ShardId = ShardId(0);

/// Why somebody is not let in, or not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    BannedSource,
    BannedUser,
    SourceRate,
    UserRate,
    PublishRate,
}

impl Why {
    pub(super) const ALL: [Self; 5] =
        [Self::BannedSource, Self::BannedUser, Self::SourceRate, Self::UserRate, Self::PublishRate];

    /// Its names in figures: refused, and let in all the same.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::BannedSource => ("refused_banned_source", "alerts_banned_source"),
            Self::BannedUser => ("refused_banned_user", "alerts_banned_user"),
            Self::SourceRate => ("refused_source_rate", "alerts_source_rate"),
            Self::UserRate => ("refused_user_rate", "alerts_user_rate"),
            Self::PublishRate => ("slowed_publish_rate", "alerts_publish_rate"),
        }
    }
}

/// What a shard knows of those who come and speak.
#[derive(Debug)]
pub(crate) struct Limiting {
    hash: KeyedHash,
    /// This shard's part of the rate of a source.
    connects: Option<Rate>,
    sources: Table,
    users: Table,
    /// Of the topics whose home this is and whose messages are counted; none: no rule counts any.
    topics: Option<Table>,
    refused_topic_rate: u64,
    /// Sources of guests that count, by the index of their connection.
    guests: HashMap<u32, (u64, Prefix)>,
    /// Guests of each source.
    guests_of: HashMap<u64, u32>,
    /// Two buckets a session, by its index, for messages and bytes; empty: nobody looks. Zeroes cost no memory.
    publishes: Vec<[u64; 2]>,
    /// Connections that are not read for a while, and until when.
    paced: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Since the last report.
    offences: HashMap<Subject, u32>,
    reported_ms: u64,
    pub(super) banned: Arc<BanSet>,
    /// The next session to be looked at for a ban that is new.
    pub(super) sweep: Option<u32>,
    refused: [u64; Why::ALL.len()],
    alerts: [u64; Why::ALL.len()],
    pub(super) refused_handshakes: u64,
    pub(super) refused_memory: u64,
    offences_unreported: u64,
}

impl Limiting {
    pub(super) fn new(settings: &Settings, hash: KeyedHash) -> Self {
        let defence = &settings.limits.defence;
        let watches =
            defence.enforce != Enforce::Off && (defence.publishes.is_some() || defence.publish_bytes.is_some());
        let part = |rate: Rate| Rate { per_second: rate.per_second.div_ceil(u32::from(settings.shards)), ..rate };
        Self {
            hash,
            connects: defence.connects.map(part),
            sources: Table::new(SOURCE_ENTRIES),
            users: Table::new(USER_ENTRIES),
            topics: (!settings.topics.rate.is_empty()).then(|| Table::new(TOPIC_RATE_ENTRIES)),
            refused_topic_rate: 0,
            guests: HashMap::new(),
            guests_of: HashMap::new(),
            publishes: if watches { vec![[0; 2]; settings.sessions_per_shard()] } else { Vec::new() },
            paced: BinaryHeap::new(),
            offences: HashMap::new(),
            reported_ms: 0,
            banned: Arc::default(),
            sweep: None,
            refused: [0; Why::ALL.len()],
            alerts: [0; Why::ALL.len()],
            refused_handshakes: 0,
            refused_memory: 0,
            offences_unreported: 0,
        }
    }

    fn offend(&mut self, subject: Subject, weight: u32) {
        let has_room = self.offences.len() < OFFENCES_REPORTED_MAX;
        match self.offences.get_mut(&subject) {
            Some(sum) => *sum = sum.saturating_add(weight),
            None if has_room => drop(self.offences.insert(subject, weight)),
            None => self.offences_unreported += 1,
        }
    }

    /// Counts; true: it is not let in.
    fn refuses(&mut self, defence: &Defence, why: Why) -> bool {
        let is_refused = defence.enforce == Enforce::Refuse;
        let counts = if is_refused { &mut self.refused } else { &mut self.alerts };
        counts[why as usize] += 1;
        is_refused
    }

    /// The same of a ban. An operator's holds whatever becomes of the node's own.
    fn refuses_banned(&mut self, defence: &Defence, by: Option<By>, why: Why) -> bool {
        match by {
            None => false,
            Some(By::Operator) => {
                self.refused[why as usize] += 1;
                true
            }
            Some(By::Node) => defence.enforce != Enforce::Off && self.refuses(defence, why),
        }
    }

    /// The session is over; its index may be another's.
    pub(super) fn forget_session(&mut self, id: SessionId) {
        if let Some(buckets) = self.publishes.get_mut(id.index as usize).filter(|buckets| **buckets != [0; 2]) {
            *buckets = [0; 2];
        }
    }

    /// When something is to be done without a letter or a completion.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let report = (!self.offences.is_empty()).then(|| self.reported_ms + millis(OFFENCES_INTERVAL));
        let paced = self.paced.peek().map(|Reverse((at_ms, ..))| *at_ms);
        report.into_iter().chain(paced).min()
    }

    pub(super) fn paced(&self) -> usize {
        self.paced.len()
    }

    fn displaced(&self) -> u64 {
        self.sources.displaced() + self.users.displaced() + self.topics.as_ref().map_or(0, Table::displaced)
    }

    pub(super) fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let by_reason = Why::ALL.into_iter().flat_map(|why| {
            let (refused, alerts) = why.names();
            [(refused, self.refused[why as usize]), (alerts, self.alerts[why as usize])]
        });
        by_reason.chain([
            ("refused_handshakes", self.refused_handshakes),
            ("refused_memory", self.refused_memory),
            ("offences_unreported", self.offences_unreported),
            ("refused_topic_rate", self.refused_topic_rate),
            ("rates_displaced", self.displaced()),
        ])
    }
}

impl Gateway {
    /// Whether whoever comes from an address may become a guest now. It is asked before anything is done for a socket.
    pub(super) fn admits_source<D: Driver>(&mut self, core: &Core<D>, peer: SocketAddr) -> bool {
        let defence = &self.settings.limits.defence;
        let (now, address) = (core.now(), peer.ip());
        if is_allowed(defence, address) {
            return true;
        }
        let limiting = &mut self.limiting;
        let by = limiting.banned.bans_source(address, now);
        if limiting.refuses_banned(defence, by, Why::BannedSource) {
            return false;
        }
        if defence.enforce != Enforce::Off {
            let source = Prefix::source(address);
            let entry = limiting.sources.entry(limiting.hash.of(&source), now);
            entry.weight.add(1.0, now);
            let is_over = limiting.connects.is_some_and(|rate| entry.bucket.take(rate, 1, now).is_err());
            if is_over {
                limiting.offend(Subject::Source(source), OFFENCE_RATE);
                if limiting.refuses(defence, Why::SourceRate) {
                    return false;
                }
            }
        }
        // As many as are free: one source has half of them at most, two have two thirds, and somebody else finds room.
        let key = limiting.hash.of(&Prefix::source(address));
        let has = limiting.guests_of.get(&key).copied().unwrap_or_default() as usize;
        if has > 0 && has >= core.guest_room() {
            limiting.refused_handshakes += 1;
            return false;
        }
        true
    }

    /// A guest takes its place.
    pub(super) fn count_guest(&mut self, id: ConnectionId, peer: SocketAddr) {
        if !is_allowed(&self.settings.limits.defence, peer.ip()) {
            let source = Prefix::source(peer.ip());
            let key = self.limiting.hash.of(&source);
            self.limiting.guests.insert(id.index, (key, source));
            *self.limiting.guests_of.entry(key).or_default() += 1;
        }
    }

    /// It is none any more.
    pub(super) fn uncount_guest(&mut self, id: ConnectionId) {
        let Some((key, _)) = self.limiting.guests.remove(&id.index) else { return };
        let count = self.limiting.guests_of.get_mut(&key).expect("a guest's source has guests");
        *count -= 1;
        if *count == 0 {
            self.limiting.guests_of.remove(&key);
        }
    }

    /// A guest has done what an honest one does not.
    pub(super) fn guest_offends(&mut self, id: ConnectionId, weight: u32) {
        if self.settings.limits.defence.enforce != Enforce::Off
            && let Some((_, source)) = self.limiting.guests.get(&id.index)
        {
            self.limiting.offend(Subject::Source(*source), weight);
        }
    }

    /// A guest has proven who it is: from here on its user answers for it, and its source gets back what it paid.
    pub(super) fn guest_is_proven(&mut self, id: ConnectionId, now: Now) {
        if let (Some((key, _)), Some(rate)) = (self.limiting.guests.get(&id.index), self.limiting.connects) {
            self.limiting.sources.entry(*key, now).bucket.give_back(rate, 1);
        }
    }

    /// Whether a user is banned, and refused for it.
    pub(super) fn refuses_banned(&mut self, app: AppId, user: &str, now: Now) -> bool {
        let defence = &self.settings.limits.defence;
        let by = self.limiting.banned.bans_user(app, user, now);
        self.limiting.refuses_banned(defence, by, Why::BannedUser)
    }

    /// At a user's home: whether it comes more often than it may, and is refused for it.
    pub(super) fn refuses_user_rate(&mut self, identity: &Identity, now: Now) -> bool {
        let defence = &self.settings.limits.defence;
        let Some(rate) = defence.user_connects.filter(|_| defence.enforce != Enforce::Off) else { return false };
        let limiting = &mut self.limiting;
        let entry = limiting.users.entry(limiting.hash.of(&(identity.app, &*identity.user)), now);
        entry.weight.add(1.0, now);
        if entry.bucket.take(rate, 1, now).is_ok() {
            return false;
        }
        limiting.offend(Subject::User(identity.app, Arc::clone(&identity.user)), OFFENCE_RATE);
        limiting.refuses(defence, Why::UserRate)
    }

    /// A device publishes. Over its rate it is not read for as long as it has taken too much, or closed; false: then
    /// the message goes nowhere.
    pub(super) fn paces<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, message: &Message) -> bool {
        if self.limiting.publishes.is_empty() {
            return true;
        }
        let Some(connection) = self.directory.get(id).and_then(Session::connection) else { return true };
        let (defence, now) = (&self.settings.limits.defence, core.now());
        let bytes = (message.payload.len() + message.topic.len()) as u64;
        let buckets = &mut self.limiting.publishes[id.index as usize];
        let mut spend = |which: usize, rate: Option<Rate>, amount: u64| {
            let Some(rate) = rate else { return 0 };
            let mut bucket = Bucket::kept(buckets[which]);
            let wait_ms = bucket.spend(rate, amount, now);
            buckets[which] = bucket.full_at_ns();
            wait_ms
        };
        let wait_ms = spend(0, defence.publishes, 1).max(spend(1, defence.publish_bytes, bytes));
        let over = defence.over_publish;
        if wait_ms == 0 || !self.limiting.refuses(defence, Why::PublishRate) {
            return true;
        }
        match over {
            OverPublish::Pause => {
                let at_ms = now.monotonic_ms.saturating_add(wait_ms);
                core.pause_reading(connection);
                self.limiting.paced.push(Reverse((at_ms, connection.index, connection.generation)));
                // What it says meanwhile is not heard, so its silence does not count.
                self.extend_deadline_from(core, connection, id, at_ms);
                true
            }
            OverPublish::Close => {
                let session = self.directory.get(id).expect("it was there a moment ago");
                let subject = Subject::User(session.app(), session.user().into());
                self.limiting.offend(subject, OFFENCE_PUBLISH);
                self.end_connection(core, id, CloseReason::MessageRate);
                false
            }
        }
    }

    /// At a topic's home: whether it takes a message more. Who is refused is told, and it is counted.
    pub(super) fn topic_takes<D: Driver>(&mut self, core: &mut Core<D>, publish: &Publish) -> bool {
        let Some(topics) = &mut self.limiting.topics else { return true };
        let message = &publish.message;
        let Some(rate) = self.settings.topics.rate(&message.topic) else { return true };
        let entry = topics.entry(self.hash.of(&(message.app, &*message.topic)), core.now());
        entry.weight.add(1.0, core.now());
        if entry.bucket.take(rate, 1, core.now()).is_ok() {
            return true;
        }
        self.limiting.refused_topic_rate += 1;
        self.answer(core, publish.origin, Err(CommandError::TopicRate), None);
        false
    }

    /// Reads those on whose time has come, and reports offences.
    pub(super) fn go_on_limiting<D: Driver>(&mut self, core: &mut Core<D>) {
        let now_ms = core.now().monotonic_ms;
        while let Some(Reverse((at_ms, index, generation))) = self.limiting.paced.peek().copied()
            && at_ms <= now_ms
        {
            self.limiting.paced.pop();
            let connection = ConnectionId { index, generation };
            let session = core.tag(connection).and_then(|tag| self.session_of(connection, tag));
            // A session that waits for something itself resumes when that has come.
            if session.and_then(|id| self.directory.get(id)).is_some_and(|session| !session.is_paused()) {
                core.resume_reading(connection);
            }
        }
        let limiting = &mut self.limiting;
        if !limiting.offences.is_empty() && now_ms >= limiting.reported_ms + millis(OFFENCES_INTERVAL) {
            limiting.reported_ms = now_ms;
            let report = std::mem::take(&mut limiting.offences).into_iter().collect();
            core.send_control(REGISTRAR, Letter::Offences(report));
        }
    }
}

pub(super) fn is_allowed(defence: &Defence, address: IpAddr) -> bool {
    defence.allow.iter().any(|range| range.contains(address))
}

fn millis(duration: core::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
