//! Connections without end from one address that may not have so many: what a refused one costs, in pairs with a bare
//! accept and close, and what others notice, in pairs with the same flood at a bare sink on another port.

use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::{Common, Flood as Asked, Seconds};
use crate::figures::{Latency, Pairs, PairsTaken, Spread};
use crate::flood::{Flood, Order, Poured};
use crate::floor::FloorServer;
use crate::probe::Probes;
use crate::report::Report;
use crate::rig::{Ended, Rig};
use hdrhistogram::Histogram;
use kittiwake::io::Driver;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Where the flood comes from.
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 2, 0, 1));
/// What a gateway that is started here is told: the flood's address may connect once a second, ours may always, and
/// nobody is banned, or the later stretches would find another refusal than the first ones.
const SETTINGS: [&str; 3] =
    ["KITTIWAKE_LIMITS_CONNECT_RATE=1", "KITTIWAKE_LIMITS_ALLOW=127.0.0.1/32", "KITTIWAKE_LIMITS_BAN_WEIGHT=0"];
/// Connections that a shard lets in at once at that rate, before the one of each second.
const LET_IN_AT_ONCE: u64 = 10;
/// What the gateway counts of those it refused.
const REFUSED: &str = "refused_source_rate";
/// Pings a second of a client that stands by.
const PING_RATE: u32 = 500;
/// For what has been closed to be counted, and for a queue of pings to be answered.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks at whether the run was interrupted.
const LOOK: Duration = Duration::from_millis(50);

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    /// Connections of a stretch whose cost is measured.
    pub connections: u32,
    /// Connections a second of a stretch beside which others ping.
    pub rate: u32,
    /// What a refused connection costs.
    pub cost: Pairs,
    /// Refused connections a second, while nothing bounds them but the client.
    pub per_second: Option<Spread>,
    /// Connections of all floods that the gateway closed, and what it counted of them.
    pub closed: u64,
    pub counted: Option<u64>,
    /// Connections that it let in, for the rate allows some.
    pub let_in: u64,
    /// Clients that stand by, and their pings' answers: without a flood,
    pub standing: u32,
    pub pings_idle: Latency,
    /// while the flood is at the gateway,
    pub pings_flooded: Latency,
    /// and while it is at the sink.
    pub pings_beside: Latency,
    /// Of each pair, the 99th percentiles in microseconds and what they are of one another.
    pub p99_flooded_us: Option<Spread>,
    pub p99_beside_us: Option<Spread>,
    pub p99_ratio: Option<Spread>,
}

/// The preset's own settings where the command line makes none: what comes later decides.
pub fn preset(arguments: &Asked) -> Asked {
    let mut arguments = arguments.clone();
    arguments.common.server.spawn |= arguments.common.server.server_pid.is_none();
    let asked = core::mem::take(&mut arguments.common.server.gateway_env);
    arguments.common.server.gateway_env = SETTINGS.iter().map(|&pair| pair.to_owned()).chain(asked).collect();
    arguments
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Asked) -> Result<Report, Failure> {
    let common = &arguments.common;
    let mut site = Site::open(rig, common, "flood", common.handshakes.saturating_add(arguments.standing))?;
    let (connections, rate, standing) = (common.connections, common.rate, arguments.standing);
    let mut found = Found { connections, rate, standing, ..Found::default() };
    let ended = play(&mut site, arguments, &mut found);
    tell(&mut site.report, &found);
    site.close(ended, &found)
}

fn tell(report: &mut Report, found: &Found) {
    report.pairs("refused", &found.cost);
    if let Some(spread) = &found.per_second {
        report.quartiles("refused_per_second", &spread.all, "/s");
    }
    report.figure("closed", found.closed, "connections of the flood");
    report.figure("let_in", found.let_in, "");
    if let Some(counted) = found.counted {
        report.figure(REFUSED, counted, "as the gateway counts them");
    }
    report.latency("pings without a flood", &found.pings_idle);
    report.latency("pings, the flood at the gateway", &found.pings_flooded);
    report.latency("pings, the flood at the sink", &found.pings_beside);
    for (name, spread, unit) in [
        ("p99_flooded_us", &found.p99_flooded_us, "µs"),
        ("p99_beside_us", &found.p99_beside_us, "µs"),
        ("p99_ratio", &found.p99_ratio, ""),
    ] {
        if let Some(spread) = spread {
            report.quartiles(name, &spread.all, unit);
        }
    }
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Asked, found: &mut Found) -> Step<()> {
    let (before, started) = (site.stats()?, Instant::now());
    let mut sink = FloorServer::start(site.common.server_cpu)?;
    done!(cost(site, arguments, &mut sink, found)?);
    done!(others(site, arguments, &mut sink, found)?);
    done!(hoped(site.rig.rest("settle", SETTLE)?));
    let shards = u64::from(site.common.server.gateway_shards.max(1));
    if found.let_in > (LET_IN_AT_ONCE + started.elapsed().as_secs() + 1) * shards {
        site.report.fault(format!("{} connections of the flood were let in", found.let_in));
    }
    let Some(before) = before else { return Ok(Ok(())) };
    if let Some(now) = site.stats()? {
        let counted = |counters: &BTreeMap<String, u64>| counters.get(REFUSED).copied().unwrap_or(0);
        let refused = counted(&now.counters) - counted(&before.counters);
        found.counted = Some(refused);
        // One that was refused too late to be told from one that was let in is counted by the gateway alone.
        if refused < found.closed {
            site.report.fault(format!("{} were closed, of which the gateway counts {refused}", found.closed));
        }
    }
    site.expect_free(&before, false)?;
    Ok(Ok(()))
}

