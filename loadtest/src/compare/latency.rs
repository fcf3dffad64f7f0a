//! From when a message to one client was due to its arrival: published, and pushed through the gateway's API; idle, and
//! at half of what mosquitto manages. In rounds, each server once in every round.

use super::found::{Late, Latencies};
use super::rows::Row;
use super::stand::speech;
use super::targets::Target;
use super::{OWN_TOPIC, Play};
use crate::Failure;
use crate::cli::Protocol;
use crate::figures::{Latency, Spread};
use crate::fleet::orders::{Mailing, Pace, Plan};
use crate::fleet::squad::user_name;
use crate::rig::Ended;
use crate::source::{Door, Order, Source};
use hdrhistogram::Histogram;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Messages a second that leave a server idle.
const IDLE_RATE: u32 = 500;
/// Half load where mosquitto's full load is not known because that row was not asked for.
const HALF_LOAD_DEFAULT: u32 = 5_000;
/// A stretch in which nothing moves for so long is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pushes in one batch at most.
const BATCH: usize = 16;
/// Messages under way at most: so many that a rate is kept, whatever the server does.
const WINDOW: u64 = 4_000;
/// Start of the user names of devices that get pushes.
const PREFIX: &str = "i";

/// How a message reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Published,
    /// By `PushStream`, at QoS 0, or stored before it is delivered.
    Pushed,
    Stored,
}

/// A line of the table while it is taken.
#[derive(Debug, Default)]
struct Taken {
    all: Option<Histogram<u64>>,
    /// p50 and p99 of each round.
    rounds: Vec<(f64, f64)>,
}

