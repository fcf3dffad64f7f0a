//! Owns: the clients: their stages, what they must get, what they are told to do.
//! In: the engine's calls. Out: frames and connects; tallies.
//! Must not: allocate per delivery, judge a run, talk to /proc or the API.
//! Invariants: a member is ready, under way, waiting to try again, lost or gone, and counted in one place; a delivery
//! is counted only after it was compared byte by byte.
//!
//! # Files
//! `squad` what members are · `orders` what they are told to do, `work` how that is done, a step a turn · `handshake`
//! from a connect to ready · `packets` what comes · `ledger`, `inboxes`, `sightings` whether it is right: messages to all
//! of a squad, letters to one member, and what members get that may miss some · `content` the bytes of both.

pub mod addresses;
pub mod content;
mod foreign;
mod handshake;
pub mod inboxes;
pub mod ledger;
pub mod orders;
mod packets;
pub mod sightings;
pub mod squad;
pub mod websocket;
mod work;

use crate::verify::Oracle;
use hdrhistogram::Histogram;
use inboxes::Inboxes;
use kittiwake::base::ids::{ConnectionId, Qos};
use kittiwake::engine::{self, Close, CloseCause, Handler, MoreWork, Room};
use kittiwake::io::{Driver, ListenerId};
use kittiwake::wire::mqtt::{self, FrameLen, PingReq, Version};
use kittiwake::wire::tls;
use ledger::Ledger;
use orders::{Beat, Drive, Mailing, Ramp, Round, Sip};
use sightings::Sightings;
use squad::{Beats, Carriage, Credentials, Member, Reading, Speech, Squad, Stage};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use websocket::{Layers, Voice, Wishes, carry};

/// Longest frame a client takes.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes of a PINGREQ and of a PINGRESP, and of what stands for them on bare sockets.
pub const BEAT_BYTES: usize = 2;
/// CONNACK and SUBACK must have come by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before a member tries again, times the number of its attempts.
const RETRY_PAUSE_MS: u64 = 100;
/// Bytes of a publication beside its topic and its payload, and of the frame or the request that it is in; Socket.IO's
/// payload is a third longer than what it carries.
const OVERHEAD_BYTES_MAX: usize = 256;
/// Attempts of a member to get ready; then it counts as failed.
const ATTEMPTS_MAX: u8 = 20;

/// What the fleet's connections are in.
type Core<D> = engine::Core<D, Tick, Layers>;

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
    pub beat: Option<Beat>,
    pub mailing: Option<Mailing>,
    pub sip: Option<Sip>,
    pub tally: Tally,
    /// The topic and QoS that drives publish with.
    pub topic: String,
    pub qos: Qos,
    pub oracle: Option<Oracle>,
    pub credentials: Option<Credentials>,
    /// MQTT is spoken within TLS.
    pub secure: Option<tls::Client>,
    /// From when a connection was due to when it was ready, in microseconds.
    pub set_up: Histogram<u64>,
    born: Instant,
    /// When each member's connection, or its heartbeat, was due, in microseconds since then.
    due_us: Vec<u64>,
    voice: Voice,
    wishes: Wishes,
    /// The payload of the last letter, kept for its memory.
    letter: Vec<u8>,
}

impl Fleet {
    pub fn new() -> Self {
        Self {
            squads: Vec::new(),
            members: Vec::new(),
            ramp: None,
            drive: None,
            round: None,
            beat: None,
            mailing: None,
            sip: None,
            tally: Tally::default(),
            topic: String::new(),
            qos: Qos::AtMostOnce,
            oracle: None,
            credentials: None,
            secure: None,
            set_up: Histogram::new_with_max(ledger::LATENCY_US_MAX, 3).expect("three digits can be kept"),
            born: Instant::now(),
            due_us: Vec::new(),
            voice: Voice::default(),
            wishes: Wishes::default(),
            letter: Vec::new(),
        }
    }

    /// Adds clients that are not connected yet; the squad's number.
    pub fn add(&mut self, count: u32, targets: Vec<SocketAddr>, speech: Speech) -> u8 {
        let number = u8::try_from(self.squads.len()).expect("squads are few");
        let first = u32::try_from(self.members.len()).expect("members are fewer than 2^32");
        let member = || Member { id: None, next: 0, squad: number, stage: Stage::Out, attempts: 0, beating: false };
        self.members.extend((0..count).map(|_| member()));
        self.due_us.resize(self.members.len(), 0);
        let routes = addresses::Routes::new(targets, count);
        let squad = Squad {
            first,
            count,
            routes,
            speech,
            ready: 0,
            left: 0,
            ledger: None,
            sightings: None,
            inboxes: None,
            beats: Beats::default(),
            bytes: 0,
            acknowledged: 0,
        };
        self.squads.push(squad);
        number
    }

    /// The version of MQTT that all of it speaks.
    pub fn speak(&mut self, version: Version) {
        self.voice.version = version;
    }

