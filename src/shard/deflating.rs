//! Packed messages (permessage-deflate): a payload is packed once for all its receivers on this shard.
//!
//! ```text
//!   WebSocket frame │ head of the PUBLISH        a receiver's own: packet identifier, alias, properties
//!   packed frame    │ payload                    the same bytes for everybody, whatever protocol, version and QoS
//! ```
//! What carries MQTT in WebSocket looks at no bounds of messages `[MQTT-6.0.0-2]`, so the few bytes of the head travel as
//! they are in a message of their own, and what is packed does not depend on who gets it: one more frame's head, 2 to 4
//! bytes, is its price. To pack each PUBLISH as a whole would share nothing but QoS 0 within one version, take fifty times
//! the processor's time where 64 get a message, and save less than 1 % of the bytes (measured: `benches/deflate.rs`).

use super::fanout::Parcel;
use super::flavours::{Flavour, Frame, Kind};
use super::gateway::{Core, Gateway};
use super::outbound::{Stamp, patch, write_frame};
use crate::base::ids::{ConnectionId, Qos};
use crate::engine::{Close, CloseCause, Refused, Room};
use crate::io::Driver;
use crate::limits::{
    DEFLATE_BYTES_MAX, DEFLATE_KEPT_FOR, DEFLATE_KEPT_MAX, SHARED_SEGMENT_BYTES_MIN, TURN_DEFLATE_BYTES_MAX,
};
use crate::wire::websocket::{Deflater, HEAD_BYTES_MAX, Inflated, Opcode, encode_head, fits_window};
use bytes::Bytes;
use core::ops::Range;

/// The packer, and what was packed lately.
#[derive(Debug)]
pub(crate) struct Deflating {
    /// Payloads from this long on; none: nothing is packed, and nobody is offered it.
    bytes_min: Option<usize>,
    deflater: Deflater,
    kept: Vec<Kept>,
    /// Whether there is anything in them.
    keeps: bool,
    /// The number of the last use.
    uses: u64,
    /// When one was last looked for.
    used_ms: u64,
    /// Payload bytes that this turn may still pack.
    left: usize,
    /// Re-used: one message, packed or framed.
    scratch: Vec<u8>,
    pub(crate) totals: Deflated,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deflated {
    /// Connections that agreed to it.
    pub(crate) agreed: u64,
    /// Payloads that were packed.
    pub(crate) packed: u64,
    /// Their bytes before.
    pub(crate) bytes: u64,
    /// Their bytes after, their frames' heads included.
    pub(crate) bytes_packed: u64,
    /// Payloads that packing does not make smaller.
    pub(crate) not_smaller: u64,
    /// Times a payload went as it is because the turn had packed enough.
    pub(crate) turn_full: u64,
}

/// A payload, and what became of it; of none, when it was forgotten.
#[derive(Debug)]
struct Kept {
    /// Kept with it, so nothing else can have its place in memory.
    payload: Bytes,
    used: u64,
    packed: Packed,
    /// Bytes of a short one. Used again for the next payload.
    short: Vec<u8>,
}

/// A payload's packed frame.
#[derive(Clone, Debug)]
enum Packed {
    /// It is none: it would be no smaller.
    NotSmaller,
    /// It is copied.
    Short,
    /// It is sent by reference.
    Long(Bytes),
}

/// A packed payload: which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedAt(usize);

impl Deflating {
    pub(crate) fn new(bytes_min: Option<usize>) -> Self {
        Self {
            bytes_min,
            deflater: Deflater::default(),
            kept: Vec::new(),
            keeps: false,
            uses: 0,
            used_ms: 0,
            left: TURN_DEFLATE_BYTES_MAX,
            scratch: Vec::new(),
            totals: Deflated::default(),
        }
    }

    /// Whether it is agreed to.
    pub(crate) fn is_on(&self) -> bool {
        self.bytes_min.is_some()
    }

    /// Whether a payload of this length is packed at all.
    fn wants(&self, bytes: usize) -> bool {
        self.bytes_min.is_some_and(|min| (min..=DEFLATE_BYTES_MAX).contains(&bytes))
    }

    /// A turn begins.
    pub(crate) fn turn(&mut self, now_ms: u64) {
        self.left = TURN_DEFLATE_BYTES_MAX;
        if self.keeps && now_ms.saturating_sub(self.used_ms) > DEFLATE_KEPT_FOR.as_millis() as u64 {
            self.keeps = false;
            for kept in &mut self.kept {
                (kept.payload, kept.packed) = (Bytes::new(), Packed::NotSmaller);
            }
        }
    }

    /// The packed frame of a payload; it is packed now if it was not. None: it goes as it is.
    fn find(&mut self, payload: &Bytes, now_ms: u64) -> Option<PackedAt> {
        if !self.wants(payload.len()) {
            return None;
        }
        self.uses += 1;
        self.used_ms = now_ms;
        let is_it = |kept: &Kept| kept.payload.as_ptr() == payload.as_ptr() && kept.payload.len() == payload.len();
        let at = match self.kept.iter().position(is_it) {
            Some(at) => at,
            None if self.left == 0 => {
                self.totals.turn_full += 1;
                return None;
            }
            None => self.pack(payload),
        };
        let kept = &mut self.kept[at];
        kept.used = self.uses;
        (!matches!(kept.packed, Packed::NotSmaller)).then_some(PackedAt(at))
    }

