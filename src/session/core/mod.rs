//! Owns: one device's conversation, whatever its protocol: identity, subscriptions, positions, window, settle, will,
//! expiry, records. In: what an adapter understood of a frame, what the shard answers. Out: [`super::Effect`]s.
//! Must not: import `wire`; know a socket, a clock or a random source.
//! Invariants: an identifier names one in-flight message at a time; a position never passes an entry that was neither
//! delivered nor skipped for a counted reason; the durable cursor is the settled prefix.

pub mod state;

pub use state::{Close, Effective, InFlight, LoggedAt, Offer, Session, Subscription};
