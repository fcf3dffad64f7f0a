//! One connection's end of TLS: records to plain bytes in place, plain bytes to records.

use super::identity::Server;
use super::names::{NameFrom, user_of};
use crate::base::nest::{Nest, Nests};
use crate::base::transform::Passage;
use core::fmt;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, HandshakeKind};

/// Head of a record: its type, version and length, RFC 8446 §5.1.
const HEAD_BYTES: usize = 5;
/// Plain bytes of a record at most.
const PLAIN_BYTES_MAX: usize = 1 << 14;
/// What a record adds at most in the suites that rustls has: head, a nonce of 8, a tag of 16, the inner type.
const OVERHEAD_BYTES_MAX: usize = HEAD_BYTES + 8 + 16 + 1;
/// A key update that rustls puts in front of what it encrypts.
const KEY_UPDATE_BYTES_MAX: usize = OVERHEAD_BYTES_MAX + 5;

/// What reading has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// All that can be read has been.
    All,
    /// The peer has said that it ends. What it sent after that is not looked at.
    End,
    /// The peer broke the rules. Nothing more is read or written.
    Broken,
}

/// Both ends work alike, but are two types.
enum End {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// Ours has been said; the peer's may still come.
    Closed,
    Broken,
}

/// One connection's. Neither end keeps bytes for it: what is left unread is offered again.
pub struct Session {
    end: End,
    /// Whole records at the start of what is unread that rustls has seen and still refers to: parts of a message.
    seen: usize,
    phase: Phase,
    peer_ended: bool,
    name_from: NameFrom,
    /// Who the peer's certificate names.
    user: Option<Box<str>>,
}

impl Nests for Session {
    fn nest() -> &'static Nest<Self> {
        static NEST: Nest<Session> = Nest::new();
        &NEST
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("phase", &self.phase).field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Session {
    /// The server's end.
    ///
    /// # Errors
    /// The configuration cannot be used; one that was made by [`super::Identity`] can.
    pub fn server(server: &Server) -> Result<Self, rustls::Error> {
        let end = End::Server(UnbufferedServerConnection::new(server.config())?);
        Ok(Self::new(end, server.name_from()))
    }

    /// The client's end, and its first words.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn client(client: &super::Client, name: ServerName<'static>) -> Result<(Self, Vec<u8>), rustls::Error> {
        let end = End::Client(UnbufferedClientConnection::new(client.config(), name)?);
        let mut session = Self::new(end, NameFrom::default());
        let mut hello = Vec::new();
        session.read(&mut [], &mut Passage::default(), &mut hello);
        Ok((session, hello))
    }

    fn new(end: End, name_from: NameFrom) -> Self {
        Self { end, seen: 0, phase: Phase::Handshake, peer_ended: false, name_from, user: None }
    }

    /// Whether it is not agreed yet how records are made.
    pub fn is_handshaking(&self) -> bool {
        self.phase == Phase::Handshake
    }

    /// Whether records can be made.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the peer broke the rules.
    pub fn is_broken(&self) -> bool {
        self.phase == Phase::Broken
    }

    /// Who the peer's certificate names, once the handshake is over.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether the handshake took up an earlier one's.
    pub fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    fn common(&self) -> &CommonState {
        match &self.end {
            End::Server(server) => server,
            End::Client(client) => client,
        }
    }

    /// Reads on in `bytes`, from `at.read`: plain bytes are moved to `at.write`, which must not be beyond it. What has to
    /// be sent is put behind `records`.
    pub fn read(&mut self, bytes: &mut [u8], at: &mut Passage, records: &mut Vec<u8>) -> Heard {
        if self.phase == Phase::Broken {
            at.read = bytes.len();
            return Heard::Broken;
        }
        if self.peer_ended {
            return Heard::End;
        }
        let whole = whole_records(bytes, at.read + self.seen);
        let heard = match &mut self.end {
            End::Server(server) => read(server, bytes, at, records),
            End::Client(client) => read(client, bytes, at, records),
        };
        match heard {
            Heard::Broken => {
                self.phase = Phase::Broken;
                self.seen = 0;
                at.read = bytes.len();
            }
            Heard::End => (self.peer_ended, self.seen) = (true, 0),
            // It takes all whole records, and refers to those that it has not let go.
            Heard::All => self.seen = whole.saturating_sub(at.read),
        }
        if self.phase == Phase::Handshake && !self.common().is_handshaking() {
            self.phase = Phase::Open;
            let chain = self.common().peer_certificates();
            let user = chain.and_then(|chain| user_of(chain.first()?, self.name_from));
            self.user = user;
        }
        heard
    }

    /// Room that records of so many bytes need at most.
    pub fn record_bytes_max(plain_bytes: usize) -> usize {
        plain_bytes + plain_bytes.div_ceil(PLAIN_BYTES_MAX) * OVERHEAD_BYTES_MAX + KEY_UPDATE_BYTES_MAX
    }

    /// Makes records of `plain` at the start of `into`, which has room; their length. None: the keys are used up, or the
    /// connection is not open.
    pub fn write(&mut self, plain: &[u8], into: &mut [u8]) -> Option<usize> {
        if self.phase != Phase::Open {
            return None;
        }
        self.traffic(|encrypt| encrypt.records(plain, into))
    }

