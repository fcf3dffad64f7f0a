//! Every bound kittiwake has, with its unit and its reason.
//!
//! A bound that an operator may change is the *default* of a configuration key and says so. All others are fixed.
//! Nothing in the product grows without one of these beside it, and every full thing says what then happens.

use core::time::Duration;

// --- the turn -------------------------------------------------------------------------------------------------

/// Completions handled in one turn. More wait in the driver: a turn must end so that timers and mail get theirs.
pub const TURN_COMPLETIONS_MAX: usize = 4096;
/// Timers expired in one turn; the rest stay due and are taken in the next one.
pub const TURN_EXPIRIES_MAX: usize = 1024;
/// Letters taken from the shard's mailbox in one turn.
pub const TURN_MAIL_MAX: usize = 1024;
/// Subscribers visited by fan-out jobs in one turn. At about 0.3 µs of user space each this keeps a turn's share of
/// fan-out well below the 2 ms that other traffic may wait (an estimate; the flush costs more and is bounded below).
pub const TURN_FANOUT_VISITS_MAX: usize = 256;
/// Wheel tick. Deadlines are kept to this precision; a finer one only costs wake-ups.
pub const TICK: Duration = Duration::from_millis(100);

// --- mail -----------------------------------------------------------------------------------------------------

/// Letters a shard's mailbox holds. When it is full the sender keeps data in its backlog and stops reading the
/// connections that feed it; the control plane answers 429.
pub const MAILBOX_LETTERS_MAX: usize = 16_384;
/// Letters a sender keeps back for one congested target before it stops reading what feeds it.
pub const MAIL_BACKLOG_LETTERS_MAX: usize = 4_096;

// --- blocks and buffers ---------------------------------------------------------------------------------------

/// Sizes of pooled blocks, in bytes, smallest first. 512 holds a partial frame of an idle-ish device, 4,096 one
/// turn's frames of a busy one, 16,384 is the receive block, the last ones hold large frames.
pub const BLOCK_CLASSES: [usize; 6] = [512, 4_096, 16_384, 65_536, 262_144, 1_048_576];
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
/// Default of `limits.outbox_bytes`: data waiting for one connection. Full: the topic's slow-consumer policy.
pub const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Room above `OUTBOX_BYTES_MAX` that only control frames (acknowledgements, PINGRESP, DISCONNECT) may use.
/// Full: the connection is closed, it does not read.
pub const OUTBOX_CONTROL_BYTES_MAX: usize = 16 << 10;

// --- connections ----------------------------------------------------------------------------------------------

/// Unidentified connections one shard holds at a time, as ordinary fds. Beyond it accepting pauses and the kernel's
/// backlog holds the rest.
pub const GUESTS_MAX: usize = 4_096;
/// Slots of one io_uring table: RLIMIT_NOFILE caps it, 20,000 on the machine this was measured on.
pub const RING_SLOTS_MAX: usize = 20_000;
/// CONNECT must have arrived this long after accept.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a close was asked for, the peer has this long to take what is still in its outbox.
pub const LINGER: Duration = Duration::from_secs(5);
/// Keep alive 0 still ends after this long without a byte.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

// --- sessions -------------------------------------------------------------------------------------------------

/// Default `limits.packet_bytes`: a whole MQTT packet. Longer: 0x95 and close.
pub const PACKET_BYTES_MAX: usize = 256 << 10;
/// In-flight QoS 1 and 2 messages towards a client, also for 3.1.1 which cannot say.
pub const RECEIVE_MAXIMUM_OUT: u16 = 32;
/// QoS 1 and 2 messages a client may have unacknowledged towards us. Exceeded: 0x93 (3.1.1: reading pauses).
pub const RECEIVE_MAXIMUM_IN: u16 = 128;
/// Subscriptions a session. Beyond it SUBACK says 0x97 (3.1.1: 0x80).
pub const SUBSCRIPTIONS_MAX: usize = 1_000;
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
/// Longest session expiry granted, also to 3.1.1 sessions with clean session 0.
pub const SESSION_EXPIRY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Devices of one user. Beyond it CONNACK says 0x97.
pub const DEVICES_PER_USER_MAX: usize = 1_000;
/// A lazily written cursor is at most this old.
pub const CURSOR_WRITE_DELAY: Duration = Duration::from_secs(1);

// --- log and store --------------------------------------------------------------------------------------------

/// Requests waiting for the log thread. Full: shards keep theirs in a backlog, the API answers 429.
pub const LOG_QUEUE_MAX: usize = 8_192;
/// Requests one commit takes together.
pub const LOG_BATCH_MAX: usize = 1_024;
/// Default inbox retention, entries.
pub const INBOX_ENTRIES_MAX: usize = 1_000;
/// Default inbox retention, age.
pub const INBOX_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Entries one read returns at most.
pub const READ_ENTRIES_MAX: usize = 256;
/// Committed entries a shard keeps at hand for sessions that lag a little.
pub const HOT_RING_ENTRIES_MAX: usize = 4_096;
/// How long an idempotency key is remembered.
pub const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Idempotency keys remembered by the memory store; the oldest go first and are counted.
pub const KEYS_MAX: usize = 1_000_000;

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
/// Connections of the API. Full: new ones wait in the kernel's backlog.
pub const API_CONNECTIONS_MAX: usize = 1_024;
/// Commands that wait for their answer from shards. Full: 429.
pub const PENDING_COMMANDS_MAX: usize = 65_536;
/// What a 429 asks its caller to wait, in seconds: queues of this size drain within one.
pub const RETRY_AFTER_SECONDS: u32 = 1;
/// A shard that has not answered a question for its figures after this long counts as not working. A turn is
/// bounded to milliseconds, so this is far beyond a busy one.
pub const STATS_TIMEOUT: Duration = Duration::from_secs(2);

// --- the node -------------------------------------------------------------------------------------------------

/// Threads of the control plane's runtime: it parses JSON and waits; the cores belong to the shards.
pub const CONTROL_THREADS: usize = 2;
/// Largest `node.shards`.
pub const SHARDS_MAX: usize = 256;
/// Largest `limits.max_connections`: connection indices have 32 bits and memory ends far below.
pub const CONNECTIONS_MAX: usize = 100_000_000;
/// Tenants of a node.
pub const APPS_MAX: usize = 1_024;
/// Default of `node.drain_timeout`.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests in flight have this long to end after the shards have drained.
pub const API_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// File descriptors kept for everything that is not an edge connection: API, store, libraries.
pub const FDS_RESERVED: usize = 2_048;
/// Memory counted for one connection when the start-up message says how many this machine can hold: about 3.9 KB in
/// the kernel (measured, BUDGETS) and our own, rounded up.
pub const CONNECTION_BYTES_ESTIMATE: u64 = 4_608;

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

const _: () = assert!(RECEIVE_BLOCK_BYTES == BLOCK_CLASSES[2]);
const _: () = assert!(PACKET_BYTES_MAX <= BLOCK_CLASSES[BLOCK_CLASSES.len() - 1]);
const _: () = assert!(OUTBOX_CONTROL_BYTES_MAX < OUTBOX_BYTES_MAX);
const _: () = assert!(API_BODY_BYTES_MAX <= API_BODY_BYTES_TOTAL_MAX);
const _: () = assert!(SUB_PACKET_BYTES_MAX as usize == BLOCK_CLASSES[BLOCK_CLASSES.len() - 1]);
const _: () = assert!(PUSH_BATCH_MAX <= PENDING_COMMANDS_MAX);
