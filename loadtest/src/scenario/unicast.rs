//! One message to one client, again and again: through `PushStream`, over HTTP, or from an MQTT publisher. What it costs
//! the server, all threads taken together, in pairs with a bare send; how long it takes from when it was due.

use super::push::Courier;
use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::cli::{Seconds, Unicast, Via};
use crate::figures::{Checked, Latency, Pairs, PairsTaken};
use crate::fleet::squad::{NUMBER_MARK, publish};
use crate::floor::FloorServer;
use crate::report::Report;
use crate::rig::Rig;
use kittiwake::io::Driver;
use kittiwake::wire::mqtt::Encode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Letters before anything is measured.
const WARM_UP: u64 = 2_000;
/// The topic that a push without a label arrives at.
const INBOX_TOPIC: &str = "$inbox/push";
/// Where publishers' letters go.
const TOPIC: &str = "load/unicast/{n}";

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
        false => Some(done!(site.join_floor(common.connections)?)),
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
                Some((floor, squad)) => Some(done!(floor_stretch(site, floor, *squad, sent, arguments)?)),
                None => None,
            };
            taken.push(us, floor_us);
        }
        Ok(Ok(()))
    })();
    found.cost = taken.pairs("a unicast delivered");
    found.per_second = letters as f64 / busy.as_secs_f64().max(0.001);
    if let Some(inboxes) = &site.rig.fleet().squad(squad).inboxes {
        found.letters = inboxes.checked(courier.issued());
        found.latency = Latency::of(&inboxes.latency);
    }
    found.answer_latency = (arguments.via != Via::Mqtt).then(|| Latency::of(&courier.answers.latency));
    found.refused = courier.answers.refused;
    done!(played?);
    if let Some((_, squad)) = floor {
        done!(hoped(site.rig.leave("leave", squad)?));
    }
    Ok(hoped(site.rig.leave("leave", squad)?))
}

/// About as many bare sends of as many bytes.
fn floor_stretch<D: Driver>(
    site: &mut Site<'_, D>,
    floor: &mut FloorServer,
    squad: u8,
    letters: u64,
    arguments: &Unicast,
) -> Step<f64> {
    let topic = if arguments.via == Via::Mqtt { TOPIC.replace(NUMBER_MARK, "00000") } else { INBOX_TOPIC.to_owned() };
    let payload = vec![0; arguments.payload as usize];
    let bytes = publish(&topic, arguments.qos.qos(), 0, &payload).encoded_len(site.rig.fleet().version());
    let sockets = u64::from(arguments.common.connections.max(1));
    let rounds = (letters / sockets).max(1);
    let goal = site.rig.fleet().squad(squad).bytes + rounds * sockets * bytes as u64;
    floor.ask(&format!("send {bytes} {rounds}"))?;
    done!(hoped(site.rig.run("floor", goal, site.common.patience.0, |fleet| fleet.squad(squad).bytes)?));
    let answer = floor.answer()?;
    Ok(Ok(answer.us()))
}
