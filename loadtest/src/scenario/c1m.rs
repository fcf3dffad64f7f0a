//! A million connections to one gateway, both ends on one machine, each with a session and a subscription: all are
//! reached by a broadcast, some by single messages; heartbeats; a tenth drops and comes back; all leave, and nothing
//! stays behind.

use super::push::{Broadcast, Courier, push_everyone};
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::api::Stats;
use crate::cli::{C1m, Seconds};
use crate::figures::{Checked, Latency};
use crate::fleet::orders::{Beat, Pace, Saying};
use crate::probe::Probes;
use crate::report::Report;
use crate::rig::{Climb, Rig};
use crate::server::{Process, slab_bytes};
use crate::source::Door;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Bytes of what is sent.
const PAYLOAD_BYTES: usize = 64;
/// For memory and timers to settle.
const SETTLE: Duration = Duration::from_secs(2);
/// Single messages under way at a time.
const UNICASTS_WINDOW: u64 = 64;
/// Pings a second of the one client that pings while something goes on.
const PROBE_RATE: u32 = 500;
/// Start of every client id and user name.
const PREFIX: &str = "k";

/// The server's counters of its turns of at most 2 ms, and of longer ones.
const SHORT_TURNS: [&str; 3] = ["turns_0ms", "turns_1ms", "turns_2ms"];
const LONG_TURNS: [&str; 5] = ["turns_5ms", "turns_10ms", "turns_50ms", "turns_200ms", "turns_longer"];

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    pub joined: Joined,
    pub memory: Held,
    /// One message to everyone, QoS 1.
    pub broadcast: Option<Broadcast>,
    /// What one other client noticed of the server meanwhile, and when nothing else went on: its pings' answers.
    pub probe_during_broadcast: Option<Latency>,
    pub turns_during_broadcast: Option<Turns>,
    pub probe_idle: Option<Latency>,
    pub unicasts: Checked,
    pub unicast_latency: Latency,
    pub heartbeats: Checked,
    pub heartbeat_latency: Latency,
    /// The server's CPU for a heartbeat.
    pub heartbeat_us: Option<f64>,
    pub back: Back,
    /// A second message to everyone, those that came back among them.
    pub broadcast_again: Option<Broadcast>,
    pub left_seconds: f64,
    /// Until the server's gauges were what they had been.
    pub free_after_seconds: Option<f64>,
}

/// How long the server's turns took while something went on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Turns {
    pub count: u64,
    pub longer_than_2_ms: u64,
    pub percent_longer_than_2_ms: f64,
}

impl Turns {
    /// What its counters say of the time between.
    fn between(before: &Stats, after: &Stats) -> Option<Self> {
        let taken = |name: &&str| Some(after.counters.get(*name)?.saturating_sub(*before.counters.get(*name)?));
        let short: u64 = SHORT_TURNS.iter().map(taken).sum::<Option<u64>>()?;
        let long: u64 = LONG_TURNS.iter().map(taken).sum::<Option<u64>>()?;
        let count = short + long;
        let percent_longer_than_2_ms = 100.0 * long as f64 / count.max(1) as f64;
        Some(Self { count, longer_than_2_ms: long, percent_longer_than_2_ms })
    }
}

/// How all came.
#[derive(Debug, Default, Serialize)]
pub struct Joined {
    pub seconds: f64,
    pub per_second: f64,
    pub latency: Latency,
    /// The server's CPU for one.
    pub us_each: Option<f64>,
}

/// What all of them take.
#[derive(Debug, Default, Serialize)]
pub struct Held {
    pub rss_bytes: Option<u64>,
    /// What was added since the server had none.
    pub rss_bytes_each: Option<f64>,
    /// The kernel's, for both ends.
    pub slab_bytes_each: f64,
}

/// Those who dropped and came back.
#[derive(Debug, Default, Serialize)]
pub struct Back {
    pub dropped: u32,
    pub drop_seconds: f64,
    pub seconds: f64,
    pub latency: Latency,
    pub us_each: Option<f64>,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &C1m) -> Result<Report, Failure> {
    let common = &arguments.common;
    let mut site = Site::open(rig, common, "c1m", common.connections)?;
    let mut found = Found { connections: common.connections, ..Found::default() };
    let ended = play(&mut site, arguments, &mut found);
    tell(&mut site, &found);
    site.close(ended, &found)
}

/// Steps in the order of the module's first lines.
fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &C1m, found: &mut Found) -> Step<()> {
    let before = site.stats()?;
    let squad = done!(join(site, found)?);
    if !arguments.hold_only {
        done!(broadcast(site, squad, found)?);
        done!(unicasts(site, arguments, squad, found)?);
        done!(heartbeats(site, arguments, squad, found)?);
        done!(drop_some(site, arguments, squad, found)?);
        let again = done!(push_everyone(site, squad, PAYLOAD_BYTES, Qos::AtLeastOnce)?);
        found.broadcast_again = Some(again);
    }
    let lost = site.rig.fleet().tally.lost;
    if lost > 0 {
        site.report.fault(format!("{lost} connections were lost"));
    }
    let leaving = Instant::now();
    done!(hoped(site.rig.leave("leave", squad)?));
    found.left_seconds = leaving.elapsed().as_secs_f64();
    if let Some(before) = before {
        found.free_after_seconds = site.expect_free(&before, true)?;
    }
    Ok(Ok(()))
}

