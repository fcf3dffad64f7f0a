//! Every bound kittiwake has, with its unit and its reason.
//!
//! A bound that an operator may change is the *default* of a configuration key and says so. All others are fixed.
//! Nothing in the product grows without one of these beside it, and every full thing says what then happens.

mod control;
mod defence;
#[cfg(test)]
mod tests;

use core::time::Duration;

pub use control::*;
pub use defence::*;

// --- the turn -------------------------------------------------------------------------------------------------

/// Completions handled in one turn. More wait in the driver: a turn must end so that timers and mail get theirs.
pub const TURN_COMPLETIONS_MAX: usize = 4096;
/// Timers expired in one turn; the rest stay due and are taken in the next one.
pub const TURN_EXPIRIES_MAX: usize = 1024;
/// Letters taken from the shard's mailbox in one turn.
pub const TURN_MAIL_MAX: usize = 1024;
/// Subscribers visited by fan-out jobs in one turn. A visit and the send that follows it take some 10 µs on loopback
/// (measured), so fan-out's share of a turn stays well below the 2 ms that other traffic may wait.
pub const TURN_FANOUT_VISITS_MAX: usize = 64;
/// The same while as many connections wait to be read as a turn receives from. Most visits bring an acknowledgement to
/// be read: with more visits than receives, the line of those who wait would grow as long as a broadcast takes.
pub const TURN_FANOUT_VISITS_BEHIND_MAX: usize = RECEIVES_IN_FLIGHT_MAX / 2;
/// Reads from the hot ring served in one turn.
pub const TURN_PULLS_MAX: usize = 64;
/// Sessions whose changed position is written in one turn: a few hundred bytes and about 1 µs each (an estimate).
pub const TURN_LAZY_WRITES_MAX: usize = 256;
/// Requests with changed positions that the log has not answered yet, each of up to `TURN_LAZY_WRITES_MAX`: after a message
/// to everyone all positions change at once, and others' commits are not to wait behind all of them, nor memory to hold
/// them. With commits of 5 ms it is still 200,000 positions a second.
pub const LAZY_WRITES_UNDER_WAY_MAX: usize = 4;
/// Sessions looked at in one turn for the slowest connections, and for windows and lag: some 10 ns each where nothing waits
/// (an estimate).
pub const TURN_SURVEY_MAX: u32 = 8_192;
/// Questions for the slowest connections a shard has at hand. Full: the newest is answered with none of its.
pub const SURVEYS_MAX: usize = 16;
/// Windows and lag are counted no more often than this, which costs some 10 ms for a million sessions (an estimate).
pub const CENSUS_INTERVAL: Duration = Duration::from_secs(5);
/// Wheel tick. Deadlines are kept to this precision; a finer one only costs wake-ups.
pub const TICK: Duration = Duration::from_millis(100);
/// Receives one shard has in flight. Each borrows a receive block, so this bounds what a burst of ready sockets
/// borrows at once (1 MB) and keeps the blocks in use few and warm; the others wait in a queue. So many share a turn's
/// own cost of 1 to 2 µs, some 0.03 µs each (an estimate).
pub const RECEIVES_IN_FLIGHT_MAX: usize = 64;
/// Steps of TLS handshakes done in one turn; the others wait for the next ones, in line. A step with a signature takes
/// 0.1 to 0.2 ms with an elliptic curve and 0.7 ms with RSA 2048 (an estimate), so a storm of handshakes leaves the
/// other connections of the shard a turn that is some 1 to 3 ms longer.
pub const TURN_COSTLY_MAX: usize = 4;
/// Connections whose waiting output is handed to the driver in one turn; the rest follow in the next.
pub const TURN_SENDS_MAX: usize = 4096;
/// Time slice that shards and the control plane's threads ask the scheduler for, the shortest that it gives. Both are woken
/// for single messages; with the usual slice (a millisecond or more) they stand behind whoever fills his.
pub const TIME_SLICE: Duration = Duration::from_micros(100);
/// Longest sleep of a shard that waits for nothing at all, so that a lost wake would show as a delay, not a hang.
pub const SLEEP_MAX: Duration = Duration::from_secs(1);

// --- mail -----------------------------------------------------------------------------------------------------

/// Letters a shard's mailbox holds. When it is full the sender keeps data in its backlog and stops reading the
/// connections that feed it; the control plane answers 429.
pub const MAILBOX_LETTERS_MAX: usize = 16_384;
/// With so many letters to read a shard has enough for a turn: who hands pushes over on its CPU lets it go first, unless its
/// driver gathers sends.
pub const LETTERS_ENOUGH: usize = 64;
/// Letters a sender keeps back for one congested target before it stops reading what feeds it.
pub const MAIL_BACKLOG_LETTERS_MAX: usize = 4_096;
/// Letters a sender keeps back for one target when control letters, which are never refused, are counted too. They
/// are bounded by the connections and sessions that wait for their answers; running out of this is our own bug.
pub const MAIL_BACKLOG_CONTROL_MAX: usize = 4 << 20;
/// A shard with mail for a full mailbox looks again after this long.
pub const MAIL_RETRY: Duration = Duration::from_millis(1);

