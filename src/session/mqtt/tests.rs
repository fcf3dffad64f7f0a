//! A client's frames and a small shard around one directory: virtual time, a router that knows no wildcard of its own,
//! a store that commits when told to.

mod at_once;
mod more;
mod restart;

use super::super::core::state::State;
use super::super::protocol::{Request, take_over};
use super::super::{
    Close, Counter, DeliveryId, Directory, Effect, Effects, Flight, Gap, Identity, LoggedAt, Offer, Session,
};
use super::*;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, Seq, SessionId};
use crate::base::log::{RecordChange, StoreError, StreamHead};
use crate::base::message::{Entry, Message, StreamKey};
use crate::limits::{RECEIVE_MAXIMUM_IN, SUBSCRIPTIONS_MAX};
use crate::wire::mqtt::{Ack, Connect, Encode, Filter, FrameLen, PacketId, Publish, Version};
use std::collections::BTreeMap;
use std::sync::Arc;

struct Shard {
    directory: Directory,
    effects: Effects,
    id: Option<SessionId>,
    version: Version,
    now: Now,
    seq: Seq,
    records: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Commits wait here while `hold` is set.
    held: Vec<(super::super::Ticket, Vec<RecordChange>)>,
    hold: bool,
    /// Reads of what is retained wait here while `hold_reads` is set.
    reads: Vec<(Arc<str>, Arc<str>)>,
    hold_reads: bool,
    /// What comes live once the router has a subscription and before all homes have it.
    meanwhile: Option<Arc<Message>>,
    /// Publishes wait here for [`Shard::published`].
    published: Vec<(Arc<Message>, Option<super::super::Ticket>)>,
    /// Freezes and thaws the session before every step.
    restless: bool,
    trace: Vec<String>,
    pulls: usize,
    inbox: Vec<Entry>,
    first_kept: u64,
}

impl Shard {
    fn new(version: Version) -> Self {
        Self {
            directory: Directory::new(KeyedHash::new(7), 16, 16),
            effects: Effects::default(),
            id: None,
            version,
            now: Now { monotonic_ms: 1_000_000, wall_ms: 50_000_000 },
            seq: Seq(10),
            records: BTreeMap::new(),
            held: Vec::new(),
            hold: false,
            reads: Vec::new(),
            hold_reads: false,
            meanwhile: None,
            published: Vec::new(),
            restless: false,
            trace: Vec::new(),
            pulls: 0,
            inbox: Vec::new(),
            first_kept: 1,
        }
    }

    fn head(&self) -> StreamHead {
        let last = Offset(self.inbox.len() as u64);
        StreamHead { epoch: Epoch(5), first: Offset(self.first_kept), last, trimmed: Seq(0) }
    }

    fn session(&mut self) -> &mut Session {
        self.directory.get_mut(self.id.expect("opened")).expect("it lives")
    }

