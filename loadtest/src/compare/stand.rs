//! A server with its clients.

use super::start::{Running, start};
use super::targets::Target;
use super::{Play, Row};
use crate::Failure;
use crate::cli::Protocol;
use crate::fleet::orders::Plan;
use crate::fleet::squad::{Carriage, Foreign, Mqtt, Reading, Speech};
use crate::foreign::Tongue;
use crate::rig::Ended;
use crate::server::free_addresses;
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use std::time::Duration;

/// Longer than a run: rumqttd takes no client without a keep-alive.
const HEARTBEAT: Duration = Duration::from_secs(3_600);
/// For a server that has just started.
const START: Duration = Duration::from_millis(300);
/// For memory to settle.
const SETTLE: Duration = Duration::from_secs(1);

/// It.
#[derive(Debug)]
pub struct Stand {
    pub running: Running,
    pub subscribers: u8,
    pub publisher: u8,
    /// What was published to single subscribers so far.
    pub plan: Option<Plan>,
    /// The devices of a gateway that get pushes, and what was pushed.
    pub inbox: Option<(u8, Option<Plan>)>,
    /// A stretch has stalled: what is under way would spoil the next.
    pub broken: bool,
}

impl Stand {
    pub fn target(&self) -> Target {
        self.running.target
    }

    /// Every squad of clients.
    pub fn squads(&self) -> impl Iterator<Item = u8> + '_ {
        [self.subscribers, self.publisher].into_iter().chain(self.inbox.as_ref().map(|(squad, _)| *squad))
    }
}

/// What clients of a protocol say. Subscriptions are for QoS 1 where there is QoS, so that a publication decides.
pub fn speech(protocol: Protocol, prefix: &str, topic: Option<&str>) -> Speech {
    let foreign = |tongue| Speech::Foreign(Foreign { tongue, topic: topic.map(str::to_owned) });
    match protocol {
        Protocol::Nchan => foreign(Tongue::Nchan),
        Protocol::Nats => foreign(Tongue::Nats),
        Protocol::Ws => foreign(Tongue::Ws),
        Protocol::SocketIo => foreign(Tongue::SocketIo),
        Protocol::Sse => foreign(Tongue::Events),
        Protocol::Mqtt | Protocol::Mqtt5 | Protocol::MqttWs => Speech::Mqtt(Mqtt {
            carriage: if protocol == Protocol::MqttWs { Carriage::WebSocket } else { Carriage::Tcp },
            prefix: prefix.to_owned(),
            clean: true,
            heartbeat: Some(HEARTBEAT),
            subscription: topic.map(|topic| (topic.to_owned(), Qos::AtLeastOnce)),
            reading: Reading::Freely,
        }),
    }
}

impl<D: Driver> Play<'_, D> {
    /// Starts a server and connects its clients; set-up and memory are measured on the way.
    pub(super) fn join(&mut self, target: Target, topic: &str) -> Result<(), Failure> {
        let [address, api] = free_addresses()?;
        let mut place = self.place(target);
        (place.address, place.api) = (address, api);
        let running = start(target, &self.programs, &place, self.arguments.server_cpu)?;
        self.rig.rest("settle", START)?;
        let process = running.process;
        let (fresh, cpu) = (process.memory()?, process.cpu_ns()?);
        let (count, payload) = (self.arguments.connections, self.arguments.payload as usize);
        let fleet = self.rig.fleet_mut();
        let subscribers = fleet.add(count, vec![address], speech(target.protocol(), "s", Some(topic)));
        let publisher = fleet.add(1, vec![address], speech(target.publishes_by(), "p", None));
        fleet.expect(subscribers, payload);
        self.ramp(target, subscribers, self.arguments.handshakes)?;
        self.rig.rest("settle", SETTLE)?;
        let us = (process.cpu_ns()? - cpu) as f64 / 1_000.0 / f64::from(count);
        let grown = process.memory()?.rss_bytes.saturating_sub(fresh.rss_bytes);
        let bytes = grown as f64 / f64::from(count);
        self.taken.add(Row::SetUp, target, us);
        self.taken.add(Row::Memory, target, bytes);
        println!("{}: {us:.1} µs and {bytes:.0} B a connection", target.label());
        self.ramp(target, publisher, 1)?;
        self.stands.push(Stand { running, subscribers, publisher, plan: None, inbox: None, broken: false });
        Ok(())
    }

    /// Connects a squad, or says why not.
    pub(super) fn ramp(&mut self, target: Target, squad: u8, handshakes: u32) -> Result<(), Failure> {
        let ended = self.rig.ramp(target.label(), squad, 0, handshakes)?;
        let (ready, count) = (self.rig.fleet().squad(squad).ready, self.rig.fleet().squad(squad).count);
        if ended != Ended::Done || ready < count {
            let causes = &self.rig.fleet().tally.causes;
            return Err(format!("{ready} of {count} clients got ready: {ended:?}, {causes:?}").into());
        }
        Ok(())
    }
}
