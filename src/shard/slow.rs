//! Messages of QoS 0 for clients that read slowly, and what they are told of those they did not get.
//!
//! ```text
//!             room?──yes──────────────────────────────────────────► outbox
//!  message ─────┤ no: the topic's rule
//!               ├─ drop_newest ─► dropped            ┐
//!               ├─ drop_oldest ─► waits ─too many──► │ the oldest is dropped     ├─ counted, and told with the next
//!               ├─ conflate ────► waits ─same key──► │ replaced in its place     │  message as `dropped`
//!               └─ close ───────► the connection is closed
//! ```
//! What waits is a reference here, taken only while a client is behind; whoever keeps up costs one look at an empty map.
//! Later messages of such topics wait behind it. With `conflate` the newest of each key takes the place of the one that
//! waits, so a key that changes all the time is sent as often as any other; keys of one topic may thus change places.

use super::gateway::{Core, Gateway};
use super::settings::SlowPolicy;
use crate::base::ids::{Epoch, Offset, SessionId};
use crate::base::message::Message;
use crate::engine::Room;
use crate::io::Driver;
use crate::limits::{SLOW_BYTES_MAX, SLOW_MESSAGES_MAX, SLOW_SESSION_MESSAGES_MAX};
use crate::session::{CloseReason, Protocol, Session};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The user property that says how many messages its receiver did not get before this one.
const PROPERTY: &str = "dropped";

type Place = Option<(Epoch, Offset)>;

/// What makes two messages the same to `conflate`: the topic, and the key that the pusher gave.
type Key = (Arc<str>, Box<str>);

/// Clients that are behind, by session index.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    sessions: HashMap<u32, Behind>,
    messages: usize,
    bytes: usize,
}

/// What of one client waits, and what it has not been told of.
#[derive(Debug, Default)]
struct Behind {
    /// By the number of its coming.
    waiting: BTreeMap<u64, Waiting>,
    /// Those of them that another may replace.
    keys: HashMap<Key, u64>,
    bytes: usize,
    next: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    message: Arc<Message>,
    place: Place,
    is_conflated: bool,
}

/// What became of others when one was to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Displaced {
    oldest: u64,
    conflated: u64,
    /// It does not wait: there is no room for it in the shard.
    newest: bool,
}

impl Slow {
    /// Whether the session has anything here.
    #[inline]
    pub(crate) fn has(&self, session: u32) -> bool {
        !self.sessions.is_empty() && self.sessions.contains_key(&session)
    }

    fn waits(&self, session: u32) -> bool {
        self.has(session) && !self.sessions[&session].waiting.is_empty()
    }

    /// Has a message wait. `bytes_max`: of all that waits for one session.
    fn push(&mut self, session: u32, new: Waiting, bytes_max: usize) -> Displaced {
        let mut displaced = Displaced::default();
        let behind = self.sessions.entry(session).or_default();
        let length = size(&new.message);
        let key = new.is_conflated.then(|| key_of(&new.message));
        if let Some(old) = key.as_ref().and_then(|key| behind.keys.get(key)).and_then(|at| behind.waiting.get_mut(at)) {
            let before = size(&old.message);
            *old = new;
            displaced.conflated = 1;
            behind.bytes = behind.bytes - before + length;
            self.bytes = self.bytes - before + length;
        } else if self.messages >= SLOW_MESSAGES_MAX || self.bytes + length > SLOW_BYTES_MAX {
            displaced.newest = true;
            self.tidy(session);
            return displaced;
        } else {
            behind.waiting.insert(behind.next, new);
            behind.keys.extend(key.map(|key| (key, behind.next)));
            behind.next += 1;
            behind.bytes += length;
            self.bytes += length;
            self.messages += 1;
        }
        while self.is_over(session, bytes_max) {
            self.pop(session);
            displaced.oldest += 1;
        }
        displaced
    }

    /// The last one always stays, however large it is.
    fn is_over(&self, session: u32, bytes_max: usize) -> bool {
        let behind = &self.sessions[&session];
        behind.waiting.len() > 1 && (behind.waiting.len() > SLOW_SESSION_MESSAGES_MAX || behind.bytes > bytes_max)
    }

    /// What is to be sent next.
    fn first(&self, session: u32) -> Option<(Arc<Message>, Place)> {
        let (_, first) = self.sessions.get(&session)?.waiting.first_key_value()?;
        Some((Arc::clone(&first.message), first.place))
    }

    /// It is gone, one way or another.
    fn pop(&mut self, session: u32) {
        let Some(behind) = self.sessions.get_mut(&session) else { return };
        let Some((number, gone)) = behind.waiting.pop_first() else { return };
        if gone.is_conflated {
            let removed = behind.keys.remove(&key_of(&gone.message));
            assert!(removed == Some(number), "a key stands for the one message that waits with it");
        }
        behind.bytes -= size(&gone.message);
        self.bytes -= size(&gone.message);
        self.messages -= 1;
        self.tidy(session);
    }

