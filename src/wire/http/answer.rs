//! Small complete answers: what a request that leads nowhere is told.

use std::io::Write;

/// A status code that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16);

impl Status {
    /// 400.
    pub const BAD_REQUEST: Self = Self(400);
    /// 401; goes with `WWW-Authenticate`.
    pub const UNAUTHORIZED: Self = Self(401);
    /// 403.
    pub const FORBIDDEN: Self = Self(403);
    /// 404.
    pub const NOT_FOUND: Self = Self(404);
    /// 405; goes with `Allow`.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// 414.
    pub const URI_TOO_LONG: Self = Self(414);
    /// 426; goes with `Upgrade`.
    pub const UPGRADE_REQUIRED: Self = Self(426);
    /// 429; goes with `Retry-After`.
    pub const TOO_MANY_REQUESTS: Self = Self(429);
    /// 431.
    pub const HEADERS_TOO_LARGE: Self = Self(431);
    /// 503; goes with `Retry-After`.
    pub const UNAVAILABLE: Self = Self(503);
    /// 505.
    pub const VERSION_NOT_SUPPORTED: Self = Self(505);

    /// Its number.
    pub fn code(self) -> u16 {
        self.0
    }

    /// Its reason phrase (RFC 9110 §15).
    pub fn title(self) -> &'static str {
        match self.0 {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            414 => "URI Too Long",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "",
        }
    }
}

/// An answer that says what is wrong (RFC 9457) and ends the connection.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// Its status.
    pub status: Status,
    /// For people.
    pub detail: &'a str,
    /// Further headers, names and values.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Problem<'a> {
    /// Without further headers.
    pub fn new(status: Status, detail: &'a str) -> Self {
        Self { status, detail, headers: &[] }
    }

    /// Appends the whole answer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (code, title) = (self.status.code(), self.status.title());
        let detail = serde_json::Value::from(self.detail);
        let body = format!("{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{code},\"detail\":{detail}}}");
        let mut write = |arguments: core::fmt::Arguments<'_>| out.write_fmt(arguments).expect("a Vec takes all");
        write(format_args!("HTTP/1.1 {code} {title}\r\n"));
        write(format_args!("Content-Type: application/problem+json\r\nContent-Length: {}\r\n", body.len()));
        for (name, value) in self.headers {
            write(format_args!("{name}: {value}\r\n"));
        }
        write(format_args!("Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_whole_answer_that_closes() {
        let mut out = Vec::new();
        let headers = [("Allow", "GET")];
        Problem { headers: &headers, ..Problem::new(Status::METHOD_NOT_ALLOWED, "only \"GET\"") }.encode(&mut out);
        let text = String::from_utf8(out).expect("it is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("it has a head");
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
        for line in ["Allow: GET", "Connection: close", "Content-Type: application/problem+json"] {
            assert!(head.split("\r\n").any(|other| other == line), "{head}");
        }
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).expect("it is JSON");
        assert_eq!((&body["status"], &body["detail"]), (&405.into(), &"only \"GET\"".into()));
    }

    #[test]
    fn every_status_has_a_title() {
        for status in [
            Status::BAD_REQUEST,
            Status::FORBIDDEN,
            Status::NOT_FOUND,
            Status::METHOD_NOT_ALLOWED,
            Status::URI_TOO_LONG,
            Status::UPGRADE_REQUIRED,
            Status::TOO_MANY_REQUESTS,
            Status::HEADERS_TOO_LARGE,
            Status::UNAVAILABLE,
            Status::VERSION_NOT_SUPPORTED,
        ] {
            assert!(!status.title().is_empty(), "{}", status.code());
        }
    }
}
