//! A token, checked: RFC 7519 over RFC 7515, with one algorithm a key.

use super::keys::{Algorithm, Key, KeySet};
use super::rights::{Lists, Pattern};
use crate::base::ids::AppId;
use crate::limits::{IDENTITY_BYTES_MAX, TOKEN_BYTES_MAX};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// What all tokens of a node have to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How far the clocks of whoever signs and ours may be apart.
    pub leeway: Duration,
    /// `iss`, if one is asked for.
    pub issuer: Option<Box<str>>,
    /// What `aud` has to name, if anything.
    pub audience: Option<Box<str>>,
}

/// What a good token gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Tenant.
    pub app: AppId,
    /// User within it.
    pub user: Box<str>,
    /// When it ends, milliseconds since 1970-01-01 UTC, the leeway included.
    pub ends_ms: u64,
    /// What its bearer may do.
    pub lists: Lists,
}

/// Why a token is not good. Whoever shows one is not told which: it is a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No token at all, or one of a form that is not understood.
    Malformed,
    /// Signed otherwise than is spoken here, or not at all.
    Algorithm,
    /// There is no key of its algorithm, or none of the name it gives.
    Key,
    /// Signed by somebody else, or changed since.
    Signature,
    /// Over.
    Expired,
    /// Not valid yet.
    NotYet,
    /// Claims are missing or cannot be what they have to be.
    Claims,
    /// Its key may not speak for its app, or there is no such app.
    App,
    /// Whoever was asked says no.
    Denied,
    /// Whoever was asked says nothing, or nothing that makes sense.
    Unanswered,
}

impl Fault {
    /// All, in order: the index of each is its number.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::Claims,
        Self::App,
        Self::Denied,
        Self::Unanswered,
    ];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::Key => "token_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYet => "token_not_yet",
            Self::Claims => "token_claims",
            Self::App => "token_app",
            Self::Denied => "hook_denied",
            Self::Unanswered => "hook_unanswered",
        }
    }
}

/// What is read of a token's claims. The same name twice is an error, so that nobody reads the other one.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    app: Option<String>,
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: Option<Audience>,
    #[serde(default, deserialize_with = "present")]
    publish: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    subscribe: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A claim that is there has to be one: `null` does not stand for no list at all, which would refuse nothing.
pub(super) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Checks a token at `now_ms`, milliseconds since 1970-01-01 UTC.
///
/// # Errors
/// The first thing that is wrong with it, in the order of [`Fault`].
pub fn verify(token: &[u8], keys: &KeySet, rules: &Rules, now_ms: u64) -> Result<Grant, Fault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::Malformed);
    }
    let header = decode_header(token).map_err(|error| match error.kind() {
        // To the library an `alg` that it does not know, `none` among them, is a header that it cannot read.
        ErrorKind::Json(_) => Fault::Algorithm,
        _ => Fault::Malformed,
    })?;
    // What the header says is critical is not understood here (RFC 7515 §4.1.11).
    if header.crit.is_some() {
        return Err(Fault::Malformed);
    }
    let algorithm = Algorithm::of(header.alg).ok_or(Fault::Algorithm)?;
    let mut fault = Fault::Key;
    for key in keys.candidates(algorithm, header.kid.as_deref()) {
        match signed(token, key) {
            Ok(claims) => return grant(claims, key, keys, rules, now_ms),
            Err(Fault::Signature) => fault = Fault::Signature,
            Err(other) => return Err(other),
        }
    }
    Err(fault)
}

/// The claims, if the key signed them.
fn signed(token: &[u8], key: &Key) -> Result<Claims, Fault> {
    // Times are checked by us: here there is no clock to read.
    let mut validation = Validation::new(key.algorithm.foreign());
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    match decode::<Claims>(token, &key.key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) => Err(match error.kind() {
            ErrorKind::InvalidSignature => Fault::Signature,
            ErrorKind::InvalidAlgorithm => Fault::Algorithm,
            ErrorKind::Json(_) => Fault::Claims,
            _ => Fault::Malformed,
        }),
    }
}

fn grant(claims: Claims, key: &Key, keys: &KeySet, rules: &Rules, now_ms: u64) -> Result<Grant, Fault> {
    let leeway_ms = u64::try_from(rules.leeway.as_millis()).unwrap_or(u64::MAX);
    let ends_ms = milliseconds(claims.exp)?.saturating_add(leeway_ms);
    if ends_ms <= now_ms {
        return Err(Fault::Expired);
    }
    if let Some(begins) = claims.nbf
        && milliseconds(begins)? > now_ms.saturating_add(leeway_ms)
    {
        return Err(Fault::NotYet);
    }
    let is_named = |audience: &str| match &claims.aud {
        None => false,
        Some(Audience::One(one)) => one == audience,
        Some(Audience::Several(several)) => several.iter().any(|one| one == audience),
    };
    let is_issued = rules.issuer.as_deref().is_none_or(|issuer| claims.iss.as_deref() == Some(issuer));
    let is_user = (1..=IDENTITY_BYTES_MAX).contains(&claims.sub.len()) && !claims.sub.contains('\0');
    if !is_issued || !rules.audience.as_deref().is_none_or(is_named) || !is_user {
        return Err(Fault::Claims);
    }
    let lists =
        Lists { publish: patterns(claims.publish)?, subscribe: patterns(claims.subscribe)?, ..Lists::default() };
    let app = match &claims.app {
        None => key.apps.first(),
        Some(name) => keys.app(name).ok_or(Fault::App)?,
    };
    if !key.apps.include(app) {
        return Err(Fault::App);
    }
    Ok(Grant { app, user: claims.sub.into(), ends_ms, lists })
}

/// A NumericDate: seconds, which may have a fraction (RFC 7519 §2).
fn milliseconds(seconds: f64) -> Result<u64, Fault> {
    /// Later than any clock here will show, and exact as a float.
    const LATEST_SECONDS: f64 = 1e12;
    if !(0.0..=LATEST_SECONDS).contains(&seconds) {
        return Err(Fault::Claims);
    }
    // In range, as was just looked at.
    Ok((seconds * 1000.0) as u64)
}

fn patterns(texts: Option<Vec<String>>) -> Result<Option<Box<[Pattern]>>, Fault> {
    let Some(texts) = texts else { return Ok(None) };
    let patterns: Result<Box<[Pattern]>, _> = texts.iter().map(|text| Pattern::parse(text)).collect();
    patterns.map(Some).map_err(|_| Fault::Claims)
}
