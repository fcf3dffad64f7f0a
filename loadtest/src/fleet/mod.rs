//! Owns: the clients: their stages, what they must get, what they are told to do.
//! In: the engine's calls. Out: frames and connects; tallies.
//! Must not: allocate per delivery, judge a run, talk to /proc or the API.
//! Invariants: a member is ready, under way, waiting to try again, lost or gone, and counted in one place; a delivery
//! is counted only after it was compared byte by byte.

pub mod addresses;
pub mod ledger;
pub mod orders;
pub mod squad;
pub mod websocket;

use crate::verify::Oracle;
use hdrhistogram::Histogram;
use kittiwake::base::ids::{ConnectionId, Qos};
use kittiwake::engine::{self, Close, CloseCause, Handler, MoreWork, Room};
use kittiwake::io::{Driver, ListenerId};
use kittiwake::wire::mqtt::{self, Ack, AckKind, Disconnect, FrameLen, Packet, PacketId, PingReq, Publish};
use kittiwake::wire::websocket::client::Unanswered;
use ledger::Ledger;
use orders::{Drive, Pace, Ramp, Round, STEP_MAX, Saying};
use squad::{Carriage, Member, Speech, Squad, Stage, VERSION};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use websocket::{Carrier, Voice, Wishes};

/// Longest frame a client takes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// CONNACK and SUBACK must have come by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before a member tries again, times the number of its attempts.
const RETRY_PAUSE_MS: u64 = 100;
/// Bytes of a PUBLISH beside its topic and its payload, and of the frame that it is in.
const OVERHEAD_BYTES_MAX: usize = 32;
/// Attempts of a member to get ready; then it counts as failed.
const ATTEMPTS_MAX: u8 = 20;

/// What the fleet's connections are in.
type Core<D> = engine::Core<D, Tick, Carrier>;

/// Wakes the fleet so that it looks at its orders.
#[derive(Debug)]
pub struct Tick;

/// What went wrong and what was done about it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Attempts that were repeated.
    pub retries: u64,
    /// Members that were given up.
    pub failed: u64,
    /// Members that were ready and lost their connection.
    pub lost: u64,
    /// How often for which reason.
    pub causes: BTreeMap<String, u64>,
    /// PINGRESPs that came.
    pub pongs: u64,
    /// PINGREQs sent.
    pub pings: u64,
    /// Publications that a full outbox did not take; tried again.
    pub held_back: u64,
}

/// All clients of a run.
#[derive(Debug)]
pub struct Fleet {
    pub squads: Vec<Squad>,
    members: Vec<Member>,
    pub ramp: Option<Ramp>,
    pub drive: Option<Drive>,
    pub round: Option<Round>,
    pub tally: Tally,
    /// The topic and QoS that drives publish with.
    pub topic: String,
    pub qos: Qos,
    pub oracle: Option<Oracle>,
    /// From connect to ready, in microseconds by the turn's clock.
    pub set_up: Histogram<u64>,
    started_ms: Vec<u64>,
    voice: Voice,
    wishes: Wishes,
}

impl Fleet {
    pub fn new() -> Self {
        Self {
            squads: Vec::new(),
            members: Vec::new(),
            ramp: None,
            drive: None,
            round: None,
            tally: Tally::default(),
            topic: String::new(),
            qos: Qos::AtMostOnce,
            oracle: None,
            set_up: Histogram::new_with_max(600_000, 3).expect("three digits of ten minutes can be kept"),
            started_ms: Vec::new(),
            voice: Voice::default(),
            wishes: Wishes::default(),
        }
    }

    /// Adds clients that are not connected yet; the squad's number.
    pub fn add(&mut self, count: u32, targets: Vec<SocketAddr>, speech: Speech) -> u8 {
        let number = u8::try_from(self.squads.len()).expect("squads are few");
        let first = u32::try_from(self.members.len()).expect("members are fewer than 2^32");
        let member = || Member { id: None, next: 0, squad: number, stage: Stage::Out, attempts: 0 };
        self.members.extend((0..count).map(|_| member()));
        self.started_ms.resize(self.members.len(), 0);
        let routes = addresses::Routes::new(targets, count);
        let squad = Squad { first, count, routes, speech, ready: 0, left: 0, ledger: None, bytes: 0, acknowledged: 0 };
        self.squads.push(squad);
        number
    }

