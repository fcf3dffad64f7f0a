//! Any bytes as a token: none is good but what was signed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::token::check(bytes));
