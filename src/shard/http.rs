//! Requests on the edge port: a guest's first bytes are told apart, and a request goes where its path says.

use super::gateway::{Core, Gateway};
use super::settings::Protocols;
use crate::base::ids::ConnectionId;
use crate::engine::{Close, CloseCause, Room};
use crate::io::Driver;
use crate::limits::OFFENCE_HANDSHAKE;
use crate::session::sse;
use crate::wire::detect::{Detected, detect};
use crate::wire::http::{Head, Problem, Status, parse};
use crate::wire::tls::Layers;

impl Gateway {
    /// Bytes of a guest whose listener asks nothing more of it, by what they begin with. Returns how many were used.
    pub(super) fn known_spoke<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, bytes: &[u8]) -> usize {
        if core.transform(id).is_some_and(Layers::has_websocket) {
            return self.greet(core, id, bytes);
        }
        match detect(bytes) {
            Detected::Http => self.request(core, id, bytes),
            // All methods begin with a capital letter; MQTT and TLS do not.
            Detected::NeedMore if bytes[0].is_ascii_uppercase() => 0,
            _ if !self.spoken(core, id).mqtt => {
                self.refuse_protocol(core, id);
                bytes.len()
            }
            // An MQTT CONNECT, or what is told in MQTT's own words that it is none: TLS is not spoken here.
            Detected::NeedMore | Detected::Mqtt | Detected::Tls | Detected::Unknown => self.greet(core, id, bytes),
        }
    }

    /// What is spoken at a guest's listener.
    fn spoken<D: Driver>(&self, core: &Core<D>, id: ConnectionId) -> Protocols {
        core.tag(id).map_or(Protocols::ALL, |tag| self.door_of(tag).protocols)
    }

    fn request<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, bytes: &[u8]) -> usize {
        match parse(bytes) {
            Ok(None) => 0,
            Ok(Some(head)) => {
                self.route(core, id, &head);
                head.bytes
            }
            Err(error) => {
                self.decline(core, id, &Problem::new(error.status(), error.detail()));
                bytes.len()
            }
        }
    }

    /// A whole head: whoever serves its path takes the connection over, or answers and closes it.
    fn route<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, head: &Head<'_>) {
        let spoken = self.spoken(core, id);
        match head.path {
            "/mqtt" if spoken.websocket => self.upgrade(core, id, head),
            "/events" if spoken.sse => self.events_asked(core, id, head, sse::read),
            "/poll" if spoken.poll => self.events_asked(core, id, head, sse::read_poll),
            _ => self.decline(core, id, &Problem::new(Status::NOT_FOUND, "there is nothing at this path")),
        }
    }

    /// A request that leads nowhere is told so; the connection ends.
    pub(super) fn decline<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, problem: &Problem<'_>) {
        self.counters.refused_http += 1;
        self.guest_offends(id, OFFENCE_HANDSHAKE);
        let mut bytes = Vec::new();
        problem.encode(&mut bytes);
        let how = match core.write_bytes(id, Room::Control, &bytes) {
            Ok(()) => Close::AfterFlush,
            Err(_) => Close::Now,
        };
        core.close(id, how, CloseCause::Local);
    }
}
