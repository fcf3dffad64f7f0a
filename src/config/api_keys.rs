//! `api.keys`: each entry names apps and a secret, `APPS:KEY`.

use super::{ConfigError, app_ids};
use crate::limits::{API_KEY_BYTES_MAX, API_KEY_BYTES_MIN, API_KEYS_MAX};
use crate::push::{ApiKey, Apps};
use std::collections::HashSet;

/// Reads the list. No error repeats a secret.
pub(super) fn parse(entries: &[String], apps: &[String]) -> Result<Vec<ApiKey>, ConfigError> {
    if entries.len() > API_KEYS_MAX {
        return Err(error(format!("{} are too many", entries.len())));
    }
    let mut secrets = HashSet::new();
    let mut keys = Vec::with_capacity(entries.len());
    for (number, entry) in (1..).zip(entries) {
        let Some((names, secret)) = entry.split_once(':') else {
            return Err(error(format!("entry {number} has no `:` between its apps and its key")));
        };
        let fits = (API_KEY_BYTES_MIN..=API_KEY_BYTES_MAX).contains(&secret.len());
        if !fits || !secret.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
            return Err(error(format!("the key of entry {number} is too short, too long, or has other characters")));
        }
        if !secrets.insert(secret) {
            return Err(error(format!("the key of entry {number} is there twice")));
        }
        let key = ApiKey::new(apps_of(names, apps)?, secret);
        keys.push(key.expect("its length was looked at"));
    }
    Ok(keys)
}

fn apps_of(names: &str, apps: &[String]) -> Result<Apps, ConfigError> {
    Ok(app_ids(names, apps).map_err(error)?.map_or(Apps::All, |ids| Apps::Some(ids.into())))
}

fn error(wrong: String) -> ConfigError {
    let allowed = format!(
        "at most {API_KEYS_MAX} entries APPS:KEY, such as default+shop:KEY or *:KEY, a key having {API_KEY_BYTES_MIN} to \
         {API_KEY_BYTES_MAX} visible ASCII characters but no comma"
    );
    ConfigError::new("api.keys", wrong, allowed)
}