    fn pack(&mut self, payload: &Bytes) -> usize {
        self.left = self.left.saturating_sub(payload.len());
        let at = self.place();
        let kept = &mut self.kept[at];
        kept.payload = payload.clone();
        self.keeps = true;
        self.scratch.clear();
        if !self.deflater.deflate(Opcode::Binary, payload, &mut self.scratch) {
            self.totals.not_smaller += 1;
            kept.packed = Packed::NotSmaller;
            return at;
        }
        self.totals.packed += 1;
        self.totals.bytes += payload.len() as u64;
        self.totals.bytes_packed += self.scratch.len() as u64;
        kept.packed = if self.scratch.len() < SHARED_SEGMENT_BYTES_MIN {
            kept.short.clear();
            kept.short.extend_from_slice(&self.scratch);
            Packed::Short
        } else {
            Packed::Long(Bytes::copy_from_slice(&self.scratch))
        };
        at
    }

    /// A place for one more: that of the one whose last use is longest ago, where all are taken.
    fn place(&mut self) -> usize {
        if self.kept.len() < DEFLATE_KEPT_MAX {
            self.kept.push(Kept { payload: Bytes::new(), used: 0, packed: Packed::NotSmaller, short: Vec::new() });
            return self.kept.len() - 1;
        }
        let oldest = (0..self.kept.len()).min_by_key(|&at| self.kept[at].used);
        oldest.expect("some are kept")
    }

    /// Appends one message as a receiver of packed ones gets it: framed, all but what is sent by reference behind it.
    fn frame(
        &self,
        bytes: &[u8],
        (frame, payload_bytes): (&Frame, usize),
        packed: Option<PackedAt>,
        into: &mut Vec<u8>,
    ) -> Part {
        let start = into.len();
        let (content_end, follows) = match (packed, &frame.payload) {
            (Some(_), None) => (frame.end - payload_bytes, 0),
            (Some(_), Some(_)) => (frame.end, 0),
            (None, payload) => (frame.end, payload.as_ref().map_or(0, Bytes::len)),
        };
        let content = &bytes[frame.start..content_end];
        let mut head = [0; HEAD_BYTES_MAX];
        let head_bytes = encode_head(true, Opcode::Binary, None, (content.len() + follows) as u64, &mut head);
        into.extend_from_slice(&head[..head_bytes]);
        into.extend_from_slice(content);
        let content = start + head_bytes..into.len();
        let shared = match packed {
            None => frame.payload.clone(),
            Some(PackedAt(at)) => match &self.kept[at].packed {
                Packed::Long(packed) => Some(packed.clone()),
                Packed::Short => {
                    into.extend_from_slice(&self.kept[at].short);
                    None
                }
                Packed::NotSmaller => unreachable!("it is not told as packed"),
            },
        };
        Part { start, content, end: into.len(), shared }
    }
}

/// The messages of a flavour as receivers of packed ones get them. Its buffers are used again for the next pass.
#[derive(Debug, Default)]
pub(super) struct Framed {
    is_made: bool,
    bytes: Vec<u8>,
    parts: Vec<Part>,
    /// The longest payload that is packed; 0: none is.
    longest: usize,
    /// All of `bytes` may be copied as it is.
    is_plain: bool,
}

/// One message of them.
#[derive(Debug)]
struct Part {
    /// Where it begins,
    start: usize,
    /// what of it is its receiver's own,
    content: Range<usize>,
    /// and one past its end.
    end: usize,
    /// What is sent by reference behind it.
    shared: Option<Bytes>,
}

impl Framed {
    /// The flavour is another one now.
    pub(super) fn forget(&mut self) {
        self.is_made = false;
        self.parts.clear();
    }
}

impl Flavour {
    /// Makes its messages as receivers of packed ones get them. False: none of them is packed, now or for this window.
    fn pack(&mut self, deflating: &mut Deflating, parcels: &[Parcel], window_bits: u8, now_ms: u64) -> bool {
        if !self.framed.is_made {
            if !parcels.iter().any(|parcel| deflating.wants(parcel.message.payload.len())) {
                return false;
            }
            if deflating.left == 0 {
                deflating.totals.turn_full += 1;
                return false;
            }
            let Self { bytes, frames, framed, .. } = self;
            *framed = Framed { is_made: true, is_plain: true, longest: 0, ..core::mem::take(framed) };
            framed.bytes.clear();
            for (frame, parcel) in frames.iter().zip(parcels) {
                let payload = &parcel.message.payload;
                let packed = deflating.find(payload, now_ms);
                framed.longest = framed.longest.max(if packed.is_some() { payload.len() } else { 0 });
                let part = deflating.frame(bytes, (frame, payload.len()), packed, &mut framed.bytes);
                framed.is_plain &= part.shared.is_none();
                framed.parts.push(part);
            }
        }
        self.framed.longest > 0 && fits_window(self.framed.longest, window_bits)
    }

