//! Owns: the joining of io, engine, wire, session, router and store on one thread.

pub mod command;
