//! Clients within TLS, and behind balancers.

use super::wire::Wire;
use super::{Client, Hello};
use crate::node::Node;
use crate::websocket::{self, WebSocket};
use kittiwake::io::sim::Peer;
use kittiwake::wire::tls::{self, Heard, Identity, Pair, TicketKey, Trust};
use kittiwake::wire::websocket::Opcode;
use std::sync::OnceLock;

/// A server, and a client that trusts anybody.
pub fn ends() -> &'static (tls::Server, tls::Client) {
    static ENDS: OnceLock<(tls::Server, tls::Client)> = OnceLock::new();
    ENDS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["edge".to_owned()]).expect("it signs");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let pair = Pair::from_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together");
        let identity = Identity { pairs: vec![pair], peers: None, only_1_3: false, protocols: &[] };
        let key = TicketKey::from([7; tls::TICKET_KEY_BYTES]);
        let client = tls::Client::new(&Trust::Anybody, false, None).expect("it needs nothing");
        (tls::Server::new(&identity, &[key]).expect("it is complete"), client)
    })
}

impl Client {
    /// Within TLS, agreed upon.
    pub fn dial_secured(node: &Node, client: &tls::Client) -> Self {
        Self::dial_plain(node).secured(client)
    }

    /// Plain, whatever others are.
    pub fn dial_plain(node: &Node) -> Self {
        let peer = Peer::connect(node.net(), node.address());
        node.run();
        Self::over(node, Wire::plain(peer))
    }

    /// The same, from an address of its own.
    pub fn dial_plain_from(node: &Node, from: &str) -> Self {
        let peer = Peer::connect_from(node.net(), from.parse().expect("an address"), node.address());
        node.run();
        Self::over(node, Wire::plain(peer))
    }

    /// The same connection within TLS from here on.
    pub fn secured(self, client: &tls::Client) -> Self {
        let Self { node, peer, .. } = self;
        let wire = peer.secure(&node, client);
        Self::over(&node, wire)
    }

    /// Has begun a handshake, and does not go on with it.
    pub fn dial_greeting(node: &Node, client: &tls::Client) -> Self {
        let greeting = Self::dial_greeting_unseen(node, client);
        node.run();
        greeting
    }

    /// The same, before anybody has seen it.
    pub fn dial_greeting_unseen(node: &Node, client: &tls::Client) -> Self {
        let peer = Peer::connect(node.net(), node.address());
        Self::over(node, Wire::plain(peer).greet(client))
    }

    /// Goes on with a handshake that has begun; whether both agreed.
    pub fn answers_handshake(&mut self) -> bool {
        self.node.run();
        self.peer.read_all();
        self.node.run();
        self.peer.heard().is_some_and(|(is_open, _)| is_open)
    }

    /// Whether both have agreed, and what was heard last within TLS.
    pub fn heard(&self) -> Option<(bool, Heard)> {
        self.peer.heard()
    }

    /// Writes what is received together with what is sent next.
    pub fn write_first(&mut self, bytes: &[u8]) {
        assert_eq!(self.write(bytes), bytes.len());
    }

    /// Sends bytes as they are, below TLS.
    pub fn send_below(&mut self, bytes: &[u8]) {
        self.peer.write_below(bytes);
        self.node.run();
    }

    /// Asks for a WebSocket and says its CONNECT without waiting for the answer.
    pub fn upgrade_at_once(&mut self, target: &str, hello: &Hello<'_>) {
        self.version = hello.0.version;
        let frame = websocket::frame(true, Opcode::Binary, &hello.frame());
        self.send(&[websocket::request(target, &[]).as_bytes(), &frame].concat());
        let mut came = self.take_bytes();
        let end = came.windows(4).position(|four| four == b"\r\n\r\n").expect("the answer is whole") + 4;
        let rest = came.split_off(end);
        websocket::assert_accepted(core::str::from_utf8(&came).expect("an answer is text"));
        let mut websocket = WebSocket::default();
        websocket.take(&rest, &mut self.unread);
        self.websocket = Some(websocket);
    }
}
