//! Many connections that subscribe and stay: what they cost, whether a push reaches every one, and whether nothing is
//! left when they have gone.

use crate::Failure;
use crate::api::{Api, base64};
use crate::cli::Hold;
use crate::fleet::squad::{Mqtt, Speech};
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::server::{Server, slab_bytes};
use crate::verify::Oracle;
use kittiwake::io::Driver;
use serde_json::json;
use std::thread;
use std::time::{Duration, Instant};

/// A stretch in which nothing moves for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The fresh process whose memory is taken off is configured for so many.
const FRESH_CONNECTIONS: u32 = 1_000;
/// Sessions that outlive their connections are still there when these are gone.
const OF_CONNECTIONS: [&str; 9] =
    ["connections", "guests", "slots", "blocks", "timers", "outboxes", "segments", "partial_frames", "moving"];
const OF_SESSIONS: [&str; 5] = ["sessions", "users", "subscriptions", "filters", "session_timers"];

pub fn run<D: Driver>(mut rig: Rig<D>, arguments: &Hold) -> Result<Report, Failure> {
    let mut report = Report::new("hold");
    let (common, count) = (&arguments.common, arguments.common.connections);
    println!("hold: {count} connections, client on {}", rig.driver());
    let fresh_bytes = fresh_rss(arguments)?;
    let server = Server::of(common, count.saturating_add(count / 8).saturating_add(64))?;
    let slab_before = slab_bytes()?;
    let cpu_before = server.process().map(|process| process.cpu_ns()).transpose()?;

    let speech = Mqtt {
        prefix: arguments.prefix.clone(),
        clean: arguments.clean,
        heartbeat: arguments.heartbeat.as_ref().map(|pause| pause.0),
        subscription: Some((arguments.subscribe.clone(), arguments.qos.qos())),
    };
    let squad = rig.fleet_mut().add(count, common.target.clone(), Speech::Mqtt(speech));
    rig.fleet_mut().oracle = common.verify.then(Oracle::default);
    let began = Instant::now();
    let ended = rig.ramp("connect", squad, common.rate, common.handshakes)?;
    let ready = rig.fleet().squad(squad).ready;
    report.figure("connections_ready", ready, "");
    report.figure("retries", rig.fleet().tally.retries, "");
    report.figure("set_up_per_second", f64::from(ready) / began.elapsed().as_secs_f64(), "/s");
    if ended != Ended::Done || ready != count {
        report.fault(format!("{ready} of {count} are ready ({ended:?}): {:?}", rig.fleet().tally.causes));
    }
    if let (Some(process), Some(before)) = (server.process(), cpu_before) {
        let us = (process.cpu_ns()? - before) as f64 / 1_000.0 / f64::from(ready.max(1));
        report.figure("connect_and_subscribe_us", us, "µs server CPU");
    }
    rig.rest("hold", arguments.hold.0)?;
    // Both ends are on this machine when the target is loopback.
    let slab = slab_bytes()?.saturating_sub(slab_before) as f64 / f64::from(ready.max(1));
    report.figure("kernel_slab_per_connection_both_ends", slab, "B");
    if let (Some(process), Some(fresh)) = (server.process(), fresh_bytes) {
        let now = process.rss_bytes()?;
        report.figure("server_rss_fresh_mib", fresh as f64 / f64::from(1 << 20), "MiB");
        report.figure("server_rss_mib", now as f64 / f64::from(1 << 20), "MiB");
        let each = (now as f64 - fresh as f64) / f64::from(ready.max(1));
        report.figure("server_rss_per_connection", each, "B (budget M1: 384)");
    }
    if arguments.push_everyone || arguments.push_topic.is_some() {
        push(&mut rig, squad, arguments, &server, &mut report)?;
    }
    let lost = rig.fleet().tally.lost;
    if lost > 0 {
        report.fault(format!("{lost} connections were lost: {:?}", rig.fleet().tally.causes));
    }
    let ended = rig.leave("leave", squad)?;
    if ended != Ended::Done {
        report.fault(format!("leaving: {ended:?}"));
    }
    if arguments.expect_free {
        expect_free(&mut rig, arguments, &mut report)?;
    }
    super::say_verified(&rig, &mut report);
    drop(server);
    report.write(common.report.as_deref())?;
    Ok(report)
}

