//! Which web pages may connect. Browsers let any page open a WebSocket or read an event stream with the visitor's
//! network position; the `Origin` that they send (RFC 6454) is what a server can go by (RFC 6455 §10.2).

/// Which origins are allowed. The default is the host that was asked for, on any port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Lower case; empty: the same host.
    listed: Box<[Box<str>]>,
    any: bool,
}

/// Which of a list's texts is no origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginError(
    /// It.
    pub String,
);

impl Origins {
    /// From a list of origins such as `https://example.com:8443`; `*` allows all, an empty list the same host alone.
    pub fn new(list: &[String]) -> Result<Self, OriginError> {
        let mut origins = Self::default();
        let mut listed = Vec::new();
        for text in list {
            if text == "*" {
                origins.any = true;
            } else if is_origin(text) {
                listed.push(text.to_ascii_lowercase().into_boxed_str());
            } else {
                return Err(OriginError(text.clone()));
            }
        }
        origins.listed = listed.into();
        Ok(origins)
    }

    /// Whether a request with these headers is let in. One without an `Origin` comes from no page.
    pub fn allow(&self, origin: Option<&[u8]>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any {
            return true;
        }
        let Ok(origin) = core::str::from_utf8(origin) else { return false };
        if !self.listed.is_empty() {
            return self.listed.iter().any(|listed| listed.eq_ignore_ascii_case(origin));
        }
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let same = |authority: &str, host: &str| name(authority).eq_ignore_ascii_case(name(host));
        matches!((authority, host), (Some(authority), Some(host)) if !host.is_empty() && same(authority, host))
    }
}

/// `scheme://host`, with or without a port.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"/?#@,*\"".contains(&byte);
    !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !authority.is_empty()
        && authority.bytes().all(plain)
}

/// An authority without its port. The colons of an IPv6 address are inside brackets.
fn name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Origins {
        let list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
        Origins::new(&list).expect("they are origins")
    }

    #[test]
    fn without_a_list_the_same_host_is_allowed_on_any_port() {
        let origins = origins(&[]);
        for (origin, host) in [
            ("http://a.example", "a.example:1883"),
            ("https://A.example:8443", "a.EXAMPLE"),
            ("http://[::1]:80", "[::1]:1883"),
            ("http://[::1]", "[::1]"),
            ("http://127.0.0.1:8080", "127.0.0.1:1883"),
        ] {
            assert!(origins.allow(Some(origin.as_bytes()), Some(host)), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://evil.example", Some("a.example")),
            ("http://a.example.evil", Some("a.example")),
            ("http://[::2]", Some("[::1]:1883")),
            ("null", Some("null")),
            ("http://", Some("")),
            ("http://a.example", None),
        ] {
            assert!(!origins.allow(Some(origin.as_bytes()), host), "{origin} {host:?}");
        }
        assert!(!origins.allow(Some(b"\xff"), Some("a.example")));
        assert!(origins.allow(None, Some("a.example")), "no page asked");
    }

    #[test]
    fn a_list_allows_what_is_on_it_and_nothing_else() {
        let origins = origins(&["https://app.example", "http://localhost:3000"]);
        assert!(origins.allow(Some(b"https://APP.example"), Some("edge.example")));
        assert!(origins.allow(Some(b"http://localhost:3000"), None));
        for other in [&b"http://app.example"[..], b"https://app.example:444", b"https://edge.example", b"null"] {
            assert!(!origins.allow(Some(other), Some("edge.example")));
        }
    }

    #[test]
    fn a_star_allows_all() {
        assert!(origins(&["*"]).allow(Some(b"null"), None));
    }

    #[test]
    fn what_is_no_origin_is_refused_by_name() {
        for wrong in ["", "example.com", "https://", "https://a/b", "https://a,b", "://a", "https://*.a"] {
            assert_eq!(Origins::new(&[wrong.to_owned()]), Err(OriginError(wrong.to_owned())));
        }
    }
}
