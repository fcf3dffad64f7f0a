//! The test's end of a connection: a remote client that does only what it is told, at once, without blocking.

use super::SimNet;
use super::faults::Mark;
use super::pipe::Parcel;
use super::trace::Note;
use super::world::{EndId, Owner};
use std::io;
use std::net::SocketAddr;

/// Where a peer's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// The request travels, or waits for room in a backlog.
    Connecting,
    /// Bytes flow.
    Open,
    /// The other side has ended its stream, and all of it was read.
    Ended,
    /// Refused or reset.
    Dead,
}

/// See the module. Dropping it closes it in an orderly way. A client that does not read is one whose `read` nobody
/// calls: its buffers fill.
#[derive(Debug)]
pub struct Peer {
    net: SimNet,
    end: Option<EndId>,
    address: SocketAddr,
}

impl Peer {
    /// Connects from an address of its own.
    pub fn connect(net: &SimNet, to: SocketAddr) -> Self {
        Self::open(net, None, to)
    }

    /// Connects from that address (port 0: any).
    pub fn connect_from(net: &SimNet, from: SocketAddr, to: SocketAddr) -> Self {
        Self::open(net, Some(from), to)
    }

    fn open(net: &SimNet, from: Option<SocketAddr>, to: SocketAddr) -> Self {
        let mut world = net.world();
        world.collect_dropped();
        let end = world.open(Owner::Peer, from, to);
        world.trace.note(Note::Peer, &[1, end.0]);
        let address = world.end(end).address;
        drop(world);
        Self { net: net.clone(), end: Some(end), address }
    }

    /// Its own address, as the other side sees it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it stands.
    pub fn state(&self) -> PeerState {
        let Some(end) = self.end else { return PeerState::Dead };
        let mut world = self.net.world();
        world.collect_dropped();
        let pipe = world.incoming(end);
        let (ended, unread) = (pipe.ended, pipe.arrived() > 0);
        let dead = world.end(end).dead;
        let established = world.connections[&end.connection()].established;
        match (dead, established) {
            (true, _) => PeerState::Dead,
            (false, false) => PeerState::Connecting,
            (false, true) if ended && !unread => PeerState::Ended,
            (false, true) => PeerState::Open,
        }
    }

    /// Writes what there is room for. `WouldBlock`: none, or not connected yet.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.held()?;
        let mut world = self.net.world();
        world.collect_dropped();
        world.trace.note(Note::Peer, &[2, end.0]);
        world.trace.bytes(bytes);
        if bytes.is_empty() {
            return Ok(0);
        }
        if !world.connections[&end.connection()].established && !world.end(end).dead {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        world.write(end, bytes)
    }

    /// Reads what has arrived. 0: the other side has ended. `WouldBlock`: nothing now.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self.held()?;
        let mut world = self.net.world();
        world.collect_dropped();
        let result = world.read(end, into);
        world.trace.note(Note::Peer, &[3, end.0]);
        if let Ok(count) = result {
            world.trace.bytes(&into[..count]);
        }
        result
    }

    /// Reads all that has arrived; empty if nothing has, or nothing will.
    pub fn read_all(&mut self) -> Vec<u8> {
        let (mut all, mut chunk) = (Vec::new(), [0; 4_096]);
        while let Ok(count) = self.read(&mut chunk)
            && count > 0
        {
            all.extend_from_slice(&chunk[..count]);
        }
        all
    }

    /// Ends its own stream and goes on reading.
    pub fn finish(&mut self) {
        let Some(end) = self.end else { return };
        let mut world = self.net.world();
        world.trace.note(Note::Peer, &[4, end.0]);
        if !world.end(end).dead && !world.outgoing(end).fin_sent {
            world.send_parcel(end, Parcel::Fin);
        }
    }

    /// Breaks the connection with a reset.
    pub fn reset(mut self) {
        let Some(end) = self.end.take() else { return };
        let mut world = self.net.world();
        world.trace.note(Note::Peer, &[5, end.0]);
        world.reset_end(end, Mark::Reset);
    }

    /// Closes it: an orderly end, or a reset if it left bytes unread.
    pub fn close(self) {
        drop(self);
    }

    /// Is gone without a word, as when a phone leaves the network: nothing arrives on either side any more, sends to
    /// it fill its buffers and then wait.
    pub fn vanish(mut self) {
        let Some(end) = self.end.take() else { return };
        let mut world = self.net.world();
        world.trace.note(Note::Peer, &[6, end.0]);
        world.marks.hit(Mark::Vanish);
        world.connections.get_mut(&end.connection()).expect("a held end's connection is there").cut = true;
        world.release(end);
    }

    fn held(&self) -> io::Result<EndId> {
        self.end.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let Some(end) = self.end.take() else { return };
        // A failing test unwinds through here while the world may be borrowed: a second panic would hide the first.
        if let Ok(mut world) = self.net.0.try_borrow_mut() {
            world.trace.note(Note::Peer, &[7, end.0]);
            world.close_end(end);
        }
    }
}
