//! Polls by themselves: no router, no store, no connection.

use super::super::mqtt::{OpenAt, on_subscribed};
use super::super::protocol::{self, Request};
use super::super::sse::{EventsRequest, Given};
use super::super::{Directory, Gap as Missed, Identity};
use super::*;
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, ConnectionId, Qos, Seq, SessionId};
use crate::base::log::{StreamGap, StreamHead};
use crate::base::message::StreamKey;

struct Desk {
    directory: Directory,
    effects: Effects,
    id: SessionId,
}

impl Desk {
    /// A poll of the inbox that has found its place.
    fn open(wish: PollWish) -> Self {
        let (mut directory, mut effects) = (Directory::new(KeyedHash::new(7), 8, 8), Effects::default());
        let identity = Identity { app: AppId(0), user: "ann".into(), device: "page".into() };
        let (qos, given, page) = (Qos::AtLeastOnce, Given::Nothing, None);
        let filters = vec!["$inbox/#".into()];
        let (user, device, poll) = (None, Box::default(), Some(wish));
        let (token, rights) = (None, None);
        let request = EventsRequest { user, device, filters, qos, raw: false, given, page, poll, token, rights };
        let at = OpenAt {
            now: Now { monotonic_ms: 1_000, wall_ms: 2_000 },
            shard_seq: Seq(40),
            inbox: None,
            sees_node: false,
            packet_bytes: 1_000,
            keep_alive_instead_of_none: 2_400,
            log: (Epoch(9), Seq(50)),
        };
        let connection = ConnectionId { index: 1, generation: 1 };
        let request = Request::Sse(Box::new(request));
        let id = protocol::open(&mut directory, &identity, request, connection, at, &mut effects);
        let mut desk = Self { directory, effects, id: id.expect("there is room") };
        let ticket = desk.effects.list.iter().find_map(|effect| match effect {
            Effect::Subscribe { ticket, .. } => Some(*ticket),
            _ => None,
        });
        let ticket = ticket.expect("it subscribes at once");
        desk.call(|session, _| on_subscribed(session, ticket, &[(0, 0)]));
        desk.call(|session, effects| protocol::on_interest_installed(session, ticket, Seq(40), effects));
        let head = StreamHead { epoch: Epoch(5), first: Offset(1), last: Offset(3), trimmed: Seq(0) };
        desk.call(|session, effects| protocol::on_inbox_known(session, Offset(3), head, effects));
        assert!(desk.effects.list.iter().any(|effect| matches!(effect, Effect::Opened)));
        desk.effects.clear();
        desk
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Session, &mut Effects) -> T) -> T {
        call(self.directory.get_mut(self.id).expect("it is there"), &mut self.effects)
    }

    fn gather(&mut self, payload: &[u8], bytes_max: usize) -> (Gathered, bool) {
        let (topic, qos, place) = ("$inbox/x", Qos::AtLeastOnce, Some((Epoch(5), Offset(4))));
        let said = Said { topic, payload, qos, place, content_type: None, ttl_ms: None };
        self.call(|session, _| gather(session, &said, bytes_max))
    }

    fn readiness(&mut self) -> Readiness {
        self.call(|session, _| readiness(session))
    }

    fn answer(&mut self) -> serde_json::Value {
        self.call(|session, effects| answer(session, CloseReason::Answered, effects));
        assert!(matches!(self.effects.list.last(), Some(Effect::Close(CloseReason::Answered))));
        let text = core::str::from_utf8(&self.effects.control).expect("it is text");
        serde_json::from_str(text.split_once("\r\n\r\n").expect("it has a head").1).expect("it is JSON")
    }
}

fn wish(timeout_ms: u32, limit: u16) -> PollWish {
    PollWish { timeout_ms, limit }
}

