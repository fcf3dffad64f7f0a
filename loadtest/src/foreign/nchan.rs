//! nchan, a module of nginx: publications are HTTP requests on a connection that stays; their answers follow in order.

use super::{Heard, pieces};
use std::io::Write;
use std::net::SocketAddr;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Longest body of an answer: a few lines about the channel.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Where subscribers of a channel connect.
pub fn subscriber_path(topic: &str) -> String {
    format!("/sub?topic={topic}")
}

/// A publication.
pub fn publish(topic: &str, server: SocketAddr, payload: &[u8], out: &mut Vec<u8>) {
    write!(
        out,
        "POST /pub?topic={topic} HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\n\r\n",
        payload.len()
    )
    .expect("memory takes what is written to it");
    out.extend_from_slice(payload);
}

/// An answer to a publication: 201 where somebody subscribes, 202 where nobody does.
pub fn hear_answer(bytes: &[u8]) -> (usize, Heard<'_>) {
    let wrong = |text: &str| (bytes.len(), Heard::Wrong(text.to_owned()));
    let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.len() > HEAD_BYTES_MAX { wrong("a head without an end") } else { (0, Heard::More) };
    };
    let (mut status, mut body, mut at) = (None, 0, 0);
    while let Ok(Some((line, used))) = pieces::line(&bytes[at..head]) {
        let line = core::str::from_utf8(line).unwrap_or_default();
        if at == 0 {
            status = line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            match value.trim().parse() {
                Ok(length) if length <= BODY_BYTES_MAX => body = length,
                _ => return wrong("an answer whose length is none"),
            }
        }
        at += used;
    }
    if bytes.len() < head + body {
        return (0, Heard::More);
    }
    match status {
        Some(201 | 202) => (head + body, Heard::Settled),
        Some(status) => (bytes.len(), Heard::Wrong(format!("a publication was answered by {status}"))),
        None => wrong("an answer without a status"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_one_by_one() {
        let one = b"HTTP/1.1 201 Created\r\nServer: nginx\r\ncontent-length: 5\r\n\r\nhello";
        for end in 0..one.len() {
            assert_eq!(hear_answer(&one[..end]), (0, Heard::More));
        }
        let two = [&one[..], one].concat();
        assert_eq!(hear_answer(&two), (one.len(), Heard::Settled));
        assert_eq!(hear_answer(b"HTTP/1.1 202 Accepted\r\n\r\n").1, Heard::Settled);
    }

    #[test]
    fn refusals_are_wrong() {
        for wrong in [
            &b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 201 Created\r\nContent-Length: x\r\n\r\n",
            b"what?\r\n\r\n",
        ] {
            assert!(matches!(hear_answer(wrong).1, Heard::Wrong(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_publication_is_a_whole_request() {
        let mut out = Vec::new();
        publish("a/b", SocketAddr::from(([127, 0, 0, 1], 9)), b"xy", &mut out);
        let text = String::from_utf8(out).expect("it is text");
        assert!(
            text.starts_with("POST /pub?topic=a/b HTTP/1.1\r\nHost: 127.0.0.1:9\r\n") && text.ends_with("2\r\n\r\nxy")
        );
    }
}
