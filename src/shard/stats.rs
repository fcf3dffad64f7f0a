//! One shard's figures. Gauges say what is held now; when everybody has left, those of connections are 0. Counters say
//! what ever happened.

use super::command::{CommandToken, Event, ShardStats};
use super::deflating;
use super::gateway::{Core, Gateway};
use crate::auth::Fault;
use crate::base::ids::Qos;
use crate::engine::{CloseCause, Counts, Totals};
use crate::io::Driver;
use crate::session::{CloseReason, Counter, Session};

/// What a shard counts itself; the engine has its own.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames_in: u64,
    pub(crate) dropped_outbox_full: u64,
    pub(crate) dropped_oldest: u64,
    pub(crate) dropped_conflated: u64,
    pub(crate) dropped_waiting: u64,
    pub(crate) bans: u64,
    pub(crate) throttled: u64,
    pub(crate) held: u64,
    pub(crate) refused_full: u64,
    pub(crate) refused_http: u64,
    pub(crate) gaps: u64,
    pub(crate) topic_gaps: u64,
    pub(crate) failed_reads: u64,
    pub(crate) failed_writes: u64,
    pub(crate) unreadable_records: u64,
    pub(crate) retained_refused: u64,
    pub(crate) share_dropped: u64,
    pub(crate) share_gaps: u64,
    pub(crate) share_returned: u64,
    pub(crate) orphan_records: u64,
    pub(crate) sessions_without_room: u64,
    pub(crate) dropped_presence: u64,
    pub(crate) drain_cut: u64,
    pub(crate) refused_stored: u64,
    published: [u64; 3],
    published_bytes: [u64; 3],
    sent: [u64; 3],
    sent_bytes: [u64; 3],
    closed: [u64; CloseReason::ALL.len()],
    session: [u64; Counter::ALL.len()],
    peer_closed: u64,
    misframed: u64,
    bad_records: u64,
}

impl Counters {
    /// A client's, with the bytes of its topic and payload.
    pub(crate) fn published(&mut self, qos: Qos, bytes: usize) {
        self.published[qos as usize] += 1;
        self.published_bytes[qos as usize] += bytes as u64;
    }

    /// One message for one client, with the bytes as which it was encoded.
    #[inline]
    pub(crate) fn sent(&mut self, qos: Qos, bytes: usize) {
        self.sent_many(qos, 1, bytes);
    }

    #[inline]
    pub(crate) fn sent_many(&mut self, qos: Qos, count: usize, bytes: usize) {
        self.sent[qos as usize] += count as u64;
        self.sent_bytes[qos as usize] += bytes as u64;
    }

    pub(crate) fn closed(&mut self, reason: CloseReason) {
        self.closed[reason as usize] += 1;
    }

    pub(crate) fn session(&mut self, counter: Counter) {
        self.session[counter as usize] += 1;
    }

    pub(crate) fn ended(&mut self, cause: CloseCause) {
        self.peer_closed += u64::from(cause != CloseCause::Local);
        self.misframed += u64::from(cause == CloseCause::Misframed);
        self.bad_records += u64::from(cause == CloseCause::BadRecords);
    }

