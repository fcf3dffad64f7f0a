//! Owns: what a run does, step by step, and what it calls a failure.
//! In: the command line. Out: a report.
//! Must not: know sockets or frames; that is the fleet's.
//! Invariants: every child is ended; an interrupt ends a run with what was measured.

pub mod bare;
mod budgets;
mod c1m;
mod churn;
mod fanout;
mod flood;
mod floor;
mod heartbeat;
mod hold;
mod mixed;
mod push;
mod site;
mod slow;
mod storm;
mod unicast;

use crate::cli::{
    Arguments, C1m, Churn, Common, DriverName, Fanout, Flood, Heartbeat, Hold, Mixed, Protocol, Scenario, Slow, Storm,
    Unicast,
};
use crate::compare;
use crate::fleet::Tally;
use crate::fleet::squad::Credentials;
use crate::report::Report;
use crate::rig::Rig;
use crate::{Failure, interrupt, server};
use kittiwake::io::Driver;
use kittiwake::io::epoll::EpollDriver;
use kittiwake::io::probe::{Chosen, choose};
use kittiwake::io::uring::UringDriver;
use kittiwake::wire::mqtt::Version;
use kittiwake::wire::tls::{self, Trust};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Connections beside the fleet's own: publishers, and members that connect again while they still close.
const CONNECTIONS_EXTRA: u32 = 4_096;

/// What a run found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
}

/// Runs what the command line says.
pub fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    if let Scenario::FloorServer(arguments) = &arguments.scenario {
        crate::floor::serve::run(arguments)?;
        return Ok(Verdict::Passed);
    }
    if let Scenario::Page(arguments) = &arguments.scenario {
        let result = serde_json::from_str(&std::fs::read_to_string(&arguments.result)?)?;
        std::fs::create_dir_all(&arguments.directory)?;
        crate::page::write(&result, &arguments.directory)?;
        return Ok(Verdict::Passed);
    }
    if let Scenario::Budgets(arguments) = &arguments.scenario {
        return budgets::run(arguments);
    }
    let stop = interrupt::watch()?;
    let Needs { driver, client_cpu, connections, quiet, protocol, credentials, secure } = needs(&arguments.scenario);
    let secure = secure.map(|secure| secure.client()).transpose()?;
    if !protocol.is_mqtt() {
        return Err(
            format!("--protocol: this scenario speaks MQTT alone; `compare` speaks {} too", protocol.name()).into()
        );
    }
    if let Some(cpu) = client_cpu {
        server::pin_this(cpu)?;
    }
    let connections_max = connections.saturating_add(CONNECTIONS_EXTRA);
    let chosen = choose(driver.choice())?;
    if let Some(reason) = &chosen.fallback {
        eprintln!("loadtest: epoll, as io_uring is not to be had: {reason}");
    }
    match chosen.chosen {
        Chosen::Uring => play(
            Rig::new(UringDriver::new()?, connections_max, stop, quiet)?,
            (protocol.version(), credentials, secure),
            &arguments.scenario,
        ),
        Chosen::Epoll => play(
            Rig::new(EpollDriver::new()?, connections_max, stop, quiet)?,
            (protocol.version(), credentials, secure),
            &arguments.scenario,
        ),
    }
}

/// What a scenario needs of the client.
pub struct Needs {
    pub driver: DriverName,
    pub client_cpu: Option<usize>,
    pub connections: u32,
    pub quiet: bool,
    pub protocol: Protocol,
    pub credentials: Option<Credentials>,
    /// None: plain connections.
    pub secure: Option<Secure>,
}

/// How TLS is spoken.
#[derive(Debug)]
pub struct Secure {
    /// Whose servers are trusted; none: anybody's.
    ca: Option<PathBuf>,
    resumes: bool,
}

impl Secure {
    fn of(common: &Common) -> Option<Self> {
        let wanted = common.insecure_tls || common.ca.is_some();
        wanted.then(|| Self { ca: common.ca.clone(), resumes: common.tls_resume })
    }

    fn client(&self) -> Result<tls::Client, Failure> {
        let Some(path) = &self.ca else { return Ok(tls::Client::new(&Trust::Anybody, self.resumes, None)?) };
        let wrong = |why: String| format!("--ca: {}: {why}", path.display());
        let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let client = tls::Client::new(&Trust::Roots(&pem), self.resumes, None);
        Ok(client.map_err(|error| wrong(error.to_string()))?)
    }
}

