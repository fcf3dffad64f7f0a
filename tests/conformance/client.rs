//! A client whose every byte is the test's: it sends what it is told and shows what it got.

#[path = "client/got.rs"]
mod got;
#[path = "client/secure.rs"]
mod secure;
#[path = "client/wire.rs"]
mod wire;

pub use got::{Arrived, Got, Welcome};
pub use secure::ends;

use crate::node::Node;
use crate::websocket::{self, WebSocket};
use core::num::{NonZeroU16, NonZeroU32};
use kittiwake::base::ids::Qos;
use kittiwake::io::sim::{Peer, PeerState};
use kittiwake::wire::mqtt::properties::{AckProperties, PublishProperties, SubscriptionId, TopicAlias};
use kittiwake::wire::mqtt::{
    Ack, AckKind, Connect, Disconnect, Encode, Filter, FilterNames, Filters, FrameLen, Packet, PacketId, PingReq,
    Publish, Reason, Subscribe, Unsubscribe, Version, Will, decode, frame_len,
};
use kittiwake::wire::websocket::Opcode;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use wire::Wire;

/// A CONNECT under construction.
#[derive(Clone, Copy)]
pub struct Hello<'a>(pub Connect<'a>);

impl<'a> Hello<'a> {
    /// MQTT 5: clean start, no expiry.
    pub fn v5(name: &'a str) -> Self {
        Self(Connect::new(Version::V5, name))
    }

    /// MQTT 3.1.1 with a clean session.
    pub fn v3(name: &'a str) -> Self {
        Self(Connect::new(Version::V311, name))
    }

    /// MQTT 5 with a session that lasts an hour and is resumed.
    pub fn lasting(name: &'a str) -> Self {
        Self::v5(name).clean(false).expiry(3_600)
    }

    pub fn user(mut self, user: &'a str) -> Self {
        self.0.user_name = Some(user);
        self
    }

    /// In 3.1.1 there is no password without a user name.
    pub fn token(mut self, token: &'a str) -> Self {
        self.0.password = Some(token.as_bytes());
        if self.0.version == Version::V311 {
            self.0.user_name = Some("nobody");
        }
        self
    }

    /// Shown by our authentication method.
    pub fn method(mut self, token: &'a str) -> Self {
        self.0.properties.authentication_method = Some("jwt");
        self.0.properties.authentication_data = Some(token.as_bytes());
        self
    }

    pub fn clean(mut self, clean: bool) -> Self {
        self.0.clean_start = clean;
        self
    }

    pub fn expiry(mut self, seconds: u32) -> Self {
        self.0.properties.session_expiry_seconds = Some(seconds);
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.0.keep_alive_seconds = seconds;
        self
    }

    pub fn receive_maximum(mut self, messages: u16) -> Self {
        self.0.properties.receive_maximum = NonZeroU16::new(messages);
        self
    }

    pub fn packet_bytes(mut self, bytes: u32) -> Self {
        self.0.properties.maximum_packet_bytes = NonZeroU32::new(bytes);
        self
    }

    pub fn alias_maximum(mut self, aliases: u16) -> Self {
        self.0.properties.topic_alias_maximum = Some(aliases);
        self
    }

    /// Whether it wants to be told what was wrong.
    pub fn problems(mut self, wanted: bool) -> Self {
        self.0.properties.request_problem_information = Some(wanted);
        self
    }

    pub fn responses(mut self, wanted: bool) -> Self {
        self.0.properties.request_response_information = Some(wanted);
        self
    }

    pub fn will(mut self, will: Will<'a>) -> Self {
        self.0.will = Some(will);
        self
    }

    pub fn frame(&self) -> Vec<u8> {
        encoded(self.0.version, &self.0)
    }
}

/// A plain will.
pub fn will<'a>(topic: &'a str, payload: &'a [u8], qos: Qos) -> Will<'a> {
    Will { topic, payload, qos, retain: false, properties: Default::default() }
}

/// A frame.
pub fn encoded(version: Version, packet: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode_to(version, &mut bytes);
    bytes
}

/// A publish under construction.
pub fn publish<'a>(topic: &'a str, payload: &'a [u8], qos: Qos, id: u16) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload,
    }
}

/// The same by an alias.
pub fn with_alias<'a>(mut publish: Publish<'a>, alias: u16) -> Publish<'a> {
    publish.properties.topic_alias = NonZeroU16::new(alias).map(TopicAlias);
    publish
}