    /// A squad by its number.
    pub fn squad(&self, number: u8) -> &Squad {
        &self.squads[usize::from(number)]
    }

    /// The same, to change.
    pub fn squad_mut(&mut self, number: u8) -> &mut Squad {
        &mut self.squads[usize::from(number)]
    }

    /// Expects messages at all of a squad's members, from number 0.
    pub fn expect(&mut self, number: u8, payload_bytes: usize) {
        let squad = &mut self.squads[usize::from(number)];
        squad.ledger = Some(Ledger::new(squad.count, payload_bytes));
        let range = squad.first as usize..(squad.first + squad.count) as usize;
        self.members[range].iter_mut().for_each(|member| member.next = 0);
    }

    /// Members of a squad that have got fewer than so many messages, with their numbers within the squad.
    pub fn behind(&self, number: u8, messages: u32) -> impl Iterator<Item = u32> + '_ {
        let squad = self.squad(number);
        let range = squad.first as usize..(squad.first + squad.count) as usize;
        let numbered = (0..).zip(&self.members[range]);
        numbered.filter(move |(_, member)| member.next < messages).map(|(at, _)| at)
    }

    fn cause(&mut self, cause: String) {
        *self.tally.causes.entry(cause).or_default() += 1;
    }

    /// A member did not get ready, or lost its connection. One that was never ready tries again.
    fn fell(&mut self, now_ms: u64, tag: u32, cause: String) {
        let member = &mut self.members[tag as usize];
        member.id = None;
        let stage = core::mem::replace(&mut member.stage, Stage::Out);
        let squad = &mut self.squads[usize::from(member.squad)];
        match stage {
            Stage::Leaving => {
                squad.left += 1;
                return;
            }
            Stage::Ready => {
                squad.ready -= 1;
                self.tally.lost += 1;
            }
            _ => match self.ramp.as_mut().filter(|ramp| ramp.squad == member.squad) {
                Some(ramp) => {
                    ramp.under_way -= 1;
                    if member.attempts < ATTEMPTS_MAX {
                        self.tally.retries += 1;
                        ramp.again.push_back((tag, now_ms + RETRY_PAUSE_MS * u64::from(member.attempts)));
                    } else {
                        self.tally.failed += 1;
                    }
                }
                None => self.tally.failed += 1,
            },
        }
        self.cause(cause);
    }

    fn got_ready(&mut self, now_ms: u64, tag: u32) {
        let member = &mut self.members[tag as usize];
        member.stage = Stage::Ready;
        self.squads[usize::from(member.squad)].ready += 1;
        if let Some(ramp) = self.ramp.as_mut().filter(|ramp| ramp.squad == member.squad) {
            ramp.under_way -= 1;
        }
        self.set_up.saturating_record(now_ms.saturating_sub(self.started_ms[tag as usize]));
    }
}

impl<D: Driver> Handler<D> for Fleet {
    type Letter = Tick;
    type Transform = Carrier;

    fn on_accept(&mut self, _: &mut Core<D>, _: ConnectionId, _: ListenerId, _: SocketAddr) {
        unreachable!("a fleet does not listen");
    }

    fn on_connected(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32, result: io::Result<()>) {
        let now = core.now();
        if let Err(error) = result {
            return self.fell(now.monotonic_ms, tag, format!("connect: {error}"));
        }
        let member = &mut self.members[tag as usize];
        member.id = Some(id);
        let squad = &self.squads[usize::from(member.squad)];
        match &squad.speech {
            Speech::Mqtt(speech) => {
                core.set_deadline(id, now.deadline(HANDSHAKE_TIMEOUT));
                match speech.carriage {
                    Carriage::Tcp => self.introduce(core, id, tag),
                    Carriage::WebSocket => self.upgrade(core, id, tag),
                }
            }
            Speech::Packets(carriage) => {
                if *carriage == Carriage::WebSocket {
                    core.set_transform(id, Carrier::default());
                }
                self.got_ready(now.monotonic_ms, tag);
            }
            Speech::Raw => self.got_ready(now.monotonic_ms, tag),
        }
    }

