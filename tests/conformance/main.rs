//! What MQTT and our own contract say, one sentence a test: a node in virtual time, clients whose every byte is the
//! test's. A name that begins with a clause is that clause's test.

mod bad_input;
mod bounds;
mod clauses;
mod client;
mod defence;
mod delivered;
mod delivery;
mod draining;
#[path = "../event_stream/mod.rs"]
mod event_stream;
mod explained;
mod flows;
mod gaps;
mod greetings;
mod history;
mod http;
mod inbox;
mod limits;
mod node;
mod operators;
mod poll;
mod presence;
mod properties;
mod questions;
mod quotas;
mod retained;
mod secured;
mod sessions;
mod shared;
mod shared_twice;
mod slow;
mod sse;
mod stories;
mod subscriptions;
mod tokens;
mod topics;
mod turns;
mod unaltered;
mod watching;
mod websocket;
#[path = "websocket/carried.rs"]
mod websocket_carried;
#[path = "websocket/ending.rs"]
mod websocket_ending;
#[path = "websocket/opening.rs"]
mod websocket_opening;
#[path = "websocket/packed.rs"]
mod websocket_packed;
mod wills;
