//! Owns: connections: their table, the turn, intake and outbox, their lifecycle, and shard mail.
//! In: completions of a [`crate::io::Driver`], letters. Out: calls of a `Handler`.
//! Must not: know a protocol, a session or a topic.
