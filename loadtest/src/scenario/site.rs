//! What all scenarios with a server have: the rig, the server and what is known of it, the report.

use super::{Gauges, note_tally};
use crate::Failure;
use crate::api::{Api, Stats};
use crate::cli::Common;
use crate::fleet::squad::{Mqtt, Reading, Speech};
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::server::{Process, Server, packets_dropped};
use crate::verify::Oracle;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections that a server is configured for beside those of the run: those that close while others come.
pub const CONNECTIONS_SPARE: u32 = 1_000;
/// For the server to become idle between stretches, so that what it did is accounted for.
pub const SETTLE: Duration = Duration::from_millis(50);
/// The gauges must have fallen by then.
const FREE_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at them.
const FREE_LOOK: Duration = Duration::from_millis(500);

/// What the session of a client with one subscription is one of, while the client is away.
const SESSION_GAUGES: [&str; 3] = ["sessions", "subscriptions", "session_timers"];

/// Where a scenario plays.
pub struct Site<'a, D: Driver> {
    pub rig: Rig<D>,
    pub common: &'a Common,
    pub report: Report,
    /// Whose CPU and memory are measured, if that is known.
    pub process: Option<Process>,
    pub api: Option<Api>,
    server: Option<Server>,
    packets_dropped: u64,
}

/// A step of a scenario: how it ended, or what it found.
pub type Step<T> = Result<Result<T, Ended>, Failure>;

/// Goes on with what a step found, or ends the scenario as the step ended.
macro_rules! done {
    ($step:expr) => {
        match $step {
            Ok(found) => found,
            Err(ended) => return Ok(Err(ended)),
        }
    };
}
pub(super) use done;

/// A wait that ended as hoped, as a step.
pub fn hoped(ended: Ended) -> Result<(), Ended> {
    if ended == Ended::Done { Ok(()) } else { Err(ended) }
}

impl<'a, D: Driver> Site<'a, D> {
    /// The server as the command line says, for so many connections.
    pub fn open(
        mut rig: Rig<D>,
        common: &'a Common,
        scenario: &'static str,
        connections: u32,
    ) -> Result<Self, Failure> {
        let server = Server::of(common, connections.saturating_add(CONNECTIONS_SPARE))?;
        let process = server.process();
        rig.watch(process);
        rig.fleet_mut().oracle = common.verify.then(Oracle::default);
        let mut report = Report::new(scenario);
        if common.server.spawn {
            report.gateway(&common.server.gateway);
        }
        println!("{scenario}: {connections} connections, {}, client on {}", common.protocol.name(), rig.driver());
        Ok(Self {
            rig,
            common,
            report,
            process,
            api: common.api.map(|address| Api::new(address, common.api_key.clone())),
            server: Some(server),
            packets_dropped: packets_dropped()?,
        })
    }

    /// Clients of the protocol that was asked for.
    pub fn speech(&self, prefix: &str, clean: bool, subscription: Option<(String, Qos)>) -> Mqtt {
        let (carriage, prefix) = (self.common.protocol.carriage(), prefix.to_owned());
        Mqtt { carriage, prefix, clean, heartbeat: None, subscription, reading: Reading::Freely }
    }

    /// Connects a new squad; its number.
    pub fn join(&mut self, what: &str, count: u32, speech: Mqtt) -> Step<u8> {
        self.join_at(&self.common.target, what, count, speech)
    }

    /// The same to another server.
    pub fn join_at(&mut self, target: &[SocketAddr], what: &str, count: u32, speech: Mqtt) -> Step<u8> {
        let squad = self.rig.fleet_mut().add(count, target.to_vec(), Speech::Mqtt(speech));
        done!(hoped(self.rig.ramp(what, squad, self.common.rate, self.common.handshakes)?));
        let ready = self.rig.fleet().squad(squad).ready;
        if ready < count {
            self.report.fault(format!("{what}: {ready} of {count} connections got ready"));
        }
        Ok(Ok(squad))
    }

