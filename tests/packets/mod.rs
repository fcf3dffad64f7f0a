//! Makes valid MQTT packets out of arbitrary bytes, so that proptest can shrink them.

use core::num::{NonZeroU16, NonZeroU32};
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::properties::*;
use kittiwake::wire::mqtt::suback::Reasons;
use kittiwake::wire::mqtt::*;

const TEXTS: [&str; 7] =
    ["", "a", "client-0001", "größe", "\u{2A6D4}", "\u{FEFF}x", "0123456789abcdef0123456789abcdef"];
const NAMES: [&str; 6] = ["a", "/", "a/b", "$SYS/x", "rooms/42/größe", "$share/g"];
const FILTERS: [&str; 8] = ["#", "+", "a/+/b", "a/#", "/", "rooms/42", "$SYS/#", "+/+"];
const SHARED: [&str; 3] = ["$share/g/#", "$share/consumer1/sport/+", "$share/g//"];
const BINARIES: [&[u8]; 5] = [b"", b"\0", b"hello", &[0xFF, 0xFE, 0x00], &[0x7B; 300]];

/// Draws from bytes; zeros when they are used up, so that every draw ends.
struct Draw<'e>(&'e [u8]);

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                byte
            }
            None => 0,
        }
    }
    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }
    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }
    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }
    fn id(&mut self) -> PacketId {
        PacketId::new(self.u16()).unwrap_or(PacketId::MIN)
    }
    fn nonzero_u16(&mut self) -> NonZeroU16 {
        self.id()
    }
    fn nonzero_u32(&mut self) -> NonZeroU32 {
        NonZeroU32::new(self.u32()).unwrap_or(NonZeroU32::MAX)
    }
    fn subscription_id(&mut self) -> SubscriptionId {
        SubscriptionId::new(self.u32() >> (4 + self.byte() % 28)).or(SubscriptionId::new(1)).expect("1 is one")
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }
    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| value(self))
    }
    fn list<T>(&mut self, least: u8, mut value: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..least + self.byte() % 4).map(|_| value(self)).collect()
    }
    fn text(&mut self) -> &'static str {
        self.pick(&TEXTS)
    }
    fn name(&mut self) -> &'static str {
        self.pick(&NAMES)
    }
    fn binary(&mut self) -> &'static [u8] {
        self.pick(&BINARIES)
    }
    fn pairs(&mut self) -> Vec<(&'static str, &'static str)> {
        self.list(0, |draw| (draw.text(), draw.text()))
    }
    fn qos(&mut self) -> Qos {
        self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
    }
}

/// Hands `check` a valid packet of `version` made of `entropy`.
pub fn with_packet<R>(version: Version, entropy: &[u8], check: impl FnOnce(Packet<'_>) -> R) -> R {
    let draw = &mut Draw(entropy);
    match draw.byte() % if version == Version::V5 { 12 } else { 11 } {
        0 => with_connect(version, draw, check),
        1 => with_connack(version, draw, check),
        2 | 3 => with_publish(version, draw, check),
        4 => with_ack(version, draw, check),
        5 => with_subscribe(version, draw, check),
        6 => with_suback(version, draw, check),
        7 => with_unsubscribe(version, draw, check),
        8 => with_unsuback(version, draw, check),
        9 => check(draw.pick(&[Packet::PingReq, Packet::PingResp])),
        10 => with_disconnect(version, draw, check),
        _ => with_auth(draw, check),
    }
}

fn with_connect<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let (pairs, will_pairs) = (draw.pairs(), draw.pairs());
    let mut connect = Connect::new(version, draw.text());
    connect.clean_start = draw.flag() || connect.client_id.is_empty();
    connect.keep_alive_seconds = draw.u16();
    connect.user_name = draw.maybe(Draw::text);
    connect.password = draw.maybe(Draw::binary);
    if version == Version::V311 && connect.user_name.is_none() {
        connect.password = None;
    }
    let mut will_properties = WillProperties::default();
    if version == Version::V5 {
        let authentication_method = draw.maybe(Draw::text);
        connect.properties = ConnectProperties {
            session_expiry_seconds: draw.maybe(Draw::u32),
            receive_maximum: draw.maybe(Draw::nonzero_u16),
            maximum_packet_bytes: draw.maybe(Draw::nonzero_u32),
            topic_alias_maximum: draw.maybe(Draw::u16),
            request_response_information: draw.maybe(Draw::flag),
            request_problem_information: draw.maybe(Draw::flag),
            authentication_method,
            authentication_data: authentication_method.map(|_| draw.binary()),
            user: UserProperties::borrowed(&pairs),
        };
        will_properties = WillProperties {
            delay_seconds: draw.maybe(Draw::u32),
            payload_is_utf8: draw.maybe(Draw::flag),
            message_expiry_seconds: draw.maybe(Draw::u32),
            content_type: draw.maybe(Draw::text),
            response_topic: draw.maybe(Draw::name),
            correlation_data: draw.maybe(Draw::binary),
            user: UserProperties::borrowed(&will_pairs),
        };
    }
    connect.will = draw.maybe(|draw| Will {
        topic: draw.name(),
        payload: draw.binary(),
        qos: draw.qos(),
        retain: draw.flag(),
        properties: will_properties,
    });
    check(Packet::Connect(connect))
}

