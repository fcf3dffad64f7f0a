//! What MQTT and our own contract say, one sentence a test: a node in virtual time, clients whose every byte is the
//! test's. A name that begins with a clause is that clause's test.

mod bad_input;
mod client;
mod draining;
#[path = "../event_stream/mod.rs"]
mod event_stream;
mod flows;
mod gaps;
mod http;
mod inbox;
mod limits;
mod node;
mod operators;
mod sessions;
mod sse;
mod subscriptions;
mod topics;
mod websocket;
mod wills;