#[test]
fn a_long_poll_waits_until_something_is_in_it_and_a_plain_one_does_not() {
    let mut long = Desk::open(wish(1_000, 10));
    assert_eq!(long.readiness(), Readiness::Waiting);
    assert_eq!(long.gather(b"x", 1_000), (Gathered::Taken, true), "it has to be looked at again");
    assert_eq!(long.gather(b"y", 1_000), (Gathered::Taken, false));
    assert_eq!(long.readiness(), Readiness::Due);
    let said = long.answer();
    assert_eq!((said["events"].as_array().map(Vec::len), &said["next"]), (Some(2), &"0000000000000005:3".into()));
    assert_eq!(Desk::open(wish(0, 10)).readiness(), Readiness::Due);
}

#[test]
fn an_answer_has_its_limit_of_messages_and_no_more() {
    for limit in [1, 2, 3] {
        let mut desk = Desk::open(wish(1_000, limit));
        for _ in 0..limit {
            assert_eq!(desk.gather(b"x", 1_000).0, Gathered::Taken);
        }
        assert_eq!(desk.gather(b"x", 1_000).0, Gathered::Full);
        assert_eq!(desk.answer()["events"].as_array().map(Vec::len), Some(usize::from(limit)));
    }
}

#[test]
fn an_answer_has_its_bytes_and_what_would_fit_into_none_is_told_apart() {
    let mut sized = Desk::open(wish(1_000, 10));
    sized.gather(b"0123456789", usize::MAX);
    let bytes = sized.call(|session, _| session.extra().polling.as_ref().map(|polling| polling.events.len()));
    let bytes = bytes.expect("it has begun");
    for (room, first, second) in [
        (bytes - 1, Gathered::TooLarge, Gathered::TooLarge),
        (bytes, Gathered::Taken, Gathered::Full),
        (2 * bytes, Gathered::Taken, Gathered::Full),
        (2 * bytes + 1, Gathered::Taken, Gathered::Taken),
    ] {
        let mut desk = Desk::open(wish(1_000, 10));
        assert_eq!((desk.gather(b"0123456789", room).0, desk.gather(b"0123456789", room).0), (first, second), "{room}");
        if second == Gathered::Full {
            assert_eq!(desk.gather(b"", room).0, Gathered::Full, "nothing overtakes what had no room");
            assert_eq!(desk.readiness(), Readiness::Due);
        }
    }
}

#[test]
fn a_gap_is_something_to_be_answered_with_and_names_its_topic() {
    let mut desk = Desk::open(wish(1_000, 10));
    let stream = StreamKey::Topic(AppId(0), "a/b".into());
    let gap = Missed::Topics(StreamGap { stream, kept_from: Offset(9), trimmed: Seq(8) });
    desk.call(|session, effects| protocol::on_gap(session, &gap, effects));
    let everyone = StreamGap { stream: StreamKey::Everyone(AppId(0)), kept_from: Offset(9), trimmed: Seq(8) };
    desk.call(|session, effects| protocol::on_gap(session, &Missed::Topics(everyone), effects));
    assert_eq!(desk.readiness(), Readiness::Due);
    let gaps = serde_json::json!([
        { "stream": "topics", "reason": "trimmed", "topic": "a/b" },
        { "stream": "everyone", "reason": "trimmed" },
    ]);
    assert_eq!(desk.answer()["gaps"], gaps);
}

#[test]
fn a_poll_is_answered_once_and_freezes_and_thaws_whole() {
    let mut desk = Desk::open(wish(1_000, 10));
    desk.gather(b"x", 1_000);
    let mut bytes = Vec::new();
    desk.call(|session, _| session.freeze(&mut bytes));
    let connection = desk.call(|session, _| session.connection());
    let mut thawed = Session::thaw(&bytes, connection).expect("it was just frozen");
    assert_eq!(thawed.protocol(), Protocol::Poll);
    assert!(desk.call(|session, _| session.extra().polling == thawed.extra().polling));
    let mut again = Vec::new();
    thawed.freeze(&mut again);
    assert_eq!(again, bytes);
    desk.answer();
    desk.effects.clear();
    desk.call(|session, effects| answer(session, CloseReason::Answered, effects));
    assert!(desk.effects.list.is_empty());
    assert_eq!(desk.gather(b"late", 1_000), (Gathered::Full, false));
}