// --- blocks and buffers ---------------------------------------------------------------------------------------

/// Sizes of pooled blocks, in bytes, smallest first. 512 holds a partial frame of an idle-ish device, 4,096 one
/// turn's frames of a busy one, 16,384 is the receive block, the last ones hold large frames: the largest there may be with
/// what one receive brings behind it.
pub const BLOCK_CLASSES: [usize; 6] = [512, 4_096, 16_384, 65_536, 262_144, 1_114_112];
/// The block a ready socket's receive borrows, in bytes.
pub const RECEIVE_BLOCK_BYTES: usize = 16_384;
/// A payload at least this long is sent by shared reference, a shorter one is copied into the block: copying wins
/// up to about 4 KB a segment (measured, BUDGETS), beyond it memory decides.
pub const SHARED_SEGMENT_BYTES_MIN: usize = 4_096;
/// Default bytes of pooled blocks one shard may have out or kept, over all classes. An empty pool is a busy
/// condition: receives wait for blocks, sends drop by policy; control frames have a reserve.
pub const POOL_BYTES_MAX: usize = 256 << 20;
/// Bytes of free blocks a shard keeps for re-use; blocks returned beyond it go back to the allocator.
pub const POOL_FREE_BYTES_MAX: usize = 16 << 20;
/// Bytes of free blocks of each size that a shard keeps however long it is idle, so that a few devices that speak now
/// and then allocate nothing.
pub const POOL_KEPT_BYTES: usize = 64 << 10;
/// The memory of free blocks beyond that which were not wanted for this long is given back when the shard goes to sleep: an
/// idle shard does not pay for its last burst, a busy one never allocates. Up to `POOL_FREE_BYTES_MAX` of address space stays
/// with them.
pub const POOL_TRIM_INTERVAL: Duration = Duration::from_secs(1);
/// Between two times that an idle thread has the allocator give free pages back. All an idle process with 200,000
/// connections does, this included, takes 0.9 ms of CPU a second.
pub const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(1);
/// Default of `limits.outbox_bytes`: data waiting for one connection. Full: the topic's slow-consumer policy.
pub const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Room above `OUTBOX_BYTES_MAX` that only control frames (acknowledgements, PINGRESP, DISCONNECT) may use.
/// Full: the connection is closed, it does not read.
pub const OUTBOX_CONTROL_BYTES_MAX: usize = 16 << 10;
/// Default of the level at or below which an outbox that was asked about is reported as drained.
pub const OUTBOX_BYTES_LOW: usize = 64 << 10;
/// A block that output is copied into grows up to this; what follows starts another one, and so another send.
pub const COALESCE_BYTES_MAX: usize = 65_536;
/// Bytes of which records are made at once: with what records add they fit the block of `COALESCE_BYTES_MAX`. More of a
/// segment follows with the next send.
pub const RECORDS_PLAIN_BYTES_MAX: usize = COALESCE_BYTES_MAX - 512;
/// Segments waiting in all outboxes of a shard, besides the one each is filling. Full: as a full outbox.
pub const SEGMENTS_MAX: u32 = 1 << 20;
/// One in this many of the pool's bytes is kept for control frames, and as much again for receives, so that data
/// that does not move never keeps acknowledgements from leaving or arriving.
pub const POOL_RESERVE_DIVISOR: usize = 16;

// --- connections ----------------------------------------------------------------------------------------------

/// Default of a shard's connections; the table reserves address space for them, 100 bytes each.
pub const CONNECTIONS_MAX: u32 = 1 << 20;
/// A listener whose accept ended for want of room (EMFILE and the like) tries again after this long.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Listeners of one shard.
pub const LISTENERS_MAX: usize = 64;
/// Unidentified connections one shard holds at a time, as ordinary fds. Beyond it accepting pauses and the kernel's
/// backlog holds the rest.
pub const GUESTS_MAX: usize = 4_096;
/// Slots of one io_uring table: RLIMIT_NOFILE caps it, 20,000 on the machine this was measured on.
pub const RING_SLOTS_MAX: usize = 20_000;
/// CONNECT must have arrived this long after accept.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a close was asked for, the peer has this long to take what is still in its outbox.
pub const LINGER: Duration = Duration::from_secs(5);
/// What a shard remembers of what happened to connections: some 40 KiB. Full: the oldest goes.
pub const DIARY_ENTRIES_MAX: usize = 1_024;
/// Connections of a shard that ended badly whose story is told in a second. More: they are counted.
pub const STORIES_PER_SECOND_MAX: u32 = 10;
/// Stories that wait to be written to the log. A further one is counted and left out.
pub const STORIES_MAX: usize = 1_024;
/// Connections that have not said who they are hold up a drain for this long.
pub const DRAIN_GUESTS: Duration = Duration::from_secs(1);
/// Keep alive 0 still ends after this long without a byte.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Default of `limits.tls_handshakes`: connections of one shard that speak TLS and have said nothing within it yet. Each
/// keeps some 20 KB while it does (an estimate). Beyond it a newcomer is told by a plain alert and closed: that costs
/// nothing, and a quarter of all guests is more than is served within a handshake's time.
pub const TLS_HANDSHAKES_MAX: usize = GUESTS_MAX / 4;
/// Tickets for resumption that a TLS 1.3 client is given. It may use each once; those that are not taken up are
/// replaced by the next handshake's.
pub const TLS_TICKETS_PER_HANDSHAKE: usize = 1;
/// How long a ticket says that it lives.
pub const TLS_TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// How often a node without a file of ticket keys draws one. The one before still opens what it sealed, so a key opens for
/// twice as long.
pub const TLS_TICKET_ROTATION: Duration = TLS_TICKET_LIFETIME;
/// Keys in a file of ticket keys; the first seals, all open.
pub const TLS_TICKET_KEYS_MAX: usize = 16;
/// Certificates of a node. A handshake looks its own up by name.
pub const TLS_CERTIFICATES_MAX: usize = 256;
/// Head of the PROXY protocol, version 1: what its specification says is the longest, CR LF included.
pub const PROXY_V1_BYTES_MAX: usize = 107;
/// Head of the PROXY protocol, version 2: 16 bytes, the longest addresses and some TLVs. Longer: refused.
pub const PROXY_V2_BYTES_MAX: usize = 4_096;
/// Prefixes of addresses that a listener takes heads of the PROXY protocol from.
pub const PROXY_SOURCES_MAX: usize = 64;

