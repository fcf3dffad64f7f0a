//! Sessions of event streams by themselves: no router, no store.

use super::super::core::own_position::{Missing, Streaming};
use super::super::mqtt::OpenAt;
use super::super::{Directory, Identity, OnlyStream, Protocol, Session};
use super::*;
use crate::base::clock::Now;
use crate::base::hash::KeyedHash;
use crate::base::ids::{AppId, ConnectionId, Epoch, Offset, Seq, SessionId};
use crate::base::log::StreamHead;
use crate::base::message::{Entry, Message, StreamKey};
use crate::wire::sse::Token;
use std::sync::Arc;

const LIFE: Epoch = Epoch(9);

struct Desk {
    directory: Directory,
    effects: Effects,
    id: Option<SessionId>,
}

impl Desk {
    fn open(filters: &[&str], given: Given) -> Self {
        let mut desk =
            Self { directory: Directory::new(KeyedHash::new(7), 8, 8), effects: Effects::default(), id: None };
        let identity = Identity { app: AppId(0), user: "ann".into(), device: "page".into() };
        let filters = filters.iter().map(|&filter| filter.into()).collect();
        let (user, device, page) = (None, Box::default(), Some("https://app.example".into()));
        let (qos, raw, poll, token, rights) = (Qos::AtLeastOnce, true, None, None, None);
        let request = EventsRequest { user, device, filters, qos, raw, given, page, poll, token, rights };
        let (now, log) = (Now { monotonic_ms: 1_000, wall_ms: 2_000 }, (LIFE, Seq(50)));
        let at = OpenAt {
            now,
            shard_seq: Seq(40),
            inbox: None,
            sees_node: false,
            packet_bytes: 1_000,
            keep_alive_instead_of_none: 2_400,
            log,
        };
        let connection = ConnectionId { index: 1, generation: 1 };
        desk.id = open(&mut desk.directory, &identity, request, connection, at, &mut desk.effects);
        desk
    }

    fn session(&mut self) -> &mut Session {
        self.directory.get_mut(self.id.expect("it was opened")).expect("it is there")
    }

    fn streaming(&mut self) -> Streaming {
        (**self.session().extra().streaming.as_ref().expect("it is being opened")).clone()
    }

    fn locates(&mut self) -> Option<Offset> {
        let asked = self.effects.list.iter().find_map(|effect| match effect {
            Effect::Locate { after, .. } => Some(*after),
            _ => None,
        });
        self.effects.clear();
        asked
    }

    fn located(&mut self, head: StreamHead, entries: &[Entry]) {
        let session = self.directory.get_mut(self.id.expect("it was opened")).expect("it is there");
        on_located(session, head, entries, &mut self.effects);
    }

    fn subscribes(&mut self) -> bool {
        self.effects.list.iter().any(|effect| matches!(effect, Effect::Subscribe { .. }))
    }
}

fn head(epoch: u64, first: u64, last: u64, trimmed: u64) -> StreamHead {
    StreamHead { epoch: Epoch(epoch), first: Offset(first), last: Offset(last), trimmed: Seq(trimmed) }
}

fn entry(offset: u64, seq: u64) -> Entry {
    let message = Message {
        app: AppId(0),
        topic: "t".into(),
        only_device: None,
        payload: Default::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        created_ms: 0,
        expires_ms: None,
        publisher: None,
        properties: None,
    };
    let (stream, epoch) = (StreamKey::Topic(AppId(0), "t".into()), Epoch(5));
    Entry { stream, epoch, offset: Offset(offset), seq: Seq(seq), message: Arc::new(message) }
}

fn at(epoch: u64, offset: u64) -> Given {
    Given::Position(EventId::One(Epoch(epoch), Offset(offset)))
}

