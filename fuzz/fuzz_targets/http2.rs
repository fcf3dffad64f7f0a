//! Frames of an HTTP/2 client.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::http2::frames(bytes));