// --- sockets --------------------------------------------------------------------------------------------------

/// Connections the kernel holds for a listener until they are accepted; `net.core.somaxconn` caps it. Full: the
/// kernel drops SYNs and peers try again.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Accepts done for one readiness event on epoll, so that a storm of new peers leaves the others their turn.
pub const ACCEPTS_PER_EVENT_MAX: usize = 64;
/// Bytes that stay unacknowledged this long prove the peer dead (`TCP_USER_TIMEOUT`).
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent connection is probed after this long. Protocol keep alives are shorter; this finds what has none.
pub const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(600);
/// Pause between the probes of a silent connection; `TCP_USER_TIMEOUT` bounds how many of them go unanswered.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Events one `epoll_wait` brings. More wait in the kernel, which hands sockets out in turn. No more than a turn
/// receives from: the kernel would look at the others again in every turn until they are read, which took a third of a
/// shard's time while 10,000 devices acknowledged (`perf record`, loadtest fanout --qos 1).
pub const EPOLL_EVENTS_MAX: usize = RECEIVES_IN_FLIGHT_MAX;
/// Completions that an epoll driver has at hand and hands over without asking the kernel for more. With more of them a
/// call is a small part of the turn.
pub const EPOLL_SPARING_COMPLETIONS_MAX: usize = 8;
/// Polls in a row that do so: a message that is received, sent on, and done with.
pub const EPOLL_SPARED_MAX: u32 = 2;
/// Slots an epoll driver reserves address space for at most; untouched pages cost nothing. Beyond it the table grows
/// by copying.
pub const EPOLL_SLOTS_RESERVED_MAX: usize = 1 << 21;
/// Submission entries of a shard's main ring. Full: they are submitted before the turn's end.
pub const RING_SUBMISSIONS_MAX: u32 = 4_096;
/// Completion entries of a shard's main ring: a turn's submissions four times over. Full: the kernel keeps the rest
/// in memory of its own until there is room.
pub const RING_COMPLETIONS_MAX: u32 = 16_384;
/// Submission entries of a further slot ring, which only serves its own table's sockets.
pub const SLOT_RING_SUBMISSIONS_MAX: u32 = 1_024;
/// Completion entries of a further slot ring.
pub const SLOT_RING_COMPLETIONS_MAX: u32 = 4_096;
/// Rings of one shard, the main one included: 127 further tables of `RING_SLOTS_MAX`. Beyond it installs fail.
pub const SLOT_RINGS_MAX: usize = 128;
/// Sockets put into a table by one entry. More in a turn take more entries.
pub const INSTALL_BATCH_MAX: usize = 256;
/// Kernel threads a ring may start for what cannot be done at once; only shutdowns of installed sockets are such.
pub const RING_WORKERS_MAX: u32 = 2;
/// Arrivals at installed sockets in a turn from which on waits are batched: as many as 100,000 a second bring during one such
/// wait. Below it the first arrival ends a wait: a few who each wait for an answer send nothing more while the shard holds
/// out for all of them.
pub const BATCHED_WAIT_ARRIVALS_MIN: usize = 20;
/// So many of them for each step of a connection that is coming in, else the first arrival ends a wait as well: who comes
/// in waits for each answer, so nothing more arrives while the shard holds out.
pub const BATCHED_WAIT_ARRIVALS_PER_STEP_MIN: usize = 8;
/// Arrivals that end a batched wait at most: as many as the last turn brought, up to this.
pub const BATCHED_WAIT_WANT_MAX: usize = 512;
/// How long a batched wait holds out for that many. It is the latency a busy shard adds, a tenth of the 2 ms budget,
/// and worth about ten wake-ups.
pub const BATCHED_WAIT: Duration = Duration::from_micros(200);
/// How long a dropped driver waits for the kernel to let its buffers go; what it still holds then is leaked.
pub const RING_DROP_PATIENCE: Duration = Duration::from_secs(1);
/// Sends of one epoll driver that wait for room in their socket's buffer. Full: the send fails with ENOBUFS.
pub const EPOLL_PARKED_SENDS_MAX: usize = 1 << 20;

