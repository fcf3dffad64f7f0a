//! Backends: random pushes through the control plane's handle.

use crate::client::TTLS;
use crate::coverage::Seen;
use crate::ledger::{Aim, Author, Ledger, MessageId};
use kittiwake::base::ids::{AppId, PushId, Qos};
use kittiwake::base::message::Message;
use kittiwake::io::sim::Random;
use kittiwake::shard::Handle;
use kittiwake::shard::command::{CommandError, CommandToken, Push, Pushed, Target};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

const LABELS: [&str; 3] = ["$inbox/push", "$inbox/orders/7", "$inbox/orders/8"];
const TOPICS: [&str; 3] = ["rooms/1", "news", "a"];

/// A push that was made, to be made again under its key.
#[derive(Clone)]
struct Keyed {
    id: MessageId,
    push: Push,
    /// What the first call was answered.
    reply: Option<Pushed>,
    is_first_answered: bool,
    tries: u32,
}

pub struct Backend {
    ledger: Rc<RefCell<Ledger>>,
    users: Vec<String>,
    devices: Vec<(String, String)>,
    is_wide: bool,
    next_token: u64,
    /// Calls without an answer: the message, and the key's place if it has one.
    pending: HashMap<u64, (MessageId, Option<usize>, bool)>,
    keyed: Vec<Keyed>,
}

impl Backend {
    pub fn new(ledger: &Rc<RefCell<Ledger>>, devices: Vec<(String, String)>, is_wide: bool) -> Self {
        let mut users: Vec<String> = devices.iter().map(|(user, _)| user.clone()).collect();
        users.sort();
        users.dedup();
        users.push("nobody".to_owned());
        let ledger = Rc::clone(ledger);
        Self { ledger, users, devices, is_wide, next_token: 0, pending: HashMap::new(), keyed: Vec::new() }
    }