#[test]
fn a_place_in_a_topic_becomes_the_seq_behind_which_it_goes_on() {
    let (no, unknown) = (None, Some(Missing::Unknown));
    let trimmed = |first, entries| Some(Missing::Trimmed(Offset(first), entries));
    for (offset, entries, topics, place, missing) in [
        (7, &[entry(7, 30)][..], 30, 7, no),
        (7, &[entry(8, 33)], 32, 7, no),
        (7, &[entry(10, 35)], 34, 9, trimmed(8, 2)),
        (0, &[entry(1, 11)], 10, 0, no),
        (7, &[], 36, 12, trimmed(8, 5)),
        (12, &[], 36, 12, no),
    ] {
        let mut desk = Desk::open(&["t"], at(5, offset));
        assert_eq!(desk.locates(), Some(Offset(offset.saturating_sub(1))));
        desk.located(head(5, 1, 12, 36), entries);
        let found = desk.streaming();
        assert!(desk.subscribes());
        assert_eq!((found.topics, found.topic), (Some(Seq(topics)), Some((Epoch(5), Offset(place)))), "{offset}");
        assert_eq!(found.topics_missing, missing, "{offset}");
    }
    // Another life, or beyond the end: the oldest entry there is, after a second look.
    for given in [at(4, 3), at(5, 13), Given::Unreadable] {
        let mut desk = Desk::open(&["t"], given);
        desk.locates();
        desk.located(head(5, 3, 12, 2), &[]);
        assert!(!desk.subscribes() && desk.locates().is_some());
        desk.located(head(5, 3, 12, 2), &[entry(3, 20)]);
        let found = desk.streaming();
        assert_eq!((found.topics, found.topics_missing), (Some(Seq(19)), unknown), "{given:?}");
    }
}

#[test]
fn a_topic_without_a_stream_has_all_of_it_before_it() {
    for (given, missing) in [(Given::Nothing, None), (at(0, 0), None), (at(4, 3), Some(Missing::Unknown))] {
        let mut desk = Desk::open(&["t"], given);
        desk.locates();
        desk.located(head(0, 1, 0, 0), &[]);
        let found = desk.streaming();
        assert_eq!((found.topics, found.topic), (Some(Seq(50)), Some((Epoch(0), Offset(0)))));
        assert_eq!(found.topics_missing, missing);
    }
}

#[test]
fn a_token_counts_in_its_own_log_and_not_beyond_its_end() {
    let token = |log, topics| {
        let inbox = (Epoch(3), Offset(2));
        Given::Position(EventId::Several(Token { log, topics: Seq(topics), inbox }))
    };
    let open = |given| Desk::open(&["$inbox/#", "a/+"], given).streaming();
    let good = open(token(LIFE, 50));
    assert_eq!((good.inbox, good.topics), (Some((Epoch(3), Offset(2))), Some(Seq(50))));
    assert_eq!((good.inbox_missing, good.topics_missing), (None, None));
    for bad in [token(Epoch(8), 50), token(LIFE, 51), at(3, 2), Given::Unreadable] {
        let found = open(bad);
        assert_eq!((found.inbox, found.topics), (Some((Epoch(0), Offset(0))), Some(Seq(0))), "{bad:?}");
        let unknown = Some(Missing::Unknown);
        assert_eq!((found.inbox_missing, found.topics_missing), (unknown, unknown), "{bad:?}");
    }
    let new = open(Given::Nothing);
    assert_eq!((new.inbox, new.topics), (None, Some(Seq(40))), "the inbox from the read mark, topics from now on");
}

#[test]
fn an_opening_session_freezes_and_thaws_whole() {
    for given in [Given::Nothing, at(3, 2), Given::Unreadable] {
        for filters in [&["$inbox/#"][..], &["t"], &["$inbox/#", "a/+"]] {
            let mut desk = Desk::open(filters, given);
            let mut bytes = Vec::new();
            desk.session().freeze(&mut bytes);
            let connection = desk.session().connection();
            let mut thawed = Session::thaw(&bytes, connection).expect("it was just frozen");
            assert_eq!(thawed.protocol(), Protocol::Sse { raw: true });
            assert_eq!(thawed.extra().streaming, desk.session().extra().streaming);
            let mut again = Vec::new();
            thawed.freeze(&mut again);
            assert_eq!(again, bytes);
        }
    }
}

#[test]
fn one_filter_is_one_stream_unless_it_has_a_wildcard() {
    use super::super::core::own_position::only_stream;
    for (filter, expected) in [
        ("$inbox/#", OnlyStream::Inbox),
        ("$inbox/orders/+", OnlyStream::Inbox),
        ("a/b", OnlyStream::Topic),
        ("a/+", OnlyStream::Several),
        ("#", OnlyStream::Several),
    ] {
        assert_eq!(only_stream(filter), expected, "{filter}");
    }
}
