//! Clients that come and go beside many that stay: what a connection with a subscription costs to set up, in pairs with
//! a bare accept, two receives and two sends, and to end. Afterwards everybody who is there must get one message.
//! Or in pairs with another gateway, where others stay: one behind the other the two would meet different hours.

use super::push::{Broadcast, push_everyone};
use super::site::{CONNECTIONS_SPARE, Site, Step, done, hoped};
use crate::Failure;
use crate::cli::{Churn, Common};
use crate::figures::{Latency, Pairs, PairsTaken, Spread};
use crate::fleet::orders::Saying;
use crate::fleet::squad::Speech;
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::{Climb, Rig};
use crate::server::{Process, Server, free_addresses};
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;

/// Bytes of the message at the end.
const PAYLOAD_BYTES: usize = 64;

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// Clients that stay.
    pub connections: u32,
    /// Clients that come and go, and how often.
    pub guests: u32,
    pub rounds: u32,
    pub clean: bool,
    /// P5.
    pub set_up: Pairs,
    /// The same beside how many others stay: P5 once more.
    pub beside: Option<Beside>,
    /// CPU of the server for the end of a connection.
    pub tear_down_us: Option<Spread>,
    /// From when a connection was due to its subscription.
    pub set_up_latency: Latency,
    pub per_second: Option<Spread>,
    /// The message to all at the end.
    pub push: Option<Broadcast>,
}

/// The same connections to another gateway.
#[derive(Debug, Serialize)]
pub struct Beside {
    /// Clients that stay there.
    pub connections: u32,
    /// CPU of that gateway for a set-up.
    pub server_us: Spread,
    /// What a set-up takes of the one in question, divided by what it takes there, in each round.
    pub ratio: Spread,
}

/// Whom the server is measured in turns with.
enum Other {
    Nobody,
    /// It and its squad of guests.
    Floor(FloorServer, u8),
    Gateway(Visited),
}

/// A gateway and its guests.
#[derive(Clone, Copy)]
struct Visited {
    process: Option<Process>,
    guests: u8,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Churn) -> Result<Report, Failure> {
    let common = &arguments.common;
    let connections = common.connections.saturating_add(arguments.guests);
    let mut site = Site::open(rig, common, "churn", connections)?;
    let (guests, rounds, clean) = (arguments.guests, arguments.rounds, !arguments.keep_sessions);
    let mut found = Found { connections: common.connections, guests, rounds, clean, ..Found::default() };
    let second = second(arguments)?;
    let ended = play(&mut site, arguments, second.as_ref(), &mut found);
    site.report.pairs("set_up", &found.set_up);
    if let Some(beside) = &found.beside {
        site.report.quartiles("beside_server_us", &beside.server_us.all, "µs server CPU where fewer stay");
        site.report.quartiles("beside_ratio", &beside.ratio.all, "of it");
    }
    if let Some(spread) = &found.tear_down_us {
        site.report.quartiles("tear_down_us", &spread.all, "µs server CPU");
    }
    if let Some(spread) = &found.per_second {
        site.report.quartiles("set_up_per_second", &spread.all, "/s");
    }
    site.report.latency("set-up latency", &found.set_up_latency);
    if let Some(push) = &found.push {
        site.report.checked("push to everyone", &push.deliveries);
    }
    site.close(ended, &found)
}

/// The gateway that is measured in turns with the one in question, if it is asked for, and where it is.
fn second(arguments: &Churn) -> Result<Option<(Server, Common)>, Failure> {
    let Some(connections) = arguments.beside else { return Ok(None) };
    let [target, api] = free_addresses()?;
    let mut common = Common { target: vec![target], api: Some(api), connections, ..arguments.common.clone() };
    for pair in common.server.gateway_env.iter_mut().filter(|pair| pair.starts_with("KITTIWAKE_STORE_DATA_DIR=")) {
        pair.push_str("-beside");
    }
    let server = Server::spawn(&common, connections.saturating_add(arguments.guests) + CONNECTIONS_SPARE)?;
    Ok(Some((server, common)))
}