fn needs(scenario: &Scenario) -> Needs {
    let of = |common: &Common, connections: u32| Needs {
        driver: common.driver,
        client_cpu: common.client_cpu,
        connections,
        quiet: common.quiet,
        protocol: common.protocol,
        credentials: common
            .username
            .clone()
            .map(|username| Credentials { username, password: common.password.clone() }),
        secure: Secure::of(common),
    };
    match scenario {
        Scenario::Hold(Hold { common, .. }) | Scenario::Storm(Storm { common, .. }) => of(common, common.connections),
        Scenario::Slow(Slow { common, .. }) | Scenario::C1m(C1m { common, .. }) => of(common, common.connections),
        Scenario::Mixed(Mixed { common, subscribers, guests, .. }) => {
            of(common, common.connections.saturating_add(*subscribers).saturating_add(*guests))
        }
        // Its clients are none of the fleet's.
        Scenario::Flood(Flood { common, .. }) => of(common, 0),
        // As many again towards the floor.
        Scenario::Fanout(Fanout { common, idle, .. }) => {
            of(common, common.connections.saturating_mul(2).saturating_add(*idle))
        }
        Scenario::Unicast(Unicast { common, .. }) | Scenario::Heartbeat(Heartbeat { common, .. }) => {
            of(common, common.connections.saturating_mul(2))
        }
        Scenario::Churn(Churn { common, guests, beside, .. }) => {
            let stay = common.connections.saturating_add(beside.unwrap_or(0));
            of(common, stay.saturating_add(guests.saturating_mul(2)))
        }
        Scenario::Floor(floor) => Needs {
            driver: floor.driver,
            client_cpu: floor.client_cpu,
            connections: floor.connections.saturating_add(floor.hold),
            quiet: floor.quiet,
            protocol: Protocol::Mqtt,
            credentials: None,
            secure: None,
        },
        Scenario::Compare(compare) => compare::needs(compare),
        Scenario::FloorServer(_) | Scenario::Page(_) | Scenario::Budgets(_) => {
            unreachable!("they are done without a rig")
        }
    }
}

/// Which gauges must fall back to what they were.
#[derive(Clone, Copy, Debug)]
struct Gauges {
    /// Sessions outlive their connections, and what belongs to them stays with them.
    sessions_stay: bool,
}

/// What belongs to a session rather than to a connection.
const OF_SESSIONS: &[&str] = &[
    "sessions",
    "users",
    "session_timers",
    "subscriptions",
    "filters",
    "interest_filters",
    "lagging_sessions",
    "memory_sessions",
];
/// What is a bounded memory of the past, and what was counted of connections at some time in the last seconds.
const OF_THE_PAST: &[&str] = &[
    "hot_ring",
    "memory_lagging",
    "window_messages",
    "behind_connections",
    "stalled_connections",
    "inbox_lag_entries",
    "inbox_lag_entries_max",
    "topics_lag_commits_max",
];

impl Gauges {
    /// Those that are higher than before, with both figures.
    fn held(self, before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<String> {
        let may_stay = |name: &str| OF_THE_PAST.contains(&name) || self.sessions_stay && OF_SESSIONS.contains(&name);
        let counts = now.iter().filter(|(name, _)| !may_stay(name));
        let was = |name: &str| before.get(name).copied().unwrap_or(0);
        counts
            .filter(|(name, now)| **now > was(name))
            .map(|(name, now)| format!("{name} {} → {now}", was(name)))
            .collect()
    }
}

/// Puts what went wrong on the way into the report.
pub fn note_tally(tally: &Tally, report: &mut Report) {
    report.figure("retries", tally.retries, "");
    report.figure("lost", tally.lost, "");
    report.detail("causes", json!(tally.causes));
    report.detail("held_back", tally.held_back.into());
    for (cause, count) in &tally.causes {
        println!("{count} × {cause}");
    }
    if tally.failed > 0 {
        report.fault(format!("{} connections or publications failed", tally.failed));
    }
}

fn play<D: Driver>(
    mut rig: Rig<D>,
    (version, credentials, secure): (Version, Option<Credentials>, Option<tls::Client>),
    scenario: &Scenario,
) -> Result<Verdict, Failure> {
    rig.fleet_mut().speak(version);
    (rig.fleet_mut().credentials, rig.fleet_mut().secure) = (credentials, secure);
    let report = match scenario {
        Scenario::Hold(arguments) => hold::run(rig, arguments)?,
        Scenario::Fanout(arguments) => fanout::run(rig, arguments)?,
        Scenario::Unicast(arguments) => unicast::run(rig, arguments)?,
        Scenario::Heartbeat(arguments) => heartbeat::run(rig, arguments)?,
        Scenario::Churn(arguments) => churn::run(rig, arguments)?,
        Scenario::Storm(arguments) => storm::run(rig, arguments)?,
        Scenario::Flood(arguments) => flood::run(rig, &flood::preset(arguments))?,
        Scenario::Slow(arguments) => slow::run(rig, arguments)?,
        Scenario::Mixed(arguments) => mixed::run(rig, arguments)?,
        Scenario::C1m(arguments) => c1m::run(rig, &c1m::preset(arguments))?,
        Scenario::Floor(arguments) => floor::run(rig, arguments)?,
        Scenario::Compare(arguments) => compare::run(rig, arguments)?,
        Scenario::FloorServer(_) | Scenario::Page(_) | Scenario::Budgets(_) => {
            unreachable!("they are done without a rig")
        }
    };
    Ok(if report.passed() { Verdict::Passed } else { Verdict::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_of_sessions_may_stay_while_those_of_connections_may_not() {
        let list = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let before = list(&[("slots", 1), ("sessions", 0)]);
        let now = list(&[("slots", 1), ("sessions", 5), ("blocks", 2), ("hot_ring", 9)]);
        assert_eq!(Gauges { sessions_stay: true }.held(&before, &now), ["blocks 0 → 2"]);
        assert_eq!(Gauges { sessions_stay: false }.held(&before, &now), ["blocks 0 → 2", "sessions 0 → 5"]);
    }
}
