//! The shard's own work in a turn, after mail: what came for sessions, fan-out, reads, timers of absent sessions, lazy
//! writes, and the publishers that were held up.

use super::gateway::{Core, Gateway};
use crate::io::Driver;
use crate::limits::{TURN_EXPIRIES_MAX, TURN_FANOUT_VISITS_BEHIND_MAX, TURN_FANOUT_VISITS_MAX, TURN_PULLS_MAX};
use crate::session::CloseReason;
use crate::store::Request;

use super::log_port::Waiting;

impl Gateway {
    /// Does a bounded share of each; true when there is more to do now.
    pub(super) fn work<D: Driver>(&mut self, core: &mut Core<D>) -> bool {
        self.deflating.turn(core.now().monotonic_ms);
        let visits = if core.is_behind() { TURN_FANOUT_VISITS_BEHIND_MAX } else { TURN_FANOUT_VISITS_MAX };
        let left = self.work_incoming(core, visits);
        let more_fanout = self.run_fanout(core, left.max(visits / 2));
        for _ in 0..TURN_PULLS_MAX {
            let Some((session, after)) = self.pulls.pop_front() else { break };
            self.serve_pull(core, session, after);
        }
        self.answer_retained(core);
        self.run_shares(core);
        self.retry_reads(core);
        self.retry_refused(core);
        self.catch_up_freed(core);
        self.answer_polls(core);
        self.go_on_restoring(core);
        self.expire_offline(core);
        let more_waits = self.expire_waits(core);
        let more_departures = self.tell_departures(core);
        self.tell_upstream(core);
        self.write_lazily(core);
        let more_drain = self.drain_some(core);
        self.go_on_limiting(core);
        let more_bans = self.sweep_banned(core);
        let more_surveys = self.go_on_surveying(core) | self.go_on_counting();
        let more_held = self.end_rounds(core);
        let log_waits = !self.log.flush() || self.turning.is_full();
        self.release_throttled(core, log_waits);
        let more_reads = !self.incoming.is_empty() || !self.pulls.is_empty();
        let more_reads = more_reads || self.reads.is_asked(&self.retained) || self.shares.has_work();
        more_drain
            || more_waits
            || more_departures
            || more_surveys
            || more_bans
            || more_held
            || more_fanout
            || more_reads
    }

    /// The earliest time at which there is work again without a letter or a completion.
    pub(super) fn job_ms(&self) -> Option<u64> {
        let lazily = self.unwritten.next_ms(self.turn_ms).filter(|_| !self.log.congested());
        // What waits for room in the log's queue is tried again each tick: the log does not tell when it has room.
        let log_waits = self.is_log_congested() || self.turning.held() > 0;
        let waits = log_waits || !self.throttled.is_empty() || !self.refused.is_empty();
        let retry = waits.then_some(self.turn_ms + RETRY_MS);
        let reads = (!self.failed_reads.is_empty()).then_some(self.retry_reads_ms);
        // Some windows are freed by an outbox that drains after this turn's jobs.
        let freed = (!self.freed.is_empty()).then_some(self.turn_ms);
        // A turn frees connections after its jobs, and nothing else may happen when the last one is gone.
        let drains = (self.draining && !self.drain.is_told).then_some(self.turn_ms + RETRY_MS);
        // What happens after the jobs of a turn goes to the log in the next one.
        let notices = (self.watching.has_work() && !self.log.congested()).then_some(self.turn_ms);
        let answers = self.waits.next_ms();
        let restores = self.restoring.retry_ms();
        let shares = self.shares.write_ms();
        let departures = self.presence.next_ms();
        let limiting = self.limiting.next_ms();
        [
            limiting,
            departures,
            self.offline.next_wake(),
            lazily,
            retry,
            reads,
            freed,
            drains,
            notices,
            answers,
            restores,
            shares,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn expire_offline<D: Driver>(&mut self, core: &mut Core<D>) {
        let now = core.now();
        self.turn_ms = now.monotonic_ms;
        let mut visits_left = TURN_EXPIRIES_MAX;
        while let Some(index) = self.offline.next_expired(now.monotonic_ms, &mut visits_left) {
            let Some(id) = self.directory.id_at(index) else { continue };
            if self.directory.get(id).is_some_and(|session| session.connection().is_some()) {
                self.end_connection(core, id, CloseReason::TokenEnded);
                continue;
            }
            self.tell_session(core, id, |session, effects| session.handle_timer(now, effects));
            self.file_offline(id);
        }
    }

    /// Writes the positions that have changed, about a second after they did, a share a turn.
    fn write_lazily<D: Driver>(&mut self, core: &mut Core<D>) {
        let now = core.now();
        if self.log.congested() {
            return;
        }
        let Some(batch) = self.unwritten.take(now.monotonic_ms, self.draining) else { return };
        let mut records = Vec::new();
        let position = self.position();
        for id in batch {
            self.directory.record_lazy(id, position, now, &mut records);
        }
        if !records.is_empty() {
            let request = Request::Append { key: None, entries: Vec::new(), records };
            self.unwritten.begun();
            self.log.submit(request, Waiting::Positions);
        }
    }

    fn release_throttled<D: Driver>(&mut self, core: &mut Core<D>, log_waits: bool) {
        if log_waits || self.incoming.is_full() || self.homes.all().any(|shard| core.congested(shard)) {
            return;
        }
        for connection in std::mem::take(&mut self.throttled) {
            let session = core.tag(connection).and_then(|tag| self.session_of(connection, tag));
            // A session that waits for something itself resumes when that has come.
            if session.and_then(|id| self.directory.get(id)).is_some_and(|session| !session.is_paused()) {
                core.resume_reading(connection);
            }
        }
    }
}

const RETRY_MS: u64 = 5;
