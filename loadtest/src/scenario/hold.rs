//! Many connections that do nothing: what each costs, whether one push reaches them all, whether nothing stays behind.

use super::push::{Broadcast, push_everyone};
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::{Hold, Seconds};
use crate::figures::Latency;
use crate::fleet::ledger::WINDOW_MAX;
use crate::fleet::orders::Drive;
use crate::fleet::squad::Mqtt;
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::server::{Memory, Server, slab_bytes, slab_forgetful};
use kittiwake::io::Driver;
use serde::Serialize;
use std::thread;
use std::time::{Duration, Instant};

/// Connections that the fresh process is configured for, whose memory is subtracted (BUDGETS M1).
const FRESH_CONNECTIONS: u32 = 1_000;
/// Of fewer connections the slab says too little to wait for it.
const SLAB_COUNTS_MIN: u32 = 10_000;
/// For memory and timers to settle: a shard gives back what its last burst took once it was not wanted for a second, and
/// looks for that once a second.
const SETTLE: Duration = Duration::from_secs(4);
/// After the last expected arrival: time for one that is not expected.
const REPETITIONS: Duration = Duration::from_secs(2);
/// Members that are named when a push did not reach them.
const NAMED_MAX: usize = 10;

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    pub ready: u32,
    pub set_up_per_second: f64,
    pub set_up_latency: Latency,
    /// The server's CPU for a connection.
    pub set_up_us: Option<f64>,
    /// M1, and the same without pages of files.
    pub rss_bytes_each: Option<f64>,
    pub anonymous_bytes_each: Option<f64>,
    /// The kernel's, for both ends.
    pub slab_bytes_each: f64,
    /// CPUs that the server used while nothing happened.
    pub idle_cpus: Option<f64>,
    pub push: Option<Broadcast>,
    pub free_after_seconds: Option<f64>,
}

/// What was there before the connections.
struct Before {
    fresh: Option<Memory>,
    slab_bytes: u64,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Hold) -> Result<Report, Failure> {
    let common = &arguments.common;
    if !arguments.prefix.is_ascii() {
        return Err("--prefix: ASCII alone".into());
    }
    let fresh = if common.server.spawn { Some(fresh_memory(arguments)?) } else { None };
    let mut site = Site::open(rig, common, "hold", common.connections)?;
    let counts = common.server.spawn && common.connections >= SLAB_COUNTS_MIN;
    let slab_bytes = if counts { slab_forgetful()? } else { slab_bytes()? };
    let before = Before { fresh, slab_bytes };
    let mut found = Found { connections: common.connections, ..Found::default() };
    let ended = play(&mut site, arguments, &before, &mut found);
    site.close(ended, &found)
}

/// What a gateway takes that expects few connections and has none.
fn fresh_memory(arguments: &Hold) -> Result<Memory, Failure> {
    let server = Server::spawn(&arguments.common, FRESH_CONNECTIONS)?;
    thread::sleep(SETTLE);
    let memory = server.process().ok_or("a child has a process")?.memory()?;
    server.stop()?;
    Ok(memory)
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Hold, before: &Before, found: &mut Found) -> Step<()> {
    let stats = if arguments.expect_free { site.stats()? } else { None };
    let squad = done!(connect(site, arguments, found)?);
    done!(hold(site, arguments, squad, before, found)?);
    if arguments.push_everyone || arguments.push_topic.is_some() {
        done!(push(site, arguments, squad, found)?);
    }
    let lost = site.rig.fleet().tally.lost;
    if lost > 0 {
        site.report.fault(format!("{lost} connections were lost"));
    }
    done!(hoped(site.rig.leave("leave", squad)?));
    if let Some(stats) = stats {
        found.free_after_seconds = site.expect_free(&stats, !arguments.clean)?;
        if let Some(seconds) = found.free_after_seconds {
            site.report.figure("free_after_seconds", seconds, "s");
        }
        if let Some(process) = site.process {
            site.report.figure("rss_bytes_after", process.memory()?.rss_bytes, "B");
        }
    }
    Ok(Ok(()))
}

fn connect<D: Driver>(site: &mut Site<'_, D>, arguments: &Hold, found: &mut Found) -> Step<u8> {
    let subscription = Some((arguments.subscribe.clone(), arguments.qos.qos()));
    let heartbeat = arguments.heartbeat.map(|Seconds(pause)| pause);
    let speech = Mqtt { heartbeat, ..site.speech(&arguments.prefix, arguments.clean, subscription) };
    let (started, cpu) = (Instant::now(), site.cpu_ns()?);
    let squad = done!(site.join("connect", found.connections, speech)?);
    found.ready = site.rig.fleet().squad(squad).ready;
    found.set_up_per_second = f64::from(found.ready) / started.elapsed().as_secs_f64();
    found.set_up_us = site.us_each(cpu, u64::from(found.ready))?;
    found.set_up_latency = Latency::of(&site.rig.fleet().set_up);
    site.report.figure("connections", found.ready, "");
    site.report.figure("set_up_per_second", found.set_up_per_second, "/s");
    site.report.figure("set_up_p50_ms", found.set_up_latency.p50_us as f64 / 1_000.0, "ms");
    site.report.figure("set_up_p99_ms", found.set_up_latency.p99_us as f64 / 1_000.0, "ms");
    if let Some(us) = found.set_up_us {
        site.report.figure("set_up_us", us, "µs server CPU a connection");
    }
    Ok(Ok(squad))
}

