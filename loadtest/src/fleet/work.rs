//! What the fleet is told to do, a bounded step of it each turn.

use super::orders::{Pace, STEP_MAX, Saying};
use super::squad::{self, NUMBER_MARK, Speech, Stage};
use super::{BEAT_BYTES, Core, Fleet, OVERHEAD_BYTES_MAX};
use kittiwake::engine::{Close, CloseCause, Room};
use kittiwake::io::Driver;
use kittiwake::wire::mqtt::{self, Disconnect, PingReq};
use std::time::Instant;

/// What stands for a PINGREQ on a bare socket.
const BARE_BEAT: [u8; BEAT_BYTES] = [0xc0, 0];

impl Fleet {
    /// A step of publishing to all of a squad.
    pub(super) fn go_on_publishing<D: Driver>(&mut self, core: &mut Core<D>) {
        let Some(drive) = &mut self.drive else { return };
        let now = Instant::now();
        if drive.until.is_some_and(|until| now >= until) {
            drive.left = 0;
        }
        let publisher = &self.members[drive.publisher as usize];
        let Some(id) = publisher.id else { return };
        let foreign = self.squads[usize::from(publisher.squad)].backend();
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
                let (topic, payload) = (&self.topic, ledger.next(due));
                let written = match foreign {
                    Some((tongue, address)) => {
                        self.voice.utter(core, id, Room::Data, |out| tongue.publish(topic, address, payload, out))
                    }
                    None => self.voice.say(core, id, Room::Data, &squad::publish(topic, self.qos, number, payload)),
                };
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

    /// A step of publishing letters.
    pub(super) fn go_on_mailing<D: Driver>(&mut self, core: &mut Core<D>) {
        let Self { mailing: Some(mailing), members, squads, voice, letter: payload, .. } = self else { return };
        let now = Instant::now();
        if mailing.until.is_some_and(|until| now >= until) {
            mailing.left = 0;
        }
        let publisher = &members[mailing.publisher as usize];
        let Some(id) = publisher.id else { return };
        let foreign = squads[usize::from(publisher.squad)].backend();
        let inboxes = squads[usize::from(mailing.squad)].inboxes.as_ref();
        let delivered = inboxes.expect("a squad that letters go to expects them").deliveries;
        for _ in 0..STEP_MAX {
            // What is acknowledged at QoS 1 may be under way yet, so deliveries alone open the window.
            if mailing.left == 0 || mailing.plan.total - delivered >= mailing.window {
                return;
            }
            let due = mailing.pace.map_or(now, |pace: Pace| pace.due());
            let room = core.outbox_room(id) > payload.len() + mailing.topic.len() + OVERHEAD_BYTES_MAX;
            if due > now || !room {
                self.tally.held_back += u64::from(!room);
                return;
            }
            let number = mailing.plan.total;
            let letter = mailing.plan.letter(due);
            letter.write(payload);
            let topic = mailing.topic.replace(NUMBER_MARK, &letter.member.to_string());
            let said = match foreign {
                Some((tongue, address)) => {
                    voice.utter(core, id, Room::Data, |out| tongue.publish(&topic, address, payload, out))
                }
                None => voice.say(core, id, Room::Data, &squad::publish(&topic, self.qos, number, payload)),
            };
            self.tally.failed += u64::from(said.is_err());
            mailing.left -= 1;
            if let Some(pace) = &mut mailing.pace {
                pace.issued += 1;
            }
        }
    }

    /// A step of heartbeats. One that is due waits for a member that has its last answer.
    pub(super) fn go_on_beating<D: Driver>(&mut self, core: &mut Core<D>) {
        let Self { beat: Some(beat), members, squads, voice, due_us, born, tally, .. } = self else { return };
        let (now, squad) = (Instant::now(), &mut squads[usize::from(beat.squad)]);
        if beat.until.is_some_and(|until| now >= until) {
            beat.left = 0;
        }
        for _ in 0..STEP_MAX {
            if beat.left == 0 || beat.under_way >= beat.window {
                return;
            }
            let due = beat.pace.map_or(now, |pace: Pace| pace.due());
            if due > now {
                return;
            }
            let tag = squad.first + beat.next;
            beat.next = (beat.next + 1) % squad.count;
            let member = &mut members[tag as usize];
            let Some(id) = member.id.filter(|_| member.stage == Stage::Ready && !member.beating) else { continue };
            let said = match squad.speech {
                Speech::Mqtt(_) => voice.say(core, id, Room::Control, &PingReq),
                Speech::Foreign(ref foreign) => voice.utter(core, id, Room::Control, |out| foreign.tongue.ping(out)),
                Speech::Raw | Speech::Packets(_) => core.write_bytes(id, Room::Control, &BARE_BEAT),
            };
            if said.is_err() {
                tally.held_back += 1;
                continue;
            }
            member.beating = true;
            due_us[tag as usize] = due.saturating_duration_since(*born).as_micros() as u64;
            (beat.under_way, beat.left) = (beat.under_way + 1, beat.left - 1);
            squad.beats.sent += 1;
            if let Some(pace) = &mut beat.pace {
                pace.issued += 1;
            }
        }
    }

    /// A step of slow reading.
    pub(super) fn go_on_sipping<D: Driver>(&mut self, core: &mut Core<D>) {
        let Self { sip: Some(sip), members, squads, .. } = self else { return };
        let (now, squad) = (Instant::now(), &squads[usize::from(sip.squad)]);
        for _ in 0..STEP_MAX {
            if sip.pace.due() > now {
                return;
            }
            sip.pace.issued += 1;
            let member = &members[(squad.first + sip.next) as usize];
            sip.next = (sip.next + 1) % squad.count;
            if let Some(id) = member.id {
                core.resume_reading(id);
            }
        }
    }

    /// A step of a round.
    pub(super) fn go_round<D: Driver>(&mut self, core: &mut Core<D>) {
        let Some(round) = &mut self.round else { return };
        let squad = &mut self.squads[usize::from(round.squad)];
        for _ in 0..STEP_MAX {
            if round.next == round.end {
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
                    squad.ready -= 1;
                    if matches!(squad.speech, Speech::Mqtt(_)) {
                        let goodbye = Disconnect::new(mqtt::Reason::Success);
                        // Whether they fit or not, the connection closes.
                        let _ = self.voice.say(core, id, Room::Control, &goodbye);
                        let _ = self.voice.close(core, id);
                    }
                    core.close(id, Close::AfterFlush, CloseCause::Local);
                }
                Saying::Drop => {
                    member.stage = Stage::Leaving;
                    squad.ready -= 1;
                    core.close(id, Close::Now, CloseCause::Local);
                }
                Saying::Read => core.resume_reading(id),
            }
        }
    }
}