fn with_connack<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    const REASONS: [Reason; 6] = [
        Reason::Success,
        Reason::UnsupportedProtocolVersion,
        Reason::ClientIdentifierNotValid,
        Reason::ServerUnavailable,
        Reason::BadUserNameOrPassword,
        Reason::NotAuthorized,
    ];
    let pairs = draw.pairs();
    let reason = draw.pick(&REASONS);
    let mut connack = ConnAck { session_present: reason == Reason::Success && draw.flag(), ..ConnAck::refused(reason) };
    if version == Version::V5 {
        connack.properties = ConnAckProperties {
            session_expiry_seconds: draw.maybe(Draw::u32),
            receive_maximum: draw.maybe(Draw::nonzero_u16),
            maximum_qos: draw.maybe(|draw| draw.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce])),
            retain_available: draw.maybe(Draw::flag),
            maximum_packet_bytes: draw.maybe(Draw::nonzero_u32),
            assigned_client_id: draw.maybe(Draw::text),
            topic_alias_maximum: draw.maybe(Draw::u16),
            reason_string: draw.maybe(Draw::text),
            wildcard_available: draw.maybe(Draw::flag),
            subscription_id_available: draw.maybe(Draw::flag),
            shared_available: draw.maybe(Draw::flag),
            server_keep_alive_seconds: draw.maybe(Draw::u16),
            response_information: draw.maybe(Draw::text),
            server_reference: draw.maybe(Draw::text),
            authentication_method: draw.maybe(Draw::text),
            authentication_data: draw.maybe(Draw::binary),
            user: UserProperties::borrowed(&pairs),
        };
    }
    check(Packet::ConnAck(connack))
}

fn with_publish<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let (pairs, ids) = (draw.pairs(), draw.list(0, Draw::subscription_id));
    let qos = draw.qos();
    let mut publish = Publish {
        dup: qos != Qos::AtMostOnce && draw.flag(),
        qos,
        retain: draw.flag(),
        topic: draw.name(),
        packet_id: (qos != Qos::AtMostOnce).then(|| draw.id()),
        properties: PublishProperties::default(),
        payload: draw.binary(),
    };
    if version == Version::V5 {
        publish.properties = PublishProperties {
            message_expiry_seconds: draw.maybe(Draw::u32),
            payload_is_utf8: draw.maybe(Draw::flag),
            topic_alias: draw.maybe(Draw::nonzero_u16).map(TopicAlias),
            response_topic: draw.maybe(Draw::name),
            correlation_data: draw.maybe(Draw::binary),
            content_type: draw.maybe(Draw::text),
            subscription_ids: SubscriptionIds::list(&ids),
            user: UserProperties::borrowed(&pairs),
        };
        if publish.properties.topic_alias.is_some() && draw.flag() {
            publish.topic = "";
        }
    }
    check(Packet::Publish(publish))
}

fn with_ack<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let pairs = draw.pairs();
    let kind = draw.pick(&[AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp]);
    let mut ack = Ack::success(kind, draw.id());
    if version == Version::V5 {
        ack.reason = match kind {
            AckKind::PubAck | AckKind::PubRec => {
                draw.pick(&[Reason::Success, Reason::NoMatchingSubscribers, Reason::QuotaExceeded])
            }
            AckKind::PubRel | AckKind::PubComp => draw.pick(&[Reason::Success, Reason::PacketIdentifierNotFound]),
        };
        ack.properties = ack_properties(draw, &pairs);
    }
    check(Packet::Ack(ack))
}

