//! Messages of scenarios: letters to single clients by any door, and one message to everyone.

use super::site::{Site, Step, done, hoped};
use crate::Failure;
use crate::api::base64;
use crate::figures::{Checked, Latency};
use crate::fleet::content::LETTER_BYTES_MIN;
use crate::fleet::orders::{Mailing, Plan};
use crate::rig::Ended;
use crate::source::{Answers, Door, Order, Source};
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use kittiwake::wire::mqtt::Version;
use serde::Serialize;
use serde_json::json;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// After the last expected arrival: time for one that is not expected.
const REPETITIONS: Duration = Duration::from_secs(1);

/// Sends letters to the members of a squad and knows what it sent.
pub struct Courier {
    squad: u8,
    /// Start of the members' user names.
    prefix: String,
    plan: Option<Plan>,
    way: Option<Way>,
    pub qos: Qos,
    pub payload_bytes: usize,
    pub batch: usize,
    pub window: u64,
    pub rate: Option<u32>,
    pub answers: Answers,
}

/// How letters reach the server.
enum Way {
    Api { door: Door, address: SocketAddr, key: Option<String> },
    Publisher { publishers: u8, topic: String },
    Floor { address: SocketAddr, topic: &'static str, version: Version },
}

impl Courier {
    /// For a squad, which from now on expects its letters.
    pub fn new<D: Driver>(site: &mut Site<'_, D>, squad: u8, prefix: &str) -> Self {
        let (members, started, run) = (site.rig.fleet().squad(squad).count, Instant::now(), std::process::id());
        site.rig.fleet_mut().expect_letters(squad, run, started);
        Self {
            squad,
            prefix: prefix.to_owned(),
            plan: Some(Plan::new(members, run, started)),
            way: None,
            qos: Qos::AtMostOnce,
            payload_bytes: LETTER_BYTES_MIN,
            batch: 1,
            window: 1,
            rate: None,
            answers: Answers::default(),
        }
    }

    /// Letters go through the gateway's API.
    pub fn by_api<D: Driver>(&mut self, site: &Site<'_, D>, door: Door) -> Result<(), Failure> {
        let address = site.common.api.ok_or("pushes through the API need --api")?;
        self.way = Some(Way::Api { door, address, key: site.common.api_key.clone() });
        Ok(())
    }

    /// Letters are published by the one member of a squad, each to a topic with its receiver's number.
    pub fn by_publisher(&mut self, publishers: u8, topic: &str) {
        self.way = Some(Way::Publisher { publishers, topic: topic.to_owned() });
    }

    /// Letters are posted to the floor, as packets with that topic.
    pub fn by_floor(&mut self, address: SocketAddr, topic: &'static str, version: Version) {
        self.way = Some(Way::Floor { address, topic, version });
    }

    /// Whose members get its letters.
    pub fn squad(&self) -> u8 {
        self.squad
    }

    /// What came of all letters so far.
    pub fn checked<D: Driver>(&self, site: &Site<'_, D>) -> Checked {
        let inboxes = site.rig.fleet().squad(self.squad).inboxes.as_ref();
        inboxes.map_or_else(Checked::default, |inboxes| inboxes.checked(self.issued()))
    }

    /// Letters to each member so far.
    pub fn issued(&self) -> &[u32] {
        self.plan.as_ref().map_or(&[], |plan| &plan.issued)
    }

    /// Sends so many letters, or as many as a stretch brings, and waits until all have arrived; how many.
    pub fn send<D: Driver>(
        &mut self,
        site: &mut Site<'_, D>,
        what: &str,
        count: Option<u64>,
        stretch: Option<Duration>,
    ) -> Step<u64> {
        let until = stretch.filter(|_| count.is_none()).map(|stretch| Instant::now() + stretch);
        let left = count.unwrap_or(u64::MAX);
        let before = self.plan.as_ref().map_or(0, |plan| plan.total);
        let ended = match &self.way {
            Some(Way::Api { .. } | Way::Floor { .. }) => self.by_source(site, what, left, until)?,
            Some(Way::Publisher { publishers, topic }) => {
                let (publishers, topic) = (*publishers, topic.clone());
                self.by_mail(site, what, left, until, publishers, topic)?
            }
            None => return Err("nobody said how letters go".into()),
        };
        done!(hoped(ended));
        Ok(Ok(self.plan.as_ref().map_or(0, |plan| plan.total) - before))
    }

    /// Starts to push by the API; whoever turns the rig waits for it.
    pub fn start<D: Driver>(
        &mut self,
        site: &Site<'_, D>,
        left: u64,
        until: Option<Instant>,
    ) -> Result<Source, Failure> {
        let (door, api, api_key) = match &self.way {
            Some(Way::Api { door, address, key }) => (*door, *address, key.clone()),
            Some(Way::Floor { address, topic, version }) => (Door::Bare { topic, version: *version }, *address, None),
            _ => return Err("letters of a publisher are mailed".into()),
        };
        let order = Order {
            door,
            api,
            api_key,
            plan: self.plan.take().ok_or("the last letters are under way")?,
            prefix: self.prefix.clone(),
            qos: self.qos,
            payload_bytes: self.payload_bytes.max(LETTER_BYTES_MIN),
            batch: self.batch,
            window: self.window,
            left,
            until,
            rate: self.rate,
        };
        Source::start(order, site.rig.letters(self.squad))
    }

