//! Sessions of one user as a sequence of operations: frames, answers of the store and the router in any legal order,
//! pushes, timers, take-overs, freeze and thaw. The shard is played here, and holds the sessions to their word.

mod answers;
mod client;
mod connect;
mod link;
mod shelf;

use super::draw::Draw;
use kittiwake::base::clock::Now;
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, ConnectionId, Epoch, Offset, Qos, Seq, SessionId};
use kittiwake::base::log::StreamHead;
use kittiwake::base::message::Entry;
use kittiwake::session::mqtt;
use kittiwake::session::{
    DeliveryId, Directory, Effect, Effects, Gap, GrantedFilter, LoggedAt, Session, Ticket, protocol,
};
use link::Link;
use shelf::{Shelf, Wish};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const DEVICES: [&str; 2] = ["phone", "tablet"];
const FILTERS: [&str; 7] = ["$inbox/#", "$inbox/a", "a", "a/+", "#", "b", "$share/g/a"];
const TOPICS: [&str; 5] = ["a", "a/b", "b", "$SYS/x", ""];
const EPOCH: Epoch = Epoch(5);
const OPERATIONS_MAX: usize = 400;

struct World {
    directory: Directory,
    links: [Option<Link>; 2],
    spare: Vec<Effects>,
    connections: u32,
    now: Now,
    seq: Seq,
    inbox: Vec<Entry>,
    topics: Vec<Entry>,
    first_kept: u64,
    /// Whose each place of the router is.
    places: BTreeMap<(u32, u32), SessionId>,
    next_filter: u32,
    commits: VecDeque<(SessionId, Ticket)>,
    publishes: Vec<(SessionId, Ticket)>,
    installs: VecDeque<(SessionId, Ticket)>,
    inbox_pulls: Vec<(SessionId, Offset, usize)>,
    topic_pulls: Vec<(SessionId, Seq, usize)>,
    locates: Vec<(SessionId, Arc<str>, Offset)>,
    /// Sessions that are filed for their lazy writes.
    filed: Vec<SessionId>,
    shelf: Shelf,
    /// Somebody wants to know what devices have.
    tells_received: bool,
}

/// The place of a shared subscription: its group has one.
const NO_PLACE: (u32, u32) = (u32::MAX, u32::MAX);

/// Runs the operations that `bytes` say, then lets everything come to an end.
pub fn run(bytes: &[u8]) {
    let mut world = World {
        directory: Directory::new(KeyedHash::new(7), 8, 8),
        links: [None, None],
        spare: Vec::new(),
        connections: 0,
        now: Now { monotonic_ms: 1_000_000, wall_ms: 50_000_000 },
        seq: Seq(10),
        inbox: Vec::new(),
        topics: Vec::new(),
        first_kept: 1,
        places: BTreeMap::new(),
        next_filter: 0,
        commits: VecDeque::new(),
        publishes: Vec::new(),
        installs: VecDeque::new(),
        inbox_pulls: Vec::new(),
        topic_pulls: Vec::new(),
        locates: Vec::new(),
        filed: Vec::new(),
        shelf: Shelf::default(),
        tells_received: false,
    };
    let draw = &mut Draw(bytes);
    for _ in 0..OPERATIONS_MAX {
        let Some(operation) = draw.next() else { break };
        world.step(operation, draw);
        world.check();
    }
    world.come_to_an_end();
}

impl World {
    fn step(&mut self, operation: u8, draw: &mut Draw<'_>) {
        let device = usize::from(operation >> 7);
        match operation & 0x1F {
            0 => self.connect(device, draw),
            1 if draw.below(4) == 0 => self.ask_for_events(device, draw),
            1..=8 => self.client_sends(device, draw),
            9 | 10 => self.answer_commit(draw.below(8) != 7),
            11 => self.answer_publish(draw),
            12 => self.answer_install(),
            13..=15 => self.push(draw),
            16 | 17 => self.topic(draw),
            18 => self.answer_pull(draw.flag()),
            19 => self.pass(u64::from(draw.byte()) * 100),
            20 => self.lose(device),
            21 => self.directory.freeze_and_thaw(),
            22 => self.tell_inbox(device),
            23 => self.give_up_a_delivery(device, draw),
            24 => self.server_closes(device, draw),
            25 => self.write_lazily(),
            26 => self.first_kept = (self.first_kept + 1).min(self.inbox.len() as u64 + 1),
            27 => self.retain(draw),
            28 => self.answer_retained(draw.below(8) + 1),
            29 => match draw.below(8) {
                0 => self.tells_received = draw.flag(),
                1 => self.answer_locate(false),
                2..=4 => self.answer_locate(true),
                _ => self.assign(device, draw),
            },
            _ => self.client_acknowledges(device, draw),
        }
    }

