//! From accept to an open session.
//!
//! ```text
//!   accepting shard                                  home(app, user)
//!   Guest ──CONNECT──► asking ──► leaving ──Arrival──► installing ──slot──► Session: Loading ──commit──► Open
//!     │ refused, late  (`authenticate`)                (bytes that came along stay unread until Open)
//!     ▼
//!   closed
//! ```

use super::command::What;
use super::gateway::{Core, Gateway};
use super::letter::{Arrival, Letter};
use crate::base::ids::{AppId, ConnectionId, SessionId};
use crate::engine::{Close, CloseCause, Departure, Room};
use crate::io::{Driver, ListenerId};
use crate::limits::OFFENCE_HANDSHAKE;
use crate::session::mqtt::{self, Greeting, OpenAt, Refusal};
use crate::session::protocol::{self, Request};
use crate::session::{CloseReason, Counter, Identity, Session};
use crate::wire::tls::Layers;
use std::net::SocketAddr;

/// Tag of a connection that has not said who it is, and of which all else is known; see `doors`.
pub(super) const GUEST: u32 = u32::MAX;
/// Set in the tag of a connection whose CONNECT waits in `moving`.
pub(super) const MOVING: u32 = 1 << 31;

/// A connection that has said who it is, on its way to its home or to its slot there.
#[derive(Debug)]
pub(crate) struct Moving {
    identity: Identity,
    request: Request,
    /// When its token ends, wall milliseconds.
    ends_ms: Option<u64>,
}