    /// A floor with so many bare sockets.
    pub fn join_floor(&mut self, count: u32, speech: Speech) -> Step<(FloorServer, u8)> {
        let mut floor = FloorServer::start(self.common.server_cpu)?;
        let squad = self.rig.fleet_mut().add(count, vec![floor.address], speech);
        floor.ask(&format!("accept {count}"))?;
        done!(hoped(self.rig.ramp("floor", squad, 0, self.common.handshakes)?));
        floor.answer()?;
        Ok(Ok((floor, squad)))
    }

    /// The server's CPU time so far, where its process is known.
    pub fn cpu_ns(&self) -> Result<Option<u64>, Failure> {
        self.process.map(Process::cpu_ns).transpose()
    }

    /// Microseconds of CPU a unit since then.
    pub fn us_each(&self, before: Option<u64>, units: u64) -> Result<Option<f64>, Failure> {
        self.process.zip(before).map(|(process, before)| process.us_each(before, units)).transpose()
    }

    /// The server's own figures, where it has an API.
    pub fn stats(&self) -> Result<Option<Stats>, Failure> {
        self.api.as_ref().map(Api::stats).transpose()
    }

    /// Turns for a moment, so that what is done is accounted for.
    pub fn settle(&mut self) -> Step<()> {
        Ok(hoped(self.rig.rest("settle", SETTLE)?))
    }

    /// What was taken for the connections must have been given back; the seconds that took.
    pub fn expect_free(&mut self, before: &Stats, sessions_stay: bool) -> Result<Option<f64>, Failure> {
        let Some(api) = self.api.clone() else { return Ok(None) };
        let (gauges, started) = (Gauges { sessions_stay }, Instant::now());
        loop {
            let held = gauges.held(&before.gauges, &api.stats()?.gauges);
            if held.is_empty() {
                return Ok(Some(started.elapsed().as_secs_f64()));
            }
            if started.elapsed() > FREE_TIMEOUT || self.rig.interrupted() {
                self.report.fault(format!("still held: {}", held.join(", ")));
                return Ok(None);
            }
            self.rig.rest("free?", FREE_LOOK)?;
        }
    }

    /// Of each client that has left, one session is there with one subscription and one timer: none is lost, and none
    /// is there twice.
    pub fn expect_sessions(&mut self, before: &Stats, clients: u32) -> Result<(), Failure> {
        let Some(now) = self.stats()? else { return Ok(()) };
        for name in SESSION_GAUGES {
            let held = |stats: &Stats| stats.gauges.get(name).copied();
            if held(&now) != held(before).map(|held| held + u64::from(clients)) {
                self.report.fault(format!("{name} of {clients} clients: {:?} → {:?}", held(before), held(&now)));
            }
        }
        Ok(())
    }

    /// Ends the server, completes the report with what was found, as far as it went, and writes it.
    pub fn close<R: Serialize>(mut self, ended: Step<()>, result: &R) -> Result<Report, Failure> {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(ended)) => self.report.fault(format!("not finished: {ended:?}")),
            Err(failure) => self.report.fault(format!("not finished: {failure}")),
        }
        if let Some(oracle) = self.rig.fleet().oracle {
            self.report.figure("verified", oracle.checked, "deliveries decoded by another codec");
            if oracle.differing > 0 {
                self.report.fault(format!("the other codec disagrees: {oracle:?}"));
            }
        }
        let dropped = packets_dropped().unwrap_or(self.packets_dropped).saturating_sub(self.packets_dropped);
        self.report.figure("packets_dropped", dropped, "by the kernel: net.core.netdev_max_backlog");
        note_tally(&self.rig.fleet().tally, &mut self.report);
        self.report.timeline(self.rig.take_timeline());
        self.report.result(result);
        let (mut report, directory) = (self.report, self.common.report.as_deref());
        // The clients end before the server, which would else be busy with telling them.
        drop(self.rig);
        if let Some(Err(failure)) = self.server.map(Server::stop) {
            report.fault(failure.to_string());
        }
        report.write(directory)?;
        Ok(report)
    }
}
