//! What operators ask of connections: one, or the slowest. A shard may hold a million, so it looks at a share a turn.

use super::command::{CommandToken, ConnectionFigures, ConnectionName, ConnectionQuery, Event};
use super::gateway::{Core, Gateway};
use crate::base::ids::{ConnectionId, SessionId};
use crate::io::Driver;
use crate::limits::{SURVEYS_MAX, TURN_SURVEY_MAX};

/// A question for the slowest connections.
#[derive(Debug)]
pub(crate) struct Survey {
    token: CommandToken,
    wanted: usize,
    /// The index of the next session to look at.
    next: u32,
    /// The slowest so far, in any order; at most twice as many as wanted.
    found: Vec<ConnectionFigures>,
}

impl Survey {
    fn found(&mut self, figures: ConnectionFigures) {
        self.found.push(figures);
        if self.found.len() >= self.wanted.saturating_mul(2) {
            self.keep_the_slowest();
        }
    }

    fn keep_the_slowest(&mut self) {
        self.found.sort_by_key(|figures| core::cmp::Reverse(figures.slowness()));
        self.found.truncate(self.wanted);
    }
}

impl Gateway {
    /// Looks one up, or begins to look through all. With too many surveys under way the newest finds nothing.
    pub(super) fn on_connections<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        query: ConnectionQuery,
        token: CommandToken,
    ) {
        let connections = match query {
            ConnectionQuery::One(name) => {
                let session = core.tag(name.id).and_then(|tag| self.session_of(name.id, tag));
                session.and_then(|session| self.figures_of(core, session, name.id)).into_iter().collect()
            }
            ConnectionQuery::Slowest(wanted) if wanted > 0 && self.surveys.len() < SURVEYS_MAX => {
                return self.surveys.push(Survey { token, wanted, next: 0, found: Vec::new() });
            }
            ConnectionQuery::Slowest(_) => Vec::new(),
        };
        self.tell(Event::Connections { token, connections });
    }

    /// Looks at some more sessions for the oldest question; true while there is more to look at.
    pub(super) fn go_on_surveying<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        if self.surveys.is_empty() {
            return false;
        }
        let mut survey = self.surveys.remove(0);
        let end = self.directory.end();
        let until = end.min(survey.next.saturating_add(TURN_SURVEY_MAX));
        for index in survey.next..until {
            let Some(session) = self.directory.id_at(index) else { continue };
            let Some(connection) = self.directory.get(session).and_then(|session| session.connection()) else {
                continue;
            };
            if let Some(figures) = self.slow_figures_of(core, session, connection) {
                survey.found(figures);
            }
        }
        survey.next = until;
        if until < end {
            self.surveys.insert(0, survey);
            return true;
        }
        survey.keep_the_slowest();
        self.tell(Event::Connections { token: survey.token, connections: survey.found });
        !self.surveys.is_empty()
    }

    /// None for a connection that keeps nobody waiting: most do not, and are passed without an allocation.
    fn slow_figures_of<D: Driver>(
        &self,
        core: &Core<D>,
        id: SessionId,
        connection: ConnectionId,
    ) -> Option<ConnectionFigures> {
        let session = self.directory.get(id)?;
        let waits = session.is_behind() || session.in_flight_count() > 0 || core.outbox_bytes(connection) > 0;
        waits.then(|| self.figures_of(core, id, connection)).flatten()
    }

    fn figures_of<D: Driver>(
        &self,
        core: &Core<D>,
        id: SessionId,
        connection: ConnectionId,
    ) -> Option<ConnectionFigures> {
        let session = self.directory.get(id)?;
        Some(ConnectionFigures {
            name: ConnectionName { shard: self.shard, id: connection },
            app: session.app(),
            user: session.user().into(),
            device: session.device().into(),
            peer: core.peer(connection)?,
            protocol: session.protocol().name(),
            behind: session.is_behind(),
            outbox_bytes: core.outbox_bytes(connection),
            in_flight: session.in_flight_count(),
            window: session.window(),
            stalled: session.is_stalled(),
            lag: session.inbox_lag(),
            subscriptions: session.subscriptions().len(),
            durable: session.is_durable(),
        })
    }
}
