//! Signed requests: a key that is never on the wire. What is signed is the request itself, so that a signature is good
//! for one request, once, around its time.
//!
//! `Authorization: KW1-HMAC-SHA256 id=ID,time=SECONDS,nonce=TEXT,body=HEX,signature=HEX` where `body` is the SHA-256 of the
//! body and the signature is the HMAC-SHA256, with the key's bytes, of these lines joined by `\n`: `KW1-HMAC-SHA256`, time,
//! nonce, method, path with query, the value of `x-kittiwake-app` (empty without), body. The nonce, which may be empty,
//! tells equal requests of one second apart.

use super::keys::Fault;
use crate::base::secret::Secret;
use crate::limits::{API_NONCE_BYTES_MAX, API_SIGNATURE_LEEWAY, API_SIGNATURES_REMEMBERED_MAX};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use axum::http::request::Parts;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// The scheme of the header.
pub(super) const SCHEME: &str = "KW1-HMAC-SHA256";

/// What a header claims.
pub(super) struct Claim<'header> {
    pub(super) id: &'header str,
    time: &'header str,
    nonce: &'header str,
    body: [u8; 32],
    body_text: &'header str,
    signature: [u8; 32],
}

impl<'header> Claim<'header> {
    /// Reads the header's value behind its scheme. Each part is there once, in any order.
    pub(super) fn parse(text: &'header str, now_ms: u64) -> Result<Self, Fault> {
        let [mut id, mut time, mut nonce, mut body, mut signature] = [None; 5];
        for part in text.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(Fault::Key)?;
            let place = match name {
                "id" => &mut id,
                "time" => &mut time,
                "nonce" => &mut nonce,
                "body" => &mut body,
                "signature" => &mut signature,
                _ => return Err(Fault::Key),
            };
            if place.replace(value).is_some() {
                return Err(Fault::Key);
            }
        }
        let (Some(id), Some(time), Some(body_text), Some(signature)) = (id, time, body, signature) else {
            return Err(Fault::Key);
        };
        let nonce = nonce.unwrap_or_default();
        if nonce.len() > API_NONCE_BYTES_MAX {
            return Err(Fault::Key);
        }
        let (body, signature) = unhex(body_text).zip(unhex(signature)).ok_or(Fault::Key)?;
        let seconds: u64 = time.parse().map_err(|_| Fault::Key)?;
        if seconds.abs_diff(now_ms / 1_000) > API_SIGNATURE_LEEWAY.as_secs() {
            return Err(Fault::Time);
        }
        Ok(Self { id, time, nonce, body, body_text, signature })
    }

    /// Whether it is this request that was signed, with this key.
    pub(super) fn is_signed_with(&self, secret: &Secret, head: &Parts) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        let mut context = hmac::Context::with_key(&key);
        // A name that is there twice, or is not ASCII, is nobody's app.
        let mut apps = head.headers.get_all("x-kittiwake-app").iter();
        let app = match (apps.next(), apps.next()) {
            (None, _) => "",
            (Some(app), None) => match app.to_str() {
                Ok(app) => app,
                Err(_) => return false,
            },
            (Some(_), Some(_)) => return false,
        };
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        for line in [SCHEME, self.time, self.nonce, head.method.as_str(), path, app] {
            context.update(line.as_bytes());
            context.update(b"\n");
        }
        context.update(self.body_text.as_bytes());
        verify_slices_are_equal(context.sign().as_ref(), &self.signature).is_ok()
    }

    /// What of it outlives the header: the body's hash, and what names the signature.
    pub(super) fn expected(&self) -> Expected {
        let name = self.signature.first_chunk().copied().expect("a signature has 32 bytes");
        Expected { body: self.body, name: u128::from_le_bytes(name) }
    }
}

/// What is left to be seen of a signed request once its head is good.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    body: [u8; 32],
    name: u128,
}

impl Expected {
    /// Whether this is the body that was signed.
    pub(super) fn is_body(&self, body: &[u8]) -> bool {
        digest(&SHA256, body).as_ref() == self.body
    }
}

/// The signatures that have come, for as long as their time is good: so that each is good once. Only what was signed
/// with a key of ours is remembered, so strangers take no room.
#[derive(Debug, Default)]
pub(super) struct Replays(Mutex<Generations>);

/// Two ages of signatures. One lasts as long as a signature can be good, so whatever came in the last such time is in
/// one of the two.
#[derive(Debug, Default)]
struct Generations {
    began_ms: u64,
    young: HashSet<u128>,
    old: HashSet<u128>,
}

