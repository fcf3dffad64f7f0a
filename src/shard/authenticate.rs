//! Tokens: shown by a guest or by a client that goes on, checked elsewhere, and what comes of the answer.
//!
//! ```text
//!   Guest ──CONNECT, GET──► asking ──Verdict: good──► as who it is (`connect`)
//!                             │ not good, late, no room to ask
//!                             ▼
//!                           refused
//! ```
//! A guest's further bytes stay unread while it waits; a session's connection goes on as before. Nobody waits longer than
//! a guest may stay one, and no more wait than there may be guests and sessions: each has one question at a time.

use super::command::{Question, QuestionToken, Shown, Verdict, What};
use super::connect::GUEST;
use super::gateway::{Core, Gateway};
use crate::auth::{Fault, Grant, Introduction, Rights};
use crate::base::ids::{AppId, ConnectionId};
use crate::base::secret::Secret;
use crate::engine::{Pressure, Room};
use crate::io::Driver;
use crate::limits::{OFFENCE_HANDSHAKE, TOKEN_BYTES_MAX};
use crate::session::mqtt::{self, Refusal};
use crate::session::protocol::Request;
use crate::session::{CloseReason, Identity};
use crate::wire::http::Head;
use crate::wire::tls::Layers;
use crossbeam_channel::Sender;
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// Set in the tag of a guest whose token is being checked.
pub(super) const ASKING: u32 = 1 << 30;

// A tag without either mark is a session's index.
const _: () =
    assert!(crate::limits::NODE_CONNECTIONS_MAX * crate::limits::SESSIONS_PER_CONNECTION_MAX * 2 < ASKING as usize);

/// Who waits, and what a guest has brought.
#[derive(Debug)]
pub(super) struct Asking {
    questions: Sender<Question>,
    waiting: Slab<Asked>,
    /// Tokens of requests that have become a WebSocket, by the index of their connection, until its CONNECT comes.
    brought: HashMap<u32, Secret>,
    number: u32,
    /// Of tokens that were not good, by what was wrong.
    pub(super) faults: [u64; Fault::ALL.len()],
    pub(super) unshown: u64,
    pub(super) unasked: u64,
    pub(super) late: u64,
    pub(super) stale: u64,
    pub(super) refused_rights: u64,
}

#[derive(Debug)]
struct Asked {
    number: u32,
    connection: ConnectionId,
    /// A guest's; none: a session's client goes on.
    request: Option<Request>,
}

impl Asking {
    pub(super) fn new(questions: Sender<Question>) -> Self {
        Self {
            questions,
            waiting: Slab::new(),
            brought: HashMap::new(),
            number: 0,
            faults: [0; Fault::ALL.len()],
            unshown: 0,
            unasked: 0,
            late: 0,
            stale: 0,
            refused_rights: 0,
        }
    }

    /// Tokens that are being checked.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A request that becomes a WebSocket has brought a token.
    pub(super) fn bring(&mut self, id: ConnectionId, token: Secret) {
        self.brought.insert(id.index, token);
    }

    /// A guest is none any more.
    pub(super) fn forget_guest(&mut self, id: ConnectionId) {
        self.brought.remove(&id.index);
    }

    /// A guest's connection has ended, or it has waited for too long.
    pub(super) fn forget(&mut self, tag: u32) -> Option<Request> {
        self.waiting.remove((tag & !ASKING) as usize).request
    }

    /// Asks; the place of who waits. None: there is no room for another question.
    fn ask(
        &mut self,
        shard: crate::base::ids::ShardId,
        asked: (ConnectionId, Option<Request>),
        shown: Shown,
    ) -> Result<usize, Option<Request>> {
        self.number = self.number.wrapping_add(1);
        let (number, (connection, request)) = (self.number, asked);
        let place = self.waiting.insert(Asked { number, connection, request });
        let index = u32::try_from(place).expect("connections are numbered with 30 bits");
        let question = Question { token: QuestionToken { shard, index, number }, shown };
        // Full, or nobody is there to check it: either way it is not known to be good.
        if self.questions.try_send(question).is_err() {
            self.unasked += 1;
            return Err(self.waiting.remove(place).request);
        }
        Ok(place)
    }

    /// Whom an answer is for; none: its connection has ended meanwhile.
    fn answered(&mut self, token: QuestionToken) -> Option<(ConnectionId, Option<Request>)> {
        let index = token.index as usize;
        if self.waiting.get(index).is_none_or(|asked| asked.number != token.number) {
            self.stale += 1;
            return None;
        }
        let Asked { connection, request, .. } = self.waiting.remove(index);
        Some((connection, request))
    }
}

