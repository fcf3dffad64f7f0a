//! Owns: the comparison: every server in turn, in rounds, beside bare sockets, in one run.
//! In: the command line. Out: a report.
//! Must not: install anything, end a process that it did not start, or measure a server by other means than the others.
//! Invariants: all servers are up while any is measured, each with as many subscribers; a round takes a stretch from each
//! before any has its next; every delivery is checked; what is missing is said with the command that gets it.
//!
//! `targets` the servers · `start` one as a child · `rows` what is compared · `stand` a server with its clients ·
//! `stretches` what is measured of it · `latency` from a publication or push to its arrival · `found` what came out.

mod found;
mod latency;
pub mod rows;
mod stand;
pub mod start;
mod stretches;
pub mod targets;

use crate::Failure;
use crate::cli::{Compare, Protocol};
use crate::fleet::squad::{Carriage, Speech};
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::scenario::bare::BareFan;
use crate::scenario::{Needs, note_tally};
use clap::ValueEnum;
use found::{Compared, Server, Taken};
use kittiwake::io::Driver;
use rows::Row;
use stand::Stand;
use start::Workplace;
use std::collections::BTreeMap;
use std::time::Instant;
use targets::{Missing, Place, Programs, Target};

/// What all subscribers of a server listen to.
const TOPIC: &str = "load/all";
/// What each listens to alone.
const OWN_TOPIC: &str = "load/one/{n}";

/// The client's side of a comparison.
pub fn needs(arguments: &Compare) -> Needs {
    // The floor's two sides, and the gateways' inboxes beside their topics.
    let sides = u32::try_from(chosen(&arguments.servers).len()).unwrap_or(u32::MAX).saturating_add(4);
    Needs {
        driver: arguments.driver,
        client_cpu: arguments.client_cpu,
        connections: arguments.connections.saturating_mul(sides),
        quiet: arguments.quiet,
        protocol: Protocol::Mqtt,
        credentials: None,
        secure: None,
    }
}

/// What was asked for; everything if nothing was.
fn chosen<T: ValueEnum + Copy>(asked: &[T]) -> Vec<T> {
    if asked.is_empty() { T::value_variants().to_vec() } else { asked.to_vec() }
}

/// A comparison under way.
struct Play<'a, D: Driver> {
    rig: Rig<D>,
    arguments: &'a Compare,
    report: Report,
    programs: Programs,
    work: Workplace,
    targets: Vec<Target>,
    stands: Vec<Stand>,
    /// The floor of a fan-out, and that of everything else.
    fan: Option<BareFan>,
    bare: Option<(FloorServer, u8)>,
    taken: Taken,
    /// Messages to single clients that were delivered in a second of the last such stretch.
    unicasts_per_second: BTreeMap<String, f64>,
    found: Compared,
    started: Instant,
}

/// Compares.
pub fn run<D: Driver>(rig: Rig<D>, arguments: &Compare) -> Result<Report, Failure> {
    start::raise_file_limit()?;
    let programs = Programs { told: arguments.program.clone(), gateway: std::path::absolute(&arguments.gateway)? };
    let mut play = Play {
        rig,
        arguments,
        report: Report::new("compare"),
        programs,
        work: Workplace::new()?,
        targets: Vec::new(),
        stands: Vec::new(),
        fan: None,
        bare: None,
        taken: Taken::default(),
        unicasts_per_second: BTreeMap::new(),
        found: Compared::default(),
        started: Instant::now(),
    };
    play.look_for_servers();
    if play.targets.iter().any(|target| target.is_ours()) {
        play.report.gateway(&arguments.gateway);
    }
    if arguments.list {
        return Ok(play.report);
    }
    let ended = play.rows();
    play.conclude();
    match ended {
        Ok(Ended::Done) => {}
        Ok(ended) => play.report.fault(format!("not finished: {ended:?}")),
        Err(failure) => play.report.fault(format!("not finished: {failure}")),
    }
    // The clients end before the servers, which would else be busy with telling them.
    drop(play.rig);
    drop(play.stands);
    play.report.write(arguments.report.as_deref())?;
    Ok(play.report)
}

