//! The keys that tokens are checked with: each bound to one algorithm and to the apps it may speak for.

use crate::base::ids::AppId;
use crate::limits::{AUTH_KEYS_MAX, TOKEN_SECRET_BYTES_MIN};
use core::fmt;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use std::sync::Arc;

/// Bytes of the modulus of the shortest RSA key that is taken: 2,048 bits (RFC 7518 §3.3).
const RSA_MODULUS_BYTES_MIN: usize = 256;
/// Bytes of an uncompressed point of P-256.
const P256_POINT_BYTES: usize = 65;
/// Bytes of a public key of Ed25519.
const ED25519_BYTES: usize = 32;

/// How a token is signed. There are others; these are spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: whoever can check a token can make one.
    Hs256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All, with the names that RFC 7518 and RFC 8037 give them.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Hs256, "HS256"), (Self::Rs256, "RS256"), (Self::Es256, "ES256"), (Self::EdDsa, "EdDSA")];

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(algorithm, _)| algorithm)
    }

    pub(super) fn of(algorithm: jsonwebtoken::Algorithm) -> Option<Self> {
        Self::ALL.into_iter().map(|(known, _)| known).find(|known| known.foreign() == algorithm)
    }

    pub(super) fn foreign(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// For which apps a key may speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyApps {
    /// All of the node's.
    All,
    /// These, at least one.
    Some(Arc<[AppId]>),
}

impl KeyApps {
    pub(super) fn include(&self, app: AppId) -> bool {
        match self {
            Self::All => true,
            Self::Some(apps) => apps.contains(&app),
        }
    }

    /// Of a token that names none.
    pub(super) fn first(&self) -> AppId {
        match self {
            Self::All => AppId(0),
            Self::Some(apps) => apps.first().copied().unwrap_or_default(),
        }
    }
}

/// Why something is no key; the operator's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The secret is shorter than what it is hashed to (RFC 7518 §3.2).
    ShortSecret,
    /// An RSA key of fewer than 2,048 bits.
    ShortRsa,
    /// Not PEM, or a key of another kind.
    Pem,
    /// A private key, which has no place here.
    Private,
    /// Not a JSON Web Key Set.
    Set,
    /// A set without a key that can be used.
    EmptySet,
    /// More than `AUTH_KEYS_MAX` keys.
    TooMany,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortSecret => write!(f, "the secret has fewer than {TOKEN_SECRET_BYTES_MIN} bytes"),
            Self::ShortRsa => write!(f, "the RSA key has fewer than 2048 bits"),
            Self::Pem => write!(f, "this is no PEM with a public key of that algorithm"),
            Self::Private => write!(f, "this is a private key; the gateway is to have the public one"),
            Self::Set => write!(f, "this is no JSON Web Key Set"),
            Self::EmptySet => write!(f, "the set has no key of HS256, RS256, ES256 or EdDSA"),
            Self::TooMany => write!(f, "there are more than {AUTH_KEYS_MAX} keys"),
        }
    }
}

impl std::error::Error for KeyError {}

/// One key.
#[derive(Clone)]
pub struct Key {
    pub(super) algorithm: Algorithm,
    /// Of the tokens that name a key, only those that name this one.
    pub(super) id: Option<Box<str>>,
    pub(super) apps: KeyApps,
    pub(super) key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, id, apps, .. } = self;
        f.debug_struct("Key").field("algorithm", algorithm).field("id", id).field("apps", apps).finish_non_exhaustive()
    }
}