    /// So many messages did not reach a client that can be told.
    fn note(&mut self, session: u32, count: u64) {
        self.sessions.entry(session).or_default().dropped += count;
    }

    /// The message as it says what its receiver did not get.
    pub(crate) fn noted(&self, session: u32, message: &Message) -> Option<Message> {
        let dropped = self.sessions.get(&session).map(|behind| behind.dropped).filter(|&dropped| dropped > 0)?;
        let mut noted = message.clone();
        noted.properties.get_or_insert_default().user.push((PROPERTY.into(), dropped.to_string().into()));
        Some(noted)
    }

    /// It has been told.
    pub(crate) fn told(&mut self, session: u32) {
        if let Some(behind) = self.sessions.get_mut(&session) {
            behind.dropped = 0;
            self.tidy(session);
        }
    }

    /// The session's connection is gone; how many waited for it.
    pub(crate) fn forget(&mut self, session: u32) -> u64 {
        let Some(behind) = self.sessions.remove(&session) else { return 0 };
        self.messages -= behind.waiting.len();
        self.bytes -= behind.bytes;
        behind.waiting.len() as u64
    }

    fn tidy(&mut self, session: u32) {
        if self.sessions.get(&session).is_some_and(|behind| behind.waiting.is_empty() && behind.dropped == 0) {
            self.sessions.remove(&session);
        }
    }

    /// Clients that are behind, or have something to be told.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What waits for all of them.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn size(message: &Message) -> usize {
    message.payload.len() + message.topic.len()
}

fn key_of(message: &Message) -> Key {
    let given = message.properties.as_ref().and_then(|properties| properties.collapse.clone());
    (Arc::clone(&message.topic), given.unwrap_or_default())
}

