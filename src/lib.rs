//! kittiwake: a push gateway that holds millions of long connections on one machine and delivers what backends hand it.
//!
//! The modules, in reading order; imports point down the layers only (`tests/tidy.rs` holds the table):
//!
//! | layer | module | owns |
//! |---|---|---|
//! | 0 | [`limits`] | every bound |
//! | 0 | [`base`] | wheel, slab, block pool, ids, clock, the message |
//! | 1 | [`io`] | drivers: io_uring, epoll, simulated |
//! | 1 | [`auth`] | who somebody is, what they may do |
//! | 1 | [`wire`] | bytes ↔ frames |
//! | 2 | [`engine`] | connections, the turn, mail |
//! | 2 | [`session`] | one device's conversation |
//! | 2 | [`router`] | topics → subscribers, fan-out |
//! | 2 | [`store`] | the log thread and its store |
//! | 3 | [`shard`] | joins them all on one thread |
//! | 4 | [`push`] | the API that backends call |
//! | 4 | [`admin`] | health and figures |
//! | 5 | [`config`] | file, environment and flags → validated plain data |
//! | 5 | [`node`] | wiring, signals, drain, the command line |

pub mod limits;

pub mod auth;
pub mod base;
pub mod io;
pub mod wire;

pub mod engine;
pub mod router;
pub mod session;
pub mod store;

pub mod shard;

pub mod admin;
pub mod push;

pub mod config;
pub mod node;
