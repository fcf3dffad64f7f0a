//! Tokens, good and forged.

use super::*;
use crate::base::ids::AppId;
use crate::limits::{AUTH_KEYS_MAX, IDENTITY_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_SECRET_BYTES_MIN};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const RSA: &[u8] = include_bytes!("../../tests/keys/rsa.pem");
const RSA_PUBLIC: &[u8] = include_bytes!("../../tests/keys/rsa.pub.pem");
const EC: &[u8] = include_bytes!("../../tests/keys/ec.pem");
const EC_PUBLIC: &[u8] = include_bytes!("../../tests/keys/ec.pub.pem");
const ED: &[u8] = include_bytes!("../../tests/keys/ed.pem");
const ED_PUBLIC: &[u8] = include_bytes!("../../tests/keys/ed.pub.pem");

/// Seconds; everything here happens then.
const NOW: u64 = 1_800_000_000;

fn apps(ids: &[u16]) -> KeyApps {
    KeyApps::Some(ids.iter().map(|&id| AppId(id)).collect())
}

fn set(keys: Vec<Key>) -> KeySet {
    KeySet::new(keys, Arc::from(["default", "shop", "games"].map(str::to_owned))).expect("they are few")
}

fn secret_key(ids: &[u16]) -> Key {
    Key::secret(None, apps(ids), SECRET).expect("it is long enough")
}

/// A token with these claims, whatever they are.
fn token(claims: &Value, with: &Signing) -> String {
    raw_token(&json!({"alg": "HS256"}), claims, with)
}

/// With another header, signed as `with` does.
fn raw_token(header: &Value, claims: &Value, with: &Signing) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    format!("{message}.{}", with.signature(message.as_bytes()))
}

fn secret() -> Signing {
    Signing::secret(None, SECRET).expect("it is long enough")
}

fn check(token: &str, keys: &KeySet) -> Result<Grant, Fault> {
    verify(token.as_bytes(), keys, &Rules::default(), NOW * 1000)
}

fn wanted() -> Wanted {
    Wanted { sub: "ann".into(), iat: NOW, exp: NOW + 60, ..Wanted::default() }
}

fn pairs() -> Vec<(Algorithm, Signing, Key)> {
    let private = |algorithm, pem| Signing::pem(algorithm, None, pem).expect("a private key");
    let public = |algorithm, pem| Key::pem(algorithm, None, apps(&[0]), pem).expect("a public key");
    vec![
        (Algorithm::Hs256, secret(), secret_key(&[0])),
        (Algorithm::Rs256, private(Algorithm::Rs256, RSA), public(Algorithm::Rs256, RSA_PUBLIC)),
        (Algorithm::Es256, private(Algorithm::Es256, EC), public(Algorithm::Es256, EC_PUBLIC)),
        (Algorithm::EdDsa, private(Algorithm::EdDsa, ED), public(Algorithm::EdDsa, ED_PUBLIC)),
    ]
}

