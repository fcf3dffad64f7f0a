//! Members that do not speak MQTT, of other servers and of event streams: from a connect to ready, and what comes to them.

use super::squad::{Speech, Squad, Stage, user_name};
use super::websocket::{PATH, SUBPROTOCOL};
use super::{Core, Fleet};
use crate::foreign::{Cue, Heard, Purpose, Tongue};
use kittiwake::base::ids::ConnectionId;
use kittiwake::engine::Room;
use kittiwake::io::Driver;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Instant;

/// Start of the names of those who have no other.
const PREFIX: &str = "e";

impl Squad {
    /// The path and the subprotocol of a client's WebSocket.
    pub(super) fn web(&self, number: u32) -> (Cow<'static, str>, Option<&'static str>) {
        match &self.speech {
            Speech::Foreign(foreign) => {
                let path = foreign.tongue.upgrade_path(foreign.topic_of(number).as_deref());
                (Cow::Owned(path.unwrap_or_default()), None)
            }
            _ => (Cow::Borrowed(PATH), Some(SUBPROTOCOL)),
        }
    }

    /// What its publishers speak, if it is not MQTT, and whom they speak to.
    pub(super) fn backend(&self) -> Option<(Tongue, SocketAddr)> {
        Some((self.speech.tongue()?, self.routes.of(0).1))
    }
}

impl Fleet {
    /// The connection stands: a WebSocket is asked for, or the server speaks first, or there is nothing to wait for.
    pub(super) fn meet<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let squad = &self.squads[usize::from(self.members[tag as usize].squad)];
        let Speech::Foreign(foreign) = &squad.speech else { return };
        if foreign.tongue.upgrade_path(foreign.topic.as_deref()).is_some() {
            self.upgrade(core, id, tag);
        } else {
            self.go_on_meeting(core, id, tag);
        }
    }

    /// The protocol itself begins.
    pub(super) fn go_on_meeting<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        let member = &mut self.members[tag as usize];
        member.stage = Stage::Connecting;
        let tongue = self.squads[usize::from(member.squad)].speech.tongue();
        if tongue.is_some_and(Tongue::is_ready_at_once) {
            self.met(core, id, tag);
        } else if tongue.is_some_and(Tongue::speaks_first) {
            self.reply(core, id, tag, Cue::Introduce);
        }
    }

    /// The handshake is done.
    fn met<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        core.clear_deadline(id);
        self.got_ready(tag);
    }

    /// What came to a member; the bytes that were used.
    pub(super) fn hear<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        tag: u32,
        (tongue, subscribes): (Tongue, bool),
        bytes: &[u8],
    ) -> usize {
        let (now, mut used) = (Instant::now(), 0);
        loop {
            let (length, heard) = tongue.hear(subscribes, &bytes[used..]);
            used += length;
            let is_ready = self.members[tag as usize].stage == Stage::Ready;
            match heard {
                Heard::More => return used,
                Heard::Message(payload) => self.arrived(tag, &payload, false, now),
                Heard::Cue(cue) => self.reply(core, id, tag, cue),
                // NATS ends its handshake by answering a ping.
                Heard::Ready | Heard::Pong if !is_ready => self.met(core, id, tag),
                Heard::Pong => {
                    self.tally.pongs += 1;
                    if self.beat.is_some() {
                        self.on_beat_answered(tag, true, now);
                    }
                }
                Heard::Settled => {
                    let squad = self.members[tag as usize].squad;
                    self.squad_mut(squad).acknowledged += 1;
                }
                Heard::Ready | Heard::Nothing => {}
                Heard::Wrong(text) => {
                    self.refused(core, id, format!("{tongue:?}: {text}"));
                    return bytes.len();
                }
            }
        }
    }

    fn reply<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32, cue: Cue) {
        let squad = &self.squads[usize::from(self.members[tag as usize].squad)];
        let Speech::Foreign(foreign) = &squad.speech else { return };
        let topic = foreign.topic_of(tag - squad.first);
        let told = self.credentials.as_ref();
        let credentials = told.map(|told| (told.username.as_str(), told.password.as_deref().unwrap_or_default()));
        let name = user_name(PREFIX, tag - squad.first);
        let purpose = Purpose { topic: topic.as_deref(), name: &name, credentials };
        // There is room in the outbox of who says so little; should the pool be empty, a deadline or a loss tells.
        let _ = self.voice.utter(core, id, Room::Control, |out| foreign.tongue.reply(cue, purpose, out));
    }
}
