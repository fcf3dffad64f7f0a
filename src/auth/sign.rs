//! Making tokens: for first steps and tests. In earnest whoever knows the users signs them.

use super::keys::{Algorithm, KeyError};
use crate::limits::TOKEN_SECRET_BYTES_MIN;
use core::fmt;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

/// What tokens are signed with.
#[derive(Clone)]
pub struct Signing {
    algorithm: Algorithm,
    id: Option<Box<str>>,
    key: EncodingKey,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").field("algorithm", &self.algorithm).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Signing {
    /// A shared secret.
    ///
    /// # Errors
    /// It is too short.
    pub fn secret(id: Option<Box<str>>, secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < TOKEN_SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret);
        }
        Ok(Self { algorithm: Algorithm::Hs256, id, key: EncodingKey::from_secret(secret) })
    }

    /// A private key as PEM; elliptic ones as PKCS #8.
    ///
    /// # Errors
    /// It is not one of this algorithm.
    pub fn pem(algorithm: Algorithm, id: Option<Box<str>>, pem: &[u8]) -> Result<Self, KeyError> {
        let read = match algorithm {
            Algorithm::Hs256 => return Err(KeyError::Pem),
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(pem),
            Algorithm::Es256 => EncodingKey::from_ec_pem(pem),
            Algorithm::EdDsa => EncodingKey::from_ed_pem(pem),
        };
        Ok(Self { algorithm, id, key: read.map_err(|_| KeyError::Pem)? })
    }
}

#[cfg(test)]
impl Signing {
    /// The last part of a token whose others are these.
    pub(super) fn signature(&self, message: &[u8]) -> String {
        jsonwebtoken::crypto::sign(message, &self.key, self.algorithm.foreign()).expect("the key signs")
    }
}

/// What a token is to say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wanted {
    /// The user.
    pub sub: String,
    /// The app; none: the key's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Seconds since 1970-01-01 UTC.
    pub iat: u64,
    /// Likewise.
    pub exp: u64,
    /// As whom it is issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Topics its bearer may publish to, as filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<String>>,
    /// Filters its bearer may subscribe to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Vec<String>>,
}

/// Signs it. None: the key cannot sign, which a PEM does not always show.
pub fn sign(wanted: &Wanted, with: &Signing) -> Option<String> {
    let mut header = Header::new(with.algorithm.foreign());
    header.kid = with.id.as_deref().map(str::to_owned);
    encode(&header, wanted, &with.key).ok()
}
