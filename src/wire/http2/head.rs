//! A request's head, checked (RFC 9113 §8.2, §8.3).

/// What a field counts beside its name and its value (§6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// A request as its header fields say it. Names and values are such as HTTP allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// `:method`.
    pub method: String,
    /// `:scheme`.
    pub scheme: String,
    /// `:authority`, where it is said.
    pub authority: Option<String>,
    /// `:path`, with the query.
    pub path: String,
    /// The others, in their order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Bytes of the body, where it is said.
    pub content_length: Option<u64>,
    /// It is longer than it may be: some of its fields are missing.
    pub is_too_long: bool,
}

/// Takes a head in, field by field.
#[derive(Debug, Default)]
pub(super) struct Builder {
    method: Option<String>,
    scheme: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    fields: Vec<(String, Vec<u8>)>,
    content_length: Option<u64>,
    bytes: usize,
    bytes_max: usize,
    is_malformed: bool,
}

impl Builder {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        self.bytes = self.bytes.saturating_add(name.len() + value.len() + FIELD_OVERHEAD);
        if self.bytes <= self.bytes_max && self.take(name, value).is_none() {
            self.is_malformed = true;
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if let [b':', pseudo @ ..] = name {
            return self.pseudo(pseudo, value);
        }
        let name = Some(name).filter(|name| is_name(name))?;
        let value = Some(value).filter(|value| is_value(value))?;
        match name {
            // They speak of a connection, and this is a part of one.
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => return None,
            b"te" if value != b"trailers" => return None,
            b"content-length" => {
                let length = core::str::from_utf8(value).ok()?;
                let length = Some(length).filter(|length| length.bytes().all(|byte| byte.is_ascii_digit()))?;
                let length: u64 = length.parse().ok()?;
                if self.content_length.replace(length).is_some_and(|other| other != length) {
                    return None;
                }
            }
            _ => {}
        }
        self.fields.push((text(name)?, value.to_vec()));
        Some(())
    }

    /// Those come first, each of them once.
    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let place = match name {
            b"method" => &mut self.method,
            b"scheme" => &mut self.scheme,
            b"authority" => &mut self.authority,
            b"path" => &mut self.path,
            _ => return None,
        };
        let is_next = place.is_none() && self.fields.is_empty();
        *place = Some(value).filter(|value| is_next && is_value(value)).and_then(text);
        place.is_some().then_some(())
    }

    /// The head; none: it is malformed.
    pub(super) fn build(self) -> Option<RequestHead> {
        let is_too_long = self.bytes > self.bytes_max;
        let whole = !self.is_malformed
            && self.method.as_ref().is_some_and(|method| !method.is_empty())
            && self.scheme.is_some()
            && self.path.as_ref().is_some_and(|path| path.starts_with('/') || path == "*");
        if !whole && (self.is_malformed || !is_too_long) {
            return None;
        }
        Some(RequestHead {
            method: self.method.unwrap_or_default(),
            scheme: self.scheme.unwrap_or_default(),
            authority: self.authority,
            path: self.path.unwrap_or_default(),
            fields: self.fields,
            content_length: self.content_length,
            is_too_long,
        })
    }

    /// Whether these fields may follow a body: they say nothing here, but must be such as may be said.
    pub(super) fn are_trailers(&self) -> bool {
        let pseudo = [&self.method, &self.scheme, &self.authority, &self.path];
        !self.is_malformed && pseudo.iter().all(|pseudo| pseudo.is_none())
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    core::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// A token, in lower case.
fn is_name(name: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(is_token)
}

fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    value.iter().all(|&byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
        && !is_blank(value.first())
        && !is_blank(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 4] =
        [(":method", "POST"), (":scheme", "http"), (":path", "/v1/push?app=a"), (":authority", "localhost:1")];

    fn built(fields: &[(&str, &str)]) -> Option<RequestHead> {
        let mut builder = Builder::new(400);
        fields.iter().for_each(|(name, value)| builder.field(name.as_bytes(), value.as_bytes()));
        builder.build()
    }

    fn with(name: &str, value: &str) -> Option<RequestHead> {
        built(&[&WHOLE[..], &[(name, value)]].concat())
    }

    #[test]
    fn a_head_says_what_its_fields_say() {
        let head = built(&[&WHOLE[..], &[("te", "trailers"), ("content-length", "12"), ("x-y", "z")]].concat());
        let head = head.expect("well formed");
        assert_eq!((&*head.method, &*head.scheme, &*head.path), ("POST", "http", "/v1/push?app=a"));
        assert_eq!((head.authority.as_deref(), head.content_length), (Some("localhost:1"), Some(12)));
        assert_eq!(head.fields.last(), Some(&("x-y".to_owned(), b"z".to_vec())));
        assert!(!head.is_too_long);
        assert_eq!(built(&WHOLE[..3]).expect("well formed").authority, None);
    }

    #[test]
    fn each_pseudo_header_but_the_authority_comes_once_and_first() {
        for missing in 0..3 {
            let some: Vec<_> =
                WHOLE.into_iter().enumerate().filter(|&(at, _)| at != missing).map(|(_, field)| field).collect();
            assert_eq!(built(&some), None, "{missing}");
        }
        for field in WHOLE {
            assert_eq!(with(field.0, field.1), None, "{field:?} twice");
        }
        assert_eq!(with(":status", "200"), None);
        assert_eq!(with(":protocol", "websocket"), None);
        let late = [WHOLE[0], WHOLE[1], ("x", "y"), WHOLE[2]];
        assert_eq!(built(&late), None);
        for path in ["", "v1/push", "http://localhost/"] {
            assert_eq!(built(&[WHOLE[0], WHOLE[1], (":path", path)]), None, "{path}");
        }
    }

    #[test]
    fn fields_that_http2_does_not_have_make_a_head_malformed() {
        for name in
            ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "X-Upper", "", "a b", "a:"]
        {
            assert_eq!(with(name, "trailers"), None, "{name}");
        }
        for value in ["a\nb", "a\rb", "a\0b", " a", "a\t"] {
            assert_eq!(with("x", value), None, "{value:?}");
        }
        assert_eq!(with("te", "gzip"), None);
        for length in ["", "+1", "-1", "1,1", "99999999999999999999"] {
            assert_eq!(with("content-length", length), None, "{length}");
        }
        assert_eq!(built(&[&WHOLE[..], &[("content-length", "1"), ("content-length", "2")]].concat()), None);
        assert!(built(&[&WHOLE[..], &[("content-length", "1"), ("content-length", "1")]].concat()).is_some());
    }

    #[test]
    fn a_head_that_is_too_long_says_so_instead_of_what_did_not_fit() {
        let head = with("x", &"y".repeat(400)).expect("well formed as far as it goes");
        assert!(head.is_too_long && head.fields.is_empty());
        assert_eq!(built(&[("x", &"y".repeat(400)), ("Bad", "")]).map(|head| head.is_too_long), Some(true));
    }

    #[test]
    fn trailers_have_no_pseudo_headers() {
        let mut trailers = Builder::new(400);
        trailers.field(b"grpc-status", b"0");
        assert!(trailers.are_trailers());
        trailers.field(b":path", b"/");
        assert!(!trailers.are_trailers());
    }
}