// --- HTTP on the edge port ------------------------------------------------------------------------------------

/// Bytes of a request's head: what browsers send with their cookies, and what one receive block holds. Longer: 431.
pub const HTTP_HEAD_BYTES_MAX: usize = RECEIVE_BLOCK_BYTES;
/// Bytes of a request's target: RFC 9110 §4.1 asks for 8,000 at the least. Longer: 414.
pub const HTTP_TARGET_BYTES_MAX: usize = 8_192;
/// Headers of a request; they are looked at on the stack, 32 bytes each. More: 431.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Payload of one WebSocket frame. Frames' bounds mean nothing to what they carry, which has bounds of its own, so
/// this only keeps a length within the 32 bits it is counted down in. Longer: 1009.
pub const WEBSOCKET_FRAME_BYTES_MAX: u32 = 1 << 30;
/// Default of `edge.deflate_bytes`: payloads from this long on are packed for who has agreed to it. Shorter ones leave in
/// one packet of the network either way, and packing costs the processor what it saves the line.
pub const DEFLATE_BYTES_MIN: usize = 1_024;
/// Payloads up to this long are packed, some 0.5 ms of a shard's time (an estimate); longer ones leave as they are, by
/// reference, so that nobody's turn waits for them.
pub const DEFLATE_BYTES_MAX: usize = 64 << 10;
/// How hard the packer looks, of 10: the step that does the most for its time.
pub const DEFLATE_LEVEL: u8 = 1;
/// Payload bytes packed in a turn, with the payload that reaches them: some 1 ms (an estimate). What is written beyond
/// that in the turn leaves as it is, counted.
pub const TURN_DEFLATE_BYTES_MAX: usize = 64 << 10;
/// Packed payloads that a shard keeps for further receivers, with the payloads they were made of: one fan-out's batch.
/// Full: the one that was not used for longest goes, and is packed again should it be wanted.
pub const DEFLATE_KEPT_MAX: usize = FANOUT_BATCH_MAX;
/// Unused for so long they are all forgotten, so that a quiet shard keeps nothing.
pub const DEFLATE_KEPT_FOR: Duration = Duration::from_secs(1);
/// Bytes unpacked in a turn, with the message that reaches them: 1 to 2 ms (an estimate). Who sent more waits in line for
/// the next turn.
pub const TURN_UNPACK_BYTES_MAX: usize = 512 << 10;
/// What unpacking a message costs besides its bytes, in bytes (an estimate): many small ones take as long as a large one.
pub const UNPACK_CHARGE_BYTES: usize = 1_024;

/// Default of `edge.sse_heartbeat`: what HTML §9.2.7 advises, and well below the 60 s after which common proxies give a
/// silent connection up.
pub const SSE_HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a browser waits before it comes back to a stream that ended: short for people, long enough that a node's
/// whole load does not come back at once within a second.
pub const SSE_RETRY: Duration = Duration::from_secs(3);

/// How long a poll waits when it does not say: below the 30 s after which the shortest of common proxies give up.
pub const POLL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(25);
/// Longest `timeout_ms` of a poll. More: 400.
pub const POLL_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Messages of one answer to a poll that does not say how many.
pub const POLL_EVENTS_DEFAULT: u16 = 100;
/// Most messages of one answer. More: 400.
pub const POLL_EVENTS_MAX: u16 = 1_000;
/// Bytes of one answer's head and of what stands about its messages, besides the name of the page that may read it.
pub const POLL_FRAME_BYTES: usize = 1_024;

// --- identity -------------------------------------------------------------------------------------------------

/// Bytes of a token. Tokens of identity providers with many claims have some 2,000; longer: as a bad one.
pub const TOKEN_BYTES_MAX: usize = 8_192;
/// Bytes of a secret that tokens are signed with: as many as HMAC-SHA-256 makes (RFC 7518 §3.2).
pub const TOKEN_SECRET_BYTES_MIN: usize = 32;
/// Keys of a node, those of key sets included: a token that names none is tried with all of its algorithm, some 50 µs
/// each (an estimate).
pub const AUTH_KEYS_MAX: usize = 64;
/// Topic filters of `auth.publish`, and as many of `auth.subscribe`: a publish looks through all of them.
pub const AUTH_FILTERS_MAX: usize = 256;
/// Bytes of a file with keys.
pub const AUTH_KEY_FILE_BYTES_MAX: u64 = 1 << 20;
/// Default of `auth.leeway`: clocks that are kept by NTP are apart by much less.
pub const AUTH_LEEWAY: Duration = Duration::from_secs(5);
/// Tokens of all shards that wait to be checked. Full: who comes then is told that there is no room now. Far beyond what
/// is checked within a handshake's time.
pub const AUTH_QUESTIONS_MAX: usize = 8_192;
/// Threads that check tokens. The cores belong to the shards; one checks some 20,000 tokens a second (an estimate).
pub const AUTH_THREADS: usize = 2;
/// Bytes of a backend's answer about a device; a longer one lets nobody in.
pub const AUTH_HOOK_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Answers of a backend about devices that are remembered. Full: the older half goes.
pub const AUTH_HOOK_REMEMBERED_MAX: usize = 65_536;
/// Largest `auth.in_flight`: each is a connection to the backend.
pub const AUTH_HOOK_IN_FLIGHT_MAX: usize = 1_024;
/// How often files with keys are looked at for changes.
pub const AUTH_RELOAD_INTERVAL: Duration = Duration::from_secs(5);

