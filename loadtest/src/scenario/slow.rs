//! Some subscribers read slowly or not at all. The others must get everything, in time; the server's memory must stay
//! bounded; and of what the slow ones miss each message must be counted by the server.

use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::api::Stats;
use crate::cli::{Seconds, Slow};
use crate::figures::{Checked, Latency};
use crate::fleet::orders::{Drive, Pace, Saying, Sip};
use crate::fleet::squad::{Mqtt, Reading, Speech};
use crate::report::Report;
use crate::rig::Rig;
use crate::server::Process;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;
use std::time::{Duration, Instant};

/// The slow ones have what they will get when nothing has come for so long.
const QUIET: Duration = Duration::from_secs(2);
const TOPIC: &str = "load/slow";

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    pub slow: u32,
    pub stalled: u32,
    pub qos: u8,
    pub payload_bytes: u32,
    pub messages: u64,
    /// Of those who read freely.
    pub healthy: Checked,
    pub latency: Latency,
    /// Of those who do not; `missing` is what they missed.
    pub behind: Checked,
    /// What the server says that it dropped.
    pub dropped: Option<u64>,
    /// Lost connections of those who read slowly, which a policy may close.
    pub lost: u64,
    pub rss_bytes_before: Option<u64>,
    pub rss_bytes_peak: Option<u64>,
}

/// The squads of a run.
struct Squads {
    healthy: u8,
    slow: u8,
    stalled: u8,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Slow) -> Result<Report, Failure> {
    let common = &arguments.common;
    let share = |percent: u8| common.connections * u32::from(percent) / 100;
    let (slow, stalled) = (share(arguments.slow_percent).max(1), share(arguments.stalled_percent).max(1));
    if slow + stalled >= common.connections {
        return Err("nobody is left who reads".into());
    }
    let mut site = Site::open(rig, common, "slow", common.connections)?;
    let mut found = Found {
        connections: common.connections,
        slow,
        stalled,
        qos: arguments.qos.qos() as u8,
        payload_bytes: arguments.payload,
        ..Found::default()
    };
    let ended = play(&mut site, arguments, &mut found);
    judge(&mut site, arguments, &found);
    site.close(ended, &found)
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Slow, found: &mut Found) -> Step<()> {
    let squads = done!(join(site, arguments, found)?);
    let publisher = site.speech("publisher", true, None);
    let publisher = done!(site.join("publisher", 1, publisher)?);
    let before = site.stats()?;
    found.rss_bytes_before = site.process.map(Process::rss_bytes).transpose()?;
    let lost = site.rig.fleet().tally.lost;
    let Seconds(stretch) = arguments.stretch;
    let started = Instant::now();
    let pace = |rate| Pace { started, rate, issued: 0 };
    let fleet = site.rig.fleet_mut();
    (fleet.topic, fleet.qos) = (TOPIC.to_owned(), arguments.qos.qos());
    fleet.sip = Some(Sip { squad: squads.slow, next: 0, pace: pace(arguments.sips.saturating_mul(found.slow)) });
    let drive = Drive {
        squad: squads.healthy,
        publisher: fleet.squad(publisher).first,
        window: u64::from(arguments.window),
        unit: 1,
        head: Vec::new(),
        left: arguments.messages.unwrap_or(u64::MAX),
        until: arguments.messages.is_none().then_some(started + stretch),
        pace: Some(pace(arguments.publish_rate)),
    };
    let published = site.rig.publish("publish", drive, site.common.patience.0)?;
    note(site, &squads, found);
    done!(hoped(published));
    catch_up(site, &squads)?;
    note(site, &squads, found);
    found.lost = site.rig.fleet().tally.lost - lost;
    if let (Some(before), Some(after)) = (before, site.stats()?) {
        found.dropped = Some(dropped(&after) - dropped(&before));
    }
    for squad in [squads.healthy, squads.slow, squads.stalled] {
        done!(hoped(site.rig.leave("leave", squad)?));
    }
    Ok(Ok(()))
}

