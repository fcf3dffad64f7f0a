//! What a guest's listener asks of it before it may speak: a head of the PROXY protocol, TLS, a protocol that is spoken
//! there.
//!
//! ```text
//!   accept ──► Proxied ──head──► First ──ClientHello──► Handshake ──its first plain byte──┐
//!      │  from a balancer          ▲ └────────────── anything else ───────────────────────┴──► Known: `http`, `connect`
//!      └──── from anybody else ────┘
//! ```
//! Where a guest stands is in its tag, so an ordinary one costs nothing for it.

use super::gateway::{Core, Gateway};
use super::settings::{Door, OPEN_DOOR, TlsUse};
use crate::base::ids::ConnectionId;
use crate::engine::{Close, CloseCause, Room};
use crate::io::{Driver, ListenerId};
use crate::limits::OFFENCE_HANDSHAKE;
use crate::wire::detect::{Detected, detect};
use crate::wire::proxy;
use crate::wire::tls::{self, Layers, Session};
use std::net::SocketAddr;

/// Tags from here on are guests'.
const GUESTS_FROM: u32 = u32::MAX - 0xffff;

/// Whether a tag is that of a connection that has not said who it is.
pub(super) fn is_guest(tag: u32) -> bool {
    tag >= GUESTS_FROM
}

/// How far a guest has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A balancer has to say for whom it speaks.
    Proxied,
    /// Nothing is known.
    First,
    /// TLS is being agreed on.
    Handshake,
    /// What comes now is MQTT or HTTP.
    Known,
}

/// What a guest's tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Guest {
    door: u8,
    stage: Stage,
}

impl Guest {
    fn of(tag: u32) -> Self {
        let stage = match tag as u8 {
            0 => Stage::Proxied,
            1 => Stage::First,
            2 => Stage::Handshake,
            _ => Stage::Known,
        };
        Self { door: (tag >> 8) as u8, stage }
    }

    fn tag(self) -> u32 {
        GUESTS_FROM | u32::from(self.door) << 8 | self.stage as u32
    }
}

/// TLS of one shard.
#[derive(Debug, Default)]
pub(super) struct Securing {
    /// What it is now; none: no certificate is configured.
    pub(super) server: Option<tls::Server>,
    /// Handshakes under way.
    pub(super) handshakes: usize,
    pub(super) done: u64,
    pub(super) resumed: u64,
    pub(super) failed: u64,
    pub(super) refused_busy: u64,
    pub(super) refused_plain: u64,
    pub(super) refused_proxy: u64,
    pub(super) refused_protocol: u64,
    pub(super) proxied: u64,
}

impl Gateway {
    /// The shard listens there, at the place of the settings.
    pub(super) fn opened_door(&mut self, listener: ListenerId) {
        self.doors.push(listener);
    }

    fn door(&self, guest: Guest) -> &Door {
        self.settings.doors.get(usize::from(guest.door)).unwrap_or(&OPEN_DOOR)
    }

    /// The tag of a guest that has come in by a listener.
    pub(super) fn guest_tag(&self, listener: ListenerId, peer: SocketAddr) -> u32 {
        let door = self.doors.iter().position(|&door| door == listener).unwrap_or_default();
        let door = u8::try_from(door).expect("a shard has at most LISTENERS_MAX");
        Guest { door, stage: if self.speaks_for_others(listener, peer) { Stage::Proxied } else { Stage::First } }.tag()
    }

    /// Whether who comes by a listener from there has to say who it really is.
    pub(super) fn speaks_for_others(&self, listener: ListenerId, peer: SocketAddr) -> bool {
        let door = self.doors.iter().position(|&door| door == listener).unwrap_or_default();
        let door = self.settings.doors.get(door).unwrap_or(&OPEN_DOOR);
        door.proxies.iter().any(|prefix| prefix.contains(peer.ip()))
    }

    /// What a guest may speak.
    pub(super) fn door_of(&self, tag: u32) -> &Door {
        self.door(Guest::of(tag))
    }