// --- sessions -------------------------------------------------------------------------------------------------

/// Default `limits.packet_bytes`: a whole MQTT packet. Longer: 0x95 and close.
pub const PACKET_BYTES_MAX: usize = 256 << 10;
/// The largest `limits.packet_bytes`.
pub const PACKET_BYTES_CEILING: usize = 1 << 20;
/// Default of `limits.receive_maximum_out`: in-flight QoS 1 and 2 messages towards a client, also for 3.1.1 which cannot
/// say.
pub const RECEIVE_MAXIMUM_OUT: u16 = 32;
/// Its upper bound: an acknowledgement looks through the whole window, and a session keeps its width in one byte.
pub const RECEIVE_MAXIMUM_OUT_MAX: u16 = 255;
/// Settled entries a session remembers because an earlier one is not settled. Full: it pulls no further until that
/// one is, and is counted as stalled.
pub const SETTLED_MARKS_MAX: usize = 256;
/// QoS 2 identifiers a 3.1.1 client, which knows no receive maximum, may hold without PUBREL. Exceeded: closed.
pub const RECEIVED_IDS_MAX: usize = 1_024;
/// Default of `limits.receive_maximum_in`: QoS 1 and 2 messages a client may have unacknowledged towards us. Exceeded:
/// 0x93 (3.1.1: reading pauses).
pub const RECEIVE_MAXIMUM_IN: u16 = 128;
/// Its upper bound: a publish looks through all that wait for their answers.
pub const RECEIVE_MAXIMUM_IN_MAX: u16 = 1_024;
/// Default of `limits.subscriptions`: of a session. Beyond it SUBACK says 0x97 (3.1.1: 0x80).
pub const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Its upper bound: a session with several filters looks through all of them for each message.
pub const SUBSCRIPTIONS_MAX_MAX: usize = 10_000;
/// Levels of a filter or topic.
pub const TOPIC_LEVELS_MAX: usize = 32;
/// Bytes of a push label.
pub const LABEL_BYTES_MAX: usize = 512;
/// Bytes of a topic name or filter (the wire allows 65,535).
pub const TOPIC_BYTES_MAX: usize = 4_096;
/// Bytes of a user name or client id.
pub const IDENTITY_BYTES_MAX: usize = 256;
/// Topic aliases accepted from a client.
pub const TOPIC_ALIAS_MAX: u16 = 16;
/// Topic aliases towards a client, however many it takes: each keeps a topic's name for as long as the connection
/// lasts, and is looked for in a list. Further topics are sent by their names.
pub const TOPIC_ALIAS_OUT_MAX: u16 = 16;
/// Bytes of `node.server_reference`: it has to fit into a DISCONNECT that small clients take.
pub const SERVER_REFERENCE_BYTES_MAX: usize = 256;
/// Default of `limits.session_expiry_max`: the longest session expiry granted, also to 3.1.1 sessions with clean session
/// 0.
pub const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Sessions, connected or away, for each connection that may be: address space is reserved for them, pages nobody
/// touches cost nothing.
pub const SESSIONS_PER_CONNECTION_MAX: usize = 4;
/// Default of `limits.devices_per_user`. Beyond it CONNACK says 0x97 (3.1.1: 0x03).
pub const DEVICES_PER_USER_MAX: usize = 1_000;
/// Its upper bound: a push to a user goes to all of the user's devices in one step.
pub const DEVICES_PER_USER_MAX_MAX: usize = 10_000;
/// Gaps that one message names to a session. Beyond it the oldest are named no more: each was counted, and told to
/// whoever takes notices.
pub const GAP_NOTES_MAX: usize = 16;
/// Questions of one device (`$api/…`) without an answer yet. Beyond it: 0x97.
pub const QUESTIONS_MAX: u8 = 8;
/// Bytes of one question: a topic's name in JSON, a place, and room to spare. Longer: 0x99.
pub const QUESTION_BYTES_MAX: usize = 32 << 10;
/// Bytes of one answer, if the device takes packets as long: its history ends there, and the next page goes on.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A lazily written cursor is at most this old.
pub const CURSOR_WRITE_DELAY: Duration = Duration::from_secs(1);

// --- router ---------------------------------------------------------------------------------------------------

