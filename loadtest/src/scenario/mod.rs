//! Owns: what a run does, step by step, and what it calls a failure.
//! In: the command line. Out: a report.
//! Must not: know sockets or frames; that is the fleet's.
//! Invariants: every child is ended; an interrupt ends a run with what was measured.

mod fanout;
mod floor;
mod hold;

use crate::cli::{Arguments, Scenario};
use crate::rig::Rig;
use crate::{Failure, server};
use kittiwake::io::epoll::EpollDriver;
use kittiwake::io::probe::{Chosen, choose};
use kittiwake::io::uring::UringDriver;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        // The second time there is no patience left.
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })?;
    let (driver, client_cpu, connections, quiet) = match &arguments.scenario {
        Scenario::Hold(hold) => {
            (hold.common.driver, hold.common.client_cpu, hold.common.connections, hold.common.quiet)
        }
        Scenario::Fanout(fanout) => {
            let common = &fanout.common;
            (common.driver, common.client_cpu, common.connections.saturating_mul(2), common.quiet)
        }
        Scenario::Floor(floor) => (floor.driver, floor.client_cpu, floor.connections, floor.quiet),
        Scenario::FloorServer(_) => unreachable!("it was served above"),
    };
    if let Some(cpu) = client_cpu {
        server::pin_this(cpu)?;
    }
    let connections_max = connections.saturating_add(CONNECTIONS_EXTRA);
    let chosen = choose(driver.choice())?;
    if let Some(reason) = &chosen.fallback {
        eprintln!("loadtest: epoll, as io_uring is not to be had: {reason}");
    }
    match chosen.chosen {
        Chosen::Uring => play(Rig::new(UringDriver::new()?, connections_max, stop, quiet)?, &arguments.scenario),
        Chosen::Epoll => play(Rig::new(EpollDriver::new()?, connections_max, stop, quiet)?, &arguments.scenario),
    }
}

fn play<D: kittiwake::io::Driver>(rig: Rig<D>, scenario: &Scenario) -> Result<Verdict, Failure> {
    let report = match scenario {
        Scenario::Hold(arguments) => hold::run(rig, arguments)?,
        Scenario::Fanout(arguments) => fanout::run(rig, arguments)?,
        Scenario::Floor(arguments) => floor::run(rig, arguments)?,
        Scenario::FloorServer(_) => unreachable!("it was served by itself"),
    };
    Ok(if report.passed() { Verdict::Passed } else { Verdict::Failed })
}