impl<D: Driver> Play<'_, D> {
    /// Says what is here and how to get what is not.
    fn look_for_servers(&mut self) {
        for target in chosen(&self.arguments.servers) {
            let place = self.place(target);
            match target.recipe(&self.programs, &place) {
                Ok(recipe) => {
                    let (name, label, version) = (target.name(), target.label(), target.version(&recipe));
                    println!("{label:<20} {version:<28} {}", recipe.program.display());
                    self.targets.push(target);
                    self.found.targets.push(Server { name, label, version, ours: target.is_ours() });
                }
                Err(missing) => self.leave_out(missing),
            }
        }
    }

    fn leave_out(&mut self, missing: Missing) {
        let Missing { label, what, get, .. } = &missing;
        println!("{label:<20} left out: {what}. To get it:  {get}");
        self.found.missing.push(missing);
    }

    fn place(&self, target: Target) -> Place {
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let directory = self.work.path().join(target.name());
        // Room for the second squad of a gateway, and for what closes while others come.
        let connections = self.arguments.connections.saturating_mul(2).saturating_add(1_000);
        Place { address: nowhere, api: nowhere, directory, connections }
    }

    fn rows(&mut self) -> Result<Ended, Failure> {
        let rows = chosen(&self.arguments.rows);
        let (single, shared): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.is_single());
        for (rows, topic) in [(shared, TOPIC), (single, OWN_TOPIC)] {
            if rows.is_empty() {
                continue;
            }
            for step in [Self::join_servers, Self::join_floor] {
                let ended = step(self, topic)?;
                if ended != Ended::Done {
                    return Ok(ended);
                }
            }
            for row in rows {
                let ended = if row == Row::Latency { self.latencies()? } else { self.row(row)? };
                if ended != Ended::Done {
                    return Ok(ended);
                }
            }
            self.leave()?;
        }
        Ok(Ended::Done)
    }

    fn join_servers(&mut self, topic: &str) -> Result<Ended, Failure> {
        for target in self.targets.clone() {
            if self.rig.interrupted() {
                return Ok(Ended::Interrupted);
            }
            if let Err(failure) = self.join(target, topic) {
                self.report.fault(format!("{}: {failure}", target.label()));
            }
        }
        Ok(if self.rig.interrupted() { Ended::Interrupted } else { Ended::Done })
    }

    fn join_floor(&mut self, topic: &str) -> Result<Ended, Failure> {
        let Self { arguments, rig, .. } = self;
        let way = (arguments.server_cpu, arguments.handshakes);
        if topic == TOPIC {
            let (count, bytes) = (arguments.connections, arguments.payload as usize);
            match BareFan::join(rig, count, bytes, Carriage::Tcp, way)? {
                Ok(fan) => self.fan = Some(fan),
                Err(ended) => return Ok(ended),
            }
        }
        let mut server = FloorServer::start(arguments.server_cpu)?;
        let squad = rig.fleet_mut().add(arguments.connections, vec![server.address], Speech::Raw);
        server.ask(&format!("accept {}", arguments.connections))?;
        let ended = rig.ramp("floor", squad, 0, arguments.handshakes)?;
        if ended == Ended::Done {
            server.answer()?;
            self.bare = Some((server, squad));
        }
        Ok(ended)
    }

    /// All clients leave, and all servers end.
    fn leave(&mut self) -> Result<(), Failure> {
        let fan = self.fan.as_ref().map(|fan| [fan.subscribers, fan.publisher]);
        let bare = self.bare.as_ref().map(|(_, squad)| *squad);
        let squads = self.stands.iter().flat_map(|stand| stand.squads().collect::<Vec<_>>());
        let squads: Vec<u8> = squads.chain(fan.into_iter().flatten()).chain(bare).collect();
        for squad in squads {
            self.rig.leave("leave", squad)?;
        }
        (self.fan, self.bare) = (None, None);
        for stand in core::mem::take(&mut self.stands) {
            if let Err(failure) = stand.running.server.stop() {
                self.report.fault(format!("{}: {failure}", stand.running.target.label()));
            }
        }
        Ok(())
    }

    /// Puts what was found into the report.
    fn conclude(&mut self) {
        let arguments = self.arguments;
        let bound = match (arguments.server_cpu, arguments.client_cpu) {
            (Some(server), Some(client)) => {
                format!("The servers are bound to CPU {server}, the client to CPU {client}")
            }
            _ => "Servers and client share all CPUs".to_owned(),
        };
        self.found.about = format!(
            "{} subscribers of each server, {} B. In each of {} rounds every server has a stretch of {} s of a row before \
             any has its next. {bound}. Lower is better. Bars are medians, whiskers quartiles; the dashed line is bare \
             sockets doing the same without any protocol.",
            arguments.connections,
            arguments.payload,
            arguments.rounds,
            arguments.stretch.0.as_secs_f64(),
        );
        self.found.rows = self.taken.lines(&self.targets);
        for line in &self.found.rows {
            println!("\n{} ({})", line.title, line.unit);
            let floor = line.floor.as_ref().map(|spread| ("floor", spread));
            let cells = line.cells.iter().filter_map(|cell| Some((cell.target.as_str(), cell.spread.as_ref()?)));
            for (name, spread) in floor.into_iter().chain(cells) {
                println!("  {name:<20} {:>12.3} [{:.3} .. {:.3}]", spread.median, spread.low, spread.high);
            }
        }
        println!();
        self.report.figure("seconds", self.started.elapsed().as_secs_f64(), "s");
        note_tally(&self.rig.fleet().tally, &mut self.report);
        self.report.result(&self.found);
    }
}
