//! `api.keys`: each entry names apps and a key, and what the key is good for: `APPS[/SCOPES][@NETWORKS]:KEY`.

use super::layers::one_line;
use super::{ConfigError, app_ids};
use crate::base::prefix::Prefix;
use crate::base::secret::Secret;
use crate::limits::{API_KEY_BYTES_MAX, API_KEY_BYTES_MIN, API_KEYS_MAX, API_NETWORKS_MAX};
use crate::push::{ApiKey, Apps, KeyHash, Scope, Scopes};

/// What stands before the hash of a bearer key.
const HASHED: &str = "sha256:";
/// What stands before the name and the bytes of a key that signs.
const SIGNING: &str = "hmac:";

/// Reads the list. No error repeats a secret.
pub(super) fn parse(entries: &[String], apps: &[String]) -> Result<Vec<ApiKey>, ConfigError> {
    if entries.len() > API_KEYS_MAX {
        return Err(error(format!("{} are too many", entries.len())));
    }
    let mut keys: Vec<ApiKey> = Vec::with_capacity(entries.len());
    for (number, entry) in (1..).zip(entries) {
        let key = entry_of(number, entry, apps)?;
        if keys.iter().any(|other| other.is_twin_of(&key)) {
            return Err(error(format!("the key of entry {number} is there twice")));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn entry_of(number: usize, entry: &str, apps: &[String]) -> Result<ApiKey, ConfigError> {
    let Some((who, key)) = split(entry) else {
        return Err(error(format!("entry {number} has no `:` between its apps and its key")));
    };
    let (who, from) = who.split_once('@').map_or((who, None), |(who, from)| (who, Some(from)));
    let (names, scopes) = who.split_once('/').map_or((who, None), |(names, scopes)| (names, Some(scopes)));
    let apps = app_ids(names, apps).map_err(error)?.map_or(Apps::All, |ids| Apps::Some(ids.into()));
    let key = key_of(number, key, apps)?;
    let from: Vec<String> = from.map_or_else(Vec::new, |list| list.split('+').map(str::to_owned).collect());
    Ok(key.with_scopes(scopes_of(number, scopes)?).only_from(networks("api.keys", &from)?))
}

/// At the first `:` that is no part of an IPv6 address in brackets.
fn split(entry: &str) -> Option<(&str, &str)> {
    let mut is_bracketed = false;
    let place = entry.bytes().position(|byte| {
        is_bracketed = byte == b'[' || is_bracketed && byte != b']';
        byte == b':' && !is_bracketed
    })?;
    Some((&entry[..place], &entry[place + 1..]))
}

fn key_of(number: usize, text: &str, apps: Apps) -> Result<ApiKey, ConfigError> {
    if let Some(hash) = text.strip_prefix(HASHED) {
        let hash = KeyHash::parse(hash).ok_or_else(|| error(format!("the hash of entry {number} is no SHA-256")))?;
        return Ok(ApiKey::hashed(apps, hash));
    }
    if let Some(named) = text.strip_prefix(SIGNING) {
        let (id, secret) = named.split_once(':').unwrap_or_default();
        let is_name = (1..=API_KEY_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            return Err(error(format!("entry {number} does not name its key with letters, digits, -, _ and .")));
        }
        check(number, secret)?;
        return Ok(ApiKey::signing(apps, id, Secret::from(secret)));
    }
    check(number, text)?;
    Ok(ApiKey::new(apps, text).expect("its length was looked at"))
}

fn check(number: usize, secret: &str) -> Result<(), ConfigError> {
    let fits = (API_KEY_BYTES_MIN..=API_KEY_BYTES_MAX).contains(&secret.len());
    if fits && secret.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        return Ok(());
    }
    Err(error(format!("the key of entry {number} is too short, too long, or has other characters")))
}

fn scopes_of(number: usize, names: Option<&str>) -> Result<Scopes, ConfigError> {
    let Some(names) = names else { return Ok(Scopes::ALL) };
    let scope = |name| {
        let named = Scope::named(name);
        named.ok_or_else(|| error(format!("entry {number} is for `{}`, which is no scope", one_line(name))))
    };
    Ok(Scopes::of(names.split('+').map(scope).collect::<Result<Vec<_>, _>>()?))
}

/// A list of addresses and parts of the address space.
pub(super) fn networks(key: &str, texts: &[String]) -> Result<Vec<Prefix>, ConfigError> {
    let error = |wrong: String| {
        let allowed = format!("at most {API_NETWORKS_MAX} addresses or prefixes such as 10.0.0.0/8 or [2001:db8::]/32");
        ConfigError::new(key, wrong, allowed)
    };
    if texts.len() > API_NETWORKS_MAX {
        return Err(error(format!("{} are too many", texts.len())));
    }
    let one = |text: &String| {
        // In an entry the colons of an IPv6 address are in brackets, so they may be here.
        let bare = text.replace(['[', ']'], "");
        bare.parse().map_err(|_| error(format!("`{}` is none", one_line(text))))
    };
    texts.iter().map(one).collect()
}

fn error(wrong: String) -> ConfigError {
    let allowed = format!(
        "at most {API_KEYS_MAX} entries APPS[/SCOPES][@NETWORKS]:KEY, such as default+shop/push:sha256:HASH, \
         *@10.0.0.0/8:hmac:NAME:KEY or *:KEY; scopes: push, read, events, admin; a key having {API_KEY_BYTES_MIN} to \
         {API_KEY_BYTES_MAX} visible ASCII characters but no comma"
    );
    ConfigError::new("api.keys", wrong, allowed)
}