fn join<D: Driver>(site: &mut Site<'_, D>, found: &mut Found) -> Step<u8> {
    let (slab, rss) = (slab_bytes()?, site.process.map(Process::rss_bytes).transpose()?);
    let speech = site.speech(PREFIX, false, Some(("$inbox/#".to_owned(), Qos::AtLeastOnce)));
    let (cpu, started) = (site.cpu_ns()?, Instant::now());
    let squad = done!(site.join("connect", found.connections, speech)?);
    let seconds = started.elapsed().as_secs_f64();
    let ready = site.rig.fleet().squad(squad).ready;
    found.joined = Joined {
        seconds,
        per_second: f64::from(ready) / seconds.max(0.001),
        latency: Latency::of(&site.rig.fleet().set_up),
        us_each: site.us_each(cpu, u64::from(ready))?,
    };
    done!(hoped(site.rig.rest("settle", SETTLE)?));
    let each = |now: u64, before: u64| (now as f64 - before as f64) / f64::from(ready.max(1));
    let held = site.process.map(Process::rss_bytes).transpose()?;
    found.memory = Held {
        rss_bytes: held,
        rss_bytes_each: held.zip(rss).map(|(now, before)| each(now, before)),
        slab_bytes_each: each(slab_bytes()?, slab),
    };
    Ok(Ok(squad))
}

/// All get one message, while another client pings.
fn broadcast<D: Driver>(site: &mut Site<'_, D>, squad: u8, found: &mut Found) -> Step<()> {
    let target = *site.common.target.first().ok_or("no target")?;
    let probe = Probes::start(target, 1, PROBE_RATE)?;
    let rested = site.rig.rest("probe", SETTLE)?;
    found.probe_idle = probed(site, probe);
    done!(hoped(rested));
    let probe = Probes::start(target, 1, PROBE_RATE)?;
    let before = site.stats()?;
    let reached = push_everyone(site, squad, PAYLOAD_BYTES, Qos::AtLeastOnce);
    found.probe_during_broadcast = probed(site, probe);
    found.turns_during_broadcast =
        before.zip(site.stats()?).and_then(|(before, after)| Turns::between(&before, &after));
    found.broadcast = Some(done!(reached?));
    Ok(Ok(()))
}

/// What a probe noticed; a fault if it was not answered, and the run goes on.
fn probed<D: Driver>(site: &mut Site<'_, D>, probe: Probes) -> Option<Latency> {
    let noticed = probe.end().inspect_err(|failure| site.report.fault(format!("the probe: {failure}")));
    noticed.ok().map(|latency| Latency::of(&latency))
}

fn unicasts<D: Driver>(site: &mut Site<'_, D>, arguments: &C1m, squad: u8, found: &mut Found) -> Step<()> {
    let mut courier = Courier::new(site, squad, PREFIX);
    (courier.qos, courier.payload_bytes) = (Qos::AtLeastOnce, PAYLOAD_BYTES);
    (courier.batch, courier.window) = (16, UNICASTS_WINDOW);
    courier.by_api(site, Door::Grpc)?;
    let sent = courier.send(site, "unicasts", Some(u64::from(arguments.unicasts)), None);
    if let Some(inboxes) = &site.rig.fleet().squad(squad).inboxes {
        found.unicasts = inboxes.checked(courier.issued());
        found.unicast_latency = Latency::of(&inboxes.latency);
    }
    for (reason, count) in &courier.answers.refused {
        site.report.fault(format!("{count} pushes refused: {reason}"));
    }
    done!(sent?);
    Ok(Ok(()))
}

/// Each client's turn to ping comes once within the time.
fn heartbeats<D: Driver>(site: &mut Site<'_, D>, arguments: &C1m, squad: u8, found: &mut Found) -> Step<()> {
    let Seconds(time) = arguments.heartbeats;
    if time.is_zero() {
        return Ok(Ok(()));
    }
    let rate = (f64::from(found.connections) / time.as_secs_f64()).ceil() as u32;
    let (cpu, started) = (site.cpu_ns()?, Instant::now());
    let beat = Beat {
        squad,
        next: 0,
        window: found.connections,
        under_way: 0,
        left: u64::from(found.connections),
        until: None,
        pace: Some(Pace { started, rate, issued: 0 }),
    };
    let ended = site.rig.beat("heartbeats", beat, site.common.patience.0)?;
    let beats = &site.rig.fleet().squad(squad).beats;
    (found.heartbeats, found.heartbeat_latency) = (beats.checked(), Latency::of(&beats.latency));
    found.heartbeat_us = site.us_each(cpu, found.heartbeats.right)?;
    Ok(hoped(ended))
}

