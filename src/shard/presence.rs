//! Who subscribes to a topic that a rule shows: each user once, however many devices.
//!
//! ```text
//!   a session's shard ──a device joins, leaves──► the topic's home ──► `$presence/TOPIC`: {"event":"join", …}
//!   (subscribes by name and is connected)          counts devices a user; who has none any more has left after a grace
//! ```
//! Only filters without a wildcard count: who listens to all rooms is in none of them. And only those that stand at
//! their homes: who subscribes to a topic and to who is in it with one packet is told of itself.

use super::command::{CommandToken, Event, Present};
use super::gateway::{Core, Gateway};
use super::letter::{Letter, Origin, Publish};
use crate::base::ids::{AppId, Qos, SessionId, ShardId};
use crate::base::message::Message;
use crate::io::Driver;
use crate::limits::{PRESENCE_ENTRIES_MAX, PRESENCE_GRACE, PRESENCE_USERS_MAX, TURN_DEPARTURES_MAX};
use crate::router::filter::is_wildcard;
use crate::router::presence::{Change, Joined, Presence};
use crate::session::{ReplyTo, Session};
use std::collections::HashMap;
use std::sync::Arc;

/// Below it, a topic's own name: who comes and goes.
const PREFIX: &str = "$presence/";

/// What a shard knows of it.
#[derive(Debug)]
pub(crate) struct Showing {
    /// What homes were told of sessions here.
    told: HashMap<SessionId, Told>,
    /// Of the topics whose home this is.
    home: Presence,
}

/// A session whose subscriptions are shown.
#[derive(Debug)]
struct Told {
    app: AppId,
    user: Arc<str>,
    topics: Vec<Arc<str>>,
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

impl Default for Showing {
    fn default() -> Self {
        Self { told: HashMap::new(), home: Presence::new(PRESENCE_ENTRIES_MAX) }
    }
}

impl Showing {
    /// Users in topics whose home this is.
    pub(crate) fn entries(&self) -> usize {
        self.home.entries()
    }

    /// When somebody will have left one.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.home.next_ms()
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
        // Told earlier, it might be heard by others before it can be heard by the session itself.
        let begun = session.subscriptions().iter().filter(|subscription| subscription.has_begun());
        let names = begun.map(|subscription| subscription.text.shared());
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
        if !joins {
            let leaves_ms = core.now().deadline(PRESENCE_GRACE);
            return self.presence.home.leave(app, topic, user, leaves_ms);
        }
        match self.presence.home.join(app, &topic, &user) {
            Joined::New(present) => self.tell_change(core, "join", Change { app, topic, user, present }),
            Joined::Known => {}
            Joined::Full => self.counters.dropped_presence += 1,
        }
    }

    /// Tells of those whose grace is over; true: more may be due.
    pub(super) fn tell_departures<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        let now_ms = core.now().monotonic_ms;
        for _ in 0..TURN_DEPARTURES_MAX {
            let Some(departed) = self.presence.home.next_departed(now_ms) else { return false };
            self.tell_change(core, "leave", departed);
        }
        true
    }

    /// At QoS 0: who wants to be sure asks who is there.
    fn tell_change<D: Driver>(&mut self, core: &mut Core<D>, event: &'static str, change: Change) {
        let Change { app, topic, user, present } = change;
        let at_ms = core.now().wall_ms;
        let user = serde_json::Value::from(&*user);
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
        let publish = Publish {
            message: Arc::new(message),
            origin: Origin::Nobody,
            records: Vec::new(),
            key: None,
            upstream: None,
            is_told: false,
        };
        self.publish(core, publish);
    }

    /// This shard is the topic's home: who is there?
    pub(super) fn on_present<D: Driver>(&mut self, core: &mut Core<D>, app: AppId, topic: Arc<str>, asker: Asker) {
        let is_shown = self.settings.topics.show(&topic);
        let present = is_shown.then(|| {
            let users = self.presence.home.users(app, &topic);
            let count = users.len();
            Present { users: users.take(PRESENCE_USERS_MAX).cloned().collect(), count }
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
