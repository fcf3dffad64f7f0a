//! The order of frames: fragments of one message, control frames between them, the end.
//!
//! ```text
//!            text or binary, not fin                 continuation, not fin
//!   ┌─────────────────────────────────► in a message ────────────┐
//!   │                                       │   ▲ ───────────────┘
//!  between ◄────────────────────────────────┘
//!   │  ▲        continuation, fin                     ping, pong: anywhere
//!   └──┘  text or binary, fin                         close: anywhere, and nothing after it
//! ```

use super::close::CloseCode;
use super::frame::{CONTROL_BYTES_MAX, FrameHead, Opcode, apply_mask, decode_agreed_head};
use super::utf8::Utf8;
use crate::base::transform::Passage;

/// Which end of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its peer masks.
    Server,
    /// Its peer does not.
    Client,
}

/// What a reader takes; the same in every call for a connection, but for the room that is left.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Which end reads.
    pub role: Role,
    /// Whether messages of text are taken.
    pub text: bool,
    /// Longest payload of a frame; at most 4 GiB − 1.
    pub frame_bytes_max: u32,
    /// Longest message, for a caller who gathers each at the front of the bytes; none where messages mean nothing.
    pub message_bytes_max: Option<u32>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All that can be; the rest stays until more has come.
    NeedMore,
    /// The last byte of a message.
    Message(Kind),
    /// The last byte of a packed message, which lies before `at.write` ([`Passage::packed`]): it is to be taken from
    /// there before more is read.
    Packed(Kind),
    /// To be answered with a pong of the same payload.
    Ping(Control),
    /// An answer to a ping, or one that nobody asked for (§5.5.3).
    Pong(Control),
    /// The peer ends: to be answered, then nothing more is read. The frame itself stays unread, so a caller who is not
    /// done with what came before reads it again later.
    Close(Option<CloseCode>),
}

/// The payload of a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: u8,
}

impl Control {
    /// It.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// How a peer broke the rules. Where it did, reading stops for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Reserved bits are set and no extension was agreed to (§5.2).
    ReservedBits,
    /// An opcode that means nothing (§5.2).
    ReservedOpcode,
    /// A control frame in fragments (§5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes (§5.5).
    ControlTooLong,
    /// A length of 2⁶³ or more (§5.2).
    Length,
    /// A length in more bytes than it needs (§5.2).
    LengthNotMinimal,
    /// A client that does not mask, or a server that does (§5.1).
    Masking,
    /// A continuation of nothing (§5.4).
    Continuation,
    /// A message inside a message (§5.4).
    Interleaved,
    /// A close frame whose code is cut off or may not be sent (§5.5.1, §7.4).
    CloseCode,
    /// Text, or a reason to close, that is no UTF-8 (§8.1).
    Utf8,
    /// Text, where only bytes are taken.
    Text,
    /// A frame or a message longer than is taken.
    TooBig,
    /// A packed message that cannot be unpacked (RFC 7692 §7.2.2).
    Unpackable,
}

