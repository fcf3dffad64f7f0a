//! Everything at once, each at its rate: heartbeats of many, letters to single ones, messages to many, and clients that
//! come and go. Each delivery is checked, and each kind has its latency.

use super::push::Courier;
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::{Mixed, Seconds};
use crate::figures::{Checked, Latency};
use crate::fleet::orders::{Beat, Drive, Pace, Saying};
use crate::report::Report;
use crate::rig::{Climb, Rig};
use crate::source::{Door, Source};
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use serde::Serialize;
use std::time::{Duration, Instant};

const TOPIC: &str = "load/mixed";
/// Messages to many that are under way at most.
const WINDOW: u64 = 64;
/// Letters that are under way at most.
const LETTERS_WINDOW: u64 = 4_000;

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    pub subscribers: u32,
    pub guests: u32,
    pub seconds: f64,
    pub server_cpus: Option<f64>,
    pub fanout: Checked,
    pub fanout_latency: Latency,
    pub unicasts: Checked,
    pub unicast_latency: Latency,
    pub heartbeats: Checked,
    pub heartbeat_latency: Latency,
    /// Times that a client came, and how long that took each.
    pub visits: u64,
    pub set_up_latency: Latency,
}

/// Who takes part.
struct Cast {
    idle: u8,
    fan: u8,
    publisher: u8,
    guests: u8,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Mixed) -> Result<Report, Failure> {
    let common = &arguments.common;
    let connections = common.connections + arguments.subscribers + arguments.guests;
    let mut site = Site::open(rig, common, "mixed", connections)?;
    let (subscribers, guests) = (arguments.subscribers, arguments.guests);
    let mut found = Found { connections: common.connections, subscribers, guests, ..Found::default() };
    let ended = play(&mut site, arguments, &mut found);
    if let Some(cpus) = found.server_cpus {
        site.report.figure("server_cpus", cpus, "CPUs");
    }
    site.report.checked("messages to many", &found.fanout);
    site.report.latency("their latency", &found.fanout_latency);
    if site.api.is_some() {
        site.report.checked("messages to one", &found.unicasts);
        site.report.latency("their latency", &found.unicast_latency);
    }
    site.report.checked("heartbeats", &found.heartbeats);
    site.report.latency("their latency", &found.heartbeat_latency);
    site.report.figure("visits", found.visits, "clients came and went");
    site.report.latency("set-up latency", &found.set_up_latency);
    site.close(ended, &found)
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Mixed, found: &mut Found) -> Step<()> {
    let before = site.stats()?;
    let cast = done!(join(site, arguments)?);
    let mut courier = Courier::new(site, cast.idle, "idle");
    (courier.qos, courier.window, courier.batch) = (Qos::AtLeastOnce, LETTERS_WINDOW, 16);
    (courier.payload_bytes, courier.rate) = (arguments.payload as usize, Some(arguments.push_rate.max(1)));
    let Seconds(stretch) = arguments.stretch;
    let (cpu, started) = (site.cpu_ns()?, Instant::now());
    let until = started + stretch;
    let source = match site.api.is_some() && arguments.push_rate > 0 {
        true => {
            courier.by_api(site, Door::Grpc)?;
            Some(courier.start(site, u64::MAX, Some(until))?)
        }
        false => None,
    };
    order(site, arguments, &cast, until);
    let played = visits(site, &cast, until, source.as_ref(), found);
    found.seconds = started.elapsed().as_secs_f64();
    found.server_cpus = site.cpu_ns()?.zip(cpu).map(|(now, then)| (now - then) as f64 / 1e9 / found.seconds);
    let finished = finish(site, &cast, courier, source, found);
    done!(played?);
    done!(finished?);
    for squad in [cast.idle, cast.fan, cast.publisher] {
        done!(hoped(site.rig.leave("leave", squad)?));
    }
    if let Some(before) = before {
        site.expect_free(&before, false)?;
    }
    Ok(Ok(()))
}

fn join<D: Driver>(site: &mut Site<'_, D>, arguments: &Mixed) -> Step<Cast> {
    let inbox = || Some(("$inbox/#".to_owned(), Qos::AtLeastOnce));
    let topic = Some((TOPIC.to_owned(), Qos::AtMostOnce));
    let speech = site.speech("idle", true, inbox());
    let idle = done!(site.join("connect", arguments.common.connections, speech)?);
    let speech = site.speech("fan", true, topic);
    let fan = done!(site.join("subscribe", arguments.subscribers, speech)?);
    let speech = site.speech("publisher", true, None);
    let publisher = done!(site.join("publisher", 1, speech)?);
    let speech = site.speech("guest", true, inbox());
    let target = arguments.common.target.clone();
    let fleet = site.rig.fleet_mut();
    let guests = fleet.add(arguments.guests, target, crate::fleet::squad::Speech::Mqtt(speech));
    fleet.expect(fan, arguments.payload as usize);
    fleet.set_up.reset();
    Ok(Ok(Cast { idle, fan, publisher, guests }))
}