    fn on_bytes(&mut self, core: &mut Core<D>, id: ConnectionId, bytes: &[u8]) -> usize {
        let tag = core.tag(id).expect("the engine names a connection that is there");
        let member = &self.members[tag as usize];
        let squad = &mut self.squads[usize::from(member.squad)];
        if matches!(squad.speech, Speech::Raw) {
            squad.bytes += bytes.len() as u64;
            return bytes.len();
        }
        if member.stage == Stage::Upgrading {
            return self.on_answer(core, id, tag, bytes);
        }
        let (now, mut used) = (Instant::now(), 0);
        loop {
            let total_bytes = match mqtt::frame_len(&bytes[used..], FRAME_BYTES_MAX) {
                Ok(FrameLen::Known { total_bytes, .. }) if total_bytes <= bytes.len() - used => total_bytes,
                Ok(_) => return used,
                Err(error) => {
                    self.wrong(core, id, error.text());
                    return bytes.len();
                }
            };
            let frame = &bytes[used..used + total_bytes];
            used += total_bytes;
            match mqtt::decode(VERSION, frame) {
                Ok(packet) => self.on_packet(core, id, tag, frame, packet, now),
                Err(error) => {
                    self.wrong(core, id, error.text());
                    return bytes.len();
                }
            }
        }
    }

    fn on_closed(&mut self, core: &mut Core<D>, id: ConnectionId, cause: CloseCause) {
        let tag = core.tag(id).expect("a closed connection's tag is there until this returns");
        self.fell(core.now().monotonic_ms, tag, format!("closed: {cause:?}"));
    }

    fn on_deadline(&mut self, core: &mut Core<D>, id: ConnectionId) {
        let tag = core.tag(id).expect("the engine names a connection that is there");
        let member = &self.members[tag as usize];
        let heartbeat = match &self.squads[usize::from(member.squad)].speech {
            Speech::Mqtt(speech) if member.stage == Stage::Ready => speech.heartbeat,
            _ => None,
        };
        match heartbeat {
            Some(pause) => {
                self.tally.pings += 1;
                // No room for two bytes: the server does not read, and the engine closes the connection.
                let _ = self.voice.say(core, id, Room::Control, &PingReq);
                core.set_deadline(id, core.now().deadline(pause));
            }
            None => {
                self.cause("the handshake took too long".to_owned());
                core.close(id, Close::Now, CloseCause::Local);
            }
        }
    }

    fn run_jobs(&mut self, _: &mut Core<D>) -> MoreWork {
        // Only what makes progress by itself keeps the engine awake; all else waits for completions or ticks.
        if self.round.is_some() { MoreWork::Yes } else { MoreWork::No }
    }

    fn on_turn_end(&mut self, core: &mut Core<D>) {
        self.go_on_connecting(core);
        self.go_on_publishing(core);
        self.go_round(core);
    }
}

