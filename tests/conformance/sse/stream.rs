//! An event stream's client: sends one request, and shows what comes.

use crate::client::Client;
pub use crate::event_stream::Event;
use crate::event_stream::Parser;
use crate::node::Node;

pub struct Stream {
    client: Client,
    head: Vec<u8>,
    is_open: bool,
    parser: Parser,
    events: std::collections::VecDeque<Event>,
}

/// All that is said to a request.
pub fn answer(node: &Node, request: &str) -> String {
    let mut client = node.dial();
    client.send(request.as_bytes());
    String::from_utf8(client.take_bytes()).expect("answers are text")
}

impl Stream {
    /// Asks, and lets the node come to rest.
    pub fn open(node: &Node, query: &str) -> Self {
        let mut stream = Self::start(node, query);
        stream.read();
        stream
    }

    /// Comes back with a position.
    pub fn resume(node: &Node, query: &str, last: &str) -> Self {
        let mut stream = Self::ask(node, query, &format!("Last-Event-ID: {last}\r\n"));
        stream.read();
        stream
    }

    /// Asks, and lets nobody run behind that.
    pub fn start(node: &Node, query: &str) -> Self {
        Self::ask(node, query, "")
    }

    fn ask(node: &Node, query: &str, headers: &str) -> Self {
        let mut client = node.dial();
        let request = format!("GET /events?{query} HTTP/1.1\r\nHost: edge.example\r\n{headers}\r\n");
        assert_eq!(client.write(request.as_bytes()), request.len());
        let (head, parser, events) = (Vec::new(), Parser::default(), Default::default());
        Self { client, head, is_open: false, parser, events }
    }

    fn took(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if !self.is_open {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|end| end == b"\r\n\r\n") else { return };
            self.is_open = true;
            let body = self.head.split_off(end + 4);
            let mut events = Vec::new();
            self.parser.feed(&body, &mut events);
            self.events.extend(events);
            bytes = b"";
        }
        let mut events = Vec::new();
        self.parser.feed(bytes, &mut events);
        self.events.extend(events);
    }

    fn read(&mut self) {
        let bytes = self.client.take_bytes();
        self.took(&bytes);
    }

    /// Whether the head has come; lets nobody run.
    pub fn has_begun(&mut self) -> bool {
        self.client.peek().is_some() || self.is_open
    }

    pub fn status(&mut self) -> u16 {
        self.read();
        let head = std::str::from_utf8(&self.head).expect("a head is text");
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {head:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).expect("a head is text");
        let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The next event; there must be one.
    pub fn next(&mut self) -> Event {
        self.read();
        self.events.pop_front().expect("an event was expected")
    }

    pub fn take(&mut self, count: usize) -> Vec<Event> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Everything that comes.
    pub fn rest(&mut self) -> Vec<Event> {
        self.read();
        self.events.drain(..).collect()
    }

    pub fn expect_nothing(&mut self) {
        self.read();
        assert_eq!(self.events, [], "nothing was expected");
    }

    /// What the client would come back with.
    pub fn last_id(&self) -> &str {
        &self.parser.last_id
    }

    /// What it would have come back with before the first event.
    pub fn take_first_id(&mut self) -> String {
        self.read();
        self.parser.first_id.clone().expect("an id was expected")
    }

    pub fn retry(&self) -> Option<u64> {
        self.parser.retry
    }

    pub fn comments(&self) -> usize {
        self.parser.comments
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
    }

    pub fn is_closed(&mut self) -> bool {
        self.read();
        self.client.is_closed()
    }

    pub fn hang_up(self) {
        self.client.hang_up();
    }
}
