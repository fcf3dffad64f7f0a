//! One direction of a connection: bytes on their way and bytes that have arrived, bounded like two socket buffers.

use std::collections::VecDeque;

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parcel {
    /// The next so many bytes of the pipe.
    Bytes(usize),
    /// FIN.
    Fin,
    /// RST.
    Reset,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    arrived: usize,
    travelling: VecDeque<(u64, Parcel)>,
    capacity: usize,
    /// FIN was sent; nothing is written after it.
    pub fin_sent: bool,
    /// FIN has arrived.
    pub ended: bool,
}

impl Pipe {
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a pipe without room moves nothing");
        Self {
            bytes: VecDeque::new(),
            arrived: 0,
            travelling: VecDeque::new(),
            capacity,
            fin_sent: false,
            ended: false,
        }
    }

    /// Bytes in the pipe, arrived or not.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    /// Bytes that can be read.
    pub fn arrived(&self) -> usize {
        self.arrived
    }
    /// Bytes that can be written.
    pub fn room(&self) -> usize {
        if self.fin_sent { 0 } else { self.capacity.saturating_sub(self.bytes.len()) }
    }

    /// Takes bytes in; a [`Parcel::Bytes`] is sent separately.
    pub fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a pipe was written beyond its room");
        self.bytes.extend(bytes);
    }

    /// Sends a parcel that arrives at `at_ms`, though never before an earlier one. Returns when.
    pub fn send(&mut self, parcel: Parcel, at_ms: u64) -> u64 {
        let at_ms = self.travelling.back().map_or(at_ms, |&(last, _)| at_ms.max(last));
        self.fin_sent |= parcel == Parcel::Fin;
        self.travelling.push_back((at_ms, parcel));
        at_ms
    }

    /// The next parcel that has arrived by `now_ms`.
    pub fn arrive(&mut self, now_ms: u64) -> Option<Parcel> {
        let &(at_ms, parcel) = self.travelling.front()?;
        if at_ms > now_ms {
            return None;
        }
        self.travelling.pop_front();
        match parcel {
            Parcel::Bytes(count) => self.arrived += count,
            Parcel::Fin => self.ended = true,
            Parcel::Reset => {}
        }
        assert!(self.arrived <= self.bytes.len(), "more arrived than was written");
        Some(parcel)
    }

    /// Reads into `into` what has arrived; returns how much.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.arrived);
        for (to, from) in into.iter_mut().zip(self.bytes.drain(..count)) {
            *to = from;
        }
        self.arrived -= count;
        count
    }

    /// Forgets what has arrived.
    pub fn drop_arrived(&mut self) {
        self.bytes.drain(..self.arrived);
        self.arrived = 0;
    }

    /// Forgets what is on its way.
    pub fn drop_travelling(&mut self) {
        self.bytes.truncate(self.arrived);
        self.travelling.clear();
    }
}