impl Gateway {
    /// A connection came in.
    pub(super) fn guest_arrived<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        listener: ListenerId,
        peer: SocketAddr,
    ) {
        core.set_tag(id, self.guest_tag(listener, peer));
        core.set_deadline(id, core.now().deadline(self.settings.limits.handshake_timeout));
        self.note(core, id, What::Accepted);
    }

    /// Bytes of a guest: they must be a CONNECT.
    pub(super) fn greet<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, bytes: &[u8]) -> usize {
        match mqtt::greet(bytes, self.settings.limits.packet_bytes) {
            Greeting::NeedMore => 0,
            Greeting::Connect(request, consumed) => {
                self.identify(core, id, Request::Mqtt(request));
                consumed
            }
            Greeting::Refuse { frames, reason } => {
                self.guest_offends(id, OFFENCE_HANDSHAKE);
                self.refuse(core, id, &frames, reason);
                bytes.len()
            }
        }
    }

    /// Draws the device of a request that has none.
    pub(super) fn name_device(&mut self, request: &mut Request) {
        if request.device().is_empty() {
            self.assigned += 1;
            let name = format!("kw-{:08x}-{}-{}", self.settings.random_seed as u32, self.shard, self.assigned);
            request.assign(name.into());
        }
    }

    /// It is known who it is and that it may: it moves to its user's home.
    pub(super) fn move_home<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        identity: Identity,
        request: Request,
        ends_ms: Option<u64>,
    ) {
        let stays = self.homes.user(identity.app, &identity.user) == self.shard;
        let moving = self.moving.insert(Moving { identity, request, ends_ms });
        core.set_tag(id, MOVING | u32::try_from(moving).expect("guests are bounded"));
        core.pause_reading(id);
        core.depart(id, stays);
    }

    /// The guest's socket is free to go.
    pub(super) fn departed<D: Driver>(&mut self, core: &mut Core<D>, tag: u32, departure: Departure<Layers>) {
        let Moving { identity, request, ends_ms } = self.moving.remove((tag & !MOVING) as usize);
        let home = self.homes.user(identity.app, &identity.user);
        let arrival = Arrival { departure, identity, request, ends_ms };
        if home == self.shard {
            self.on_arrival(core, arrival);
        } else {
            core.send_control(home, Letter::Arrival(Box::new(arrival)));
        }
    }

    /// A connection comes home.
    pub(super) fn on_arrival<D: Driver>(&mut self, core: &mut Core<D>, arrival: Arrival) {
        let Arrival { departure, identity, request, ends_ms } = arrival;
        let moving = self.moving.insert(Moving { identity, request, ends_ms });
        let tag = MOVING | u32::try_from(moving).expect("connections are numbered with 31 bits");
        let deadline = core.now().deadline(self.settings.limits.handshake_timeout);
        if let Ok(id) = core.adopt(departure, tag) {
            core.set_deadline(id, deadline);
        } else {
            self.moving.remove(moving);
            self.counters.refused_full += 1;
        }
    }

    /// It has its slot: open its session.
    pub(super) fn installed_connection<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId) {
        let Moving { identity, request, ends_ms } =
            self.moving.remove((core.tag(id).expect("it was just installed") & !MOVING) as usize);
        core.set_tag(id, GUEST);
        if self.draining {
            // It was on its way when the drain began, so nobody would close it.
            return self.refuse_request(core, id, &request, Refusal::Unavailable);
        }
        if self.refuses_user_rate(&identity, core.now()) {
            return self.refuse_request(core, id, &request, Refusal::RateExceeded);
        }
        let old = self.directory.find(identity.app, &identity.user, &identity.device);
        if !self.has_room_in_app(id, &identity, &request, old) {
            return self.refuse_request(core, id, &request, Refusal::AppFull);
        }
        let keep_alive_ms = self.keep_alive_ms(&request);
        let (now, seq) = (core.now(), self.position());
        if let Some(old) = old {
            let mut effects = self.take_effects();
            let session = self.directory.get_mut(old).expect("it was just found");
            if let Some(connection) = session.connection() {
                protocol::take_over(session, &request, now, seq, &mut effects);
                self.apply(core, Some(old), Some(connection), &mut effects);
            }
            self.give_effects(effects);
            if !request.continues() {
                self.gap_notes.forget(old.index);
            }
            // What waits unlogged was for the old connection.
            self.forget_slow(old);
            self.forget_lagging(old);
        }
        let was_there = self.watching.any()
            && request.continues()
            && self.directory.find(identity.app, &identity.user, &identity.device).is_some();
        let protocol_name = request.protocol_name();
        let mut effects = self.take_effects();
        let packet_bytes = u32::try_from(self.settings.limits.packet_bytes).unwrap_or(u32::MAX);
        // One and a half of it is the idle limit.
        let keep_alive_instead_of_none = u16::try_from(self.settings.limits.idle_timeout.as_millis() / 1_500);
        let keep_alive_instead_of_none = keep_alive_instead_of_none.unwrap_or(u16::MAX).max(1);
        let (sees_node, log) = (self.may_see_node(&identity), (self.log.life(), self.seq));
        let shard_seq = seq;
        let at = OpenAt { now, shard_seq, inbox: None, sees_node, packet_bytes, keep_alive_instead_of_none, log };
        let opened = protocol::open(&mut self.directory, &identity, request, id, at, &mut effects);
        if let Some(session) = opened {
            core.set_tag(id, session.index);
            self.note(core, id, What::Arrived(protocol_name));
            self.notice_connected(session, was_there, now);
            core.set_deadline(id, now.monotonic_ms + keep_alive_ms);
            self.end_with_token(core, session, ends_ms);
            // What was known of its inbox may have been lost with the process.
            self.ask_about_inbox(session);
        }
        self.apply(core, opened, Some(id), &mut effects);
        self.give_effects(effects);
        // The old one may be gone, or be this one, connected again.
        old.into_iter().chain(opened.filter(|_| opened != old)).for_each(|id| self.show(core, id));
    }

    /// Whether its app may have another connection, or this one in the place of its device's, and what it subscribes to at
    /// once.
    fn has_room_in_app(
        &mut self,
        id: ConnectionId,
        identity: &Identity,
        request: &Request,
        old: Option<SessionId>,
    ) -> bool {
        let left = self.quotas.subscriptions_left(identity.app);
        if left.is_some_and(|left| left < request.subscriptions() as u64) {
            self.counters.session(Counter::SubscriptionOverQuota);
            return false;
        }
        let replaced = old.and_then(|old| self.directory.get(old)).and_then(Session::connection);
        self.quotas.connect(identity.app, id, replaced)
    }

    fn may_see_node(&self, identity: &Identity) -> bool {
        identity.app == AppId(0) && self.settings.sys_users.iter().any(|user| **user == *identity.user)
    }

    /// Milliseconds without a byte after which the connection ends: one and a half times the keep alive
    /// `[MQTT-3.1.2-22]`, or our own idle limit.
    fn keep_alive_ms(&self, request: &Request) -> u64 {
        match request.keep_alive() {
            // Until it has its answer.
            _ if matches!(request, Request::Sse(_)) => {
                u64::try_from(self.settings.limits.handshake_timeout.as_millis()).unwrap_or(u64::MAX)
            }
            0 => u64::try_from(self.settings.limits.idle_timeout.as_millis()).unwrap_or(u64::MAX),
            seconds => u64::from(seconds) * 1500,
        }
    }

    pub(super) fn refuse_request<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        request: &Request,
        why: Refusal,
    ) {
        let mut frames = Vec::new();
        request.refuse(why, self.settings.server_reference.as_deref(), &mut frames);
        self.refuse(core, id, &frames, CloseReason::Refused);
    }

    fn refuse<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, frames: &[u8], reason: CloseReason) {
        self.counters.closed(reason);
        self.note_close(core, id, reason);
        if !frames.is_empty() && core.write_bytes(id, Room::Control, frames).is_err() {
            return core.close(id, Close::Now, CloseCause::Local);
        }
        self.hang_up(core, id, reason);
    }
}
