//! The checkers of retained messages. Topics that are published to with RETAIN are published to only so; thus whatever
//! a client gets of such a topic was its retained message once, and has a place in the order of the commits.

use crate::coverage::Seen;
use crate::ledger::{Ledger, Message, MessageId, matches};
use kittiwake::base::ids::Qos;
use std::collections::{BTreeMap, HashMap};

type History = HashMap<String, Vec<Option<MessageId>>>;

/// What a client's session has asked for and got of what is retained.
#[derive(Debug, Default)]
pub struct Kept {
    /// Filters of all SUBSCRIBEs that may bring retained messages.
    asked: Vec<String>,
    /// Deliveries of retained messages at QoS 2.
    twice: HashMap<MessageId, usize>,
    /// By topic: the place in its history from which on one must come.
    owed: HashMap<String, usize>,
    /// By topic: the latest place that has come by itself, and the latest that has at QoS 1 or 2: QoS 0 may overtake.
    live: HashMap<String, usize>,
    live_in_order: HashMap<String, usize>,
    pub proven: u32,
}

impl Kept {
    /// A message has come, live or not.
    pub fn came(&mut self, history: &History, topic: &str, id: MessageId, qos: Qos) {
        let Some(all) = history.get(topic) else { return };
        // A publisher that says a message again may have it committed twice.
        let Some(place) = all.iter().rposition(|other| *other == Some(id)) else { return };
        if qos > Qos::AtMostOnce {
            let first = all.iter().position(|other| *other == Some(id)).expect("it has a last place");
            let live = self.live_in_order.entry(topic.to_owned()).or_default();
            *live = first.max(*live);
        }
        let live = self.live.entry(topic.to_owned()).or_default();
        *live = place.max(*live);
        self.settle(topic, place);
    }

    fn settle(&mut self, topic: &str, place: usize) {
        if self.owed.get(topic).is_some_and(|owed| *owed <= place) {
            self.owed.remove(topic);
            self.proven += 1;
        }
    }

    /// Filters change.
    pub fn forgive(&mut self) {
        self.owed.clear();
    }

    /// What must have come and has not. One that was replaced by an empty one need not, nor by one of QoS 0, nor by one
    /// that does not have to come.
    pub fn missing<'a>(
        &'a self,
        history: &'a History,
        messages: &'a BTreeMap<MessageId, Message>,
        has_to_come: impl Fn(&Message) -> bool + 'a,
    ) -> impl Iterator<Item = MessageId> + 'a {
        let excused = move |id: &Option<MessageId>| {
            id.is_none_or(|id| messages[&id].qos == Qos::AtMostOnce || !has_to_come(&messages[&id]))
        };
        self.owed.iter().filter_map(move |(topic, &place)| {
            let all = &history[topic][place..];
            (!all.iter().any(&excused)).then(|| all[0].expect("it is not excused"))
        })
    }
}

impl Ledger {
    /// The store has another retained message of a topic, or none.
    pub fn retained_committed(&mut self, topic: String, message: Option<&kittiwake::base::message::Message>) {
        let id = message.map(|message| Self::payload_id(&message.payload));
        self.tell(|| format!("log: {topic} retains {id:?}"));
        self.retained.entry(topic).or_default().push(id);
    }

    /// Topics that have a retained message.
    pub fn retained_now(&self) -> u64 {
        self.retained.values().filter(|all| matches!(all.last(), Some(Some(_)))).count() as u64
    }

    /// A SUBSCRIBE is sent that may bring what is retained.
    pub fn asks_retained(&mut self, client: usize, filter: &str) {
        self.lives[client].kept.asked.push(filter.to_owned());
    }

    /// It has its SUBACK: what is retained now, or what replaces it, must come.
    pub fn owes_retained(&mut self, client: usize, filter: &str, qos: Qos) {
        if qos == Qos::AtMostOnce {
            return;
        }
        let kept = &mut self.lives[client].kept;
        for (topic, all) in self.retained.iter().filter(|(topic, _)| matches(filter, topic)) {
            let place = all.len() - 1;
            // What came between SUBSCRIBE and SUBACK counts, for a live one makes the retained one superfluous.
            if all[place].is_some() && kept.live.get(topic).is_none_or(|live| *live < place) {
                kept.owed.insert(topic.clone(), place);
            }
        }
    }

    /// A retained message came for a subscription.
    pub fn delivered_retained(&mut self, client: usize, topic: &str, payload: &[u8], qos: Qos, dup: bool) {
        let id = Self::payload_id(payload);
        self.tell(|| format!("client {client}: m{id} delivered as retained at {qos:?}"));
        self.coverage.hit(Seen::RetainedDelivered);
        let message = &self.messages[&id];
        assert_eq!((&*message.topic, message.bytes), (topic, payload.len()), "m{id} is another");
        assert!(qos <= message.qos, "m{id} came at a higher QoS than it was published with");
        let all = self.retained.get(topic).map_or(&[][..], |all| all);
        let place = all.iter().rposition(|other| *other == Some(id));
        let place = place.unwrap_or_else(|| panic!("m{id} came as retained before its commit"));
        let kept = &mut self.lives[client].kept;
        let asked = kept.asked.iter().filter(|filter| matches(filter, topic)).count();
        assert!(asked > 0, "client {client} did not ask for what is retained of {topic}");
        let newer = kept.live_in_order.get(topic).filter(|live| **live > place);
        assert!(dup || newer.is_none(), "client {client}: m{id} came as retained behind a newer live one");
        if qos == Qos::ExactlyOnce {
            let times = kept.twice.entry(id).or_default();
            *times += 1;
            assert!(*times <= asked, "client {client}: m{id} came {times} times for {asked} SUBSCRIBEs");
        }
        kept.settle(topic, place);
    }
}
