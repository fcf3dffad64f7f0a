//! Many connections that do nothing: what each costs, whether one push reaches them all, whether nothing stays behind.

use super::{Gauges, note_tally};
use crate::Failure;
use crate::api::{Api, Stats, base64};
use crate::cli::Hold;
use crate::fleet::ledger::WINDOW_MAX;
use crate::fleet::orders::Drive;
use crate::fleet::squad::{Mqtt, Reading, Speech};
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::server::{Memory, Process, Server, slab_bytes};
use crate::verify::Oracle;
use kittiwake::io::Driver;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that the fresh process is configured for, whose memory is subtracted (BUDGETS M1).
const FRESH_CONNECTIONS: u32 = 1_000;
/// For memory and timers to settle.
const SETTLE: Duration = Duration::from_secs(2);
/// After the last expected arrival: time for one that is not expected.
const REPETITIONS: Duration = Duration::from_secs(2);
/// The gauges must have fallen by then.
const FREE_TIMEOUT: Duration = Duration::from_secs(60);
/// Members that are named when a push did not reach them.
const NAMED_MAX: usize = 10;

/// One run.
struct Run<'a, D: Driver> {
    rig: Rig<D>,
    arguments: &'a Hold,
    report: Report,
    process: Option<Process>,
    api: Option<Api>,
    squad: u8,
    fresh: Option<Memory>,
    slab_before: u64,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Hold) -> Result<Report, Failure> {
    let common = &arguments.common;
    if !arguments.prefix.is_ascii() {
        return Err("--prefix: ASCII alone".into());
    }
    let fresh = if common.server.spawn { Some(fresh_memory(arguments)?) } else { None };
    let server = Server::of(common, common.connections + 1_000)?;
    let api = common.api.map(|address| Api::new(address, common.api_key.clone()));
    let before = match &api {
        Some(api) if arguments.expect_free => Some(api.stats()?),
        _ => None,
    };
    let mut run = Run {
        rig,
        arguments,
        report: Report::new("hold"),
        process: server.process(),
        api,
        squad: 0,
        fresh,
        slab_before: slab_bytes()?,
    };
    if common.server.spawn {
        run.report.gateway(&common.server.gateway);
    }
    let ended = run.play(before.as_ref());
    if !matches!(ended, Ok(Ended::Done)) {
        run.report.fault(format!("not finished: {ended:?}"));
    }
    note_tally(&run.rig.fleet().tally, &mut run.report);
    drop(run.rig);
    if let Err(failure) = server.stop() {
        run.report.fault(failure.to_string());
    }
    run.report.write(common.report.as_deref())?;
    Ok(run.report)
}

/// What a gateway takes that expects few connections and has none.
fn fresh_memory(arguments: &Hold) -> Result<Memory, Failure> {
    let server = Server::spawn(&arguments.common, FRESH_CONNECTIONS)?;
    thread::sleep(SETTLE);
    let memory = server.process().ok_or("a child has a process")?.memory()?;
    server.stop()?;
    Ok(memory)
}

