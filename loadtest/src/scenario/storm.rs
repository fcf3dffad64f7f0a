//! Everybody loses the connection and comes back at once, beside a few clients that stand by and ping. What was pushed
//! meanwhile must reach each, once and in order, and so must one message to all when they are back. In the end all
//! leave, and what is left of each is one session.

use super::push::{Broadcast, everyone, push_everyone};
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::api::Stats;
use crate::cli::Storm;
use crate::figures::{Checked, Latency};
use crate::fleet::orders::Saying;
use crate::probe::Probes;
use crate::report::Report;
use crate::rig::{Climb, Rig};
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After the last expected arrival: time for one that is not expected.
const REPETITIONS: Duration = Duration::from_secs(1);
/// Bytes of what is pushed.
const PAYLOAD_BYTES: usize = 64;
/// Pings a second of a client that stands by.
const PING_RATE: u32 = 100;
/// How long those are looked at while nothing else goes on.
const IDLE: Duration = Duration::from_secs(2);
/// Counters of who was not let in begin so.
const REFUSED: &str = "refused_";

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    /// Messages to everyone while all were away, each time.
    pub messages: u32,
    /// Clients that stand by, and their pings' answers before the first storm.
    pub standing: u32,
    pub pings_idle: Latency,
    pub storms: Vec<Back>,
    /// Of all messages, those meanwhile and those afterwards.
    pub deliveries: Checked,
    /// Until the server's gauges were what they had been, and one session was left of each.
    pub free_after_seconds: Option<f64>,
}

/// One return of everybody.
#[derive(Debug, Default, Serialize)]
pub struct Back {
    /// Until all were gone.
    pub drop_seconds: f64,
    /// Until all were back.
    pub seconds: f64,
    /// From when all were due to when each was back.
    pub latency: Latency,
    /// The server's CPU for a return.
    pub us_each: Option<f64>,
    pub retries: u64,
    /// Whom the server did not let in, by its counters.
    pub refused: BTreeMap<String, u64>,
    /// Until all had what was pushed meanwhile.
    pub caught_up_seconds: f64,
    /// Answers to the pings of those who stand by, while all dropped,
    pub pings_dropping: Latency,
    /// and from when all were due until they had what was pushed meanwhile.
    pub pings: Latency,
    /// One message to all when they were back.
    pub push: Option<Broadcast>,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Storm) -> Result<Report, Failure> {
    let common = &arguments.common;
    let mut site = Site::open(rig, common, "storm", common.connections)?;
    let messages = if site.api.is_some() { arguments.messages } else { 0 };
    let (connections, standing) = (common.connections, arguments.standing);
    let mut found = Found { connections, messages, standing, ..Found::default() };
    let ended = play(&mut site, arguments, &mut found);
    tell(&mut site.report, &found);
    site.close(ended, &found)
}

fn tell(report: &mut Report, found: &Found) {
    report.latency("standing by, idle: pings", &found.pings_idle);
    for back in &found.storms {
        report.figure("seconds_until_all_are_back", back.seconds, "s");
        report.latency("back after", &back.latency);
        if let Some(us) = back.us_each {
            report.figure("return_us", us, "µs server CPU a return");
        }
        report.figure("returns_that_were_tried_again", back.retries, "");
        for (reason, count) in &back.refused {
            report.figure(reason, *count, "");
        }
        report.figure("seconds_until_all_caught_up", back.caught_up_seconds, "s");
        report.latency("standing by while all drop: pings", &back.pings_dropping);
        report.latency("standing by in the storm: pings", &back.pings);
        if let Some(push) = &back.push {
            report.checked("pushed when all are back", &push.deliveries);
            report.figure("push_seconds", push.seconds, "s until the last arrival");
        }
    }
    report.checked("pushed, in all", &found.deliveries);
    if let Some(seconds) = found.free_after_seconds {
        report.figure("free_after_seconds", seconds, "s more until all was given back");
    }
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Storm, found: &mut Found) -> Step<()> {
    let empty = site.stats()?;
    let target = *site.common.target.first().ok_or("no target")?;
    let standing = Probes::start(target, found.standing, PING_RATE)?;
    let before = site.stats()?;
    let speech = site.speech("storm", false, Some(("$inbox/#".to_owned(), Qos::AtLeastOnce)));
    let squad = done!(site.join("connect", found.connections, speech)?);
    site.rig.fleet_mut().expect(squad, PAYLOAD_BYTES);
    standing.take();
    done!(hoped(site.rig.rest("idle", IDLE)?));
    found.pings_idle = Latency::of(&standing.take());
    for _ in 0..arguments.storms {
        let back = storm(site, arguments, squad, (before.as_ref(), &standing));
        if let Some(ledger) = &site.rig.fleet().squad(squad).ledger {
            found.deliveries = ledger.checked();
        }
        found.storms.push(done!(back?));
    }
    let lost = site.rig.fleet().tally.lost;
    if lost > 0 {
        site.report.fault(format!("{lost} connections were lost"));
    }
    done!(hoped(site.rig.leave("leave", squad)?));
    if let Err(failure) = standing.end() {
        site.report.fault(format!("who stood by: {failure}"));
    }
    if let Some(empty) = empty {
        found.free_after_seconds = site.expect_free(&empty, true)?;
        site.expect_sessions(&empty, found.connections)?;
    }
    Ok(Ok(()))
}