    fn session_of(&self, device: usize) -> Option<SessionId> {
        self.directory.find(AppId(0), "ann", DEVICES[device])
    }

    fn head(&self) -> StreamHead {
        let last = Offset(self.inbox.len() as u64);
        StreamHead { epoch: EPOCH, first: Offset(self.first_kept), last, trimmed: Seq(0) }
    }

    /// The connection of a session.
    fn link_of(&mut self, id: SessionId) -> Option<&mut Link> {
        let connection = self.directory.get(id)?.connection()?;
        self.links.iter_mut().flatten().find(|link| link.connection == connection)
    }

    /// A session is gone.
    fn forget(&mut self, id: SessionId) {
        self.filed.retain(|other| *other != id);
        self.shelf.forget(id);
    }

    /// Calls into a session and carries out what it asks for.
    fn call<T>(&mut self, id: SessionId, call: impl FnOnce(&mut Session, Now, &mut Effects) -> T) -> Option<T> {
        let mut effects = self.spare.pop().unwrap_or_default();
        effects.tells_received = self.tells_received;
        let session = self.directory.get_mut(id)?;
        let link = session.connection();
        let answer = call(session, self.now, &mut effects);
        self.carry_out(Some(id), link, &mut effects);
        self.spare.push(effects);
        Some(answer)
    }

    fn carry_out(&mut self, id: Option<SessionId>, connection: Option<ConnectionId>, effects: &mut Effects) {
        let list = std::mem::take(&mut effects.list);
        let control = std::mem::take(&mut effects.control);
        effects.counted.clear();
        for effect in list {
            let link = self.links.iter().position(|link| link.as_ref().map(|link| link.connection) == connection);
            let link = link.filter(|_| connection.is_some());
            match effect {
                Effect::Frames(range) => {
                    let link = link.and_then(|at| self.links[at].as_mut());
                    link.expect("frames are for a connection").receives(&control[range]);
                }
                Effect::Close(_) => {
                    let link = link.and_then(|at| self.links[at].as_mut()).expect("a close is of a connection");
                    assert!(!link.is_closing, "a connection is closed once");
                    link.is_closing = true;
                }
                Effect::PauseReading | Effect::ResumeReading => {
                    let pauses = matches!(effect, Effect::PauseReading);
                    link.and_then(|at| self.links[at].as_mut()).into_iter().for_each(|link| link.is_paused = pauses);
                }
                Effect::Deliver { delivery, dup } => self.deliver(id, link, delivery, dup),
                Effect::DeliverOnce { at, .. } => {
                    let link = link.and_then(|at| self.links[at].as_mut()).expect("it is for a connection");
                    assert!(link.is_open());
                    link.owed.settle(at);
                }
                Effect::DeliverRetained { message, .. } => {
                    let link = link.and_then(|at| self.links[at].as_ref()).expect("it is for a connection");
                    assert!(link.is_open());
                    self.shelf.on_retained_sent(id.expect("it is a session's"), &message, false);
                }
                Effect::Gap(gap) => {
                    let link = link.and_then(|at| self.links[at].as_mut()).expect("it is for a connection");
                    assert!(link.is_open());
                    if link.is_events() {
                        if let Gap::Inbox { first, entries } = &gap {
                            (first.0..first.0 + entries).for_each(|at| link.owed.settle(LoggedAt::Inbox(Offset(at))));
                        }
                        let id = id.expect("it is a session's");
                        self.call(id, |session, _, effects| protocol::on_gap(session, &gap, effects));
                    }
                }
                Effect::Opened => {
                    let link = link.and_then(|at| self.links[at].as_ref()).expect("it is for a connection");
                    assert!(link.is_events() && link.is_open() && link.stood.is_none(), "it is answered once");
                }
                Effect::LeaveShare { share, member } => {
                    let member = member.or(id).expect("whose it was is known");
                    self.shelf.leave(share.1.shared(), member);
                }
                Effect::Share { number, fate } => self.shelf.on_fate(id, number, &fate),
                Effect::Unsubscribe { filter, position } => {
                    assert!(self.places.remove(&(filter, position)).is_some(), "a place is left once");
                }
                Effect::Orphan { .. } => {}
                other => self.carry_out_for(id.expect("it is a session's"), other),
            }
        }
    }