    fn list(&self) -> Vec<(&'static str, u64)> {
        let mut list = vec![
            ("frames_in", self.frames_in),
            ("published_qos0", self.published[0]),
            ("published_qos1", self.published[1]),
            ("published_qos2", self.published[2]),
            ("published_bytes_qos0", self.published_bytes[0]),
            ("published_bytes_qos1", self.published_bytes[1]),
            ("published_bytes_qos2", self.published_bytes[2]),
            ("sent_qos0", self.sent[0]),
            ("sent_qos1", self.sent[1]),
            ("sent_qos2", self.sent[2]),
            ("sent_bytes_qos0", self.sent_bytes[0]),
            ("sent_bytes_qos1", self.sent_bytes[1]),
            ("sent_bytes_qos2", self.sent_bytes[2]),
            ("dropped_outbox_full", self.dropped_outbox_full),
            ("dropped_oldest", self.dropped_oldest),
            ("dropped_conflated", self.dropped_conflated),
            ("dropped_waiting_closed", self.dropped_waiting),
            ("bans", self.bans),
            ("throttled", self.throttled),
            ("publishes_held", self.held),
            ("refused_full", self.refused_full),
            ("refused_http", self.refused_http),
            ("gap_entries", self.gaps),
            ("topic_gaps", self.topic_gaps),
            ("store_reads_failed", self.failed_reads),
            ("store_writes_failed", self.failed_writes),
            ("records_unreadable", self.unreadable_records),
            ("retained_refused", self.retained_refused),
            ("dropped_share_full", self.share_dropped),
            ("share_gaps", self.share_gaps),
            ("share_returned", self.share_returned),
            ("records_of_ended_sessions", self.orphan_records),
            ("sessions_without_room", self.sessions_without_room),
            ("dropped_presence_full", self.dropped_presence),
            ("drain_cut", self.drain_cut),
            ("refused_app_stored_bytes", self.refused_stored),
            ("closed_by_peer", self.peer_closed),
            ("closed_websocket_violation", self.misframed),
            ("closed_tls_violation", self.bad_records),
        ];
        list.extend(CloseReason::ALL.iter().map(|&reason| (reason.name(), self.closed[reason as usize])));
        list.extend(Counter::ALL.iter().map(|&counter| (counter.name(), self.session[counter as usize])));
        list
    }
}

impl Gateway {
    /// Copies the figures out.
    pub(super) fn on_stats<D: Driver>(&mut self, core: &mut Core<D>, token: CommandToken) {
        self.census.begin(core.now());
        let counts = core.counts();
        let mut gauges = engine_gauges(&counts);
        gauges.extend([
            ("sessions", self.directory.sessions() as u64),
            ("users", self.directory.users() as u64),
            ("session_timers", self.offline.len() as u64),
            ("subscriptions", self.subscription_count),
            ("filters", self.subscribers.filters() as u64),
            ("interest_filters", self.interest.filters() as u64),
            ("fanout_jobs", self.fanout.jobs() as u64),
            ("incoming", self.incoming.len() as u64),
            ("hot_ring", self.hot.len() as u64),
            ("lagging_sessions", self.lagging.sessions() as u64),
            ("unsent_sessions", self.unsent.sessions() as u64),
            ("slow_sessions", self.slow.sessions() as u64),
            ("slow_messages", self.slow.messages() as u64),
            ("slow_bytes", self.slow.bytes() as u64),
            ("paced_connections", self.limiting.paced() as u64),
            ("bans_in_force", if self.is_registrar() { self.bans.in_force(core.now()).count() as u64 } else { 0 }),
            ("gap_notes", self.gap_notes.sessions() as u64),
            ("log_requests", self.log.outstanding() as u64),
            ("committing_topics", self.committing.topics() as u64),
            ("held_publishes", self.turning.held() as u64),
            ("list_pushes", self.lists.len() as u64),
            ("delivery_waits", self.waits.len() as u64),
            ("installing", self.installing.len() as u64),
            ("moving", self.moving.len() as u64),
            ("authenticating", self.asking.len() as u64),
            ("tls_handshakes", self.securing.handshakes as u64),
            ("retained_messages", self.retained.len() as u64),
            ("retained_bytes", self.retained.bytes() as u64),
            ("retained_reads", self.reads.len() as u64),
            ("share_groups", self.shares.groups() as u64),
            ("share_messages", self.shares.held() as u64),
            ("presence", self.presence.entries() as u64),
            ("events_waiting", self.watching.len() as u64),
            ("unread_counts", self.unread.len() as u64),
            ("dirty_records", self.unwritten.len() as u64),
            ("orphan_records", self.orphans.len() as u64),
            ("throttled_connections", self.throttled.len() as u64),
            ("memory_buffers", counts.memory as u64),
            ("memory_sessions", (self.directory.sessions() * size_of::<Session>()) as u64),
            ("memory_retained", self.retained.bytes() as u64),
            ("memory_waiting", self.slow.bytes() as u64),
            ("memory_lagging", self.lagging.bytes() as u64),
        ]);
        gauges.extend(self.census.gauges());
        let mut counters = engine_counters(core.totals());
        counters.extend(self.counters.list());
        counters.extend(Fault::ALL.iter().map(|&fault| (fault.name(), self.asking.faults[fault as usize])));
        counters.extend([
            ("token_missing", self.asking.unshown),
            ("token_unchecked", self.asking.unasked),
            ("token_checked_late", self.asking.late),
            ("token_checked_in_vain", self.asking.stale),
            ("refused_rights", self.asking.refused_rights),
            ("refused_app_connections", self.quotas.refused_connections),
        ]);
        counters.extend(self.limiting.counters());
        counters.extend([
            ("tls_handshakes_done", self.securing.done),
            ("tls_handshakes_resumed", self.securing.resumed),
            ("tls_handshakes_failed", self.securing.failed),
            ("refused_tls_busy", self.securing.refused_busy),
            ("refused_without_tls", self.securing.refused_plain),
            ("refused_proxy", self.securing.refused_proxy),
            ("refused_protocol", self.securing.refused_protocol),
            ("proxied", self.securing.proxied),
        ]);
        counters.extend(deflating::counters(&core.shared().totals, core.totals().unpack_waits, &self.deflating.totals));
        counters.extend([
            ("delivery_waits_refused", self.waits.refused),
            ("events_unstored", self.watching.dropped),
            ("connections_failed", self.diary.ends),
            ("connections_failed_untold", self.diary.untold),
            ("cpu_us", core.driver().cpu_us()),
        ]);
        let stats = ShardStats { shard: self.shard.0, driver: core.driver().name(), gauges, counters };
        self.tell(Event::Stats { token, stats: Box::new(stats) });
    }
}