#[test]
fn each_algorithm_takes_what_its_own_key_signed_and_nothing_else() {
    let pairs = pairs();
    for (signed_with, signing, _) in &pairs {
        let token = sign(&wanted(), signing).expect("it signs");
        for (algorithm, _, key) in &pairs {
            let found = check(&token, &set(vec![key.clone()]));
            if signed_with == algorithm {
                let grant = found.expect("its own key");
                assert_eq!((grant.app, &*grant.user, grant.ends_ms), (AppId(0), "ann", (NOW + 60) * 1000));
                assert!(grant.lists.is_empty());
            } else {
                assert_eq!(found, Err(Fault::Key), "{signed_with:?} by {algorithm:?}");
            }
        }
        let all = set(pairs.iter().map(|(.., key)| key.clone()).collect());
        assert!(check(&token, &all).is_ok(), "{signed_with:?} among all");
        let mut changed = token.clone().into_bytes();
        let at = changed.iter().position(|&byte| byte == b'.').expect("it has parts") + 4;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let found = verify(&changed, &all, &Rules::default(), NOW * 1000);
        assert_eq!(found, Err(Fault::Signature), "{signed_with:?} changed");
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    // The classic confusion: whoever knows the public key signs with it as if it were a secret.
    let confused = Signing::secret(None, RSA_PUBLIC).expect("it is long enough");
    let token = sign(&wanted(), &confused).expect("it signs");
    let key = Key::pem(Algorithm::Rs256, None, KeyApps::All, RSA_PUBLIC).expect("a public key");
    assert_eq!(check(&token, &set(vec![key.clone()])), Err(Fault::Key));
    assert_eq!(check(&token, &set(vec![key, secret_key(&[0])])), Err(Fault::Signature));
}

#[test]
fn a_token_without_a_signature_is_no_token() {
    let claims = json!({"sub": "ann", "exp": NOW + 60});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let keys = set(vec![secret_key(&[0])]);
    for name in ["none", "None", "NONE", "", "HS257"] {
        let token = format!("{}.{}.", part(&json!({"alg": name})), part(&claims));
        assert_eq!(check(&token, &keys), Err(Fault::Algorithm), "{name}");
    }
    let unsigned = format!("{}.{}.", part(&json!({"alg": "HS256"})), part(&claims));
    assert_eq!(check(&unsigned, &keys), Err(Fault::Signature));
    for strong in ["HS384", "HS512", "PS256", "ES384", "RS512"] {
        assert_eq!(check(&raw_token(&json!({"alg": strong}), &claims, &secret()), &keys), Err(Fault::Algorithm));
    }
    for garbage in ["", ".", "..", "...", "a.b.c", "{}.{}.{}", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        assert!(matches!(check(garbage, &keys), Err(Fault::Malformed | Fault::Algorithm)), "{garbage}");
    }
    let critical = raw_token(&json!({"alg": "HS256", "crit": ["b64"], "b64": true}), &claims, &secret());
    assert_eq!(check(&critical, &keys), Err(Fault::Malformed));
}

#[test]
fn a_token_is_good_between_its_times_and_the_leeway() {
    let keys = set(vec![secret_key(&[0])]);
    let rules = Rules { leeway: Duration::from_secs(5), ..Rules::default() };
    let at = |claims: &Value, now_ms| verify(token(claims, &secret()).as_bytes(), &keys, &rules, now_ms);
    let claims = json!({"sub": "ann", "exp": NOW, "nbf": NOW - 10});
    assert_eq!(at(&claims, (NOW - 15) * 1000 - 1), Err(Fault::NotYet));
    for now_ms in [(NOW - 15) * 1000, NOW * 1000, (NOW + 5) * 1000 - 1] {
        assert_eq!(at(&claims, now_ms).map(|grant| grant.ends_ms), Ok((NOW + 5) * 1000));
    }
    assert_eq!(at(&claims, (NOW + 5) * 1000), Err(Fault::Expired));
    let fraction = at(&json!({"sub": "ann", "exp": 1_800_000_000.25}), NOW * 1000).expect("a fraction is a number");
    assert_eq!(fraction.ends_ms, NOW * 1000 + 5_250);
    for exp in [json!(-1), json!("1800000000"), json!(null), json!(1e300), json!([NOW])] {
        assert_eq!(at(&json!({"sub": "ann", "exp": exp}), 0), Err(Fault::Claims), "{exp}");
    }
    assert_eq!(at(&json!({"sub": "ann"}), 0), Err(Fault::Claims), "a token has an end");
    assert_eq!(at(&json!({"sub": "ann", "exp": NOW, "nbf": -5}), 0), Err(Fault::Claims));
}

#[test]
fn a_key_speaks_for_its_own_apps_only() {
    let shop = set(vec![secret_key(&[1, 2])]);
    let all = set(vec![Key::secret(None, KeyApps::All, SECRET).expect("it is long enough")]);
    let of = |app: Value| {
        let mut claims = json!({"sub": "ann", "exp": NOW + 60});
        claims["app"] = app;
        token(&claims, &secret())
    };
    let app = |token: &str, keys| check(token, keys).map(|grant| grant.app.0);
    assert_eq!(app(&of(json!("shop")), &shop), Ok(1));
    assert_eq!(app(&of(json!("games")), &shop), Ok(2));
    assert_eq!(app(&of(json!("default")), &shop), Err(Fault::App));
    assert_eq!(app(&of(json!("other")), &shop), Err(Fault::App));
    assert_eq!(app(&of(json!("default")), &all), Ok(0));
    assert_eq!(app(&of(json!("other")), &all), Err(Fault::App));
    assert_eq!(app(&of(json!(null)), &all), Err(Fault::Claims));
    let unnamed = token(&json!({"sub": "ann", "exp": NOW + 60}), &secret());
    assert_eq!((app(&unnamed, &shop), app(&unnamed, &all)), (Ok(1), Ok(0)), "its key's first");
}

#[test]
fn claims_are_what_they_have_to_be() {
    let keys = set(vec![secret_key(&[0])]);
    let fault = |change: Value| {
        let mut claims = json!({"sub": "ann", "exp": NOW + 60});
        for (name, value) in change.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        check(&token(&claims, &secret()), &keys).err()
    };
    for sub in ["", "a\0b", &"a".repeat(IDENTITY_BYTES_MAX + 1)] {
        assert_eq!(fault(json!({"sub": sub})), Some(Fault::Claims), "{sub}");
    }
    assert_eq!(fault(json!({"sub": "a".repeat(IDENTITY_BYTES_MAX)})), None);
    assert_eq!(fault(json!({"sub": 7})), Some(Fault::Claims));
    for list in [json!(null), json!("a/#"), json!([1]), json!(["a/#/b"]), json!([""]), json!(["$share/g/a"])] {
        assert_eq!(fault(json!({"publish": list})), Some(Fault::Claims), "{list}");
        assert_eq!(fault(json!({"subscribe": list})), Some(Fault::Claims), "{list}");
    }
    assert_eq!(fault(json!({"subscribe": [], "publish": ["a/{user}/#"], "other": {"x": 1}})), None);
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(r#"{"sub":"ann","exp":1900000000,"sub":"bob"}"#));
    let twice = format!("{message}.{}", secret().signature(message.as_bytes()));
    assert_eq!(check(&twice, &keys), Err(Fault::Claims), "a claim that is there twice");
}

#[test]
fn issuer_and_audience_are_asked_for_where_the_node_does() {
    let keys = set(vec![secret_key(&[0])]);
    let rules = Rules { issuer: Some("id".into()), audience: Some("push".into()), ..Rules::default() };
    let of = |iss: Value, aud: Value| {
        let claims = json!({"sub": "ann", "exp": NOW + 60, "iss": iss, "aud": aud});
        verify(token(&claims, &secret()).as_bytes(), &keys, &rules, NOW * 1000).map(|_| ())
    };
    assert_eq!(of(json!("id"), json!("push")), Ok(()));
    assert_eq!(of(json!("id"), json!(["web", "push"])), Ok(()));
    for (iss, aud) in [(json!("other"), json!("push")), (json!("id"), json!("web")), (json!("id"), json!([]))] {
        assert_eq!(of(iss, aud), Err(Fault::Claims));
    }
    assert_eq!(of(json!(null), json!("push")), Err(Fault::Claims));
    let plain = token(&json!({"sub": "ann", "exp": NOW + 60, "iss": "x", "aud": "y"}), &secret());
    assert!(check(&plain, &keys).is_ok(), "who does not ask does not mind");
}

#[test]
fn a_token_that_names_a_key_is_of_that_key() {
    let key = |id: &str, secret: &[u8]| Key::secret(Some(id.into()), apps(&[0]), secret).expect("it is long enough");
    let other = b"fedcba9876543210fedcba9876543210";
    let keys = set(vec![key("old", other), key("new", SECRET)]);
    let claims = json!({"sub": "ann", "exp": NOW + 60});
    let named = |id: &str| raw_token(&json!({"alg": "HS256", "kid": id}), &claims, &secret());
    assert!(check(&named("new"), &keys).is_ok());
    assert_eq!(check(&named("old"), &keys), Err(Fault::Signature));
    assert_eq!(check(&named("unknown"), &keys), Err(Fault::Key));
    assert!(check(&token(&claims, &secret()), &keys).is_ok(), "one that names none is tried with all");
    assert!(check(&named("anything"), &set(vec![secret_key(&[0])])).is_ok(), "a key without a name takes any");
}

#[test]
fn a_set_of_keys_is_read_and_what_is_not_for_signatures_is_passed_over() {
    let jwk = |text: &[u8], algorithm: Algorithm| {
        let key = match algorithm {
            Algorithm::Rs256 => jsonwebtoken::EncodingKey::from_rsa_pem(text),
            Algorithm::Es256 => jsonwebtoken::EncodingKey::from_ec_pem(text),
            _ => jsonwebtoken::EncodingKey::from_ed_pem(text),
        };
        let key = key.expect("a private key");
        let made = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm.foreign()).expect("it has a public half");
        serde_json::to_value(made).expect("it is JSON")
    };
    let mut rsa = jwk(RSA, Algorithm::Rs256);
    rsa["kid"] = json!("r");
    let (ec, ed) = (jwk(EC, Algorithm::Es256), jwk(ED, Algorithm::EdDsa));
    let (mut sealing, mut other) = (rsa.clone(), rsa.clone());
    sealing["use"] = json!("enc");
    other["alg"] = json!("RS512");
    let unknown = json!({"kty": "new", "q": 1});
    let text = json!({"keys": [unknown, sealing, other, rsa, ec, ed]}).to_string();
    let keys = Key::set(&apps(&[0]), text.as_bytes()).expect("a set");
    let found: Vec<Algorithm> = keys.iter().map(|key| key.algorithm).collect();
    assert_eq!(found, [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
    let keys = set(keys);
    for (_, signing, _) in &pairs()[1..] {
        assert!(check(&sign(&wanted(), signing).expect("it signs"), &keys).is_ok());
    }
    let of_rsa = &pairs()[1].1;
    let token = |id: &str| raw_token(&json!({"alg": "RS256", "kid": id}), &json!({"sub": "a", "exp": NOW + 1}), of_rsa);
    assert!(check(&token("r"), &keys).is_ok());
    assert_eq!(check(&token("x"), &keys), Err(Fault::Key));
    assert_eq!(Key::set(&apps(&[0]), b"{}").err(), Some(KeyError::Set));
    assert_eq!(Key::set(&apps(&[0]), br#"{"keys":[{"kty":"new"}]}"#).err(), Some(KeyError::EmptySet));
    let short = json!({"keys": [{"kty": "oct", "k": URL_SAFE_NO_PAD.encode(&SECRET[1..])}]}).to_string();
    assert_eq!(Key::set(&apps(&[0]), short.as_bytes()).err(), Some(KeyError::EmptySet));
}

#[test]
fn keys_that_are_too_weak_or_of_another_kind_are_refused() {
    for (bytes, fits) in [(TOKEN_SECRET_BYTES_MIN - 1, false), (TOKEN_SECRET_BYTES_MIN, true)] {
        assert_eq!(Key::secret(None, KeyApps::All, &vec![7; bytes]).is_ok(), fits);
        assert_eq!(Signing::secret(None, &vec![7; bytes]).is_ok(), fits);
    }
    let pem = |algorithm, text| Key::pem(algorithm, None, KeyApps::All, text).err();
    assert_eq!(pem(Algorithm::Rs256, include_bytes!("../../tests/keys/rsa1024.pub.pem")), Some(KeyError::ShortRsa));
    assert_eq!(pem(Algorithm::Es256, include_bytes!("../../tests/keys/p384.pub.pem")), Some(KeyError::Pem));
    for (algorithm, text) in
        [(Algorithm::Rs256, EC_PUBLIC), (Algorithm::Es256, ED_PUBLIC), (Algorithm::EdDsa, RSA_PUBLIC)]
    {
        assert_eq!(pem(algorithm, text), Some(KeyError::Pem));
    }
    for (algorithm, text) in [(Algorithm::Rs256, RSA), (Algorithm::Es256, EC), (Algorithm::EdDsa, ED)] {
        assert_eq!(pem(algorithm, text), Some(KeyError::Private));
    }
    assert_eq!(pem(Algorithm::Rs256, b"hello"), Some(KeyError::Pem));
    assert_eq!(pem(Algorithm::Hs256, RSA_PUBLIC), Some(KeyError::Pem));
    let many = |count| KeySet::new(vec![secret_key(&[0]); count], Arc::from([])).err();
    assert_eq!((many(AUTH_KEYS_MAX), many(AUTH_KEYS_MAX + 1)), (None, Some(KeyError::TooMany)));
    assert!(!format!("{:?} {:?}", secret_key(&[0]), secret()).contains("0123"), "no key is printed");
}
