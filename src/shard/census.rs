//! What only a look at every session tells: windows, lag, who stalls. A shard may hold a million, so it looks at a share a
//! turn, when its figures are asked for and it has not looked for a while; until it is through, the figures are those of the
//! look before. A node that nobody scrapes does not look.

use super::gateway::Gateway;
use crate::base::clock::Now;
use crate::limits::{CENSUS_INTERVAL, TURN_SURVEY_MAX};

/// Over all sessions with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    in_flight: u64,
    behind: u64,
    stalled: u64,
    inbox_lag: u64,
    inbox_lag_max: u64,
    topics_lag_max: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Census {
    last: Found,
    so_far: Found,
    /// The next session to look at; none: no look is under way.
    next: Option<u32>,
    /// When another look may begin, monotonic milliseconds.
    again_ms: u64,
}

impl Census {
    /// Somebody asks for the figures.
    pub(super) fn begin(&mut self, now: Now) {
        if self.next.is_none() && now.monotonic_ms >= self.again_ms {
            self.again_ms = now.deadline(CENSUS_INTERVAL);
            self.so_far = Found::default();
            self.next = Some(0);
        }
    }

    pub(super) fn gauges(&self) -> [(&'static str, u64); 6] {
        [
            ("window_messages", self.last.in_flight),
            ("behind_connections", self.last.behind),
            ("stalled_connections", self.last.stalled),
            ("inbox_lag_entries", self.last.inbox_lag),
            ("inbox_lag_entries_max", self.last.inbox_lag_max),
            ("topics_lag_commits_max", self.last.topics_lag_max),
        ]
    }
}

impl Gateway {
    /// Looks at some more sessions; true while there are more.
    pub(super) fn go_on_counting(&mut self) -> bool {
        let Some(next) = self.census.next else { return false };
        let end = self.directory.end();
        let until = end.min(next.saturating_add(TURN_SURVEY_MAX));
        let found = &mut self.census.so_far;
        for index in next..until {
            let session = self.directory.id_at(index).and_then(|id| self.directory.get(id));
            let Some(session) = session.filter(|session| session.connection().is_some()) else { continue };
            let lag = session.inbox_lag();
            found.in_flight += session.in_flight_count() as u64;
            found.behind += u64::from(session.is_behind());
            found.stalled += u64::from(session.is_stalled());
            found.inbox_lag += lag;
            found.inbox_lag_max = found.inbox_lag_max.max(lag);
            found.topics_lag_max = found.topics_lag_max.max(session.topics_lag());
        }
        self.census.next = (until < end).then_some(until);
        if self.census.next.is_none() {
            self.census.last = self.census.so_far;
        }
        self.census.next.is_some()
    }
}
