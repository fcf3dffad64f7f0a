//! One topic, many subscribers: what a delivery costs the server, beside a bare send of the same bytes in the same run.
//!
//! Gateway and floor take turns with the same client process. A stretch of the gateway keeps `window` messages under
//! way; a stretch of the floor sends as many bytes as one coalesced send of the gateway has.
//! The floor streams its rounds without waiting for deliveries, which flatters it: the ratio is a first indication,
//! not the budget's figure.

use crate::Failure;
use crate::api::Api;
use crate::cli::Fanout;
use crate::fleet::orders::{Drive, Pace};
use crate::fleet::squad::{Mqtt, Speech, VERSION, publish};
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::server::Server;
use crate::verify::Oracle;
use kittiwake::io::Driver;
use kittiwake::wire::mqtt::Encode;
use std::time::{Duration, Instant};

/// A stretch in which nothing moves for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Handshakes with the floor under way: fewer than a listener's backlog.
const FLOOR_HANDSHAKES: u32 = 256;

/// What the pairs found.
#[derive(Default)]
struct Found {
    gateway_us: Vec<f64>,
    floor_us: Vec<f64>,
    ratios: Vec<f64>,
}

pub fn run<D: Driver>(mut rig: Rig<D>, arguments: &Fanout) -> Result<Report, Failure> {
    let mut report = Report::new("fanout");
    let (common, count) = (&arguments.common, arguments.common.connections);
    let (window, qos) = (u64::from(arguments.window), arguments.qos.qos());
    println!("fanout: {count} subscribers, {window} under way, client on {}", rig.driver());
    let server = Server::of(common, count + 64)?;
    let process = server.process().ok_or("the server's CPU is the point: --spawn or --server-pid")?;
    let speech = |prefix: &str, filter: Option<String>| {
        Speech::Mqtt(Mqtt {
            prefix: prefix.to_owned(),
            clean: true,
            heartbeat: None,
            subscription: filter.map(|filter| (filter, qos)),
        })
    };
    let squad = rig.fleet_mut().add(count, common.target.clone(), speech("s", Some(arguments.topic.clone())));
    rig.fleet_mut().oracle = common.verify.then(Oracle::default);
    let publishing = rig.fleet_mut().add(1, common.target.clone(), speech("publisher", None));
    let mut floor = None;
    let mut ready = rig.ramp("connect", squad, common.rate, common.handshakes)?;
    if ready == Ended::Done {
        ready = rig.ramp("publisher", publishing, 0, 1)?;
    }
    if !arguments.no_floor && ready == Ended::Done {
        let mut bare = FloorServer::start(common.server_cpu)?;
        let raw = rig.fleet_mut().add(count, vec![bare.address], Speech::Raw);
        bare.ask(&format!("accept {count}"))?;
        ready = rig.ramp("floor", raw, 0, FLOOR_HANDSHAKES)?;
        bare.answer()?;
        floor = Some((bare, raw));
    }
    if ready != Ended::Done || rig.fleet().tally.failed > 0 {
        report.fault(format!("not everybody is ready ({ready:?}): {:?}", rig.fleet().tally.causes));
        return Ok(report);
    }
    rig.fleet_mut().topic.clone_from(&arguments.topic);
    rig.fleet_mut().qos = qos;
    rig.fleet_mut().expect(squad, arguments.payload as usize);
    let publisher = rig.fleet().squad(publishing).first;
    let frame = publish(&arguments.topic, qos, 0, &vec![0; arguments.payload as usize]).encoded_len(VERSION) as u64;

    let sends_before = counter(arguments, "sends")?;
    let mut found = Found::default();
    for _ in 0..arguments.pairs {
        let (deliveries, cpu) = (rig.deliveries(squad), process.cpu_ns()?);
        let until = Instant::now() + arguments.stretch.0;
        let drive = Drive {
            squad,
            publisher,
            window,
            unit: 1,
            left: arguments.messages.unwrap_or(u64::MAX),
            until: Some(until),
            pace: arguments.publish_rate.map(|rate| Pace { started: Instant::now(), rate, issued: 0 }),
        };
        let ended = rig.publish("gateway", drive, PATIENCE)?;
        let delivered = rig.deliveries(squad) - deliveries;
        let gateway_us = (process.cpu_ns()? - cpu) as f64 / 1_000.0 / delivered.max(1) as f64;
        found.gateway_us.push(gateway_us);
        if ended != Ended::Done {
            report.fault(format!("a stretch was not finished: {ended:?}"));
            break;
        }
        if let Some((bare, raw)) = &mut floor {
            // As many rounds as the gateway had messages, in sends of a window's bytes.
            let rounds = (delivered / u64::from(count) / window).max(1);
            let goal = rig.fleet().squad(*raw).bytes + rounds * frame * window * u64::from(count);
            bare.ask(&format!("send {} {rounds}", frame * window))?;
            let raw = *raw;
            rig.run("floor", goal, PATIENCE, |fleet| fleet.squad(raw).bytes)?;
            let floor_us = bare.answer()?.us() / window as f64;
            found.floor_us.push(floor_us);
            found.ratios.push(gateway_us / floor_us);
        }
    }
    say(&mut rig, squad, arguments, &found, sends_before, &mut report)?;
    rig.leave("leave", squad)?;
    super::say_verified(&rig, &mut report);
    drop(server);
    report.write(common.report.as_deref())?;
    Ok(report)
}

/// The figures.
fn say<D: Driver>(
    rig: &mut Rig<D>,
    squad: u8,
    arguments: &Fanout,
    found: &Found,
    sends_before: Option<u64>,
    report: &mut Report,
) -> Result<(), Failure> {
    let deliveries = rig.deliveries(squad);
    report.figure("deliveries", deliveries, "");
    report.quartiles("gateway_us_per_delivery", &found.gateway_us, "µs server CPU");
    report.quartiles("floor_us_per_message", &found.floor_us, "µs server CPU");
    let budget = if arguments.window == 1 { "(budget P1: 1.15)" } else { "(budget P2: 1.25)" };
    report.quartiles("ratio_to_floor", &found.ratios, budget);
    if let (Some(before), Some(after)) = (sends_before, counter(arguments, "sends")?) {
        report.figure("messages_per_send", deliveries as f64 / (after - before).max(1) as f64, "");
    }
    let ledger = rig.fleet().squad(squad).ledger.as_ref().ok_or("the squad expects messages")?;
    for (name, quantile) in [("latency_p50_us", 0.5), ("latency_p99_us", 0.99), ("latency_max_us", 1.0)] {
        report.figure(name, ledger.latency.value_at_quantile(quantile), "µs");
    }
    let (faults, under_way, lost) = (ledger.faults, ledger.under_way(), rig.fleet().tally.lost);
    if faults.any() || under_way > 0 || lost > 0 {
        report.fault(format!("{faults:?}, {under_way} messages did not reach everybody, {lost} connections lost"));
    }
    Ok(())
}

/// A counter of the gateway, where its API is named.
fn counter(arguments: &Fanout, name: &str) -> Result<Option<u64>, Failure> {
    let Some(address) = arguments.common.api else { return Ok(None) };
    let stats = Api::new(address, arguments.common.api_key.clone()).stats()?;
    Ok(stats.counters.get(name).copied())
}
