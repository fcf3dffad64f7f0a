//! A stretch of a row against each server in turn, and one against the floor.

use super::rows::Row;
use super::{OWN_TOPIC, Play, TOPIC};
use crate::Failure;
use crate::cli::Protocol;
use crate::fleet::BEAT_BYTES;
use crate::fleet::orders::{Beat, Drive, Mailing, Plan};
use crate::fleet::squad::publish;
use crate::rig::Ended;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use kittiwake::wire::mqtt::Encode;
use std::time::{Duration, Instant};

/// A stretch in which nothing moves for so long is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// For a server to become idle between stretches, so that what it did is accounted for.
const SETTLE: Duration = Duration::from_millis(50);
/// Messages, in windows, before anything is measured.
const WARM_UP_WINDOWS: u64 = 2;
/// Pings, or messages to single clients, before anything is measured.
const WARM_UP_UNITS: u64 = 1_000;
/// Pings that may be unanswered, and messages to single clients that may be under way.
pub const WINDOW: u64 = 16;

/// How long a stretch is.
#[derive(Clone, Copy, Debug)]
enum Length {
    WarmUp,
    Whole(Duration),
}

/// What a stretch gave: microseconds of CPU a unit, and how many units or messages.
type Stretch = Result<(f64, u64), Ended>;

