//! Owns: the structures everything stands on (slab, nest, row, pieces, parts of a hash table, wheel, block pool, token
//! bucket, plain and short text, secret), ids, the clock's value, the message, and which filter matches which topic.
//! In: plain values. Out: plain values. Must not: know a protocol, a socket, or where a message goes.
//! Invariants: an id taken from a slab is stale for ever once its entry is removed; a block is in exactly one place.

pub mod ascii;
pub mod block;
pub mod bucket;
pub mod bytes;
pub mod clock;
pub mod filter;
pub mod hash;
pub mod ids;
pub mod log;
pub mod message;
pub mod nest;
pub mod parts;
pub mod pieces;
pub mod prefix;
pub mod row;
pub mod secret;
pub mod slab;
pub mod text;
pub mod transform;
pub mod wheel;