/// Shards of one process: the width of the set of interested shards that a home looks up per message.
pub const SHARDS_MAX: usize = 1_024;
/// Topics of one shard with a fan-out job at the same time. Full: the message comes back to the caller, who applies
/// the topic's slow-consumer policy and counts it.
pub const FANOUT_JOBS_MAX: usize = 65_536;
/// Messages of one topic that wait for its next pass. Full: as above.
pub const FANOUT_PENDING_MAX: usize = 1_024;
/// Messages one pass carries to each subscriber. It bounds what a visit writes at a time; the rest wait for the
/// topic's next pass.
pub const FANOUT_BATCH_MAX: usize = 64;
/// Messages of a visit that are charged as one visit of the turn's budget: a visit's own cost (a cache miss, a flush
/// later) is about that of copying this many small messages (an estimate).
pub const FANOUT_MESSAGES_PER_CHARGE: usize = 16;
/// Visits a topic gets before the next topic's job has its go.
pub const FANOUT_SLICE_VISITS_MAX: usize = 32;
/// Tombstones from which a filter's list must be compacted before a further pass may start on it, once they also
/// outnumber its subscribers. Below it, skipping them is cheaper than making topics wait for each other.
pub const FANOUT_TOMBSTONES_MIN: usize = 1_024;
/// Messages a finished job keeps room for when it is put away for re-use.
pub const FANOUT_SPARE_MESSAGES_MAX: usize = 64;

// --- retained messages ----------------------------------------------------------------------------------------

/// Default `limits.retained_messages` of the process, shared out evenly among the shards. Full: a publish or push with
/// RETAIN is refused with 0x97 or 429 and counted; what is over its time is looked for first.
pub const RETAINED_MESSAGES_MAX: usize = 1_000_000;
/// Default `limits.retained_bytes`: their topics, payloads and properties, likewise.
pub const RETAINED_BYTES_MAX: usize = 256 << 20;
/// Topics a home looks at in a turn to answer new subscriptions, about 0.1 µs each (an estimate). More wait.
pub const RETAINED_STEP_VISITS_MAX: usize = 1_024;
/// Topics a home that is full looks at for messages over their time, before it refuses one; the next one goes on there.
pub const RETAINED_SWEEP_VISITS_MAX: usize = 1_024;
/// Retained messages a session is handed at a time: twice the largest window.
pub const RETAINED_PIECE_MESSAGES_MAX: usize = 64;
/// Payload bytes after which a home's answer is long enough.
pub const RETAINED_PIECE_BYTES_MAX: usize = 64 << 10;
/// Topics of live messages that a session notes while retained ones are being sent to it. Beyond it the oldest note
/// goes, counted: of that topic a retained message may still come, also one that the live one has replaced.
pub const RETAINED_NOTES_MAX: usize = 256;
/// Records of retained messages read at a time at start: at most so many times the largest packet is in memory.
pub const RETAINED_RECORDS_PAGE: usize = 64;

// --- share groups ---------------------------------------------------------------------------------------------

/// Messages that wait in one share group for a member with room. Of what is logged there is never more, for it is read
/// only when somebody has room; of the rest the oldest go, counted.
pub const SHARE_QUEUE_MAX: usize = 1_024;
/// Logged messages a share group reads at a time.
pub const SHARE_READ_MESSAGES_MAX: usize = 64;
/// Messages one shard assigns to members of its share groups in a turn.
pub const TURN_SHARE_ASSIGNMENTS_MAX: usize = 256;

// --- presence -------------------------------------------------------------------------------------------------

/// Who is gone from a topic for so long has left it: a reconnect within it is silent.
pub const PRESENCE_GRACE: Duration = Duration::from_secs(10);
/// Users present in topics whose home is one shard, each counted once a topic; some 100 bytes each. Full: who comes is
/// not shown, counted.
pub const PRESENCE_ENTRIES_MAX: usize = 1 << 20;
/// Users that one answer about a topic names; it says how many there are besides.
pub const PRESENCE_USERS_MAX: usize = 10_000;
/// Departures that a topic's home tells in one turn.
pub const TURN_DEPARTURES_MAX: usize = 256;

// --- log and store --------------------------------------------------------------------------------------------

