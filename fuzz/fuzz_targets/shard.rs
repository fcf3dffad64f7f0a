//! Any bytes of several connections to a whole node.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::shard::run(bytes));
