//! Event streams: their requests, the places they go on from, what keeps them alive. Everything else of theirs goes the
//! road of all sessions.

use super::flavours::Layout;
use super::gateway::{Core, Gateway};
use super::log_port::Waiting;
use super::outbound::Stamp;
use crate::base::ids::{ConnectionId, Offset, SessionId};
use crate::base::message::StreamKey;
use crate::engine::{Close, CloseCause, Room};
use crate::io::Driver;
use crate::session::protocol::{self, Request};
use crate::session::sse::{self, EventsRequest};
use crate::session::{DeliveryId, Protocol, Session};
use crate::store::{self, Answer, StoreError};
use crate::wire::http::{Head, Problem, Status};
use crate::wire::sse::{HEARTBEAT, Token, encode_preflight};
use std::sync::Arc;

impl Gateway {
    /// A request at `/events` or `/poll`, which `read` reads. Which pages may ask is checked first: it is the visitor's
    /// network that they ask from.
    pub(super) fn events_asked<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        head: &Head<'_>,
        read: fn(&Head<'_>, Option<&str>) -> Result<EventsRequest, &'static str>,
    ) {
        if !self.settings.origins.allow(head.headers("origin").next(), head.header("host")) {
            return self.decline(core, id, &Problem::new(Status::FORBIDDEN, "pages of this origin may not connect"));
        }
        let page = head.header("origin");
        match head.method {
            "GET" => match read(head, page) {
                Ok(mut request) => {
                    request.token = self.token_of(head);
                    self.identify(core, id, Request::Sse(Box::new(request)));
                }
                Err(why) => self.decline(core, id, &Problem::new(Status::BAD_REQUEST, why)),
            },
            "OPTIONS" => {
                let mut bytes = Vec::new();
                encode_preflight(page, &mut bytes);
                let how = match core.write_bytes(id, Room::Control, &bytes) {
                    Ok(()) => Close::AfterFlush,
                    Err(_) => Close::Now,
                };
                core.close(id, how, CloseCause::Local);
            }
            _ => self.decline(core, id, &GET_ONLY),
        }
    }

    /// A stream's head has left: from now on it is the server that has to say something. A poll begins to wait.
    pub(super) fn opened<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        if self.directory.get(id).is_some_and(|session| session.protocol() == Protocol::Poll) {
            return self.poll_begun(core, id);
        }
        if let Some(connection) = self.directory.get(id).and_then(Session::connection) {
            core.set_deadline(connection, core.now().deadline(self.settings.limits.sse_heartbeat));
        }
    }

    /// Nothing but time has come. What waits in the outbox says as much as a heartbeat would, and whether the peer takes
    /// it is the kernel's to find out (`TCP_USER_TIMEOUT`).
    pub(super) fn beat<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, connection: ConnectionId) {
        if core.outbox_bytes(connection) == 0 {
            // No room can only be the pool's want, which passes.
            let _refused = core.write_bytes(connection, Room::Data, HEARTBEAT);
        }
        self.opened(core, id);
    }

    /// A session looks for its place in a topic's stream.
    pub(super) fn locate(&mut self, id: SessionId, topic: Arc<str>, after: Offset) {
        let app = self.directory.get(id).map(Session::app).expect("who asks is there");
        let request = store::Request::ReadStream { stream: StreamKey::Topic(app, topic), after, limit: 1 };
        self.log.submit(request, Waiting::Locate { session: id });
    }

    /// Its place, or a failed read, after which it is asked again.
    pub(super) fn on_located<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: SessionId,
        result: Result<Answer, StoreError>,
    ) {
        let Ok(Answer::Stream { head, entries }) = result else { return self.read_again(id) };
        self.tell_session(core, id, |session, effects| protocol::on_located(session, head, &entries, effects));
    }

    /// Asks again for a place that could not be read.
    pub(super) fn locate_again<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId) {
        self.tell_session(core, id, sse::locate_again);
    }

    /// What of a frame is this connection's own.
    pub(super) fn stamp(&mut self, id: SessionId, layout: &Layout, delivery: Option<(DeliveryId, bool)>) -> Stamp {
        match layout {
            Layout::Mqtt(_) => delivery.map_or(Stamp::None, |(delivery, dup)| Stamp::Delivery(delivery, dup)),
            Layout::Sse(layout) if layout.token_at.is_none() => Stamp::None,
            Layout::Sse(_) => {
                let (log, position) = (self.log.life(), self.position());
                let session = self.directory.get_mut(id).expect("it is written to");
                // The newer its token, the less it reads again when it comes back.
                session.stand_at(position);
                let standing = session.standing(delivery.map(|(delivery, _)| delivery));
                Stamp::Token(Token { log, topics: standing.topics, inbox: standing.inbox })
            }
        }
    }

    /// A message of a window is with the socket: who never acknowledges has it by that.
    #[inline]
    pub(super) fn handed_over<D: Driver>(&mut self, core: &mut Core<D>, id: SessionId, delivery: DeliveryId) {
        if self.directory.get(id).is_some_and(|session| !session.protocol().acknowledges()) {
            self.tell_session(core, id, |session, effects| session.handed_over(delivery, effects));
        }
    }
}

const GET_ONLY: Problem<'static> = Problem {
    status: Status::METHOD_NOT_ALLOWED,
    detail: "what there is for you is asked for with GET",
    headers: &[("Allow", "GET, OPTIONS")],
};
