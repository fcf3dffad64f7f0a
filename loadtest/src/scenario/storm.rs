//! Everybody loses the connection and comes back at once. What was pushed meanwhile must reach each, once and in order.

use super::push::everyone;
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::Storm;
use crate::figures::{Checked, Latency};
use crate::fleet::orders::Saying;
use crate::report::Report;
use crate::rig::{Climb, Rig};
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;
use std::time::{Duration, Instant};

/// After the last expected arrival: time for one that is not expected.
const REPETITIONS: Duration = Duration::from_secs(1);
/// Bytes of what is pushed meanwhile.
const PAYLOAD_BYTES: usize = 64;

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    /// Messages to everyone while all were away, each time.
    pub messages: u32,
    pub storms: Vec<Back>,
    pub deliveries: Checked,
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
    /// Until all had what was pushed meanwhile.
    pub caught_up_seconds: f64,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Storm) -> Result<Report, Failure> {
    let common = &arguments.common;
    let mut site = Site::open(rig, common, "storm", common.connections)?;
    let messages = if site.api.is_some() { arguments.messages } else { 0 };
    let mut found = Found { connections: common.connections, messages, ..Found::default() };
    let ended = play(&mut site, arguments, &mut found);
    for back in &found.storms {
        site.report.figure("seconds_until_all_are_back", back.seconds, "s");
        site.report.latency("back after", &back.latency);
        if let Some(us) = back.us_each {
            site.report.figure("return_us", us, "µs server CPU a return");
        }
        site.report.figure("seconds_until_all_caught_up", back.caught_up_seconds, "s");
    }
    site.report.checked("pushed meanwhile", &found.deliveries);
    site.close(ended, &found)
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Storm, found: &mut Found) -> Step<()> {
    let before = site.stats()?;
    let speech = site.speech("storm", false, Some(("$inbox/#".to_owned(), Qos::AtLeastOnce)));
    let squad = done!(site.join("connect", found.connections, speech)?);
    site.rig.fleet_mut().expect(squad, PAYLOAD_BYTES);
    for _ in 0..arguments.storms {
        let back = storm(site, arguments, squad, found.messages);
        if let Some(ledger) = &site.rig.fleet().squad(squad).ledger {
            found.deliveries = ledger.checked();
        }
        found.storms.push(done!(back?));
    }
    done!(hoped(site.rig.leave("leave", squad)?));
    if let Some(before) = before {
        site.expect_free(&before, true)?;
    }
    Ok(Ok(()))
}

fn storm<D: Driver>(site: &mut Site<'_, D>, arguments: &Storm, squad: u8, messages: u32) -> Step<Back> {
    let (count, mut back, dropped) = (site.rig.fleet().squad(squad).count, Back::default(), Instant::now());
    done!(hoped(site.rig.leave_some("drop", squad, 0..count, Saying::Drop)?));
    back.drop_seconds = dropped.elapsed().as_secs_f64();
    for _ in 0..messages {
        let body = everyone(site, squad, Qos::AtLeastOnce)?;
        // Nobody is there, so the fleet has nothing to do while the server commits it.
        site.api.as_ref().ok_or("there are no messages without an API")?.push(&body)?;
    }
    site.rig.fleet_mut().set_up.reset();
    let (cpu, retries, due) = (site.cpu_ns()?, site.rig.fleet().tally.retries, Instant::now());
    let climb = Climb { rate: 0, handshakes: arguments.together, due: Some(due) };
    done!(hoped(site.rig.ramp_some("return", squad, 0..count, climb)?));
    back.seconds = due.elapsed().as_secs_f64();
    done!(hoped(site.rig.run("catch up", 1, site.common.patience.0, |fleet| {
        u64::from(fleet.squad(squad).ledger.as_ref().is_none_or(|ledger| ledger.under_way() == 0))
    })?));
    back.caught_up_seconds = due.elapsed().as_secs_f64();
    back.us_each = site.us_each(cpu, u64::from(count))?;
    back.latency = Latency::of(&site.rig.fleet().set_up);
    back.retries = site.rig.fleet().tally.retries - retries;
    let ready = site.rig.fleet().squad(squad).ready;
    if ready < count {
        site.report.fault(format!("{ready} of {count} came back"));
    }
    done!(hoped(site.rig.rest("repeats?", REPETITIONS)?));
    Ok(Ok(back))
}
