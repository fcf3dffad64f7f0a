//! The order of frames on a connection, and what becomes of its streams (RFC 9113 §3.4, §5, §6).

use super::frame::{self, Code, HEAD_BYTES, Head, PAYLOAD_BYTES_MAX, PREFACE, StreamId, flag, kind, setting};
use super::head::{Builder, RequestHead};
use super::hpack::{self, Decoder};
use super::outgoing::Outgoing;
use super::window::{Inbound, WINDOW_DEFAULT, WINDOW_MAX, Window};
use std::collections::{HashMap, VecDeque};

/// Frames that a block of header fields may come in.
const BLOCK_FRAMES_MAX: u32 = 32;
/// Streams that are remembered as ended by us, for each that there may be at a time.
const ABANDONED_FOR_STREAM: usize = 4;
/// How many bytes of a block, packed, there may be for each that a head may have.
const BLOCK_BYTES_FOR_HEAD: usize = 2;

/// What a peer may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Streams at a time.
    pub streams: u32,
    /// Bytes of a request's head, as RFC 9113 §6.5.2 counts them.
    pub head_bytes: u32,
    /// Bytes that it may send before they are used, on all streams and on one; at least 65,535.
    pub window_bytes: u32,
    /// Streams that it may give up beyond those that were answered, from one [`Connection::forgive`] to the next.
    pub resets: u32,
}

/// What came of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A request has begun.
    Request {
        /// Its stream.
        stream: StreamId,
        /// What it asks for.
        head: RequestHead,
        /// It has no body.
        ends: bool,
    },
    /// A piece of a request's body; [`Connection::release`] says when it was used.
    Data {
        /// The request's stream.
        stream: StreamId,
        /// May be empty.
        bytes: &'a [u8],
        /// It is the last one.
        ends: bool,
    },
    /// A request is not to be answered any more: its peer gave it up, or broke a rule with it.
    Reset {
        /// The request's stream.
        stream: StreamId,
    },
    /// More may be sent than before.
    Room {
        /// Here; none: on every stream.
        stream: Option<StreamId>,
    },
}

/// What is wrong, and with what.
enum Fault {
    Connection(Code),
    Stream(StreamId, Code),
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self::Connection(code)
    }
}

/// A request that is under way.
#[derive(Debug)]
struct Stream {
    /// Nothing more comes.
    is_whole: bool,
    inbound: Inbound,
    outbound: Window,
    /// Bytes that came and were not used.
    held: usize,
    /// Bytes of the body to come, where its head said so.
    content_left: Option<u64>,
}

/// A block of header fields whose end has not come.
#[derive(Debug)]
struct Block {
    stream: StreamId,
    ends: bool,
    frames: u32,
}

/// A connection with a client. What is to be sent lies in [`Connection::unsent`].
#[derive(Debug)]
pub struct Connection {
    bounds: Bounds,
    /// Bytes of the preface that have come.
    preface: usize,
    has_settings: bool,
    decoder: Decoder,
    block: Option<Block>,
    block_bytes: Vec<u8>,
    streams: HashMap<StreamId, Stream>,
    /// The latest that the peer has opened.
    last: StreamId,
    /// Streams that we ended while their peer had more to send; what comes of them is ignored. The latest last.
    abandoned: VecDeque<StreamId>,
    inbound: Inbound,
    outbound: Window,
    /// What a new stream may be sent.
    outbound_at_first: u32,
    /// The peer waits to hear how large our table of fields is.
    owes_table_size: bool,
    /// Streams that the peer gave up, or broke a rule with, less those that were answered.
    resets: u32,
    /// We have said that no more streams are taken, or the peer that it opens no more.
    is_leaving: bool,
    has_failed: bool,
    out: Outgoing,
}