fn join<D: Driver>(site: &mut Site<'_, D>, arguments: &Slow, found: &Found) -> Step<Squads> {
    let subscription = || Some((TOPIC.to_owned(), arguments.qos.qos()));
    let clean = arguments.qos.qos() == Qos::AtMostOnce;
    let healthy = site.speech("reads", clean, subscription());
    let healthy = done!(site.join("connect", found.connections - found.slow - found.stalled, healthy)?);
    site.rig.fleet_mut().expect(healthy, arguments.payload as usize);
    let mut late = [0; 2];
    for (at, (prefix, count)) in [("slow", found.slow), ("stalled", found.stalled)].into_iter().enumerate() {
        let speech = Mqtt { reading: Reading::WhenTold, ..site.speech(prefix, clean, subscription()) };
        late[at] = done!(site.join(prefix, count, speech)?);
        site.rig.fleet_mut().look(late[at]);
    }
    Ok(Ok(Squads { healthy, slow: late[0], stalled: late[1] }))
}

/// The slow ones read all that is there for them.
fn catch_up<D: Driver>(site: &mut Site<'_, D>, squads: &Squads) -> Result<(), Failure> {
    site.rig.fleet_mut().sip = None;
    for squad in [squads.slow, squads.stalled] {
        if let Speech::Mqtt(speech) = &mut site.rig.fleet_mut().squad_mut(squad).speech {
            speech.reading = Reading::Freely;
        }
        site.rig.say(squad, Saying::Read);
        // It ends when nothing more comes.
        site.rig.run("catch up", u64::MAX, QUIET, |fleet| {
            fleet.squad(squad).sightings.as_ref().map_or(0, |sightings| sightings.deliveries)
        })?;
    }
    Ok(())
}

fn note<D: Driver>(site: &mut Site<'_, D>, squads: &Squads, found: &mut Found) {
    let fleet = site.rig.fleet();
    if let Some(ledger) = &fleet.squad(squads.healthy).ledger {
        (found.messages, found.healthy) = (ledger.published(), ledger.checked());
        found.latency = Latency::of(&ledger.latency);
    }
    found.behind = Checked::default();
    for squad in [squads.slow, squads.stalled].map(|number| fleet.squad(number)) {
        if let Some(sightings) = &squad.sightings {
            found.behind = found.behind.and(sightings.checked(found.messages, squad.count));
        }
    }
    let peak = site.process.and_then(|process| process.peak_rss_bytes().ok());
    found.rss_bytes_peak = found.rss_bytes_peak.max(peak);
}

/// Messages that the server dropped for who does not read, in whichever way.
fn dropped(stats: &Stats) -> u64 {
    stats.counters.iter().filter(|(name, _)| name.starts_with("dropped")).map(|(_, count)| count).sum()
}

fn judge<D: Driver>(site: &mut Site<'_, D>, arguments: &Slow, found: &Found) {
    site.report.checked("those who read", &found.healthy);
    site.report.latency("their latency", &found.latency);
    let Checked { right, expected, missing, .. } = found.behind;
    println!("{:<44} {right:>14} of {expected}, {missing} missed", "those who do not");
    for fault in faults(arguments.qos.qos(), found) {
        site.report.fault(fault);
    }
}

/// What is wrong with what the slow ones got.
fn faults(qos: Qos, found: &Found) -> Vec<String> {
    let Checked { missing, repeated, foreign, .. } = found.behind;
    let mut faults = Vec::new();
    if repeated + foreign > 0 {
        faults.push(format!("the slow ones: {:?}", found.behind));
    }
    if found.lost > 0 {
        faults.push(format!("{} connections were lost", found.lost));
    }
    if qos != Qos::AtMostOnce && missing > 0 {
        faults.push(format!("{missing} messages that wait for who reads slowly did not come"));
    }
    if let Some(dropped) = found.dropped.filter(|&dropped| qos == Qos::AtMostOnce && dropped != missing) {
        faults.push(format!("the slow ones missed {missing} messages, the server counts {dropped}"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_must_be_counted_at_qos_0_and_must_not_be_missed_above() {
        let behind = Checked { expected: 10, right: 7, missing: 3, ..Checked::default() };
        let found = |dropped| Found { behind, dropped: Some(dropped), ..Found::default() };
        assert!(faults(Qos::AtMostOnce, &found(3)).is_empty());
        assert_eq!(faults(Qos::AtMostOnce, &found(2)).len(), 1);
        assert_eq!(faults(Qos::AtLeastOnce, &found(3)).len(), 1);
        let twice = Found { behind: Checked { repeated: 1, ..behind }, dropped: Some(3), ..Found::default() };
        assert_eq!(faults(Qos::AtMostOnce, &twice).len(), 1);
        assert_eq!(faults(Qos::AtMostOnce, &Found { lost: 1, ..found(3) }).len(), 1);
    }
}