/// What came of remembering a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remembered {
    First,
    Again,
    /// `API_SIGNATURES_REMEMBERED_MAX` came within a short time: nothing that is signed is taken until they have aged.
    Full,
}

impl Replays {
    /// Takes one in.
    pub(super) fn remember(&self, expected: Expected, now_ms: u64) -> Remembered {
        // Nobody panics while it is held: the value in it is whole.
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.age(now_ms);
        let Generations { young, old, .. } = &mut *generations;
        if old.contains(&expected.name) || young.contains(&expected.name) {
            return Remembered::Again;
        }
        if young.len() + old.len() >= API_SIGNATURES_REMEMBERED_MAX {
            return Remembered::Full;
        }
        young.insert(expected.name);
        Remembered::First
    }
}

/// From the earliest to the latest moment at which one signature is good.
const GOOD_FOR_MS: u64 = API_SIGNATURE_LEEWAY.as_millis() as u64 * 2 + 1_000;

impl Generations {
    fn age(&mut self, now_ms: u64) {
        // A clock that was set back forgets nothing.
        let age_ms = now_ms.saturating_sub(self.began_ms);
        if age_ms <= GOOD_FOR_MS {
            return;
        }
        self.old = if age_ms > 2 * GOOD_FOR_MS { HashSet::new() } else { core::mem::take(&mut self.young) };
        self.young = HashSet::new();
        self.began_ms = now_ms;
    }
}

/// 32 bytes from 64 hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
pub(super) fn sign(secret: &str, (method, path): (&str, &str), (seconds, nonce): (u64, &str), body: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let body = hex(digest(&SHA256, body).as_ref());
    let text = format!("{SCHEME}\n{seconds}\n{nonce}\n{method}\n{path}\n\n{body}");
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{SCHEME} id=back,time={seconds},nonce={nonce},body={body},signature={}", hex(signature.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(name: u128) -> Expected {
        Expected { body: [0; 32], name }
    }

    #[test]
    fn a_signature_is_remembered_for_as_long_as_its_time_is_good() {
        let replays = Replays::default();
        let mut now_ms = 1_700_000_000_000;
        assert_eq!(replays.remember(expected(1), now_ms), Remembered::First);
        for _ in 0..5 {
            now_ms += GOOD_FOR_MS / 5;
            assert_eq!(replays.remember(expected(1), now_ms), Remembered::Again);
            assert_eq!(replays.remember(expected(u128::from(now_ms)), now_ms), Remembered::First);
        }
        now_ms += 2 * GOOD_FOR_MS + 1;
        assert_eq!(replays.remember(expected(1), now_ms), Remembered::First, "its time is over long since");
        let held = replays.0.lock().expect("not poisoned");
        assert!(held.young.len() + held.old.len() == 1, "what is over takes no room");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_full_memory_takes_nothing() {
        let replays = Replays::default();
        let now_ms = 1_700_000_000_000;
        for name in 0..API_SIGNATURES_REMEMBERED_MAX as u128 {
            assert_eq!(replays.remember(expected(name), now_ms), Remembered::First);
        }
        assert_eq!(replays.remember(expected(u128::MAX), now_ms), Remembered::Full);
        assert_eq!(replays.remember(expected(0), now_ms), Remembered::Again);
        assert_eq!(replays.remember(expected(u128::MAX), now_ms + 2 * GOOD_FOR_MS + 1), Remembered::First);
    }

    #[test]
    fn a_header_is_read_whole_or_not_at_all() {
        let hash = "0".repeat(64);
        let good = format!("id=a, time=5,body={hash},signature={hash}");
        assert!(Claim::parse(&good, 5_000).is_ok());
        for wrong in [
            "",
            "id=a",
            &format!("{good},id=b"),
            &format!("{good},more=1"),
            &good.replace("time=5", "time=-5"),
            &format!("{good},nonce={}", "n".repeat(API_NONCE_BYTES_MAX + 1)),
            &good[..good.len() - 1],
        ] {
            assert_eq!(Claim::parse(wrong, 5_000).map(|_| ()), Err(Fault::Key), "{wrong}");
        }
        let leeway = API_SIGNATURE_LEEWAY.as_secs();
        for (now_s, is_good) in [(5 + leeway, true), (6 + leeway, false)] {
            assert_eq!(Claim::parse(&good, now_s * 1_000).is_ok(), is_good, "{now_s}");
        }
    }
}
