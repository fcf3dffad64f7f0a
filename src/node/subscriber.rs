//! The client side of one MQTT 5 conversation of `kittiwake sub`, without socket and clock: bytes in, bytes and
//! lines out.
//!
//! ```text
//!   Connecting ──CONNACK──► Subscribing ──SUBACK──► Open
//! ```

use crate::base::ids::Qos;
use crate::limits;
use crate::wire::mqtt::subscribe::{Filter, Filters, RetainHandling, Subscribe};
use crate::wire::mqtt::{
    self, Ack, AckKind, ConnAck, Connect, Encode, FrameLen, Packet, PacketId, Publish, Reason, SubAck, Version,
    frame_len,
};
use core::fmt::Write as _;
use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;
use std::collections::HashSet;

/// Whom to be and what to listen to.
pub(super) struct Wish {
    pub(super) user: Option<String>,
    pub(super) device: Option<String>,
    pub(super) token: Option<String>,
    pub(super) qos: Qos,
    pub(super) filters: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Subscribing,
    Open,
}

/// Why a conversation is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Trying again may help.
    Retry(String),
    /// It will not.
    GiveUp(String),
}

/// One conversation after the other, of the same device.
pub(super) struct Subscriber {
    wish: Wish,
    state: State,
    /// The server may have shortened it; zero is off.
    keep_alive: Duration,
    /// A PINGREQ is not answered yet.
    pinging: bool,
    /// QoS 2 messages printed and not yet released: they outlive a connection, as the session does.
    received: HashSet<PacketId>,
    intake: Vec<u8>,
    /// To send.
    pub(super) outgoing: Vec<u8>,
    /// To print, before `outgoing` is sent: what was acknowledged must not be lost.
    pub(super) lines: String,
}

const SUBSCRIBE_ID: PacketId = PacketId::MIN;
const PACKET_BYTES_MAX: NonZeroU32 = match NonZeroU32::new(limits::SUB_PACKET_BYTES_MAX) {
    Some(bytes) => bytes,
    None => panic!("the limit is above 0"),
};

impl Subscriber {
    pub(super) fn new(wish: Wish) -> Self {
        Self {
            wish,
            state: State::Connecting,
            keep_alive: limits::SUB_KEEP_ALIVE,
            pinging: false,
            received: HashSet::new(),
            intake: Vec::new(),
            outgoing: Vec::new(),
            lines: String::new(),
        }
    }

    /// A new connection is there: greets.
    pub(super) fn start(&mut self) {
        self.state = State::Connecting;
        self.keep_alive = limits::SUB_KEEP_ALIVE;
        self.pinging = false;
        self.intake.clear();
        self.outgoing.clear();
        let mut connect = Connect::new(Version::V5, self.wish.device.as_deref().unwrap_or_default());
        connect.keep_alive_seconds = u16::try_from(limits::SUB_KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX);
        connect.user_name = self.wish.user.as_deref();
        connect.password = self.wish.token.as_deref().map(str::as_bytes);
        connect.properties.receive_maximum = NonZeroU16::new(limits::RECEIVE_MAXIMUM_IN);
        connect.properties.maximum_packet_bytes = Some(PACKET_BYTES_MAX);
        if self.wish.device.is_some() {
            // Who has a name wants what arrives while it is away.
            connect.clean_start = false;
            connect.properties.session_expiry_seconds = u32::try_from(limits::SESSION_EXPIRY_MAX.as_secs()).ok();
        }
        connect.encode_to(Version::V5, &mut self.outgoing);
    }

    /// It has subscribed, so the connection was worth something.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// How long the socket may be silent before [`Subscriber::handle_silence`] is called.
    pub(super) fn patience(&self) -> Duration {
        match self.state {
            State::Connecting | State::Subscribing => limits::SUB_CONNECT_TIMEOUT,
            State::Open if self.keep_alive.is_zero() => limits::SUB_KEEP_ALIVE,
            // Half of it, so that the ping arrives in time.
            State::Open => self.keep_alive / 2,
        }
    }

