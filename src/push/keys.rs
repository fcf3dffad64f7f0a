//! API keys: who may speak for which apps, for what, and from where.
//!
//! A bearer key is known by its SHA-256 alone: keys are drawn, not thought up, so there is nothing to guess from a hash,
//! and a configuration that leaks lets nobody in. A signing key has to be known to check its signatures; it is never on the
//! wire.

use super::problem::Problem;
use super::signature::{self, Claim};
use crate::base::ids::AppId;
use crate::base::prefix::Prefix;
use crate::base::secret::Secret;
use crate::limits::API_KEY_BYTES_MAX;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{StatusCode, header};
use core::fmt;
use core::net::IpAddr;
use std::sync::Arc;

/// For whom somebody may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apps {
    /// Everybody, and the node as a whole.
    All,
    /// These, at least one.
    Some(Arc<[AppId]>),
}

/// What a request does, as far as keys tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Sends messages.
    Push,
    /// Reads users, streams, figures.
    Read,
    /// Reads and acknowledges what devices do.
    Events,
    /// Changes something else: disconnects, drains, turns logging up.
    Admin,
}

impl Scope {
    /// All, by name.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Push, "push"), (Self::Read, "read"), (Self::Events, "events"), (Self::Admin, "admin")];

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(scope, _)| scope)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A set of them, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything.
    pub const ALL: Self = Self(0b1111);

    /// These.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u8 != 0
    }
}

/// The SHA-256 of a bearer key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(digest(&SHA256, key).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        signature::unhex(text).map(Self)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One key of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    apps: Apps,
    scopes: Scopes,
    /// None: from anywhere.
    from: Box<[Prefix]>,
    proof: Proof,
}

/// How whoever has a key shows it.
#[derive(Clone, PartialEq, Eq)]
enum Proof {
    /// By sending it.
    Bearer(KeyHash),
    /// By signing with it.
    Signature { id: Box<str>, secret: Secret },
}

/// All keys of the node. None: whoever reaches the API may do everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
    /// Where requests may come from, whatever their key; none: from anywhere.
    from: Box<[Prefix]>,
}

/// Whoever a request is from, as far as it has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    apps: Apps,
    scopes: Scopes,
}

/// Why a request is not let in; a counter each. Whoever sent it is told no more than its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No key, or none that is known.
    Key,
    /// A key that is good, but not from there.
    Address,
    /// A key that is good, but not for that.
    Scope,
    /// A signature of something else, or with another key.
    Signature,
    /// A signature of another time.
    Time,
    /// A signature that has come before.
    Replayed,
    /// A signature of another body.
    Body,
}

impl Fault {
    /// All, with the names of their counters.
    pub(super) const ALL: [(Self, &'static str); 7] = [
        (Self::Key, "refused_key"),
        (Self::Address, "refused_address"),
        (Self::Scope, "refused_scope"),
        (Self::Signature, "refused_signature"),
        (Self::Time, "refused_signature_time"),
        (Self::Replayed, "refused_replay"),
        (Self::Body, "refused_signed_body"),
    ];

    /// What the caller is told.
    pub(super) fn problem(self) -> Problem {
        let unauthorized = |detail| Problem::new(StatusCode::UNAUTHORIZED, detail);
        match self {
            Self::Key => unauthorized("a valid `Authorization: Bearer KEY` is needed"),
            Self::Address => Problem::new(StatusCode::FORBIDDEN, "this key, or this API, is not for this address"),
            Self::Scope => Problem::new(StatusCode::FORBIDDEN, "this key is not for this"),
            Self::Signature => unauthorized("the signature is not one of this request"),
            Self::Time => unauthorized("the signature's time is too far from this node's"),
            Self::Replayed => unauthorized("this signature has come before"),
            Self::Body => unauthorized("the body is not the one that was signed"),
        }
    }
}

/// What a request shows of itself.
pub(super) struct Shown<'request> {
    pub(super) head: &'request axum::http::request::Parts,
    /// None: it came by no socket.
    pub(super) peer: Option<IpAddr>,
    pub(super) now_ms: u64,
}

/// Somebody who may ask, if the rest is as claimed.
pub(super) struct Admitted<'request> {
    pub(super) caller: Caller,
    /// Of a signed request: what its body has to be, and that it must come once.
    pub(super) claim: Option<Claim<'request>>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { apps, scopes, from, .. } = self;
        f.debug_struct("ApiKey").field("apps", apps).field("scopes", scopes).field("from", from).finish_non_exhaustive()
    }
}