impl<D: Driver> Play<'_, D> {
    pub(super) fn latencies(&mut self) -> Result<Ended, Failure> {
        self.join_inboxes()?;
        let full = self.unicasts_per_second.get(&Target::Mosquitto.name());
        let half = full.map_or(HALF_LOAD_DEFAULT, |rate| (rate / 2.0) as u32).max(IDLE_RATE);
        for (title, rate) in [("Latency, idle", IDLE_RATE), ("Latency at half load", half)] {
            let ended = self.latency(title, rate)?;
            if ended != Ended::Done {
                return Ok(ended);
            }
        }
        self.check(Row::Latency);
        Ok(Ended::Done)
    }

    /// Devices of the gateways, for pushes.
    fn join_inboxes(&mut self) -> Result<(), Failure> {
        for at in 0..self.stands.len() {
            self.expect_letters(at);
            let (target, address) = (self.stands[at].target(), self.stands[at].running.address);
            // A push reaches any device alike.
            if !target.is_ours() || target.protocol() != Protocol::Mqtt {
                continue;
            }
            let count = self.arguments.connections;
            let squad =
                self.rig.fleet_mut().add(count, vec![address], speech(Protocol::Mqtt, PREFIX, Some("$inbox/#")));
            self.ramp(target, squad, self.arguments.handshakes)?;
            let (started, run) = (Instant::now(), std::process::id());
            self.rig.fleet_mut().expect_letters(squad, run, started);
            self.stands[at].inbox = Some((squad, Some(Plan::new(count, run, started))));
        }
        Ok(())
    }

    fn latency(&mut self, title: &str, rate: u32) -> Result<Ended, Failure> {
        let mut taken: BTreeMap<(usize, Way), Taken> = BTreeMap::new();
        for round in 0..self.arguments.rounds as usize {
            let count = self.stands.len();
            for stand in (0..count).map(|offset| (round + offset) % count.max(1)) {
                let ways: &[Way] = match self.stands[stand].inbox {
                    Some(_) => &[Way::Published, Way::Pushed, Way::Stored],
                    None => &[Way::Published],
                };
                for &way in ways {
                    if self.stands[stand].broken {
                        break;
                    }
                    if self.rig.interrupted() {
                        return Ok(Ended::Interrupted);
                    }
                    let Some(histogram) = self.late(stand, way, rate)? else { continue };
                    let at = |quantile| histogram.value_at_quantile(quantile) as f64;
                    let line = taken.entry((stand, way)).or_default();
                    line.rounds.push((at(0.5), at(0.99)));
                    match &mut line.all {
                        Some(all) => all.add(&histogram)?,
                        None => line.all = Some(histogram),
                    }
                }
            }
        }
        self.keep(title, rate, &taken);
        Ok(Ended::Done)
    }

    /// A stretch of one server by one way; none if it stalled.
    fn late(&mut self, at: usize, way: Way, rate: u32) -> Result<Option<Histogram<u64>>, Failure> {
        let stand = &self.stands[at];
        let squad = match (&stand.inbox, way) {
            (Some((squad, _)), Way::Pushed | Way::Stored) => *squad,
            _ => stand.subscribers,
        };
        let label = stand.target().label();
        if let Some(inboxes) = &mut self.rig.fleet_mut().squad_mut(squad).inboxes {
            inboxes.latency.reset();
        }
        let until = Some(Instant::now() + self.arguments.stretch.0);
        let ended = match way {
            // Who speaks MQTT is published to by a thread like the one that pushes.
            Way::Published if self.stands[at].target().protocol() == Protocol::Mqtt => {
                self.push_late(at, squad, until, (rate, way))?
            }
            Way::Published => self.publish_late(at, squad, until, rate)?,
            Way::Pushed | Way::Stored => self.push_late(at, squad, until, (rate, way))?,
        };
        match ended {
            Ended::Done => Ok(self.rig.fleet().squad(squad).inboxes.as_ref().map(|inboxes| inboxes.latency.clone())),
            Ended::Interrupted => Ok(None),
            Ended::Stalled => {
                self.stands[at].broken = true;
                self.report.fault(format!("{label}: latency, {way:?} at {rate}/s stalled"));
                Ok(None)
            }
        }
    }

    fn publish_late(&mut self, at: usize, squad: u8, until: Option<Instant>, rate: u32) -> Result<Ended, Failure> {
        let stand = &mut self.stands[at];
        let (label, publisher) = (stand.target().label(), stand.publisher);
        let plan = stand.plan.take().ok_or("letters are expected")?;
        let fleet = self.rig.fleet_mut();
        fleet.qos = Qos::AtMostOnce;
        fleet.letter_bytes(self.arguments.payload as usize);
        let publisher = fleet.squad(publisher).first;
        let pace = Some(Pace { started: Instant::now(), rate, issued: 0 });
        let topic = OWN_TOPIC.to_owned();
        let mailing = Mailing { squad, publisher, topic, window: WINDOW, left: u64::MAX, until, pace, plan };
        let (ended, plan) = self.rig.mail(label, mailing, PATIENCE)?;
        self.stands[at].plan = Some(plan);
        Ok(ended)
    }

    fn push_late(
        &mut self,
        at: usize,
        squad: u8,
        until: Option<Instant>,
        (rate, way): (u32, Way),
    ) -> Result<Ended, Failure> {
        let stand = &mut self.stands[at];
        let label = stand.target().label();
        let version = self.rig.fleet().version();
        let (door, server, plan) = match (way, &mut stand.inbox) {
            (Way::Published, _) => (Door::Mqtt { topic: OWN_TOPIC, version }, stand.running.address, stand.plan.take()),
            (_, inbox) => (Door::Grpc, stand.running.api, inbox.as_mut().and_then(|(_, plan)| plan.take())),
        };
        let plan = plan.ok_or("letters are expected")?;
        let order = Order {
            door,
            api: server,
            api_key: None,
            plan,
            prefix: PREFIX.to_owned(),
            qos: if way == Way::Stored { Qos::AtLeastOnce } else { Qos::AtMostOnce },
            payload_bytes: self.arguments.payload as usize,
            batch: BATCH,
            window: WINDOW,
            left: u64::MAX,
            until,
            rate: Some(rate),
        };
        debug_assert_eq!(user_name(PREFIX, 0).len(), 20, "pushes and devices agree on names");
        let source = Source::start(order, self.rig.letters(squad))?;
        let ended = self.rig.run(label, u64::MAX, PATIENCE, |fleet| {
            let delivered = fleet.squad(squad).inboxes.as_ref().map_or(0, |inboxes| inboxes.deliveries);
            if source.delivered(delivered) { u64::MAX } else { delivered }
        })?;
        let sent = source.end();
        if let Some(failure) = sent.failure {
            self.report.fault(format!("{label}: {failure}, after {} pushes", sent.pushed));
        }
        if !sent.answers.refused.is_empty() {
            self.report.fault(format!("{label}: pushes were refused: {:?}", sent.answers.refused));
        }
        let stand = &mut self.stands[at];
        match (way, &mut stand.inbox) {
            (Way::Published, _) => stand.plan = Some(sent.plan),
            (_, Some((_, plan))) => *plan = Some(sent.plan),
            (_, None) => {}
        }
        Ok(ended)
    }

    /// Puts a table into the result, each line beside mosquitto's of the same round.
    fn keep(&mut self, title: &str, rate: u32, taken: &BTreeMap<(usize, Way), Taken>) {
        let of = |target: Target| self.stands.iter().position(|stand| stand.target() == target);
        let reference = of(Target::Mosquitto).and_then(|stand| taken.get(&(stand, Way::Published)));
        let ratio = |line: &Taken, pick: fn(&(f64, f64)) -> f64| {
            let pairs = line.rounds.iter().zip(&reference?.rounds);
            Spread::of(&pairs.map(|(ours, theirs)| pick(ours) / pick(theirs).max(1.0)).collect::<Vec<_>>())
        };
        let drawn = [Target::KittiwakeUring, Target::KittiwakeEpoll].into_iter().find(|target| of(*target).is_some());
        let mut items = Vec::new();
        println!("\n{title}, {rate} messages a second");
        for ((stand, way), line) in taken {
            let Some(all) = &line.all else { continue };
            let name = match way {
                Way::Published => self.stands[*stand].target().label().to_owned(),
                Way::Pushed => format!("{}, pushed", self.stands[*stand].target().label()),
                Way::Stored => format!("{}, stored and pushed", self.stands[*stand].target().label()),
            };
            let latency = Latency::of(all);
            let (p50_ratio, p99_ratio) = (ratio(line, |round| round.0), ratio(line, |round| round.1));
            let beside = |ratio: &Option<Spread>| ratio.as_ref().map_or(f64::NAN, |ratio| ratio.median);
            println!(
                "  {name:<40} p50 {:>6} p99 {:>6} max {:>7} µs; to mosquitto {:.2} and {:.2}",
                latency.p50_us,
                latency.p99_us,
                latency.max_us,
                beside(&p50_ratio),
                beside(&p99_ratio)
            );
            // More than these could not be told apart.
            let drawn = [Some(Target::Mosquitto), drawn].contains(&Some(self.stands[*stand].target()));
            items.push(Late { name, latency, drawn, p50_ratio, p99_ratio });
        }
        let about = format!(
            "{rate} messages a second, each to one of {} clients; QoS 0 but where it says stored",
            self.arguments.connections
        );
        self.found.latencies.push(Latencies { title: title.to_owned(), about, items });
    }
}
