//! A small HTTP/1.1 client for the gateway's API: one request, one connection, bounded in time and size.

use crate::Failure;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A push to many may wait for its commit and for every shard.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest line of an answer's head.
const HEAD_LINE_BYTES_MAX: u64 = 8 << 10;
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A connection that stays open from one request to the next.
pub struct Conversation {
    stream: BufReader<TcpStream>,
}

/// Where the API is.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    key: Option<String>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: String,
}

/// Figures of `/v1/stats`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// What is held now, over all shards.
    pub gauges: BTreeMap<String, u64>,
    /// What ever happened, over all shards.
    pub counters: BTreeMap<String, u64>,
}

impl Api {
    pub fn new(address: SocketAddr, key: Option<String>) -> Self {
        Self { address, key }
    }

    /// Whether `/readyz` says yes.
    pub fn ready(&self) -> bool {
        self.request("GET", "/readyz", None).is_ok_and(|answer| answer.status == 200)
    }

    /// `POST /v1/push`.
    pub fn push(&self, body: &Value) -> Result<Value, Failure> {
        let answer = self.request("POST", "/v1/push", Some(&body.to_string()))?;
        if answer.status != 200 {
            return Err(format!("push: {} {}", answer.status, answer.body.trim()).into());
        }
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// `GET /v1/stats`.
    pub fn stats(&self) -> Result<Stats, Failure> {
        let answer = self.request("GET", "/v1/stats", None)?;
        if answer.status != 200 {
            return Err(format!("stats: {} {}", answer.status, answer.body.trim()).into());
        }
        let value: Value = serde_json::from_str(&answer.body)?;
        let numbers = |name: &str| {
            let object = value["total"][name].as_object();
            object.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_u64()?))).collect()
        };
        Ok(Stats { gauges: numbers("gauges"), counters: numbers("counters") })
    }

    /// `POST` with JSON over a connection that is opened where there is none, and dropped when it fails. Any status:
    /// a problem is an answer.
    pub fn ask(&self, conversation: &mut Option<Conversation>, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut open = match conversation.take() {
            Some(open) => open,
            None => Conversation { stream: BufReader::new(self.connect()?) },
        };
        open.stream.get_mut().write_all(self.head("POST", path, Some(&body.to_string()), false).as_bytes())?;
        let answer = open.answer()?;
        *conversation = Some(open);
        Ok(serde_json::from_str(&answer)?)
    }

    fn connect(&self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }

    /// A whole request.
    fn head(&self, method: &str, path: &str, body: Option<&str>, last: bool) -> String {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        if last {
            request += "connection: close\r\n";
        }
        if let Some(key) = &self.key {
            request += &format!("authorization: Bearer {key}\r\n");
        }
        if let Some(body) = body {
            request += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        request += "\r\n";
        request + body.unwrap_or_default()
    }

    fn request(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer, Failure> {
        let mut stream = self.connect()?;
        stream.write_all(self.head(method, path, body, true).as_bytes())?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        parse(&String::from_utf8_lossy(&bytes))
    }
}

impl Conversation {
    /// The body of the next answer, whose length its head says.
    fn answer(&mut self) -> Result<String, Failure> {
        let mut bytes = None;
        loop {
            let mut line = String::new();
            if (&mut self.stream).take(HEAD_LINE_BYTES_MAX).read_line(&mut line)? == 0 {
                return Err("the API has ended the connection".into());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                bytes = Some(value.trim().parse::<u64>()?);
            }
        }
        let bytes = bytes.filter(|&bytes| bytes <= ANSWER_BYTES_MAX).ok_or("the API's answer has no length")?;
        let mut body = vec![0; usize::try_from(bytes)?];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8(body)?)
    }
}

fn parse(text: &str) -> Result<Answer, Failure> {
    let (head, body) = text.split_once("\r\n\r\n").ok_or("the API's answer has no end of its head")?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("the API's answer has no status")?;
    let chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Ok(Answer { status, body })
}

fn unchunk(mut body: &str) -> Result<String, Failure> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").ok_or("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole += rest.get(..size).ok_or("a chunk was cut")?;
        body = rest.get(size + 2..).ok_or("a chunk without an end")?;
    }
}

/// Standard base64, as JSON carries payloads.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= group.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_what_the_standard_says() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn chunked_and_plain_answers_are_read() {
        let plain = parse("HTTP/1.1 200 OK\r\nx: y\r\n\r\n{}").expect("it is whole");
        assert_eq!((plain.status, plain.body.as_str()), (200, "{}"));
        let chunked = parse("HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
        let chunked = chunked.expect("it is whole");
        assert_eq!((chunked.status, chunked.body.as_str()), (503, "abc"));
    }
}
