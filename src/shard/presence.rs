//! Who subscribes to a topic that a rule shows: each user once, however many devices.
//!
//! ```text
//!   a session's shard ──a device joins, leaves──► the topic's home ──► `$presence/TOPIC`: {"event":"join", …}
//!   (subscribes by name and is connected)          counts devices a user; who has none any more has left after a grace
//! ```
//! Only filters without a wildcard count: who listens to all rooms is in none of them.

use super::command::{CommandToken, Event, Present};
use super::gateway::{Core, Gateway};
use super::letter::{Letter, Origin, Publish};
use crate::base::ids::{AppId, Qos, SessionId, ShardId};
use crate::base::message::Message;
use crate::io::Driver;
use crate::limits::{PRESENCE_ENTRIES_MAX, PRESENCE_GRACE, PRESENCE_USERS_MAX, TURN_DEPARTURES_MAX};
use crate::router::filter::is_wildcard;
use crate::session::{ReplyTo, Session};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Below it, a topic's own name: who comes and goes.
const PREFIX: &str = "$presence/";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// What homes were told of sessions here.
    told: HashMap<SessionId, Told>,
    /// Topics whose home this is, each with somebody in it.
    topics: HashMap<(AppId, Arc<str>), BTreeMap<Arc<str>, Standing>>,
    /// Users over all of these.
    entries: usize,
    /// Those of them that have no device any more: when they will have left.
    leaving: BTreeSet<Leaving>,
}

/// A session whose subscriptions are shown.
#[derive(Debug)]
struct Told {
    app: AppId,
    user: Arc<str>,
    topics: Vec<Arc<str>>,
}

/// A user in a topic.
#[derive(Debug)]
struct Standing {
    devices: u32,
    /// When it will have left; none: it is there.
    leaves_ms: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Leaving {
    at_ms: u64,
    app: AppId,
    topic: Arc<str>,
    user: Arc<str>,
}

/// A device begins or ends a subscription.
#[derive(Debug)]
pub(crate) struct PresenceLetter {
    app: AppId,
    topic: Arc<str>,
    user: Arc<str>,
    joins: bool,
}

/// Who asks who is there.
#[derive(Debug)]
pub(crate) enum Asker {
    /// The control plane.
    Control(CommandToken),
    /// A device, whose session is on that shard.
    Device(ShardId, SessionId, Box<ReplyTo>),
}

impl Presence {
    /// Users in topics, and when the next one has left.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.leaving.first().map(|leaving| leaving.at_ms)
    }
}

