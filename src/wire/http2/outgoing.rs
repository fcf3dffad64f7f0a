//! Frames on their way out.

use super::frame::{self, Code, PAYLOAD_BYTES_MAX, StreamId, kind};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// Of these, how many are sent.
    sent: usize,
    /// The latest stream that may be answered, once that was said.
    promised: Option<StreamId>,
}

impl Outgoing {
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So much of it was sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            self.bytes.shrink_to(PAYLOAD_BYTES_MAX);
        }
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: StreamId, payload: &[u8]) {
        frame::put(kind, flags, stream, payload, &mut self.bytes);
    }

    pub(super) fn settings(&mut self, settings: &[(u16, u32)]) {
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.frame(kind::SETTINGS, 0, StreamId::CONNECTION, &payload);
    }

    /// Opens a window of the peer's.
    pub(super) fn window(&mut self, stream: StreamId, bytes: u32) {
        if bytes > 0 {
            self.frame(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
        }
    }

    pub(super) fn reset(&mut self, stream: StreamId, code: Code) {
        self.frame(kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes());
    }

    /// No stream behind `last` is answered; nor behind an earlier one, if that was said before.
    pub(super) fn goaway(&mut self, last: StreamId, code: Code) {
        let last = *self.promised.get_or_insert(last);
        let [last, code] = [last.0, code as u32].map(u32::to_be_bytes);
        self.frame(kind::GOAWAY, 0, StreamId::CONNECTION, &[last, code].concat());
    }
}
