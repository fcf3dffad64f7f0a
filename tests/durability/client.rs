//! A device on a real socket that keeps its session's state over connections, as a good client does.

use crate::gateway::{PATIENCE, Place};
use crate::ledger::Ledger;
use crate::random::Random;
use kittiwake::base::ids::Qos;
use kittiwake::wire::mqtt::subscribe::{Filter, Filters, Subscribe};
use kittiwake::wire::mqtt::{
    Ack, AckKind, Connect, Encode, FrameLen, Packet, PacketId, Publish, Reason, Version, decode, frame_len,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const VERSION: Version = Version::V5;
/// How long a silent socket is waited for before what was held back is acknowledged.
const QUIET: Duration = Duration::from_millis(20);
/// Publishes a device has under way.
const PUBLISHES_MAX: usize = 4;
const PACKET_BYTES_MAX: usize = 1 << 20;

/// What a device does.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    pub filters: Vec<(String, Qos)>,
    /// Topic to which it publishes at QoS 2.
    pub publishes_to: Option<String>,
    /// It leaves now and then.
    pub comes_and_goes: bool,
    /// It acknowledges late, several at once.
    pub is_slow: bool,
}

#[derive(Clone, Debug)]
struct Outgoing {
    payload: String,
    is_received: bool,
}

/// See the module.
pub struct Client {
    pub user: String,
    pub device: String,
    pub place: Place,
    pub ledger: Arc<Ledger>,
    pub habits: Habits,
    pub random: Random,
    /// The server has a session of it.
    known: bool,
    is_ready: bool,
    /// QoS 2 identifiers received and not released.
    received: BTreeSet<u16>,
    /// Publishes not complete, by identifier, in the order of their publishing.
    outgoing: BTreeMap<u16, Outgoing>,
    published: u64,
    held: Vec<u8>,
}

struct Link {
    stream: TcpStream,
    intake: Vec<u8>,
}

impl Link {
    fn send(&mut self, packet: impl Encode) -> io::Result<()> {
        let mut bytes = Vec::new();
        packet.encode_to(VERSION, &mut bytes);
        self.stream.write_all(&bytes)
    }

