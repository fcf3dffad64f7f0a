//! Any bytes of an HTTP request's head.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::http::head(bytes));
