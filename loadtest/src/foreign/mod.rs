//! Owns: what clients say and hear that do not speak MQTT: of NATS, nchan, `ws`, Socket.IO, and of kittiwake's event streams.
//! In: bytes of one connection, from their first unread one. Out: a piece heard, or bytes to be said.
//! Must not: know sockets, clocks, the fleet or a run.
//! Invariants: a piece is heard whole or not at all; nothing is copied out of what came unless it must be decoded.

pub mod nats;
pub mod nchan;
pub mod pieces;
pub mod socketio;
pub mod sse;
pub mod ws;

use kittiwake::wire::websocket::Opcode;
use std::borrow::Cow;
use std::net::SocketAddr;

/// Who is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// NATS, its own text protocol.
    Nats,
    /// nchan: a WebSocket for a subscriber, HTTP for a publisher.
    Nchan,
    /// `loadtest/targets/ws.js`.
    Ws,
    /// `loadtest/targets/socketio.js`: Engine.IO 4 and Socket.IO 5 over WebSocket.
    SocketIo,
    /// An event stream of kittiwake's.
    Events,
}

/// What a server has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Nothing whole yet.
    More,
    /// A message of the topic.
    Message(Cow<'a, [u8]>),
    /// To be answered in the words of [`Tongue::reply`].
    Cue(Cue),
    /// The handshake is done.
    Ready,
    /// A publication was taken.
    Settled,
    /// A ping was answered.
    Pong,
    /// Nothing that matters.
    Nothing,
    /// What a server does not say, or its own complaint.
    Wrong(String),
}

/// What is to be said next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// The server has introduced itself.
    Introduce,
    /// The connection stands; subscribe.
    Subscribe,
    /// A protocol's own ping.
    Pong,
    /// A WebSocket's ping, with its payload.
    WebSocketPong([u8; 4], u8),
}

/// What a client wants of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Purpose<'a> {
    /// What it subscribes to; none if it publishes.
    pub topic: Option<&'a str>,
    /// Who it is, where it says so by itself.
    pub name: &'a str,
    /// User name and password, where the server wants them.
    pub credentials: Option<(&'a str, &'a str)>,
}

/// How bytes are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As they are.
    Plain,
    /// In a masked WebSocket frame.
    Frame(Opcode),
}

impl Tongue {
    /// The path of the WebSocket that such a client asks for; none where it speaks on the socket itself.
    pub fn upgrade_path(self, topic: Option<&str>) -> Option<String> {
        match self {
            Self::Nats | Self::Events => None,
            Self::Nchan => topic.map(nchan::subscriber_path),
            Self::Ws => Some(ws::path(topic)),
            Self::SocketIo => Some(socketio::PATH.to_owned()),
        }
    }

    /// Whether a client is ready as soon as it is connected, or its WebSocket is there.
    pub fn is_ready_at_once(self) -> bool {
        matches!(self, Self::Nchan | Self::Ws)
    }

    /// Whether a client speaks first once it is connected, to introduce itself.
    pub fn speaks_first(self) -> bool {
        self == Self::Events
    }

    /// The piece at the start of `bytes` that came to a subscriber or a publisher, and its length.
    #[inline]
    pub fn hear<'a>(self, subscribes: bool, bytes: &'a [u8]) -> (usize, Heard<'a>) {
        match self {
            Self::Nats => nats::hear(bytes),
            Self::Nchan if !subscribes => nchan::hear_answer(bytes),
            Self::Nchan | Self::Ws => ws::hear(bytes),
            Self::SocketIo => socketio::hear(subscribes, bytes),
            Self::Events => sse::hear(bytes),
        }
    }

    /// The answer to a cue, written behind what `out` has.
    pub fn reply(self, cue: Cue, purpose: Purpose<'_>, out: &mut Vec<u8>) -> Manner {
        if let Cue::WebSocketPong(payload, bytes) = cue {
            out.extend_from_slice(&payload[..usize::from(bytes)]);
            return Manner::Frame(Opcode::Pong);
        }
        match self {
            Self::Nats => {
                nats::reply(cue, purpose, out);
                Manner::Plain
            }
            Self::SocketIo => {
                socketio::reply(cue, purpose, out);
                Manner::Frame(Opcode::Text)
            }
            Self::Events => {
                sse::reply(purpose, out);
                Manner::Plain
            }
            Self::Nchan | Self::Ws => unreachable!("their servers give no cues but a WebSocket's ping"),
        }
    }

    /// A publication.
    pub fn publish(self, topic: &str, server: SocketAddr, payload: &[u8], out: &mut Vec<u8>) -> Manner {
        match self {
            Self::Nats => nats::publish(topic, payload, out),
            Self::Nchan => nchan::publish(topic, server, payload, out),
            Self::Ws => {
                ws::publish(topic, payload, out);
                return Manner::Frame(Opcode::Binary);
            }
            Self::SocketIo => {
                socketio::publish(topic, payload, out);
                return Manner::Frame(Opcode::Text);
            }
            Self::Events => unreachable!("what goes to event streams is published over MQTT"),
        }
        Manner::Plain
    }

    /// A sign of life that the server answers.
    pub fn ping(self, out: &mut Vec<u8>) -> Manner {
        match self {
            Self::Nats => {
                out.extend_from_slice(nats::PING);
                Manner::Plain
            }
            Self::Nchan | Self::Ws | Self::SocketIo => Manner::Frame(Opcode::Ping),
            Self::Events => unreachable!("who listens to an event stream says nothing"),
        }
    }
}