impl ApiKey {
    /// A bearer key. None: it is longer than `API_KEY_BYTES_MAX`.
    pub fn new(apps: Apps, key: &str) -> Option<Self> {
        (key.len() <= API_KEY_BYTES_MAX).then(|| Self::hashed(apps, KeyHash::of(key.as_bytes())))
    }

    /// The bearer key with this hash.
    pub fn hashed(apps: Apps, hash: KeyHash) -> Self {
        Self { apps, scopes: Scopes::ALL, from: Box::default(), proof: Proof::Bearer(hash) }
    }

    /// A key that signs requests under a name.
    pub fn signing(apps: Apps, id: &str, secret: Secret) -> Self {
        let proof = Proof::Signature { id: id.into(), secret };
        Self { apps, scopes: Scopes::ALL, from: Box::default(), proof }
    }

    /// Good for these alone.
    #[must_use]
    pub fn with_scopes(self, scopes: Scopes) -> Self {
        Self { scopes, ..self }
    }

    /// Good from there alone; an empty list: from anywhere.
    #[must_use]
    pub fn only_from(self, from: Vec<Prefix>) -> Self {
        Self { from: from.into(), ..self }
    }

    /// What no other key may have as well: the hash, or the name.
    pub fn is_twin_of(&self, other: &Self) -> bool {
        match (&self.proof, &other.proof) {
            (Proof::Bearer(one), Proof::Bearer(another)) => one == another,
            (Proof::Signature { id: one, .. }, Proof::Signature { id: another, .. }) => one == another,
            _ => false,
        }
    }
}

impl ApiKeys {
    /// Those of the configuration.
    pub fn new(keys: Vec<ApiKey>) -> Self {
        Self { keys, from: Box::default() }
    }

    /// Requests may come from there alone; an empty list: from anywhere.
    #[must_use]
    pub fn only_from(self, from: Vec<Prefix>) -> Self {
        Self { from: from.into(), ..self }
    }

    /// No key is asked for.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whoever sends this, by its `Authorization`.
    pub(super) fn admit<'request>(&self, shown: &Shown<'request>) -> Result<Admitted<'request>, Fault> {
        if !may_come(&self.from, shown.peer) {
            return Err(Fault::Address);
        }
        if self.is_empty() {
            return Ok(Admitted { caller: Caller { apps: Apps::All, scopes: Scopes::ALL }, claim: None });
        }
        let mut values = shown.head.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(Fault::Key) };
        let (scheme, shows) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Fault::Key)?;
        let (key, claim) = if scheme.eq_ignore_ascii_case("bearer") {
            (self.bearer(shows.trim()).ok_or(Fault::Key)?, None)
        } else if scheme.eq_ignore_ascii_case(signature::SCHEME) {
            let claim = Claim::parse(shows, shown.now_ms)?;
            (self.signer(&claim, shown)?, Some(claim))
        } else {
            return Err(Fault::Key);
        };
        if !may_come(&key.from, shown.peer) {
            return Err(Fault::Address);
        }
        Ok(Admitted { caller: Caller { apps: key.apps.clone(), scopes: key.scopes }, claim })
    }

    /// All of them are compared, each in the same time, so that the time does not tell which it is.
    fn bearer(&self, shown: &str) -> Option<&ApiKey> {
        if shown.len() > API_KEY_BYTES_MAX {
            return None;
        }
        let KeyHash(shown) = KeyHash::of(shown.as_bytes());
        self.keys.iter().fold(None, |found, key| match &key.proof {
            Proof::Bearer(KeyHash(known)) if verify_slices_are_equal(known, &shown).is_ok() => Some(key),
            _ => found,
        })
    }

    /// The key that a request names and is signed with.
    fn signer(&self, claim: &Claim<'_>, shown: &Shown<'_>) -> Result<&ApiKey, Fault> {
        for key in &self.keys {
            if let Proof::Signature { id, secret } = &key.proof
                && **id == *claim.id
            {
                return if claim.is_signed_with(secret, shown.head) { Ok(key) } else { Err(Fault::Signature) };
            }
        }
        Err(Fault::Key)
    }
}

/// Whoever comes by no socket is only let in where nobody asks from where.
fn may_come(from: &[Prefix], peer: Option<IpAddr>) -> bool {
    from.is_empty() || peer.is_some_and(|peer| from.iter().any(|network| network.contains(peer)))
}

impl Caller {
    /// Whether it may speak for an app.
    pub fn may(&self, app: AppId) -> bool {
        match &self.apps {
            Apps::All => true,
            Apps::Some(apps) => apps.contains(&app),
        }
    }

