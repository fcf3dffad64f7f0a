//! What clients say, and what does not reach them.

use super::super::draw::Draw;
use super::link::{Held, Speech};
use super::{FILTERS, TOPICS, World};
use kittiwake::base::ids::Qos;
use kittiwake::session::mqtt;
use kittiwake::session::{Counter, DeliveryId, Session, protocol};
use kittiwake::wire::mqtt::properties::{SubscriptionId, TopicAlias};
use kittiwake::wire::mqtt::{
    Ack, AckKind, Disconnect, Encode, Filter, FilterNames, Filters, FrameLen, PacketId, PingReq, Publish, Reason,
    RetainHandling, Subscribe, Unsubscribe, Version, frame_len,
};
use std::num::NonZeroU16;

/// What a device asks, well and badly.
const QUESTIONS: [&[u8]; 4] =
    [br#"{"inbox":true}"#, br#"{"topic":"a","after":1,"limit":9}"#, br#"{"topic":"$SYS/x"}"#, b"{"];

impl World {
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

    pub fn client_sends(&mut self, device: usize, draw: &mut Draw<'_>) {
        let Some(Speech::Mqtt(version)) = self.links[device].as_ref().map(|link| link.speech) else { return };
        let mut bytes = Vec::new();
        let packet_id = PacketId::new(u16::from(draw.byte() % 5) + 1).expect("above 0");
        match draw.below(10) {
            0..=3 => {
                let qos = draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
                let mut publish = Publish {
                    dup: qos > Qos::AtMostOnce && draw.flag(),
                    qos,
                    retain: draw.below(4) == 0,
                    topic: draw.pick(&TOPICS),
                    packet_id: (qos > Qos::AtMostOnce).then_some(packet_id),
                    properties: Default::default(),
                    payload: draw.bytes(3),
                };
                if version == Version::V5 && draw.flag() {
                    publish.properties.topic_alias = NonZeroU16::new(u16::from(draw.byte() % 18)).map(TopicAlias);
                    publish.properties.payload_is_utf8 = Some(draw.flag());
                    publish.properties.message_expiry_seconds = Some(u32::from(draw.byte()));
                    if draw.below(4) == 0 {
                        publish.topic = draw.pick(&["$api/history", "$api/presence"]);
                        publish.payload = draw.pick(&QUESTIONS);
                        publish.properties = Default::default();
                        publish.properties.response_topic = Some(draw.pick(&["a", "b", "$inbox/a"]));
                    }
                }
                publish.encode_to(version, &mut bytes);
            }
            4 | 5 => {
                let one = |draw: &mut Draw<'_>| Filter {
                    no_local: version == Version::V5 && draw.below(4) == 0,
                    retain_as_published: version == Version::V5 && draw.flag(),
                    retain_handling: if version == Version::V5 {
                        draw.pick(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend])
                    } else {
                        RetainHandling::Send
                    },
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

    /// Answers a delivery the client holds, rightly or with a refusal. To an event stream's, the socket takes it.
    pub fn client_acknowledges(&mut self, device: usize, draw: &mut Draw<'_>) {
        let Some(link) = self.links[device].as_ref() else { return };
        let Speech::Mqtt(version) = link.speech else { return self.hand_over(device) };
        let Some((&id, &Held { qos, .. })) = link.held.iter().nth(draw.below(link.held.len().max(1))) else { return };
        let kind = match qos {
            Qos::ExactlyOnce => draw.pick(&[AckKind::PubRec, AckKind::PubComp]),
            _ => AckKind::PubAck,
        };
        let reason = if version == Version::V5 && draw.below(5) == 0 && kind != AckKind::PubComp {
            Reason::Unspecified
        } else {
            Reason::Success
        };
        let mut bytes = Vec::new();
        let packet_id = PacketId::new(id).expect("deliveries have one");
        Ack { reason, ..Ack::success(kind, packet_id) }.encode_to(version, &mut bytes);
        self.frames(device, &bytes);
    }

    /// Rightly, until it holds nothing.
    pub fn client_settles_all(&mut self, device: usize) {
        while let Some(link) = self.links[device].as_ref().filter(|link| link.is_open() && !link.is_paused) {
            let Speech::Mqtt(version) = link.speech else {
                if link.unsent.is_empty() {
                    return;
                }
                self.hand_over(device);
                continue;
            };
            // What is being released is the server's turn.
            let waits = |held: &Held| held.qos == Qos::ExactlyOnce && held.is_received && !held.is_released;
            let Some((&id, held)) = link.held.iter().find(|(_, held)| !waits(held)) else { return };
            let kind = match held.qos {
                Qos::ExactlyOnce if held.is_released => AckKind::PubComp,
                Qos::ExactlyOnce => AckKind::PubRec,
                _ => AckKind::PubAck,
            };
            let mut bytes = Vec::new();
            Ack::success(kind, PacketId::new(id).expect("deliveries have one")).encode_to(version, &mut bytes);
            let before = link.held.len();
            self.frames(device, &bytes);
            let after = self.links[device].as_ref().map_or(0, |link| link.held.len());
            if kind != AckKind::PubRec && after == before {
                // Paused, or its room is taken by the next.
                return;
            }
        }
    }

    /// The socket takes the first delivery that waits for it.
    fn hand_over(&mut self, device: usize) {
        let (Some(id), Some(link)) = (self.session_of(device), self.links[device].as_mut()) else { return };
        if !link.is_open() {
            return;
        }
        let Some(delivery) = link.unsent.pop_front() else { return };
        link.held.remove(&delivery.0);
        let position = self.seq;
        let session = self.directory.get_mut(id).expect("it was just found");
        session.stand_at(position);
        let at = session.in_flight(delivery).expect("it waits in the window").at;
        let told = session.standing(Some(delivery));
        at.into_iter().for_each(|at| link.owed.settle(at));
        self.call(id, |session, _, effects| session.handed_over(delivery, effects));
        let session = self.directory.get(id).expect("it goes on");
        let now = session.standing(None);
        assert!(told.inbox.1 <= now.inbox.1 && told.topics <= now.topics, "what it told is so");
    }

    /// The shard could not send what it was handed.
    pub fn give_up_a_delivery(&mut self, device: usize, draw: &mut Draw<'_>) {
        let (Some(id), Some(link)) = (self.session_of(device), self.links[device].as_mut()) else { return };
        let once: Vec<u16> =
            link.held.iter().filter(|(_, held)| held.qos == Qos::AtLeastOnce).map(|(&id, _)| id).collect();
        // An event stream's wait in their order.
        let once = if link.is_events() { link.unsent.front().map(|first| first.0).into_iter().collect() } else { once };
        if once.is_empty() || !link.is_greeted || link.is_closing {
            return;
        }
        let delivery = once[draw.below(once.len())];
        link.held.remove(&delivery);
        link.unsent.pop_front();
        let session = self.directory.get(id).expect("it was just found");
        let at = session.in_flight(DeliveryId(delivery)).and_then(|flight| flight.at);
        at.into_iter().for_each(|at| link.owed.settle(at));
        let why = draw.pick(&[Counter::DroppedExpired, Counter::DroppedTooLarge]);
        self.call(id, |session, _, effects| protocol::settle_unsent(session, DeliveryId(delivery), why, effects));
    }
}