    /// Writes all of its messages at once, where they are the same for everybody. False: they are not, or find no room.
    pub(super) fn write_all<D: Driver>(&self, core: &mut Core<D>, connection: ConnectionId, is_packed: bool) -> bool {
        if self.qos_at(core.now().wall_ms) != Some(Qos::AtMostOnce) {
            return false;
        }
        if !is_packed {
            return self.is_whole && core.write_bytes(connection, Room::Spare, &self.bytes).is_ok();
        }
        let bytes = &self.framed.bytes;
        let copy = |into: &mut [u8]| into.copy_from_slice(bytes);
        self.framed.is_plain && core.write_framed(connection, Room::Spare, bytes.len(), copy).is_ok()
    }

    /// Writes one of them.
    pub(super) fn write_one<D: Driver>(
        &self,
        core: &mut Core<D>,
        connection: ConnectionId,
        (index, is_packed): (usize, bool),
        stamp: Stamp,
    ) -> Result<(), Refused> {
        let frame = &self.frames[index];
        if is_packed {
            write_part(core, connection, (&self.framed.bytes, &self.framed.parts[index]), frame, stamp)
        } else {
            write_frame(core, connection, &self.bytes, frame, stamp)
        }
    }
}

/// As [`write_frame`], of a message that is framed.
fn write_part<D: Driver>(
    core: &mut Core<D>,
    connection: ConnectionId,
    (bytes, part): (&[u8], &Part),
    frame: &Frame,
    stamp: Stamp,
) -> Result<(), Refused> {
    let bytes = &bytes[part.start..part.end];
    let room = if frame.qos == Qos::AtMostOnce { Room::Spare } else { Room::Data };
    if let Some(shared) = &part.shared
        && !core.has_room_for(connection, room, bytes.len(), shared)
    {
        return Err(Refused::Full);
    }
    core.write_framed(connection, room, bytes.len(), |out| {
        out.copy_from_slice(bytes);
        let content = part.content.start - part.start..part.content.end - part.start;
        patch(&frame.layout, stamp, &mut out[content]);
    })?;
    if let Some(shared) = &part.shared
        && core.write_framed_shared(connection, room, shared).is_err()
    {
        // A head without its payload would make nonsense of all that follows.
        core.close(connection, Close::Now, CloseCause::OutOfBlocks);
    }
    Ok(())
}

impl Gateway {
    /// Whether a pass's messages go packed to a connection; they are packed at the first that takes them so.
    pub(super) fn pack_pass<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        connection: ConnectionId,
        kind: Kind,
        parcels: &[Parcel],
    ) -> bool {
        // Short messages cost no more than this.
        let flavour = self.flavours.of_mut(kind);
        if self.deflating.bytes_min.is_none_or(|min| flavour.payload_bytes < min) {
            return false;
        }
        let Some(window_bits) = core.window_bits(connection) else { return false };
        flavour.pack(&mut self.deflating, parcels, window_bits, core.now().monotonic_ms)
    }

    /// Writes a message that was encoded for one connection, packed where that takes it so.
    pub(super) fn write_encoded<D: Driver>(
        &mut self,
        core: &mut Core<D>,
        connection: ConnectionId,
        (bytes, frame, payload): (&[u8], &Frame, &Bytes),
        stamp: Stamp,
    ) -> Result<(), Refused> {
        let packed = if self.deflating.wants(payload.len())
            && core.window_bits(connection).is_some_and(|bits| fits_window(payload.len(), bits))
        {
            self.deflating.find(payload, core.now().monotonic_ms)
        } else {
            None
        };
        if packed.is_none() {
            return write_frame(core, connection, bytes, frame, stamp);
        }
        let mut framed = core::mem::take(&mut self.deflating.scratch);
        framed.clear();
        let part = self.deflating.frame(bytes, (frame, payload.len()), packed, &mut framed);
        let written = write_part(core, connection, (&framed, &part), frame, stamp);
        self.deflating.scratch = framed;
        written
    }
}

/// What the unpacker has done and the packer, as figures.
pub(super) fn counters(inflated: &Inflated, unpack_waits: u64, deflated: &Deflated) -> [(&'static str, u64); 12] {
    [
        ("deflate_connections", deflated.agreed),
        ("deflate_messages", deflated.packed),
        ("deflate_bytes_before", deflated.bytes),
        ("deflate_bytes_after", deflated.bytes_packed),
        ("deflate_not_smaller", deflated.not_smaller),
        ("deflate_skipped_busy", deflated.turn_full),
        ("inflate_messages", inflated.messages),
        ("inflate_bytes_before", inflated.bytes_packed),
        ("inflate_bytes_after", inflated.bytes),
        ("inflate_refused_too_long", inflated.too_long),
        ("inflate_refused_broken", inflated.broken),
        ("inflate_waits", unpack_waits),
    ]
}