    fn carry_out_for(&mut self, id: SessionId, effect: Effect) {
        match effect {
            Effect::Publish { message, receipt, .. } => {
                if message.retain {
                    self.shelf.retain(&message);
                }
                self.publishes.extend(receipt.map(|receipt| (id, receipt)));
            }
            Effect::Received { topic, refused, .. } => assert!(!topic.is_empty() && (refused || self.tells_received)),
            Effect::Expired { topic, .. } => {
                assert!(!topic.is_empty() && self.tells_received, "nobody asked for receipts")
            }
            Effect::ReadRetained { filter, after, limit } => {
                let session = self.directory.get(id).expect("it asked a moment ago");
                self.shelf.wish(Wish::new(session, id, filter, after, limit));
            }
            Effect::ShareOpen { window } => self.shelf.on_open(id, window),
            Effect::Locate { topic, after } => {
                assert!(self.locates.iter().all(|(other, ..)| *other != id), "one question at a time");
                self.locates.push((id, topic, after));
            }
            Effect::Subscribe { ticket, filters } => {
                let places: Vec<_> = filters.iter().map(|filter| self.place(id, filter)).collect();
                let session = self.directory.get_mut(id).expect("it asked a moment ago");
                mqtt::on_subscribed(session, ticket, &places);
                self.installs.push_back((id, ticket));
            }
            Effect::Ask { to, .. } => {
                let session = self.directory.get_mut(id).expect("it asked a moment ago");
                assert!(session.effective(&to.topic, None).is_some(), "an answer goes where its device listens");
                session.answered();
            }
            Effect::Commit { ticket, .. } => self.commits.push_back((id, ticket)),
            Effect::InboxLeft { served } => drop(self.directory.read_mark_moved(id, served)),
            Effect::RecordDirty => {
                assert!(!self.filed.contains(&id), "it is filed once until it is collected");
                self.filed.push(id);
            }
            Effect::PullInbox { after, limit } => {
                assert!(self.pulls_of(id) == 0, "one pull at a time");
                self.inbox_pulls.push((id, after, limit));
            }
            Effect::PullTopics { after, limit } => {
                assert!(self.pulls_of(id) == 0, "one pull at a time");
                self.topic_pulls.push((id, after, limit));
            }
            Effect::End { served, .. } => {
                if let Some(served) = served {
                    drop(self.directory.read_mark_moved(id, served));
                }
                self.forget(id);
                self.shelf.assert_returned(id);
                assert!(self.directory.remove(id).is_some(), "a session ends once");
            }
            other => panic!("{other:?} was carried out before"),
        }
    }

    fn pulls_of(&self, id: SessionId) -> usize {
        let inbox = self.inbox_pulls.iter().filter(|pull| pull.0 == id).count();
        inbox + self.topic_pulls.iter().filter(|pull| pull.0 == id).count()
    }

    fn place(&mut self, id: SessionId, filter: &GrantedFilter) -> (u32, u32) {
        self.shelf.begin(id, filter);
        if filter.is_shared() {
            return NO_PLACE;
        }
        let place = filter.replaces.unwrap_or_else(|| {
            self.next_filter += 1;
            (self.next_filter, 0)
        });
        let before = self.places.insert(place, id);
        assert_eq!(before.is_some(), filter.replaces.is_some());
        assert!(before.is_none_or(|before| before == id), "a session replaces its own");
        place
    }

    fn deliver(&mut self, id: Option<SessionId>, link: Option<usize>, delivery: DeliveryId, dup: bool) {
        let session = self.directory.get(id.expect("a delivery is a session's")).expect("it lives");
        let flight = session.in_flight(delivery).expect("the window has it");
        let qos = flight.qos;
        let message = flight.message.as_deref().expect("it is not released");
        assert!(qos > Qos::AtMostOnce);
        if let (Some(LoggedAt::Retained(_)), false, Some(id)) = (flight.at, dup, id) {
            self.shelf.on_retained_sent(id, message, session.drops_volatile(qos));
        }
        let link = link.and_then(|at| self.links[at].as_mut()).expect("it is for a connection");
        link.takes(delivery, qos, dup);
    }