/// The memory of a process that has just started; only when the gateway is ours to start.
fn fresh_rss(arguments: &Hold) -> Result<Option<u64>, Failure> {
    if !arguments.common.server.spawn {
        return Ok(None);
    }
    let server = Server::spawn(&arguments.common, FRESH_CONNECTIONS)?;
    let bytes = server.process().map(|process| process.rss_bytes()).transpose()?;
    server.stop()?;
    Ok(bytes)
}

/// One push that must reach every connection exactly once.
fn push<D: Driver>(
    rig: &mut Rig<D>,
    squad: u8,
    arguments: &Hold,
    server: &Server,
    report: &mut Report,
) -> Result<(), Failure> {
    let address = arguments.common.api.ok_or("a push needs --api")?;
    let api = Api::new(address, arguments.common.api_key.clone());
    rig.fleet_mut().expect(squad, arguments.payload as usize);
    let ledger = rig.fleet_mut().squad_mut(squad).ledger.as_mut().ok_or("it was made a moment ago")?;
    let payload = base64(ledger.next(Instant::now()));
    let to = match &arguments.push_topic {
        Some(topic) => json!({ "topic": topic }),
        None => json!({ "everyone": true }),
    };
    let qos = arguments.push_qos.qos() as u8;
    let body = json!({ "to": to, "payload_base64": payload, "qos": qos, "wait": "stored" });
    let cpu_before = server.process().map(|process| process.cpu_ns()).transpose()?;
    let began = Instant::now();
    // The fleet must be turned while the API works.
    let pushing = thread::spawn(move || api.push(&body).map_err(|failure| failure.to_string()));
    let goal = u64::from(arguments.common.connections);
    let ended = rig.run("push", goal, PATIENCE, |fleet| {
        fleet.squad(squad).ledger.as_ref().map_or(0, |ledger| ledger.deliveries)
    })?;
    pushing.join().map_err(|_| "the push panicked")??;
    let took = began.elapsed();
    // What comes twice comes soon after.
    rig.rest("listen", Duration::from_millis(500))?;
    let reached = rig.deliveries(squad);
    report.figure("push_reached", reached, "connections");
    report.figure("push_to_all_ms", took.as_secs_f64() * 1_000.0, "ms");
    if let (Some(process), Some(before)) = (server.process(), cpu_before) {
        let us = (process.cpu_ns()? - before) as f64 / 1_000.0 / reached.max(1) as f64;
        report.figure("push_us_per_delivery", us, "µs server CPU");
    }
    let faults = rig.fleet().squad(squad).ledger.as_ref().map(|ledger| ledger.faults).unwrap_or_default();
    if reached != goal || faults.any() {
        let behind: Vec<u32> = rig.fleet().behind(squad, 1).take(5).collect();
        report.fault(format!("the push reached {reached} of {goal} ({ended:?}), {faults:?}, not {behind:?}"));
    }
    Ok(())
}

/// Every slot, block and timer must be free again; sessions too, unless they were to stay.
fn expect_free<D: Driver>(rig: &mut Rig<D>, arguments: &Hold, report: &mut Report) -> Result<(), Failure> {
    let address = arguments.common.api.ok_or("figures need --api")?;
    let api = Api::new(address, arguments.common.api_key.clone());
    let names: Vec<&str> = if arguments.clean {
        OF_CONNECTIONS.iter().chain(&OF_SESSIONS).copied().collect()
    } else {
        OF_CONNECTIONS.to_vec()
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let stats = api.stats()?;
        let held: Vec<String> = names
            .iter()
            .filter_map(|name| Some((name, stats.gauges.get(*name).copied()?)))
            .filter(|(_, value)| *value > 0)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        if held.is_empty() {
            println!("free: {}", names.join(", "));
            return Ok(());
        }
        if Instant::now() > until {
            report.fault(format!("still held: {}", held.join(", ")));
            return Ok(());
        }
        rig.rest("wait", Duration::from_millis(200))?;
    }
}
