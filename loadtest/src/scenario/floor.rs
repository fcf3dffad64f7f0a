//! Bare sockets without a protocol: what the kernel asks for accept, receive and send, and for an open socket.

use crate::Failure;
use crate::cli::Floor;
use crate::fleet::orders::Saying;
use crate::fleet::squad::Speech;
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::{Ended, Rig};
use crate::server::{slab_at_rest, slab_forgetful};
use kittiwake::io::Driver;
use std::time::Duration;

/// A stretch in which nothing moves for so long is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections of the child to itself; each has two ends, and a process is allowed 20,000 descriptors here.
const PAIRS: u32 = 8_000;
/// Connections that one child holds, for a process is allowed 20,000 descriptors here.
const HELD_BY_A_CHILD_MAX: u32 = 18_000;
/// Handshakes under way: fewer than a listener's backlog.
const HANDSHAKES: u32 = 256;

pub fn run<D: Driver>(mut rig: Rig<D>, arguments: &Floor) -> Result<Report, Failure> {
    let mut report = Report::new("floor");
    println!("floor: {} connections, client on {}", arguments.connections, rig.driver());
    if arguments.hold > 0 {
        slab_forgetful()?;
    }
    let mut server = FloorServer::start(arguments.server_cpu)?;
    server.ask(&format!("pairs {PAIRS}"))?;
    let pairs = server.answer()?;
    report.figure("kernel_bytes_per_bare_socket", pairs.slab_bytes as f64 / pairs.units.max(1) as f64, "B");

    let ended = hold(&mut rig, arguments, &mut report).and_then(|ended| match ended {
        Ended::Done => measure(&mut rig, &mut server, arguments, &mut report),
        ended => Ok(ended),
    });
    if !matches!(ended, Ok(Ended::Done)) {
        report.fault(format!("not finished: {ended:?}"));
    }
    report.write(arguments.report.as_deref())?;
    Ok(report)
}

/// What the kernel keeps of bare sockets that were accepted, and of this client's ends of them: what `hold` says of a
/// server, without the server.
fn hold<D: Driver>(rig: &mut Rig<D>, arguments: &Floor, report: &mut Report) -> Result<Ended, Failure> {
    if arguments.hold == 0 {
        return Ok(Ended::Done);
    }
    let (mut left, before) = (arguments.hold, slab_at_rest()?);
    let mut held: Vec<(FloorServer, u8)> = Vec::new();
    while left > 0 {
        let count = left.min(HELD_BY_A_CHILD_MAX);
        let mut server = FloorServer::start(arguments.server_cpu)?;
        let squad = rig.fleet_mut().add(count, vec![server.address], Speech::Raw);
        if let Some((_, last)) = held.last() {
            let others = rig.fleet().squad(*last).routes.clone();
            let squad = rig.fleet_mut().squad_mut(squad);
            squad.routes = squad.routes.clone().apart_from(&others);
        }
        server.ask(&format!("accept {count}"))?;
        let ended = rig.ramp("hold", squad, 0, HANDSHAKES)?;
        if ended != Ended::Done {
            return Ok(ended);
        }
        server.answer()?;
        held.push((server, squad));
        left -= count;
    }
    let bytes = slab_at_rest()? as f64 - before as f64;
    report.figure("kernel_bytes_per_connection", bytes / f64::from(arguments.hold), "B, both ends, bare");
    for (_server, squad) in held {
        let ended = rig.leave("leave", squad)?;
        if ended != Ended::Done {
            return Ok(ended);
        }
    }
    Ok(Ended::Done)
}

fn measure<D: Driver>(
    rig: &mut Rig<D>,
    server: &mut FloorServer,
    arguments: &Floor,
    report: &mut Report,
) -> Result<Ended, Failure> {
    let squad = rig.fleet_mut().add(arguments.connections, vec![server.address], Speech::Raw);
    server.ask(&format!("accept {}", arguments.connections))?;
    let ended = rig.ramp("connect", squad, 0, HANDSHAKES)?;
    if ended != Ended::Done {
        return Ok(ended);
    }
    report.figure("accept_us", server.answer()?.us(), "µs server CPU");

    let (connections, rounds) = (u64::from(arguments.connections), u64::from(arguments.rounds));
    for &bytes in &arguments.send {
        let mut figures = Vec::new();
        for _ in 0..arguments.repeats {
            let goal = rig.fleet().squad(squad).bytes + connections * rounds * u64::from(bytes);
            server.ask(&format!("send {bytes} {rounds}"))?;
            let ended = rig.run("send", goal, PATIENCE, |fleet| fleet.squad(squad).bytes)?;
            if ended != Ended::Done {
                return Ok(ended);
            }
            figures.push(server.answer()?.us());
        }
        report.quartiles(&format!("send_{bytes}_us"), &figures, "µs server CPU");
    }

    let mut figures = Vec::new();
    for _ in 0..arguments.repeats {
        // One round at a time, each from an idle fleet: a burst over all sockets.
        let (mut units, mut cpu_ns) = (0, 0);
        for _ in 0..rounds {
            server.ask(&format!("receive {} {}", arguments.connections, arguments.receive))?;
            rig.say(squad, Saying::Bytes(vec![0x5a; arguments.receive as usize]));
            let ended = rig.run("receive", 1, PATIENCE, |fleet| u64::from(fleet.round.is_none()))?;
            if ended != Ended::Done {
                return Ok(ended);
            }
            // The last bytes leave with the turn that ended the round, and with the next one's submission.
            rig.rest("receive", Duration::from_millis(20))?;
            let answer = server.answer()?;
            units += answer.units;
            cpu_ns += answer.cpu_ns;
        }
        figures.push(cpu_ns as f64 / 1_000.0 / units.max(1) as f64);
    }
    report.quartiles(&format!("receive_{}_us", arguments.receive), &figures, "µs server CPU (epoll, burst)");
    Ok(rig.leave("leave", squad)?)
}
