//! Any bytes of an MQTT 5.0 connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kittiwake_fuzz::entries::decode::mqtt(
    kittiwake::wire::mqtt::Version::V5,
    bytes
));