impl<D: Driver> Run<'_, D> {
    fn play(&mut self, before: Option<&Stats>) -> Result<Ended, Failure> {
        let arguments = self.arguments;
        let common = &arguments.common;
        let (connections, protocol) = (common.connections, common.protocol.name());
        println!("hold: {connections} connections, {protocol}, client on {}", self.rig.driver());
        self.rig.fleet_mut().oracle = common.verify.then(Oracle::default);
        let speech = Speech::Mqtt(Mqtt {
            carriage: common.protocol.carriage(),
            prefix: arguments.prefix.clone(),
            clean: arguments.clean,
            heartbeat: arguments.heartbeat.map(|pause| pause.0),
            subscription: Some((arguments.subscribe.clone(), arguments.qos.qos())),
            reading: Reading::Freely,
        });
        self.squad = self.rig.fleet_mut().add(common.connections, common.target.clone(), speech);
        for step in [Self::connect, Self::hold, Self::push] {
            let ended = step(self)?;
            if ended != Ended::Done {
                return Ok(ended);
            }
        }
        let lost = self.rig.fleet().tally.lost;
        if lost > 0 {
            self.report.fault(format!("{lost} connections were lost"));
        }
        let ended = self.rig.leave("leave", self.squad)?;
        if let Some(before) = before.filter(|_| ended == Ended::Done) {
            self.expect_free(before)?;
        }
        Ok(ended)
    }

    fn connect(&mut self) -> Result<Ended, Failure> {
        let common = &self.arguments.common;
        let (started, cpu) = (Instant::now(), self.cpu_ns()?);
        let ended = self.rig.ramp("connect", self.squad, common.rate, common.handshakes)?;
        let squad = self.rig.fleet().squad(self.squad);
        let (ready, seconds) = (squad.ready, started.elapsed().as_secs_f64());
        if ready < common.connections {
            self.report.fault(format!("{ready} of {} connections got ready", common.connections));
        }
        self.report.figure("connections", ready, "");
        self.report.figure("set_up_per_second", f64::from(ready) / seconds, "/s");
        let (p50, p99) = {
            let times = &self.rig.fleet().set_up;
            (times.value_at_quantile(0.5), times.value_at_quantile(0.99))
        };
        self.report.figure("set_up_p50_ms", p50 as f64 / 1_000.0, "ms");
        self.report.figure("set_up_p99_ms", p99 as f64 / 1_000.0, "ms");
        if let (Some(before), Some(now)) = (cpu, self.cpu_ns()?) {
            let each = (now - before) as f64 / 1_000.0 / f64::from(ready.max(1));
            self.report.figure("set_up_us", each, "µs server CPU a connection");
        }
        Ok(ended)
    }

    fn hold(&mut self) -> Result<Ended, Failure> {
        let ended = self.rig.rest("settle", SETTLE)?;
        if ended != Ended::Done {
            return Ok(ended);
        }
        let ready = f64::from(self.rig.fleet().squad(self.squad).ready.max(1));
        if let Some(process) = self.process {
            let memory = process.memory()?;
            self.report.figure("rss_bytes", memory.rss_bytes, "B");
            if let Some(fresh) = self.fresh {
                self.report.figure("fresh_rss_bytes", fresh.rss_bytes, "B, configured for 1,000 connections");
                let each = (memory.rss_bytes as f64 - fresh.rss_bytes as f64) / ready;
                self.report.figure("rss_bytes_per_connection", each, "B (M1)");
                let each = (memory.anonymous_bytes as f64 - fresh.anonymous_bytes as f64) / ready;
                self.report.figure("anonymous_bytes_per_connection", each, "B, without pages of files");
            }
        }
        let slab = (slab_bytes()? as f64 - self.slab_before as f64) / ready;
        self.report.figure("kernel_bytes_per_connection", slab, "B, both ends");
        let (cpu, pongs) = (self.cpu_ns()?, self.rig.fleet().tally.pongs);
        let ended = self.rig.rest("hold", self.arguments.hold.0)?;
        let answered = self.rig.fleet().tally.pongs - pongs;
        if let (Some(before), Some(now)) = (cpu, self.cpu_ns()?) {
            let seconds = self.arguments.hold.0.as_secs_f64().max(0.001);
            self.report.figure("idle_cpu", (now - before) as f64 / 1e9 / seconds, "server CPUs while holding");
            if answered > 0 {
                let each = (now - before) as f64 / 1_000.0 / answered as f64;
                self.report.figure("heartbeat_us", each, "µs server CPU a heartbeat");
            }
        }
        if self.arguments.heartbeat.is_some() {
            self.report.figure("heartbeats_answered", answered, "");
        }
        Ok(ended)
    }

    /// One message to all of them, each exactly once.
    fn push(&mut self) -> Result<Ended, Failure> {
        let arguments = self.arguments;
        if !arguments.push_everyone && arguments.push_topic.is_none() {
            return Ok(Ended::Done);
        }
        let squad = self.squad;
        self.rig.fleet_mut().expect(squad, arguments.payload as usize);
        let (started, cpu) = (Instant::now(), self.cpu_ns()?);
        let ended = match &arguments.push_topic {
            Some(topic) => self.push_by_publisher(topic)?,
            None => self.push_by_api()?,
        };
        let took = started.elapsed();
        let after = self.cpu_ns()?;
        let behind: Vec<u32> = self.rig.fleet().behind(squad, 1).take(NAMED_MAX).collect();
        if !behind.is_empty() {
            self.report.fault(format!("the push did not reach everybody; among others not {behind:?}"));
        }
        let waited = self.rig.rest("repeats?", REPETITIONS)?;
        let Some(ledger) = &self.rig.fleet().squad(squad).ledger else { return Ok(ended) };
        let (faults, deliveries) = (ledger.faults, ledger.deliveries);
        let late = [0.5, 0.99, 1.0].map(|quantile| ledger.latency.value_at_quantile(quantile));
        if faults.any() {
            self.report.fault(format!("the push: {faults:?}"));
        }
        self.report.figure("push_deliveries", deliveries, "");
        self.report.figure("push_seconds", took.as_secs_f64(), "s until the last arrival");
        self.report.detail("push_latency_us", json!({ "p50": late[0], "p99": late[1], "max": late[2] }));
        if let (Some(before), Some(after)) = (cpu, after) {
            let each = (after - before) as f64 / 1_000.0 / deliveries.max(1) as f64;
            self.report.figure("push_us", each, "µs server CPU a delivery");
        }
        if let Some(oracle) = self.rig.fleet().oracle.filter(|oracle| oracle.differing > 0) {
            self.report.fault(format!("the other codec disagrees: {oracle:?}"));
        }
        Ok(if ended == Ended::Done { waited } else { ended })
    }

    fn push_by_api(&mut self) -> Result<Ended, Failure> {
        let squad = self.squad;
        let ledger = self.rig.fleet_mut().squad_mut(squad).ledger.as_mut().ok_or("the push is expected")?;
        let payload = base64(ledger.next(Instant::now()));
        let api = self.api.clone().ok_or("--push-everyone needs --api")?;
        let qos = self.arguments.push_qos.qos() as u8;
        let body = json!({ "to": { "everyone": true }, "payload_base64": payload, "qos": qos });
        let asking = thread::spawn(move || api.push(&body).map_err(|failure| failure.to_string()));
        let goal = u64::from(self.rig.fleet().squad(squad).ready);
        let ended = self.rig.run("push", goal, self.arguments.common.patience.0, |fleet| {
            fleet.squad(squad).ledger.as_ref().map_or(0, |ledger| ledger.deliveries)
        })?;
        // The reply may wait for nobody but the server, and its own time is bounded.
        let reply: Value = asking.join().map_err(|_| "the push's thread ended badly")??;
        self.report.detail("push_reply", reply);
        Ok(ended)
    }

    fn push_by_publisher(&mut self, topic: &str) -> Result<Ended, Failure> {
        let qos = self.arguments.push_qos.qos();
        let common = &self.arguments.common;
        let (carriage, prefix) = (common.protocol.carriage(), "publisher".to_owned());
        let speech =
            Mqtt { carriage, prefix, clean: true, heartbeat: None, subscription: None, reading: Reading::Freely };
        let fleet = self.rig.fleet_mut();
        (fleet.topic, fleet.qos) = (topic.to_owned(), qos);
        let publisher = fleet.add(1, common.target.clone(), Speech::Mqtt(speech));
        let ended = self.rig.ramp("publisher", publisher, 0, 1)?;
        if ended != Ended::Done {
            return Ok(ended);
        }
        let drive = Drive {
            squad: self.squad,
            publisher: self.rig.fleet().squad(publisher).first,
            window: WINDOW_MAX as u64 / 2,
            unit: 1,
            head: Vec::new(),
            left: 1,
            until: None,
            pace: None,
        };
        let ended = self.rig.publish("push", drive, self.arguments.common.patience.0)?;
        self.rig.leave("publisher", publisher)?;
        Ok(ended)
    }

    /// What was taken for the connections must have been given back.
    fn expect_free(&mut self, before: &Stats) -> Result<(), Failure> {
        let Some(api) = self.api.clone() else { return Ok(()) };
        let gauges = Gauges { sessions_stay: !self.arguments.clean };
        let started = Instant::now();
        let mut held;
        loop {
            held = gauges.held(&before.gauges, &api.stats()?.gauges);
            if held.is_empty() || started.elapsed() > FREE_TIMEOUT || self.rig.interrupted() {
                break;
            }
            self.rig.rest("free?", Duration::from_millis(500))?;
        }
        if held.is_empty() {
            self.report.figure("free_after_seconds", started.elapsed().as_secs_f64(), "s");
        } else {
            self.report.fault(format!("still held: {}", held.join(", ")));
        }
        if let Some(process) = self.process {
            self.report.figure("rss_bytes_after", process.memory()?.rss_bytes, "B");
        }
        Ok(())
    }

    fn cpu_ns(&self) -> Result<Option<u64>, Failure> {
        self.process.map(Process::cpu_ns).transpose()
    }
}