/// Requests waiting for the log thread. Full: shards keep theirs in a backlog, the API answers 429.
pub const LOG_QUEUE_MAX: usize = 8_192;
/// Requests one commit takes together.
pub const LOG_BATCH_MAX: usize = 1_024;
/// Entries after which one commit takes no further request: a group of list pushes must not hold up the others' answers.
pub const LOG_BATCH_ENTRIES_MAX: usize = 16_384;
/// What the reads answered behind one commit may cost, in entries (1,024 bytes count as one more): some 10 ms (an
/// estimate). The others wait for the next commits.
pub const LOG_READ_COST_MAX: usize = 4_096;
/// A commit that takes this long is a fault of the disk: the node says that it is not ready until it is over.
pub const COMMIT_STALL_MAX: Duration = Duration::from_secs(10);
/// Default inbox retention, entries.
pub const INBOX_ENTRIES_MAX: usize = 1_000;
/// Default inbox retention, age.
pub const INBOX_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Default retention of a topic's stream and of `everyone`, entries. The oldest go first, counted, seen as a gap.
pub const TOPIC_ENTRIES_MAX: usize = 10_000;
/// Least retention of a topic's stream and of `everyone`, age: as long as a session may be away, also where
/// `limits.session_expiry_max` is longer.
pub const TOPIC_AGE_MAX: Duration = SESSION_EXPIRY_MAX;
/// Default retention of what is stored for an app's backends, entries. The oldest go first, and a consumer group that
/// has not read them is told how many.
pub const UPSTREAM_ENTRIES_MAX: usize = 1_000_000;
/// Default retention of the same, bytes of what events hold: a million with 256 KiB each would be 256 GB.
pub const UPSTREAM_BYTES_MAX: u64 = 4 << 30;
/// Default retention of the same, age.
pub const UPSTREAM_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// An inbox that has been empty this long is forgotten; the next push begins a new epoch. Longer than any session lives.
pub const INBOX_FORGET_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Topic streams of an app that are forgotten and whose last entries retention took: a store still tells that
/// of so many. The oldest go first; a stream is forgotten when all sessions that could have read it are over, but for
/// those that have been connected and behind for as long.
pub const FORGOTTEN_GAPS_MAX: usize = 65_536;
/// How often the store looks for what is too old, also when nothing is written.
pub const STORE_SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// Streams one such look visits; the next one goes on from there. About 0.1 µs each (an estimate).
pub const STORE_SWEEP_STREAMS_MAX: usize = 512;
/// Entries one read returns at most.
pub const READ_ENTRIES_MAX: usize = 256;
/// Payload bytes with which one read of entries ends, with the entry that reaches them.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// Records one read returns at most.
pub const READ_RECORDS_MAX: usize = 1_024;
/// Pages of records that the log keeps for a moment, so that what every shard reads at start is read once: as far as
/// shards are apart. The oldest go.
pub const LOG_PAGES_MAX: usize = 8;
/// Texts of filters that a start notes so that the sessions it finds share them. Beyond it each session has its own, some
/// 60 bytes.
pub const RESTORED_FILTERS_MAX: usize = 65_536;
/// Bytes of a record's key: a key of the durable store has 16 bits for its length, and one byte before it.
pub const RECORD_KEY_BYTES_MAX: usize = u16::MAX as usize - 1;
/// Format of the data directory. A later one is refused.
pub const STORE_FORMAT: u32 = 1;
/// Threads that write the durable store's tables and merge them: one may merge while the other writes.
pub const STORE_WORKERS: usize = 2;
/// Bytes of the durable store's blocks kept in memory.
pub const STORE_CACHE_BYTES: u64 = 64 << 20;
/// Files of the durable store kept open; part of `FDS_RESERVED`.
pub const STORE_FILES_MAX: usize = 256;
/// Bytes of the newest commits held in memory, besides the journal, before they become a table. Up to four such tables
/// may wait for the disk; then commits wait, the log's queue fills, publishers are not read and the API answers 429.
pub const STORE_MEMORY_TABLE_BYTES: u64 = 32 << 20;
/// Bytes of journals on disk; beyond it tables are written earlier.
pub const STORE_JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// Bytes of the last commits whose numbers are kept, to see holes: more than memory tables can hold.
pub const STORE_CHAIN_BYTES: u64 = 8 * STORE_MEMORY_TABLE_BYTES;
/// Such numbers that one commit removes.
pub const STORE_CHAIN_PRUNED_MAX: usize = 4;
/// Heads of streams kept in memory by the durable store, some 200 bytes each (an estimate). Beyond it those that were
/// not used lately go, and are read again.
pub const STORE_HEADS_MAX: usize = 65_536;
/// Oldest entries of a stream that are looked up together when retention takes some.
pub const STORE_FRONTS_MAX: usize = 64;
/// Entries that an append to a stream, or a sweep's visit, removes of it at most; the rest goes with the next ones.
pub const STORE_TRIM_ENTRIES_MAX: usize = 1_024;
/// Entries one sweep of the durable store removes over all streams.
pub const STORE_SWEEP_ENTRIES_MAX: usize = 2_048;
/// Idempotency keys removed because of their age at a time.
pub const STORE_KEYS_SWEPT_MAX: usize = 256;
/// Payload bytes from which on a list's message is stored once for all its entries; shorter ones cost less as they are.
pub const STORE_SHARED_BYTES_MIN: usize = 64;
/// Messages of lists that readers share, kept in memory.
pub const STORE_SHARED_MESSAGES_MAX: usize = 64;
/// How often the mark of what was committed is synced: a machine that loses power may bring back one this old.
pub const STORE_MARK_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Commits, unlogged messages and list parts a shard has taken in and not yet worked off. Beyond it the shard takes no
/// letters, so its mailbox fills and its senders are slowed down.
pub const INCOMING_MAX: usize = 1_024;
/// Publishes a topic's home holds while unlogged messages are on their way before them. From there on it reads no
/// publisher and answers 429; what others have sent already is bounded by their receive maximum.
pub const HELD_PUBLISHES_MAX: usize = 1_024;
/// Answers of all shards that the control plane has not taken yet, in a queue that is allocated once. Beyond it they
/// wait in their shard, which takes no letters meanwhile.
pub const EVENTS_MAX: usize = 1_024;
/// Hints that a commit has brought something for backends, which the control plane has not taken yet, in a queue that is
/// allocated once. Full: they are missed, and consumers look by themselves (`EVENTS_LOOK_INTERVAL`).
pub const NOTICES_MAX: usize = 1_024;
/// Requests of the control plane that the log has not answered yet, for which the same queue has room of their own.
/// Full: the next ones wait.
pub const UPSTREAM_REQUESTS_MAX: usize = 1_024;
/// Things that happened to a shard's devices, besides publishes, that wait for the log or are with it: some 200 bytes
/// each. Full: the next ones are dropped, counted, and backends are told how many (64 turns' worth of acknowledgements).
pub const UPSTREAM_WAITING_MAX: usize = 65_536;
/// Of these, in one request to the log.
pub const UPSTREAM_APPEND_MAX: usize = 1_024;
/// Devices that one shard's pushes with `wait: delivered` wait for. Full: 429; what was committed meanwhile is answered
/// without waiting, counted.
pub const DELIVERY_WAITS_MAX: usize = 65_536;
/// Inbox entries of the last moments that a session did not get although its position passed them (refused, expired, too
/// large, dropped at QoS 0), kept per shard so that no push is reported as delivered there. The oldest go first: a push
/// asks within a turn or two of its commit.
pub const DELIVERY_SKIPS_MAX: usize = 1_024;
/// Committed entries a shard keeps at hand for sessions that lag a little.
pub const HOT_RING_ENTRIES_MAX: usize = 4_096;
/// Unlogged QoS 1 and 2 messages a shard keeps for sessions whose window is full, and their payload bytes. Beyond
/// either the oldest are dropped for those who have not read them, counted one by one.
pub const LAGGING_MESSAGES_MAX: usize = 4_096;
/// See [`LAGGING_MESSAGES_MAX`].
pub const LAGGING_BYTES_MAX: usize = 16 << 20;
/// Ranges of such messages in the lists of all of a shard's sessions, of 16 bytes each; a session whose messages all
/// follow one another has one. Beyond it, who adds to a longer list loses the oldest of it, counted one by one.
pub const LAGGING_RANGES_MAX: usize = 1 << 20;
/// How long an idempotency key is remembered.
pub const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Rules of `topics.history`, and as many of `topics.presence`: each is looked at for every message of a topic.
pub const TOPIC_RULES_MAX: usize = 64;
/// Most messages a rule of `topics.history` may keep of a topic.
pub const HISTORY_ENTRIES_MAX: usize = 10_000_000;
/// Messages that one page of history has when nobody says how many.
pub const HISTORY_PAGE_DEFAULT: usize = 100;
/// Messages that one page of history has at most; more: 400.
pub const HISTORY_PAGE_MAX: usize = READ_ENTRIES_MAX;
/// Messages that history and the count of unread ones read at a time, so that large ones do not hold up the log.
pub const HISTORY_STEP_ENTRIES: usize = 32;
/// Payload bytes after which a page of history ends, with one message at least: gRPC clients take 4 MiB by default, and
/// base64 makes a third more of it.
pub const HISTORY_PAGE_BYTES_MAX: usize = 2 << 20;
/// Looks at an entry for one device that one step of counting a user's unread messages may take, about 0.1 µs each (an
/// estimate): the more devices, the shorter the pages of the inbox that are read for it.
pub const UNREAD_VISITS_MAX: usize = 8_192;
/// Questions after users whose unread messages a shard is counting. Full: 429.
pub const UNREAD_COUNTS_MAX: usize = 4_096;
/// Idempotency keys remembered over all apps; the oldest go first and are counted.
pub const KEYS_MAX: usize = 1_000_000;