    /// Nothing came for that long.
    pub(super) fn handle_silence(&mut self) -> Result<(), End> {
        if !self.is_open() {
            return Err(End::Retry("the server did not answer in time".to_owned()));
        }
        if self.pinging {
            return Err(End::Retry("the server did not answer a ping".to_owned()));
        }
        self.pinging = true;
        Packet::PingReq.encode_to(Version::V5, &mut self.outgoing);
        Ok(())
    }

    /// Takes bytes from the socket; whole packets among them are handled at once.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut intake = core::mem::take(&mut self.intake);
        intake.extend_from_slice(bytes);
        let mut from = 0;
        while let FrameLen::Known { total_bytes, .. } =
            frame_len(&intake[from..], limits::SUB_PACKET_BYTES_MAX as usize).map_err(broken)?
        {
            let Some(frame) = intake.get(from..from + total_bytes) else {
                break;
            };
            self.handle(mqtt::decode(Version::V5, frame).map_err(broken)?)?;
            from += total_bytes;
        }
        intake.drain(..from);
        self.intake = intake;
        Ok(())
    }

    fn handle(&mut self, packet: Packet<'_>) -> Result<(), End> {
        match (self.state, packet) {
            (State::Connecting, Packet::ConnAck(connack)) => self.on_connack(&connack),
            (State::Subscribing, Packet::SubAck(suback)) => self.on_suback(&suback),
            // A session that was there delivers before the SUBACK.
            (State::Subscribing | State::Open, Packet::Publish(publish)) => self.on_publish(&publish),
            (State::Subscribing | State::Open, Packet::Ack(Ack { kind: AckKind::PubRel, packet_id, .. })) => {
                self.received.remove(&packet_id);
                Ack::success(AckKind::PubComp, packet_id).encode_to(Version::V5, &mut self.outgoing);
                Ok(())
            }
            (_, Packet::PingResp) => {
                self.pinging = false;
                Ok(())
            }
            (_, Packet::Disconnect(disconnect)) => {
                let text =
                    explain("the server closed the connection", disconnect.reason, disconnect.properties.reason_string);
                // Two that take the same device over from each other would do so for ever.
                if disconnect.reason == Reason::SessionTakenOver {
                    Err(End::GiveUp(text))
                } else {
                    Err(End::Retry(text))
                }
            }
            (state, _) => Err(End::Retry(format!("the server sent a packet that does not belong here ({state:?})"))),
        }
    }

    fn on_connack(&mut self, connack: &ConnAck<'_>) -> Result<(), End> {
        if connack.reason.is_error() {
            let text = explain("the server refused the connection", connack.reason, connack.properties.reason_string);
            return Err(match connack.reason {
                Reason::ServerUnavailable
                | Reason::ServerBusy
                | Reason::ConnectionRateExceeded
                | Reason::Unspecified => End::Retry(text),
                _ => End::GiveUp(text),
            });
        }
        if !connack.session_present {
            self.received.clear();
        }
        if let Some(seconds) = connack.properties.server_keep_alive_seconds {
            self.keep_alive = Duration::from_secs(u64::from(seconds));
        }
        let filters: Vec<Filter<'_>> = self
            .wish
            .filters
            .iter()
            // On a reconnect retained messages have been printed before.
            .map(|filter| Filter { retain_handling: RetainHandling::SendIfNew, ..Filter::new(filter, self.wish.qos) })
            .collect();
        let filters = Filters::borrowed(&filters);
        Subscribe { packet_id: SUBSCRIBE_ID, properties: Default::default(), filters }
            .encode_to(Version::V5, &mut self.outgoing);
        self.state = State::Subscribing;
        Ok(())
    }

    fn on_suback(&mut self, suback: &SubAck<'_>) -> Result<(), End> {
        for (filter, reason) in self.wish.filters.iter().zip(suback.reasons.iter()) {
            if reason.is_error() {
                let what = format!("the server refused {filter}");
                return Err(End::GiveUp(explain(&what, reason, suback.properties.reason_string)));
            }
        }
        self.state = State::Open;
        Ok(())
    }

    fn on_publish(&mut self, publish: &Publish<'_>) -> Result<(), End> {
        match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(id)) => {
                self.print(publish);
                Ack::success(AckKind::PubAck, id).encode_to(Version::V5, &mut self.outgoing);
            }
            (Qos::ExactlyOnce, Some(id)) => {
                if !self.received.contains(&id) {
                    if self.received.len() >= usize::from(limits::RECEIVE_MAXIMUM_IN) {
                        return Err(End::Retry("the server exceeded the receive maximum".to_owned()));
                    }
                    self.received.insert(id);
                    self.print(publish);
                }
                Ack::success(AckKind::PubRec, id).encode_to(Version::V5, &mut self.outgoing);
            }
            _ => self.print(publish),
        }
        Ok(())
    }

    /// One line a message: what would break the line or hide from the eye is escaped.
    fn print(&mut self, publish: &Publish<'_>) {
        let lines = &mut self.lines;
        escape(publish.topic.as_bytes(), lines);
        lines.push(' ');
        escape(publish.payload, lines);
        lines.push('\n');
    }
}