fn drop_some<D: Driver>(site: &mut Site<'_, D>, arguments: &C1m, squad: u8, found: &mut Found) -> Step<()> {
    let count = (u64::from(found.connections) * u64::from(arguments.drop_percent) / 100) as u32;
    let (started, back) = (Instant::now(), &mut found.back);
    back.dropped = count;
    done!(hoped(site.rig.leave_some("drop", squad, 0..count, Saying::Drop)?));
    back.drop_seconds = started.elapsed().as_secs_f64();
    site.rig.fleet_mut().set_up.reset();
    let (cpu, due) = (site.cpu_ns()?, Instant::now());
    let climb = Climb { rate: site.common.rate, handshakes: site.common.handshakes, due: None };
    done!(hoped(site.rig.ramp_some("return", squad, 0..count, climb)?));
    back.seconds = due.elapsed().as_secs_f64();
    back.us_each = site.us_each(cpu, u64::from(count))?;
    back.latency = Latency::of(&site.rig.fleet().set_up);
    let ready = site.rig.fleet().squad(squad).ready;
    if ready < found.connections {
        site.report.fault(format!("{ready} of {} are there after a part came back", found.connections));
    }
    Ok(Ok(()))
}

fn tell<D: Driver>(site: &mut Site<'_, D>, found: &Found) {
    let report = &mut site.report;
    let figure = |report: &mut Report, name: &str, value: Option<f64>, unit: &str| {
        if let Some(value) = value {
            report.figure(name, value, unit);
        }
    };
    figure(report, "connect_seconds", Some(found.joined.seconds), "s");
    figure(report, "connect_per_second", Some(found.joined.per_second), "/s");
    figure(report, "connect_us", found.joined.us_each, "µs server CPU a connection");
    figure(report, "rss_bytes_each", found.memory.rss_bytes_each, "B of the server's memory a connection");
    figure(report, "slab_bytes_each", Some(found.memory.slab_bytes_each), "B of the kernel's, both ends");
    for (name, broadcast) in [("broadcast", &found.broadcast), ("broadcast again", &found.broadcast_again)] {
        let Some(broadcast) = broadcast else { continue };
        report.checked(name, &broadcast.deliveries);
        figure(report, &format!("{name}, seconds"), Some(broadcast.seconds), "s until the last arrival");
        figure(report, &format!("{name}, us"), broadcast.us_each, "µs server CPU a delivery");
    }
    for (name, latency) in
        [("a client's pings, idle", &found.probe_idle), ("a client's pings in it", &found.probe_during_broadcast)]
    {
        if let Some(latency) = latency {
            report.latency(name, latency);
        }
    }
    if let Some(Turns { count, longer_than_2_ms, percent_longer_than_2_ms }) = found.turns_during_broadcast {
        let of = format!("% of the server's turns in it longer than 2 ms: {longer_than_2_ms} of {count}");
        report.figure("long turns", percent_longer_than_2_ms, &of);
    }
    report.checked("unicasts", &found.unicasts);
    report.latency("unicast latency", &found.unicast_latency);
    report.checked("heartbeats", &found.heartbeats);
    report.latency("heartbeat latency", &found.heartbeat_latency);
    figure(report, "heartbeat_us", found.heartbeat_us, "µs server CPU a heartbeat");
    figure(report, "drop_seconds", Some(found.back.drop_seconds), "s until those who dropped were gone");
    figure(report, "return_seconds", Some(found.back.seconds), "s until they were back");
    figure(report, "return_us", found.back.us_each, "µs server CPU a return");
    figure(report, "leave_seconds", Some(found.left_seconds), "s until all had left");
    figure(report, "free_after_seconds", found.free_after_seconds, "s more until all was given back");
}

/// The preset's own choice where the command line makes none: a gateway of its own.
pub fn preset(arguments: &C1m) -> C1m {
    let mut arguments = arguments.clone();
    arguments.common.server.spawn |= arguments.common.server.server_pid.is_none();
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_told_apart_by_what_they_took_between_two_looks() {
        let stats = |turns: [u64; 8]| {
            let names = SHORT_TURNS.iter().chain(&LONG_TURNS).map(|name| (*name).to_owned());
            Stats { counters: names.zip(turns).collect(), ..Stats::default() }
        };
        let (before, after) = (stats([1, 1, 1, 1, 1, 1, 1, 1]), stats([11, 21, 67, 2, 1, 1, 1, 2]));
        let turns = Turns { count: 98, longer_than_2_ms: 2, percent_longer_than_2_ms: 200.0 / 98.0 };
        assert_eq!(Turns::between(&before, &after), Some(turns));
        assert_eq!(Turns::between(&Stats::default(), &after), None, "a server that does not count them");
    }
}