impl Fleet {
    /// Asks for a WebSocket.
    fn upgrade<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let member = &mut self.members[tag as usize];
        member.stage = Stage::Upgrading;
        let squad = &self.squads[usize::from(member.squad)];
        let authority = squad.routes.of(tag - squad.first).1.to_string();
        let request = self.wishes.of(tag, member.attempts, &authority).request();
        // A new connection's outbox is empty; should the pool be, the handshake's deadline tells.
        let _ = core.write_bytes(id, Room::Control, request.as_bytes());
    }

    /// What a server says to that; the bytes that were used.
    fn on_answer<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32, bytes: &[u8]) -> usize {
        let member = &self.members[tag as usize];
        let squad = &self.squads[usize::from(member.squad)];
        let authority = squad.routes.of(tag - squad.first).1.to_string();
        match self.wishes.of(tag, member.attempts, &authority).check(bytes) {
            Ok(None) => 0,
            Ok(Some(length)) => {
                core.set_transform(id, Carrier::default());
                self.introduce(core, id, tag);
                length
            }
            Err(unanswered) => {
                let cause = match unanswered {
                    Unanswered::Status(status) => format!("WebSocket refused: {status}"),
                    Unanswered::NotWebSocket => "not WebSocket".to_owned(),
                };
                self.refused(core, id, cause);
                bytes.len()
            }
        }
    }

    /// Says CONNECT.
    fn introduce<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let Self { members, squads, voice, .. } = self;
        let member = &mut members[tag as usize];
        let squad = &squads[usize::from(member.squad)];
        let Speech::Mqtt(speech) = &squad.speech else { return };
        member.stage = Stage::Connecting;
        // There is room in a new connection's outbox; should the pool be empty, the handshake's deadline tells.
        let _ = speech.connect(tag - squad.first, |connect| voice.say(core, id, Room::Control, connect));
    }

    fn wrong<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, text: &str) {
        self.cause(format!("not MQTT: {text}"));
        core.close(id, Close::Now, CloseCause::Local);
    }

    fn on_packet<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        tag: u32,
        frame: &[u8],
        packet: Packet<'_>,
        now: Instant,
    ) {
        match packet {
            Packet::Publish(publish) => {
                let member = &mut self.members[tag as usize];
                if let Some(ledger) = &mut self.squads[usize::from(member.squad)].ledger {
                    ledger.arrived(&mut member.next, publish.payload, now);
                }
                if let Some(oracle) = &mut self.oracle {
                    oracle.look(frame, &publish);
                }
                self.acknowledge(core, id, &publish);
            }
            Packet::ConnAck(connack) if connack.reason.code() == 0 => self.on_connack(core, id, tag),
            Packet::ConnAck(connack) => self.refused(core, id, format!("CONNACK {:?}", connack.reason)),
            Packet::SubAck(suback) => match suback.reasons.iter().find(|reason| reason.code() >= 0x80) {
                None => self.open(core, id, tag),
                Some(reason) => self.refused(core, id, format!("SUBACK {reason:?}")),
            },
            Packet::Ack(ack) => {
                let squad = self.members[tag as usize].squad;
                match ack.kind {
                    AckKind::PubAck | AckKind::PubComp => self.squad_mut(squad).acknowledged += 1,
                    AckKind::PubRec => self.answer(core, id, AckKind::PubRel, ack.packet_id),
                    AckKind::PubRel => self.answer(core, id, AckKind::PubComp, ack.packet_id),
                }
            }
            Packet::PingResp => self.tally.pongs += 1,
            Packet::Disconnect(disconnect) => self.cause(format!("DISCONNECT {:?}", disconnect.reason)),
            _ => self.wrong(core, id, "a packet that servers do not send"),
        }
    }

    fn refused<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, cause: String) {
        self.cause(cause);
        core.close(id, Close::Now, CloseCause::Local);
    }

    fn on_connack<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let member = &mut self.members[tag as usize];
        let Speech::Mqtt(speech) = &self.squads[usize::from(member.squad)].speech else { return };
        member.stage = Stage::Subscribing;
        let voice = &mut self.voice;
        if speech.subscribe(|subscribe| voice.say(core, id, Room::Control, subscribe)).is_none() {
            self.open(core, id, tag);
        }
    }

    /// The handshake is done.
    fn open<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let member = &self.members[tag as usize];
        if !matches!(member.stage, Stage::Connecting | Stage::Subscribing) {
            return;
        }
        let (now, squad) = (core.now(), member.squad);
        match &self.squads[usize::from(squad)].speech {
            Speech::Mqtt(squad::Mqtt { heartbeat: Some(pause), .. }) => core.set_deadline(id, now.deadline(*pause)),
            _ => core.clear_deadline(id),
        }
        self.got_ready(now.monotonic_ms, tag);
    }

    fn go_on_connecting<D: Driver>(&mut self, core: &mut Core<D>) {
        let now_ms = core.now().monotonic_ms;
        let Some(ramp) = &mut self.ramp else { return };
        let squad = &self.squads[usize::from(ramp.squad)];
        for _ in 0..ramp.allowance(now_ms) {
            let again = ramp.again.front().is_some_and(|&(_, at_ms)| at_ms <= now_ms);
            let tag = if again {
                let Some((tag, _)) = ramp.again.pop_front() else { break };
                tag
            } else if ramp.next < squad.count {
                ramp.next += 1;
                squad.first + ramp.next - 1
            } else {
                break;
            };
            let (local, remote) = squad.routes.of(tag - squad.first);
            self.members[tag as usize].attempts += 1;
            self.started_ms[tag as usize] = now_ms;
            ramp.issued += 1;
            ramp.under_way += 1;
            core.connect(local, remote, tag).expect("the engine's table has room for the whole fleet");
        }
    }

    fn go_on_publishing<D: Driver>(&mut self, core: &mut Core<D>) {
        let Some(drive) = &mut self.drive else { return };
        let now = Instant::now();
        if drive.until.is_some_and(|until| now >= until) {
            drive.left = 0;
        }
        let Some(id) = self.members[drive.publisher as usize].id else { return };
        let ledger = self.squads[usize::from(drive.squad)].ledger.as_mut();
        let ledger = ledger.expect("a squad that is published to expects it");
        while drive.left >= drive.unit && ledger.under_way() + drive.unit <= drive.window {
            let due = drive.pace.map_or(now, |pace: Pace| pace.due());
            let message_bytes = ledger.payload_bytes() + self.topic.len() + OVERHEAD_BYTES_MAX;
            let room = core.outbox_room(id) > message_bytes * drive.unit as usize;
            if due > now || !room {
                self.tally.held_back += u64::from(!room);
                return;
            }
            // Where the pool is empty or the connection is gone, the message counts as lost, the run as failed.
            self.tally.failed += u64::from(core.write_bytes(id, Room::Data, &drive.head).is_err());
            for _ in 0..drive.unit {
                let number = ledger.published();
                let publish = squad::publish(&self.topic, self.qos, number, ledger.next(due));
                let written = self.voice.say(core, id, Room::Data, &publish);
                self.tally.failed += u64::from(written.is_err());
            }
            drive.left -= drive.unit;
            if let Some(pace) = &mut drive.pace {
                pace.issued += drive.unit;
            }
        }
        if drive.left < drive.unit {
            drive.left = 0;
        }
    }

    fn go_round<D: Driver>(&mut self, core: &mut Core<D>) {
        let Some(round) = &mut self.round else { return };
        let squad = &self.squads[usize::from(round.squad)];
        for _ in 0..STEP_MAX {
            if round.next == squad.count {
                self.round = None;
                return;
            }
            let member = &mut self.members[(squad.first + round.next) as usize];
            round.next += 1;
            let Some(id) = member.id.filter(|_| member.stage == Stage::Ready) else { continue };
            match &round.what {
                Saying::Bytes(bytes) => {
                    let _ = core.write_bytes(id, Room::Data, bytes).inspect_err(|_| self.tally.held_back += 1);
                }
                Saying::Goodbye => {
                    member.stage = Stage::Leaving;
                    if matches!(squad.speech, Speech::Mqtt(_)) {
                        let goodbye = Disconnect::new(mqtt::Reason::Success);
                        // Whether they fit or not, the connection closes.
                        let _ = self.voice.say(core, id, Room::Control, &goodbye);
                        let _ = self.voice.close(core, id);
                    }
                    core.close(id, Close::AfterFlush, CloseCause::Local);
                }
            }
        }
    }

    /// PUBACK or PUBREC, in the same send as all others of the turn.
    #[inline]
    fn acknowledge<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, publish: &Publish<'_>) {
        let (Some(packet_id), kind) = (publish.packet_id, publish.qos) else { return };
        let kind = if kind == Qos::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        self.answer(core, id, kind, packet_id);
    }

    #[inline]
    fn answer<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, kind: AckKind, packet_id: PacketId) {
        // Without even this room the engine closes the connection, and it counts as lost.
        let _ = self.voice.say(core, id, Room::Control, &Ack::success(kind, packet_id));
    }
}