fn play<D: Driver>(
    site: &mut Site<'_, D>,
    arguments: &Churn,
    second: Option<&(Server, Common)>,
    found: &mut Found,
) -> Step<()> {
    let common = &arguments.common;
    let subscription = || Some((arguments.subscribe.clone(), arguments.qos.qos()));
    let before = site.stats()?;
    let stay = if common.connections > 0 {
        let speech = site.speech("stay", found.clean, subscription());
        Some(done!(site.join("connect", common.connections, speech)?))
    } else {
        None
    };
    let speech = Speech::Mqtt(site.speech("come", found.clean, subscription()));
    let guests = site.rig.fleet_mut().add(found.guests, common.target.clone(), speech);
    let here = Visited { process: site.process, guests };
    let mut other = match second {
        Some((server, common)) => {
            let speech = site.speech("stay", found.clean, subscription());
            done!(site.join_at(&common.target, "beside", common.connections, speech)?);
            let speech = Speech::Mqtt(site.speech("come", found.clean, subscription()));
            let guests = site.rig.fleet_mut().add(found.guests, common.target.clone(), speech);
            Other::Gateway(Visited { process: server.process(), guests })
        }
        None if arguments.no_floor => Other::Nobody,
        None => {
            let floor = FloorServer::start(common.server_cpu)?;
            let speech = site.speech("come", true, Some(("floor".to_owned(), Qos::AtMostOnce)));
            let squad = site.rig.fleet_mut().add(found.guests, vec![floor.address], Speech::Mqtt(speech));
            Other::Floor(floor, squad)
        }
    };
    let (mut taken, mut left, mut speeds) = (PairsTaken::default(), Vec::new(), Vec::new());
    let (mut beside_us, mut ratios) = (Vec::new(), Vec::new());
    let played: Step<()> = (|| {
        for round in 0..=found.rounds {
            let visit = done!(come_and_go(site, here)?);
            let mut floor_us = None;
            let beside = match &mut other {
                Other::Nobody => None,
                Other::Floor(floor, squad) => {
                    floor_us = Some(done!(greet(site, floor, *squad)?));
                    None
                }
                Other::Gateway(there) => done!(come_and_go(site, *there)?).set_up_us,
            };
            // The first round warms all up.
            if round == 0 {
                site.rig.fleet_mut().set_up.reset();
                continue;
            }
            taken.push(visit.set_up_us, floor_us);
            left.extend(visit.tear_down_us);
            speeds.push(visit.per_second);
            beside_us.extend(beside);
            ratios.extend(visit.set_up_us.zip(beside).map(|(here, there)| here / there));
        }
        Ok(Ok(()))
    })();
    found.beside = Spread::of(&beside_us).zip(Spread::of(&ratios)).map(|(server_us, ratio)| Beside {
        connections: arguments.beside.unwrap_or(0),
        server_us,
        ratio,
    });
    found.set_up = taken.pairs("a connection with a subscription");
    (found.tear_down_us, found.per_second) = (Spread::of(&left), Spread::of(&speeds));
    found.set_up_latency = Latency::of(&site.rig.fleet().set_up);
    done!(played?);
    if let Some(stay) = stay {
        if site.api.is_some() && arguments.subscribe.starts_with("$inbox/") {
            found.push = Some(done!(push_everyone(site, stay, PAYLOAD_BYTES, Qos::AtMostOnce)?));
        }
        done!(hoped(site.rig.leave("leave", stay)?));
    }
    if let Some(before) = before {
        site.expect_free(&before, !found.clean)?;
    }
    Ok(Ok(()))
}

/// What one coming and going of all guests took.
struct Visit {
    /// CPU of the server, each.
    set_up_us: Option<f64>,
    tear_down_us: Option<f64>,
    per_second: f64,
}

/// All guests come, at the rate that was asked for, and go.
fn come_and_go<D: Driver>(site: &mut Site<'_, D>, Visited { process, guests }: Visited) -> Step<Visit> {
    let cpu_ns = || process.map(Process::cpu_ns).transpose();
    let us_each = |before: Option<u64>, count: u32| {
        process.zip(before).map(|(process, before)| process.us_each(before, u64::from(count))).transpose()
    };
    done!(site.settle()?);
    let count = site.rig.fleet().squad(guests).count;
    let climb = Climb { rate: site.common.rate, handshakes: site.common.handshakes, due: None };
    let (cpu, started) = (cpu_ns()?, std::time::Instant::now());
    done!(hoped(site.rig.ramp_some("come", guests, 0..count, climb)?));
    let seconds = started.elapsed().as_secs_f64();
    done!(site.settle()?);
    let set_up_us = us_each(cpu, count)?;
    let ready = site.rig.fleet().squad(guests).ready;
    if ready < count {
        site.report.fault(format!("{ready} of {count} clients came"));
    }
    let cpu = cpu_ns()?;
    done!(hoped(site.rig.leave_some("go", guests, 0..count, Saying::Goodbye)?));
    done!(site.settle()?);
    let tear_down_us = us_each(cpu, count)?;
    Ok(Ok(Visit { set_up_us, tear_down_us, per_second: f64::from(count) / seconds.max(0.000_001) }))
}

/// The same towards the floor, which knows no more of MQTT than two answers.
fn greet<D: Driver>(site: &mut Site<'_, D>, floor: &mut FloorServer, squad: u8) -> Step<f64> {
    let count = site.rig.fleet().squad(squad).count;
    let (process, climb) =
        (floor.process(), Climb { rate: site.common.rate, handshakes: site.common.handshakes, due: None });
    let before = process.cpu_ns()?;
    floor.ask(&format!("greet {count}"))?;
    done!(hoped(site.rig.ramp_some("floor", squad, 0..count, climb)?));
    floor.answer()?;
    let us = process.us_each(before, u64::from(count))?;
    done!(hoped(site.rig.leave_some("floor", squad, 0..count, Saying::Goodbye)?));
    floor.ask("forget")?;
    floor.answer()?;
    Ok(Ok(us))
}