    /// Whether it may do this at all.
    pub fn may_do(&self, scope: Scope) -> bool {
        self.scopes.has(scope)
    }

    /// Whether it may see the node as a whole.
    pub fn may_see_all(&self) -> bool {
        self.apps == Apps::All
    }

    /// The app of a request that names none.
    pub fn first_app(&self) -> AppId {
        match &self.apps {
            Apps::All => AppId(0),
            Apps::Some(apps) => apps.first().copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
impl Caller {
    pub(super) fn anybody() -> Self {
        Self { apps: Apps::All, scopes: Scopes::ALL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, Request};

    fn ask(keys: &ApiKeys, values: &[&str], peer: Option<&str>) -> Result<Caller, Fault> {
        let mut head = Request::get("/v1/stats").body(()).expect("a request").into_parts().0;
        for value in values {
            head.headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("ASCII"));
        }
        let peer = peer.map(|peer| peer.parse().expect("an address"));
        keys.admit(&Shown { head: &head, peer, now_ms: 0 }).map(|admitted| admitted.caller)
    }

    #[test]
    fn only_a_whole_key_is_the_key() {
        let secret = "k".repeat(API_KEY_BYTES_MAX);
        let keys = ApiKeys::new(vec![
            ApiKey::new(Apps::Some([AppId(1)].into()), "0123456789abcdef").expect("short"),
            ApiKey::new(Apps::All, &secret).expect("as long as may be"),
        ]);
        let one = ask(&keys, &["Bearer 0123456789abcdef"], None).expect("the key");
        assert!(one.may(AppId(1)) && !one.may(AppId(0)) && !one.may_see_all() && one.first_app() == AppId(1));
        let all = ask(&keys, &[&format!("bearer {secret}")], None).expect("the key");
        assert!(all.may(AppId(7)) && all.may_see_all() && all.first_app() == AppId(0));
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            assert_eq!(ask(&keys, &[wrong], None), Err(Fault::Key), "{wrong}");
        }
        assert_eq!(ask(&keys, &[], None), Err(Fault::Key));
        assert_eq!(ask(&keys, &[&format!("Bearer {secret}k")], None), Err(Fault::Key));
        assert_eq!(ask(&keys, &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"], None), Err(Fault::Key));
        assert!(ApiKey::new(Apps::All, &"k".repeat(API_KEY_BYTES_MAX + 1)).is_none());
        assert!(!format!("{keys:?}").contains("0123456789abcdef"), "keys are never printed");
    }

    #[test]
    fn a_key_is_known_by_its_hash_alone() {
        let hash = KeyHash::of(b"0123456789abcdef");
        assert_eq!(KeyHash::parse(&hash.to_string()), Some(hash));
        let keys = ApiKeys::new(vec![ApiKey::hashed(Apps::All, hash)]);
        assert!(ask(&keys, &["Bearer 0123456789abcdef"], None).is_ok());
        assert_eq!(ask(&keys, &[&format!("Bearer {hash}")], None), Err(Fault::Key), "the hash is no key");
        for text in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            assert_eq!(KeyHash::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_good_for_its_scopes_and_from_its_addresses() {
        let network = |text: &str| text.parse().expect("a network");
        let key = ApiKey::new(Apps::All, "0123456789abcdef").expect("short");
        let key = key.with_scopes(Scopes::of([Scope::Push, Scope::Events])).only_from(vec![network("10.0.0.0/8")]);
        let keys = ApiKeys::new(vec![key]);
        let bearer = ["Bearer 0123456789abcdef"];
        let caller = ask(&keys, &bearer, Some("10.1.2.3")).expect("it is from there");
        let may = Scope::ALL.map(|(scope, _)| caller.may_do(scope));
        assert_eq!(may, [true, false, true, false]);
        assert_eq!(ask(&keys, &bearer, Some("11.0.0.1")), Err(Fault::Address));
        assert_eq!(ask(&keys, &bearer, None), Err(Fault::Address));
        let keys = keys.only_from(vec![network("10.1.0.0/16")]);
        assert!(ask(&keys, &bearer, Some("10.1.2.3")).is_ok());
        assert_eq!(ask(&keys, &bearer, Some("10.2.0.0")), Err(Fault::Address), "the node's list holds as well");
        let open = ApiKeys::new(Vec::new()).only_from(vec![network("::1")]);
        assert_eq!(ask(&open, &[], Some("127.0.0.1")), Err(Fault::Address), "it holds without keys");
        assert!(ask(&open, &[], Some("::1")).is_ok());
    }
}
