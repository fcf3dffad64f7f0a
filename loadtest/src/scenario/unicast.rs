//! One message to one client, again and again: through `PushStream`, over HTTP, or from an MQTT publisher. What it costs
//! the server, all threads taken together, in pairs with a bare send; how long it takes from when it was due.

use super::push::Courier;
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::{Seconds, Unicast, Via};
use crate::figures::{Checked, Latency, Pairs, PairsTaken};
use crate::fleet::squad::{Carriage, Speech};
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::Rig;
use kittiwake::io::Driver;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Letters before anything is measured.
const WARM_UP: u64 = 2_000;
/// The topic that a push without a label arrives at.
const INBOX_TOPIC: &str = "$inbox/push";
/// Where publishers' letters go.
const TOPIC: &str = "load/unicast/{n}";
/// As long as one of those.
const PUBLISHED_TOPIC: &str = "load/unicast/00000";

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub connections: u32,
    pub via: String,
    pub qos: u8,
    pub payload_bytes: u32,
    pub batch: u32,
    pub window: u32,
    /// Letters a second that were due; none: as many as the window allowed.
    pub rate: Option<u32>,
    /// P6 is about the difference.
    pub cost: Pairs,
    pub per_second: f64,
    pub latency: Latency,
    /// Of the server's replies, where there are any.
    pub answer_latency: Option<Latency>,
    pub refused: BTreeMap<String, u64>,
    pub letters: Checked,
    /// The floor's.
    pub floor_letters: Option<Checked>,
}

pub fn run<D: Driver>(rig: Rig<D>, arguments: &Unicast) -> Result<Report, Failure> {
    let common = &arguments.common;
    let mut site = Site::open(rig, common, "unicast", common.connections)?;
    let mut found = Found {
        connections: common.connections,
        via: arguments.via.name().to_owned(),
        qos: arguments.qos.qos() as u8,
        payload_bytes: arguments.payload,
        batch: arguments.batch,
        window: arguments.window,
        rate: arguments.push_rate,
        ..Found::default()
    };
    let ended = play(&mut site, arguments, &mut found);
    site.report.pairs("unicast", &found.cost);
    site.report.figure("unicasts_per_second", found.per_second, "/s");
    site.report.latency("unicast latency", &found.latency);
    if let Some(latency) = &found.answer_latency {
        site.report.latency("answer latency", latency);
    }
    site.report.checked("unicasts", &found.letters);
    if let Some(letters) = &found.floor_letters {
        site.report.checked("bare sends", letters);
    }
    for (reason, count) in &found.refused {
        site.report.fault(format!("{count} pushes refused: {reason}"));
    }
    site.close(ended, &found)
}

fn play<D: Driver>(site: &mut Site<'_, D>, arguments: &Unicast, found: &mut Found) -> Step<()> {
    let common = &arguments.common;
    let filter = if arguments.via == Via::Mqtt { TOPIC } else { "$inbox/#" };
    let speech = site.speech("uni", !arguments.keep_sessions, Some((filter.to_owned(), arguments.qos.qos())));
    let squad = done!(site.join("connect", common.connections, speech)?);
    let mut floor = match arguments.no_floor {
        true => None,
        false => Some(done!(join_floor(site, arguments)?)),
    };
    let mut courier = Courier::new(site, squad, "uni");
    (courier.qos, courier.payload_bytes) = (arguments.qos.qos(), arguments.payload as usize);
    (courier.batch, courier.window) = (arguments.batch as usize, u64::from(arguments.window));
    courier.rate = arguments.push_rate;
    if arguments.via == Via::Mqtt {
        let publisher = site.speech("publisher", true, None);
        let publishers = done!(site.join("publisher", 1, publisher)?);
        courier.by_publisher(publishers, TOPIC);
    } else {
        courier.by_api(site, arguments.via.door())?;
    }
    let (mut taken, mut busy, mut letters) = (PairsTaken::default(), Duration::ZERO, 0);
    let played: Step<()> = (|| {
        done!(courier.send(site, "warm up", Some(WARM_UP), None)?);
        if let Some(inboxes) = &mut site.rig.fleet_mut().squad_mut(squad).inboxes {
            inboxes.latency.reset();
        }
        courier.answers.latency.reset();
        for _ in 0..arguments.pairs {
            done!(site.settle()?);
            let (cpu, begun) = (site.cpu_ns()?, Instant::now());
            let Seconds(stretch) = arguments.stretch;
            let sent = done!(courier.send(site, "server", arguments.messages, Some(stretch))?);
            busy += begun.elapsed();
            letters += sent;
            done!(site.settle()?);
            let us = site.us_each(cpu, sent)?;
            let floor_us = match &mut floor {
                Some((floor, courier)) => Some(done!(floor_stretch(site, floor, courier, sent)?)),
                None => None,
            };
            taken.push(us, floor_us);
        }
        Ok(Ok(()))
    })();
    found.cost = taken.pairs("a unicast delivered");
    found.per_second = letters as f64 / busy.as_secs_f64().max(0.001);
    found.letters = courier.checked(site);
    if let Some(inboxes) = &site.rig.fleet().squad(squad).inboxes {
        found.latency = Latency::of(&inboxes.latency);
    }
    found.answer_latency = (arguments.via != Via::Mqtt).then(|| Latency::of(&courier.answers.latency));
    found.refused = courier.answers.refused;
    done!(played?);
    if let Some((_, courier)) = floor {
        found.floor_letters = Some(courier.checked(site));
        done!(hoped(site.rig.leave("leave", courier.squad())?));
    }
    Ok(hoped(site.rig.leave("leave", squad)?))
}

/// As many bare sockets, to a process that hands on what it is posted, and who posts to them.
fn join_floor<D: Driver>(site: &mut Site<'_, D>, arguments: &Unicast) -> Step<(FloorServer, Courier)> {
    let (floor, squad) = done!(site.join_floor(arguments.common.connections, Speech::Packets(Carriage::Tcp))?);
    let mut courier = Courier::new(site, squad, "floor");
    let topic = if arguments.via == Via::Mqtt { PUBLISHED_TOPIC } else { INBOX_TOPIC };
    courier.by_floor(floor.address, topic, site.rig.fleet().version());
    (courier.payload_bytes, courier.batch) = (arguments.payload as usize, arguments.batch as usize);
    (courier.window, courier.rate) = (u64::from(arguments.window), arguments.push_rate);
    Ok(Ok((floor, courier)))
}

/// As many bare sends of as many bytes, to sockets in an order like the server's, with as many under way.
fn floor_stretch<D: Driver>(
    site: &mut Site<'_, D>,
    floor: &mut FloorServer,
    courier: &mut Courier,
    letters: u64,
) -> Step<f64> {
    floor.ask(&format!("post {letters}"))?;
    done!(courier.send(site, "floor", Some(letters), None)?);
    Ok(Ok(floor.answer()?.us()))
}
