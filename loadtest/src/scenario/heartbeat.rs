//! Keep-alive: what a PINGREQ costs the server that answers it, in pairs with a bare receive and send, and how long the
//! answer takes from when the heartbeat was due. Each must be answered once.

use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::{Heartbeat, Seconds};
use crate::figures::{Checked, Latency, Pairs, PairsTaken};
use crate::fleet::BEAT_BYTES;
use crate::fleet::orders::{Beat, Pace};
use crate::fleet::squad::Speech;
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::Rig;
use crate::server::Process;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Heartbeats of each client before anything is measured.
const WARM_UP_ROUNDS: u64 = 1;

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    /// Heartbeats a second that were due; 0: as many as the window allowed.
    pub rate: u32,
    pub window: u32,
    /// P4.
    pub cost: Pairs,
    pub per_second: f64,
    pub latency: Latency,
    pub floor_latency: Latency,
    pub heartbeats: Checked,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Heartbeat) -> Result<Report, Failure> {
    let common = &arguments.common;
    let mut site = Site::open(rig, common, "heartbeat", common.connections)?;
    let mut found = Found {
        connections: common.connections,
        rate: arguments.beat_rate,
        window: arguments.window.min(common.connections),
        ..Found::default()
    };
    let ended = play(&mut site, arguments, &mut found);
    site.report.pairs("heartbeat", &found.cost);
    site.report.latency("heartbeat latency", &found.latency);
    site.report.checked("heartbeats", &found.heartbeats);
    site.close(ended, &found)
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Heartbeat, found: &mut Found) -> Step<()> {
    let speech = site.speech("beat", arguments.clean, Some(("$inbox/#".to_owned(), Qos::AtLeastOnce)));
    let squad = done!(site.join("connect", arguments.common.connections, speech)?);
    let mut floor = match arguments.no_floor {
        true => None,
        false => Some(done!(site.join_floor(arguments.common.connections, Speech::Raw)?)),
    };
    let warm_up = WARM_UP_ROUNDS * u64::from(found.connections);
    let mut taken = PairsTaken::default();
    let (mut busy, mut beaten) = (Duration::ZERO, 0);
    let played: Step<()> = (|| {
        done!(server_stretch(site, squad, Some(warm_up), arguments, found)?);
        if let Some((floor, squad)) = &mut floor {
            done!(floor_stretch(site, floor, *squad, warm_up, found)?);
        }
        for squad in &mut site.rig.fleet_mut().squads {
            squad.beats.latency.reset();
        }
        for _ in 0..arguments.pairs {
            let begun = Instant::now();
            let (us, beats) = done!(server_stretch(site, squad, None, arguments, found)?);
            busy += begun.elapsed();
            beaten += beats;
            let floor_us = match &mut floor {
                Some((floor, squad)) => Some(done!(floor_stretch(site, floor, *squad, beats, found)?)),
                None => None,
            };
            taken.push(us, floor_us);
        }
        Ok(Ok(()))
    })();
    found.cost = taken.pairs("a heartbeat answered");
    let beats = &site.rig.fleet().squad(squad).beats;
    found.heartbeats = beats.checked();
    found.latency = Latency::of(&beats.latency);
    found.per_second = beaten as f64 / busy.as_secs_f64().max(0.001);
    if let Some((_, squad)) = &floor {
        found.floor_latency = Latency::of(&site.rig.fleet().squad(*squad).beats.latency);
    }
    done!(played?);
    if let Some((_, squad)) = floor {
        done!(hoped(site.rig.leave("leave", squad)?));
    }
    Ok(hoped(site.rig.leave("leave", squad)?))
}

/// Heartbeats towards the server, so many or for a stretch; CPU each, and how many.
fn server_stretch<D: Driver>(
    site: &mut Site<'_, D>,
    squad: u8,
    count: Option<u64>,
    arguments: &Heartbeat,
    found: &Found,
) -> Step<(Option<f64>, u64)> {
    done!(site.settle()?);
    let (cpu, before) = (site.cpu_ns()?, site.rig.fleet().squad(squad).beats.answered);
    let Seconds(stretch) = arguments.stretch;
    let beat = order(squad, count.unwrap_or(u64::MAX), count.is_none().then(|| Instant::now() + stretch), found);
    done!(hoped(site.rig.beat("server", beat, site.common.patience.0)?));
    done!(site.settle()?);
    let beats = site.rig.fleet().squad(squad).beats.answered - before;
    Ok(Ok((site.us_each(cpu, beats)?, beats)))
}

/// As many towards bare sockets.
fn floor_stretch<D: Driver>(
    site: &mut Site<'_, D>,
    floor: &mut FloorServer,
    squad: u8,
    count: u64,
    found: &Found,
) -> Step<f64> {
    done!(site.settle()?);
    let process: Process = floor.process();
    let before = process.cpu_ns()?;
    floor.ask(&format!("echo {count} {BEAT_BYTES}"))?;
    done!(hoped(site.rig.beat("floor", order(squad, count, None, found), site.common.patience.0)?));
    floor.answer()?;
    Ok(Ok((process.cpu_ns()? - before) as f64 / 1_000.0 / count.max(1) as f64))
}

fn order(squad: u8, left: u64, until: Option<Instant>, found: &Found) -> Beat {
    let pace = (found.rate > 0).then(|| Pace { started: Instant::now(), rate: found.rate, issued: 0 });
    Beat { squad, next: 0, window: found.window, under_way: 0, left, until, pace }
}
