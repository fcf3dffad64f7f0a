//! Frames: nine bytes of head, then a payload (RFC 9113 §4, §6).

/// What a client's connection begins with (§3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 9;
/// Bytes of a payload, both ways: what every peer takes, and what we allow.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;

/// A stream's number, odd for those that clients open; 0 is the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The connection itself.
    pub const CONNECTION: Self = Self(0);
}

/// Why a stream or a connection ended (§7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// It is done.
    NoError = 0,
    /// The peer broke a rule.
    ProtocolError = 1,
    /// We did.
    InternalError = 2,
    /// More was sent than a window held, or a window was opened too wide.
    FlowControlError = 3,
    /// A frame came on a stream that its sender had ended.
    StreamClosed = 5,
    /// A frame's length is wrong.
    FrameSizeError = 6,
    /// It was not begun, and may be sent again.
    RefusedStream = 7,
    /// Nobody wants it any more.
    Cancel = 8,
    /// Header fields that cannot be unpacked.
    CompressionError = 9,
    /// Too much of something that is allowed.
    EnhanceYourCalm = 11,
}

pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

pub(super) mod flag {
    /// Of SETTINGS and PING.
    pub(in super::super) const ACK: u8 = 1;
    /// Of DATA and HEADERS.
    pub(in super::super) const END_STREAM: u8 = 1;
    pub(in super::super) const END_HEADERS: u8 = 4;
    pub(in super::super) const PADDED: u8 = 8;
    pub(in super::super) const PRIORITY: u8 = 0x20;
}

pub(super) mod setting {
    pub(in super::super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in super::super) const ENABLE_PUSH: u16 = 2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in super::super) const MAX_FRAME_SIZE: u16 = 5;
    pub(in super::super) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: StreamId,
}

impl Head {
    pub(super) fn read(bytes: &[u8; HEAD_BYTES]) -> Self {
        let &[a, b, c, kind, flags, d, e, f, g] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // Its first bit is reserved, and says nothing.
            stream: StreamId(u32::from_be_bytes([d & 0x7f, e, f, g])),
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame.
pub(super) fn put(kind: u8, flags: u8, stream: StreamId, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a frame of {} bytes", payload.len());
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.0.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Takes the padding off a payload (§6.1); none: it is longer than the payload.
pub(super) fn unpadded(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.len().checked_sub(usize::from(padding)).map(|length| &rest[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_put() {
        let mut bytes = Vec::new();
        put(kind::DATA, flag::END_STREAM, StreamId(0x0102_0304), &[7; 300], &mut bytes);
        assert_eq!(bytes.len(), HEAD_BYTES + 300);
        let head = Head { length: 300, kind: kind::DATA, flags: 1, stream: StreamId(0x0102_0304) };
        assert_eq!(Head::read(bytes.first_chunk().expect("nine")), head);
        bytes[5] |= 0x80;
        assert_eq!(Head::read(bytes.first_chunk().expect("nine")), head, "the reserved bit says nothing");
    }

    #[test]
    fn padding_is_taken_off_and_may_not_be_all_there_is() {
        let head = Head { length: 0, kind: kind::DATA, flags: flag::PADDED, stream: StreamId(1) };
        assert_eq!(unpadded(head, &[2, 7, 8, 0, 0]), Some(&[7, 8][..]));
        assert_eq!(unpadded(head, &[2, 0, 0]), Some(&[][..]));
        assert_eq!(unpadded(head, &[3, 0, 0]), None);
        assert_eq!(unpadded(head, &[]), None);
        assert_eq!(unpadded(Head { flags: 0, ..head }, &[2, 0]), Some(&[2, 0][..]));
    }
}
