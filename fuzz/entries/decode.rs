//! Any bytes as a stream of MQTT: the decoder answers with a value, and what it took can be written and read again.

use kittiwake::limits::PACKET_BYTES_MAX;
use kittiwake::session::mqtt::{Greeting, greet};
use kittiwake::wire::detect::{DETECT_BYTES_MAX, Detected, detect};
use kittiwake::wire::mqtt::{Encode, FrameLen, Packet, Version, decode, frame_len};

/// Of a connection that speaks `version`.
pub fn mqtt(version: Version, bytes: &[u8]) {
    let mut left = bytes;
    while let Ok(FrameLen::Known { total_bytes, .. }) = frame_len(left, PACKET_BYTES_MAX) {
        let Some((frame, rest)) = left.split_at_checked(total_bytes) else { break };
        if let Ok(packet) = decode(version, frame) {
            let own = if let Packet::Connect(connect) = packet { connect.version } else { version };
            let mut again = Vec::new();
            packet.encode_to(own, &mut again);
            assert_eq!(again.len(), packet.encoded_len(own));
            assert_eq!(decode(own, &again), Ok(packet));
        }
        left = rest;
    }
}

/// A guest's first bytes: they are a CONNECT, refused, or not enough, and more of them do not change that.
pub fn greeting(bytes: &[u8]) {
    let mut said = None;
    for end in 0..=bytes.len().min(600) {
        let now = match greet(&bytes[..end], PACKET_BYTES_MAX) {
            Greeting::NeedMore => {
                assert!(said.is_none(), "what was decided stays");
                continue;
            }
            Greeting::Connect(request, taken) => {
                assert!(taken <= end);
                (Some(request), taken, Vec::new())
            }
            Greeting::Refuse { frames, .. } => (None, 0, frames),
        };
        assert!(said.is_none_or(|said| said == now), "what was decided stays");
        said = Some(now);
    }
}

/// Enough bytes decide, and a decision never changes with more.
pub fn detection(bytes: &[u8]) {
    let mut decided = Detected::NeedMore;
    for end in 0..=bytes.len() {
        let said = detect(&bytes[..end]);
        assert!(decided == Detected::NeedMore || said == decided);
        assert!(end < DETECT_BYTES_MAX || said != Detected::NeedMore);
        decided = said;
    }
}
