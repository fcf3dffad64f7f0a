//! Records of TLS, and handshakes with bytes changed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::tls::records(bytes));
