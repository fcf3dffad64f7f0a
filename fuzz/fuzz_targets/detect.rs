//! Any bytes: enough of them decide, and a decision never changes with more.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::decode::detection(bytes));
