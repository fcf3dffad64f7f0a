//! What comes to members that are connected.

use super::content::Letter;
use super::{Core, Fleet};
use kittiwake::base::ids::{ConnectionId, Qos};
use kittiwake::engine::{Close, CloseCause, Room};
use kittiwake::io::Driver;
use kittiwake::wire::mqtt::{Ack, AckKind, Packet, PacketId, Publish};
use std::time::Instant;

impl Fleet {
    /// What came is no MQTT.
    pub(super) fn wrong<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, text: &str) {
        self.cause(format!("not MQTT: {text}"));
        core.close(id, Close::Now, CloseCause::Local);
    }

    /// A packet has come.
    pub(super) fn on_packet<D: Driver>(
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
                self.arrived(tag, publish.payload, publish.dup, now);
                if let Some(oracle) = &mut self.oracle {
                    oracle.look(self.voice.version, frame, &publish);
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
            Packet::PingResp => {
                self.tally.pongs += 1;
                if self.beat.is_some() {
                    self.on_beat_answered(tag, true, now);
                }
            }
            Packet::Disconnect(disconnect) => self.cause(format!("DISCONNECT {:?}", disconnect.reason)),
            _ => self.wrong(core, id, "a packet that servers do not send"),
        }
    }

    /// A message has come to a member: to all of its squad, to it alone, or one of those that it may miss.
    #[inline]
    pub(super) fn arrived(&mut self, tag: u32, payload: &[u8], again: bool, now: Instant) {
        let member = &mut self.members[tag as usize];
        let squad = &mut self.squads[usize::from(member.squad)];
        if let Some(inboxes) = squad.inboxes.as_mut().filter(|_| Letter::is_one(payload)) {
            inboxes.arrived(tag - squad.first, payload, again, now);
        } else if let Some(ledger) = &mut squad.ledger {
            ledger.arrived(&mut member.next, payload, again, now);
        } else if let Some(sightings) = &mut squad.sightings {
            sightings.arrived(&mut member.next, payload, again);
        }
    }

    /// An answer has come; `right`: it is what a heartbeat is answered with.
    #[inline]
    pub(super) fn on_beat_answered(&mut self, tag: u32, right: bool, now: Instant) {
        let now_us = self.micros(now);
        let member = &mut self.members[tag as usize];
        let beats = &mut self.squads[usize::from(member.squad)].beats;
        let waited_for = core::mem::take(&mut member.beating);
        if !(waited_for && right) {
            beats.foreign += 1;
        }
        if !waited_for {
            return;
        }
        beats.answered += u64::from(right);
        beats.latency.saturating_record(now_us.saturating_sub(self.due_us[tag as usize]));
        if let Some(beat) = self.beat.as_mut().filter(|beat| beat.squad == member.squad) {
            beat.under_way -= 1;
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