    fn call(&mut self, event: impl FnOnce(&mut Session, Now, &mut Effects)) {
        if self.restless {
            let mut bytes = Vec::new();
            self.session().freeze(&mut bytes);
            self.directory.freeze_and_thaw();
            let mut again = Vec::new();
            self.session().freeze(&mut again);
            assert_eq!(bytes, again, "a thawed session freezes to the same bytes");
        }
        let mut effects = core::mem::take(&mut self.effects);
        let now = self.now;
        event(self.session(), now, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, mut effects: Effects) {
        let list = core::mem::take(&mut effects.list);
        let control = core::mem::take(&mut effects.control);
        effects.counted.clear();
        self.effects = effects;
        for effect in list {
            match effect {
                Effect::Frames(range) => self.frames(&control[range]),
                Effect::Deliver { delivery, dup } => {
                    let flight = self.session().in_flight(delivery).expect("the window has it");
                    let line = format!(
                        "PUBLISH {} {} q{}{}",
                        delivery.0,
                        flight.message.as_ref().expect("not released").topic,
                        flight.qos as u8,
                        if dup { " dup" } else { "" }
                    );
                    self.trace.push(line);
                }
                Effect::Commit { ticket, records } if self.hold => self.held.push((ticket, records)),
                Effect::Commit { ticket, records } => self.commit(ticket, records),
                Effect::Publish { message, receipt, records } => {
                    self.trace.push(format!("route {}", message.topic));
                    self.apply(records);
                    self.published.push((message, receipt));
                }
                Effect::Subscribe { ticket, filters } => self.install(ticket, filters.len() as u32),
                Effect::PullInbox { after, limit } => {
                    self.pulls += 1;
                    let head = self.head();
                    let kept = |entry: &&Entry| entry.offset > after && entry.offset.0 >= head.first.0;
                    let entries: Vec<_> = self.inbox.iter().filter(kept).take(limit).cloned().collect();
                    self.call(|session, now, effects| session.on_inbox_pulled(head, &entries, now, effects));
                }
                Effect::ReadRetained { filter, after, .. } if self.hold_reads => self.reads.push((filter, after)),
                Effect::ReadRetained { filter, after, .. } => {
                    self.call(|session, now, effects| {
                        session.on_retained_read(&filter, &after, &[], None, now, effects);
                    });
                }
                Effect::LeaveShare { .. } | Effect::Orphan { .. } | Effect::ShareOpen { .. } | Effect::Share { .. } => {
                }
                Effect::DeliverRetained { message, .. } => self.trace.push(format!("RETAINED {} q0", message.topic)),
                Effect::PullTopics { .. } => {
                    let seq = self.seq;
                    self.call(|session, now, effects| session.on_topics_pulled(&[], &[], seq, now, effects));
                }
                Effect::End { mut records, served } => {
                    let id = self.id.take().expect("opened");
                    records.extend(served.and_then(|served| self.directory.read_mark_moved(id, served)));
                    self.apply(records);
                    self.trace.push("end".into());
                    self.directory.remove(id);
                }
                Effect::Expired { topic, .. } => self.trace.push(format!("expired {topic}")),
                Effect::Gap(Gap::Inbox { first, entries }) => self.trace.push(format!("gap {first} {entries}")),
                Effect::Gap(Gap::Topics(gap)) => self.trace.push(format!("gap {:?} {}", gap.stream, gap.kept_from)),
                Effect::Close(reason) => self.trace.push(format!("close {reason:?}")),
                Effect::PauseReading => self.trace.push("pause".into()),
                Effect::ResumeReading => self.trace.push("resume".into()),
                Effect::DeliverOnce { message, .. } => self.trace.push(format!("PUBLISH {} q0", message.topic)),
                Effect::Received { .. } => self.trace.push("received".into()),
                Effect::RecordDirty | Effect::InboxLeft { .. } | Effect::Unsubscribe { .. } => {}
                other => unreachable!("{other:?} is not of these tests"),
            }
        }
    }

    fn frames(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Ok(FrameLen::Known { total_bytes, .. }) = wire::frame_len(bytes, usize::MAX) else { panic!("a frame") };
            let line = match wire::decode(self.version, &bytes[..total_bytes]).expect("we encode well") {
                Packet::ConnAck(ack) => {
                    let present = if ack.session_present { " present" } else { "" };
                    format!("CONNACK {:02x}{present}", ack.reason.code())
                }
                Packet::Ack(ack) => format!("{:?} {} {:02x}", ack.kind, ack.packet_id, ack.reason.code()),
                Packet::SubAck(ack) => {
                    format!("SUBACK {:02x?}", ack.reasons.iter().map(Reason::code).collect::<Vec<_>>())
                }
                Packet::UnsubAck(ack) => {
                    format!("UNSUBACK {:02x?}", ack.reasons.iter().map(Reason::code).collect::<Vec<_>>())
                }
                Packet::Disconnect(goodbye) => format!("DISCONNECT {:02x}", goodbye.reason.code()),
                other => format!("{other:?}"),
            };
            self.trace.push(line);
            bytes = &bytes[total_bytes..];
        }
    }

