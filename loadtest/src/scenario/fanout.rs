//! One topic, many subscribers: server CPU per delivery, in pairs with a bare send loop to as many sockets.
//!
//! A pair is a stretch against the server and one against the floor, with the same client process and the same bytes.
//! With one message under way the floor sends each message to every socket; with W it sends as many coalesced frames
//! in one send as the server did on average, so the ratio is that of P1, and of P2 with more than one under way.

use super::bare::BareFan;
use super::note_tally;
use crate::Failure;
use crate::api::Api;
use crate::cli::Fanout;
use crate::fleet::orders::{Drive, Pace};
use crate::fleet::squad::{Mqtt, Reading, Speech};
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::server::{Process, Server};
use crate::verify::Oracle;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde_json::json;
use std::time::{Duration, Instant};

/// Messages before anything is measured.
const WARM_UP: u64 = 32;
/// For the server to become idle between stretches, so that what it did is accounted for.
const SETTLE: Duration = Duration::from_millis(50);

/// One run.
struct Run<'a, D: Driver> {
    rig: Rig<D>,
    arguments: &'a Fanout,
    report: Report,
    process: Option<Process>,
    api: Option<Api>,
    server: Side,
    floor: Option<BareFan>,
    found: Found,
}

/// Subscribers and their publisher.
#[derive(Clone, Copy, Default)]
struct Side {
    subscribers: u8,
    publisher: u8,
}

/// What the stretches gave, one figure each.
#[derive(Default)]
struct Found {
    server_us: Vec<f64>,
    floor_us: Vec<f64>,
    ratios: Vec<f64>,
    per_send: Vec<f64>,
    per_receive: Vec<f64>,
    per_second: Vec<f64>,
}

/// What a stretch against the server was.
struct Stretch {
    messages: u64,
    /// Server CPU per delivery, if the server's process is known.
    us: Option<f64>,
    /// Messages per send: as the server counts them, else what was under way.
    per_send: f64,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Fanout) -> Result<Report, Failure> {
    let common = &arguments.common;
    let server = Server::of(common, common.connections + arguments.idle + 1_000)?;
    let mut run = Run {
        rig,
        arguments,
        report: Report::new("fanout"),
        process: server.process(),
        api: common.api.map(|address| Api::new(address, common.api_key.clone())),
        server: Side::default(),
        floor: None,
        found: Found::default(),
    };
    if common.server.spawn {
        run.report.gateway(&common.server.gateway);
    }
    let ended = run.play();
    run.conclude();
    if !matches!(ended, Ok(Ended::Done)) {
        run.report.fault(format!("not finished: {ended:?}"));
    }
    drop(run.rig);
    drop(run.floor);
    if let Err(failure) = server.stop() {
        run.report.fault(failure.to_string());
    }
    run.report.write(common.report.as_deref())?;
    Ok(run.report)
}

