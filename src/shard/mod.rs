//! Owns: the joining of io, engine, wire, session, router and store on one thread: a shard, and the node's data plane
//! made of them.
//! In: bytes of devices by the engine, letters, commands. Out: frames, letters, [`command::Event`]s.
//! Must not: block, lock, read a clock, know tokio.
//! Invariants: nothing that is logged is sent before its commit; what came for sessions is worked off in the order of
//! its coming; a publisher whose message finds no room is not read until there is some.
//!
//! # Files, in the order in which a message passes them
//! `launch` threads and mailboxes · `gateway` the engine's calls and letters, dispatched · `http` a guest's first bytes
//! and requests · `doors` what its listener asks of it first, TLS and the PROXY protocol · `limiting`, `banning` who
//! may come in and how much it may say · `quotas` what apps may have · `websocket` its beginning and end · `authenticate` tokens · `connect` from
//! accept to an open session · `inbound` bytes to frames to sessions · `apply` what sessions ask for · `publish` a
//! topic's home · `turning` its order · `push` the control plane's messages · `log_port`, `done` requests to the log
//! and their answers · `incoming` what came for sessions · `fanout` topics · `inbox` users · `flavours`, `outbound`
//! frames into outboxes · `deflating` packed ones · `gaps` what retention took · `lagging`, `unsent`, `slow` what waits for a window or an outbox
//! · `waits` pushes that wait for devices · `subscribe` interest · `retained` what is kept for who subscribes ·
//! `share`, `share_member`, `share_record` share groups · `jobs` the rest of the turn · `unwritten` what it writes lazily · `restore` at start ·
//! `event_stream`, `poll` what only they need · `admin`, `connections`, `census`, `stats`, `draining`, `diary`, `story` the operator ·
//! `watching`, `upstream` what backends are told of devices · `history`, `unread` what streams hold for who asks ·
//! `presence` who subscribes to a topic · `questions` the same for devices · `failpoint` the end of a debug build at a
//! durable point.

mod admin;
mod apply;
mod authenticate;
mod banning;
mod census;
pub mod command;
mod committing;
mod connect;
mod connections;
mod deflating;
mod diary;
mod done;
mod doors;
mod draining;
mod event_stream;
#[cfg(debug_assertions)]
mod failpoint;
mod fanout;
mod flavours;
mod gaps;
mod gateway;
pub mod handle;
mod history;
mod home;
mod http;
mod inbound;
mod inbox;
mod incoming;
mod jobs;
mod lagging;
pub mod launch;
mod letter;
mod limiting;
mod log_port;
mod outbound;
mod poll;
mod presence;
mod publish;
mod push;
mod questions;
mod quotas;
mod restore;
mod retained;
pub mod settings;
mod share;
mod share_member;
mod share_record;
mod slow;
mod stats;
pub mod story;
mod subscribe;
mod turning;
mod unread;
mod unsent;
mod unwritten;
pub mod upstream;
mod waits;
mod watching;
mod websocket;

pub use handle::Handle;
pub use launch::{Data, Running, StartError, start};
pub use quotas::Quota;
pub use settings::{
    Defence, Door, Enforce, HistoryRule, Limits, OverPublish, Protocols, RateRule, Settings, SlowPolicy, SlowRule,
    TlsUse, TopicRules,
};
