//! Bounds of the control plane: the API, the node and its tools.

use super::*;

// --- API ------------------------------------------------------------------------------------------------------

/// Users of one `users` push.
pub const PUSH_USERS_MAX: usize = 10_000;
/// Pushes of one batch.
pub const PUSH_BATCH_MAX: usize = 1_000;
/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 256;
/// Bytes of one API request body.
pub const API_BODY_BYTES_MAX: usize = 16 << 20;
/// Longest `timeout_ms` of a push.
pub const PUSH_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// A push without `timeout_ms` is answered within this: long enough for a store that stalls on a flush, shorter than
/// what backends' HTTP clients usually wait.
pub const PUSH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Longest `ttl_ms`: MQTT 5 counts message expiry in 32 bits of seconds.
pub const PUSH_TTL_MS_MAX: u64 = u32::MAX as u64 * 1_000;
/// Bytes of a push's content type.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// What an MQTT 5 PUBLISH adds to topic, content type and payload: fixed header 5, lengths 7, packet id 2, expiry 5,
/// a subscription identifier or two; rounded up. A push must fit `limits.packet_bytes` with it.
pub const PUSH_PACKET_OVERHEAD_BYTES: usize = 64;
/// Bytes of all request bodies the API has at hand at a time. Full: 429.
pub const API_BODY_BYTES_TOTAL_MAX: usize = 256 << 20;
/// A request's body must have arrived this long after its head.
pub const API_BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A push that waits for devices is answered by its shard at its timeout; this long after it the API gives up on that.
pub const DELIVERY_ANSWER_GRACE: Duration = Duration::from_secs(2);
/// Bytes of an API key.
pub const API_KEY_BYTES_MAX: usize = 256;
/// Shortest API key in bytes: 16 random letters and digits are 95 bits, beyond guessing.
pub const API_KEY_BYTES_MIN: usize = 16;
/// API keys of a node. Each request is compared with all of them.
pub const API_KEYS_MAX: usize = 256;
/// How far the time of a signed request may be from this machine's: clocks that are set by a network differ by less.
pub const API_SIGNATURE_LEEWAY: Duration = Duration::from_secs(30);
/// Signatures that are remembered, each for as long as it would be good: some 2,000 a second. Full: 429.
pub const API_SIGNATURES_REMEMBERED_MAX: usize = 1 << 18;
/// Bytes of what tells equal signed requests of one second apart.
pub const API_NONCE_BYTES_MAX: usize = 64;
/// Networks of one list of addresses. Each request is compared with all of them.
pub const API_NETWORKS_MAX: usize = 64;
/// A request's head, or the next one of a connection that is kept, must have arrived after this long.
pub const API_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a request's head over HTTP/2.
pub const API_HEAD_BYTES_MAX: u32 = 16 << 10;
/// Calls of one HTTP/2 connection at a time. A client's further calls wait on its side.
pub const API_STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// A silent HTTP/2 connection is asked whether it is there after this long.
pub const API_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// It has this long to answer.
pub const API_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes one HTTP/2 connection may send before they are read, over all its calls and for one of them.
pub const API_WINDOW_BYTES: u32 = 1 << 20;
/// Calls that one HTTP/2 connection may give up within [`API_KEEP_ALIVE`] beyond those that were answered. More: it is closed,
/// for somebody wears us out (CVE-2023-44487).
pub const API_RESETS_MAX: u32 = 1_000;
/// Bytes read from one HTTP/2 connection at a time: more than a frame.
pub const API_READ_BYTES: usize = 32 << 10;
/// Bytes that wait for an HTTP/2 client to read them. More: its calls wait, and it is not read.
pub const API_UNSENT_BYTES_MAX: usize = 64 << 10;
/// How often an HTTP/2 connection is read before others of its thread go first.
pub const API_TURNS_MAX: usize = 32;
/// gRPC calls at a time, streams included. Full: RESOURCE_EXHAUSTED.
pub const GRPC_CALLS_MAX: usize = 4_096;
/// Pushes of one `PushStream` that wait for their results. Full: the stream is not read, so its client waits.
pub const PUSH_STREAM_IN_FLIGHT_MAX: usize = 4_000;
/// A result of a `PushStream` waits at most so long for others to leave with, while more pushes come.
pub const PUSH_STREAM_HOLD: Duration = Duration::from_micros(100);
/// Memory for a message that comes in pieces, which a stream keeps for the next one.
pub const GRPC_PARTIAL_KEPT_BYTES: usize = 64 << 10;
/// Pushes that are handed over before the shards that sleep beside them are woken.
pub const PUSHES_UNRUNG_MAX: u32 = 64;
/// Replies of a stream that wait for its client to read. Full: the stream waits.
pub const GRPC_REPLIES_WAITING_MAX: usize = 8;
/// The newest events of one app that are kept in memory for consumers that keep up. Full: the oldest go, and who has not
/// read them reads them from the store.
pub const EVENTS_RECENT_MAX: usize = 4_096;
/// Bytes of those.
pub const EVENTS_RECENT_BYTES_MAX: usize = 16 << 20;
/// Consumer groups of one app. Full: RESOURCE_EXHAUSTED.
pub const EVENTS_GROUPS_MAX: usize = 64;
/// Filters of one consumer group.
pub const EVENTS_FILTERS_MAX: usize = 64;
/// A consumer group that nobody reads or acknowledges for this long is forgotten.
pub const EVENTS_GROUP_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often groups are looked at for that.
pub const EVENTS_GROUPS_INTERVAL: Duration = Duration::from_secs(60);
/// A consumer without a hint looks into the store after this long: a hint may have been missed.
pub const EVENTS_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A consumer asks a busy store again after this long.
pub const EVENTS_RETRY: Duration = Duration::from_millis(50);
/// How long a request of the control plane waits for the log's answer. Longer: 503.
pub const EVENTS_LOG_TIMEOUT: Duration = Duration::from_secs(10);
/// Events a consumer takes at a time.
pub const EVENTS_READ_MAX: usize = 256;
/// Events of one request of the webhook, by default and at most: what a consumer takes at a time.
pub const WEBHOOK_EVENTS_MAX: usize = EVENTS_READ_MAX;
/// Bytes after which a request of the webhook takes no further event.
pub const WEBHOOK_BYTES_MAX: usize = 1 << 20;
/// Bytes of its answer that are read; nobody looks at them. Longer: the connection is closed.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a backend has for its answer, unless configured.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Before a request is tried again, at first; twice as long after each failure.
pub const WEBHOOK_RETRY_MIN: Duration = Duration::from_millis(200);
/// And at most.
pub const WEBHOOK_RETRY_MAX: Duration = Duration::from_secs(60);
/// How often in a row a backend may find one event's content wrong before it is passed over, counted.
pub const WEBHOOK_REFUSALS_MAX: u32 = 5;
/// How often a health watcher's answer is looked at again.
pub const HEALTH_WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Connections of the API. Full: new ones wait in the kernel's backlog.
pub const API_CONNECTIONS_MAX: usize = 1_024;
/// Commands that wait for their answer from shards. Full: 429.
pub const PENDING_COMMANDS_MAX: usize = 65_536;
/// What a 429 asks its caller to wait, in seconds: queues of this size drain within one.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// A shard that has not answered a question for its figures after this long counts as not working. A turn is
/// bounded to milliseconds, so this is far beyond a busy one.
pub const STATS_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than a canary takes through a log that is merely busy, and shorter than supervisors wait for an answer.
pub const CANARY_TIMEOUT: Duration = Duration::from_secs(5);
/// Users, apps and addresses that are followed in the log. Full: 429.
pub const FOLLOWED_MAX: usize = 16;
/// Longest time for which somebody is followed.
pub const FOLLOW_FOR_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Slowest connections that are listed when nobody says how many.
pub const SLOWEST_DEFAULT: usize = 20;
/// Slowest connections that are listed at most; more: 400.
pub const SLOWEST_MAX: usize = 1_000;
/// A survey of a million sessions takes some hundred turns, each of which may be a long one under load.
pub const SURVEY_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two rounds of figures on `$SYS`; what mosquitto does as well.
pub const SYS_INTERVAL: Duration = Duration::from_secs(10);