/// A connection and what came over it.
pub struct Client {
    node: Node,
    peer: Wire,
    version: Version,
    unread: Vec<u8>,
    /// Its packets come and go inside of one.
    websocket: Option<WebSocket>,
    /// Messages that came before the SUBACK they were not to wait for (§3.8.4).
    early: VecDeque<Got>,
    next_id: u16,
    /// What the server's aliases stand for.
    aliases: BTreeMap<u16, String>,
    last: Vec<u8>,
    longest: usize,
}

impl Client {
    pub fn dial(node: &Node) -> Self {
        Self::met(node, Peer::connect(node.net(), node.address()))
    }

    /// From that address.
    pub fn dial_from(node: &Node, from: IpAddr) -> Self {
        Self::met(node, Peer::connect_from(node.net(), SocketAddr::new(from, 0), node.address()))
    }

    fn met(node: &Node, peer: Peer) -> Self {
        node.run();
        let wire = Wire::plain(peer);
        Self::over(node, if node.secures_all() { wire.secure(node, &ends().1) } else { wire })
    }

    fn over(node: &Node, peer: Wire) -> Self {
        Self {
            node: node.clone(),
            peer,
            version: Version::V5,
            unread: Vec::new(),
            websocket: None,
            early: VecDeque::new(),
            next_id: 0,
            aliases: BTreeMap::new(),
            last: Vec::new(),
            longest: 0,
        }
    }

    /// Sends a CONNECT and remembers its version.
    pub fn hello(&mut self, hello: &Hello<'_>) {
        self.version = hello.0.version;
        self.send(&hello.frame());
    }

    /// From here on replies are read as this version's.
    pub fn speak(&mut self, version: Version) {
        self.version = version;
    }

    /// A WebSocket, agreed upon: packets that are sent become a binary message each.
    pub fn dial_websocket(node: &Node) -> Self {
        Self::dial_websocket_at(node, "/mqtt", &[])
    }

    /// The same, where messages may be packed as it offers; what the server answers to that is checked.
    pub fn dial_packing(node: &Node, offer: &str, answer: &str) -> Self {
        let mut client = Self::dial(node);
        client.send(websocket::request("/mqtt", &[("Sec-WebSocket-Extensions", offer)]).as_bytes());
        let said = String::from_utf8(client.take_bytes()).expect("an answer is text");
        websocket::assert_accepted(&said);
        let wanted = format!("Sec-WebSocket-Extensions: {answer}");
        assert!(said.split("\r\n").any(|line| line == wanted), "no {wanted} in {said}");
        client.websocket = Some(WebSocket::packing());
        client
    }

    /// The same, by another request.
    pub fn dial_websocket_at(node: &Node, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut client = Self::dial(node);
        client.send(websocket::request(target, headers).as_bytes());
        let answer = String::from_utf8(client.take_bytes()).expect("an answer is text");
        websocket::assert_accepted(&answer);
        client.websocket = Some(WebSocket::default());
        client
    }

    /// What its WebSocket was told beside packets.
    #[track_caller]
    pub fn websocket(&mut self) -> &mut WebSocket {
        self.websocket.as_mut().expect("it is one")
    }