    /// The next frame; none when nothing came for a while.
    fn frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let FrameLen::Known { total_bytes, .. } =
                frame_len(&self.intake, PACKET_BYTES_MAX).expect("the gateway speaks MQTT")
                && self.intake.len() >= total_bytes
            {
                return Ok(Some(self.intake.drain(..total_bytes).collect()));
            }
            let mut bytes = [0; 4_096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.intake.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Client {
    pub fn new(name: &str, place: &Place, ledger: &Arc<Ledger>, habits: Habits, random: Random) -> Self {
        let (user, device) = name.split_once('/').expect("user/device");
        Self {
            user: user.to_owned(),
            device: device.to_owned(),
            place: place.clone(),
            ledger: Arc::clone(ledger),
            habits,
            random,
            known: false,
            is_ready: false,
            received: BTreeSet::new(),
            outgoing: BTreeMap::new(),
            published: 0,
            held: Vec::new(),
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.user, self.device)
    }

    /// Lives until clients are to stop.
    pub fn run(mut self) {
        let mut broken_generation = 0;
        while let Some(generation) = self.ledger.next_generation(broken_generation) {
            // An error is the process's death, and the next connection is to the next process. A connection that this
            // side has ended goes on with the same one.
            broken_generation = if self.connection().is_err() { generation } else { generation - 1 };
        }
    }

    /// One connection, up to its end: an error when the other side ended it.
    fn connection(&mut self) -> io::Result<()> {
        let stream = TcpStream::connect(self.place.edge)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut link = Link { stream, intake: Vec::new() };
        self.greet(&mut link)?;
        link.stream.set_read_timeout(Some(QUIET))?;
        let away_after = if self.habits.comes_and_goes { self.random.below(60) } else { u64::MAX };
        let mut packets = 0;
        loop {
            if self.ledger.lock().clients_stop {
                return Ok(());
            }
            if packets >= away_after && self.is_ready {
                return self.go_away(&mut link);
            }
            self.publish_more(&mut link)?;
            match link.frame()? {
                Some(frame) => {
                    packets += 1;
                    self.handle(&frame, &mut link)?;
                    if self.habits.is_slow && self.random.below(4) > 0 {
                        continue;
                    }
                }
                None => packets += 1,
            }
            link.stream.write_all(&core::mem::take(&mut self.held))?;
        }
    }

    fn greet(&mut self, link: &mut Link) -> io::Result<()> {
        self.held.clear();
        let mut connect = Connect::new(VERSION, &self.device);
        connect.clean_start = false;
        connect.user_name = Some(&self.user);
        connect.properties.session_expiry_seconds = Some(3_600);
        link.send(connect)?;
        let frame = link.frame()?.ok_or(ErrorKind::TimedOut)?;
        let Ok(Packet::ConnAck(connack)) = decode(VERSION, &frame) else { panic!("no CONNACK: {frame:?}") };
        if connack.reason == Reason::ServerUnavailable {
            // It came when the process had begun to end; the next one takes it in.
            return Err(ErrorKind::ConnectionRefused.into());
        }
        assert_eq!(connack.reason, Reason::Success, "{}", self.name());
        if self.known {
            assert!(connack.session_present, "{}: its session is lost", self.name());
            self.ledger.tell(|facts| facts.sessions_resumed += 1);
        }
        self.known = true;
        if !self.is_ready && !self.habits.filters.is_empty() {
            let filters: Vec<Filter<'_>> =
                self.habits.filters.iter().map(|(filter, qos)| Filter::new(filter, *qos)).collect();
            let filters = Filters::borrowed(&filters);
            link.send(Subscribe { packet_id: PacketId::MIN, properties: Default::default(), filters })?;
        } else if !self.is_ready {
            self.ready();
        }
        self.resend(link)
    }

    fn ready(&mut self) {
        self.is_ready = true;
        self.ledger.tell(|facts| facts.ready += 1);
    }

    /// What was under way, in the order of its publishing.
    fn resend(&mut self, link: &mut Link) -> io::Result<()> {
        let outgoing = self.outgoing.clone();
        for (id, Outgoing { payload, is_received }) in outgoing {
            let packet_id = PacketId::new(id).expect("identifiers count from 1");
            if is_received {
                link.send(Ack::success(AckKind::PubRel, packet_id))?;
            } else {
                self.send_publish(link, packet_id, &payload, true)?;
            }
        }
        Ok(())
    }

    fn send_publish(&self, link: &mut Link, packet_id: PacketId, payload: &str, dup: bool) -> io::Result<()> {
        let topic = self.habits.publishes_to.as_deref().expect("it publishes");
        let (qos, properties) = (Qos::ExactlyOnce, Default::default());
        let packet_id = Some(packet_id);
        link.send(Publish { dup, qos, retain: false, topic, packet_id, properties, payload: payload.as_bytes() })
    }

    fn publish_more(&mut self, link: &mut Link) -> io::Result<()> {
        let Some(topic) = self.habits.publishes_to.clone() else { return Ok(()) };
        // Before all subscriptions stand nobody is owed a publish.
        let is_time = { self.ledger.lock().is_time_to_publish() };
        if !is_time || self.outgoing.len() >= PUBLISHES_MAX {
            return Ok(());
        }
        self.published += 1;
        let payload = format!("{topic} {}", self.published);
        // Identifiers only rise in a run, so that their order is that of publishing.
        let id = u16::try_from(self.published).expect("a run publishes less");
        self.outgoing.insert(id, Outgoing { payload: payload.clone(), is_received: false });
        self.send_publish(link, PacketId::new(id).expect("it counts from 1"), &payload, false)
    }

    fn go_away(&mut self, link: &mut Link) -> io::Result<()> {
        // In half of the cases without a word.
        if self.random.below(2) == 0 {
            link.stream.write_all(&[0xe0, 0])?;
        }
        let until = self.ledger.lock().progress + self.random.below(40);
        self.ledger.wait_for(QUIET * 10, |facts| facts.clients_stop || facts.progress >= until);
        Ok(())
    }

    fn handle(&mut self, frame: &[u8], link: &mut Link) -> io::Result<()> {
        match decode(VERSION, frame).expect("the gateway speaks MQTT") {
            Packet::Publish(publish) => self.on_publish(&publish),
            Packet::Ack(Ack { kind, packet_id, reason, .. }) => {
                // A release that was complete when the process died is answered so the second time (§4.3.3).
                let was_complete = kind == AckKind::PubComp && reason == Reason::PacketIdentifierNotFound;
                assert!(!reason.is_error() || was_complete, "{}: {kind:?} {reason:?}", self.name());
                self.on_ack(kind, packet_id, link)?;
            }
            Packet::SubAck(suback) => {
                assert!(suback.reasons.iter().all(|reason| !reason.is_error()), "{}", self.name());
                self.ready();
            }
            // It is on its way out; what comes next is the end.
            Packet::Disconnect(_) => return Err(ErrorKind::ConnectionReset.into()),
            other => panic!("{}: {other:?}", self.name()),
        }
        Ok(())
    }

    fn on_publish(&mut self, publish: &Publish<'_>) {
        let payload = String::from_utf8_lossy(publish.payload).into_owned();
        match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(id)) => {
                self.ledger.received(&self.name(), &payload);
                Ack::success(AckKind::PubAck, id).encode_to(VERSION, &mut self.held);
            }
            (Qos::ExactlyOnce, Some(id)) => {
                if self.received.insert(id.get()) {
                    self.ledger.received(&self.name(), &payload);
                }
                Ack::success(AckKind::PubRec, id).encode_to(VERSION, &mut self.held);
            }
            _ => panic!("{}: nothing is sent at QoS 0", self.name()),
        }
    }

