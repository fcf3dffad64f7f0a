//! Owns: WebSocket (RFC 6455): the handshake, frames both ways, and the layer that carries another protocol's bytes.
//! In: bytes, unmasked where they lie. Out: payload moved together at the front, [`Event`]s; frame heads; packed messages.
//! Must not: know a socket, a clock, a session or what the payload means.
//! Invariants: a frame's head is checked wholly before a byte of its payload is handed on; text is UTF-8 as far as it
//! has been handed on; an idle connection has 12 bytes of state, and half a head or half a control frame stays where
//! it was received; of extensions permessage-deflate alone is ever agreed to (RFC 7692), without context takeover, so
//! reserved bits are wrong but for its own; a packed message is unpacked when it is whole, and never beyond a bound.
//!
//! # Files
//! `handshake` from request to 101 · `extension` what is packed · `frame` heads · `reader` the order of frames · `utf8`
//! text in pieces · `deflate` messages packed and unpacked · `close` codes · [`client`] the handshake's other side ·
//! `carrier` the transform that stands between a connection and the protocol that it carries.

mod carrier;
pub mod client;
mod close;
mod deflate;
mod extension;
mod frame;
mod handshake;
mod reader;
mod utf8;

pub use carrier::Carrier;
pub use close::CloseCode;
pub use deflate::{Deflater, Inflated, Inflater, WINDOW_BITS_MAX, WINDOW_BITS_MIN, fits_window};
pub use extension::Agreement;
pub use frame::{
    CONTROL_BYTES_MAX, FrameHead, HEAD_BYTES_MAX, Opcode, apply_mask, decode_head, encode_head, encode_packed_head,
};
pub use handshake::{Offer, Refusal, accept_value, key_is_valid};
pub use reader::{Control, Event, Kind, Reader, Role, Rules, Violation};
pub use utf8::Utf8;