/// What goes on by itself while clients come and go.
fn order<D: Driver>(site: &mut Site<'_, D>, arguments: &Mixed, cast: &Cast, until: Instant) {
    let pace = |rate: u32| Some(Pace { started: Instant::now(), rate, issued: 0 });
    let fleet = site.rig.fleet_mut();
    (fleet.topic, fleet.qos) = (TOPIC.to_owned(), Qos::AtMostOnce);
    let publisher = fleet.squad(cast.publisher).first;
    fleet.drive = (arguments.publish_rate > 0).then(|| Drive {
        squad: cast.fan,
        publisher,
        window: WINDOW,
        unit: 1,
        head: Vec::new(),
        left: u64::MAX,
        until: Some(until),
        pace: pace(arguments.publish_rate),
    });
    fleet.beat = (arguments.beat_rate > 0).then(|| Beat {
        squad: cast.idle,
        next: 0,
        window: arguments.common.connections,
        under_way: 0,
        left: u64::MAX,
        until: Some(until),
        pace: pace(arguments.beat_rate),
    });
}

/// Guests come and go until it is time.
fn visits<D: Driver>(
    site: &mut Site<'_, D>,
    cast: &Cast,
    until: Instant,
    source: Option<&Source>,
    found: &mut Found,
) -> Step<()> {
    let count = site.rig.fleet().squad(cast.guests).count;
    let _ticker = site.rig.ticker();
    while Instant::now() < until {
        let climb = Climb { rate: site.common.rate, handshakes: site.common.handshakes, due: None };
        if count > 0 {
            done!(hoped(site.rig.ramp_some("mixed", cast.guests, 0..count, climb)?));
            found.visits += u64::from(site.rig.fleet().squad(cast.guests).ready);
            done!(hoped(site.rig.leave_some("mixed", cast.guests, 0..count, Saying::Drop)?));
        } else {
            let rest = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
            done!(hoped(site.rig.rest("mixed", rest)?));
        }
        if let Some(source) = source {
            source.delivered(site.rig.letters(cast.idle));
        }
    }
    Ok(Ok(()))
}

/// Waits until what is under way has arrived, and notes what came.
fn finish<D: Driver>(
    site: &mut Site<'_, D>,
    cast: &Cast,
    mut courier: Courier,
    source: Option<Source>,
    found: &mut Found,
) -> Step<()> {
    let ticker = site.rig.ticker();
    let (fan, idle) = (cast.fan, cast.idle);
    let patience = site.common.patience.0;
    let ended = site.rig.run("last ones", 1, patience, |fleet| {
        let published = fleet.squad(fan).ledger.as_ref().is_none_or(|ledger| ledger.under_way() == 0);
        let driven = fleet.drive.as_ref().is_none_or(|drive| drive.left == 0);
        let beaten = fleet.beat.as_ref().is_none_or(|beat| beat.left == 0 && beat.under_way == 0);
        u64::from(published && driven && beaten)
    })?;
    let delivered = match source {
        Some(source) => courier.finish(site, "last ones", source, u64::MAX)?,
        None => ended,
    };
    drop(ticker);
    let fleet = site.rig.fleet_mut();
    (fleet.drive, fleet.beat) = (None, None);
    let idle = fleet.squad(idle);
    (found.heartbeats, found.heartbeat_latency) = (idle.beats.checked(), Latency::of(&idle.beats.latency));
    if let Some(inboxes) = &idle.inboxes {
        found.unicasts = inboxes.checked(courier.issued());
        found.unicast_latency = Latency::of(&inboxes.latency);
    }
    if let Some(ledger) = &fleet.squad(fan).ledger {
        (found.fanout, found.fanout_latency) = (ledger.checked(), Latency::of(&ledger.latency));
    }
    found.set_up_latency = Latency::of(&fleet.set_up);
    for (reason, count) in &courier.answers.refused {
        site.report.fault(format!("{count} pushes refused: {reason}"));
    }
    done!(hoped(ended));
    Ok(hoped(delivered))
}