    fn write_lazily(&mut self) {
        for id in std::mem::take(&mut self.filed) {
            self.directory.record_lazy(id, self.seq, self.now, &mut Vec::new());
        }
    }

    /// What holds after every operation.
    fn check(&mut self) {
        for link in self.links.iter_mut().flatten() {
            let session = self.directory.iter().find(|(_, session)| session.connection() == Some(link.connection));
            session.into_iter().for_each(|(_, session)| link.stands(session));
        }
        for (id, session) in self.directory.iter() {
            let own = self.places.iter().filter(|(_, owner)| **owner == id).map(|(&place, _)| place);
            let (shared, plain): (Vec<_>, Vec<_>) = session.subscriptions().iter().partition(|one| one.is_shared());
            let known: BTreeSet<_> = plain.iter().map(|one| (one.filter, one.position)).collect();
            let shares: BTreeSet<&str> = shared.iter().map(|one| &*one.text).collect();
            assert_eq!(shares, self.shelf.shares_of(id), "its groups know their members");
            assert_eq!(known, own.collect(), "the router has what the session has");
            let (_, settled) = session.inbox_settled();
            assert!(settled.0 <= self.inbox.len() as u64 && session.topics_delivered() <= self.seq);
            let mut frozen = Vec::new();
            session.freeze(&mut frozen);
            let mut again = Vec::new();
            Session::thaw(&frozen, session.connection()).expect("what was frozen thaws").freeze(&mut again);
            assert_eq!(frozen, again);
        }
        assert!(self.places.values().all(|&owner| self.directory.get(owner).is_some()), "nobody leaves places behind");
        assert!(self.shelf.members().all(|index| self.directory.id_at(index).is_some()), "nobody stays a member");
    }

    /// Nobody waits for an answer, an acknowledgement or a lazy write.
    fn is_idle(&self) -> bool {
        let wants_inbox = |session: &Session| session.wants_inbox_start() || session.wants_inbox_end();
        self.commits.is_empty()
            && self.publishes.is_empty()
            && self.installs.is_empty()
            && self.inbox_pulls.is_empty()
            && self.topic_pulls.is_empty()
            && self.locates.is_empty()
            && self.filed.is_empty()
            && !self.shelf.has_wish()
            && self.directory.iter().all(|(_, session)| !wants_inbox(session))
            && self.links.iter().flatten().all(|link| link.held.is_empty() || !link.is_open())
    }

    /// Whatever waits is answered and acknowledged, everybody leaves, time passes: nothing is left.
    fn come_to_an_end(&mut self) {
        for _ in 0..2_000 {
            if self.is_idle() {
                break;
            }
            self.answer_commit(true);
            self.answer_install();
            self.answer_pull(true);
            self.answer_locate(true);
            self.answer_retained(usize::MAX);
            self.write_lazily();
            if let Some((id, receipt)) = self.publishes.pop() {
                self.call(id, |session, _, effects| mqtt::on_published(session, receipt, Ok(true), effects));
            }
            for device in 0..DEVICES.len() {
                self.tell_inbox(device);
                self.client_settles_all(device);
            }
        }
        self.check();
        let waits = (self.commits.len(), self.installs.len(), self.publishes.len(), self.locates.len());
        assert_eq!(waits, (0, 0, 0, 0), "answers do not breed questions for ever");
        assert!(!self.shelf.has_wish(), "what is retained comes to an end");
        for link in self.links.iter().flatten().filter(|link| link.is_open()) {
            assert!(!link.is_paused, "with all answered, reading goes on");
            assert!(link.asked.iter().all(VecDeque::is_empty), "every publish has its answer");
            assert!(link.owed.inbox.is_empty() && link.owed.topics.is_empty(), "an event stream gets what it is owed");
        }
        for (id, session) in self.directory.iter().filter(|(_, session)| session.is_open()) {
            assert!(!session.is_replaying(), "what is retained is sent: {session:?}");
            assert!(!session.is_behind(), "what there is to read is read: {session:?}");
            assert!(!self.shelf.has_refused(id), "its groups were told that there is room again");
        }
        self.lose(0);
        self.lose(1);
        // The first may publish a delayed will only, the second ends what is left.
        self.pass(u64::from(u32::MAX) * 1_000);
        self.pass(u64::from(u32::MAX) * 1_000);
        assert_eq!((self.directory.sessions(), self.places.len(), self.shelf.members().count()), (0, 0, 0));
    }
}
