//! Records of TLS: any bytes, at any stage, and those of a client with some changed.

use crate::client::ends;
use kittiwake::base::transform::Passage;
use kittiwake::wire::tls::{Heard, Session};

struct Side {
    session: Session,
    unread: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
    heard: Heard,
}

impl Side {
    fn new(session: Session, out: Vec<u8>) -> Self {
        Self { session, unread: Vec::new(), plain: Vec::new(), out, heard: Heard::All }
    }

    fn takes(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        let mut at = Passage::default();
        let was = self.heard;
        self.heard = self.session.read(&mut self.unread, &mut at, &mut self.out);
        assert!(at.write <= at.read && at.read <= self.unread.len());
        assert!(was == Heard::All || self.heard == was, "an end stays one");
        self.plain.extend_from_slice(&self.unread[..at.write]);
        self.unread.drain(..at.read);
        // It can always be asked to speak, whatever has come.
        if self.session.is_open() {
            let mut records = vec![0; Session::record_bytes_max(5)];
            let made = self.session.write(b"hello", &mut records).expect("it is open");
            assert!(made > 5);
        }
    }
}

/// The first bytes say how long the pieces are, after how many flights of a client what follows comes, how many of that
/// client's bytes are changed, and which.
pub fn records(bytes: &[u8]) {
    let [cut, flights, changes, rest @ ..] = bytes else { return };
    let (server, client) = ends();
    let mut server = Side::new(Session::server(server).expect("it was made by us"), Vec::new());
    let name = "edge".try_into().expect("it is a name");
    let (session, hello) = Session::client(client, name).expect("there is randomness");
    let mut client = Side::new(session, hello);
    let (changed, stream) = rest.split_at(rest.len().min(usize::from(changes % 4) * 3));
    let piece = usize::from(*cut).max(1);
    for flight in 0..flights % 4 {
        if client.session.is_open() {
            let mut records = vec![0; Session::record_bytes_max(stream.len())];
            let made = if stream.is_empty() { Some(0) } else { client.session.write(stream, &mut records) };
            client.out.extend_from_slice(&records[..made.unwrap_or(0)]);
        }
        let mut up = std::mem::take(&mut client.out);
        for change in changed.chunks_exact(3).filter(|change| change[2] & 3 == flight) {
            let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % up.len().max(1);
            up.get_mut(at).into_iter().for_each(|byte| *byte ^= change[2] | 1);
        }
        up.chunks(piece).for_each(|piece| server.takes(piece));
        let down = std::mem::take(&mut server.out);
        client.unread.extend_from_slice(&down);
        client.takes(&[]);
    }
    stream.chunks(piece).for_each(|piece| server.takes(piece));
    let was_open = server.session.is_open();
    server.out.clear();
    server.session.close(&mut server.out);
    assert!(!was_open || !server.out.is_empty() || server.heard != Heard::All, "an end is said");
    assert!(server.session.write(b"late", &mut [0; 99]).is_none());
}