impl Connection {
    /// One that begins, with our side of its beginning to be sent.
    pub fn new(bounds: Bounds) -> Self {
        assert!((WINDOW_DEFAULT..=WINDOW_MAX).contains(&bounds.window_bytes), "what peers take for granted, or more");
        let mut connection = Self {
            bounds,
            preface: 0,
            has_settings: false,
            decoder: Decoder::new(),
            block: None,
            block_bytes: Vec::new(),
            streams: HashMap::new(),
            last: StreamId::CONNECTION,
            abandoned: VecDeque::new(),
            inbound: Inbound::new(bounds.window_bytes),
            outbound: Window::new(WINDOW_DEFAULT),
            outbound_at_first: WINDOW_DEFAULT,
            owes_table_size: false,
            resets: 0,
            is_leaving: false,
            has_failed: false,
            out: Outgoing::default(),
        };
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, bounds.streams),
            (setting::INITIAL_WINDOW_SIZE, bounds.window_bytes),
            (setting::MAX_HEADER_LIST_SIZE, bounds.head_bytes),
        ];
        connection.out.settings(&settings);
        connection.out.window(StreamId::CONNECTION, bounds.window_bytes - WINDOW_DEFAULT);
        connection
    }

    /// Takes in the whole frames at the beginning of `bytes`, and says how many bytes those are.
    pub fn receive(&mut self, bytes: &[u8], each: &mut impl FnMut(Event<'_>)) -> usize {
        let mut rest = bytes;
        if self.preface < PREFACE.len() && !self.has_failed {
            let (begun, after) = rest.split_at(rest.len().min(PREFACE.len() - self.preface));
            if !PREFACE[self.preface..].starts_with(begun) {
                self.fail(Code::ProtocolError);
            }
            self.preface += begun.len();
            rest = after;
        }
        while !self.has_failed
            && let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>()
        {
            let head = Head::read(head);
            if head.length > PAYLOAD_BYTES_MAX {
                self.fail(Code::FrameSizeError);
                break;
            }
            let Some((payload, after)) = after.split_at_checked(head.length) else { break };
            rest = after;
            match self.take(head, payload, each) {
                Ok(()) => {}
                Err(Fault::Connection(code)) => self.fail(code),
                Err(Fault::Stream(stream, code)) => {
                    self.reset(stream, code);
                    each(Event::Reset { stream });
                    self.count_reset();
                }
            }
        }
        bytes.len() - rest.len()
    }

    fn take(&mut self, head: Head, payload: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let is_expected = match &self.block {
            Some(block) => head.kind == kind::CONTINUATION && head.stream == block.stream,
            None => head.kind != kind::CONTINUATION,
        };
        if !is_expected || !self.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Code::ProtocolError.into());
        }
        let is_of_connection = matches!(head.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        let is_of_either = head.kind == kind::WINDOW_UPDATE || head.kind > kind::CONTINUATION;
        if !is_of_either && is_of_connection != (head.stream == StreamId::CONNECTION) {
            return Err(Code::ProtocolError.into());
        }
        match head.kind {
            kind::DATA => self.data(head, payload, each),
            kind::HEADERS => self.headers(head, payload, each),
            kind::CONTINUATION => self.more_fields(head, payload, each),
            kind::PRIORITY if payload.len() == 5 => Ok(()),
            kind::PRIORITY if self.streams.contains_key(&head.stream) => {
                Err(Fault::Stream(head.stream, Code::FrameSizeError))
            }
            kind::PRIORITY => Err(Code::FrameSizeError.into()),
            kind::RST_STREAM => self.given_up(head.stream, payload, each),
            kind::SETTINGS => self.settings(head, payload, each),
            kind::PUSH_PROMISE => Err(Code::ProtocolError.into()),
            kind::PING if payload.len() != 8 => Err(Code::FrameSizeError.into()),
            kind::PING => {
                if !head.has(flag::ACK) {
                    self.out.frame(kind::PING, flag::ACK, StreamId::CONNECTION, payload);
                }
                Ok(())
            }
            kind::GOAWAY if payload.len() < 8 => Err(Code::FrameSizeError.into()),
            kind::GOAWAY => {
                self.leave();
                Ok(())
            }
            kind::WINDOW_UPDATE => self.opened(head.stream, payload, each),
            // What nobody knows is ignored.
            _ => Ok(()),
        }
    }

    /// No frame may have come of it yet.
    fn is_unopened(&self, stream: StreamId) -> bool {
        stream > self.last || stream.0.is_multiple_of(2)
    }

    fn data(&mut self, head: Head, payload: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let id = head.stream;
        if !self.inbound.take(payload.len()) {
            return Err(Code::FlowControlError.into());
        }
        let bytes = frame::unpadded(head, payload).ok_or(Code::ProtocolError)?;
        let ends = head.has(flag::END_STREAM);
        if self.is_unopened(id) {
            return Err(Code::ProtocolError.into());
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            self.give_back(payload.len());
            return self.ignore(id, ends);
        };
        if stream.is_whole {
            return Err(Code::StreamClosed.into());
        }
        stream.held += payload.len();
        if !stream.inbound.take(payload.len()) {
            return Err(Fault::Stream(id, Code::FlowControlError));
        }
        if let Some(left) = &mut stream.content_left {
            *left = left.checked_sub(bytes.len() as u64).ok_or(Fault::Stream(id, Code::ProtocolError))?;
        }
        stream.end(id, ends)?;
        each(Event::Data { stream: id, bytes, ends });
        self.release(id, payload.len() - bytes.len());
        Ok(())
    }

    /// A frame of a stream that is no more.
    fn ignore(&mut self, stream: StreamId, ends: bool) -> Result<(), Fault> {
        let place = self.abandoned.iter().rposition(|&abandoned| abandoned == stream).ok_or(Code::StreamClosed)?;
        if ends {
            self.abandoned.remove(place);
        }
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let mut fields = frame::unpadded(head, payload).ok_or(Code::ProtocolError)?;
        if head.has(flag::PRIORITY) {
            fields = fields.split_at_checked(5).ok_or(Code::FrameSizeError)?.1;
        }
        if head.stream.0.is_multiple_of(2) {
            return Err(Code::ProtocolError.into());
        }
        let ends = head.has(flag::END_STREAM);
        match self.streams.get(&head.stream) {
            Some(stream) if stream.is_whole => return Err(Code::StreamClosed.into()),
            Some(_) => {}
            None if head.stream > self.last => {}
            None => self.ignore(head.stream, ends)?,
        }
        self.block = Some(Block { stream: head.stream, ends, frames: 0 });
        self.block_bytes.clear();
        self.more_fields(head, fields, each)
    }

    fn more_fields(&mut self, head: Head, fields: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let block = self.block.as_mut().expect("it was looked at");
        block.frames += 1;
        self.block_bytes.extend_from_slice(fields);
        if block.frames > BLOCK_FRAMES_MAX
            || self.block_bytes.len() > BLOCK_BYTES_FOR_HEAD * self.bounds.head_bytes as usize
        {
            return Err(Code::EnhanceYourCalm.into());
        }
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Block { stream, ends, .. } = self.block.take().expect("it was looked at");
        let mut builder = Builder::new(self.bounds.head_bytes as usize);
        let decoded = self.decoder.decode(&self.block_bytes, |name, value| builder.field(name, value));
        decoded.map_err(|_| Code::CompressionError)?;
        if let Some(open) = self.streams.get_mut(&stream) {
            if !ends || !builder.are_trailers() {
                return Err(Fault::Stream(stream, Code::ProtocolError));
            }
            open.end(stream, true)?;
            each(Event::Data { stream, bytes: &[], ends });
            return Ok(());
        }
        if stream > self.last {
            self.begin(stream, builder, ends, each);
        }
        Ok(())
    }

    fn begin(&mut self, stream: StreamId, head: Builder, ends: bool, each: &mut impl FnMut(Event<'_>)) {
        self.last = stream;
        if self.is_leaving || self.streams.len() >= self.bounds.streams as usize {
            self.abandon(stream, ends);
            self.out.reset(stream, Code::RefusedStream);
            return;
        }
        let is_short = |head: &RequestHead| ends && head.content_length.is_some_and(|length| length > 0);
        let Some(head) = head.build().filter(|head| !is_short(head)) else {
            self.abandon(stream, ends);
            self.out.reset(stream, Code::ProtocolError);
            return;
        };
        let opened = Stream {
            is_whole: ends,
            inbound: Inbound::new(self.bounds.window_bytes),
            outbound: Window::new(self.outbound_at_first),
            held: 0,
            content_left: head.content_length,
        };
        self.streams.insert(stream, opened);
        each(Event::Request { stream, head, ends });
    }

    fn given_up(&mut self, id: StreamId, payload: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(Code::FrameSizeError.into());
        }
        if self.is_unopened(id) {
            return Err(Code::ProtocolError.into());
        }
        self.abandoned.retain(|&abandoned| abandoned != id);
        if self.remove(id).is_some() {
            each(Event::Reset { stream: id });
            self.count_reset();
        }
        Ok(())
    }

    /// A peer may open calls that come to nothing, but not without end: given up by itself, or by breaking a rule
    /// (CVE-2023-44487, CVE-2025-8671).
    fn count_reset(&mut self) {
        self.resets += 1;
        if self.resets > self.bounds.resets && !self.has_failed {
            self.fail(Code::EnhanceYourCalm);
        }
    }

    fn settings(&mut self, head: Head, payload: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || head.has(flag::ACK) && !settings.is_empty() {
            return Err(Code::FrameSizeError.into());
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        self.has_settings = true;
        let mut window = self.outbound_at_first;
        for &[a, b, c, d, e, f] in settings {
            let (name, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
            match name {
                setting::ENABLE_PUSH if value > 1 => return Err(Code::ProtocolError.into()),
                setting::MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => {
                    return Err(Code::ProtocolError.into());
                }
                setting::INITIAL_WINDOW_SIZE if value > WINDOW_MAX => return Err(Code::FlowControlError.into()),
                setting::INITIAL_WINDOW_SIZE => window = value,
                // Our fields enter no table, but a peer that has made its own smaller waits to hear of it.
                setting::HEADER_TABLE_SIZE => self.owes_table_size = true,
                // How long its frames may be does not matter to who sends none that are longer than all may be.
                _ => {}
            }
        }
        // The last one holds: one frame may name it thousands of times.
        let change = i64::from(window) - i64::from(self.outbound_at_first);
        if change != 0 {
            self.outbound_at_first = window;
            for stream in self.streams.values_mut() {
                stream.outbound.change(change).map_err(|_| Code::FlowControlError)?;
            }
            each(Event::Room { stream: None });
        }
        self.out.frame(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[]);
        Ok(())
    }

    fn opened(&mut self, id: StreamId, payload: &[u8], each: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let payload = *payload.as_array::<4>().ok_or(Code::FrameSizeError)?;
        let bytes = i64::from(u32::from_be_bytes(payload) & WINDOW_MAX);
        if id == StreamId::CONNECTION {
            if bytes == 0 {
                return Err(Code::ProtocolError.into());
            }
            self.outbound.change(bytes).map_err(|_| Code::FlowControlError)?;
            each(Event::Room { stream: None });
            return Ok(());
        }
        if self.is_unopened(id) {
            return Err(Code::ProtocolError.into());
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if bytes == 0 {
            return Err(Fault::Stream(id, Code::ProtocolError));
        }
        stream.outbound.change(bytes).map_err(|_| Fault::Stream(id, Code::FlowControlError))?;
        each(Event::Room { stream: Some(id) });
        Ok(())
    }

    /// So much of a request's body was used: its peer may send as much again.
    pub fn release(&mut self, stream: StreamId, bytes: usize) {
        // Of one that is no more, all was given back when it ended.
        let Some(open) = self.streams.get_mut(&stream) else { return };
        open.held = open.held.checked_sub(bytes).expect("no more is used than has come");
        if let Some(bytes) = open.inbound.give_back(bytes).filter(|_| !open.is_whole) {
            self.out.window(stream, bytes);
        }
        self.give_back(bytes);
    }

    fn give_back(&mut self, bytes: usize) {
        if let Some(bytes) = self.inbound.give_back(bytes) {
            self.out.window(StreamId::CONNECTION, bytes);
        }
    }

    /// Sends a response's head, or what follows its body. Names are in lower case.
    pub fn send_fields<'a>(
        &mut self,
        stream: StreamId,
        status: Option<u16>,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        ends: bool,
    ) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        let mut block = Vec::new();
        if core::mem::take(&mut self.owes_table_size) {
            hpack::put_empty_table(&mut block);
        }
        if let Some(status) = status {
            hpack::put_status(status, &mut block);
        }
        fields.for_each(|(name, value)| hpack::put_field(name, value, &mut block));
        let end_stream = if ends { flag::END_STREAM } else { 0 };
        let mut frames = block.chunks(PAYLOAD_BYTES_MAX).peekable();
        let first = frames.next().unwrap_or_default();
        let end_headers = |is_last| if is_last { flag::END_HEADERS } else { 0 };
        self.out.frame(kind::HEADERS, end_stream | end_headers(frames.peek().is_none()), stream, first);
        while let Some(fields) = frames.next() {
            self.out.frame(kind::CONTINUATION, end_headers(frames.peek().is_none()), stream, fields);
        }
        if ends {
            self.answered(stream);
        }
    }

    /// Sends of a response's body what the windows hold, and says how much. `ends`: nothing follows.
    pub fn send_data(&mut self, stream: StreamId, bytes: &[u8], ends: bool) -> usize {
        // Of one that is no more, all goes nowhere.
        let Some(open) = self.streams.get_mut(&stream) else { return bytes.len() };
        let count = bytes.len().min(open.outbound.bytes()).min(self.outbound.bytes());
        let is_taken = open.outbound.take(count) && self.outbound.take(count);
        debug_assert!(is_taken, "both hold it");
        let ends = ends && count == bytes.len();
        let mut frames = bytes[..count].chunks(PAYLOAD_BYTES_MAX).peekable();
        while let Some(payload) = frames.next() {
            let flags = if ends && frames.peek().is_none() { flag::END_STREAM } else { 0 };
            self.out.frame(kind::DATA, flags, stream, payload);
        }
        if ends {
            if count == 0 {
                self.out.frame(kind::DATA, flag::END_STREAM, stream, &[]);
            }
            self.answered(stream);
        }
        count
    }

    /// Its response is whole. What its peer still sends is not wanted.
    fn answered(&mut self, id: StreamId) {
        self.resets = self.resets.saturating_sub(1);
        if let Some(stream) = self.remove(id)
            && !stream.is_whole
        {
            self.abandon(id, false);
            self.out.reset(id, Code::NoError);
        }
    }

    /// Ends a stream that cannot be served further.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        if let Some(stream) = self.remove(id) {
            self.abandon(id, stream.is_whole);
            self.out.reset(id, code);
        }
    }

    /// Takes no more requests. Those that were begun are answered.
    pub fn leave(&mut self) {
        if !core::mem::replace(&mut self.is_leaving, true) {
            self.out.goaway(self.last, Code::NoError);
        }
    }

    /// Asks the peer whether it is there.
    pub fn ping(&mut self) {
        self.out.frame(kind::PING, 0, StreamId::CONNECTION, &[0; 8]);
    }

    /// What the peer has given up so far counts no more.
    pub fn forgive(&mut self) {
        self.resets = 0;
    }

    /// Requests that are not answered.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Nothing more is to be read; what is unsent may be sent.
    pub fn is_over(&self) -> bool {
        self.has_failed || self.is_leaving && self.streams.is_empty()
    }

    /// What is to be sent.
    pub fn unsent(&self) -> &[u8] {
        self.out.unsent()
    }

    /// So much of it was.
    pub fn sent(&mut self, bytes: usize) {
        self.out.sent(bytes);
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.give_back(stream.held);
        Some(stream)
    }

    /// What its peer still sends of it is ignored, unless it has ended.
    fn abandon(&mut self, stream: StreamId, has_ended: bool) {
        if !has_ended {
            if self.abandoned.len() >= ABANDONED_FOR_STREAM * self.bounds.streams as usize {
                self.abandoned.pop_front();
            }
            self.abandoned.push_back(stream);
        }
    }

    fn fail(&mut self, code: Code) {
        self.has_failed = true;
        self.out.goaway(self.last, code);
    }
}

impl Stream {
    /// Its body ends here, if it does: it must be as long as its head said.
    fn end(&mut self, id: StreamId, ends: bool) -> Result<(), Fault> {
        self.is_whole = ends;
        if ends && self.content_left.is_some_and(|left| left > 0) {
            return Err(Fault::Stream(id, Code::ProtocolError));
        }
        Ok(())
    }
}
