//! From a connect to a member that is ready: WebSocket, CONNECT, SUBSCRIBE.

use super::squad::{Reading, Speech, Stage};
use super::websocket::{Layers, carry};
use super::{Core, Fleet};
use kittiwake::base::ids::ConnectionId;
use kittiwake::engine::{Close, CloseCause, Room};
use kittiwake::io::Driver;
use kittiwake::wire::tls::Session;
use kittiwake::wire::websocket::client::Unanswered;
use std::time::Instant;

impl Fleet {
    /// A step of the ramp.
    pub(super) fn go_on_connecting<D: Driver>(&mut self, core: &mut Core<D>) {
        let now_ms = core.now().monotonic_ms;
        let Some(ramp) = &mut self.ramp else { return };
        let due = ramp.due.unwrap_or_else(Instant::now).saturating_duration_since(self.born).as_micros() as u64;
        let squad = &self.squads[usize::from(ramp.squad)];
        for _ in 0..ramp.allowance(now_ms) {
            let again = ramp.again.front().is_some_and(|&(_, at_ms)| at_ms <= now_ms);
            let tag = if again {
                let Some((tag, _)) = ramp.again.pop_front() else { break };
                tag
            } else if ramp.next < ramp.end {
                ramp.next += 1;
                squad.first + ramp.next - 1
            } else {
                break;
            };
            let (local, remote) = squad.routes.of(tag - squad.first);
            self.members[tag as usize].attempts += 1;
            self.due_us[tag as usize] = due;
            ramp.issued += 1;
            ramp.under_way += 1;
            core.connect(local, remote, tag).expect("the engine's table has room for the whole fleet");
        }
    }

    /// Begins TLS, where the fleet speaks it. What is said from here on leaves once it is agreed on.
    pub(super) fn secure<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let Some(client) = &self.secure else { return };
        let squad = &self.squads[usize::from(self.members[tag as usize].squad)];
        let name = squad.routes.of(tag - squad.first).1.ip().into();
        match Session::client(client, name) {
            Ok((session, hello)) => {
                core.set_transform(id, Layers::secured(session));
                // A new connection's outbox is empty; should the pool be, the handshake's deadline tells.
                let _ = core.write_records(id, &hello);
            }
            Err(error) => self.refused(core, id, format!("TLS: {error}")),
        }
    }

    /// Asks for a WebSocket.
    pub(super) fn upgrade<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let member = &mut self.members[tag as usize];
        member.stage = Stage::Upgrading;
        let squad = &self.squads[usize::from(member.squad)];
        let authority = squad.routes.of(tag - squad.first).1.to_string();
        let (path, subprotocol) = squad.web(tag - squad.first);
        let request = self.wishes.of(tag, member.attempts, &authority, (&path, subprotocol)).request();
        // A new connection's outbox is empty; should the pool be, the handshake's deadline tells.
        let _ = core.write_bytes(id, Room::Control, request.as_bytes());
    }

    /// What a server says to that; the bytes that were used.
    pub(super) fn on_answer<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        tag: u32,
        bytes: &[u8],
    ) -> usize {
        let member = &self.members[tag as usize];
        let squad = &self.squads[usize::from(member.squad)];
        let authority = squad.routes.of(tag - squad.first).1.to_string();
        let (path, subprotocol) = squad.web(tag - squad.first);
        match self.wishes.of(tag, member.attempts, &authority, (&path, subprotocol)).check(bytes) {
            Ok(None) => 0,
            Ok(Some(length)) if squad.speech.tongue().is_some() => {
                self.go_on_meeting(core, id, tag);
                length
            }
            Ok(Some(length)) => {
                carry(core, id);
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
    pub(super) fn introduce<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let Self { members, squads, voice, credentials, .. } = self;
        let member = &mut members[tag as usize];
        let squad = &squads[usize::from(member.squad)];
        let Speech::Mqtt(speech) = &squad.speech else { return };
        member.stage = Stage::Connecting;
        // There is room in a new connection's outbox; should the pool be empty, the handshake's deadline tells.
        let _ = speech.connect(voice.version, tag - squad.first, credentials.as_ref(), |connect| {
            voice.say(core, id, Room::Control, connect)
        });
    }

    pub(super) fn refused<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, cause: String) {
        self.cause(cause);
        core.close(id, Close::Now, CloseCause::Local);
    }

    pub(super) fn on_connack<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let member = &mut self.members[tag as usize];
        let squad = &self.squads[usize::from(member.squad)];
        let Speech::Mqtt(speech) = &squad.speech else { return };
        member.stage = Stage::Subscribing;
        let voice = &mut self.voice;
        let said = speech.subscribe(tag - squad.first, |subscribe| voice.say(core, id, Room::Control, subscribe));
        if said.is_none() {
            self.open(core, id, tag);
        }
    }

    /// The handshake is done.
    pub(super) fn open<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let member = &self.members[tag as usize];
        if !matches!(member.stage, Stage::Connecting | Stage::Subscribing) {
            return;
        }
        let (now, squad) = (core.now(), member.squad);
        let Speech::Mqtt(speech) = &self.squads[usize::from(squad)].speech else { return };
        match speech.heartbeat {
            Some(pause) => core.set_deadline(id, now.deadline(pause)),
            None => core.clear_deadline(id),
        }
        if speech.reading == Reading::WhenTold {
            core.pause_reading(id);
        }
        self.got_ready(tag);
    }
}
