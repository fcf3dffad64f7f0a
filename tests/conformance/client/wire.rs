//! What a client's bytes go over: a simulated socket, plain or within TLS.

use crate::node::Node;
use kittiwake::base::transform::Passage;
use kittiwake::io::sim::{Peer, PeerState};
use kittiwake::wire::tls::{self, Heard, Session};
use std::io;

/// A socket's end, and TLS on it.
pub struct Wire {
    peer: Peer,
    secured: Option<Secured>,
}

struct Secured {
    session: Session,
    unread: Vec<u8>,
    /// Records that the socket has not taken.
    out: Vec<u8>,
    heard: Heard,
}

impl Wire {
    pub fn plain(peer: Peer) -> Self {
        Self { peer, secured: None }
    }

    /// The same within TLS, agreed upon unless the server does not.
    pub fn secure(self, node: &Node, client: &tls::Client) -> Self {
        let mut wire = self.greet(client);
        while wire.secured.as_ref().is_some_and(|secured| secured.session.is_handshaking()) {
            node.run();
            if wire.read_all().is_empty() && wire.secured.as_ref().is_some_and(|secured| secured.out.is_empty()) {
                node.run();
                wire.read_all();
                break;
            }
        }
        node.run();
        wire
    }

    /// Within TLS, of which no more than the first words are said.
    pub fn greet(self, client: &tls::Client) -> Self {
        let name = "edge".try_into().expect("it is a name");
        let (session, out) = Session::client(client, name).expect("there is randomness");
        let mut wire = Self { secured: Some(Secured { session, unread: Vec::new(), out, heard: Heard::All }), ..self };
        wire.flush();
        wire
    }

    /// Whether it is within TLS and both have agreed; and what was heard last.
    pub fn heard(&self) -> Option<(bool, Heard)> {
        self.secured.as_ref().map(|secured| (secured.session.is_open(), secured.heard))
    }

    fn flush(&mut self) {
        let Some(secured) = &mut self.secured else { return };
        while let Ok(count @ 1..) = self.peer.write(&secured.out) {
            secured.out.drain(..count);
        }
    }

    /// Takes as many bytes as there is room for; within TLS a record at a time, once what was taken before has left.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush();
        let Some(secured) = &mut self.secured else { return self.peer.write(bytes) };
        if !secured.out.is_empty() {
            return if self.peer.state() == PeerState::Open {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            };
        }
        // A record's worth at a time.
        let piece = &bytes[..bytes.len().min(16_384)];
        if !piece.is_empty() {
            let mut records = vec![0; Session::record_bytes_max(piece.len())];
            let made = secured.session.write(piece, &mut records).ok_or(io::ErrorKind::BrokenPipe)?;
            secured.out.extend_from_slice(&records[..made]);
        }
        self.flush();
        Ok(piece.len())
    }

    /// Whether the socket has taken all that was written, or never will.
    pub fn is_flushed(&mut self) -> bool {
        self.flush();
        self.peer.state() != PeerState::Open || self.secured.as_ref().is_none_or(|secured| secured.out.is_empty())
    }

    /// What has come: plain bytes within TLS.
    pub fn read_all(&mut self) -> Vec<u8> {
        let more = self.peer.read_all();
        let Some(secured) = &mut self.secured else { return more };
        secured.unread.extend_from_slice(&more);
        let mut at = Passage::default();
        secured.heard = secured.session.read(&mut secured.unread, &mut at, &mut secured.out);
        let plain = secured.unread[..at.write].to_vec();
        secured.unread.drain(..at.read);
        self.flush();
        plain
    }

    /// Writes bytes as they are, below TLS.
    pub fn write_below(&mut self, bytes: &[u8]) {
        self.flush();
        assert_eq!(self.peer.write(bytes).ok(), Some(bytes.len()));
    }

    pub fn state(&self) -> PeerState {
        self.peer.state()
    }

    pub fn close(self) {
        self.peer.close();
    }

    pub fn finish(&mut self) {
        self.peer.finish();
    }

    pub fn reset(self) {
        self.peer.reset();
    }

    pub fn vanish(self) {
        self.peer.vanish();
    }
}
