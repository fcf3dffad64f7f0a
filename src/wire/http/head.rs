//! The head of a request: its line and its headers (RFC 9112).

use super::answer::Status;
use super::query::Query;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_TARGET_BYTES_MAX};
use httparse::{EMPTY_HEADER, Header, Request};

/// Why there is no head. All are the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It is not HTTP, or contradicts itself.
    Malformed,
    /// No `Host`, or several (RFC 9112 §3.2).
    Host,
    /// It brings a body, and nothing here takes one.
    Body,
    /// The target is longer than [`HTTP_TARGET_BYTES_MAX`].
    TargetTooLong,
    /// Longer than [`HTTP_HEAD_BYTES_MAX`], or more headers than [`HTTP_HEADERS_MAX`].
    TooLarge,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
}

impl HeadError {
    /// The status that says so.
    pub fn status(self) -> Status {
        match self {
            Self::Malformed | Self::Host | Self::Body => Status::BAD_REQUEST,
            Self::TargetTooLong => Status::URI_TOO_LONG,
            Self::TooLarge => Status::HEADERS_TOO_LARGE,
            Self::Version => Status::VERSION_NOT_SUPPORTED,
        }
    }

    /// The same for people.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Malformed => "the head of the request cannot be read",
            Self::Host => "a request has exactly one Host",
            Self::Body => "requests here have no body",
            Self::TargetTooLong => "the request's target is too long",
            Self::TooLarge => "the head of the request is too large",
            Self::Version => "HTTP/1.0 and HTTP/1.1 are spoken here",
        }
    }
}

/// A request's head. It borrows the bytes it was read from.
#[derive(Debug)]
pub struct Head<'a> {
    /// As sent: methods are case-sensitive.
    pub method: &'a str,
    /// Without its query, as sent.
    pub path: &'a str,
    /// What follows `?`, as sent; empty without one.
    pub query: &'a str,
    /// Whether the peer expects to go on with the connection afterwards.
    pub keep_alive: bool,
    /// How many bytes it took, its empty line included.
    pub bytes: usize,
    headers: [Header<'a>; HTTP_HEADERS_MAX],
    count: usize,
}

/// Reads the head at the start of `bytes`; none while it is not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<Head<'_>>, HeadError> {
    let mut headers = [EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    let looked_at = &bytes[..bytes.len().min(HTTP_HEAD_BYTES_MAX)];
    let status = match request.parse(looked_at) {
        Ok(status) => status,
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(_) => return Err(HeadError::Malformed),
    };
    // The target is known once what follows it has begun.
    if request.path.is_some_and(|target| target.len() > HTTP_TARGET_BYTES_MAX) {
        return Err(HeadError::TargetTooLong);
    }
    let httparse::Status::Complete(bytes) = status else {
        return too_long(looked_at).map_or(Ok(None), Err);
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        unreachable!("a complete request has all parts");
    };
    let count = request.headers.len();
    let (path, query) = split(target).ok_or(HeadError::Malformed)?;
    let mut head = Head { method, path, query, keep_alive: false, bytes, headers, count };
    head.check(minor)?;
    head.keep_alive = match minor {
        0 => head.has_token("connection", "keep-alive"),
        _ => !head.has_token("connection", "close"),
    };
    Ok(Some(head))
}

/// What makes a head that is not whole too long already.
fn too_long(bytes: &[u8]) -> Option<HeadError> {
    let line = bytes.iter().position(|&byte| byte == b'\n');
    if line.is_none() && bytes.len() > HTTP_TARGET_BYTES_MAX + METHOD_AND_VERSION_BYTES_MAX {
        return Some(HeadError::TargetTooLong);
    }
    (bytes.len() >= HTTP_HEAD_BYTES_MAX).then_some(HeadError::TooLarge)
}

/// What a request line has beside its target: a method (the longest standard one has seven letters; some room for
/// others), two spaces, the version.
const METHOD_AND_VERSION_BYTES_MAX: usize = 32;

/// Path and query of a target in origin form or in absolute form, which a server must take too (RFC 9112 §3.2.2).
fn split(target: &str) -> Option<(&str, &str)> {
    let local = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    let path = if path.is_empty() { "/" } else { path };
    (path.starts_with('/') || path == "*").then_some((path, query))
}

