//! Any bytes: our codec and the other one agree.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::oracle::judge(bytes));