impl Gateway {
    /// A session's subscriptions, or whether it is connected, may have changed: tells the homes of the topics concerned.
    pub(super) fn show<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        if self.settings.topics.presence.is_empty() {
            return;
        }
        let session = self.directory.get(id);
        let topics: Vec<Arc<str>> = session.map(|session| self.shown_of(session)).unwrap_or_default();
        let before = self.presence.told.remove(&id);
        if before.is_none() && topics.is_empty() {
            return;
        }
        let (app, user, before) = match (before, session) {
            (Some(Told { app, user, topics }), _) => (app, user, topics),
            (None, Some(session)) => (session.app(), session.user().into(), Vec::new()),
            (None, None) => unreachable!("who is gone has no topics"),
        };
        for topic in before.iter().filter(|topic| !topics.contains(topic)) {
            self.tell_presence(core, app, topic, &user, false);
        }
        for topic in topics.iter().filter(|topic| !before.contains(topic)) {
            self.tell_presence(core, app, topic, &user, true);
        }
        if !topics.is_empty() {
            self.presence.told.insert(id, Told { app, user, topics });
        }
    }

    fn shown_of(&self, session: &Session) -> Vec<Arc<str>> {
        if session.connection().is_none() || session.is_over() {
            return Vec::new();
        }
        let names = session.subscriptions().iter().map(|subscription| subscription.text.shared());
        names.filter(|name| !is_wildcard(name) && self.settings.topics.show(name)).cloned().collect()
    }

    fn tell_presence<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        app: AppId,
        topic: &Arc<str>,
        user: &Arc<str>,
        joins: bool,
    ) {
        let letter = PresenceLetter { app, topic: topic.clone(), user: user.clone(), joins };
        let home = self.homes.topic(app, topic);
        if home == self.shard {
            self.on_presence(core, letter);
        } else {
            core.send_control(home, Letter::Presence(Box::new(letter)));
        }
    }

    /// This shard is the topic's home: a device of a user came or went.
    pub(super) fn on_presence<D: Driver>(&mut self, core: &mut Core<D>, letter: PresenceLetter) {
        let PresenceLetter { app, topic, user, joins } = letter;
        let presence = &mut self.presence;
        if joins {
            let users = presence.topics.entry((app, topic.clone())).or_default();
            if let Some(standing) = users.get_mut(&user) {
                standing.devices += 1;
                if let Some(at_ms) = standing.leaves_ms.take() {
                    presence.leaving.remove(&Leaving { at_ms, app, topic, user });
                }
                return;
            }
            if presence.entries >= PRESENCE_ENTRIES_MAX {
                self.counters.dropped_presence += 1;
                if users.is_empty() {
                    presence.topics.remove(&(app, topic));
                }
                return;
            }
            presence.entries += 1;
            users.insert(user.clone(), Standing { devices: 1, leaves_ms: None });
            return self.tell_change(core, app, &topic, &user, "join");
        }
        let key = (app, topic);
        // Who found no room when it came has no place to leave.
        let Some(standing) = presence.topics.get_mut(&key).and_then(|users| users.get_mut(&user)) else { return };
        standing.devices = standing.devices.saturating_sub(1);
        if standing.devices == 0 {
            let at_ms = core.now().deadline(PRESENCE_GRACE);
            standing.leaves_ms = Some(at_ms);
            presence.leaving.insert(Leaving { at_ms, app, topic: key.1, user });
        }
    }

    /// Tells of those whose grace is over; true: more are due.
    pub(super) fn tell_departures<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        let now_ms = core.now().monotonic_ms;
        for _ in 0..TURN_DEPARTURES_MAX {
            if self.presence.next_ms().is_none_or(|at_ms| at_ms > now_ms) {
                return false;
            }
            let Leaving { app, topic, user, .. } = self.presence.leaving.pop_first().expect("it was just looked at");
            let key = (app, topic);
            let users = self.presence.topics.get_mut(&key).expect("who leaves is there");
            users.remove(&user).expect("who leaves is there");
            self.presence.entries -= 1;
            if users.is_empty() {
                self.presence.topics.remove(&key);
            }
            self.tell_change(core, app, &key.1, &user, "leave");
        }
        self.presence.next_ms().is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// At QoS 0: who wants to be sure asks who is there.
    fn tell_change<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        app: AppId,
        topic: &Arc<str>,
        user: &Arc<str>,
        event: &'static str,
    ) {
        let at_ms = core.now().wall_ms;
        let present = self.presence.topics.get(&(app, topic.clone())).map_or(0, BTreeMap::len);
        let user = serde_json::Value::from(&**user);
        let payload = format!("{{\"event\":\"{event}\",\"user\":{user},\"present\":{present},\"at_ms\":{at_ms}}}");
        let message = Message {
            app,
            topic: format!("{PREFIX}{topic}").into(),
            only_device: None,
            payload: payload.into_bytes().into(),
            qos: Qos::AtMostOnce,
            retain: false,
            created_ms: at_ms,
            expires_ms: None,
            publisher: None,
            properties: None,
        };
        let publish = Publish { message: Arc::new(message), origin: Origin::Nobody, records: Vec::new(), key: None };
        self.publish(core, publish);
    }

    /// This shard is the topic's home: who is there?
    pub(super) fn on_present<D: Driver>(&mut self, core: &mut Core<D>, app: AppId, topic: Arc<str>, asker: Asker) {
        let is_shown = self.settings.topics.show(&topic);
        let present = is_shown.then(|| {
            let users = self.presence.topics.get(&(app, topic));
            let names = users.into_iter().flat_map(BTreeMap::keys).take(PRESENCE_USERS_MAX).cloned();
            Present { users: names.collect(), count: users.map_or(0, BTreeMap::len) }
        });
        match asker {
            Asker::Control(token) => self.tell(Event::Presence { token, present }),
            Asker::Device(shard, session, to) if shard == self.shard => {
                self.answer_presence(core, session, &to, present.as_ref());
            }
            Asker::Device(shard, session, to) => {
                core.send_control(shard, Letter::Presented { session, to, present: present.map(Box::new) });
            }
        }
    }
}
