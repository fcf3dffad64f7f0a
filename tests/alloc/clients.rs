//! Clients of the allocation test, which read exactly what they wait for.

use super::{House, PATIENCE, ends};
use kittiwake::base::transform::Passage;
use kittiwake::wire::websocket::{
    Event as Heard, HEAD_BYTES_MAX, Opcode, Reader, Role, Rules, apply_mask, client::Wish, encode_head,
};
use rustls::{ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

const PACKET_PUBLISH: u8 = 3;
const PACKET_PUBACK: u8 = 4;
const PACKET_PINGREQ: u8 = 12;
const PACKET_PINGRESP: u8 = 13;

/// A client's end, plain or within TLS.
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    pub fn open(socket: TcpStream, secured: bool) -> Self {
        if !secured {
            return Self::Plain(socket);
        }
        let name = "edge".try_into().expect("it is a name");
        let connection = ClientConnection::new(ends().1.rustls(), name).expect("there is randomness");
        Self::Tls(Box::new(StreamOwned::new(connection, socket)))
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// An MQTT 3.1.1 client that reads exactly what it waits for.
pub struct Client {
    socket: Socket,
    /// Its packets come and go in binary messages, and what of those was not read yet.
    websocket: Option<(Reader, Vec<u8>)>,
    received: Vec<u8>,
    parsed: usize,
    /// Identifiers of messages that it has not acknowledged.
    owed: Vec<[u8; 2]>,
}

impl Client {
    pub fn connect(house: &House, name: &str, clean: bool) -> Self {
        let socket = TcpStream::connect(house.edge).expect("the shard listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        socket.set_nodelay(true).expect("an option can be set");
        let socket = Socket::open(socket, house.tls.get());
        let mut client = Self { socket, websocket: None, received: Vec::new(), parsed: 0, owed: Vec::new() };
        if house.websocket.get() {
            client.upgrade();
        }
        let flags = if clean { 0b1000_0010 } else { 0b1000_0000 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 60];
        [name, name].into_iter().for_each(|text| put_text(&mut body, text));
        client.send(0x10, &body);
        assert_eq!(client.next(), (2, 0, vec![0, 0]), "CONNACK");
        client
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let mut body = vec![0, 1];
        put_text(&mut body, filter);
        body.push(qos);
        self.send(0x82, &body);
        assert_eq!(self.next(), (9, 0, vec![0, 1, qos]), "SUBACK");
    }

    pub fn send(&mut self, first: u8, body: &[u8]) {
        let mut frame = vec![first, u8::try_from(body.len()).expect("tests send short frames")];
        assert!(body.len() < 128, "tests send short frames");
        frame.extend_from_slice(body);
        if self.websocket.is_some() {
            let key = [0x12, 0x34, 0x56, 0x78];
            let mut head = [0; HEAD_BYTES_MAX];
            let bytes = encode_head(true, Opcode::Binary, Some(key), frame.len() as u64, &mut head);
            apply_mask(&mut frame, key);
            frame.splice(..0, head[..bytes].iter().copied());
        }
        self.socket.write_all(&frame).expect("the shard reads");
    }

    pub fn upgrade(&mut self) {
        let wish = Wish { authority: "edge", path: "/mqtt", subprotocol: Some("mqtt"), nonce: [7; 16] };
        self.socket.write_all(wish.request().as_bytes()).expect("the shard reads");
        let mut answer = Vec::new();
        while wish.check(&answer).expect("it agrees").is_none() {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).expect("the shard answers");
            answer.extend(byte);
        }
        self.websocket = Some((Reader::default(), Vec::new()));
    }

    /// Takes in what was received; out of its frames, if it is in some.
    pub fn take_in(&mut self, bytes: &[u8]) {
        let Some((reader, unread)) = &mut self.websocket else { return self.received.extend_from_slice(bytes) };
        const RULES: Rules =
            Rules { role: Role::Client, text: false, frame_bytes_max: u32::MAX, message_bytes_max: None };
        unread.extend_from_slice(bytes);
        let mut at = Passage::default();
        while reader.read(unread, &mut at, &RULES).expect("the shard frames well") != Heard::NeedMore {}
        self.received.extend_from_slice(&unread[..at.write]);
        unread.drain(..at.read);
    }

    pub fn publish(&mut self, topic: &str, id: Option<u16>, payload: &[u8]) {
        let mut body = Vec::new();
        put_text(&mut body, topic);
        body.extend(id.into_iter().flat_map(u16::to_be_bytes));
        body.extend_from_slice(payload);
        self.send(if id.is_some() { 0x32 } else { 0x30 }, &body);
    }

    pub fn ask(&mut self) {
        self.send(PACKET_PINGREQ << 4, &[]);
    }

    pub fn hear(&mut self) {
        assert_eq!(self.next().0, PACKET_PINGRESP);
    }

    /// The next frame: type, flags, body.
    pub fn next(&mut self) -> (u8, u8, Vec<u8>) {
        loop {
            let unread = &self.received[self.parsed..];
            if let [first, length, rest @ ..] = unread
                && rest.len() >= usize::from(*length)
            {
                assert!(*length < 128, "tests get short frames");
                let frame = (first >> 4, first & 15, rest[..usize::from(*length)].to_vec());
                self.parsed += 2 + frame.2.len();
                return frame;
            }
            self.received.drain(..std::mem::take(&mut self.parsed));
            let mut chunk = [0; 4096];
            let count = match self.socket.read(&mut chunk) {
                // A read with a timeout is not taken up again after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the shard answers"),
            };
            assert!(count > 0, "the shard closed the connection");
            self.take_in(&chunk[..count]);
        }
    }

    /// Takes so many messages.
    pub fn take(&mut self, messages: usize) {
        for _ in 0..messages {
            let (kind, flags, body) = self.next();
            assert_eq!(kind, PACKET_PUBLISH);
            if flags & 0b0110 != 0 {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                self.owed.push([body[2 + topic], body[3 + topic]]);
            }
        }
    }

    /// Acknowledges those that want it, each in a packet of its own.
    pub fn acknowledge(&mut self) {
        for id in std::mem::take(&mut self.owed) {
            self.send(PACKET_PUBACK << 4, &id);
        }
    }
}

/// An event stream's client: it asks, and counts blocks.
pub struct Page {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Page {
    pub fn open(house: &House, query: &str) -> Self {
        let mut socket = TcpStream::connect(house.edge).expect("the shard listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let request = format!("GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("the shard reads");
        let mut page = Self { socket, received: Vec::new() };
        // The head ends like a block, and so does the position that the stream begins with.
        assert!(page.block().starts_with(b"HTTP/1.1 200 OK\r\n"));
        page.block();
        page
    }

    /// The next block.
    pub fn block(&mut self) -> Vec<u8> {
        loop {
            let end = |ending: &[u8]| self.received.windows(ending.len()).position(|part| part == ending);
            let end = end(b"\n\n").map(|at| at + 2).into_iter().chain(end(b"\r\n\r\n").map(|at| at + 4)).min();
            if let Some(end) = end {
                return self.received.drain(..end).collect();
            }
            let mut chunk = [0; 4096];
            let count = match self.socket.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("the shard answers"),
            };
            assert!(count > 0, "the shard closed the connection");
            self.received.extend_from_slice(&chunk[..count]);
        }
    }

    /// Takes so many messages; what else there is are comments.
    pub fn take(&mut self, messages: usize) {
        let mut left = messages;
        while left > 0 {
            left -= usize::from(self.block() != b":\n\n");
        }
    }
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).expect("tests use short names").to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}
