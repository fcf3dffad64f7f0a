//! Owns: topics → subscribers: the filters of one shard and who subscribes through them, which shards are interested in
//! a topic, what is retained of it and who is in it (asked at its home), and the fan-out job that carries messages to
//! subscribers a bounded step at a time.
//! In: filters and topics that [`filter::check_filter`] and [`filter::check_topic`] accepted, sessions as `u32`
//! indices, messages as opaque handles. Out: matched filters, interested shards, visits.
//! Must not: know what a session is, read a payload, or do anything with a message but hand it on.
//! Invariants: a filter exists exactly as long as somebody needs it, and with it its trie nodes; a position in a
//! filter's list changes only when the caller is told so, and never while a fan-out pass is on that list; a subscriber
//! that is there for a whole pass is visited exactly once on its list, and none is visited after it unsubscribed.

pub mod fanout;
pub mod filter;
mod filters;
pub mod interest;
pub mod presence;
pub mod retained;
pub mod share;
pub mod subscribers;
mod trie;

pub use filters::FilterId;

/// The list of all sessions of an app that have an `$inbox` filter. A client can neither subscribe nor publish under
/// this name, since MQTT forbids U+0000 [MQTT-1.5.4-2], and no wildcard matches it.
pub const EVERYONE: &str = "\u{0}everyone";
