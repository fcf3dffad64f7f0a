//! Reads an event stream as HTML §9.2.5 and §9.2.6 say, written from there: for tests that act as a page.

/// An event as a page sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
    /// The last event id at its dispatch.
    pub id: String,
}

impl Event {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {}", self.data))
    }

    /// The payload inside the envelope.
    pub fn payload(&self) -> String {
        payload_of(&self.json())
    }
}

/// The payload in a message's envelope.
pub fn payload_of(json: &serde_json::Value) -> String {
    json["payload"].as_str().unwrap_or_else(|| panic!("no payload in {json}")).to_owned()
}

/// The parser: lines end with CRLF, LF or CR; a line is a comment, a field, or ends an event.
#[derive(Default)]
pub struct Parser {
    unread: Vec<u8>,
    has_begun: bool,
    data: String,
    name: String,
    id_buffer: String,
    /// What the page would come back with.
    pub last_id: String,
    /// The first position it was told; none: none yet.
    pub first_id: Option<String>,
    /// Milliseconds.
    pub retry: Option<u64>,
    pub comments: usize,
}

impl Parser {
    pub fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) {
        self.unread.extend_from_slice(bytes);
        if !self.has_begun && !self.unread.is_empty() {
            self.has_begun = true;
            if self.unread.starts_with(b"\xEF\xBB\xBF") {
                self.unread.drain(..3);
            }
        }
        while let Some(end) = self.unread.iter().position(|&byte| byte == b'\n' || byte == b'\r') {
            if self.unread[end] == b'\r' && end + 1 == self.unread.len() {
                return;
            }
            let skipped = if self.unread[end..].starts_with(b"\r\n") { 2 } else { 1 };
            let line: Vec<u8> = self.unread.drain(..end + skipped).take(end).collect();
            self.line(&String::from_utf8_lossy(&line), events);
        }
    }

    fn line(&mut self, line: &str, events: &mut Vec<Event>) {
        if line.is_empty() {
            return self.dispatch(events);
        }
        if line.starts_with(':') {
            self.comments += 1;
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id_buffer = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            other => panic!("a field that means nothing: {other:?} {value:?}"),
        }
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        if self.last_id != self.id_buffer {
            self.last_id.clone_from(&self.id_buffer);
            self.first_id.get_or_insert_with(|| self.last_id.clone());
        }
        let (mut data, name) = (std::mem::take(&mut self.data), std::mem::take(&mut self.name));
        if data.is_empty() {
            return;
        }
        data.pop();
        let name = if name.is_empty() { "message".to_owned() } else { name };
        events.push(Event { name, data, id: self.last_id.clone() });
    }
}