    /// It.
    pub fn version(&self) -> Version {
        self.voice.version
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
        let range = self.range(number);
        self.members[range].iter_mut().for_each(|member| member.next = 0);
    }

    /// Expects letters at a squad's members, from sequence number 0.
    pub fn expect_letters(&mut self, number: u8, run: u32, started: Instant) {
        let squad = &mut self.squads[usize::from(number)];
        squad.inboxes = Some(Inboxes::new(squad.count, run, started));
    }

    /// How long letters that members publish are.
    pub fn letter_bytes(&mut self, bytes: usize) {
        self.letter.resize(bytes, 0);
    }

    /// Looks at what comes to a squad's members, who may miss some, from number 0.
    pub fn look(&mut self, number: u8) {
        self.squads[usize::from(number)].sightings = Some(Sightings::default());
        let range = self.range(number);
        self.members[range].iter_mut().for_each(|member| member.next = 0);
    }

    /// Clients of all squads that are ready.
    pub fn ready(&self) -> u64 {
        self.squads.iter().map(|squad| u64::from(squad.ready)).sum()
    }

    /// Members of a squad, among these, that are ready.
    pub fn connected(&self, number: u8, members: core::ops::Range<u32>) -> u64 {
        let first = self.squad(number).first;
        let members = &self.members[(first + members.start) as usize..(first + members.end) as usize];
        members.iter().filter(|member| member.stage == Stage::Ready).count() as u64
    }

    fn range(&self, number: u8) -> core::ops::Range<usize> {
        let squad = self.squad(number);
        squad.first as usize..(squad.first + squad.count) as usize
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.born).as_micros() as u64
    }

    /// Members of a squad that have got fewer than so many messages, with their numbers within the squad.
    pub fn behind(&self, number: u8, messages: u32) -> impl Iterator<Item = u32> + '_ {
        let range = self.range(number);
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
        if core::mem::take(&mut member.beating)
            && let Some(beat) = self.beat.as_mut().filter(|beat| beat.squad == member.squad)
        {
            beat.under_way -= 1;
        }
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

    fn got_ready(&mut self, tag: u32) {
        let member = &mut self.members[tag as usize];
        (member.stage, member.attempts) = (Stage::Ready, 0);
        self.squads[usize::from(member.squad)].ready += 1;
        if let Some(ramp) = self.ramp.as_mut().filter(|ramp| ramp.squad == member.squad) {
            ramp.under_way -= 1;
        }
        let now_us = self.micros(Instant::now());
        self.set_up.saturating_record(now_us.saturating_sub(self.due_us[tag as usize]));
    }
}

impl<D: Driver> Handler<D> for Fleet {
    type Letter = Tick;
    type Transform = Layers;

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
                let carriage = speech.carriage;
                self.secure(core, id, tag);
                match carriage {
                    Carriage::Tcp => self.introduce(core, id, tag),
                    Carriage::WebSocket => self.upgrade(core, id, tag),
                }
            }
            Speech::Packets(carriage) => {
                if *carriage == Carriage::WebSocket {
                    carry(core, id);
                }
                self.got_ready(tag);
            }
            Speech::Raw => self.got_ready(tag),
            Speech::Foreign(_) => {
                core.set_deadline(id, now.deadline(HANDSHAKE_TIMEOUT));
                self.meet(core, id, tag);
            }
        }
    }

    fn on_bytes(&mut self, core: &mut Core<D>, id: ConnectionId, bytes: &[u8]) -> usize {
        let tag = core.tag(id).expect("the engine names a connection that is there");
        let member = &self.members[tag as usize];
        let squad = &mut self.squads[usize::from(member.squad)];
        if matches!(squad.speech, Speech::Raw) {
            squad.bytes += bytes.len() as u64;
            if member.beating || self.beat.is_some() {
                self.on_beat_answered(tag, bytes.len() == BEAT_BYTES, Instant::now());
            }
            return bytes.len();
        }
        if let Speech::Mqtt(squad::Mqtt { reading: Reading::WhenTold, .. }) = &squad.speech
            && member.stage == Stage::Ready
        {
            core.pause_reading(id);
        }
        if let Speech::Foreign(foreign) = &squad.speech {
            let speech = (foreign.tongue, foreign.topic.is_some());
            let answer = if member.stage == Stage::Upgrading { self.on_answer(core, id, tag, bytes) } else { 0 };
            // A server may speak first, right behind its answer, and then wait.
            let is_open = self.members[tag as usize].stage != Stage::Upgrading && core.is_open(id);
            return if is_open { answer + self.hear(core, id, tag, speech, &bytes[answer..]) } else { answer };
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
            match mqtt::decode(self.voice.version, frame) {
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
        self.go_on_mailing(core);
        self.go_on_beating(core);
        self.go_on_sipping(core);
        self.go_round(core);
    }
}
