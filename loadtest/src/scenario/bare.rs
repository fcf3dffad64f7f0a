//! The floor of a fan-out: bare sockets that get a publisher's bytes from a loop of sends, checked like deliveries.

use crate::Failure;
use crate::fleet::orders::Drive;
use crate::fleet::squad::{Carriage, Speech, publish};
use crate::fleet::websocket::{client_frame_bytes, server_head};
use crate::floor::FloorServer;
use crate::rig::{Ended, Rig};
use kittiwake::base::ids::Qos;
use kittiwake::io::Driver;
use kittiwake::wire::mqtt::Encode;
use std::time::Duration;

/// For the child to become idle, so that what it did is accounted for.
const SETTLE: Duration = Duration::from_millis(50);
/// Bytes of a PUBACK.
const ACK_BYTES: usize = 4;

/// The child with its sockets, and both squads of the fleet.
#[derive(Debug)]
pub struct BareFan {
    server: FloorServer,
    pub subscribers: u8,
    pub publisher: u8,
    carriage: Carriage,
    payload_bytes: usize,
}

impl BareFan {
    /// Connects as many bare sockets, and the one that is listened to.
    pub fn join<D: Driver>(
        rig: &mut Rig<D>,
        count: u32,
        payload_bytes: usize,
        carriage: Carriage,
        (cpu, handshakes): (Option<usize>, u32),
    ) -> Result<Result<Self, Ended>, Failure> {
        let mut server = FloorServer::start(cpu)?;
        let fleet = rig.fleet_mut();
        let subscribers = fleet.add(count, vec![server.address], Speech::Packets(carriage));
        let publisher = fleet.add(1, vec![server.address], Speech::Raw);
        fleet.expect(subscribers, payload_bytes);
        server.ask(&format!("accept {count}"))?;
        let ended = rig.ramp("floor", subscribers, 0, handshakes)?;
        if ended != Ended::Done {
            return Ok(Err(ended));
        }
        server.answer()?;
        server.ask("publisher")?;
        let ended = rig.ramp("floor", publisher, 0, 1)?;
        if ended != Ended::Done {
            return Ok(Err(ended));
        }
        server.answer()?;
        Ok(Ok(Self { server, subscribers, publisher, carriage, payload_bytes }))
    }

    /// The child's CPU per delivery of so many messages, in microseconds, with `unit` of them in one send. Given up when
    /// nothing moves for so long.
    pub fn stretch<D: Driver>(
        &mut self,
        rig: &mut Rig<D>,
        (topic, qos): (&str, Qos),
        (messages, unit): (u64, u64),
        patience: Duration,
    ) -> Result<Result<f64, Ended>, Failure> {
        let payload = vec![0; self.payload_bytes];
        let content_bytes = publish(topic, qos, 0, &payload).encoded_len(rig.fleet().version()) * unit as usize;
        let (head, ack_bytes) = match self.carriage {
            Carriage::Tcp => (Vec::new(), ACK_BYTES),
            Carriage::WebSocket => (server_head(content_bytes), client_frame_bytes(ACK_BYTES)),
        };
        let answer_bytes = if qos == Qos::AtLeastOnce { ack_bytes * unit as usize } else { 0 };
        let rounds = (messages / unit).max(1);
        let process = self.server.process();
        let before = process.cpu_ns()?;
        self.server.ask(&format!("fan {} {rounds} {answer_bytes}", head.len() + content_bytes))?;
        let fleet = rig.fleet_mut();
        (fleet.topic, fleet.qos) = (topic.to_owned(), qos);
        let drive = Drive {
            squad: self.subscribers,
            publisher: fleet.squad(self.publisher).first,
            window: unit,
            unit,
            head,
            left: rounds * unit,
            until: None,
            pace: None,
        };
        let deliveries = rig.deliveries(self.subscribers);
        let ended = rig.publish("floor", drive, patience)?;
        if ended != Ended::Done {
            return Ok(Err(ended));
        }
        rig.rest("settle", SETTLE)?;
        let deliveries = rig.deliveries(self.subscribers) - deliveries;
        self.server.answer()?;
        Ok(Ok(process.us_each(before, deliveries)?))
    }
}