/// What the engine holds.
fn engine_gauges(counts: &Counts) -> Vec<(&'static str, u64)> {
    let Counts {
        connections,
        guests,
        slots,
        blocks,
        helds,
        transforms,
        outboxes,
        segments,
        memory,
        timers,
        mail_waiting,
        listeners,
        lobby,
    } = *counts;
    [
        ("connections", connections),
        ("guests", guests),
        ("slots", slots),
        ("blocks", blocks),
        ("partial_frames", helds),
        ("transforms", transforms),
        ("outboxes", outboxes),
        ("segments", segments),
        ("buffer_bytes", memory),
        ("timers", timers),
        ("mail_waiting", mail_waiting),
        ("listeners", listeners),
        ("lobby", lobby),
    ]
    .map(|(name, value)| (name, value as u64))
    .to_vec()
}

/// What the engine has done.
fn engine_counters(totals: &Totals) -> Vec<(&'static str, u64)> {
    vec![
        ("turns", totals.turns),
        ("accepted", totals.accepted),
        ("turned_away", totals.turned_away),
        ("accept_pauses", totals.accept_pauses),
        ("closed_memory_short", totals.shed),
        ("adopted", totals.adopted),
        ("departed", totals.departed),
        ("closed", totals.closed),
        ("stale_completions", totals.stale_completions),
        ("receives", totals.receives),
        ("bytes_in", totals.bytes_received),
        ("receives_starved", totals.starved),
        ("handshake_steps_delayed", totals.costly_waits),
        ("sends", totals.sends),
        ("bytes_out", totals.bytes_sent),
        ("writes", totals.writes),
        ("writes_refused", totals.refused),
        ("bytes_dropped", totals.bytes_dropped),
        ("letters", totals.letters),
        ("turns_ms", totals.turns_ms),
        ("turns_0ms", totals.turns_by_ms[0]),
        ("turns_1ms", totals.turns_by_ms[1]),
        ("turns_2ms", totals.turns_by_ms[2]),
        ("turns_5ms", totals.turns_by_ms[3]),
        ("turns_10ms", totals.turns_by_ms[4]),
        ("turns_50ms", totals.turns_by_ms[5]),
        ("turns_200ms", totals.turns_by_ms[6]),
        ("turns_longer", totals.turns_by_ms[7]),
    ]
}