impl Key {
    /// A shared secret.
    ///
    /// # Errors
    /// It is too short.
    pub fn secret(id: Option<Box<str>>, apps: KeyApps, secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < TOKEN_SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret);
        }
        Ok(Self { algorithm: Algorithm::Hs256, id, apps, key: DecodingKey::from_secret(secret) })
    }

    /// A public key, or a certificate, as PEM.
    ///
    /// # Errors
    /// It is not one of this algorithm.
    pub fn pem(algorithm: Algorithm, id: Option<Box<str>>, apps: KeyApps, pem: &[u8]) -> Result<Self, KeyError> {
        if pem.windows(b"PRIVATE KEY-----".len()).any(|window| window == b"PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        let read = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::Pem),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem),
            Algorithm::Es256 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem),
        };
        Self { algorithm, id, apps, key: read.map_err(|_| KeyError::Pem)? }.checked(KeyError::Pem)
    }

    /// The keys of a JSON Web Key Set (RFC 7517). Those of other kinds and uses are passed over, as §5 asks.
    ///
    /// # Errors
    /// It is no set, or none of its keys can be used.
    pub fn set(apps: &KeyApps, json: &[u8]) -> Result<Vec<Self>, KeyError> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|_| KeyError::Set)?;
        if set.keys.len() > AUTH_KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let keys: Vec<Self> = set.keys.iter().filter_map(|key| Self::of_set(key, apps)).collect();
        if keys.is_empty() { Err(KeyError::EmptySet) } else { Ok(keys) }
    }

    fn of_set(jwk: &Jwk, apps: &KeyApps) -> Option<Self> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::OctetKey(_) => (Algorithm::Hs256, KeyAlgorithm::HS256),
            AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::Es256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        if jwk.common.key_algorithm.is_some_and(|other| other != named) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let id = jwk.common.key_id.as_deref().map(Into::into);
        Self { algorithm, id, apps: apps.clone(), key }.checked(KeyError::Set).ok()
    }

    /// Its bytes have the length that its algorithm asks for, so that a key of another curve is found at start.
    fn checked(self, otherwise: KeyError) -> Result<Self, KeyError> {
        let fits = match (self.algorithm, self.key.kind()) {
            (Algorithm::Hs256, DecodingKeyKind::SecretOrDer(secret)) => secret.len() >= TOKEN_SECRET_BYTES_MIN,
            // Its modulus is not longer than all of it.
            (Algorithm::Rs256, DecodingKeyKind::SecretOrDer(der)) if der.len() < RSA_MODULUS_BYTES_MIN => {
                return Err(KeyError::ShortRsa);
            }
            (Algorithm::Rs256, DecodingKeyKind::RsaModulusExponent { n, .. }) => n.len() >= RSA_MODULUS_BYTES_MIN,
            (Algorithm::Rs256, DecodingKeyKind::SecretOrDer(_)) => true,
            (Algorithm::Es256, DecodingKeyKind::SecretOrDer(point)) => point.len() == P256_POINT_BYTES,
            (Algorithm::EdDsa, DecodingKeyKind::SecretOrDer(key)) => key.len() == ED25519_BYTES,
            (_, DecodingKeyKind::RsaModulusExponent { .. }) => false,
        };
        if fits { Ok(self) } else { Err(otherwise) }
    }
}

/// All keys of a node, and the apps that tokens can name.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    apps: Arc<[String]>,
}

impl KeySet {
    /// The index of an app in `apps` is its [`AppId`].
    ///
    /// # Errors
    /// There are too many: a token that names no key is tried with all of its algorithm.
    pub fn new(keys: Vec<Key>, apps: Arc<[String]>) -> Result<Self, KeyError> {
        if keys.len() > AUTH_KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        Ok(Self { keys, apps })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, so that no token is good.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Those that a token of this algorithm, which names this key or none, can be of.
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = &Key> {
        let is_it = move |key: &&Key| {
            let is_named = id.is_none() || key.id.is_none() || key.id.as_deref() == id;
            key.algorithm == algorithm && is_named
        };
        self.keys.iter().filter(is_it)
    }

    /// An app by its name.
    pub(super) fn app(&self, name: &str) -> Option<AppId> {
        let index = self.apps.iter().position(|app| app == name)?;
        u16::try_from(index).ok().map(AppId)
    }
}