// --- the node -------------------------------------------------------------------------------------------------

/// Threads of the control plane's runtime at most: it parses JSON and waits; the cores belong to the shards. Where the
/// process has fewer CPUs there are as many as those: a thread more would be woken for each push, and only take turns.
pub const CONTROL_THREADS_MAX: usize = 2;
/// How often a thread of the control plane that was woken gives way to shards at work: each time lets them use up a
/// [`TIME_SLICE`](super::TIME_SLICE) at least, if they share its CPU.
pub const GIVE_WAY_MAX: u32 = 4;
/// How often who has handed pushes over gives way to shards with enough letters to read: more often, for each time costs it
/// the shortest slice only, and a shard that has just worked for long is not yet entitled to more.
pub const CATCH_UP_MAX: u32 = 16;
/// It does not give way again after so long: somebody else may have had the CPU.
pub const GIVE_WAY_WITHIN: Duration = Duration::from_micros(400);
/// Largest `limits.max_connections`: connection indices have 32 bits and memory ends far below.
pub const NODE_CONNECTIONS_MAX: usize = 100_000_000;
/// Tenants of a node.
pub const APPS_MAX: usize = 1_024;
/// How long a supervisor waits to hear that messages flow, in the unit of `tuning/`: some canaries that are lost in a storm
/// are no reason to cut everybody off.
pub const WATCHDOG: Duration = Duration::from_secs(60);
/// Sockets that the process takes over from whoever started it; more: it does not start.
pub const PASSED_SOCKETS_MAX: u32 = 64;
/// Between two looks whether another process has let go of the data directory.
pub const HAND_OVER_RETRY: Duration = Duration::from_millis(50);
/// Default of `node.drain_timeout`.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// What of it is left to what comes after the shards have drained, at most: requests under way, the log's last commits, and
/// the kernel, which takes some 4 µs to close each connection that was cut.
pub const DRAIN_END: Duration = Duration::from_secs(6);
/// Default of `node.drain_rate`: other nodes take them in as they come, a quarter of what one core accepts.
pub const DRAIN_RATE: usize = 20_000;
/// Requests in flight have this long to end after the shards have drained.
pub const API_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// However little of `node.drain_timeout` is left, threads that have said that they are done have this long to end.
pub const THREADS_END_MIN: Duration = Duration::from_secs(1);
/// File descriptors kept for everything that is not an edge connection: API, store, libraries.
pub const FDS_RESERVED: usize = 1_536;
/// What an idle MQTT connection may take of the process, in bytes (budget M1; measured: 320 to 360).
pub const CONNECTION_USER_BYTES: u64 = 384;
/// What it takes of the kernel: socket, file, wait entry and slot are about 3,930 bytes, packed into slabs 4 % more; up to
/// 4,206 were measured with 200,000.
pub const CONNECTION_KERNEL_BYTES: u64 = 4_224;
/// Memory counted for one connection when the start-up message says how many this machine can hold.
pub const CONNECTION_BYTES_ESTIMATE: u64 = CONNECTION_USER_BYTES + CONNECTION_KERNEL_BYTES;

// --- the doctor -----------------------------------------------------------------------------------------------

/// Connections that `doctor` looks at, and that the files in `tuning/` are made for, when nobody says how many.
pub const DOCTOR_CONNECTIONS: u64 = 1_000_000;
/// Shards that the files in `tuning/` are made for: more than machines with a million connections have cores to spare.
pub const TUNING_SHARDS: u64 = 64;
/// Open files left to everything else on the machine.
pub const FDS_OF_OTHERS: u64 = 65_536;
/// The shortest time after which NATs and balancers are assumed to forget an idle connection.
pub const NAT_IDLE_ASSUMED: Duration = Duration::from_secs(240);

// --- the command line's clients -------------------------------------------------------------------------------

/// `sub` asks for this keep alive.
pub const SUB_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// `sub` waits this long for TCP and CONNACK.
pub const SUB_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest pause of `sub` between two tries to connect; it doubles in between.
pub const SUB_BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Longest packet `sub` takes: the largest `limits.packet_bytes`.
pub const SUB_PACKET_BYTES_MAX: u32 = 1 << 20;
/// Bytes of a PAYLOAD that `push` reads from stdin.
pub const CLI_PAYLOAD_BYTES_MAX: usize = API_BODY_BYTES_MAX / 2;