    /// Says that we end, once.
    pub fn close(&mut self, records: &mut Vec<u8>) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Closed;
        let mut alert = [0; 2 * OVERHEAD_BYTES_MAX];
        if let Some(bytes) = self.traffic(|encrypt| encrypt.goodbye(&mut alert)) {
            records.extend_from_slice(&alert[..bytes]);
        }
    }

    fn traffic(&mut self, act: impl FnOnce(&mut dyn Encrypt) -> Option<usize>) -> Option<usize> {
        // rustls skips over what it has seen, so as many bytes have to be there, whatever they are. There are some only
        // while a peer has sent a part of a message after the handshake.
        let mut seen = vec![0; self.seen];
        match &mut self.end {
            End::Server(server) => traffic(server, &mut seen, act),
            End::Client(client) => traffic(client, &mut seen, act),
        }
    }
}

/// Where the first record that is not whole begins, from `start` on.
fn whole_records(bytes: &[u8], mut start: usize) -> usize {
    while let Some([_, _, _, high, low]) = bytes.get(start..start + HEAD_BYTES) {
        let end = start + HEAD_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        if end > bytes.len() {
            break;
        }
        start = end;
    }
    start.min(bytes.len())
}

/// What both ends have in common.
trait Steps {
    type Data;
    fn step<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
}

impl Steps for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn step<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

impl Steps for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn step<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

/// What a step asks for, without what it borrows.
enum Asks {
    /// Plain bytes are there to be taken.
    Take,
    Again,
    Done(Heard),
}

fn read<S: Steps>(end: &mut S, bytes: &mut [u8], at: &mut Passage, records: &mut Vec<u8>) -> Heard {
    loop {
        let UnbufferedStatus { discard, state } = end.step(&mut bytes[at.read..]);
        let asks = match state {
            Ok(ConnectionState::ReadTraffic(_)) => Asks::Take,
            Ok(ConnectionState::EncodeTlsData(mut chunk)) => {
                encode(&mut chunk, records);
                Asks::Again
            }
            Ok(ConnectionState::TransmitTlsData(sent)) => {
                sent.done();
                Asks::Again
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Asks::Done(Heard::All),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => return Heard::End,
            // Early data is refused in the handshake; what else there may be is unknown.
            Ok(_) => Asks::Done(Heard::Broken),
            Err(_) => {
                last_words(end, records);
                return Heard::Broken;
            }
        };
        at.read += discard;
        match asks {
            Asks::Take => take(end, bytes, at),
            Asks::Again => {}
            Asks::Done(heard) => return heard,
        }
    }
}

/// A client whose end is rustls' own.
#[cfg(test)]
pub(super) fn tests_read(
    client: &mut UnbufferedClientConnection,
    bytes: &mut [u8],
    at: &mut Passage,
    records: &mut Vec<u8>,
) -> Heard {
    read(client, bytes, at, records)
}

/// Takes the plain bytes of the record that was let go last. They have been copied out of it, so they may lie upon it.
fn take<S: Steps>(end: &mut S, bytes: &mut [u8], at: &mut Passage) {
    let UnbufferedStatus { state, .. } = end.step(&mut []);
    let Ok(ConnectionState::ReadTraffic(mut traffic)) = state else {
        unreachable!("what was there to be taken a moment ago is there until it is");
    };
    while let Some(Ok(record)) = traffic.next_record() {
        let write = at.write + record.payload.len();
        assert!(write <= at.read, "a record is longer than what is in it");
        bytes[at.write..write].copy_from_slice(record.payload);
        at.write = write;
    }
}

fn encode<D>(chunk: &mut EncodeTlsData<'_, D>, records: &mut Vec<u8>) {
    let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = chunk.encode(&mut []) else {
        return;
    };
    let start = records.len();
    records.resize(start + required_size, 0);
    let encoded = chunk.encode(&mut records[start..]);
    assert!(matches!(encoded, Ok(bytes) if bytes == required_size), "it takes the room that it asks for");
}

/// The alert that tells the peer what it did. rustls gives what it has to say before it looks at anything; once there is
/// no more it may not be asked again, for it would judge the peer a second time.
fn last_words<S: Steps>(end: &mut S, records: &mut Vec<u8>) {
    while end.common().wants_write() {
        match end.step(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut chunk)) => encode(&mut chunk, records),
            _ => return,
        }
    }
}

/// What may be done with an open connection.
trait Encrypt {
    fn records(&mut self, plain: &[u8], into: &mut [u8]) -> Option<usize>;
    fn goodbye(&mut self, into: &mut [u8]) -> Option<usize>;
}

impl<D> Encrypt for WriteTraffic<'_, D> {
    fn records(&mut self, plain: &[u8], into: &mut [u8]) -> Option<usize> {
        self.encrypt(plain, into).ok()
    }
    fn goodbye(&mut self, into: &mut [u8]) -> Option<usize> {
        self.queue_close_notify(into).ok()
    }
}

fn traffic<S: Steps>(
    end: &mut S,
    seen: &mut [u8],
    act: impl FnOnce(&mut dyn Encrypt) -> Option<usize>,
) -> Option<usize> {
    match end.step(seen).state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => act(&mut traffic),
        _ => None,
    }
}
