//! Any sequence of operations on a user's sessions.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::session::run(bytes));
