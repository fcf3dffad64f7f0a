//! Any bytes: enough of them decide, and a decision never changes with more.

#![no_main]

use kittiwake::wire::detect::{DETECT_BYTES_MAX, Detected, detect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut decided = Detected::NeedMore;
    for end in 0..=bytes.len() {
        let said = detect(&bytes[..end]);
        assert!(decided == Detected::NeedMore || said == decided);
        assert!(end < DETECT_BYTES_MAX || said != Detected::NeedMore);
        decided = said;
    }
});