impl<D: Driver> Play<'_, D> {
    /// All rounds of a row.
    pub(super) fn row(&mut self, row: Row) -> Result<Ended, Failure> {
        let whole = Length::Whole(self.arguments.stretch.0);
        for stand in 0..self.stands.len() {
            self.one(stand, row, Length::WarmUp)?;
        }
        for round in 0..self.arguments.rounds as usize {
            let (count, mut units) = (self.stands.len(), 0);
            // Each round begins with another server, so that none always follows the same.
            for stand in (0..count).map(|offset| (round + offset) % count.max(1)) {
                if self.rig.interrupted() {
                    return Ok(Ended::Interrupted);
                }
                if let Some((us, done)) = self.one(stand, row, whole)? {
                    self.taken.add(row, self.stands[stand].target(), us);
                    units = units.max(done);
                }
            }
            match self.floor_stretch(row, units.max(1))? {
                Ok(us) => self.taken.add_floor(row, us),
                Err(ended) => return Ok(ended),
            }
        }
        self.check(row);
        Ok(if self.rig.interrupted() { Ended::Interrupted } else { Ended::Done })
    }

    /// A stretch against a server that can have it; none where it cannot, which is noted.
    fn one(&mut self, stand: usize, row: Row, length: Length) -> Result<Option<(f64, u64)>, Failure> {
        let target = self.stands[stand].target();
        let has_qos = target.protocol().is_mqtt();
        if row.fanout().is_some_and(|(qos, _)| qos != Qos::AtMostOnce) && !has_qos {
            self.taken.note(row, target, "no QoS");
            return Ok(None);
        }
        if row == Row::Ping && target.protocol() == Protocol::Sse {
            self.taken.note(row, target, "its clients say nothing");
            return Ok(None);
        }
        if self.stands[stand].broken {
            self.taken.note(row, target, "not measured: an earlier row stalled");
            return Ok(None);
        }
        self.rig.rest("settle", SETTLE)?;
        let stretch = match row {
            Row::Ping => self.ping(stand, length)?,
            Row::Unicast => self.unicast(stand, length)?,
            _ => self.fanout(stand, row, length)?,
        };
        match stretch {
            Ok(found) => Ok(Some(found)),
            Err(Ended::Stalled) => {
                self.stands[stand].broken = true;
                self.taken.note(row, target, "stalled");
                self.report.fault(format!("{}: {} stalled", target.label(), row.title()));
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    /// Until when, and how many units at most.
    fn bounds(length: Length, warm_up: u64) -> (Option<Instant>, u64) {
        match length {
            Length::WarmUp => (None, warm_up),
            Length::Whole(time) => (Some(Instant::now() + time), u64::MAX),
        }
    }

    fn fanout(&mut self, stand: usize, row: Row, length: Length) -> Result<Stretch, Failure> {
        let stand = &self.stands[stand];
        let (process, squad) = (stand.running.process, stand.subscribers);
        let (qos, window) = row.fanout().ok_or("only fan-outs come here")?;
        let (cpu, before) = (process.cpu_ns()?, self.rig.deliveries(squad));
        let published = self.published(squad);
        let (until, left) = Self::bounds(length, window * WARM_UP_WINDOWS);
        let publisher = self.rig.fleet().squad(stand.publisher).first;
        let fleet = self.rig.fleet_mut();
        (fleet.topic, fleet.qos) = (TOPIC.to_owned(), qos);
        let drive = Drive { squad, publisher, window, unit: 1, head: Vec::new(), left, until, pace: None };
        let ended = self.rig.publish(self.stands_label(squad), drive, PATIENCE)?;
        self.rig.rest("settle", SETTLE)?;
        let us = (process.cpu_ns()? - cpu) as f64 / 1_000.0 / (self.rig.deliveries(squad) - before).max(1) as f64;
        let messages = self.published(squad) - published;
        Ok(if ended == Ended::Done { Ok((us, messages)) } else { Err(ended) })
    }

    fn stands_label(&self, squad: u8) -> &'static str {
        let stand = self.stands.iter().find(|stand| stand.subscribers == squad);
        stand.map_or("floor", |stand| stand.target().label())
    }

    fn published(&self, squad: u8) -> u64 {
        self.rig.fleet().squad(squad).ledger.as_ref().map_or(0, |ledger| ledger.published())
    }

    fn ping(&mut self, stand: usize, length: Length) -> Result<Stretch, Failure> {
        let stand = &self.stands[stand];
        let (process, squad) = (stand.running.process, stand.subscribers);
        let (cpu, before) = (process.cpu_ns()?, self.rig.fleet().squad(squad).beats.answered);
        let beat = Self::beat(squad, Self::bounds(length, WARM_UP_UNITS));
        let ended = self.rig.beat(self.stands_label(squad), beat, PATIENCE)?;
        self.rig.rest("settle", SETTLE)?;
        let answered = self.rig.fleet().squad(squad).beats.answered - before;
        let us = (process.cpu_ns()? - cpu) as f64 / 1_000.0 / answered.max(1) as f64;
        Ok(if ended == Ended::Done { Ok((us, answered)) } else { Err(ended) })
    }

    fn beat(squad: u8, (until, left): (Option<Instant>, u64)) -> Beat {
        Beat { squad, next: 0, window: WINDOW as u32, under_way: 0, left, until, pace: None }
    }

    fn unicast(&mut self, stand: usize, length: Length) -> Result<Stretch, Failure> {
        self.expect_letters(stand);
        let (until, left) = Self::bounds(length, WARM_UP_UNITS);
        let stand = &mut self.stands[stand];
        let (process, squad) = (stand.running.process, stand.subscribers);
        let (label, plan) = (stand.target().label(), stand.plan.take().ok_or("letters are expected")?);
        let publisher = stand.publisher;
        let (name, started, cpu) = (stand.target().name(), Instant::now(), process.cpu_ns()?);
        let (ended, letters) = self.mail(label, (squad, publisher), (until, left), plan)?;
        self.unicasts_per_second.insert(name, letters as f64 / started.elapsed().as_secs_f64().max(0.001));
        self.rig.rest("settle", SETTLE)?;
        let us = (process.cpu_ns()? - cpu) as f64 / 1_000.0 / letters.max(1) as f64;
        Ok(if ended == Ended::Done { Ok((us, letters)) } else { Err(ended) })
    }

    /// From now on a stand's subscribers expect what each gets alone.
    pub(super) fn expect_letters(&mut self, stand: usize) {
        let stand = &mut self.stands[stand];
        if stand.plan.is_none() {
            let (started, run) = (Instant::now(), std::process::id());
            self.rig.fleet_mut().expect_letters(stand.subscribers, run, started);
            stand.plan = Some(Plan::new(self.arguments.connections, run, started));
        }
    }

    fn mail(
        &mut self,
        what: &str,
        (squad, publisher): (u8, u8),
        (until, left): (Option<Instant>, u64),
        plan: Plan,
    ) -> Result<(Ended, u64), Failure> {
        let before = plan.total;
        let fleet = self.rig.fleet_mut();
        fleet.qos = Qos::AtMostOnce;
        fleet.letter_bytes(self.arguments.payload as usize);
        let publisher = fleet.squad(publisher).first;
        let topic = OWN_TOPIC.to_owned();
        let mailing = Mailing { squad, publisher, topic, window: WINDOW, left, until, pace: None, plan };
        let (ended, plan) = self.rig.mail(what, mailing, PATIENCE)?;
        let letters = plan.total - before;
        let stand = self.stands.iter_mut().find(|stand| stand.subscribers == squad);
        stand.ok_or("letters go to a stand")?.plan = Some(plan);
        Ok((ended, letters))
    }

    /// As much towards bare sockets.
    fn floor_stretch(&mut self, row: Row, units: u64) -> Result<Result<f64, Ended>, Failure> {
        if let (Some((qos, window)), Some(fan)) = (row.fanout(), &mut self.fan) {
            return fan.stretch(&mut self.rig, (TOPIC, qos), (units, window), PATIENCE);
        }
        let Some((server, squad)) = &mut self.bare else { return Err("there is no floor".into()) };
        let squad = *squad;
        if row == Row::Ping {
            let (process, until) = (server.process(), None);
            let before = process.cpu_ns()?;
            server.ask(&format!("echo {units} {BEAT_BYTES}"))?;
            let ended = self.rig.beat("floor", Self::beat(squad, (until, units)), PATIENCE)?;
            if ended != Ended::Done {
                return Ok(Err(ended));
            }
            server.answer()?;
            return Ok(Ok((process.cpu_ns()? - before) as f64 / 1_000.0 / units as f64));
        }
        let payload = vec![0; self.arguments.payload as usize];
        let bytes = publish(OWN_TOPIC, Qos::AtMostOnce, 0, &payload).encoded_len(self.rig.fleet().version());
        let rounds = (units / u64::from(self.arguments.connections)).max(1);
        let goal = self.rig.fleet().squad(squad).bytes + rounds * u64::from(self.arguments.connections) * bytes as u64;
        server.ask(&format!("send {bytes} {rounds}"))?;
        let ended = self.rig.run("floor", goal, PATIENCE, |fleet| fleet.squad(squad).bytes)?;
        if ended != Ended::Done {
            return Ok(Err(ended));
        }
        let answer = server.answer()?;
        Ok(Ok(answer.us()))
    }

    /// Whether everything came as it should, at every server and at the floor.
    pub(super) fn check(&mut self, row: Row) {
        let mut wrong = Vec::new();
        for stand in &self.stands {
            let (label, squad) = (stand.target().label(), self.rig.fleet().squad(stand.subscribers));
            let fan = squad.ledger.as_ref().map(|ledger| ledger.checked());
            let own =
                squad.inboxes.as_ref().zip(stand.plan.as_ref()).map(|(inboxes, plan)| inboxes.checked(&plan.issued));
            let found = fan.into_iter().chain(own).chain([squad.beats.checked()]);
            wrong.extend(
                found.filter(|found| !found.is_right()).map(|found| format!("{label}: {}: {found:?}", row.title())),
            );
        }
        if let Some(ledger) = self.fan.as_ref().and_then(|fan| self.rig.fleet().squad(fan.subscribers).ledger.as_ref())
            && !ledger.checked().is_right()
        {
            wrong.push(format!("floor: {}: {:?}", row.title(), ledger.checked()));
        }
        wrong.into_iter().for_each(|text| self.report.fault(text));
    }
}
