//! Owns: TLS 1.2 and 1.3 over rustls' unbuffered interface: what a server or a client is, records in, records out.
//! In: bytes. Out: plain bytes in place, records. Must not: know sockets, clocks or files; keep bytes of a peer.
//! Invariants: records are made in the order in which they leave; whatever a peer sends, the answer is a value and never
//! a panic; a connection at rest keeps its keys and no buffer: a part of a record stays with who received it.
//!
//! # Files
//! [`Session`] one connection's end · [`Layers`] it as the engine's transform, with WebSocket above it · [`Identity`]
//! what a server shows, asks for and remembers · `tickets` resumption without a memory · `names` who a certificate names.
//!
//! rustls allocates for each record in either direction; tests/alloc.rs holds how often.

mod client;
mod identity;
mod layers;
mod names;
mod session;
#[cfg(test)]
mod tests;
mod tickets;

pub use client::{Client, Trust};
pub use identity::{Identity, IdentityError, Pair, Peers, Server};
pub use layers::Layers;
pub use names::NameFrom;
pub use session::{Heard, Session};
pub use tickets::{TICKET_KEY_BYTES, TicketKey, Tickets};

use std::sync::Arc;

/// The first byte of a connection that speaks TLS: content type `handshake`, RFC 8446 §5.1.
pub const HANDSHAKE: u8 = 22;
/// A plain alert (RFC 8446 §6.2) for a peer that is refused before anything is agreed: `internal_error`.
pub const REFUSAL: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// The cryptography, one for all that speak TLS here.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
