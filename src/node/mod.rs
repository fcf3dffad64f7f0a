//! Owns: the process: the command line, the doctor, wiring of data plane and API, the control plane's runtime, signals,
//! drain.
//! In: arguments, environment, signals. Out: an exit code: 0 clean, 1 runtime failure, 2 bad usage or configuration.
//! Must not: hold logic of its own about messages, sessions or requests.
//! Invariants: nothing is started before the configuration is valid; a stop refuses new work first, then closes
//! connections, then ends requests, then threads; every error a person causes is one line on stderr.

mod api_server;
mod banner;
mod capacity;
pub mod cli;
mod dispatcher;
mod doctor;
mod give_way;
mod hook;
mod http2;
mod key;
mod listener;
mod plane;
mod push_client;
mod secured;
mod serve;
mod sub;
mod sub_stream;
mod sub_websocket;
mod subscriber;
mod supervisor;
mod token;
mod verifier;
