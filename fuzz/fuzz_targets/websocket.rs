//! Any stream of WebSocket frames, whole and in pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::websocket::stream(bytes));
