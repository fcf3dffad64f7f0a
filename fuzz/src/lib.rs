//! What the targets share: the entries themselves, and of the tests the node in virtual time, its client whose every
//! byte is the fuzzer's, the maker of packets and the other codec.

#![allow(dead_code, missing_docs, reason = "the tests use the rest of it")]

#[path = "../../tests/conformance/client.rs"]
mod client;
#[path = "../entries/mod.rs"]
pub mod entries;
#[path = "../../tests/conformance/node.rs"]
mod node;
#[path = "../../tests/oracle/mod.rs"]
pub mod oracle;
#[path = "../../tests/packets/mod.rs"]
mod packets;
#[path = "../../tests/conformance/websocket.rs"]
mod websocket;
