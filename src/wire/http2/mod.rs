//! Owns: HTTP/2 (RFC 9113) as a server speaks it: frames, streams, both windows, header fields (RFC 7541).
//! In: bytes in whatever pieces; what is to be answered. Out: [`Event`]s that borrow what was received; bytes for the peer.
//! Must not: know a socket, a clock, what a request means or who answers it.
//! Invariants: a peer sends no more than its windows hold, nor do we; what is asked of a stream that has ended is nothing;
//! after a fault nothing is read, and the last bytes say why; a frame of data costs no memory.
//!
//! # Files
//! `frame` heads and their kinds · `hpack` header fields, `huffman` their strings · `head` a request's, checked · `window`
//! how much may be sent · `outgoing` frames on their way out · [`Connection`] the order of frames, and what becomes of a stream.

mod connection;
mod frame;
mod head;
mod hpack;
mod huffman;
mod outgoing;
#[cfg(test)]
mod tests;
mod window;

pub use connection::{Bounds, Connection, Event};
pub use frame::{Code, PREFACE, StreamId};
pub use head::RequestHead;