fn storm<D: Driver>(
    site: &mut Site<'_, D>,
    arguments: &Storm,
    squad: u8,
    (before, standing): (Option<&Stats>, &Probes),
) -> Step<Back> {
    let (count, mut back) = (site.rig.fleet().squad(squad).count, Back::default());
    standing.take();
    let dropped = Instant::now();
    done!(hoped(site.rig.leave_some("drop", squad, 0..count, Saying::Drop)?));
    back.drop_seconds = dropped.elapsed().as_secs_f64();
    back.pings_dropping = Latency::of(&standing.take());
    if let Some(before) = before {
        // What the server sent to somebody whose end it has not seen yet would come again, marked as such.
        site.expect_free(before, true)?;
        for _ in 0..arguments.messages {
            let body = everyone(site, squad, Qos::AtLeastOnce)?;
            // Nobody is there, so the fleet has nothing to do while the server commits it.
            site.api.as_ref().ok_or("there are no messages without an API")?.push(&body)?;
        }
    }
    done!(come_back(site, arguments, squad, &mut back, standing)?);
    let ready = site.rig.fleet().squad(squad).ready;
    if ready < count {
        site.report.fault(format!("{ready} of {count} came back"));
    }
    done!(hoped(site.rig.rest("repeats?", REPETITIONS)?));
    if site.api.is_some() {
        back.push = Some(done!(push_everyone(site, squad, PAYLOAD_BYTES, Qos::AtLeastOnce)?));
    }
    Ok(Ok(back))
}

/// All are due at once, and are waited for until they have what was pushed while they were away.
fn come_back<D: Driver>(
    site: &mut Site<'_, D>,
    arguments: &Storm,
    squad: u8,
    back: &mut Back,
    standing: &Probes,
) -> Step<()> {
    let count = site.rig.fleet().squad(squad).count;
    site.rig.fleet_mut().set_up.reset();
    standing.take();
    let stats = site.stats()?;
    let (cpu, retries, due) = (site.cpu_ns()?, site.rig.fleet().tally.retries, Instant::now());
    let climb = Climb { rate: 0, handshakes: arguments.together, due: Some(due) };
    done!(hoped(site.rig.ramp_some("return", squad, 0..count, climb)?));
    back.seconds = due.elapsed().as_secs_f64();
    done!(hoped(site.rig.run("catch up", 1, site.common.patience.0, |fleet| {
        u64::from(fleet.squad(squad).ledger.as_ref().is_none_or(|ledger| ledger.under_way() == 0))
    })?));
    back.caught_up_seconds = due.elapsed().as_secs_f64();
    back.pings = Latency::of(&standing.take());
    back.us_each = site.us_each(cpu, u64::from(count))?;
    back.latency = Latency::of(&site.rig.fleet().set_up);
    back.retries = site.rig.fleet().tally.retries - retries;
    if let (Some(before), Some(now)) = (stats, site.stats()?) {
        let refused = now.counters.into_iter().filter(|(name, _)| name.starts_with(REFUSED));
        let grown = refused.map(|(name, count)| {
            let was = before.counters.get(&name).copied().unwrap_or(0);
            (name, count - was)
        });
        back.refused = grown.filter(|(_, count)| *count > 0).collect();
    }
    Ok(Ok(()))
}
