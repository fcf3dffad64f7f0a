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
/// Settled entries a session remembers because an earlier one is not settled. Full: it pulls no further until that
/// one is, and is counted as stalled.
pub const SETTLED_MARKS_MAX: usize = 256;
/// QoS 2 identifiers a 3.1.1 client, which knows no receive maximum, may hold without PUBREL. Exceeded: closed.
pub const RECEIVED_IDS_MAX: usize = 1_024;
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

const _: () = assert!(RECEIVE_BLOCK_BYTES == BLOCK_CLASSES[2]);
const _: () = assert!(PACKET_BYTES_MAX <= BLOCK_CLASSES[BLOCK_CLASSES.len() - 1]);
const _: () = assert!(OUTBOX_CONTROL_BYTES_MAX < OUTBOX_BYTES_MAX);
