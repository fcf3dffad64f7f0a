//! Any bytes of a guest: what is said of the start stays said.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::decode::greeting(bytes));
