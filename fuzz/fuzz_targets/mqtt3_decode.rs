//! Any bytes of an MQTT 3.1.1 connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::decode::mqtt(
    kittiwake::wire::mqtt::Version::V311,
    bytes
));