    /// Sends all the bytes, unless the other side has gone; in one binary message, if it has a WebSocket.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.websocket.is_some() {
            self.send_raw(&websocket::frame(true, Opcode::Binary, bytes));
        } else {
            self.send_raw(bytes);
        }
    }

    /// As [`Client::send`], as they are.
    pub fn send_raw(&mut self, mut bytes: &[u8]) {
        for _ in 0..10_000 {
            match self.peer.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            self.node.run();
            if bytes.is_empty() && self.peer.is_flushed() {
                return;
            }
        }
        self.node.run();
    }

    /// Writes what there is room for and lets nobody run.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.peer.write(bytes).unwrap_or(0)
    }

    /// Sends a byte at a time, each received by itself.
    pub fn send_slowly(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(core::slice::from_ref(byte));
        }
    }

    pub fn send_packet(&mut self, packet: &impl Encode) {
        let frame = encoded(self.version, packet);
        self.send(&frame);
    }

    fn next_id(&mut self) -> PacketId {
        self.next_id += 1;
        PacketId::new(self.next_id).expect("tests use few")
    }

    /// Subscribes with one packet and expects each filter granted as asked.
    pub fn subscribe(&mut self, filters: &[(&str, Qos)]) {
        let filters: Vec<_> = filters.iter().map(|&(filter, qos)| Filter::new(filter, qos)).collect();
        self.subscribe_with(&filters, None);
    }

    /// As [`Client::subscribe`], with all options and a subscription identifier.
    pub fn subscribe_with(&mut self, filters: &[Filter<'_>], identifier: Option<u32>) {
        let id = self.start_subscribe(filters, identifier);
        let mut early = VecDeque::new();
        let answer = loop {
            match self.next() {
                Some(message @ Got::Publish(_)) => early.push_back(message),
                answer => break answer,
            }
        };
        assert_eq!(answer, Some(Got::SubAck(id, filters.iter().map(|filter| filter.qos as u8).collect())));
        self.early = early;
    }

    /// Sends a SUBSCRIBE and returns its packet identifier.
    pub fn start_subscribe(&mut self, filters: &[Filter<'_>], identifier: Option<u32>) -> u16 {
        let packet_id = self.next_id();
        let mut subscribe =
            Subscribe { packet_id, properties: Default::default(), filters: Filters::borrowed(filters) };
        subscribe.properties.subscription_id = identifier.and_then(SubscriptionId::new);
        self.send_packet(&subscribe);
        packet_id.get()
    }

    /// Writes a SUBSCRIBE and lets nobody run.
    pub fn write_subscribe(&mut self, filters: &[Filter<'_>]) {
        let (packet_id, filters) = (self.next_id(), Filters::borrowed(filters));
        let frame = encoded(self.version, &Subscribe { packet_id, properties: Default::default(), filters });
        assert_eq!(self.write(&frame), frame.len());
    }

    /// The first byte of what has come and was not looked at yet; lets nobody run.
    pub fn peek(&mut self) -> Option<u8> {
        let more = self.peer.read_all();
        self.unread.extend_from_slice(&more);
        self.unread.first().copied()
    }

    /// What has come and was not looked at yet, whatever it is; lets nobody run.
    pub fn take_arrived(&mut self) -> Vec<u8> {
        self.peek();
        core::mem::take(&mut self.unread)
    }

    /// All bytes that have come, whatever they are.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        loop {
            self.node.run();
            let more = self.peer.read_all();
            if more.is_empty() {
                return core::mem::take(&mut self.unread);
            }
            self.unread.extend_from_slice(&more);
        }
    }

    /// Sends an UNSUBSCRIBE and returns its packet identifier.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> u16 {
        let packet_id = self.next_id();
        let filters = FilterNames::borrowed(filters);
        self.send_packet(&Unsubscribe { packet_id, properties: Default::default(), filters });
        packet_id.get()
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: Qos, id: u16) {
        self.send_packet(&publish(topic, payload, qos, id));
    }

    pub fn ack(&mut self, kind: AckKind, id: u16) {
        self.send_packet(&Ack::success(kind, PacketId::new(id).expect("it is one")));
    }

    pub fn puback(&mut self, id: u16) {
        self.ack(AckKind::PubAck, id);
    }

    /// Says goodbye and closes.
    pub fn bye(mut self) {
        self.send_packet(&Disconnect::new(Reason::Success));
        let node = self.node.clone();
        drop(self);
        node.run();
    }

    /// Closes without a word.
    pub fn hang_up(self) {
        let node = self.node.clone();
        self.peer.close();
        node.run();
    }

    /// Ends its own stream and goes on reading.
    pub fn finish(&mut self) {
        self.peer.finish();
        self.node.run();
    }

    /// Breaks the connection.
    pub fn reset(self) {
        let node = self.node.clone();
        self.peer.reset();
        node.run();
    }

    /// Is gone without anybody being told.
    pub fn vanish(self) {
        self.peer.vanish();
    }

    /// The next packet, if it has come.
    pub fn next(&mut self) -> Option<Got> {
        self.node.run();
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        // Reading makes room for more, which may be waiting.
        loop {
            let more = self.peer.read_all();
            match &mut self.websocket {
                Some(websocket) => websocket.take(&more, &mut self.unread),
                None => self.unread.extend_from_slice(&more),
            }
            if more.is_empty() {
                break;
            }
            self.node.run();
        }
        let total = match frame_len(&self.unread, usize::MAX).expect("the server frames well") {
            FrameLen::Known { total_bytes, .. } if total_bytes <= self.unread.len() => total_bytes,
            _ => return None,
        };
        let frame: Vec<u8> = self.unread.drain(..total).collect();
        self.longest = self.longest.max(frame.len());
        let packet = decode(self.version, &frame)
            .unwrap_or_else(|error| panic!("the server encodes well, but {error:?} in {frame:02x?}"));
        let got = match &packet {
            Packet::Publish(publish) => Got::Publish(got::arrived(publish, &mut self.aliases)),
            other => got::got(other, &frame),
        };
        self.last = frame;
        Some(got)
    }

    /// The bytes of the packet that was looked at last.
    pub fn last_frame(&self) -> &[u8] {
        &self.last
    }

    /// Bytes of the longest packet so far.
    pub fn longest_frame(&self) -> usize {
        self.longest
    }

    /// What the last packet says for people, and how many user properties it has.
    #[track_caller]
    pub fn last_words(&self) -> (Option<&str>, usize) {
        let of_ack = |properties: &AckProperties<'_>| properties.user.iter().count();
        match decode(self.version, &self.last).expect("it was read before") {
            Packet::ConnAck(ack) => (ack.properties.reason_string, ack.properties.user.iter().count()),
            Packet::Ack(ack) => (ack.properties.reason_string, of_ack(&ack.properties)),
            Packet::SubAck(ack) => (ack.properties.reason_string, of_ack(&ack.properties)),
            Packet::UnsubAck(ack) => (ack.properties.reason_string, of_ack(&ack.properties)),
            Packet::Disconnect(goodbye) => (goodbye.properties.reason_string, goodbye.properties.user.iter().count()),
            other => panic!("{other:?} says nothing"),
        }
    }

    /// All packets that have come.
    pub fn all(&mut self) -> Vec<Got> {
        core::iter::from_fn(|| self.next()).collect()
    }

    #[track_caller]
    pub fn expect(&mut self, wanted: &Got) {
        assert_eq!(self.next().as_ref(), Some(wanted));
    }

    /// Nothing came, and the connection stands.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        assert_eq!(self.next(), None);
        assert_eq!(self.peer.state(), PeerState::Open);
    }

    #[track_caller]
    pub fn expect_connack(&mut self, code: u8) -> Welcome {
        match self.next() {
            Some(Got::ConnAck(welcome)) => {
                assert_eq!(welcome.code, code, "{welcome:?}");
                welcome
            }
            other => panic!("no CONNACK but {other:?}"),
        }
    }

    #[track_caller]
    pub fn expect_message(&mut self) -> Arrived {
        match self.next() {
            Some(Got::Publish(arrived)) => arrived,
            other => panic!("no message but {other:?}"),
        }
    }

    /// A message with that payload.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) -> Arrived {
        let arrived = self.expect_message();
        assert_eq!(arrived.text(), text);
        arrived
    }

    /// A message with that payload at QoS 1, which is acknowledged.
    #[track_caller]
    pub fn expect_and_ack(&mut self, text: &str) -> Arrived {
        let arrived = self.expect_text(text);
        assert_eq!(arrived.qos, Qos::AtLeastOnce);
        self.puback(arrived.id);
        arrived
    }

    /// All messages that have come; nothing else may have.
    #[track_caller]
    pub fn messages(&mut self) -> Vec<Arrived> {
        let is_message = |got| match got {
            Got::Publish(arrived) => arrived,
            other => panic!("no message but {other:?}"),
        };
        self.all().into_iter().map(is_message).collect()
    }

    /// All messages' payloads, each QoS 1 one acknowledged, until no more come.
    #[track_caller]
    pub fn drain(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(got) = self.next() {
            let Got::Publish(arrived) = got else { panic!("no message but {got:?}") };
            texts.push(arrived.text().to_owned());
            if arrived.qos == Qos::AtLeastOnce {
                self.puback(arrived.id);
            }
        }
        texts
    }

    /// The stream has ended, and nothing came before its end.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert_eq!(self.next(), None, "something was said before the end");
        assert!(self.is_closed(), "the connection is open");
    }

    /// DISCONNECT with that reason, then the end.
    #[track_caller]
    pub fn expect_goodbye(&mut self, code: u8) {
        self.expect(&Got::Disconnect(code));
        self.expect_closed();
    }

    pub fn is_closed(&mut self) -> bool {
        matches!(self.peer.state(), PeerState::Ended | PeerState::Dead)
    }

    #[track_caller]
    pub fn expect_pong(&mut self) {
        self.send_packet(&PingReq);
        self.expect(&Got::PingResp);
    }
}
