//! Pushes: one user, a device, a list of users, everyone. A push to a topic is a publish.
//!
//! The control plane sends a push to one shard: the user's home, the topic's home, or for lists and everyone any shard,
//! which coordinates: it takes the batch to the log, then asks the users' homes to deliver (QoS 0) and to count.

use super::command::{CommandError, CommandToken, Event, Push, PushResult, Pushed, Target};
use super::gateway::{Core, Gateway};
use super::letter::{Awaited, Counted, Letter, Origin, Publish, UsersPart};
use super::log_port::Waiting;
use super::waits::Held;
use crate::base::ids::{PushId, Qos};
use crate::base::message::{Message, StreamKey};
use crate::io::Driver;
use crate::store::{Answer, IdempotencyKey, NewEntry, Position, Request, StoreError};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;

/// How a push is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answering {
    pub(super) token: CommandToken,
    /// When the devices have it, at the latest then, in monotonic milliseconds.
    pub(super) deliver_by_ms: Option<u64>,
}

/// A list push whose parts are being counted.
#[derive(Debug)]
pub(crate) struct ListPush {
    token: CommandToken,
    results: SmallVec<[PushResult; 1]>,
    duplicate: bool,
    id: PushId,
    parts: u16,
}

impl Gateway {
    /// A push from the control plane.
    pub(super) fn on_push<D: Driver>(&mut self, core: &mut Core<D>, mut push: Box<Push>, token: CommandToken) {
        if self.draining {
            return self.tell(Event::Pushed { token, result: Err(CommandError::Draining) });
        }
        // A topic's home must know who is owed its messages.
        let is_early = !self.is_serving();
        let is_full = push.deliver_within.is_some() && self.waits.is_full();
        if is_early || is_full || self.is_log_congested() && (push.qos() >= Qos::AtLeastOnce || push.key.is_some()) {
            return self.tell(Event::Pushed { token, result: Err(CommandError::Busy) });
        }
        if let Target::Topic(_) = push.target {
            let Push { message, key, id, .. } = *push;
            let publish = Publish {
                message,
                origin: Origin::Control(token, id),
                records: Vec::new(),
                key,
                upstream: None,
                is_told: false,
            };
            return self.publish(core, publish);
        }
        let deliver_by_ms = push.deliver_within.map(|within| core.now().deadline(within));
        if push.qos() == Qos::AtMostOnce && push.key.is_none() {
            return self.deliver_push(core, &push, Answering { token, deliver_by_ms }, &[], None);
        }
        let (app, id) = (push.app, push.id);
        let key = push.key.take().map(|(key, body_hash)| IdempotencyKey { app, key, body_hash, id });
        let entries = if push.qos() == Qos::AtMostOnce { Vec::new() } else { entries_of(&push) };
        let request = Request::Append { key, entries, records: Vec::new() };
        self.log.submit(request, Waiting::Push { push, token, deliver_by_ms });
    }