    /// Pushes something, or the same again.
    pub fn act(&mut self, random: &mut Random, handle: &Handle, wall_ms: u64) {
        if !self.keyed.is_empty() && random.below(4) == 0 {
            return self.repeat(random, handle);
        }
        let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][random.below(3) as usize];
        let (aim, target, topic) = self.aim(random);
        let padding = if random.below(60) == 0 { 5_000 } else { random.below(30) as usize };
        let (id, payload) = self.ledger.borrow_mut().begin(Author::Backend, aim, topic, qos, padding);
        let ttl = (self.is_wide && random.below(3) == 0).then(|| TTLS[random.below(3) as usize]);
        let lives_ms = ttl.map(|seconds| u64::from(seconds) * 1_000);
        let expires_ms = lives_ms.map(|lives_ms| wall_ms + lives_ms);
        if let Some(lives_ms) = lives_ms {
            self.ledger.borrow_mut().mortal(id, lives_ms, expires_ms);
        }
        let message = Message {
            app: AppId(0),
            topic: topic.into(),
            only_device: match &target {
                Target::Device { device, .. } => Some(device.clone()),
                _ => None,
            },
            payload: payload.into(),
            qos,
            retain: false,
            created_ms: wall_ms,
            expires_ms,
            publisher: None,
            properties: None,
        };
        let key = (random.below(4) == 0).then(|| (format!("key-{id}").into_boxed_str(), id));
        if key.is_some() && qos == Qos::AtMostOnce {
            self.ledger.borrow_mut().coverage.hit(Seen::PushQos0Keyed);
        }
        let (id_of_push, deliver_within) = (PushId(0), None);
        let push = Push { app: AppId(0), target, message: Arc::new(message), key, id: id_of_push, deliver_within };
        let key_at = push.key.is_some().then(|| {
            self.keyed.push(Keyed { id, push: push.clone(), reply: None, is_first_answered: false, tries: 0 });
            self.keyed.len() - 1
        });
        self.ledger.borrow_mut().sent(id);
        self.call(handle, push, id, key_at, false);
    }

    /// Pushes something that lasts to a user.
    pub fn push_to(&mut self, user: &str, handle: &Handle, wall_ms: u64) {
        let (aim, target) = (Aim::Users(vec![user.to_owned()]), Target::User(user.into()));
        self.push_lasting((aim, target, LABELS[0]), Qos::AtLeastOnce, false, handle, wall_ms);
    }

    /// Pushes something that lasts to a topic, maybe under a key that nobody repeats.
    pub fn push_to_topic(&mut self, topic: &'static str, qos: Qos, is_keyed: bool, handle: &Handle, wall_ms: u64) {
        self.push_lasting((Aim::Topic, Target::Topic(topic.into()), topic), qos, is_keyed, handle, wall_ms);
    }

    fn push_lasting(
        &mut self,
        (aim, target, topic): (Aim, Target, &'static str),
        qos: Qos,
        is_keyed: bool,
        handle: &Handle,
        wall_ms: u64,
    ) {
        let (id, payload) = self.ledger.borrow_mut().begin(Author::Backend, aim, topic, qos, 0);
        let message = Message {
            app: AppId(0),
            topic: topic.into(),
            only_device: None,
            payload: payload.into(),
            qos,
            retain: false,
            created_ms: wall_ms,
            expires_ms: None,
            publisher: None,
            properties: None,
        };
        let key = is_keyed.then(|| (format!("key-{id}").into_boxed_str(), id));
        let push = Push { app: AppId(0), target, message: Arc::new(message), key, id: PushId(0), deliver_within: None };
        self.ledger.borrow_mut().sent(id);
        self.call(handle, push, id, None, false);
    }

    fn aim(&self, random: &mut Random) -> (Aim, Target, &'static str) {
        let label = LABELS[random.below(LABELS.len() as u64) as usize];
        let user = self.users[random.below(self.users.len() as u64) as usize].clone();
        let coverage = &mut self.ledger.borrow_mut().coverage;
        match random.below(7) {
            0 | 1 => {
                coverage.hit(Seen::PushUser);
                let target = Target::User(user.as_str().into());
                (Aim::Users(vec![user]), target, label)
            }
            2 => {
                coverage.hit(Seen::PushUsers);
                let users: Vec<String> = self.users.iter().filter(|_| random.below(2) == 0).cloned().collect();
                let target = Target::Users(users.iter().map(|user| user.as_str().into()).collect());
                (Aim::Users(users), target, label)
            }
            3 => {
                coverage.hit(Seen::PushDevice);
                let (user, device) = self.devices[random.below(self.devices.len() as u64) as usize].clone();
                let target = Target::Device { user: user.as_str().into(), device: device.as_str().into() };
                (Aim::Device(user, device), target, label)
            }
            4 => {
                coverage.hit(Seen::PushEveryone);
                (Aim::Everyone, Target::Everyone, label)
            }
            _ => {
                coverage.hit(Seen::PushTopic);
                // What share groups subscribe to, and nobody else: no wildcard at the start matches it.
                let topic = if random.below(2) == 0 {
                    ["$work/1", "$work/2"][random.below(2) as usize]
                } else {
                    TOPICS[random.below(TOPICS.len() as u64) as usize]
                };
                (Aim::Topic, Target::Topic(topic.into()), topic)
            }
        }
    }

    /// The same key again, or the same key for something else.
    fn repeat(&mut self, random: &mut Random, handle: &Handle) {
        let at = random.below(self.keyed.len() as u64) as usize;
        let Keyed { id, mut push, .. } = self.keyed[at].clone();
        self.ledger.borrow_mut().repeated(id);
        let conflicts = self.keyed[at].reply.is_some() && random.below(4) == 0;
        if conflicts {
            let (_, hash) = push.key.as_mut().expect("it is keyed");
            *hash += 1;
        }
        self.call(handle, push, id, Some(at), conflicts);
    }

    fn call(&mut self, handle: &Handle, push: Push, id: MessageId, key: Option<usize>, conflicts: bool) {
        self.next_token += 1;
        let push = Push { id: PushId(u128::from(self.next_token)), ..push };
        let taken = handle.push(push, CommandToken(self.next_token));
        handle.ring();
        match taken {
            Ok(()) => {
                if let Some(at) = key {
                    self.keyed[at].tries += 1;
                }
                self.pending.insert(self.next_token, (id, key, conflicts));
            }
            Err(error) => {
                let is_known = matches!(error, CommandError::Busy | CommandError::Draining);
                assert!(is_known, "a running node takes pushes: {error:?}");
                self.ledger.borrow_mut().coverage.hit(Seen::PushRefused);
            }
        }
    }

    /// The node's answer.
    pub fn answered(&mut self, token: CommandToken, result: Result<Pushed, CommandError>) {
        let (id, key, conflicts) = self.pending.remove(&token.0).expect("each push is answered once");
        let ledger = &mut *self.ledger.borrow_mut();
        match result {
            Ok(pushed) => {
                assert!(!conflicts, "m{id}: a key was taken for two bodies");
                ledger.acked(id);
                let Some(at) = key else {
                    assert!(!pushed.duplicate, "m{id} has no key to be a duplicate of");
                    return;
                };
                let known = &mut self.keyed[at];
                assert!(!pushed.duplicate || known.tries > 1, "m{id} was pushed once");
                if pushed.duplicate {
                    ledger.coverage.hit(Seen::KeyRepeated);
                }
                let positions = |pushed: &Pushed| pushed.results.iter().map(|one| one.position).collect::<Vec<_>>();
                // The answers to two calls may come in any order, but one call at most was the first.
                assert!(pushed.duplicate || !known.is_first_answered, "m{id} was taken twice under one key");
                assert!(pushed.duplicate || pushed.id == PushId(u128::from(token.0)), "m{id} was given another name");
                known.is_first_answered |= !pushed.duplicate;
                match &known.reply {
                    Some(first) => {
                        assert_eq!(positions(first), positions(&pushed), "m{id}: another answer under the same key");
                        assert_eq!(first.id, pushed.id, "m{id}: another name under the same key");
                    }
                    None => known.reply = Some(pushed),
                }
            }
            Err(CommandError::KeyConflict) => {
                assert!(conflicts, "m{id}: its own key conflicts");
                ledger.coverage.hit(Seen::KeyConflict);
            }
            Err(_) => ledger.coverage.hit(Seen::PushRefused),
        }
    }

    /// The node died: nobody knows what has become of what was not answered.
    pub fn node_died(&mut self) {
        self.pending.clear();
    }

    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }
}
