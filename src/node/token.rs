//! `kittiwake token`: signs a token, for first steps and tests.

use super::cli::{Failure, TokenArguments};
use crate::auth::{Algorithm, Signing, Wanted, sign};
use crate::config::{Config, token_keys};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Prints the token.
pub(super) fn run(arguments: &TokenArguments, config: &Config) -> Result<(), Failure> {
    let tokens = config.tokens.as_ref().ok_or_else(|| {
        Failure::Usage("auth.mode: it is none, so nobody is asked for a token; allowed: jwt".to_owned())
    })?;
    let signing = match &arguments.key {
        Some(path) => {
            let pem = token_keys::read_file(path)
                .map_err(|why| Failure::Usage(format!("--key: cannot read {}: {why}", path.display())))?;
            private_key(&pem, arguments.key_id.as_deref()).ok_or_else(|| {
                let allowed = "allowed: a private key of RS256, ES256 (PKCS #8) or EdDSA as PEM";
                Failure::Usage(format!("--key: {} holds no key to sign with; {allowed}", path.display()))
            })?
        }
        None => tokens.keys.signing(arguments.app.as_deref()).map_err(|error| Failure::Usage(error.to_string()))?,
    };
    // A clock before 1970 makes tokens that are over, which is what such a clock asks for.
    let iat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let list = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    let wanted = Wanted {
        sub: arguments.user.clone(),
        app: arguments.app.clone(),
        iat,
        exp: iat.saturating_add(arguments.ttl.as_secs().max(1)),
        iss: tokens.rules.issuer.as_deref().map(str::to_owned),
        aud: tokens.rules.audience.as_deref().map(str::to_owned),
        publish: list(&arguments.publish),
        subscribe: list(&arguments.subscribe),
    };
    let token = sign(&wanted, &signing).ok_or_else(|| Failure::Runtime("the key does not sign".to_owned()))?;
    writeln!(std::io::stdout(), "{token}").map_err(|error| Failure::Runtime(format!("cannot print: {error}")))
}

/// A PEM says what its key is.
fn private_key(pem: &[u8], id: Option<&str>) -> Option<Signing> {
    let of = |algorithm| Signing::pem(algorithm, id.map(Into::into), pem).ok();
    [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa].into_iter().find_map(of)
}