/// Refusals in pairs with bare ones.
fn cost<D: Driver>(site: &mut Site<'_, D>, arguments: &Asked, sink: &mut FloorServer, found: &mut Found) -> Step<()> {
    let (gateway, count) = (*site.common.target.first().ok_or("no target")?, found.connections);
    let (mut taken, mut speeds) = (PairsTaken::default(), Vec::new());
    for pair in 0..=arguments.pairs {
        done!(site.settle()?);
        let cpu = site.cpu_ns()?;
        let poured = done!(pour(site, order(site.common, gateway, count, 0))?);
        done!(site.settle()?);
        let server_us = site.us_each(cpu, u64::from(count))?;
        let process = sink.process();
        let before = process.cpu_ns()?;
        done!(sunk(site, sink, count, 0)?);
        let floor_us = (process.cpu_ns()? - before) as f64 / 1_000.0 / f64::from(count.max(1));
        (found.closed, found.let_in) = (found.closed + poured.closed, found.let_in + poured.let_in);
        // The first pair warms both up.
        if pair > 0 {
            taken.push(server_us, Some(floor_us));
            speeds.push(f64::from(count) / poured.seconds.max(0.000_001));
        }
    }
    (found.cost, found.per_second) = (taken.pairs("a refused connection"), Spread::of(&speeds));
    Ok(Ok(()))
}

/// Pings of those who stand by, in pairs.
fn others<D: Driver>(site: &mut Site<'_, D>, arguments: &Asked, sink: &mut FloorServer, found: &mut Found) -> Step<()> {
    let (gateway, Seconds(stretch)) = (*site.common.target.first().ok_or("no target")?, arguments.stretch);
    let count = (f64::from(found.rate) * stretch.as_secs_f64()) as u32;
    let probes = Probes::start(gateway, found.standing, PING_RATE)?;
    done!(hoped(site.rig.rest("idle", stretch)?));
    found.pings_idle = Latency::of(&probes.take());
    let (mut flooded, mut beside): (Vec<Histogram<u64>>, Vec<Histogram<u64>>) = Default::default();
    for _ in 0..arguments.pairs {
        done!(hoped(site.rig.rest("settle", SETTLE)?));
        probes.take();
        let poured = done!(pour(site, order(site.common, gateway, count, found.rate))?);
        flooded.push(probes.take());
        (found.closed, found.let_in) = (found.closed + poured.closed, found.let_in + poured.let_in);
        done!(hoped(site.rig.rest("settle", SETTLE)?));
        probes.take();
        done!(sunk(site, sink, count, found.rate)?);
        beside.push(probes.take());
    }
    if let Err(failure) = probes.end() {
        site.report.fault(format!("who stood by: {failure}"));
    }
    let p99 = |stretches: &[Histogram<u64>]| -> Vec<f64> {
        stretches.iter().map(|stretch| stretch.value_at_quantile(0.99) as f64).collect()
    };
    let (p99_flooded, p99_beside) = (p99(&flooded), p99(&beside));
    let ratios: Vec<f64> = p99_flooded.iter().zip(&p99_beside).map(|(one, other)| one / other.max(1.0)).collect();
    (found.p99_flooded_us, found.p99_beside_us) = (Spread::of(&p99_flooded), Spread::of(&p99_beside));
    found.p99_ratio = Spread::of(&ratios);
    (found.pings_flooded, found.pings_beside) = (all(&flooded), all(&beside));
    Ok(Ok(()))
}

fn all(stretches: &[Histogram<u64>]) -> Latency {
    let Some((first, others)) = stretches.split_first() else { return Latency::default() };
    let mut all = first.clone();
    others.iter().for_each(|other| all.add(other).expect("they are of one size"));
    Latency::of(&all)
}

fn order(common: &Common, target: SocketAddr, connections: u32, rate: u32) -> Order {
    Order {
        target,
        source: SOURCE,
        connections: u64::from(connections),
        rate,
        window: common.handshakes.max(1) as usize,
    }
}

/// The flood at the bare sink, all of which is closed.
fn sunk<D: Driver>(site: &mut Site<'_, D>, sink: &mut FloorServer, count: u32, rate: u32) -> Step<()> {
    sink.ask(&format!("refuse {count}"))?;
    let poured = done!(pour(site, order(site.common, sink.address, count, rate))?);
    sink.answer()?;
    if poured.closed < u64::from(count) {
        site.report.fault(format!("the floor closed {} of {count}", poured.closed));
    }
    Ok(Ok(()))
}

/// Waits until a flood has been poured. The rig has no clients here that would want turns meanwhile.
fn pour<D: Driver>(site: &mut Site<'_, D>, order: Order) -> Step<Poured> {
    let flood = Flood::start(order)?;
    loop {
        match flood.wait(LOOK) {
            Some(poured) => return Ok(Ok(poured?)),
            None if site.rig.interrupted() => return Ok(Err(Ended::Interrupted)),
            None => {}
        }
    }
}