    /// Waits until a source's letters have arrived, and takes over what it knows.
    pub fn finish<D: Driver>(
        &mut self,
        site: &mut Site<'_, D>,
        what: &str,
        source: Source,
        goal: u64,
    ) -> Result<Ended, Failure> {
        let (squad, before) = (self.squad, site.rig.letters(self.squad));
        let ended = site.rig.run(what, goal, site.common.patience.0, |fleet| {
            let delivered = fleet.squad(squad).inboxes.as_ref().map_or(0, |inboxes| inboxes.deliveries);
            if source.delivered(delivered) { goal } else { delivered - before }
        });
        let sent = source.end();
        self.plan = Some(sent.plan);
        self.answers.add(&sent.answers);
        if let Some(failure) = sent.failure {
            site.report.fault(format!("{failure}, after {} pushes", sent.pushed));
        }
        Ok(ended?)
    }

    fn by_source<D: Driver>(
        &mut self,
        site: &mut Site<'_, D>,
        what: &str,
        left: u64,
        until: Option<Instant>,
    ) -> Result<Ended, Failure> {
        let source = self.start(site, left, until)?;
        self.finish(site, what, source, left)
    }

    fn by_mail<D: Driver>(
        &mut self,
        site: &mut Site<'_, D>,
        what: &str,
        left: u64,
        until: Option<Instant>,
        publishers: u8,
        topic: String,
    ) -> Result<Ended, Failure> {
        let fleet = site.rig.fleet_mut();
        fleet.qos = self.qos;
        fleet.letter_bytes(self.payload_bytes.max(LETTER_BYTES_MIN));
        let mailing = Mailing {
            squad: self.squad,
            publisher: fleet.squad(publishers).first,
            topic,
            window: self.window,
            left,
            until,
            pace: self.rate.map(|rate| crate::fleet::orders::Pace { started: Instant::now(), rate, issued: 0 }),
            plan: self.plan.take().ok_or("the last letters are under way")?,
        };
        let (ended, plan) = site.rig.mail(what, mailing, site.common.patience.0)?;
        self.plan = Some(plan);
        Ok(ended)
    }
}

/// What became of one message to everyone.
#[derive(Debug, Default, Serialize)]
pub struct Broadcast {
    pub deliveries: Checked,
    pub latency: Latency,
    /// Until the last arrival.
    pub seconds: f64,
    /// The server's CPU for a delivery.
    pub us_each: Option<f64>,
}

/// Pushes one message to everyone through the API; every member of the squad, all of whom are there, must get it once.
pub fn push_everyone<D: Driver>(site: &mut Site<'_, D>, squad: u8, payload_bytes: usize, qos: Qos) -> Step<Broadcast> {
    let api = site.api.clone().ok_or("a push to everyone needs --api")?;
    // A later message goes on with the numbers, so that an earlier one that comes late is not taken for it.
    if site.rig.fleet().squad(squad).ledger.is_none() {
        site.rig.fleet_mut().expect(squad, payload_bytes);
    }
    let before = site.rig.fleet().squad(squad).ledger.as_ref().map_or_else(Checked::default, |ledger| ledger.checked());
    if let Some(ledger) = &mut site.rig.fleet_mut().squad_mut(squad).ledger {
        ledger.latency.reset();
    }
    let (cpu, started) = (site.cpu_ns()?, Instant::now());
    let body = everyone(site, squad, qos)?;
    let asking = thread::spawn(move || api.push(&body).map_err(|failure| failure.to_string()));
    let goal = u64::from(site.rig.fleet().squad(squad).count);
    let ended = site.rig.run("everyone", goal, site.common.patience.0, |fleet| {
        fleet.squad(squad).ledger.as_ref().map_or(0, |ledger| ledger.deliveries - before.right)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    // The reply waits for nobody but the server, and its own time is bounded.
    let replied = asking.join().map_err(|_| "the push's thread ended badly")?;
    if let Err(failure) = replied {
        site.report.fault(failure);
    }
    let us_each = site.us_each(cpu, goal)?;
    let waited = site.rig.rest("repeats?", REPETITIONS)?;
    let ledger = site.rig.fleet().squad(squad).ledger.as_ref().ok_or("it was expected above")?;
    let broadcast = Broadcast {
        deliveries: ledger.checked().since(before),
        latency: Latency::of(&ledger.latency),
        seconds,
        us_each,
    };
    // A push that stalls is a finding, which the check of the deliveries tells.
    done!(hoped(if ended == Ended::Interrupted { ended } else { waited }));
    Ok(Ok(broadcast))
}

/// The body of the next push to everyone.
pub fn everyone<D: Driver>(site: &mut Site<'_, D>, squad: u8, qos: Qos) -> Result<serde_json::Value, Failure> {
    let ledger = site.rig.fleet_mut().squad_mut(squad).ledger.as_mut().ok_or("the push is expected")?;
    let payload = base64(ledger.next(Instant::now()));
    Ok(json!({ "to": { "everyone": true }, "payload_base64": payload, "qos": qos as u8 }))
}