fn ack_properties<'a>(draw: &mut Draw<'_>, pairs: &'a [(&'a str, &'a str)]) -> AckProperties<'a> {
    AckProperties { reason_string: draw.maybe(Draw::text), user: UserProperties::borrowed(pairs) }
}

fn with_subscribe<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let pairs = draw.pairs();
    let filters = draw.list(1, |draw| {
        let shared = draw.flag();
        let mut filter = Filter::new(if shared { draw.pick(&SHARED) } else { draw.pick(&FILTERS) }, draw.qos());
        if version == Version::V5 {
            filter.no_local = !shared && draw.flag();
            filter.retain_as_published = draw.flag();
            filter.retain_handling =
                draw.pick(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]);
        }
        filter
    });
    let mut properties = SubscribeProperties::default();
    if version == Version::V5 {
        properties.subscription_id = draw.maybe(Draw::subscription_id);
        properties.user = UserProperties::borrowed(&pairs);
    }
    check(Packet::Subscribe(Subscribe { packet_id: draw.id(), properties, filters: Filters::borrowed(&filters) }))
}

fn with_suback<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    const REASONS: [Reason; 6] = [
        Reason::Success,
        Reason::GrantedQos1,
        Reason::GrantedQos2,
        Reason::Unspecified,
        Reason::TopicFilterInvalid,
        Reason::QuotaExceeded,
    ];
    let pairs = draw.pairs();
    let known = if version == Version::V5 { &REASONS[..] } else { &REASONS[..4] };
    let reasons = draw.list(1, |draw| draw.pick(known));
    let mut properties = AckProperties::default();
    if version == Version::V5 {
        properties = ack_properties(draw, &pairs);
    }
    check(Packet::SubAck(SubAck { packet_id: draw.id(), properties, reasons: Reasons::borrowed(&reasons) }))
}

fn with_unsubscribe<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let pairs = draw.pairs();
    let filters = draw.list(1, |draw| draw.pick(&FILTERS));
    let mut properties = UnsubscribeProperties::default();
    if version == Version::V5 {
        properties.user = UserProperties::borrowed(&pairs);
    }
    let filters = FilterNames::borrowed(&filters);
    check(Packet::Unsubscribe(Unsubscribe { packet_id: draw.id(), properties, filters }))
}

fn with_unsuback<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let pairs = draw.pairs();
    let reasons =
        draw.list(1, |draw| draw.pick(&[Reason::Success, Reason::NoSubscriptionExisted, Reason::NotAuthorized]));
    let mut unsuback =
        UnsubAck { packet_id: draw.id(), properties: AckProperties::default(), reasons: Reasons::default() };
    if version == Version::V5 {
        unsuback.properties = ack_properties(draw, &pairs);
        unsuback.reasons = Reasons::borrowed(&reasons);
    }
    check(Packet::UnsubAck(unsuback))
}

fn with_disconnect<R>(version: Version, draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let pairs = draw.pairs();
    let mut disconnect = Disconnect::new(Reason::Success);
    if version == Version::V5 {
        disconnect.reason =
            draw.pick(&[Reason::Success, Reason::DisconnectWithWill, Reason::SessionTakenOver, Reason::QuotaExceeded]);
        disconnect.properties = DisconnectProperties {
            session_expiry_seconds: draw.maybe(Draw::u32),
            reason_string: draw.maybe(Draw::text),
            server_reference: draw.maybe(Draw::text),
            user: UserProperties::borrowed(&pairs),
        };
    }
    check(Packet::Disconnect(disconnect))
}

fn with_auth<R>(draw: &mut Draw<'_>, check: impl FnOnce(Packet<'_>) -> R) -> R {
    let pairs = draw.pairs();
    let properties = AuthProperties {
        authentication_method: Some(draw.text()),
        authentication_data: draw.maybe(Draw::binary),
        reason_string: draw.maybe(Draw::text),
        user: UserProperties::borrowed(&pairs),
    };
    let reason = draw.pick(&[Reason::Success, Reason::ContinueAuthentication, Reason::ReAuthenticate]);
    check(Packet::Auth(Auth { reason, properties }))
}