impl<D: Driver> Run<'_, D> {
    fn play(&mut self) -> Result<Ended, Failure> {
        let (arguments, common) = (self.arguments, &self.arguments.common);
        println!(
            "fanout: {} subscribers, {}, {} B, QoS {}, {} under way, client on {}",
            common.connections,
            common.protocol.name(),
            arguments.payload,
            arguments.qos.qos() as u8,
            arguments.window,
            self.rig.driver()
        );
        let fleet = self.rig.fleet_mut();
        (fleet.topic, fleet.qos) = (arguments.topic.clone(), arguments.qos.qos());
        fleet.oracle = common.verify.then(Oracle::default);
        for step in [Self::join_idle, Self::join_server, Self::join_floor] {
            let ended = step(self)?;
            if ended != Ended::Done {
                return Ok(ended);
            }
        }
        if self.server_stretch(Some(WARM_UP))?.is_none() {
            return Ok(Ended::Stalled);
        }
        self.floor_stretch(WARM_UP, 1)?;
        for squad in &mut self.rig.fleet_mut().squads {
            squad.ledger.iter_mut().for_each(|ledger| ledger.latency.reset());
        }
        for pair in 1..=arguments.pairs {
            if self.rig.interrupted() {
                return Ok(Ended::Interrupted);
            }
            if !self.pair(pair)? {
                return Ok(if self.rig.interrupted() { Ended::Interrupted } else { Ended::Stalled });
            }
        }
        for side in [Some(self.server), self.floor_side()].into_iter().flatten() {
            self.rig.leave("leave", side.subscribers)?;
            self.rig.leave("leave", side.publisher)?;
        }
        Ok(Ended::Done)
    }

    fn join_idle(&mut self) -> Result<Ended, Failure> {
        let (arguments, common) = (self.arguments, &self.arguments.common);
        if arguments.idle == 0 {
            return Ok(Ended::Done);
        }
        let subscription = Some(("$inbox/#".to_owned(), Qos::AtLeastOnce));
        let (carriage, prefix) = (common.protocol.carriage(), "idle".to_owned());
        let speech = Mqtt { carriage, prefix, clean: true, heartbeat: None, subscription, reading: Reading::Freely };
        let idle = self.rig.fleet_mut().add(arguments.idle, common.target.clone(), Speech::Mqtt(speech));
        Ok(self.rig.ramp("idle", idle, 0, common.handshakes)?)
    }

    fn join_server(&mut self) -> Result<Ended, Failure> {
        let (arguments, common) = (self.arguments, &self.arguments.common);
        let speech = |prefix: &str, clean, subscription| {
            let (carriage, prefix) = (common.protocol.carriage(), prefix.to_owned());
            Speech::Mqtt(Mqtt { carriage, prefix, clean, heartbeat: None, subscription, reading: Reading::Freely })
        };
        let subscription = Some((arguments.topic.clone(), arguments.qos.qos()));
        let fleet = self.rig.fleet_mut();
        self.server.subscribers =
            fleet.add(common.connections, common.target.clone(), speech("fan", !arguments.keep_sessions, subscription));
        self.server.publisher = fleet.add(1, common.target.clone(), speech("publisher", true, None));
        fleet.expect(self.server.subscribers, arguments.payload as usize);
        let before = self.process.map(Process::cpu_ns).transpose()?;
        let ended = self.rig.ramp("subscribe", self.server.subscribers, common.rate, common.handshakes)?;
        if ended != Ended::Done {
            return Ok(ended);
        }
        if let (Some(process), Some(before)) = (self.process, before) {
            let each = (process.cpu_ns()? - before) as f64 / 1_000.0 / f64::from(common.connections);
            self.report.figure("set_up_us", each, "µs server CPU a connection");
        }
        Ok(self.rig.ramp("publisher", self.server.publisher, 0, 1)?)
    }

    /// As many bare sockets, to a process that sends what it receives to all of them.
    fn join_floor(&mut self) -> Result<Ended, Failure> {
        if self.arguments.no_floor {
            return Ok(Ended::Done);
        }
        let common = &self.arguments.common;
        let (payload_bytes, carriage) = (self.arguments.payload as usize, common.protocol.carriage());
        let way = (common.server_cpu, common.handshakes);
        match BareFan::join(&mut self.rig, common.connections, payload_bytes, carriage, way)? {
            Ok(floor) => self.floor = Some(floor),
            Err(ended) => return Ok(ended),
        }
        Ok(Ended::Done)
    }

    /// A stretch against the server, then one against the floor with as many messages. False when it stalled.
    fn pair(&mut self, number: u32) -> Result<bool, Failure> {
        let Some(stretch) = self.server_stretch(self.arguments.messages)? else { return Ok(false) };
        self.found.per_send.push(stretch.per_send);
        self.found.server_us.extend(stretch.us);
        if self.floor.is_none() {
            return Ok(true);
        }
        let unit = (stretch.per_send.round() as u64).clamp(1, u64::from(self.arguments.window));
        let Some(floor_us) = self.floor_stretch(stretch.messages, unit)? else { return Ok(false) };
        // The floor's cost of a send, divided by what the server put into one.
        let floor_us = floor_us * unit as f64 / stretch.per_send.max(1.0);
        self.found.floor_us.push(floor_us);
        if let Some(us) = stretch.us {
            self.found.ratios.push(us / floor_us);
            println!(
                "pair {number}: server {us:.3} µs, floor {floor_us:.3} µs a delivery, ratio {:.3}, {:.1} messages per send",
                us / floor_us,
                stretch.per_send
            );
        }
        Ok(true)
    }

    fn server_stretch(&mut self, messages: Option<u64>) -> Result<Option<Stretch>, Failure> {
        self.rig.rest("settle", SETTLE)?;
        let side = self.server;
        let before = (self.cpu_ns()?, self.sends()?, self.rig.deliveries(side.subscribers), self.rig.receives());
        let published = self.published(side);
        let started = Instant::now();
        let drive = Drive {
            squad: side.subscribers,
            publisher: self.rig.fleet().squad(side.publisher).first,
            window: u64::from(self.arguments.window),
            unit: 1,
            head: Vec::new(),
            left: messages.unwrap_or(u64::MAX),
            until: messages.is_none().then(|| started + self.arguments.stretch.0),
            pace: self.arguments.publish_rate.map(|rate| Pace { started, rate, issued: 0 }),
        };
        let ended = self.rig.publish("server", drive, self.arguments.common.patience.0)?;
        let seconds = started.elapsed().as_secs_f64();
        let deliveries = (self.rig.deliveries(side.subscribers) - before.2).max(1) as f64;
        let receives = self.rig.receives() - before.3;
        self.rig.rest("settle", SETTLE)?;
        if ended != Ended::Done {
            return Ok(None);
        }
        let us = self.cpu_ns()?.zip(before.0).map(|(after, before)| (after - before) as f64 / 1_000.0 / deliveries);
        // What the server sends to its publisher, and for statistics, is too little to count.
        let per_send = self.sends()?.zip(before.1).map(|(after, before)| deliveries / (after - before).max(1) as f64);
        if messages != Some(WARM_UP) {
            self.found.per_receive.push(deliveries / receives.max(1) as f64);
            self.found.per_second.push(deliveries / seconds);
        }
        let messages = self.published(side) - published;
        Ok(Some(Stretch { messages, us, per_send: per_send.unwrap_or(f64::from(self.arguments.window)) }))
    }

    /// The floor's CPU per delivery, with so many frames in one send.
    fn floor_stretch(&mut self, messages: u64, unit: u64) -> Result<Option<f64>, Failure> {
        let Some(floor) = &mut self.floor else { return Ok(None) };
        let what = (self.arguments.topic.as_str(), self.arguments.qos.qos());
        Ok(floor.stretch(&mut self.rig, what, (messages, unit), self.arguments.common.patience.0)?.ok())
    }

    fn floor_side(&self) -> Option<Side> {
        let floor = self.floor.as_ref()?;
        Some(Side { subscribers: floor.subscribers, publisher: floor.publisher })
    }

    fn published(&self, side: Side) -> u64 {
        self.rig.fleet().squad(side.subscribers).ledger.as_ref().map_or(0, |ledger| ledger.published())
    }

    fn cpu_ns(&self) -> Result<Option<u64>, Failure> {
        self.process.map(Process::cpu_ns).transpose()
    }

    /// Sends so far, if the server counts them.
    fn sends(&self) -> Result<Option<u64>, Failure> {
        let Some(api) = &self.api else { return Ok(None) };
        Ok(api.stats()?.counters.get("sends").copied())
    }

    fn conclude(&mut self) {
        let found = core::mem::take(&mut self.found);
        let row = match (self.arguments.qos.qos(), self.arguments.window) {
            (Qos::AtMostOnce, 1) => "P1",
            (Qos::AtMostOnce, _) => "P2",
            _ => "P3",
        };
        self.report.quartiles("server_us", &found.server_us, "µs server CPU a delivery");
        self.report.quartiles("floor_us", &found.floor_us, "µs, the floor's for the same");
        self.report.quartiles("ratio", &found.ratios, row);
        let name = if self.api.is_some() { "messages_per_send" } else { "messages_per_send_assumed" };
        self.report.quartiles(name, &found.per_send, "");
        self.report.quartiles("messages_per_receive", &found.per_receive, "at the client");
        self.report.quartiles("deliveries_per_second", &found.per_second, "/s");
        let sides = [("server", Some(self.server)), ("floor", self.floor_side())];
        for (name, side) in sides {
            let Some(side) = side else { continue };
            let squads = &self.rig.fleet().squads;
            let squad = squads.get(usize::from(side.subscribers));
            let Some(ledger) = squad.and_then(|squad| squad.ledger.as_ref()) else { continue };
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| ledger.latency.value_at_quantile(quantile));
            let (faults, deliveries, under_way) = (ledger.faults, ledger.deliveries, ledger.under_way());
            println!("{name}: {deliveries} deliveries, latency p50 {p50} p99 {p99} max {max} µs");
            let latency = json!({ "p50": p50, "p99": p99, "max": max });
            self.report.detail(&format!("{name}_latency_us"), latency);
            self.report.detail(&format!("{name}_deliveries"), deliveries.into());
            if faults.any() {
                self.report.fault(format!("{name}: {faults:?}"));
            }
            if under_way > 0 {
                self.report.fault(format!("{name}: {under_way} messages have not arrived everywhere"));
            }
        }
        if let Some(oracle) = self.rig.fleet().oracle {
            self.report.figure("verified", oracle.checked, "deliveries decoded by another codec");
            if oracle.differing > 0 {
                self.report.fault(format!("the other codec disagrees: {oracle:?}"));
            }
        }
        note_tally(&self.rig.fleet().tally, &mut self.report);
    }
}
