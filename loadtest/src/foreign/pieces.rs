//! What several protocols are cut into: lines, and frames of a server's WebSocket.

use kittiwake::wire::websocket::{Opcode, decode_head};

/// Longest line of a text protocol: NATS's INFO is the longest here.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Longest frame that is taken.
const FRAME_BYTES_MAX: u64 = 1 << 20;

/// The line at the start, without its end, and its length with it; none while it is not whole. Wrong if it never ends.
pub fn line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, String> {
    match bytes.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => Ok(Some((&bytes[..at], at + 2))),
        None if bytes.len() > LINE_BYTES_MAX => Err("a line without an end".to_owned()),
        None => Ok(None),
    }
}

/// A whole frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: Opcode,
    pub payload: &'a [u8],
    /// Its length with its head.
    pub bytes: usize,
}

/// The frame at the start; none while it is not whole. These servers neither mask nor split what is short.
pub fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let Some(head) = decode_head(bytes).map_err(|violation| format!("{violation:?}"))? else { return Ok(None) };
    if head.mask.is_some() || !head.fin || head.payload > FRAME_BYTES_MAX {
        return Err("a frame that is masked, split or too long".to_owned());
    }
    let end = head.bytes + usize::try_from(head.payload).map_err(|error| error.to_string())?;
    let payload = bytes.get(head.bytes..end);
    Ok(payload.map(|payload| Frame { opcode: head.opcode, payload, bytes: end }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_their_end_and_not_before() {
        assert_eq!(line(b"+OK\r"), Ok(None));
        assert_eq!(line(b"+OK\r\nPING\r\n"), Ok(Some((&b"+OK"[..], 5))));
        assert!(line(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn frames_are_whole_or_not_there() {
        let whole = b"\x82\x03abc";
        for end in 0..whole.len() {
            assert_eq!(frame(&whole[..end]), Ok(None));
        }
        assert_eq!(frame(whole), Ok(Some(Frame { opcode: Opcode::Binary, payload: b"abc", bytes: 5 })));
        for wrong in [&b"\x82\x83\0\0\0\0abc"[..], b"\x02\x03abc", b"\x82\x7f\0\0\0\0\0\x20\0\0"] {
            assert!(frame(wrong).is_err());
        }
    }
}
