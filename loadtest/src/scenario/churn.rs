//! Clients that come and go beside many that stay: what a connection with a subscription costs to set up, in pairs with
//! a bare accept, two receives and two sends, and to end. Afterwards everybody who is there must get one message.

use super::push::{Broadcast, push_everyone};
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::Churn;
use crate::figures::{Latency, Pairs, PairsTaken, Spread};
use crate::fleet::orders::Saying;
use crate::fleet::squad::Speech;
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::{Climb, Rig};
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
    /// CPU of the server for the end of a connection.
    pub tear_down_us: Option<Spread>,
    /// From when a connection was due to its subscription.
    pub set_up_latency: Latency,
    pub per_second: Option<Spread>,
    /// The message to all at the end.
    pub push: Option<Broadcast>,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Churn) -> Result<Report, Failure> {
    let common = &arguments.common;
    let connections = common.connections.saturating_add(arguments.guests);
    let mut site = Site::open(rig, common, "churn", connections)?;
    let (guests, rounds, clean) = (arguments.guests, arguments.rounds, !arguments.keep_sessions);
    let mut found = Found { connections: common.connections, guests, rounds, clean, ..Found::default() };
    let ended = play(&mut site, arguments, &mut found);
    site.report.pairs("set_up", &found.set_up);
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

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Churn, found: &mut Found) -> Step<()> {
    let common = &arguments.common;
    let subscription = || Some((arguments.subscribe.clone(), arguments.qos.qos()));
    let before = site.stats()?;
    let stay = if common.connections > 0 {
        let speech = site.speech("stay", found.clean, subscription());
        Some(done!(site.join("connect", common.connections, speech)?))
    } else {
        None
    };
    let speech = site.speech("come", found.clean, subscription());
    let come = site.rig.fleet_mut().add(found.guests, common.target.clone(), Speech::Mqtt(speech));
    let mut floor = match arguments.no_floor {
        true => None,
        false => {
            let floor = FloorServer::start(common.server_cpu)?;
            let speech = site.speech("come", true, Some(("floor".to_owned(), Qos::AtMostOnce)));
            let squad = site.rig.fleet_mut().add(found.guests, vec![floor.address], Speech::Mqtt(speech));
            Some((floor, squad))
        }
    };
    let (mut taken, mut left, mut speeds) = (PairsTaken::default(), Vec::new(), Vec::new());
    let played: Step<()> = (|| {
        for round in 0..=found.rounds {
            let set_up = done!(come_and_go(site, come, round == 0, &mut left, &mut speeds)?);
            let floor_us = match &mut floor {
                Some((floor, squad)) => Some(done!(greet(site, floor, *squad)?)),
                None => None,
            };
            // The first round warms both up.
            if round > 0 {
                taken.push(set_up, floor_us);
            } else {
                site.rig.fleet_mut().set_up.reset();
            }
        }
        Ok(Ok(()))
    })();
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

/// All guests come, at the rate that was asked for, and go; CPU of a coming.
fn come_and_go<D: Driver>(
    site: &mut Site<'_, D>,
    squad: u8,
    warm_up: bool,
    left: &mut Vec<f64>,
    speeds: &mut Vec<f64>,
) -> Step<Option<f64>> {
    done!(site.settle()?);
    let count = site.rig.fleet().squad(squad).count;
    let climb = Climb { rate: site.common.rate, handshakes: site.common.handshakes, due: None };
    let (cpu, started) = (site.cpu_ns()?, std::time::Instant::now());
    done!(hoped(site.rig.ramp_some("come", squad, 0..count, climb)?));
    let seconds = started.elapsed().as_secs_f64();
    done!(site.settle()?);
    let set_up = site.us_each(cpu, u64::from(count))?;
    let ready = site.rig.fleet().squad(squad).ready;
    if ready < count {
        site.report.fault(format!("{ready} of {count} clients came"));
    }
    let cpu = site.cpu_ns()?;
    done!(hoped(site.rig.leave_some("go", squad, 0..count, Saying::Goodbye)?));
    done!(site.settle()?);
    if !warm_up {
        left.extend(site.us_each(cpu, u64::from(count))?);
        speeds.push(f64::from(count) / seconds.max(0.000_001));
    }
    Ok(Ok(set_up))
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
    let us = (process.cpu_ns()? - before) as f64 / 1_000.0 / f64::from(count.max(1));
    done!(hoped(site.rig.leave_some("floor", squad, 0..count, Saying::Goodbye)?));
    floor.ask("forget")?;
    floor.answer()?;
    Ok(Ok(us))
}
