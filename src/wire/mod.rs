//! Owns: bytes ↔ frames. In: bytes. Out: borrowed views; encoders write into the caller's buffer.
//! Must not: know sockets, clocks or sessions.
//! Invariants: no allocation in decoding or encoding frames (TLS records excepted, see `tls`, and HTTP/2's header
//! fields, see `http2`); a view is validated
//! wholly before it is handed out; whatever a peer sent, the answer is a value and never a panic.

pub mod detect;
pub mod http;
pub mod http2;
pub mod json;
pub mod mqtt;
pub mod poll;
pub mod proxy;
pub mod sse;
pub mod tls;
pub mod websocket;