impl Gateway {
    /// Whether a message has to wait because others of its kind do, and does so now.
    pub(super) fn waits_behind<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        place: Place,
    ) -> bool {
        if !self.slow.waits(id.index) {
            return false;
        }
        let policy = self.slow_policy(id, message, place);
        let waits = matches!(policy, SlowPolicy::DropOldest | SlowPolicy::Conflate);
        if waits {
            self.have_wait(core, id, message, place, policy);
        }
        waits
    }

    /// Whether it is known without encoding it that a message of QoS 0 finds no room.
    pub(super) fn is_without_room<D: Driver>(&self, core: &Core<D>, id: SessionId, message: &Message) -> bool {
        let connection = self.directory.get(id).and_then(Session::connection);
        self.slow.has(id.index) && connection.is_some_and(|it| !core.has_outbox_room(it, Room::Spare, size(message)))
    }

    /// A message of QoS 0 found no room.
    pub(super) fn found_no_room<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        place: Place,
    ) {
        match self.slow_policy(id, message, place) {
            SlowPolicy::DropNewest => self.drop_newest(id),
            policy @ (SlowPolicy::DropOldest | SlowPolicy::Conflate) => {
                self.have_wait(core, id, message, place, policy);
            }
            SlowPolicy::Close => {
                self.counters.dropped_outbox_full += 1;
                self.end_connection(core, id, CloseReason::SlowConsumer);
            }
        }
    }

    /// A message whose id would tell its client a position does not wait: later ones would tell a later position first.
    fn slow_policy(&self, id: SessionId, message: &Message, place: Place) -> SlowPolicy {
        let may_wait =
            place.is_none() || self.directory.get(id).is_some_and(|session| session.protocol().acknowledges());
        if may_wait { self.settings.topics.slow(&message.topic) } else { SlowPolicy::DropNewest }
    }

    fn have_wait<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        message: &Arc<Message>,
        place: Place,
        policy: SlowPolicy,
    ) {
        let waited = self.slow.waits(id.index);
        let is_conflated = policy == SlowPolicy::Conflate;
        let waiting = Waiting { message: Arc::clone(message), place, is_conflated };
        let displaced = self.slow.push(id.index, waiting, self.settings.limits.outbox_bytes);
        self.counters.dropped_oldest += displaced.oldest;
        self.counters.dropped_conflated += displaced.conflated;
        self.tell_dropped(id, displaced.oldest + displaced.conflated);
        if displaced.newest {
            self.drop_newest(id);
        }
        let connection = self.directory.get(id).and_then(Session::connection);
        if let Some(connection) = connection.filter(|_| !waited && self.slow.waits(id.index)) {
            self.wait_for_outbox(core, connection);
        }
    }

    fn drop_newest(&mut self, id: SessionId) {
        self.counters.dropped_outbox_full += 1;
        self.tell_dropped(id, 1);
    }

    fn tell_dropped(&mut self, id: SessionId, count: u64) {
        if count > 0 && self.directory.get(id).is_some_and(|session| session.protocol() == Protocol::Mqtt5) {
            self.slow.note(id.index, count);
        }
    }

    /// The session's outbox has room again.
    pub(super) fn send_slow<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        while let Some((message, place)) = self.slow.first(id.index) {
            if !self.send_waiting(core, id, &message, place) {
                if let Some(connection) = self.directory.get(id).and_then(Session::connection) {
                    self.wait_for_outbox(core, connection);
                }
                return;
            }
            self.slow.pop(id.index);
        }
    }

    /// The session's connection is gone, and with it what waited.
    pub(super) fn forget_slow(&mut self, id: SessionId) {
        self.counters.dropped_waiting += self.slow.forget(id.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{AppId, Qos};
    use crate::base::message::Properties;

    fn message(topic: &str, collapse: Option<&str>, bytes: usize) -> Arc<Message> {
        let properties =
            collapse.map(|key| Box::new(Properties { collapse: Some(key.into()), ..Properties::default() }));
        Arc::new(Message {
            app: AppId(0),
            topic: topic.into(),
            only_device: None,
            payload: vec![0; bytes].into(),
            qos: Qos::AtMostOnce,
            retain: false,
            created_ms: 0,
            expires_ms: None,
            publisher: None,
            properties,
        })
    }

    fn waiting(message: &Arc<Message>, is_conflated: bool) -> Waiting {
        Waiting { message: Arc::clone(message), place: None, is_conflated }
    }

    fn drained(slow: &mut Slow, session: u32) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some((message, _)) = slow.first(session) {
            lengths.push(message.payload.len());
            slow.pop(session);
        }
        lengths
    }

    #[test]
    fn the_newest_of_each_key_takes_the_place_of_the_one_that_waits() {
        let mut slow = Slow::default();
        for (topic, key, bytes) in [
            ("t", None, 1),
            ("t", Some("a"), 2),
            ("u", None, 3),
            ("t", None, 4),
            ("t", Some("a"), 5),
            ("t", Some("b"), 6),
        ] {
            slow.push(7, waiting(&message(topic, key, bytes), true), usize::MAX);
        }
        assert_eq!((slow.messages(), slow.bytes()), (4, 4 + 5 + 3 + 6 + 4));
        assert_eq!(drained(&mut slow, 7), [4, 5, 3, 6]);
        assert_eq!((slow.sessions(), slow.messages(), slow.bytes()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_large_ones() {
        let mut slow = Slow::default();
        let one = message("t", None, 9);
        for _ in 0..SLOW_SESSION_MESSAGES_MAX {
            assert_eq!(slow.push(1, waiting(&one, false), usize::MAX), Displaced::default());
        }
        assert_eq!(slow.push(1, waiting(&one, false), usize::MAX).oldest, 1);
        assert_eq!(slow.messages(), SLOW_SESSION_MESSAGES_MAX);
        let gone = slow.push(1, waiting(&message("t", None, 99), false), 105).oldest;
        assert_eq!((gone, slow.messages()), (SLOW_SESSION_MESSAGES_MAX as u64, 1), "the newest alone is within 105");
        assert_eq!(slow.push(1, waiting(&message("t", None, 999), false), 105).oldest, 1, "the last one stays");
        assert_eq!(slow.forget(1), 1);
        assert_eq!((slow.sessions(), slow.messages(), slow.bytes()), (0, 0, 0));
    }

    #[test]
    fn what_waits_in_a_shard_is_bounded_over_all_clients() {
        let mut slow = Slow { messages: SLOW_MESSAGES_MAX - 1, ..Slow::default() };
        assert!(!slow.push(1, waiting(&message("t", None, 1), true), usize::MAX).newest);
        assert!(slow.push(2, waiting(&message("t", None, 1), true), usize::MAX).newest);
        assert!(!slow.has(2), "nothing of it is left");
        let replaced = slow.push(1, waiting(&message("t", None, 1), true), usize::MAX);
        assert_eq!((replaced.newest, replaced.conflated), (false, 1), "which needs no room");
        slow.messages = 0;
        slow.bytes = SLOW_BYTES_MAX;
        assert!(slow.push(3, waiting(&message("t", None, 1), false), usize::MAX).newest);
    }

    #[test]
    fn a_client_is_told_once_how_many_it_did_not_get() {
        let mut slow = Slow::default();
        assert_eq!(slow.noted(1, &message("t", None, 1)), None);
        slow.note(1, 2);
        slow.note(1, 3);
        let noted = slow.noted(1, &message("t", None, 1)).expect("there is something to tell");
        assert_eq!(noted.properties.expect("it has one").user, [("dropped".into(), "5".into())]);
        slow.told(1);
        assert!(!slow.has(1));
    }
}