const _: () = assert!(RECEIVE_MAXIMUM_OUT_MAX <= u8::MAX as u16 && RECEIVE_MAXIMUM_IN_MAX as usize <= RECEIVED_IDS_MAX);
const _: () = assert!(RECEIVE_BLOCK_BYTES == BLOCK_CLASSES[2]);
const _: () = assert!(PACKET_BYTES_MAX <= PACKET_BYTES_CEILING);
const _: () = assert!(OUTBOX_CONTROL_BYTES_MAX < OUTBOX_BYTES_MAX);
const _: () = assert!(API_BODY_BYTES_MAX <= API_BODY_BYTES_TOTAL_MAX);
const _: () = assert!(SUB_PACKET_BYTES_MAX as usize == PACKET_BYTES_CEILING);
const _: () = assert!(PUSH_BATCH_MAX <= PENDING_COMMANDS_MAX);
const _: () = assert!(PUSH_BATCH_MAX <= PUSH_STREAM_IN_FLIGHT_MAX);
const _: () = assert!(SHARDS_MAX.is_multiple_of(64) && SHARDS_MAX <= 1 << 16);
const _: () = assert!(FANOUT_BATCH_MAX <= FANOUT_PENDING_MAX && FANOUT_SPARE_MESSAGES_MAX <= FANOUT_PENDING_MAX);
const _: () = assert!(FANOUT_SLICE_VISITS_MAX <= TURN_FANOUT_VISITS_BEHIND_MAX);
const _: () = assert!(TURN_FANOUT_VISITS_BEHIND_MAX < RECEIVES_IN_FLIGHT_MAX);
