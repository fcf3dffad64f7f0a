//! Connections: how they begin, take over, and end.

use super::super::draw::Draw;
use super::link::{Link, Speech};
use super::{DEVICES, EPOCH, FILTERS, World};
use kittiwake::base::ids::{AppId, ConnectionId, Epoch, Offset, Qos, Seq};
use kittiwake::limits::RECEIVE_MAXIMUM_OUT;
use kittiwake::session::mqtt::{self, Greeting, OpenAt, WillRequest};
use kittiwake::session::protocol::{self, Request};
use kittiwake::session::sse::{EventsRequest, Given};
use kittiwake::session::{Close, CloseReason, Effects, Identity, Session};
use kittiwake::wire::mqtt::{Connect, Encode, Version, Will};
use kittiwake::wire::sse::{EventId, Token};
use std::num::{NonZeroU16, NonZeroU32};

/// Messages in flight towards a client that does not ask for fewer.
const WINDOW: usize = RECEIVE_MAXIMUM_OUT as usize;

impl World {
    /// A client says CONNECT.
    pub fn connect(&mut self, device: usize, draw: &mut Draw<'_>) {
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
                retain: draw.flag(),
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
        let window = if version == Version::V5 && window > 0 { usize::from(window) } else { usize::MAX };
        let bytes_max = if version == Version::V5 && bytes_max > 0 { bytes_max as usize } else { usize::MAX };
        let limits = (window.min(WINDOW), bytes_max);
        self.open(device, Speech::Mqtt(version), limits, Request::Mqtt(request), draw);
    }

    /// A client asks for an event stream, from where it stood, or from anywhere.
    pub fn ask_for_events(&mut self, device: usize, draw: &mut Draw<'_>) {
        let mut filters: Vec<Box<str>> = Vec::new();
        for _ in 0..=draw.below(3) {
            let filter = draw.pick(&FILTERS);
            if !filter.starts_with("$share/") && filters.iter().all(|known| **known != *filter) {
                filters.push(filter.into());
            }
        }
        if filters.is_empty() {
            return;
        }
        let number = u64::from(draw.byte());
        let epoch = draw.pick(&[EPOCH, EPOCH, Epoch(0), Epoch(4)]);
        let stood = self.links[device].as_ref().and_then(|link| link.stood);
        let given = match (draw.below(5), stood) {
            (0, _) => Given::Nothing,
            (1, _) => Given::Unreadable,
            (2, _) => Given::Position(EventId::One(epoch, Offset(number % 20))),
            (_, Some(stood)) => {
                let token = Token { log: EPOCH, topics: stood.topics, inbox: stood.inbox };
                Given::Position(EventId::Several(token))
            }
            (_, None) => {
                let token = Token { log: epoch, topics: Seq(number % 30), inbox: (epoch, Offset(number % 20)) };
                Given::Position(EventId::Several(token))
            }
        };
        let request = EventsRequest {
            user: Some("ann".into()),
            device: DEVICES[device].into(),
            filters,
            qos: draw.pick(&[Qos::AtLeastOnce, Qos::AtLeastOnce, Qos::AtMostOnce]),
            raw: draw.flag(),
            given,
            page: draw.flag().then(|| "https://app.example".into()),
            poll: None,
            token: None,
            rights: None,
        };
        let limits = (WINDOW, usize::MAX);
        self.open(device, Speech::Events, limits, Request::Sse(Box::new(request)), draw);
    }

    fn open(
        &mut self,
        device: usize,
        speech: Speech,
        (window, bytes_max): (usize, usize),
        request: Request,
        draw: &mut Draw<'_>,
    ) {
        if let Some(old) = self.session_of(device)
            && self.directory.get(old).is_some_and(|session| session.connection().is_some())
        {
            let seq = self.seq;
            let request = request.clone();
            self.call(old, |session, now, effects| protocol::take_over(session, &request, now, seq, effects));
        }
        self.connections += 1;
        let connection = ConnectionId { index: self.connections, generation: 1 };
        self.links[device] = Some(Link::new(connection, speech, window, bytes_max));
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
        let opened = protocol::open(&mut self.directory, &identity, request, connection, at, &mut effects);
        if let Some(before) = before.filter(|before| Some(*before) != opened) {
            // Replaced without an end of its own.
            self.forget(before);
        }
        self.carry_out(opened, Some(connection), &mut effects);
        if let Some(before) = before.filter(|before| Some(*before) != opened) {
            self.shelf.assert_returned(before);
        }
    }

    /// The device's connection is gone.
    pub fn lose(&mut self, device: usize) {
        let Some(link) = self.links[device].take() else { return };
        let Some(id) = self.session_of(device) else { return };
        if self.directory.get(id).and_then(Session::connection) == Some(link.connection) {
            let seq = self.seq;
            self.call(id, |session, now, effects| session.on_connection_closed(Close::Lost, now, seq, effects));
        }
    }

    pub fn server_closes(&mut self, device: usize, draw: &mut Draw<'_>) {
        let Some(id) = self.session_of(device) else { return };
        if self.links[device].is_some() && self.directory.get(id).is_some_and(|session| session.connection().is_some())
        {
            let why = draw.pick(&CloseReason::ALL);
            let reference = draw.flag().then_some("other.example");
            self.call(id, |session, _, effects| protocol::disconnect(session, why, reference, effects));
        }
    }
}
