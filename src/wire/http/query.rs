//! The parameters of a query: `name=value` pairs, percent-encoded, as forms and `URLSearchParams` write them.

use std::borrow::Cow;

/// A parameter that cannot be read: a broken escape, or no UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadQuery;

/// Goes through the parameters in their order. One without escapes is borrowed.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    rest: &'a str,
}

impl<'a> Query<'a> {
    /// Of what follows `?`.
    pub fn new(query: &'a str) -> Self {
        Self { rest: query }
    }
}

impl<'a> Iterator for Query<'a> {
    type Item = Result<(Cow<'a, str>, Cow<'a, str>), BadQuery>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (pair, rest) = self.rest.split_once('&').unwrap_or((self.rest, ""));
            self.rest = rest;
            if !pair.is_empty() {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                return Some(decode(name).and_then(|name| Ok((name, decode(value)?))));
            }
        }
        None
    }
}

/// `%XX` is a byte, `+` a space.
fn decode(text: &str) -> Result<Cow<'_, str>, BadQuery> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(BadQuery),
            },
            byte => byte,
        });
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| BadQuery)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        let owned = |pair: Result<(Cow<'_, str>, Cow<'_, str>), BadQuery>| {
            let (name, value) = pair.expect("it can be read");
            (name.into_owned(), value.into_owned())
        };
        Query::new(query).map(owned).collect()
    }

    #[test]
    fn parameters_come_decoded_and_in_order() {
        let expected = [("topic", "rooms/+/é"), ("topic", "a b"), ("inbox", ""), ("", "x"), ("x", "1=2")];
        let found = pairs("topic=rooms/%2B/%C3%a9&topic=a+b&inbox&&=x&x=1=2");
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(pairs("").is_empty());
    }

    #[test]
    fn a_broken_escape_is_an_error_and_the_next_parameter_is_read() {
        for broken in ["a=%", "a=%4", "a=%zz", "%+1=b", "a=%ff", "a=%C3"] {
            let query = format!("{broken}&good=1");
            let mut found = Query::new(&query);
            assert_eq!(found.next(), Some(Err(BadQuery)), "{broken}");
            assert_eq!(found.next(), Some(Ok(("good".into(), "1".into()))));
        }
    }
}