fn escape(bytes: &[u8], into: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() {
                into.extend(char.escape_default());
            } else {
                into.push(char);
            }
        }
        for byte in chunk.invalid() {
            write!(into, "\\x{byte:02x}").expect("a String takes everything");
        }
    }
}

fn broken(error: mqtt::DecodeError) -> End {
    End::Retry(format!("the server sent something else than MQTT: {error}"))
}

/// Reason strings are the server's; they must not break our line.
fn explain(what: &str, reason: Reason, string: Option<&str>) -> String {
    let mut text = format!("{what}: {reason:?} (0x{:02x})", reason.code());
    if let Some(string) = string {
        text.push_str(", ");
        escape(string.as_bytes(), &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mqtt::suback::Reasons;

    fn subscriber(device: Option<&str>) -> Subscriber {
        let filters = vec!["$inbox/#".to_owned()];
        let device = device.map(str::to_owned);
        let user = Some("alice".to_owned());
        let mut subscriber = Subscriber::new(Wish { user, device, token: None, qos: Qos::ExactlyOnce, filters });
        subscriber.start();
        subscriber
    }

    fn bytes(packet: impl Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet.encode_to(Version::V5, &mut bytes);
        bytes
    }

    fn connack(session_present: bool) -> Vec<u8> {
        bytes(ConnAck { session_present, reason: Reason::Success, properties: Default::default() })
    }

    fn suback(reason: Reason) -> Vec<u8> {
        let reasons = [reason];
        bytes(SubAck { packet_id: SUBSCRIBE_ID, properties: Default::default(), reasons: Reasons::borrowed(&reasons) })
    }

    fn publish(qos: Qos, id: u16, payload: &[u8]) -> Vec<u8> {
        let packet_id = PacketId::new(id);
        let properties = Default::default();
        bytes(Publish { dup: false, qos, retain: false, topic: "$inbox/push", packet_id, properties, payload })
    }

    fn open(device: Option<&str>) -> Subscriber {
        let mut subscriber = subscriber(device);
        subscriber.handle_bytes(&connack(false)).expect("accepted");
        subscriber.handle_bytes(&suback(Reason::GrantedQos2)).expect("granted");
        assert!(subscriber.is_open());
        subscriber.outgoing.clear();
        subscriber
    }

    #[test]
    fn it_connects_as_the_user_and_subscribes_after_connack() {
        let mut subscriber = subscriber(Some("phone"));
        let Ok(Packet::Connect(connect)) = mqtt::decode(Version::V5, &subscriber.outgoing) else {
            panic!("a CONNECT comes first");
        };
        assert_eq!((connect.user_name, connect.client_id, connect.clean_start), (Some("alice"), "phone", false));
        assert!(connect.properties.session_expiry_seconds.is_some());
        subscriber.outgoing.clear();
        subscriber.handle_bytes(&connack(false)).expect("accepted");
        let Ok(Packet::Subscribe(subscribe)) = mqtt::decode(Version::V5, &subscriber.outgoing) else {
            panic!("then a SUBSCRIBE");
        };
        let filters: Vec<_> = subscribe.filters.iter().map(|filter| (filter.filter, filter.qos)).collect();
        assert_eq!(filters, [("$inbox/#", Qos::ExactlyOnce)]);
    }

    #[test]
    fn without_a_device_nothing_outlives_the_connection() {
        let subscriber = subscriber(None);
        let Ok(Packet::Connect(connect)) = mqtt::decode(Version::V5, &subscriber.outgoing) else {
            panic!("a CONNECT comes first");
        };
        assert_eq!((connect.client_id, connect.clean_start), ("", true));
        assert_eq!(connect.properties.session_expiry_seconds, None);
    }

    #[test]
    fn messages_are_one_escaped_line_each_however_the_bytes_arrive() {
        let mut subscriber = open(None);
        let mut stream = publish(Qos::AtMostOnce, 0, b"hello");
        stream.extend(publish(Qos::AtLeastOnce, 7, "gr\u{fc}n\nrot\u{1b}".as_bytes()));
        stream.extend(publish(Qos::AtMostOnce, 0, &[0xff, b'a']));
        for byte in stream {
            subscriber.handle_bytes(&[byte]).expect("valid");
        }
        assert_eq!(subscriber.lines, "$inbox/push hello\n$inbox/push grün\\nrot\\u{1b}\n$inbox/push \\xffa\n");
        let id = PacketId::new(7).expect("not 0");
        assert_eq!(subscriber.outgoing, bytes(Ack::success(AckKind::PubAck, id)));
    }

    #[test]
    fn qos2_is_printed_once_until_it_is_released_also_across_a_reconnect() {
        let mut subscriber = open(Some("phone"));
        let message = publish(Qos::ExactlyOnce, 3, b"x");
        subscriber.handle_bytes(&message).expect("valid");
        subscriber.start();
        subscriber.handle_bytes(&connack(true)).expect("accepted");
        subscriber.handle_bytes(&message).expect("valid");
        assert_eq!(subscriber.lines, "$inbox/push x\n");
        let id = PacketId::new(3).expect("not 0");
        subscriber.outgoing.clear();
        subscriber.handle_bytes(&bytes(Ack::success(AckKind::PubRel, id))).expect("valid");
        assert_eq!(subscriber.outgoing, bytes(Ack::success(AckKind::PubComp, id)));
        subscriber.handle_bytes(&message).expect("a new message under the old identifier");
        assert_eq!(subscriber.lines, "$inbox/push x\n$inbox/push x\n");
    }

    #[test]
    fn qos2_identifiers_are_forgotten_with_the_session() {
        let mut subscriber = open(Some("phone"));
        subscriber.handle_bytes(&publish(Qos::ExactlyOnce, 3, b"x")).expect("valid");
        subscriber.start();
        subscriber.handle_bytes(&connack(false)).expect("accepted");
        subscriber.handle_bytes(&publish(Qos::ExactlyOnce, 3, b"y")).expect("valid");
        assert_eq!(subscriber.lines, "$inbox/push x\n$inbox/push y\n");
    }

    #[test]
    fn silence_is_a_ping_and_then_the_end() {
        let mut subscriber = open(None);
        subscriber.handle_silence().expect("first");
        assert_eq!(subscriber.outgoing, bytes(Packet::PingReq));
        subscriber.handle_bytes(&bytes(Packet::PingResp)).expect("valid");
        subscriber.handle_silence().expect("answered in between");
        assert!(matches!(subscriber.handle_silence(), Err(End::Retry(_))));
    }

    #[test]
    fn a_refusal_that_lasts_is_given_up_and_one_that_passes_is_not() {
        let refuse = |reason| subscriber(None).handle_bytes(&bytes(ConnAck::refused(reason)));
        assert!(matches!(refuse(Reason::NotAuthorized), Err(End::GiveUp(_))));
        assert!(matches!(refuse(Reason::ServerBusy), Err(End::Retry(_))));
        let mut subscriber = subscriber(None);
        subscriber.handle_bytes(&connack(false)).expect("accepted");
        let refused = subscriber.handle_bytes(&suback(Reason::NotAuthorized));
        assert_eq!(refused, Err(End::GiveUp("the server refused $inbox/#: NotAuthorized (0x87)".to_owned())));
        let taken = bytes(mqtt::Disconnect::new(Reason::SessionTakenOver));
        assert!(matches!(open(None).handle_bytes(&taken), Err(End::GiveUp(_))));
    }
}