    /// The log has answered a push.
    pub(super) fn on_push_committed<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        push: &Push,
        answering: Answering,
        result: Result<Answer, StoreError>,
    ) {
        match result {
            Ok(Answer::Appended { positions, duplicate, .. }) => {
                self.deliver_push(core, push, answering, &positions, duplicate);
            }
            Ok(other) => unreachable!("an append was answered with {other:?}"),
            Err(error) => {
                let error = self.refused_by_log(error);
                self.tell(Event::Pushed { token: answering.token, result: Err(error) });
            }
        }
    }

    /// Delivers what was not logged, counts who is there, and answers. Logged messages come with their batch.
    fn deliver_push<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        push: &Push,
        answering: Answering,
        positions: &[Position],
        first: Option<PushId>,
    ) {
        let Answering { token, deliver_by_ms } = answering;
        let (id, duplicate) = (first.unwrap_or(push.id), first.is_some());
        let unlogged = push.qos() == Qos::AtMostOnce && !duplicate;
        let message = unlogged.then(|| Arc::clone(&push.message));
        let position = |index: usize| positions.get(index).map(|at: &Position| (at.epoch, at.offset));
        match &push.target {
            Target::Topic(_) => unreachable!("a push to a topic is a publish"),
            Target::User(user) | Target::Device { user, .. } => {
                let mut delivered = Vec::new();
                if let Some(message) = message {
                    let tell = deliver_by_ms.is_some().then_some(&mut delivered);
                    self.deliver_inbox(core, push.app, user, &message, tell);
                }
                if !token.is_awaited() {
                    return;
                }
                let online = Some(self.online(push.app, user));
                let result = PushResult { user: Some(user.clone()), position: position(0), online, delivered };
                let pushed = Pushed { results: smallvec![result], duplicate, id };
                let (Some(deadline_ms), Some(at)) = (deliver_by_ms, positions.first()) else {
                    return self.tell_pushed(token, Ok(pushed));
                };
                let wait = self.hold_answer(Held::Push { token, pushed }, deadline_ms);
                self.wait_for_devices(core, wait, &push.message, (0, user), at);
                self.begin_wait(core, wait);
            }
            Target::Users(users) => {
                let results = users.iter().enumerate().map(|(index, user)| PushResult {
                    user: Some(user.clone()),
                    position: position(index),
                    online: None,
                    delivered: Vec::new(),
                });
                let list = ListPush { token, results: results.collect(), duplicate, id, parts: 0 };
                let logged = (!positions.is_empty()).then(|| Arc::clone(&push.message));
                let awaited =
                    deliver_by_ms.map(|deadline_ms| Awaited { deadline_ms, logged, positions: positions.to_vec() });
                self.send_parts(core, push, users, message, awaited.as_ref(), list);
            }
            Target::Everyone => {
                if let Some(message) = message {
                    for shard in self.homes.all() {
                        if shard == self.shard {
                            self.incoming.everyone(message.clone());
                        } else {
                            core.send_control(shard, Letter::DeliverEveryone(message.clone()));
                        }
                    }
                }
                let result = PushResult { user: None, position: position(0), online: None, delivered: Vec::new() };
                self.tell_pushed(token, Ok(Pushed { results: smallvec![result], duplicate, id }));
            }
        }
    }

    fn send_parts<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        push: &Push,
        users: &[Arc<str>],
        message: Option<Arc<Message>>,
        awaited: Option<&Awaited>,
        list: ListPush,
    ) {
        let app = push.app;
        let mut by_home: Vec<Vec<(u32, Arc<str>)>> = vec![Vec::new(); usize::from(self.homes.shards())];
        for (index, user) in (0_u32..).zip(users) {
            by_home[usize::from(self.homes.user(app, user).0)].push((index, user.clone()));
        }
        let slot = self.lists.insert(list);
        let ticket = u32::try_from(slot).expect("list pushes under way are bounded by the API");
        for (home, users) in self.homes.all().zip(by_home) {
            if users.is_empty() {
                continue;
            }
            self.lists[slot].parts += 1;
            let message = message.clone();
            let awaited = awaited.map(|all| Awaited {
                deadline_ms: all.deadline_ms,
                logged: all.logged.clone(),
                positions: users.iter().filter_map(|&(index, _)| all.positions.get(index as usize).copied()).collect(),
            });
            let part =
                Box::new(UsersPart { users, app, message, awaited, wait: None, coordinator: self.shard, ticket });
            if home == self.shard {
                self.incoming.users(part);
            } else {
                core.send_control(home, Letter::UsersPart(part));
            }
        }
        if self.lists[slot].parts == 0 {
            self.finish_list(slot);
        }
    }

    /// One part of a list has been delivered and counted.
    pub(super) fn on_users_counted(&mut self, ticket: u32, counts: Vec<Counted>) {
        let slot = ticket as usize;
        let list = &mut self.lists[slot];
        for Counted { index, online, delivered } in counts {
            let result = &mut list.results[index as usize];
            (result.online, result.delivered) = (Some(online), delivered);
        }
        list.parts -= 1;
        if list.parts == 0 {
            self.finish_list(slot);
        }
    }

    fn finish_list(&mut self, slot: usize) {
        let ListPush { token, results, duplicate, id, .. } = self.lists.remove(slot);
        self.tell_pushed(token, Ok(Pushed { results, duplicate, id }));
    }

    /// What came of a push: a failure is always told, else who waits for it.
    pub(super) fn tell_pushed(&mut self, token: CommandToken, result: Result<Pushed, CommandError>) {
        if result.is_err() || token.is_awaited() {
            self.tell(Event::Pushed { token, result });
        }
    }
}

fn entries_of(push: &Push) -> Vec<NewEntry> {
    let message = &push.message;
    let inbox =
        |user: &Arc<str>| NewEntry { stream: StreamKey::Inbox(push.app, user.clone()), message: Arc::clone(message) };
    match &push.target {
        Target::User(user) | Target::Device { user, .. } => vec![inbox(user)],
        Target::Users(users) => users.iter().map(inbox).collect(),
        Target::Everyone => {
            vec![NewEntry { stream: StreamKey::Everyone(push.app), message: Arc::clone(message) }]
        }
        Target::Topic(topic) => {
            vec![NewEntry { stream: StreamKey::Topic(push.app, topic.clone()), message: Arc::clone(message) }]
        }
    }
}
