//! Handshakes of TLS, by the server's time for one: rustls by itself, as its own connection does it in memory, beside
//! kittiwake's end of a connection, which is rustls without its buffers. Whole handshakes and resumed ones, TLS 1.3, a
//! certificate of P-256. The client's part is not counted. `cargo bench -p benches --bench handshake`.

#![allow(missing_docs, reason = "a benchmark")]

use kittiwake::base::transform::Passage;
use kittiwake::wire::tls::{Client, Identity, Pair, Server, Session, TICKET_KEY_BYTES, TicketKey, Trust};
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As the gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Handshakes of a kind that are timed, in turns with those of the others.
const HANDSHAKES: usize = 1_500;
/// Handshakes before them, which warm what is warm in a server.
const WARM_UP: usize = 100;
const NAME: &str = "edge";
const KEY: [u8; TICKET_KEY_BYTES] = [7; TICKET_KEY_BYTES];

/// The server's end of one connection, and the time that it took.
trait End {
    /// Takes what the client sent; what it answers.
    fn takes(&mut self, bytes: &mut Vec<u8>) -> Vec<u8>;
    fn is_open(&self) -> bool;
    fn is_resumed(&self) -> bool;
}

impl End for ServerConnection {
    fn takes(&mut self, bytes: &mut Vec<u8>) -> Vec<u8> {
        let (mut unread, mut answer) = (&bytes[..], Vec::new());
        while !unread.is_empty() {
            self.read_tls(&mut unread).expect("it is in memory");
            self.process_new_packets().expect("the client keeps the rules");
        }
        while self.wants_write() {
            self.write_tls(&mut answer).expect("it is in memory");
        }
        bytes.clear();
        answer
    }
    fn is_open(&self) -> bool {
        !self.is_handshaking()
    }
    fn is_resumed(&self) -> bool {
        self.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl End for Session {
    fn takes(&mut self, bytes: &mut Vec<u8>) -> Vec<u8> {
        let (mut at, mut answer) = (Passage::default(), Vec::new());
        self.read(bytes, &mut at, &mut answer);
        bytes.drain(..at.read);
        answer
    }
    fn is_open(&self) -> bool {
        Self::is_open(self)
    }
    fn is_resumed(&self) -> bool {
        Self::is_resumed(self)
    }
}

/// One handshake: the server's time for it.
fn handshake<E: End>(client: &Client, begin: impl FnOnce() -> E, resumed: bool) -> Duration {
    let name = ServerName::try_from(NAME).expect("it is a name");
    let mut client = ClientConnection::new(client.rustls(), name).expect("there is randomness");
    let start = Instant::now();
    let mut server = begin();
    let (mut spent, mut up) = (start.elapsed(), Vec::new());
    while !server.is_open() || client.is_handshaking() || client.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut up).expect("it is in memory");
        }
        let start = Instant::now();
        let down = server.takes(&mut up);
        spent += start.elapsed();
        let mut unread = &down[..];
        while !unread.is_empty() {
            client.read_tls(&mut unread).expect("it is in memory");
            client.process_new_packets().expect("the server keeps the rules");
        }
    }
    // A ticket comes after the handshake; nothing else does.
    assert!(client.reader().read(&mut [0]).is_err(), "nobody said anything");
    assert_eq!(server.is_resumed(), resumed, "the handshake is of the kind that is timed");
    spent
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("it signs");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together");
    let identity = Identity { pairs: vec![pair], peers: None, only_1_3: true, protocols: &[] };
    let ours = Server::new(&identity, &[TicketKey::from(KEY)]).expect("it is complete");

    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("it is a key");
    let mut bare = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has it")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("they belong together");
    bare.ticketer = Ticketer::new().expect("there is randomness");
    // As many as ours sends.
    bare.send_tls13_tickets = 1;
    let bare = Arc::new(bare);

    for resumed in [false, true] {
        let client = || Client::new(&Trust::Anybody, resumed, None).expect("it needs nothing");
        let (of_bare, of_ours) = (client(), client());
        let begin_bare = || ServerConnection::new(Arc::clone(&bare)).expect("it is complete");
        let begin_ours = || Session::server(&ours).expect("it is complete");
        let (mut times_of_bare, mut times_of_ours) = (Vec::new(), Vec::new());
        for number in 0..WARM_UP + HANDSHAKES {
            // The first one of a client that resumes has nothing to take up.
            let resumed = resumed && number > 0;
            let both = [handshake(&of_bare, begin_bare, resumed), handshake(&of_ours, begin_ours, resumed)];
            if number >= WARM_UP {
                times_of_bare.push(both[0]);
                times_of_ours.push(both[1]);
            }
        }
        let (bare, ours) = (median(times_of_bare), median(times_of_ours));
        let kind = if resumed { "resumed" } else { "whole" };
        println!(
            "{kind}: rustls {bare:.1} µs, {:.0} a second; kittiwake {ours:.1} µs, {:.0} a second; ratio {:.3}",
            1e6 / bare,
            1e6 / ours,
            ours / bare
        );
    }
}
