//! A second opinion: one delivery in a thousand is decoded by mqtt-protocol-core too, and must say the same.

use kittiwake::wire::mqtt::{Publish, Version};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};

/// One in so many is looked at.
const SAMPLE: u64 = 1_000;

/// What the other codec made of the sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oracle {
    seen: u64,
    pub checked: u64,
    pub differing: u64,
}

impl Oracle {
    /// Looks at a delivery, if it is one of the sample.
    #[inline]
    pub fn look(&mut self, version: Version, frame: &[u8], ours: &Publish<'_>) {
        self.seen += 1;
        if self.seen % SAMPLE == 1 {
            self.check(version, frame, ours);
        }
    }

    #[cold]
    fn check(&mut self, version: Version, frame: &[u8], ours: &Publish<'_>) {
        self.checked += 1;
        if !agrees(version, frame, ours) {
            self.differing += 1;
        }
    }
}

fn agrees(version: Version, frame: &[u8], ours: &Publish<'_>) -> bool {
    // The other codec takes the flags and what follows the remaining length, which has one to four bytes.
    let Some(length_bytes) = frame[1..].iter().take(4).position(|byte| byte & 0x80 == 0) else { return false };
    let (flags, body) = (frame[0] & 0x0f, std::sync::Arc::<[u8]>::from(&frame[length_bytes + 2..]));
    // Both versions have types of their own, with the same methods.
    macro_rules! same {
        ($parsed:expr) => {
            $parsed.is_ok_and(|(theirs, used)| {
                used == body.len()
                    && theirs.topic_name() == ours.topic
                    && theirs.payload().as_slice() == ours.payload
                    && theirs.qos() as u8 == ours.qos as u8
                    && theirs.packet_id() == ours.packet_id.map(core::num::NonZeroU16::get)
                    && theirs.retain() == ours.retain
                    && theirs.dup() == ours.dup
            })
        };
    }
    match version {
        Version::V311 => same!(v3_1_1::Publish::parse(flags, body.clone())),
        Version::V5 => same!(v5_0::Publish::parse(flags, body.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::squad::publish;
    use kittiwake::base::ids::Qos;
    use kittiwake::wire::mqtt::Encode;

    #[test]
    fn the_other_codec_agrees_and_notices_a_difference() {
        let cases = [(Qos::AtMostOnce, 16), (Qos::AtLeastOnce, 300), (Qos::ExactlyOnce, 20_000)];
        for ((qos, bytes), version) in cases.into_iter().flat_map(|case| [(case, Version::V311), (case, Version::V5)]) {
            let payload = vec![7; bytes];
            let ours = publish("a/b", qos, 41, &payload);
            let mut frame = Vec::new();
            ours.encode_to(version, &mut frame);
            assert!(agrees(version, &frame, &ours));
            let last = frame.len() - 1;
            frame[last] ^= 1;
            assert!(!agrees(version, &frame, &ours));
        }
    }
}
