//! `kittiwake key`: draws a key of the API, and says what the configuration is to have of it.

use super::cli::{Failure, KeyArguments};
use crate::base::prefix::Prefix;
use crate::config::check_api_key;
use crate::push::{KeyHash, Scope};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io::Write;

/// Bytes that are drawn: as many as its hash has.
const DRAWN_BYTES: usize = 32;
/// What keys begin with, so that one that has got somewhere is found.
const PREFIX: &str = "kw_";

/// Prints the key and its entry.
pub(super) fn run(arguments: &KeyArguments) -> Result<(), Failure> {
    let mut bytes = [0; DRAWN_BYTES];
    let drawn = getrandom(&mut bytes[..], GetRandomFlags::empty());
    let drawn = drawn.map_err(|error| Failure::Runtime(format!("cannot draw a key: {error}")))?;
    assert_eq!(drawn, bytes.len(), "the kernel gives up to 256 bytes at once, or none");
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let entry = entry(arguments, &key)?;
    let printed = writeln!(std::io::stdout(), "key    {key}\nentry  {entry}");
    printed.map_err(|error| Failure::Runtime(format!("cannot print: {error}")))
}

/// The entry of `api.keys`, checked as the configuration will check it; but for the names of apps, which it knows better.
fn entry(arguments: &KeyArguments, key: &str) -> Result<String, Failure> {
    let KeyArguments { apps, scopes, from, sign } = arguments;
    let known = Scope::ALL.map(|(_, name)| name);
    if let Some(wrong) = scopes.iter().find(|scope| !known.contains(&scope.as_str())) {
        return Err(Failure::Usage(format!("--scope: `{wrong}` is none; allowed: {}", known.join(", "))));
    }
    let mut entry = if apps.is_empty() { "*".to_owned() } else { apps.join("+") };
    if !scopes.is_empty() {
        entry = format!("{entry}/{}", scopes.join("+"));
    }
    if !from.is_empty() {
        let networks: Result<Vec<String>, Failure> = from.iter().map(|text| network(text)).collect();
        entry = format!("{entry}@{}", networks?.join("+"));
    }
    let entry = match sign {
        Some(name) => format!("{entry}:hmac:{name}:{key}"),
        None => format!("{entry}:sha256:{}", KeyHash::of(key.as_bytes())),
    };
    let mut names = vec!["default".to_owned()];
    names.extend(apps.iter().filter(|app| *app != "default").cloned());
    check_api_key(&entry, &names).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(entry)
}

/// As the configuration reads it: colons of IPv6 in brackets.
fn network(text: &str) -> Result<String, Failure> {
    let wrong = |_| Failure::Usage(format!("--from: `{text}` is none; allowed: an address, or ADDRESS/BITS"));
    let network: Prefix = text.parse().map_err(wrong)?;
    let text = network.to_string();
    Ok(match text.split_once('/') {
        Some((address, bits)) if address.contains(':') => format!("[{address}]/{bits}"),
        None if text.contains(':') => format!("[{text}]"),
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(apps: &[&str], scopes: &[&str], from: &[&str], sign: Option<&str>) -> Result<String, String> {
        let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let sign = sign.map(str::to_owned);
        let arguments = KeyArguments { apps: list(apps), scopes: list(scopes), from: list(from), sign };
        entry(&arguments, "kw_0123456789abcdef").map_err(|failure| match failure {
            Failure::Usage(line) | Failure::Runtime(line) => line,
        })
    }

    #[test]
    fn an_entry_has_the_hash_of_the_key_and_what_it_is_good_for() {
        let hash = KeyHash::of(b"kw_0123456789abcdef").to_string();
        assert_eq!(asked(&[], &[], &[], None), Ok(format!("*:sha256:{hash}")));
        let entry = asked(&["shop", "default"], &["push", "read"], &["10.0.0.0/8", "2001:db8::/32"], None);
        assert_eq!(entry, Ok(format!("shop+default/push+read@10.0.0.0/8+[2001:db8::]/32:sha256:{hash}")));
        let entry = asked(&["shop"], &[], &["::1"], Some("backend-1"));
        assert_eq!(entry.as_deref(), Ok("shop@[::1]:hmac:backend-1:kw_0123456789abcdef"));
        for wrong in [
            asked(&[], &["pushes"], &[], None),
            asked(&[], &[], &["10.0.0.0/33"], None),
            asked(&[], &[], &[], Some("a b")),
        ] {
            assert!(wrong.is_err_and(|line| !line.contains("kw_")), "no error repeats the key");
        }
    }
}