    fn on_ack(&mut self, kind: AckKind, packet_id: PacketId, link: &mut Link) -> io::Result<()> {
        match kind {
            AckKind::PubRel => {
                self.received.remove(&packet_id.get());
                Ack::success(AckKind::PubComp, packet_id).encode_to(VERSION, &mut self.held);
            }
            AckKind::PubRec => {
                let outgoing = self.outgoing.get_mut(&packet_id.get()).expect("it was published");
                if !core::mem::replace(&mut outgoing.is_received, true) {
                    // From here on it is the gateway's to deliver.
                    let payload = outgoing.payload.clone();
                    self.ledger.tell(|facts| {
                        facts.publishes += 1;
                        facts.progress += 1;
                        facts
                            .owed
                            .entry(payload)
                            .or_default()
                            .extend(["a/1", "b/1", crate::backend::NAME, crate::consumer::NAME].map(str::to_owned));
                    });
                }
                link.send(Ack::success(AckKind::PubRel, packet_id))?;
            }
            AckKind::PubComp => drop(self.outgoing.remove(&packet_id.get())),
            AckKind::PubAck => panic!("{}: nothing is published at QoS 1", self.name()),
        }
        Ok(())
    }
}

/// A device by hand.
pub mod raw {
    use super::*;
    use std::io::{BufRead, BufReader};

    pub struct Device(Link);

    fn packet(device: &mut Device, is_wanted: impl Fn(&Packet<'_>) -> bool) -> Vec<u8> {
        loop {
            let frame = device.0.frame().expect("the connection stands").expect("the gateway answers");
            if is_wanted(&decode(VERSION, &frame).expect("the gateway speaks MQTT")) {
                return frame;
            }
        }
    }

    pub fn connect(place: &Place, user: &str, device: &str) -> Device {
        let stream = TcpStream::connect(place.edge).expect("the gateway listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        let mut link = Device(Link { stream, intake: Vec::new() });
        let mut connect = Connect::new(VERSION, device);
        connect.clean_start = false;
        connect.user_name = Some(user);
        connect.properties.session_expiry_seconds = Some(3_600);
        link.0.send(connect).expect("the connection stands");
        packet(&mut link, |packet| matches!(packet, Packet::ConnAck(connack) if !connack.reason.is_error()));
        link
    }

    pub fn subscribe(device: &mut Device, filter: &str) {
        let filters = [Filter::new(filter, Qos::ExactlyOnce)];
        let filters = Filters::borrowed(&filters);
        let subscribe = Subscribe { packet_id: PacketId::MIN, properties: Default::default(), filters };
        device.0.send(subscribe).expect("the connection stands");
        packet(device, |packet| matches!(packet, Packet::SubAck(_)));
    }

    /// The next PUBLISH: its identifier, payload and DUP. It is not acknowledged.
    pub fn publish(device: &mut Device) -> (u16, String, bool) {
        let frame = packet(device, |packet| matches!(packet, Packet::Publish(_)));
        let Ok(Packet::Publish(publish)) = decode(VERSION, &frame) else { unreachable!("it was just seen") };
        let id = publish.packet_id.expect("QoS 2 has an identifier").get();
        (id, String::from_utf8_lossy(publish.payload).into_owned(), publish.dup)
    }

    /// The data of the next events of a user's inbox, behind an id.
    pub fn events(place: &Place, user: &str, last: Option<&str>, count: usize) -> Vec<String> {
        let mut stream = TcpStream::connect(place.edge).expect("the gateway listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET /events?inbox=1&user={user} HTTP/1.1\r\nhost: {}\r\n{last}\r\n", place.edge);
        stream.write_all(head.as_bytes()).expect("the connection stands");
        let lines = BufReader::new(stream).lines().map(|line| line.expect("the connection stands"));
        let payload = |line: String| {
            let event: serde_json::Value = serde_json::from_str(line.strip_prefix("data:")?).expect("JSON");
            Some(event["payload"].as_str().expect("a payload").to_owned())
        };
        lines.filter_map(payload).take(count).collect()
    }
}