    fn apply(&mut self, records: Vec<RecordChange>) {
        for RecordChange { key, value } in records {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
    }

    fn commit(&mut self, ticket: super::super::Ticket, records: Vec<RecordChange>) {
        self.apply(records);
        self.call(|session, _, effects| on_committed(session, ticket, Ok(()), effects));
    }

    fn commit_held(&mut self) {
        for (ticket, records) in core::mem::take(&mut self.held) {
            self.commit(ticket, records);
        }
    }

    fn request(&self, expiry: u32, clean: bool) -> ConnectRequest {
        let mut bytes = Vec::new();
        let mut connect = Connect::new(self.version, "phone");
        connect.clean_start = clean;
        if self.version == Version::V5 {
            connect.properties.session_expiry_seconds = Some(expiry);
        }
        connect.encode_to(self.version, &mut bytes);
        match greet(&bytes, 1000) {
            Greeting::Connect(request, taken) if taken == bytes.len() => *request,
            other => panic!("{other:?}"),
        }
    }

    fn connect(&mut self, expiry: u32, clean: bool) -> Vec<String> {
        let request = self.request(expiry, clean);
        self.open(&request)
    }

    fn open(&mut self, request: &ConnectRequest) -> Vec<String> {
        let identity = Identity { app: AppId(0), user: "alice".into(), device: "phone".into() };
        let inbox = Some((Offset(0), self.head()));
        let at = OpenAt {
            now: self.now,
            shard_seq: self.seq,
            inbox,
            sees_node: false,
            packet_bytes: 1_000,
            keep_alive_instead_of_none: 2_400,
            log: (Epoch(1), self.seq),
        };
        let mut effects = core::mem::take(&mut self.effects);
        let connection = ConnectionId { index: 1, generation: 1 };
        self.id = open(&mut self.directory, &identity, request, connection, at, &mut effects);
        self.carry_out(effects);
        self.seen()
    }

    fn send(&mut self, packet: &impl Encode) -> Vec<String> {
        let mut bytes = Vec::new();
        packet.encode_to(self.version, &mut bytes);
        self.call(|session, now, effects| handle(session, &bytes, now, effects));
        self.seen()
    }

    fn ack(&mut self, kind: AckKind, id: u16) -> Vec<String> {
        self.send(&Ack::success(kind, PacketId::new(id).expect("not 0")))
    }

    fn subscribe(&mut self, filter: &str, qos: Qos) -> Vec<String> {
        let filters = [Filter::new(filter, qos)];
        let (packet_id, properties) = (PacketId::MIN, Default::default());
        self.send(&wire::Subscribe { packet_id, properties, filters: wire::Filters::borrowed(&filters) })
    }

    fn publish(&mut self, topic: &str, qos: Qos, id: u16) -> Vec<String> {
        let packet_id = PacketId::new(id);
        let (properties, payload) = (Default::default(), &b"x"[..]);
        self.send(&Publish { dup: false, qos, retain: false, topic, packet_id, properties, payload })
    }

    fn answer(&mut self, at: usize, result: Result<bool, StoreError>) -> Vec<String> {
        let receipt = self.published[at].1.expect("asked for");
        self.call(|session, _, effects| on_published(session, receipt, result, effects));
        self.seen()
    }

    fn drop_connection(&mut self) -> Vec<String> {
        let seq = self.seq;
        self.call(|session, now, effects| session.on_connection_closed(Close::Lost, now, seq, effects));
        self.seen()
    }

    fn push(&mut self, label: &str, qos: Qos) -> Offer {
        let message = message(label, qos);
        self.seq.0 += 1;
        let offset = Offset(self.inbox.len() as u64 + 1);
        let stream = StreamKey::Inbox(AppId(0), "alice".into());
        self.inbox.push(Entry { stream, epoch: Epoch(5), offset, seq: self.seq, message: message.clone() });
        let mut offer = Offer::Passed;
        self.call(|session, _, effects| {
            offer = session.offer_logged(LoggedAt::Inbox(offset), (Epoch(5), offset), &message, qos, effects);
        });
        offer
    }

    fn seen(&mut self) -> Vec<String> {
        core::mem::take(&mut self.trace)
    }

    /// The process dies: what was committed is all that is left.
    fn crash(&mut self) {
        let page: Vec<_> = self
            .records
            .iter()
            .filter(|(key, _)| key.starts_with(b"s"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        self.directory = Directory::new(KeyedHash::new(8), 16, 16);
        let thawed = self.directory.thaw_records(&page, self.now);
        assert_eq!((thawed.unreadable, thawed.without_room), (0, 0), "our own records");
        self.apply(thawed.orphans);
        assert_eq!(self.directory.thaw_records(&[], self.now), Default::default());
        self.id = self.directory.find(AppId(0), "alice", "phone");
        self.held.clear();
    }

    fn flush(&mut self) {
        let (id, seq, now) = (self.id.expect("opened"), self.seq, self.now);
        let mut records = Vec::new();
        self.directory.record_lazy(id, seq, now, &mut records);
        self.apply(records);
    }
}

fn message(label: &str, qos: Qos) -> Arc<Message> {
    Arc::new(Message {
        app: AppId(0),
        topic: format!("$inbox/{label}").into(),
        only_device: None,
        payload: Bytes::from_static(b"x"),
        qos,
        retain: false,
        created_ms: 0,
        expires_ms: None,
        publisher: None,
        properties: None,
    })
}

fn durable(version: Version) -> Shard {
    let mut shard = Shard::new(version);
    shard.connect(3600, false);
    shard.subscribe("$inbox/#", Qos::ExactlyOnce);
    shard
}

#[test]
fn connack_and_suback_of_a_durable_session_wait_for_their_commits() {
    let mut shard = Shard::new(Version::V5);
    shard.hold = true;
    assert_eq!(shard.connect(3600, false), ["pause"]);
    shard.commit_held();
    assert_eq!(shard.seen(), ["CONNACK 00", "resume"]);
    assert_eq!(shard.subscribe("a/b", Qos::AtLeastOnce), ["pause"]);
    shard.commit_held();
    assert_eq!(shard.seen(), ["SUBACK [01]", "resume"]);
}

#[test]
fn a_session_with_expiry_0_writes_nothing_and_ends_with_its_connection() {
    let mut shard = Shard::new(Version::V311);
    assert_eq!(shard.connect(0, true), ["pause", "CONNACK 00", "resume"]);
    shard.subscribe("a/b", Qos::ExactlyOnce);
    shard.publish("a/b", Qos::ExactlyOnce, 1);
    assert!(shard.records.is_empty());
    assert_eq!(shard.drop_connection(), ["end"]);
    assert_eq!(shard.directory.sessions(), 0);
    assert_eq!(shard.directory.users(), 0);
}

#[test]
fn qos1_is_redelivered_with_dup_in_order_after_resume_and_acks_come_in_any_order() {
    let mut shard = durable(Version::V311);
    for label in ["a", "b", "c"] {
        assert!(matches!(shard.push(label, Qos::AtLeastOnce), Offer::Send(_)));
    }
    assert!(shard.ack(AckKind::PubAck, 2).is_empty());
    assert_eq!(shard.session().inbox_settled().1, Offset(0));
    shard.drop_connection();
    assert_eq!(
        shard.connect(0, false),
        ["pause", "CONNACK 00 present", "PUBLISH 1 $inbox/a q1 dup", "PUBLISH 3 $inbox/c q1 dup", "resume"]
    );
    shard.ack(AckKind::PubAck, 3);
    shard.ack(AckKind::PubAck, 1);
    assert_eq!(shard.session().inbox_settled().1, Offset(3));
    assert!(shard.session().work.is_none());
}

#[test]
fn qos2_is_sent_after_its_commit_and_released_after_its_own() {
    let mut shard = durable(Version::V5);
    shard.hold = true;
    assert_eq!(shard.push("a", Qos::ExactlyOnce), Offer::AfterCommit);
    assert!(shard.seen().is_empty());
    shard.commit_held();
    assert_eq!(shard.seen(), ["PUBLISH 1 $inbox/a q2"]);
    assert!(shard.ack(AckKind::PubRec, 1).is_empty());
    shard.commit_held();
    assert_eq!(shard.seen(), ["PubRel 1 00"]);
    assert!(shard.ack(AckKind::PubComp, 1).is_empty());
    assert_eq!(shard.session().inbox_settled().1, Offset(1));
}

#[test]
fn after_a_crash_qos2_goes_on_where_it_was_committed() {
    let mut shard = durable(Version::V5);
    for label in ["a", "b", "c"] {
        shard.push(label, Qos::ExactlyOnce);
    }
    shard.ack(AckKind::PubRec, 2);
    shard.ack(AckKind::PubRec, 3);
    shard.ack(AckKind::PubComp, 3);
    shard.flush();
    shard.crash();
    shard.seen();
    let seen = shard.connect(3600, false);
    assert_eq!(seen, ["pause", "CONNACK 00 present", "PubRel 2 00", "resume", "PUBLISH 1 $inbox/a q2 dup"]);
    shard.ack(AckKind::PubComp, 2);
    shard.ack(AckKind::PubRec, 1);
    shard.ack(AckKind::PubComp, 1);
    assert_eq!(shard.session().inbox_settled().1, Offset(3));
    shard.flush();
    assert!(shard.records.len() <= 3, "main, cursor and the read mark are left");
}

#[test]
fn what_was_not_acknowledged_is_read_again_after_a_crash() {
    let mut shard = durable(Version::V5);
    shard.push("a", Qos::AtLeastOnce);
    shard.push("b", Qos::AtLeastOnce);
    shard.ack(AckKind::PubAck, 2);
    shard.flush();
    shard.crash();
    let seen = shard.connect(3600, false);
    assert!(seen.iter().any(|line| line.starts_with("PUBLISH") && line.contains("$inbox/a")), "{seen:?}");
    assert!(!seen.iter().any(|line| line.contains("$inbox/b")), "its mark was kept: {seen:?}");
}

#[test]
fn the_window_pulls_what_it_could_not_take_and_reports_a_gap() {
    let mut shard = durable(Version::V5);
    for n in 1..=32 {
        assert_eq!(shard.push("x", Qos::AtLeastOnce), Offer::Send(DeliveryId(n)));
    }
    assert_eq!(shard.push("y", Qos::AtLeastOnce), Offer::Behind);
    assert_eq!(shard.push("z", Qos::AtLeastOnce), Offer::Behind);
    shard.first_kept = 34;
    assert_eq!(shard.ack(AckKind::PubAck, 1), ["gap 33 1", "PUBLISH 33 $inbox/z q1"]);
    for id in 2..=33 {
        shard.ack(AckKind::PubAck, id);
    }
    assert_eq!(shard.session().inbox_settled().1, Offset(34));
}

#[test]
fn acks_to_a_publisher_leave_in_order_per_qos() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(0, true);
    shard.publish("t", Qos::AtLeastOnce, 1);
    shard.publish("t", Qos::ExactlyOnce, 2);
    shard.publish("t", Qos::AtLeastOnce, 3);
    assert!(shard.answer(2, Ok(true)).is_empty());
    assert_eq!(shard.answer(1, Ok(false)), ["PubRec 2 10"]);
    assert_eq!(shard.answer(0, Ok(true)), ["PubAck 1 00", "PubAck 3 00"]);
}

#[test]
fn a_received_qos2_id_is_not_routed_again_until_released() {
    let mut shard = durable(Version::V311);
    assert_eq!(shard.publish("t", Qos::ExactlyOnce, 9), ["route t"]);
    assert!(shard.publish("t", Qos::ExactlyOnce, 9).is_empty(), "not before the first one is committed");
    assert_eq!(shard.answer(0, Ok(true)), ["PubRec 9 00", "PubRec 9 00"]);
    shard.crash();
    shard.connect(0, false);
    assert_eq!(shard.publish("t", Qos::ExactlyOnce, 9), ["PubRec 9 00"]);
    assert_eq!(shard.ack(AckKind::PubRel, 9), ["PubComp 9 00"]);
    assert_eq!(shard.publish("t", Qos::ExactlyOnce, 9), ["route t"]);
}

#[test]
fn receive_maximum_is_met_and_not_exceeded() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(0, true);
    for id in 1..=RECEIVE_MAXIMUM_IN {
        assert_eq!(shard.publish("t", Qos::AtLeastOnce, id), ["route t"]);
    }
    let seen = shard.publish("t", Qos::AtLeastOnce, RECEIVE_MAXIMUM_IN + 1);
    assert_eq!(seen, ["DISCONNECT 93", "close ReceiveMaximum"]);

    let mut shard = Shard::new(Version::V311);
    shard.connect(0, true);
    for id in 1..RECEIVE_MAXIMUM_IN {
        assert_eq!(shard.publish("t", Qos::AtLeastOnce, id), ["route t"]);
    }
    assert_eq!(shard.publish("t", Qos::AtLeastOnce, RECEIVE_MAXIMUM_IN), ["pause", "route t"]);
    assert_eq!(shard.answer(0, Ok(true)), ["PubAck 1 00", "resume"]);
}

#[test]
fn subscriptions_are_bounded() {
    let mut shard = Shard::new(Version::V5);
    shard.connect(0, true);
    for n in 0..SUBSCRIPTIONS_MAX {
        assert_eq!(shard.subscribe(&format!("t/{n}"), Qos::AtMostOnce), ["pause", "SUBACK [00]", "resume"]);
    }
    assert_eq!(shard.subscribe("one/more", Qos::AtMostOnce), ["SUBACK [97]"]);
    assert_eq!(shard.subscribe("t/5", Qos::AtLeastOnce), ["pause", "SUBACK [01]", "resume"]);
}

#[test]
fn take_over_applies_the_will_rule() {
    for (delay, clean, published) in [(0, false, true), (10, false, false), (10, true, true)] {
        let mut shard = Shard::new(Version::V5);
        let mut request = shard.request(3600, false);
        let (topic, payload) = ("gone".into(), Bytes::new());
        let (qos, retain, message_expiry, properties) = (Qos::AtMostOnce, false, None, None);
        request.will = Some(Box::new(WillRequest { topic, payload, qos, retain, delay, message_expiry, properties }));
        shard.open(&request);
        let by = shard.request(3600, clean);
        let by = Request::Mqtt(Box::new(by));
        shard.call(|session, now, effects| take_over(session, &by, now, Seq(0), effects));
        let seen = shard.seen();
        assert_eq!(&seen[..2], ["DISCONNECT 8e", "close TakenOver"]);
        assert_eq!(seen.contains(&"route gone".to_string()), published);
    }
}

#[test]
fn the_will_is_published_after_its_delay_and_the_session_expires() {
    let mut shard = Shard::new(Version::V5);
    let mut request = shard.request(60, false);
    let (topic, payload) = ("gone".into(), Bytes::new());
    let (qos, retain, message_expiry, properties) = (Qos::AtMostOnce, false, None, None);
    request.will = Some(Box::new(WillRequest { topic, payload, qos, retain, delay: 5, message_expiry, properties }));
    shard.open(&request);
    assert!(shard.drop_connection().is_empty());
    let start = shard.now.monotonic_ms;
    assert_eq!(shard.session().offline_deadline(), Some(start + 5_000));
    shard.now.monotonic_ms += 5_000;
    shard.call(|session, now, effects| session.handle_timer(now, effects));
    assert_eq!(shard.seen(), ["route gone"]);
    assert_eq!(shard.session().offline_deadline(), Some(start + 60_000));
    shard.now.monotonic_ms += 55_000;
    shard.call(|session, now, effects| session.handle_timer(now, effects));
    assert_eq!(shard.seen(), ["end"]);
    assert!(shard.records.is_empty());
}

#[test]
fn a_clean_start_discards_the_session_and_its_records() {
    let mut shard = durable(Version::V5);
    shard.push("a", Qos::ExactlyOnce);
    shard.drop_connection();
    shard.seen();
    assert_eq!(shard.connect(0, true), ["pause", "CONNACK 00", "resume"]);
    assert!(shard.records.is_empty());
    assert_eq!(shard.directory.sessions(), 1);
}

#[test]
fn bad_input_is_answered_with_its_reason_code() {
    for (frame, code) in [
        (&[0x10, 0x00][..], "81"),
        (&[0x82, 0x02, 0x00, 0x01], "81"),
        (&[0xF0, 0x00], "82"),
        (&[0xD0, 0x00], "82"),
        (&[0x30, 0x03, 0x00, 0x00, 0x00], "82"),
        (&[0x30, 0x07, 0x00, 0x01, b't', 0x03, 0x23, 0x00, 0x11], "94"),
        (&[0x30, 0x04, 0x00, 0x01, b'#', 0x00], "90"),
    ] {
        let mut shard = Shard::new(Version::V5);
        shard.connect(0, true);
        shard.call(|session, now, effects| handle(session, frame, now, effects));
        let seen = shard.seen();
        assert_eq!(seen.last().map(String::as_str), Some("close ProtocolError"), "{frame:x?} {seen:?}");
        assert_eq!(seen[0], format!("DISCONNECT {code}"), "{frame:x?}");
        assert_eq!(shard.session().state, State::Closing);
    }
}

#[test]
fn freezing_at_every_step_changes_nothing() {
    let script = |restless: bool| {
        let mut shard = durable(Version::V5);
        shard.restless = restless;
        shard.push("a", Qos::ExactlyOnce);
        shard.push("b", Qos::AtLeastOnce);
        shard.publish("t", Qos::ExactlyOnce, 4);
        let mut all = shard.ack(AckKind::PubRec, 1);
        all.extend(shard.answer(0, Ok(true)));
        all.extend(shard.drop_connection());
        all.extend(shard.connect(3600, false));
        all.extend(shard.ack(AckKind::PubComp, 1));
        all.extend(shard.ack(AckKind::PubAck, 2));
        all.extend(shard.ack(AckKind::PubRel, 4));
        all
    };
    assert_eq!(script(false), script(true));
}
