//! Any bytes, in both versions: the decoder answers with a value, and what it took can be written and read again.

#![no_main]

use kittiwake::limits::PACKET_BYTES_MAX;
use kittiwake::wire::mqtt::{Encode, FrameLen, Packet, Version, decode, frame_len};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for version in [Version::V311, Version::V5] {
        let mut left = bytes;
        while let Ok(FrameLen::Known { total_bytes, .. }) = frame_len(left, PACKET_BYTES_MAX) {
            let Some((frame, rest)) = left.split_at_checked(total_bytes) else { break };
            if let Ok(packet) = decode(version, frame) {
                let own = if let Packet::Connect(connect) = packet { connect.version } else { version };
                let mut again = Vec::new();
                packet.encode_to(own, &mut again);
                assert_eq!(decode(own, &again), Ok(packet));
            }
            left = rest;
        }
    }
});
