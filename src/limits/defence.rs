//! Bounds of rates, bans, overload and slow clients.

use super::*;

// --- rates and bans -------------------------------------------------------------------------------------------

/// Default of `limits.connect_rate`: connections a second of one source, ten seconds' worth of them at once. A company
/// behind one address that comes back after an outage is within it; what floods is not.
pub const CONNECT_RATE: u32 = 1_000;
/// Default of `limits.user_connect_rate`: of one user, likewise. All devices of a user may come back at once.
pub const USER_CONNECT_RATE: u32 = 100;
/// A bucket holds what flows into it in so many seconds, unless it is for publishes.
pub const RATE_BURST_SECONDS: u32 = 10;
/// The same for a connection's publishes and bytes: whoever is over its rate is read on a moment later.
pub const PUBLISH_BURST_SECONDS: u32 = 1;
/// Largest of all rates. Buckets count in nanoseconds.
pub const RATE_MAX: u32 = 1_000_000_000;
/// Sources whose rate one shard knows, of 24 bytes each, taken as they come. Others displace the lightest of eight.
pub const SOURCE_ENTRIES: usize = 1 << 16;
/// Users whose rate one shard knows, likewise. Of a million that come back at once most displace each other, which is
/// all the same: each of them comes once.
pub const USER_ENTRIES: usize = 1 << 12;
/// Topics whose rate one shard knows, where `topics.rate` has a rule, likewise. One that was displaced begins anew with a
/// full bucket.
pub const TOPIC_RATE_ENTRIES: usize = 1 << 16;
/// Seconds of a topic's rate that it takes at once.
pub const TOPIC_BURST_SECONDS: u32 = 1;
/// Users whom one rule of `topics.publishers` names: each is compared at a publish to such a topic.
pub const TOPIC_PUBLISHERS_MAX: usize = 256;
/// Entries of `limits.quotas`: each kind for each app.
pub const QUOTAS_MAX: usize = 4 * APPS_MAX;
/// Offenders whose weight the node knows, likewise.
pub const OFFENDER_ENTRIES: usize = 1 << 14;
/// Entries among which a new one displaces the lightest.
pub const RATE_WAYS: usize = 8;
/// After so long without another offence a weight is half of what it was.
pub const OFFENCE_HALF_LIFE: Duration = Duration::from_secs(60);
/// How often a shard reports offences: so old is what the ban of an offender comes from.
pub const OFFENCES_INTERVAL: Duration = Duration::from_secs(1);
/// Offenders in one such report. More go unreported, counted: who offends most is among the first.
pub const OFFENCES_REPORTED_MAX: usize = 1_024;
/// Default of `limits.ban_weight`: a source that is refused 1,000 times a second is banned after two minutes.
pub const BAN_WEIGHT: u32 = 100_000;
/// What a connection over its rate weighs.
pub const OFFENCE_RATE: u32 = 1;
/// What a token that is not good weighs, or bytes of no protocol, or a handshake of TLS that failed or was not made in
/// time: each costs a verification or a signature, or a place among the guests for as long as it lasts.
pub const OFFENCE_HANDSHAKE: u32 = 10;
/// What a user's connection weighs that was closed because it published too much.
pub const OFFENCE_PUBLISH: u32 = 1_000;
/// Default of `limits.ban_time`: the first ban of an offender. Each further one takes twice as long.
pub const BAN_TIME: Duration = Duration::from_secs(60);
/// Default of `limits.ban_time_max`.
pub const BAN_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// An offender that was not banned again for so long after its ban begins anew.
pub const BAN_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Bans of the node, those that are over and remembered included. Full: of the automatic ones the one that ends first
/// goes; with manual ones alone the next is refused (429).
pub const BANS_MAX: usize = 16_384;
/// Those of ranges that are no single source: each is looked at for every connection.
pub const BANNED_RANGES_MAX: usize = 256;
/// Entries of `limits.allow`.
pub const ALLOWED_RANGES_MAX: usize = 256;
/// Bytes of a manual ban's reason.
pub const BAN_REASON_BYTES_MAX: usize = 256;
// --- overload -------------------------------------------------------------------------------------------------

/// Least of a shard's share of `limits.buffer_bytes`: a frame of the largest size in and one out, with what is kept for
/// receives and control frames, many times over.
pub const POOL_BYTES_MIN: usize = 16 << 20;
/// With less than this part of a shard's bytes left, in sixteenths, messages of QoS 0 go only to connections that have
/// less than an even share waiting.
pub const MEMORY_SPARE_SIXTEENTHS: usize = 6;
/// With less than this, the connections with most waiting are closed.
pub const MEMORY_SLOW_SIXTEENTHS: usize = 4;
/// With less than this, who comes is told to come back later. Two sixteenths are kept for receives and control frames.
pub const MEMORY_GUESTS_SIXTEENTHS: usize = 3;
/// Outboxes looked at to find one with much in it.
pub const SHED_SAMPLE: usize = 32;
/// Places of outboxes looked at for that, empty ones included.
pub const SHED_PLACES: u32 = 1_024;
/// Connections closed in one turn because memory is short.
pub const TURN_SHED_MAX: usize = 4;

/// Sessions looked at in one turn for connections that a new ban ends.
pub const TURN_BAN_SWEEP_MAX: u32 = 4_096;

// --- slow clients ---------------------------------------------------------------------------------------------

/// Messages of QoS 0 that wait for one client (`drop_oldest`, `conflate`), with at most `limits.outbox_bytes`. Full: the
/// oldest goes, counted.
pub const SLOW_SESSION_MESSAGES_MAX: usize = 1_024;
/// The same of all clients of a shard, as references. Full: as `drop_newest`, counted.
pub const SLOW_MESSAGES_MAX: usize = 1 << 19;
/// Their bytes, each counted for every client that it waits for.
pub const SLOW_BYTES_MAX: usize = 128 << 20;
/// Bytes of a push's `collapse`.
pub const COLLAPSE_BYTES_MAX: usize = 256;
