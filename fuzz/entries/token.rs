//! Any bytes as a token, and as claims that were signed: the check answers with a value, and only what was signed is good.

use kittiwake::auth::{Algorithm, Key, KeyApps, KeySet, Pattern, Rules, Who, verify};
use std::sync::Arc;

/// The corpus has tokens of this secret.
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn keys() -> KeySet {
    let pem = |algorithm, pem| Key::pem(algorithm, None, KeyApps::All, pem).expect("a public key");
    let keys = vec![
        Key::secret(None, KeyApps::All, SECRET).expect("it is long enough"),
        pem(Algorithm::Rs256, include_bytes!("../../tests/keys/rsa.pub.pem")),
        pem(Algorithm::Es256, include_bytes!("../../tests/keys/ec.pub.pem")),
        pem(Algorithm::EdDsa, include_bytes!("../../tests/keys/ed.pub.pem")),
    ];
    KeySet::new(keys, Arc::from(["default".to_owned()])).expect("they are few")
}

/// A token, a key set, and patterns.
pub fn check(bytes: &[u8]) {
    let keys = keys();
    if let Ok(grant) = verify(bytes, &keys, &Rules::default(), 0) {
        // Whoever changes a token does not know the secret.
        assert_eq!(&*grant.user, "ann", "only the corpus has tokens that are good");
        assert!(grant.ends_ms > 0);
    }
    let _ = Key::set(&KeyApps::All, bytes);
    let _ = Key::pem(Algorithm::Rs256, None, KeyApps::All, bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, filter) = text.split_once(' ').unwrap_or((text, text));
    if let Ok(pattern) = Pattern::parse(pattern) {
        let who = Who { user: "ann", device: "phone" };
        let is_inside = pattern.contains(filter, who);
        // Everything is inside of `#` but what begins with `$`.
        let all = Pattern::parse("#").expect("a filter");
        if is_inside && !filter.starts_with('$') {
            assert!(all.contains(filter, who));
        }
    }
}