    /// Bytes of a guest. Returns how many were used.
    pub(super) fn guest_spoke<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        tag: u32,
        bytes: &[u8],
    ) -> usize {
        let guest = Guest::of(tag);
        match guest.stage {
            Stage::Proxied => self.balancer_spoke(core, id, guest, bytes),
            Stage::First => self.first_bytes(core, id, guest, bytes),
            Stage::Handshake => {
                self.secured(core, id, guest);
                self.known_spoke(core, id, bytes)
            }
            Stage::Known => self.known_spoke(core, id, bytes),
        }
    }

    fn balancer_spoke<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, guest: Guest, bytes: &[u8]) -> usize {
        let head = match proxy::parse(bytes) {
            Ok(Some(head)) => head,
            Ok(None) => return 0,
            Err(proxy::Wrong) => {
                self.securing.refused_proxy += 1;
                core.close(id, Close::Now, CloseCause::Local);
                return bytes.len();
            }
        };
        if let Some(source) = head.source {
            self.securing.proxied += 1;
            if !self.admits_source(core, source) {
                core.close(id, Close::Now, CloseCause::Local);
                return bytes.len();
            }
            core.set_peer(id, source);
            self.count_guest(id, source);
        }
        let guest = Guest { stage: Stage::First, ..guest };
        core.set_tag(id, guest.tag());
        let rest = &bytes[head.bytes..];
        head.bytes + if rest.is_empty() { 0 } else { self.first_bytes(core, id, guest, rest) }
    }

    fn first_bytes<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, guest: Guest, bytes: &[u8]) -> usize {
        let door = self.door(guest);
        let use_tls = if self.securing.server.is_some() { door.tls } else { TlsUse::Never };
        let has_proxies = !door.proxies.is_empty();
        match (detect(bytes), use_tls) {
            (Detected::Tls, TlsUse::Detected | TlsUse::Always) => self.handshake(core, id, guest, bytes),
            (Detected::NeedMore, TlsUse::Always) => 0,
            (Detected::NeedMore, TlsUse::Detected) if bytes[0] == tls::HANDSHAKE => 0,
            (_, TlsUse::Always) => {
                self.securing.refused_plain += 1;
                core.close(id, Close::Now, CloseCause::Local);
                bytes.len()
            }
            // It says for whom it speaks, and is nobody who may.
            (Detected::Unknown, _) if has_proxies && proxy::is_head(bytes) => {
                self.securing.refused_proxy += 1;
                core.close(id, Close::Now, CloseCause::Local);
                bytes.len()
            }
            (Detected::Mqtt | Detected::Unknown, _) if !self.door(guest).protocols.mqtt => {
                self.refuse_protocol(core, id);
                bytes.len()
            }
            (detected, _) => {
                if !matches!(detected, Detected::NeedMore) {
                    core.set_tag(id, Guest { stage: Stage::Known, ..guest }.tag());
                }
                self.known_spoke(core, id, bytes)
            }
        }
    }

    /// A ClientHello has begun. It is the transform's from its first byte on.
    fn handshake<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, guest: Guest, bytes: &[u8]) -> usize {
        let session = match &self.securing.server {
            Some(server) if self.securing.handshakes < self.settings.limits.tls_handshakes => {
                Session::server(server).ok()
            }
            _ => None,
        };
        let Some(session) = session else {
            self.securing.refused_busy += 1;
            // Without room for seven bytes it is closed without a word.
            let _ = core.write_bytes(id, Room::Control, &tls::REFUSAL);
            core.close(id, Close::AfterFlush, CloseCause::Local);
            return bytes.len();
        };
        self.securing.handshakes += 1;
        core.set_tag(id, Guest { stage: Stage::Handshake, ..guest }.tag());
        core.set_transform(id, Layers::secured(session));
        0
    }

    /// It has said something within TLS.
    fn secured<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, guest: Guest) {
        self.securing.handshakes -= 1;
        self.securing.done += 1;
        self.securing.resumed += u64::from(core.transform(id).is_some_and(Layers::is_resumed));
        core.set_tag(id, Guest { stage: Stage::Known, ..guest }.tag());
    }

    /// A guest's connection has ended. A handshake that came to nothing has cost a signature: it is its source's, unless it
    /// was ended from here, which was judged where that was decided.
    pub(super) fn guest_left(&mut self, id: ConnectionId, tag: u32, cause: CloseCause) {
        if Guest::of(tag).stage == Stage::Handshake {
            self.securing.handshakes -= 1;
            self.securing.failed += 1;
            if cause != CloseCause::Local {
                self.guest_offends(id, OFFENCE_HANDSHAKE);
            }
        }
    }

    /// It speaks what is not spoken at its listener.
    pub(super) fn refuse_protocol<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId) {
        self.securing.refused_protocol += 1;
        core.close(id, Close::Now, CloseCause::Local);
    }
}

#[cfg(test)]
mod tests {
    use super::super::connect::GUEST;
    use super::*;

    #[test]
    fn a_guests_tag_says_where_it_came_in_and_how_far_it_is() {
        for stage in [Stage::Proxied, Stage::First, Stage::Handshake, Stage::Known] {
            let guest = Guest { door: 63, stage };
            assert_eq!(Guest::of(guest.tag()), guest);
            assert!(is_guest(guest.tag()) && guest.tag() != GUEST);
        }
        assert!(is_guest(GUEST) && Guest::of(GUEST).stage == Stage::Known);
    }
}