fn hold<D: Driver>(
    site: &mut Site<'_, D>,
    arguments: &Hold,
    squad: u8,
    before: &Before,
    found: &mut Found,
) -> Step<()> {
    done!(hoped(site.rig.rest("settle", SETTLE)?));
    let ready = f64::from(site.rig.fleet().squad(squad).ready.max(1));
    if let Some(process) = site.process {
        let memory = process.memory()?;
        site.report.figure("rss_bytes", memory.rss_bytes, "B");
        if let Some(fresh) = before.fresh {
            let each = |now: u64, before: u64| (now as f64 - before as f64) / ready;
            let rss = each(memory.rss_bytes, fresh.rss_bytes);
            let anonymous = each(memory.anonymous_bytes, fresh.anonymous_bytes);
            site.report.figure("fresh_rss_bytes", fresh.rss_bytes, "B, configured for 1,000 connections");
            site.report.figure("rss_bytes_per_connection", rss, "B (M1)");
            site.report.figure("anonymous_bytes_per_connection", anonymous, "B, without pages of files");
            (found.rss_bytes_each, found.anonymous_bytes_each) = (Some(rss), Some(anonymous));
        }
    }
    found.slab_bytes_each = (slab_bytes()? as f64 - before.slab_bytes as f64) / ready;
    site.report.figure("kernel_bytes_per_connection", found.slab_bytes_each, "B, both ends");
    let Seconds(time) = arguments.hold;
    let (cpu, pongs) = (site.cpu_ns()?, site.rig.fleet().tally.pongs);
    let ended = site.rig.rest("hold", time)?;
    let answered = site.rig.fleet().tally.pongs - pongs;
    if let (Some(before), Some(now)) = (cpu, site.cpu_ns()?) {
        let cpus = (now - before) as f64 / 1e9 / time.as_secs_f64().max(0.001);
        site.report.figure("idle_cpu", cpus, "server CPUs while holding");
        found.idle_cpus = Some(cpus);
        if answered > 0 {
            let each = (now - before) as f64 / 1_000.0 / answered as f64;
            site.report.figure("heartbeat_us", each, "µs server CPU a heartbeat");
        }
    }
    if arguments.heartbeat.is_some() {
        site.report.figure("heartbeats_answered", answered, "");
    }
    Ok(hoped(ended))
}

/// One message to all of them, each exactly once.
fn push<D: Driver>(site: &mut Site<'_, D>, arguments: &Hold, squad: u8, found: &mut Found) -> Step<()> {
    let (payload_bytes, qos) = (arguments.payload as usize, arguments.push_qos.qos());
    let pushed = match &arguments.push_topic {
        Some(topic) => done!(publish(site, arguments, squad, topic)?),
        None => done!(push_everyone(site, squad, payload_bytes, qos)?),
    };
    let behind: Vec<u32> = site.rig.fleet().behind(squad, 1).take(NAMED_MAX).collect();
    if !behind.is_empty() {
        site.report.fault(format!("the push did not reach everybody; among others not {behind:?}"));
    }
    site.report.checked("push", &pushed.deliveries);
    site.report.latency("push latency", &pushed.latency);
    site.report.figure("push_deliveries", pushed.deliveries.right, "");
    site.report.figure("push_seconds", pushed.seconds, "s until the last arrival");
    if let Some(us) = pushed.us_each {
        site.report.figure("push_us", us, "µs server CPU a delivery");
    }
    found.push = Some(pushed);
    Ok(Ok(()))
}

/// The same from an MQTT client, to a topic that all of them have subscribed to.
fn publish<D: Driver>(site: &mut Site<'_, D>, arguments: &Hold, squad: u8, topic: &str) -> Step<Broadcast> {
    let fleet = site.rig.fleet_mut();
    fleet.expect(squad, arguments.payload as usize);
    (fleet.topic, fleet.qos) = (topic.to_owned(), arguments.push_qos.qos());
    let publisher = site.speech("publisher", true, None);
    let publisher = done!(site.join("publisher", 1, publisher)?);
    let drive = Drive {
        squad,
        publisher: site.rig.fleet().squad(publisher).first,
        window: WINDOW_MAX as u64 / 2,
        unit: 1,
        head: Vec::new(),
        left: 1,
        until: None,
        pace: None,
    };
    let (cpu, started) = (site.cpu_ns()?, Instant::now());
    let ended = site.rig.publish("push", drive, site.common.patience.0)?;
    let seconds = started.elapsed().as_secs_f64();
    let us_each = site.us_each(cpu, site.rig.deliveries(squad))?;
    if ended == Ended::Interrupted {
        return Ok(Err(ended));
    }
    done!(hoped(site.rig.rest("repeats?", REPETITIONS)?));
    let ledger = site.rig.fleet().squad(squad).ledger.as_ref().ok_or("it was expected above")?;
    let pushed = Broadcast { deliveries: ledger.checked(), latency: Latency::of(&ledger.latency), seconds, us_each };
    done!(hoped(site.rig.leave("publisher", publisher)?));
    Ok(Ok(pushed))
}
