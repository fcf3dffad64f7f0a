//! Sessions of one user as a sequence of operations: frames, answers of the store and the router in any legal order,
//! pushes, timers, take-overs, freeze and thaw. The shard is played here, and holds the sessions to their word.

use super::draw::Draw;
use kittiwake::base::clock::Now;
use kittiwake::base::hash::KeyedHash;
use kittiwake::base::ids::{AppId, ConnectionId, Epoch, Offset, Qos, Seq, SessionId};
use kittiwake::base::log::{StoreError, StreamHead};
use kittiwake::base::message::{Entry, Message, StreamKey};
use kittiwake::limits::RECEIVE_MAXIMUM_OUT;
use kittiwake::session::mqtt::{self, Greeting, OpenAt, WillRequest};
use kittiwake::session::protocol::{self, Request};
use kittiwake::session::{
    Close, CloseReason, Counter, DeliveryId, Directory, Effect, Effects, GrantedFilter, Identity, LoggedAt, Offer,
    Session, Ticket,
};
use kittiwake::wire::mqtt::properties::{SubscriptionId, TopicAlias};
use kittiwake::wire::mqtt::{
    Ack, AckKind, Connect, Disconnect, Encode, Filter, FilterNames, Filters, FrameLen, Packet, PacketId, PingReq,
    Publish, Reason, Subscribe, Unsubscribe, Version, Will, decode, frame_len,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

const DEVICES: [&str; 2] = ["phone", "tablet"];
const FILTERS: [&str; 7] = ["$inbox/#", "$inbox/a", "a", "a/+", "#", "b", "$share/g/a"];
const TOPICS: [&str; 5] = ["a", "a/b", "b", "$SYS/x", ""];
const EPOCH: Epoch = Epoch(5);
const OPERATIONS_MAX: usize = 400;

/// A connection, as its client sees it.
struct Link {
    connection: ConnectionId,
    version: Version,
    /// A close was asked for.
    is_closing: bool,
    is_paused: bool,
    is_greeted: bool,
    window: usize,
    bytes_max: usize,
    /// Deliveries it has not settled.
    held: BTreeMap<u16, Held>,
    /// Its own publishes that have no answer yet, per QoS.
    asked: [VecDeque<u16>; 2],
    /// What it said PUBREC to without holding it; 3.1.1 answers with a PUBREL like any other.
    stray: BTreeSet<u16>,
}

/// A delivery from its PUBLISH, or its PUBREL on a later connection, to its end.
#[derive(Clone, Copy)]
struct Held {
    qos: Qos,
    /// Its PUBLISH came over this connection, so that it counts against Receive Maximum.
    is_counted: bool,
    is_received: bool,
    is_released: bool,
}

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
    dirty: BTreeSet<u32>,
}

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
        dirty: BTreeSet::new(),
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

    /// Calls into a session and carries out what it asks for.
    fn call<T>(&mut self, id: SessionId, call: impl FnOnce(&mut Session, Now, &mut Effects) -> T) -> Option<T> {
        let mut effects = self.spare.pop().unwrap_or_default();
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
                Effect::DeliverOnce { .. } | Effect::Gap { .. } => {
                    let link = link.and_then(|at| self.links[at].as_ref()).expect("it is for a connection");
                    assert!(link.is_greeted && !link.is_closing);
                }
                Effect::Unsubscribe { filter, position } => {
                    assert!(self.places.remove(&(filter, position)).is_some(), "a place is left once");
                }
                Effect::Count(_) | Effect::Orphan { .. } => {}
                other => self.carry_out_for(id.expect("it is a session's"), other),
            }
        }
    }

    fn carry_out_for(&mut self, id: SessionId, effect: Effect) {
        match effect {
            Effect::Publish { receipt, .. } => self.publishes.extend(receipt.map(|receipt| (id, receipt))),
            Effect::Subscribe { ticket, filters } => {
                let places: Vec<_> = filters.iter().map(|filter| self.place(id, filter)).collect();
                let session = self.directory.get_mut(id).expect("it asked a moment ago");
                mqtt::on_subscribed(session, ticket, &places);
                self.installs.push_back((id, ticket));
            }
            Effect::Commit { ticket, .. } => self.commits.push_back((id, ticket)),
            Effect::InboxLeft { served } => drop(self.directory.read_mark_moved(id, served)),
            Effect::RecordDirty => assert!(self.dirty.insert(id.index), "it is filed once until it is collected"),
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
                self.dirty.remove(&id.index);
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
        assert!(flight.message.is_some() && qos > Qos::AtMostOnce);
        let link = link.and_then(|at| self.links[at].as_mut()).expect("it is for a connection");
        link.takes(delivery, qos, dup);
    }

    fn connect(&mut self, device: usize, draw: &mut Draw<'_>) {
        let version = if draw.flag() { Version::V5 } else { Version::V311 };
        let mut connect = Connect::new(version, DEVICES[device]);
        connect.clean_start = draw.below(4) == 0;
        connect.user_name = Some("ann");
        connect.keep_alive_seconds = draw.pick(&[0, 10]);
        let (window, bytes_max) = (draw.pick(&[0, 1, 2, 40]), draw.pick(&[0, 0, 0, 4, 20, 60]));
        if version == Version::V5 {
            let properties = &mut connect.properties;
            properties.session_expiry_seconds = Some(draw.pick(&[0, 1, 3_600, u32::MAX]));
            properties.receive_maximum = NonZeroU16::new(window);
            properties.maximum_packet_bytes = NonZeroU32::new(bytes_max);
            properties.topic_alias_maximum = Some(draw.pick(&[0, 3]));
            properties.request_problem_information = Some(draw.flag());
            properties.request_response_information = Some(draw.flag());
        }
        if draw.below(3) == 0 {
            let mut will = Will {
                topic: "a",
                payload: b"w",
                qos: Qos::AtLeastOnce,
                retain: false,
                properties: Default::default(),
            };
            if version == Version::V5 {
                will.properties.delay_seconds = Some(draw.pick(&[0, 1, 100]));
            }
            connect.will = Some(will);
        }
        let mut bytes = Vec::new();
        connect.encode_to(version, &mut bytes);
        let Greeting::Connect(request, taken) = mqtt::greet(&bytes, 10_000) else { panic!("it is a CONNECT") };
        assert_eq!(taken, bytes.len());
        assert!(request.will.as_deref().is_none_or(|will: &WillRequest| will.qos == Qos::AtLeastOnce));

        if let Some(old) = self.session_of(device)
            && self.directory.get(old).is_some_and(|session| session.connection().is_some())
        {
            let seq = self.seq;
            let request = Request::Mqtt(request.clone());
            self.call(old, |session, now, effects| protocol::take_over(session, &request, now, seq, effects));
        }
        self.connections += 1;
        let connection = ConnectionId { index: self.connections, generation: 1 };
        self.links[device] = Some(Link {
            connection,
            version,
            is_closing: false,
            is_paused: false,
            is_greeted: false,
            window: usize::from(if version == Version::V5 && window > 0 {
                window.min(RECEIVE_MAXIMUM_OUT)
            } else {
                RECEIVE_MAXIMUM_OUT
            }),
            bytes_max: if version == Version::V5 && bytes_max > 0 { bytes_max as usize } else { usize::MAX },
            held: BTreeMap::new(),
            asked: Default::default(),
            stray: BTreeSet::new(),
        });
        let identity = Identity { app: AppId(0), user: "ann".into(), device: DEVICES[device].into() };
        let inbox = draw.flag().then(|| (Offset(0), self.head()));
        let at = OpenAt {
            now: self.now,
            shard_seq: self.seq,
            inbox,
            sees_node: draw.flag(),
            packet_bytes: 10_000,
            keep_alive_instead_of_none: 2_400,
            log: (EPOCH, self.seq),
        };
        let before = self.session_of(device);
        let mut effects = Effects::default();
        let opened = mqtt::open(&mut self.directory, &identity, &request, connection, at, &mut effects);
        if before.is_some() && before != opened {
            // Replaced without an end of its own.
            self.dirty.retain(|&index| before.is_some_and(|before| before.index != index));
        }
        self.carry_out(opened, Some(connection), &mut effects);
    }

    /// What the client has sent, whole frames one after the other.
    fn frames(&mut self, device: usize, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            let Some(id) = self.session_of(device) else { return };
            let Some(link) = self.links[device].as_ref().filter(|link| !link.is_closing && link.is_greeted) else {
                return;
            };
            assert_eq!(link.is_paused, self.directory.get(id).is_some_and(Session::is_paused));
            if link.is_paused {
                return;
            }
            match frame_len(left, 10_000) {
                Ok(FrameLen::Known { total_bytes, .. }) if total_bytes <= left.len() => {
                    let (frame, rest) = left.split_at(total_bytes);
                    self.links[device].as_mut().expect("as above").says(frame);
                    self.call(id, |session, now, effects| mqtt::handle(session, frame, now, effects));
                    left = rest;
                }
                Ok(_) => return,
                Err(error) => {
                    self.call(id, |session, _, effects| mqtt::reject(session, error, effects));
                    return;
                }
            }
        }
    }

    fn client_sends(&mut self, device: usize, draw: &mut Draw<'_>) {
        let Some(version) = self.links[device].as_ref().map(|link| link.version) else { return };
        let mut bytes = Vec::new();
        let packet_id = PacketId::new(u16::from(draw.byte() % 5) + 1).expect("above 0");
        match draw.below(10) {
            0..=3 => {
                let qos = draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
                let mut publish = Publish {
                    dup: qos > Qos::AtMostOnce && draw.flag(),
                    qos,
                    retain: draw.below(16) == 0,
                    topic: draw.pick(&TOPICS),
                    packet_id: (qos > Qos::AtMostOnce).then_some(packet_id),
                    properties: Default::default(),
                    payload: draw.bytes(3),
                };
                if version == Version::V5 && draw.flag() {
                    publish.properties.topic_alias = NonZeroU16::new(u16::from(draw.byte() % 18)).map(TopicAlias);
                    publish.properties.payload_is_utf8 = Some(draw.flag());
                    publish.properties.message_expiry_seconds = Some(u32::from(draw.byte()));
                }
                publish.encode_to(version, &mut bytes);
            }
            4 | 5 => {
                let one = |draw: &mut Draw<'_>| Filter {
                    no_local: version == Version::V5 && draw.below(4) == 0,
                    ..Filter::new(
                        draw.pick(&FILTERS),
                        draw.pick(&[Qos::ExactlyOnce, Qos::AtLeastOnce, Qos::AtMostOnce]),
                    )
                };
                let filters: Vec<_> = (0..=draw.below(3)).map(|_| one(draw)).collect();
                let mut subscribe =
                    Subscribe { packet_id, properties: Default::default(), filters: Filters::borrowed(&filters) };
                if version == Version::V5 {
                    subscribe.properties.subscription_id = SubscriptionId::new(u32::from(draw.byte()));
                }
                subscribe.encode_to(version, &mut bytes);
            }
            6 => {
                let filters = [draw.pick(&FILTERS), draw.pick(&FILTERS)];
                let filters = FilterNames::borrowed(&filters);
                Unsubscribe { packet_id, properties: Default::default(), filters }.encode_to(version, &mut bytes);
            }
            7 => {
                let kind =
                    draw.pick(&[AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubRel, AckKind::PubComp]);
                Ack::success(kind, packet_id).encode_to(version, &mut bytes);
            }
            8 => {
                let mut goodbye = Disconnect::new(draw.pick(&[Reason::Success, Reason::DisconnectWithWill]));
                if version == Version::V5 {
                    goodbye.properties.session_expiry_seconds = draw.flag().then(|| u32::from(draw.byte()));
                    goodbye.encode_to(version, &mut bytes);
                } else {
                    PingReq.encode_to(version, &mut bytes);
                }
            }
            _ => bytes.extend_from_slice(draw.bytes(40)),
        }
        self.frames(device, &bytes);
    }

    /// Answers a delivery the client holds, rightly or with a refusal.
    fn client_acknowledges(&mut self, device: usize, draw: &mut Draw<'_>) {
        let Some(link) = self.links[device].as_ref() else { return };
        let Some((&id, &Held { qos, .. })) = link.held.iter().nth(draw.below(link.held.len().max(1))) else { return };
        let kind = match qos {
            Qos::ExactlyOnce => draw.pick(&[AckKind::PubRec, AckKind::PubComp]),
            _ => AckKind::PubAck,
        };
        let reason = if link.version == Version::V5 && draw.below(5) == 0 && kind != AckKind::PubComp {
            Reason::Unspecified
        } else {
            Reason::Success
        };
        let mut bytes = Vec::new();
        let packet_id = PacketId::new(id).expect("deliveries have one");
        Ack { reason, ..Ack::success(kind, packet_id) }.encode_to(link.version, &mut bytes);
        self.frames(device, &bytes);
    }

    fn answer_commit(&mut self, works: bool) {
        if let Some((id, ticket)) = self.commits.pop_front() {
            let result = if works { Ok(()) } else { Err(StoreError::Failed) };
            self.call(id, |session, _, effects| mqtt::on_committed(session, ticket, result, effects));
        }
    }

    fn answer_publish(&mut self, draw: &mut Draw<'_>) {
        if self.publishes.is_empty() {
            return;
        }
        let (id, receipt) = self.publishes.remove(draw.below(self.publishes.len()));
        let result =
            draw.pick(&[Ok(true), Ok(false), Ok(true), Ok(true), Err(StoreError::Busy), Err(StoreError::Failed)]);
        self.call(id, |session, _, effects| mqtt::on_published(session, receipt, result, effects));
    }

    fn answer_install(&mut self) {
        if let Some((id, ticket)) = self.installs.pop_front() {
            let seq = self.seq;
            self.call(id, |session, _, effects| mqtt::on_interest_installed(session, ticket, seq, effects));
        }
    }

    fn message(&self, topic: &str, draw: &mut Draw<'_>, qos: Qos) -> Arc<Message> {
        Arc::new(Message {
            app: AppId(0),
            topic: topic.into(),
            only_device: None,
            payload: b"x".as_slice().into(),
            qos,
            retain: false,
            created_ms: self.now.wall_ms,
            expires_ms: (draw.below(4) == 0).then(|| self.now.wall_ms + 1_000),
            publisher: None,
            properties: None,
        })
    }

    /// A committed push to the user.
    fn push(&mut self, draw: &mut Draw<'_>) {
        let qos = draw.pick(&[Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let mut message = self.message(draw.pick(&["$inbox/a", "$inbox/b"]), draw, qos);
        if draw.below(4) == 0 {
            message = Arc::new(Message { only_device: Some(draw.pick(&DEVICES).into()), ..(*message).clone() });
        }
        self.seq = Seq(self.seq.0 + 1);
        let offset = Offset(self.inbox.len() as u64 + 1);
        let stream = StreamKey::Inbox(AppId(0), "ann".into());
        self.inbox.push(Entry { stream, epoch: EPOCH, offset, seq: self.seq, message: Arc::clone(&message) });
        for id in [0, 1].into_iter().filter_map(|device| self.session_of(device)).collect::<Vec<_>>() {
            let session = self.directory.get(id).expect("it was just found");
            let is_meant = message.only_device.as_deref().is_none_or(|device| device == session.device());
            let effective = session.effective(&message.topic, None).filter(|_| is_meant);
            match effective.map(|effective| effective.qos.min(qos)) {
                Some(qos) => {
                    let at = LoggedAt::Inbox(offset);
                    self.offer(id, |session, effects| {
                        session.offer_logged(at, (EPOCH, offset), &message, qos, effects)
                    });
                }
                None => drop(self.call(id, |session, _, effects| session.pass_inbox(offset, EPOCH, effects))),
            }
        }
    }

    /// A message of a topic, logged or not.
    fn topic(&mut self, draw: &mut Draw<'_>) {
        let qos = draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let message = self.message(draw.pick(&["a", "a/b", "b"]), draw, qos);
        let is_logged = draw.flag();
        if is_logged {
            self.seq = Seq(self.seq.0 + 1);
            let stream = StreamKey::Topic(AppId(0), Arc::clone(&message.topic));
            let offset = Offset(self.topics.len() as u64 + 1);
            self.topics.push(Entry { stream, epoch: EPOCH, offset, seq: self.seq, message: Arc::clone(&message) });
        }
        let seq = self.seq;
        for id in [0, 1].into_iter().filter_map(|device| self.session_of(device)).collect::<Vec<_>>() {
            let session = self.directory.get(id).expect("it was just found");
            let Some(effective) = session.effective(&message.topic, None) else { continue };
            let qos = effective.qos.min(qos);
            if is_logged && draw.below(8) == 0 {
                self.call(id, |session, _, effects| session.notify_topics(seq, effects));
            } else if is_logged {
                let (at, place) = (LoggedAt::Topics(seq), (EPOCH, Offset(self.topics.len() as u64)));
                self.offer(id, |session, effects| session.offer_logged(at, place, &message, qos, effects));
            } else {
                self.offer(id, |session, effects| session.offer_volatile(&message, qos, effects));
            }
        }
    }

    fn offer(&mut self, id: SessionId, offer: impl FnOnce(&mut Session, &mut Effects) -> Offer) {
        let Some(Offer::Send(delivery)) = self.call(id, |session, _, effects| offer(session, effects)) else { return };
        let connection = self.directory.get(id).and_then(Session::connection);
        let link = self.links.iter().position(|link| link.as_ref().map(|link| link.connection) == connection);
        self.deliver(Some(id), link, delivery, false);
    }

    fn answer_pull(&mut self, works: bool) {
        if let Some((id, after, limit)) = self.inbox_pulls.pop() {
            let head = self.head();
            if !works {
                return self.fail_pull(id);
            }
            let is_wanted = |entry: &&Entry| entry.offset > after && entry.offset >= head.first;
            let entries: Vec<_> = self.inbox.iter().filter(is_wanted).take(limit).cloned().collect();
            self.call(id, |session, now, effects| session.on_inbox_pulled(head, &entries, now, effects));
        } else if let Some((id, after, limit)) = self.topic_pulls.pop() {
            if !works {
                return self.fail_pull(id);
            }
            let entries: Vec<_> = self.topics.iter().filter(|entry| entry.seq > after).take(limit).cloned().collect();
            let through = if entries.len() == limit { entries[limit - 1].seq } else { self.seq };
            self.call(id, |session, now, effects| session.on_topics_pulled(&entries, &[], through, now, effects));
        }
    }

    fn fail_pull(&mut self, id: SessionId) {
        self.call(id, |session, _, effects| {
            session.on_pull_failed();
            session.pull_again(effects);
        });
    }

    /// Lets time pass, with the timers of sessions without a connection.
    fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += ms;
        for id in [0, 1].into_iter().filter_map(|device| self.session_of(device)).collect::<Vec<_>>() {
            let deadline = self.directory.get(id).and_then(Session::offline_deadline);
            if deadline.is_some_and(|at| at <= self.now.monotonic_ms) {
                self.call(id, |session, now, effects| session.handle_timer(now, effects));
            }
        }
    }

    /// The device's connection is gone.
    fn lose(&mut self, device: usize) {
        let Some(link) = self.links[device].take() else { return };
        let Some(id) = self.session_of(device) else { return };
        if self.directory.get(id).and_then(Session::connection) == Some(link.connection) {
            let seq = self.seq;
            self.call(id, |session, now, effects| session.on_connection_closed(Close::Lost, now, seq, effects));
        }
    }

    fn tell_inbox(&mut self, device: usize) {
        let Some(id) = self.session_of(device) else { return };
        let mark = self.directory.read_mark(AppId(0), "ann").map_or(Offset(0), |(_, mark)| mark);
        let head = self.head();
        let session = self.directory.get(id).expect("it was just found");
        if session.wants_inbox_start() || session.wants_inbox_end() {
            self.call(id, |session, _, effects| {
                session.on_inbox_known(mark, head, effects);
                mqtt::on_inbox_known(session, effects);
            });
        }
    }

    /// The shard could not send what it was handed.
    fn give_up_a_delivery(&mut self, device: usize, draw: &mut Draw<'_>) {
        let (Some(id), Some(link)) = (self.session_of(device), self.links[device].as_mut()) else { return };
        let once: Vec<u16> =
            link.held.iter().filter(|(_, held)| held.qos == Qos::AtLeastOnce).map(|(&id, _)| id).collect();
        if once.is_empty() || !link.is_greeted || link.is_closing {
            return;
        }
        let delivery = once[draw.below(once.len())];
        link.held.remove(&delivery);
        let why = draw.pick(&[Counter::DroppedExpired, Counter::DroppedTooLarge]);
        self.call(id, |session, _, effects| session.settle_unsent(DeliveryId(delivery), why, effects));
    }

    fn server_closes(&mut self, device: usize, draw: &mut Draw<'_>) {
        let Some(id) = self.session_of(device) else { return };
        if self.links[device].is_some() && self.directory.get(id).is_some_and(|session| session.connection().is_some())
        {
            let why = draw.pick(&CloseReason::ALL);
            let reference = draw.flag().then_some("other.example");
            self.call(id, |session, _, effects| mqtt::disconnect(session, why, reference, effects));
        }
    }

    fn write_lazily(&mut self) {
        for index in std::mem::take(&mut self.dirty) {
            if let Some(id) = self.directory.id_at(index) {
                self.directory.record_lazy(id, self.seq, self.now, &mut Vec::new());
            }
        }
    }

    /// What holds after every operation.
    fn check(&self) {
        for (id, session) in self.directory.iter() {
            let own = self.places.iter().filter(|(_, owner)| **owner == id).map(|(&place, _)| place);
            let known: BTreeSet<_> = session.subscriptions().iter().map(|one| (one.filter, one.position)).collect();
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
    }

    /// Whatever waits is answered, everybody leaves, time passes: nothing is left.
    fn come_to_an_end(&mut self) {
        for _ in 0..2_000 {
            self.answer_commit(true);
            self.answer_install();
            self.answer_pull(true);
            if let Some((id, receipt)) = self.publishes.pop() {
                self.call(id, |session, _, effects| mqtt::on_published(session, receipt, Ok(true), effects));
            }
            self.tell_inbox(0);
            self.tell_inbox(1);
        }
        let waits = (self.commits.len(), self.installs.len(), self.publishes.len());
        assert_eq!(waits, (0, 0, 0), "answers do not breed questions for ever");
        for link in self.links.iter().flatten().filter(|link| !link.is_closing && link.is_greeted) {
            assert!(!link.is_paused, "with all answered, reading goes on");
            assert!(link.asked.iter().all(VecDeque::is_empty), "every publish has its answer");
        }
        self.lose(0);
        self.lose(1);
        // The first may publish a delayed will only, the second ends what is left.
        self.pass(u64::from(u32::MAX) * 1_000);
        self.pass(u64::from(u32::MAX) * 1_000);
        assert_eq!((self.directory.sessions(), self.places.len()), (0, 0));
    }
}

impl Link {
    fn receives(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while !left.is_empty() {
            let Ok(FrameLen::Known { total_bytes, .. }) = frame_len(left, usize::MAX) else { panic!("{left:x?}") };
            let (frame, rest) = left.split_at(total_bytes);
            left = rest;
            assert!(frame.len() <= self.bytes_max, "{frame:x?} is larger than {}", self.bytes_max);
            assert!(!self.is_closing, "nothing is said after the end");
            let packet = decode(self.version, frame).expect("servers encode well");
            assert_eq!(matches!(packet, Packet::ConnAck(_)), !self.is_greeted, "CONNACK is the first and only then");
            self.is_greeted = true;
            let Packet::Ack(ack) = packet else { continue };
            let id = ack.packet_id.get();
            match ack.kind {
                AckKind::PubAck => assert_eq!(self.asked[0].pop_front(), Some(id), "answers have the publishes' order"),
                AckKind::PubRec => assert_eq!(self.asked[1].pop_front(), Some(id), "answers have the publishes' order"),
                AckKind::PubRel if ack.reason == Reason::Success && !self.stray.contains(&id) => {
                    let fresh = Held { qos: Qos::ExactlyOnce, is_counted: false, is_received: true, is_released: true };
                    let held = self.held.entry(id).or_insert(fresh);
                    assert!(held.qos == Qos::ExactlyOnce && held.is_received, "released before it was received");
                    held.is_released = true;
                }
                AckKind::PubRel | AckKind::PubComp => {}
            }
        }
    }

    /// What the client says, before the session hears it.
    fn says(&mut self, frame: &[u8]) {
        match decode(self.version, frame) {
            Ok(Packet::Publish(publish)) if publish.qos > Qos::AtMostOnce => {
                let id = publish.packet_id.expect("it goes with the QoS").get();
                self.asked[publish.qos as usize - 1].push_back(id);
            }
            Ok(Packet::Ack(ack)) => {
                let id = ack.packet_id.get();
                let Some(held) = self.held.get_mut(&id) else {
                    self.stray.insert(id);
                    return;
                };
                // From here on the session may use the identifier for another message.
                let is_over = match (ack.kind, held.qos) {
                    (AckKind::PubAck, Qos::AtLeastOnce) => true,
                    (AckKind::PubRec, Qos::ExactlyOnce) => ack.reason.is_error() && !held.is_received,
                    (AckKind::PubComp, Qos::ExactlyOnce) => held.is_released,
                    _ => false,
                };
                if is_over {
                    self.held.remove(&id);
                } else if ack.kind == AckKind::PubRec && held.qos == Qos::ExactlyOnce {
                    held.is_received = true;
                }
            }
            _ => {}
        }
    }

    fn takes(&mut self, delivery: DeliveryId, qos: Qos, dup: bool) {
        assert!(self.is_greeted && !self.is_closing, "a message is for an open connection");
        self.stray.remove(&delivery.0);
        let held = Held { qos, is_counted: true, is_received: false, is_released: false };
        assert!(self.held.insert(delivery.0, held).is_none(), "an identifier in use is not given again, dup: {dup}");
        let counted = self.held.values().filter(|held| held.is_counted).count();
        assert!(counted <= self.window, "{counted} messages in flight, but the client takes {}", self.window);
    }
}
