//! The checkers of share groups. A client is in one group at most, so what it gets of these topics is its group's.

use crate::client::SHARES;
use crate::coverage::Seen;
use crate::ledger::{Ledger, Life, Message, MessageId};
use kittiwake::base::ids::Qos;
use std::collections::{BTreeMap, HashMap};

/// A client as its group knows it.
#[derive(Debug, Default)]
pub struct Member {
    /// Counts connections and memberships, as far as the client knows.
    pub connection: u32,
    /// It has asked for QoS 2 in this life or an earlier one, so its session may take messages along when it ends.
    asks_twice: bool,
    /// That life has ended, and the server may not know yet.
    is_ending: bool,
}

impl Member {
    /// Its client's session is over: what becomes of it in the next life.
    pub fn reborn(&self) -> Self {
        Self { connection: self.connection + 1, asks_twice: self.asks_twice, is_ending: self.asks_twice }
    }
}

/// A delivery to a member.
#[derive(Clone, Copy, Debug)]
struct Given {
    client: usize,
    qos: Qos,
    connection: u32,
    /// Crashes so far.
    crashed_at: Option<usize>,
}

/// What groups owe and have given.
#[derive(Debug, Default)]
pub struct Shares {
    given: HashMap<(MessageId, usize), Vec<Given>>,
    /// Lasting members when the message was sent: client, life.
    owed: HashMap<MessageId, Vec<(usize, u32)>>,
    /// By group: QoS 2 messages up to this one may have gone with a session.
    gone: [MessageId; 2],
    /// Given to two although nobody knew that one of them had gone: that must have shown in the end.
    doubtful: Vec<(MessageId, [Given; 2])>,
}

impl Shares {
    /// A client, whose session has lasted, was in a group all the time: somebody of the group must have the message.
    pub fn missing(&self, messages: &BTreeMap<MessageId, Message>, client: usize, life: &Life) -> Vec<MessageId> {
        let is_owed = |(id, members): &(&MessageId, &Vec<(usize, u32)>)| {
            let is_gone = messages[*id].qos == Qos::ExactlyOnce && **id <= self.gone[client % 2];
            **id >= life.owed_from
                && !is_gone
                && members.contains(&(client, life.number))
                && messages[*id].acked
                && !self.given.contains_key(&(**id, client % 2))
        };
        self.owed.iter().filter(is_owed).map(|(id, _)| *id).collect()
    }
}

impl Ledger {
    /// A message for groups begins.
    pub fn owes_shares(&mut self, id: MessageId, qos: Qos) {
        if qos == Qos::AtMostOnce {
            return;
        }
        // One that is too large for whose turn it is counts as delivered.
        let message = &self.messages[&id];
        let has_room = |client: usize| self.lives.iter().skip(client % 2).step_by(2).all(|life| life.takes(message));
        let is_member = |client: usize, life: &Life| {
            life.durable
                && has_room(client)
                && life.subscriptions.iter().any(|known| known.acked && known.filter == SHARES[client % 2])
        };
        let members = self.lives.iter().enumerate().filter(|(client, life)| is_member(*client, life));
        let members = members.map(|(client, life)| (client, life.number)).collect();
        self.shares.owed.insert(id, members);
    }

    /// A member asks for messages at that QoS.
    pub fn asks_share(&mut self, client: usize, qos: Qos) {
        self.lives[client].share.asks_twice |= qos == Qos::ExactlyOnce;
    }

    /// CONNACK: the server knows what has become of earlier sessions.
    pub fn share_accepted(&mut self, client: usize, present: bool) {
        let last = *self.messages.keys().next_back().unwrap_or(&0);
        let member = &mut self.lives[client].share;
        if std::mem::take(&mut member.is_ending) || !present && member.asks_twice {
            self.shares.gone[client % 2] = last;
        }
        member.asks_twice &= present;
    }

    /// A member has a message.
    pub fn delivered_share(&mut self, client: usize, topic: &str, payload: &[u8], qos: Qos) {
        let id = Self::payload_id(payload);
        self.tell(|| format!("client {client}: m{id} delivered by its group at {qos:?}"));
        let message = &self.messages[&id];
        assert_eq!((&*message.topic, message.bytes), (topic, payload.len()), "m{id} is another");
        assert!(qos <= message.qos, "m{id} came at too high a QoS");
        let life = &self.lives[client];
        let asked = life.subscriptions.iter().any(|known| known.filter == SHARES[client % 2]);
        assert!(asked || life.has_unsubscribed, "client {client} is in no group");
        let now = Given { client, qos, connection: life.share.connection, crashed_at: self.died_at };
        let is_again = message.sends > 1;
        let given = self.shares.given.entry((id, client % 2)).or_default();
        if let Some(before) = given.iter().find(|before| before.qos == qos && qos == Qos::ExactlyOnce) {
            panic!("QoS 2 m{id} came to client {} and then to client {client}: {message:?}", before.client);
        }
        for before in given.iter().filter(|before| before.crashed_at == now.crashed_at && !is_again) {
            assert!(message.qos > Qos::AtMostOnce, "QoS 0 m{id} came to {} and {client}", before.client);
            // What comes to one who has left was sent before, and another may have it since.
            if asked && self.lives[before.client].share.connection == before.connection {
                self.shares.doubtful.push((id, [*before, now]));
            }
        }
        if !given.is_empty() {
            self.coverage.hit(Seen::SharedAgain);
        }
        given.push(now);
    }

    /// When all is done: of two who had a message one must have gone, which it may have noticed late. That may be the
    /// second one, when it has read what was sent before.
    pub fn check_shares(&mut self) {
        for (id, both) in &self.shares.doubtful {
            let crashed = self.died_at != both[0].crashed_at;
            let stayed = |given: &Given| self.lives[given.client].share.connection == given.connection;
            assert!(crashed || !both.iter().all(stayed), "m{id} was given to two: {both:?}");
        }
        let arrived = self.shares.owed.iter().filter(|(id, members)| {
            members.iter().any(|(client, _)| self.shares.given.contains_key(&(**id, client % 2)))
        });
        for (id, members) in arrived {
            self.coverage.hit(Seen::OwedSharedArrived);
            for (client, _) in members {
                let given = self.shares.given.get(&(*id, client % 2));
                if given.is_some_and(|given| given[0].qos == Qos::ExactlyOnce) {
                    self.coverage.hit(Seen::OwedSharedTwiceArrived);
                }
            }
        }
    }
}