impl Gateway {
    /// The token that a request shows, in its header or else in its query: a browser's page cannot set the header of an
    /// event stream or a WebSocket.
    pub(super) fn token_of(&self, head: &Head<'_>) -> Option<Secret> {
        if !self.settings.tokens && !self.settings.hook {
            return None;
        }
        let header = head.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| Secret::from(token.trim()))
        });
        header.or_else(|| {
            let mut named = head.query().filter_map(Result::ok).filter(|(name, _)| name == "token");
            named.next().map(|(_, token)| Secret::from(&*token))
        })
    }

    /// A guest has said what it wants. Has its token checked, where tokens are asked for; else it is who it says.
    pub(super) fn identify<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, mut request: Request) {
        let brought = self.asking.brought.remove(&id.index);
        if self.draining {
            return self.refuse_request(core, id, &request, Refusal::Unavailable);
        }
        if core.pressure() >= Pressure::Guests {
            self.limiting.refused_memory += 1;
            return self.refuse_request(core, id, &request, Refusal::Busy);
        }
        if self.settings.hook {
            return self.introduce(core, id, request, brought);
        }
        if !self.settings.tokens {
            if request.by_method() {
                return self.refuse_request(core, id, &request, Refusal::AuthenticationMethod);
            }
            self.name_device(&mut request);
            let shown = core.transform(id).and_then(Layers::user);
            let said = || self.settings.user.user(request.username(), request.device());
            let user = shown.map_or_else(said, String::from);
            return self.identified(core, id, AppId(0), &user, request, None);
        }
        let Some(token) = request.take_token().or(brought) else {
            if let Some(user) = core.transform(id).and_then(Layers::user) {
                // Its certificate says who it is. Who shows both is who the token says.
                self.name_device(&mut request);
                return self.identified(core, id, AppId(0), &user, request, None);
            }
            self.asking.unshown += 1;
            return self.refuse_request(core, id, &request, Refusal::BadCredentials);
        };
        if token.bytes().len() > TOKEN_BYTES_MAX {
            self.asking.faults[Fault::Malformed as usize] += 1;
            return self.refuse_request(core, id, &request, Refusal::BadCredentials);
        }
        self.wait_for_verdict(core, id, request, Shown::Token(token));
    }

    /// A guest is to be let in by somebody else, who is told all that it says.
    fn introduce<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        mut request: Request,
        brought: Option<Secret>,
    ) {
        if request.by_method() {
            return self.refuse_request(core, id, &request, Refusal::AuthenticationMethod);
        }
        let password = request.take_token().or(brought);
        let is_long = password.as_ref().is_some_and(|password| password.bytes().len() > TOKEN_BYTES_MAX);
        let Some(peer) = core.peer(id).filter(|_| !is_long) else {
            self.asking.faults[Fault::Malformed as usize] += 1;
            return self.refuse_request(core, id, &request, Refusal::BadCredentials);
        };
        self.name_device(&mut request);
        let introduction = Introduction {
            device: request.device().into(),
            username: request.username().map(Into::into),
            password,
            peer,
            protocol: request.protocol_name(),
        };
        self.wait_for_verdict(core, id, request, Shown::Device(Box::new(introduction)));
    }

    fn wait_for_verdict<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, request: Request, shown: Shown) {
        match self.asking.ask(self.shard, (id, Some(request)), shown) {
            Ok(place) => {
                core.set_tag(id, ASKING | u32::try_from(place).expect("guests are bounded"));
                core.pause_reading(id);
                self.note(core, id, What::Asked);
            }
            Err(request) => {
                let request = request.expect("it was given a moment ago");
                self.refuse_request(core, id, &request, Refusal::Unavailable);
            }
        }
    }

    /// A session's client shows another token.
    pub(super) fn reauthenticate<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, token: Secret) {
        let refused = if token.bytes().len() > TOKEN_BYTES_MAX {
            self.asking.faults[Fault::Malformed as usize] += 1;
            Refusal::BadCredentials
        } else if self.asking.ask(self.shard, (id, None), Shown::Token(token)).is_ok() {
            return;
        } else {
            Refusal::Unavailable
        };
        self.answer_reauthentication(core, id, Err(refused));
    }

    /// A token was checked.
    pub(super) fn on_verdict<D: Driver>(&mut self, core: &mut Core<D>, token: QuestionToken, verdict: Verdict) {
        let Some((connection, request)) = self.asking.answered(token) else { return };
        if let Err(fault) = verdict {
            self.asking.faults[fault as usize] += 1;
            self.note(core, connection, What::NotLetIn(fault));
        }
        match request {
            Some(request) => self.on_guest_verdict(core, connection, request, verdict),
            None => {
                let verdict = verdict.map_err(|_| Refusal::BadCredentials);
                self.answer_reauthentication(core, connection, verdict);
            }
        }
    }

    fn on_guest_verdict<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        mut request: Request,
        verdict: Verdict,
    ) {
        core.set_tag(id, GUEST);
        if !core.is_open(id) {
            // Its end is about to be told.
            return;
        }
        if self.draining {
            return self.refuse_request(core, id, &request, Refusal::Unavailable);
        }
        let Grant { app, user, ends_ms, lists } = match verdict {
            Ok(grant) => grant,
            // It may be good: nobody knows.
            Err(Fault::Unanswered) => return self.refuse_request(core, id, &request, Refusal::Unavailable),
            Err(_) => {
                self.guest_offends(id, OFFENCE_HANDSHAKE);
                return self.refuse_request(core, id, &request, Refusal::BadCredentials);
            }
        };
        self.guest_is_proven(id, core.now());
        self.name_device(&mut request);
        if !lists.is_empty() {
            request.grant(Arc::new(Rights { node: Arc::clone(&self.settings.rights.node), own: lists }));
        }
        // One without an end is one that nobody set.
        self.identified(core, id, app, &user, request, Some(ends_ms).filter(|&ends_ms| ends_ms != u64::MAX));
    }

    /// Who goes on has to be who it was.
    fn answer_reauthentication<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        connection: ConnectionId,
        result: Result<Grant, Refusal>,
    ) {
        let Some(id) = core.tag(connection).and_then(|tag| self.session_of(connection, tag)) else {
            self.asking.stale += 1;
            return;
        };
        let is_same = |grant: &Grant| {
            self.directory.get(id).is_some_and(|session| session.app() == grant.app && session.user() == &*grant.user)
        };
        let result = result.and_then(|grant| if is_same(&grant) { Ok(grant) } else { Err(Refusal::NotAuthorized) });
        let ends_ms = result.as_ref().ok().map(|grant| grant.ends_ms);
        let rights = result.map(|grant| match grant.lists.is_empty() {
            true => self.settings.shared_rights(),
            false => Some(Arc::new(Rights { node: Arc::clone(&self.settings.rights.node), own: grant.lists })),
        });
        self.tell_session(core, id, |session, effects| mqtt::on_reauthenticated(session, rights, effects));
        if let Some(ends_ms) = ends_ms
            && self.directory.get(id).is_some_and(|session| session.is_open())
        {
            self.end_with_token(core, id, Some(ends_ms));
        }
        self.catch_up(core, id);
    }

    /// It is known who asks: what it asks for must be its to ask, then it moves to its user's home.
    fn identified<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        id: ConnectionId,
        app: AppId,
        user: &str,
        mut request: Request,
        ends_ms: Option<u64>,
    ) {
        if user.len() > crate::limits::IDENTITY_BYTES_MAX || user.is_empty() {
            return self.refuse_request(core, id, &request, Refusal::ClientIdentifier);
        }
        if let Some(shared) = self.settings.shared_rights() {
            request.grant_if_none(shared);
        }
        if self.refuses_banned(app, user, core.now()) {
            return self.refuse_request(core, id, &request, Refusal::Banned);
        }
        let identity = Identity { app, user: user.into(), device: Arc::from(request.device()) };
        if !request.is_within_rights(&identity) {
            self.asking.refused_rights += 1;
            return self.refuse_request(core, id, &request, Refusal::NotAuthorized);
        }
        self.move_home(core, id, identity, request, ends_ms);
    }

    /// A guest's token was not checked in time.
    pub(super) fn asked_too_long<D: Driver>(&mut self, core: &mut Core<D>, id: ConnectionId, tag: u32) {
        self.asking.late += 1;
        let request = self.asking.forget(tag);
        core.set_tag(id, GUEST);
        if let Some(request) = request {
            let mut frames = Vec::new();
            request.refuse(Refusal::Unavailable, None, &mut frames);
            // Without room for it, it is closed without a word.
            let _ = core.write_bytes(id, Room::Control, &frames);
        }
        self.hang_up(core, id, CloseReason::HandshakeTimeout);
    }

    /// The session's connection ends at this wall time, on the wheel that times sessions without one.
    pub(super) fn end_with_token<D: Driver>(
        &mut self,
        core: &Core<D>,
        id: crate::base::ids::SessionId,
        ends_ms: Option<u64>,
    ) {
        match ends_ms {
            Some(ends_ms) => {
                let now = core.now();
                let at_ms = now.monotonic_ms.saturating_add(ends_ms.saturating_sub(now.wall_ms));
                self.offline.set(id.index, at_ms);
            }
            None => self.offline.clear(id.index),
        }
    }
}
