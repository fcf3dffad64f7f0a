//! Bytes, deadlines and ends of connections: found to be a session's and handed to it.

use super::authenticate::ASKING;
use super::connect::{GUEST, MOVING};
use super::doors::is_guest;
use super::gateway::{Core, Gateway};
use crate::base::ids::{ConnectionId, SessionId};
use crate::engine::{Close as CloseHow, CloseCause};
use crate::io::Driver;
use crate::limits::OFFENCE_HANDSHAKE;
use crate::session::{Close, CloseReason, mqtt, protocol};
use crate::wire::mqtt::{FrameLen, frame_len, is_subscribe};

impl Gateway {
    /// Handles the whole frames at the start of `bytes`; returns how many bytes they were.
    pub(super) fn received<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, bytes: &[u8]) -> usize {
        let Some(tag) = core.tag(id) else { return bytes.len() };
        if is_guest(tag) {
            return self.guest_spoke(core, id, tag, bytes);
        }
        if tag & (MOVING | ASKING) != 0 {
            return 0;
        }
        let Some(session) = self.session_of(id, tag) else { return bytes.len() };
        if self.is_deaf(session) {
            // A client has nothing to say behind its request, and its deadline is for what we say.
            return bytes.len();
        }
        self.extend_deadline(core, id, session);
        let mut consumed = 0;
        let mut effects = self.take_effects();
        let mut goes_on = core.is_open(id) && !core.is_paused(id);
        while goes_on {
            let rest = &bytes[consumed..];
            let frame = match frame_len(rest, self.settings.limits.packet_bytes) {
                Ok(FrameLen::Known { total_bytes, .. }) if rest.len() >= total_bytes => Ok(&rest[..total_bytes]),
                Ok(FrameLen::Known { total_bytes, .. }) => {
                    core.expect(id, total_bytes);
                    break;
                }
                Ok(FrameLen::NeedMore) => break,
                Err(error) => Err(error),
            };
            consumed += frame.map_or(rest.len(), <[u8]>::len);
            self.counters.frames_in += 1;
            let Some(state) = self.directory.get_mut(session) else { break };
            if frame.as_ref().is_ok_and(|frame| is_subscribe(frame)) {
                effects.subscriptions_left = self.quotas.subscriptions_left(state.app());
            }
            match frame {
                Ok(frame) => mqtt::handle(state, frame, core.now(), &mut effects),
                Err(error) => mqtt::reject(state, error, &mut effects),
            }
            if !effects.list.is_empty() {
                self.apply(core, Some(session), Some(id), &mut effects);
                effects.control.clear();
                // Nothing but what was carried out changes that.
                goes_on = core.is_open(id) && !core.is_paused(id);
            }
        }
        self.give_effects(effects);
        self.catch_up(core, session);
        consumed
    }

    /// The session that a connection serves; none when another connection has taken over.
    pub(super) fn session_of(&self, id: ConnectionId, tag: u32) -> Option<SessionId> {
        let session = self.directory.id_at(tag)?;
        (self.directory.get(session)?.connection() == Some(id)).then_some(session)
    }

    /// Any packet counts for the keep alive.
    fn extend_deadline<D: Driver>(&self, core: &mut Core<D>, id: ConnectionId, session: SessionId) {
        self.extend_deadline_from(core, id, session, core.now().monotonic_ms);
    }

    /// The same, as if it were later.
    pub(super) fn extend_deadline_from<D: Driver>(
        &self,
        core: &mut Core<D>,
        id: ConnectionId,
        session: SessionId,
        from_ms: u64,
    ) {
        let seconds = self.directory.get(session).map_or(0, |session| session.keep_alive());
        let ms = match seconds {
            0 => u64::try_from(self.settings.limits.idle_timeout.as_millis()).unwrap_or(u64::MAX),
            seconds => u64::from(seconds) * 1500,
        };
        core.set_deadline(id, from_ms.saturating_add(ms));
    }

    /// Nothing came for too long.
    pub(super) fn deadline<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId) {
        let tag = core.tag(id).unwrap_or(GUEST);
        if is_guest(tag) || tag & MOVING != 0 {
            self.guest_offends(id, OFFENCE_HANDSHAKE);
            self.counters.closed(CloseReason::HandshakeTimeout);
            self.note_close(core, id, CloseReason::HandshakeTimeout);
            return core.close(id, CloseHow::Now, CloseCause::Local);
        }
        if tag & ASKING != 0 {
            self.counters.closed(CloseReason::HandshakeTimeout);
            self.note_close(core, id, CloseReason::HandshakeTimeout);
            return self.asked_too_long(core, id, tag);
        }
        match self.session_of(id, tag) {
            Some(session) => match self.directory.get(session) {
                Some(state) if state.is_open() && !state.protocol().acknowledges() => {
                    self.say_something(core, session, id);
                }
                _ => self.end_connection(core, session, CloseReason::KeepAlive),
            },
            None => core.close(id, CloseHow::Now, CloseCause::Local),
        }
    }

    /// Ends a session's connection from our side, saying why if the protocol can.
    pub(super) fn end_connection<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, reason: CloseReason) {
        let Some(session) = self.directory.get_mut(id) else { return };
        let Some(connection) = session.connection() else { return };
        let mut effects = self.take_effects();
        let session = self.directory.get_mut(id).expect("it was there a moment ago");
        let elsewhere = self.settings.server_reference.as_deref().filter(|_| reason == CloseReason::Draining);
        protocol::disconnect(session, reason, elsewhere, &mut effects);
        self.apply(core, Some(id), Some(connection), &mut effects);
        self.give_effects(effects);
    }

    /// A connection has ended, whoever wished it.
    pub(super) fn closed<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32, cause: CloseCause) {
        self.counters.ended(cause);
        self.note_ended(core, id, cause);
        if is_guest(tag) {
            self.guest_left(id, tag, cause);
            self.asking.forget_guest(id);
            return;
        }
        if tag & MOVING != 0 {
            self.moving.remove((tag & !MOVING) as usize);
            return;
        }
        if tag & ASKING != 0 {
            self.asking.forget(tag);
            return;
        }
        let Some(session) = self.session_of(id, tag) else { return };
        self.unsent.forget(session.index);
        self.forget_slow(session);
        self.reads.forget(session.index);
        self.forget_lagging(session);
        let (now, position) = (core.now(), self.position());
        let mut effects = self.take_effects();
        self.notice_lost(session, now);
        let state = self.directory.get_mut(session).expect("it was just found");
        state.on_connection_closed(Close::Lost, now, position, &mut effects);
        self.apply(core, Some(session), None, &mut effects);
        self.give_effects(effects);
        self.show(core, session);
        self.file_offline(session);
    }

    /// Sets the timer of a session without a connection.
    pub(super) fn file_offline(&mut self, id: SessionId) {
        let deadline = self.directory.get(id).and_then(|session| session.offline_deadline());
        match deadline {
            Some(at) => self.offline.set(id.index, at),
            None => self.offline.clear(id.index),
        }
    }
}
