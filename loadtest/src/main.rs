//! Load for kittiwake and for other MQTT brokers: a fleet of clients on kittiwake's own drivers, engine and codec.
//!
//! `cli` what was asked · `scenario` what is done · `rig` an engine with a fleet in it · `fleet` the clients ·
//! `source` backends that push ·
//! `floor` bare sockets without a protocol, in a process of their own · `server` processes and what /proc says of
//! them · `interrupt` Ctrl-C · `api` a small HTTP client · `figures` what scenarios find · `probe` clients by
//! themselves · `flood` connections without end · `report` figures for people and as JSON · `page` the same as a page
//! with charts · `foreign` what clients of other servers say · `compare` all servers in turns.

mod api;
mod cli;
mod clock;
mod compare;
mod figures;
mod fleet;
mod flood;
mod floor;
mod foreign;
mod interrupt;
mod page;
mod probe;
mod report;
mod rig;
mod scenario;
mod server;
mod source;
mod verify;

use clap::Parser;
use std::process::ExitCode;

/// What went wrong, in one line.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match scenario::run(&arguments) {
        Ok(scenario::Verdict::Passed) => ExitCode::SUCCESS,
        Ok(scenario::Verdict::Failed) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("loadtest: {failure}");
            ExitCode::FAILURE
        }
    }
}
