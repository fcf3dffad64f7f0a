//! The head of an answer that is an event stream, and of one to a preflight (WHATWG Fetch, CORS protocol).

use std::io::Write;

/// Appends the head. `origin`: the page that may read it; none: no page asked, or one of the same origin.
///
/// The stream ends with the connection (see the module). `X-Accel-Buffering` tells nginx to pass blocks on as they come.
pub fn encode_head(origin: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n");
    out.extend_from_slice(b"X-Accel-Buffering: no\r\nConnection: close\r\n");
    encode_origin(origin, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the whole answer to a preflight: which requests the page may make, and for how long it need not ask again.
pub fn encode_preflight(origin: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 204 No Content\r\nAllow: GET, OPTIONS\r\n");
    if origin.is_some() {
        out.extend_from_slice(b"Access-Control-Allow-Methods: GET\r\n");
        out.extend_from_slice(b"Access-Control-Allow-Headers: Last-Event-ID, Authorization, Cache-Control\r\n");
        out.extend_from_slice(b"Access-Control-Max-Age: 600\r\n");
    }
    encode_origin(origin, out);
    out.extend_from_slice(b"Cache-Control: no-store\r\nConnection: close\r\n\r\n");
}

/// The caller has let the origin in; it is named, not `*`, as the answer is another page's tomorrow.
pub(in crate::wire) fn encode_origin(origin: Option<&str>, out: &mut Vec<u8>) {
    if let Some(origin) = origin {
        write!(out, "Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n").expect("a Vec takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn a_page_of_another_origin_is_named_and_no_other_may_read() {
        let plain = text(|out| encode_head(None, out));
        assert!(plain.starts_with("HTTP/1.1 200 OK\r\n") && plain.ends_with("\r\n\r\n") && !plain.contains("Origin"));
        let shared = text(|out| encode_head(Some("https://app.example"), out));
        assert!(
            shared.contains("\r\nAccess-Control-Allow-Origin: https://app.example\r\nVary: Origin\r\n"),
            "{shared}"
        );
    }

    #[test]
    fn a_preflight_is_told_what_a_page_may_do() {
        let told = text(|out| encode_preflight(Some("https://app.example"), out));
        for line in ["Access-Control-Allow-Methods: GET", "Access-Control-Max-Age: 600", "Allow: GET, OPTIONS"] {
            assert!(told.split("\r\n").any(|other| other == line), "{told}");
        }
        assert!(!text(|out| encode_preflight(None, out)).contains("Access-Control"));
    }
}
