//! Owns: heads of HTTP/1 requests, and small complete answers.
//! In: bytes. Out: a borrowed [`Head`]; answers written into the caller's buffer.
//! Must not: know paths, sockets or sessions; read a body.
//! Invariants: a head is bounded in bytes, in its target and in its headers before it is looked at; one that is handed
//! out has at most one `Host` and no body, so that what follows it is never taken for something it is not.
//!
//! # Files
//! `head` the request · `query` its parameters · `origin` whether a web page may connect · `answer` what is said back.

mod answer;
mod head;
mod origin;
mod query;

pub use answer::{Problem, Status};
pub use head::{Head, HeadError, parse};
pub use origin::{OriginError, Origins};
pub use query::{BadQuery, Query};