impl<'a> Head<'a> {
    /// A header's value; its first, if there are several; none if it is no UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next().and_then(|value| core::str::from_utf8(value).ok())
    }

    /// All values of a header, as sent.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.headers[..self.count].iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    }

    /// Whether a header that is a list has this token, in any case (RFC 9110 §5.6.1).
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|found| found.eq_ignore_ascii_case(token))
    }

    /// The members of a header that is a list, over all its lines, in their order.
    pub fn tokens(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.headers(name).filter_map(|value| core::str::from_utf8(value).ok());
        lines.flat_map(|line| line.split(',')).map(str::trim_ascii).filter(|token| !token.is_empty())
    }

    /// The parameters of its query.
    pub fn query(&self) -> Query<'a> {
        Query::new(self.query)
    }

    /// RFC 9112 §3.2 and §6: one `Host`, and no body.
    fn check(&self, minor: u8) -> Result<(), HeadError> {
        let hosts = self.headers("host").count();
        if hosts > 1 || hosts == 0 && minor > 0 {
            return Err(HeadError::Host);
        }
        let no_length = self.headers("content-length").all(|value| value == b"0");
        if !no_length || self.headers("transfer-encoding").next().is_some() {
            return Err(HeadError::Body);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(bytes: &[u8]) -> Head<'_> {
        match parse(bytes) {
            Ok(Some(head)) => {
                assert_eq!(head.bytes, bytes.len());
                head
            }
            other => panic!("no head but {other:?}"),
        }
    }

    fn error(bytes: &[u8]) -> HeadError {
        parse(bytes).expect_err("it is refused")
    }

    #[test]
    fn a_head_is_read_in_its_parts() {
        let head = head(b"GET /events?topic=a&inbox=1 HTTP/1.1\r\nHost: h\r\nAccept:  text/event-stream \r\nVia: a, b\r\nvia:c\r\n\r\n");
        assert_eq!((head.method, head.path, head.query), ("GET", "/events", "topic=a&inbox=1"));
        assert_eq!((head.header("ACCEPT"), head.header("nothing")), (Some("text/event-stream"), None));
        assert_eq!(head.tokens("via").collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(head.has_token("via", "B") && !head.has_token("via", "ab"));
    }

    #[test]
    fn a_target_in_absolute_form_is_read_as_its_path() {
        for (target, path, query) in [
            ("http://h/mqtt?x", "/mqtt", "x"),
            ("http://h", "/", ""),
            ("http://h?x", "/", "x"),
            ("/a?b=c://d/e", "/a", "b=c://d/e"),
            ("*", "*", ""),
        ] {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let head = head(bytes.as_bytes());
            assert_eq!((head.path, head.query), (path, query), "{target}");
        }
        assert_eq!(error(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"), HeadError::Malformed);
    }

    #[test]
    fn a_connection_is_kept_as_its_version_and_header_say() {
        for (line, kept) in [
            ("HTTP/1.1\r\nHost: h", true),
            ("HTTP/1.1\r\nHost: h\r\nConnection: Close", false),
            ("HTTP/1.1\r\nHost: h\r\nConnection: upgrade, close", false),
            ("HTTP/1.0", false),
            ("HTTP/1.0\r\nConnection: Keep-Alive", true),
        ] {
            assert_eq!(head(format!("GET / {line}\r\n\r\n").as_bytes()).keep_alive, kept, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_head_is_told_apart() {
        assert_eq!(error(b"GET / HTTP/1.1\r\n\r\n"), HeadError::Host);
        assert_eq!(error(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), HeadError::Host);
        assert_eq!(error(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"), HeadError::Body);
        assert_eq!(error(b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), HeadError::Body);
        assert_eq!(error(b"GET / HTTP/2.0\r\n"), HeadError::Version);
        assert_eq!(error(b"GET  HTTP/1.1\r\n"), HeadError::Malformed);
        assert_eq!(error(b"GET / HTTP/1.1\r\nHost : h\r\n\r\n"), HeadError::Malformed);
        assert_eq!(error(b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n"), HeadError::Malformed);
    }

    #[test]
    fn the_bounds_hold_at_n_and_refuse_n_plus_one() {
        let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(bytes - 1));
        assert_eq!(head(target(HTTP_TARGET_BYTES_MAX).as_bytes()).path.len(), HTTP_TARGET_BYTES_MAX);
        assert_eq!(error(target(HTTP_TARGET_BYTES_MAX + 1).as_bytes()), HeadError::TargetTooLong);

        let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(count - 1));
        assert_eq!(head(headers(HTTP_HEADERS_MAX).as_bytes()).count, HTTP_HEADERS_MAX);
        assert_eq!(error(headers(HTTP_HEADERS_MAX + 1).as_bytes()), HeadError::TooLarge);

        let start = "GET / HTTP/1.1\r\nHost: h\r\na: ";
        let total = |bytes: usize| format!("{start}{}\r\n\r\n", "b".repeat(bytes - start.len() - 4));
        assert_eq!(head(total(HTTP_HEAD_BYTES_MAX).as_bytes()).count, 2);
        assert_eq!(error(total(HTTP_HEAD_BYTES_MAX + 1).as_bytes()), HeadError::TooLarge);
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_the_whole_bound_has_come() {
        let line = [b"GET /".as_slice(), &[b'a'; HTTP_HEAD_BYTES_MAX]].concat();
        let refused = (0..line.len()).find(|&end| parse(&line[..end]).is_err()).expect("it is refused");
        assert_eq!(refused, HTTP_TARGET_BYTES_MAX + METHOD_AND_VERSION_BYTES_MAX + 1);
        assert_eq!(error(&line[..refused]), HeadError::TargetTooLong);
    }

    proptest! {
        #[test]
        fn every_proper_prefix_of_a_head_needs_more(value in "[ -~]{0,40}", cut in 0usize..200) {
            let bytes = format!("GET /a?b HTTP/1.1\r\nHost: h\r\nvalue: {value}\r\n\r\n");
            let end = cut.min(bytes.len() - 1);
            prop_assert!(matches!(parse(&bytes.as_bytes()[..end]), Ok(None)));
        }

        #[test]
        fn any_bytes_are_answered_with_a_value(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Some(head)) = parse(&bytes) {
                prop_assert!(head.bytes <= bytes.len() && head.count <= HTTP_HEADERS_MAX);
            }
        }
    }
}