impl Violation {
    /// The code that tells the peer.
    pub fn code(self) -> CloseCode {
        match self {
            Self::Utf8 | Self::Unpackable => CloseCode::INVALID,
            Self::Text => CloseCode::UNSUPPORTED,
            Self::TooBig => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Where a connection's incoming stream is.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Payload of the data frame under way that has not come.
    remaining: u32,
    /// Its key, turned to the next byte.
    mask: [u8; 4],
    utf8: Utf8,
    /// Of the message under way.
    kind: Option<Kind>,
    /// The frame under way is its message's last.
    fin: bool,
    packing: Packing,
}

/// Whether messages may be packed, and the one under way is; and what was agreed for the other direction, which is kept
/// here because a byte was free here.
#[derive(Clone, Copy, Debug, Default)]
struct Packing(u8);

impl Packing {
    const AGREED: u8 = 0x80;
    const UNDER_WAY: u8 = 0x40;
    const WINDOW_BITS: u8 = 0x0F;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

impl Reader {
    /// For a connection whose messages may be packed both ways; ours with a window of at most `window_bits`, up to 15.
    pub fn packing(window_bits: u8) -> Self {
        let packing = Packing(Packing::AGREED | window_bits & Packing::WINDOW_BITS);
        Self { packing, ..Self::default() }
    }

    /// The window of what may be packed for the peer; none: nothing may.
    pub fn window_bits(&self) -> Option<u8> {
        self.packing.has(Packing::AGREED).then_some(self.packing.0 & Packing::WINDOW_BITS)
    }

    /// Reads on in `bytes`, from `at.read`: payload of messages is unmasked and moved to `at.write`, heads and control
    /// frames are left out. Stops at the first thing to be told.
    pub fn read(&mut self, bytes: &mut [u8], at: &mut Passage, rules: &Rules) -> Result<Event, Violation> {
        loop {
            if self.remaining > 0 {
                self.pass(bytes, at)?;
                if self.remaining > 0 {
                    return Ok(Event::NeedMore);
                }
                if let Some(event) = self.frame_ends()? {
                    return Ok(event);
                }
            }
            let unread = &bytes[at.read..];
            let head = match decode_agreed_head(unread, self.packing.has(Packing::AGREED)) {
                Ok(Some(head)) => head,
                Ok(None) => return self.check_start(unread, rules).map(|()| Event::NeedMore),
                // What the first two bytes show is told before what the length behind them does.
                Err(why @ (Violation::Length | Violation::LengthNotMinimal)) => {
                    return Err(self.check_start(unread, rules).err().unwrap_or(why));
                }
                Err(why) => return Err(why),
            };
            self.check(&head, at, rules)?;
            if head.opcode.is_control() {
                let Some(control) = control(&unread[head.bytes..], &head) else { return Ok(Event::NeedMore) };
                if head.opcode == Opcode::Close {
                    return close_code(control.bytes()).map(Event::Close);
                }
                at.read += head.bytes + usize::from(control.len);
                return Ok(if head.opcode == Opcode::Ping { Event::Ping(control) } else { Event::Pong(control) });
            }
            at.read += head.bytes;
            self.frame_begins(&head);
            if self.remaining == 0
                && let Some(event) = self.frame_ends()?
            {
                return Ok(event);
            }
        }
    }

    /// Whether a message is under way.
    pub fn is_in_message(&self) -> bool {
        self.kind.is_some()
    }

    /// Whether it is packed.
    pub fn is_packed(&self) -> bool {
        self.packing.has(Packing::UNDER_WAY)
    }

    fn frame_begins(&mut self, head: &FrameHead) {
        match head.opcode {
            Opcode::Text => self.kind = Some(Kind::Text),
            Opcode::Binary => self.kind = Some(Kind::Binary),
            _ => {}
        }
        if head.packed {
            self.packing.0 |= Packing::UNDER_WAY;
        }
        self.fin = head.fin;
        self.mask = head.mask.unwrap_or_default();
        self.remaining = u32::try_from(head.payload).expect("the rules bound a frame by a u32");
    }

    /// Passes on what is there of the frame under way.
    fn pass(&mut self, bytes: &mut [u8], at: &mut Passage) -> Result<(), Violation> {
        let there = bytes.len() - at.read;
        let count = there.min(self.remaining as usize);
        if at.write != at.read {
            bytes.copy_within(at.read..at.read + count, at.write);
        }
        let piece = &mut bytes[at.write..at.write + count];
        self.mask = apply_mask(piece, self.mask);
        if self.packing.has(Packing::UNDER_WAY) {
            at.packed += count;
        } else if self.kind == Some(Kind::Text) && !self.utf8.take(piece) {
            return Err(Violation::Utf8);
        }
        at.read += count;
        at.write += count;
        self.remaining -= count as u32;
        Ok(())
    }

    fn frame_ends(&mut self) -> Result<Option<Event>, Violation> {
        if !self.fin {
            return Ok(None);
        }
        if self.packing.has(Packing::UNDER_WAY) {
            self.packing.0 &= !Packing::UNDER_WAY;
            return Ok(self.kind.take().map(Event::Packed));
        }
        if self.utf8 != Utf8::Whole {
            return Err(Violation::Utf8);
        }
        Ok(self.kind.take().map(Event::Message))
    }

    /// What the first byte of a head that is not whole shows already.
    fn check_start(&self, unread: &[u8], rules: &Rules) -> Result<(), Violation> {
        let Some(&first) = unread.first() else { return Ok(()) };
        self.check_order(first & 0x0F, rules)?;
        match unread.get(1) {
            Some(second) => check_masking(second & 0x80 != 0, rules),
            None => Ok(()),
        }
    }

    fn check(&self, head: &FrameHead, at: &Passage, rules: &Rules) -> Result<(), Violation> {
        self.check_order(head.opcode as u8, rules)?;
        check_masking(head.mask.is_some(), rules)?;
        let with = |gathered: usize| head.payload.saturating_add(gathered as u64);
        let is_packed = head.packed || self.packing.has(Packing::UNDER_WAY);
        let too_big = head.payload > u64::from(rules.frame_bytes_max)
            || rules.message_bytes_max.is_some_and(|max| with(at.write) > u64::from(max))
            || is_packed && with(at.packed) > at.packed_max as u64;
        if too_big && !head.opcode.is_control() { Err(Violation::TooBig) } else { Ok(()) }
    }

    fn check_order(&self, opcode: u8, rules: &Rules) -> Result<(), Violation> {
        const CONTINUATION: u8 = Opcode::Continuation as u8;
        const TEXT: u8 = Opcode::Text as u8;
        const BINARY: u8 = Opcode::Binary as u8;
        match opcode {
            CONTINUATION if self.kind.is_none() => Err(Violation::Continuation),
            TEXT | BINARY if self.kind.is_some() => Err(Violation::Interleaved),
            TEXT if !rules.text => Err(Violation::Text),
            _ => Ok(()),
        }
    }
}

fn check_masking(masked: bool, rules: &Rules) -> Result<(), Violation> {
    if masked == (rules.role == Role::Server) { Ok(()) } else { Err(Violation::Masking) }
}

/// A control frame's payload; none while it is not whole.
fn control(payload: &[u8], head: &FrameHead) -> Option<Control> {
    let len = u8::try_from(head.payload).ok()?;
    let payload = payload.get(..usize::from(len))?;
    let mut control = Control { bytes: [0; CONTROL_BYTES_MAX], len };
    let into = &mut control.bytes[..usize::from(len)];
    into.copy_from_slice(payload);
    apply_mask(into, head.mask.unwrap_or_default());
    Some(control)
}

/// The code of a close frame, which may say none (§5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    let (code, reason) = match *payload {
        [] => return Ok(None),
        [high, low, ref reason @ ..] => (CloseCode(u16::from_be_bytes([high, low])), reason),
        _ => return Err(Violation::CloseCode),
    };
    if !code.may_be_sent() {
        return Err(Violation::CloseCode);
    }
    if core::str::from_utf8(reason).is_err() {
        return Err(Violation::Utf8);
    }
    Ok(Some(code))
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
