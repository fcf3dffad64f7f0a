//! Owns: `kittiwake doctor`: what N connections ask of this machine, what it gives, and the files of `tuning/`.
//! In: a number of connections; `/proc` and `/sys`, or a directory that looks like them; what the driver's probe said.
//! Out: findings for people or as JSON, or one of the files; an error when N would not fit.
//! Must not: change anything on the machine, know a figure that is not in [`plan`] or `limits.rs`.
//! Invariants: a figure that a file in `tuning/` says is the figure that the check compares with, for both come from one
//! [`plan::Plan`]; what cannot be read is said to be unknown, never to be well.

mod checks;
mod files;
mod kernel;
mod memory;
mod plan;
mod report;
mod root;
mod settings;

use super::capacity;
use super::cli::Failure;
use crate::io::probe::{self, Choice, Choosing, Chosen};
use crate::limits;
use checks::Situation;
use clap::{Args, ValueEnum};
use files::Part;
use plan::Plan;
use report::Report;
use root::Root;
use std::io::Write;

/// What `doctor` was asked.
#[derive(Args)]
pub(super) struct DoctorArguments {
    /// For how many connections.
    #[arg(long, value_name = "N", default_value_t = limits::DOCTOR_CONNECTIONS,
        value_parser = clap::value_parser!(u64).range(1..=limits::NODE_CONNECTIONS_MAX as u64))]
    connections: u64,
    /// Event loop threads; without it one per core, and enough for 64 in what is printed.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=limits::SHARDS_MAX as u64))]
    shards: Option<u64>,
    /// How shards would wait on sockets.
    #[arg(long, value_enum, default_value_t = DriverName::Auto)]
    driver: DriverName,
    /// The findings as JSON.
    #[arg(long, conflicts_with = "print")]
    json: bool,
    /// Prints a file of tuning/ for so many connections instead of looking at the machine.
    #[arg(long, value_enum, value_name = "FILE")]
    print: Option<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DriverName {
    Auto,
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
}

impl DriverName {
    fn choice(self) -> Choice {
        match self {
            Self::Auto => Choice::Auto,
            Self::IoUring => Choice::IoUring,
            Self::Epoll => Choice::Epoll,
        }
    }
}

/// Examines the machine, or prints a file.
pub(super) fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let connections = arguments.connections;
    if let Some(part) = arguments.print {
        let shards = arguments.shards.unwrap_or(limits::TUNING_SHARDS);
        say(&files::print(part, Plan { connections, shards }));
        return Ok(());
    }
    let plan = Plan { connections, shards: arguments.shards.unwrap_or_else(|| cores().min(limits::SHARDS_MAX as u64)) };
    let probed = probe::choose(arguments.driver.choice());
    let report = examine(&Root::at("/".into()), plan, probed);
    say(&if arguments.json { report.json() } else { report.text() });
    match report.obstacles().as_slice() {
        [] => Ok(()),
        obstacles => {
            let number = report::grouped(connections);
            Err(Failure::Runtime(format!("{number} connections would not fit: {}", obstacles.join(", "))))
        }
    }
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, core::num::NonZeroUsize::get) as u64
}

/// Looks at everything. Where io_uring was insisted on and is not there, `probed` says what it lacks.
fn examine(root: &Root, plan: Plan, probed: Result<Choosing, String>) -> Report {
    let io_uring = !matches!(probed, Ok(Choosing { chosen: Chosen::Epoll, .. }));
    let situation = Situation { root, plan, io_uring };
    let mut findings = vec![kernel::driver(&situation, &probed)];
    findings.extend(situation.io_uring.then(|| kernel::slots(&situation)));
    findings.extend([kernel::locked_memory(&situation), kernel::open_files(&situation)]);
    findings.extend(settings::all(plan).iter().filter_map(|setting| checks::setting(&situation, setting)));
    findings.extend(checks::what_is_our_own());
    findings.push(checks::ports(&situation));
    findings.push(memory::finding(&situation));
    let machine = kernel::machine(&situation);
    let capacity = capacity::estimate(machine, io_uring, usize::try_from(plan.shards).unwrap_or(usize::MAX), None);
    let driver = if io_uring { Chosen::Uring } else { Chosen::Epoll };
    Report { plan, driver: driver.name(), holds: capacity.connections, memory: memory::sum(&situation), findings }
}

fn say(text: &str) {
    // Nobody is left to tell when stdout is closed; the exit code still says it.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests;
