//! Owns: Server-Sent Events (WHATWG HTML §9.2): messages → blocks of an event stream, positions ↔ event ids, the head
//! that the stream stands behind.
//! In: a message's parts and where the log has it. Out: bytes appended to the caller's buffer.
//! Must not: know sessions, sockets or clocks.
//! Invariants: whatever a payload or a topic holds, a block ends where we end it and its fields are those we wrote; no
//! allocation but for the room of the caller's buffer.
//!
//! # The stream's form
//! The body ends with the connection: no `Content-Length` and no chunks. So a block is the same bytes for everybody and
//! a fan-out copies it; a proxy that asks in HTTP/1.0, as nginx does unless told otherwise, must not be sent chunks
//! (RFC 9112 §7.1) and reads this; and browsers take it as they take the other.
//!
//! # Files
//! `event` blocks · `id` event ids · `head` the answer's head, and what a preflight is told.

mod event;
mod head;
mod id;

pub use event::{EventLayout, Farewell, Format, Gap, Lost, Mark, Stream, encode_id, encode_payload};
pub use event::{HEARTBEAT, encode_farewell, encode_gap, encode_position, encode_retry, write_gap};
pub(super) use head::encode_origin;
pub use head::{encode_head, encode_preflight};
pub use id::{EventId, TOKEN_BYTES, Token};
