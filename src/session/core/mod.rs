//! Owns: one device's conversation, whatever its protocol: identity, subscriptions, positions, window, settle, will,
//! expiry, records. In: what an adapter understood of a frame, what the shard answers. Out: [`super::Effect`]s.
//! Must not: import `wire`; know a socket, a clock or a random source.
//! Invariants: an identifier names one in-flight message at a time; a position never passes an entry that was neither
//! delivered nor skipped for a counted reason; the durable cursor is the settled prefix.

pub mod aliases;
mod bytes;
pub mod cursor;
pub mod deliver;
pub mod expiry;
pub mod freeze;
mod gap;
mod held;
pub mod own_position;
mod pending;
pub mod protocol;
pub mod record;
pub mod resume;
pub mod retained;
mod rights;
pub mod settle;
pub mod shared;
mod spare;
pub mod state;
pub mod subscriptions;
pub mod text;
pub mod window;

pub use aliases::Naming;
pub use expiry::Close;
pub use own_position::OnlyStream;
pub use protocol::Protocol;
pub use shared::{Claim, RETAIN_AS_PUBLISHED, share_of};
pub use spare::Spare;
pub use state::{Effective, Flight, InFlight, LoggedAt, Offer, Session, Subscription, Text};
