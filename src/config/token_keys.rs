//! `auth.keys`: what tokens are checked with. Each entry names an algorithm, apps and where the key is.

use super::layers::one_line;
use super::{ConfigError, app_ids};
use crate::auth::{Algorithm, Key, KeyApps, KeyError, KeySet, Signing};
use crate::base::ids::AppId;
use crate::base::secret::Secret;
use crate::limits::{AUTH_KEY_FILE_BYTES_MAX, AUTH_KEYS_MAX, TOKEN_SECRET_BYTES_MIN};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAME: &str = "auth.keys";
/// Stands for an algorithm where the file says which.
const SET: &str = "JWKS";

/// The entries. Keys in files are read with [`TokenKeys::read`], as often as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeys {
    entries: Vec<Entry>,
    apps: Arc<[String]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    form: Form,
    apps: KeyApps,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// One key, which may have a name.
    One(Algorithm, Option<Box<str>>),
    /// A JSON Web Key Set.
    Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Secret(Secret),
    File(PathBuf),
}

/// Reads the list. No error repeats a secret.
pub(super) fn parse(entries: &[String], apps: &[String]) -> Result<TokenKeys, ConfigError> {
    if entries.len() > AUTH_KEYS_MAX {
        return Err(error(format!("{} are too many", entries.len())));
    }
    let entries = (1..).zip(entries).map(|(number, entry)| entry_of(number, entry, apps));
    Ok(TokenKeys { entries: entries.collect::<Result<_, _>>()?, apps: apps.into() })
}

fn entry_of(number: usize, entry: &str, apps: &[String]) -> Result<Entry, ConfigError> {
    let mut parts = entry.splitn(3, ':');
    let (Some(algorithm), Some(names), Some(source)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(error(format!("entry {number} has fewer than three parts")));
    };
    let form = match algorithm.split_once('/') {
        None if algorithm == SET => Some(Form::Set),
        None => Algorithm::named(algorithm).map(|algorithm| Form::One(algorithm, None)),
        Some((name, id)) => Algorithm::named(name).map(|algorithm| Form::One(algorithm, Some(id.into()))),
    };
    let form = form.ok_or_else(|| error(format!("entry {number} begins with `{}`", one_line(algorithm))))?;
    let apps = match app_ids(names, apps).map_err(|wrong| error(format!("entry {number}: {wrong}")))? {
        None => KeyApps::All,
        Some(ids) => KeyApps::Some(ids.into()),
    };
    let source = match source.split_once('=') {
        Some(("secret", text)) if matches!(form, Form::One(Algorithm::Hs256, _)) => Source::Secret(Secret::from(text)),
        Some(("file", path)) if !path.is_empty() => Source::File(PathBuf::from(path)),
        _ => return Err(error(format!("entry {number} does not say where its key is"))),
    };
    Ok(Entry { form, apps, source })
}

fn error(wrong: String) -> ConfigError {
    let allowed = format!(
        "at most {AUTH_KEYS_MAX} entries ALGORITHM:APPS:SOURCE, such as HS256:default:secret=TEXT (at least \
         {TOKEN_SECRET_BYTES_MIN} bytes), RS256/KEY-ID:default+shop:file=PUBLIC.pem or JWKS:*:file=KEYS.json; \
         algorithms: HS256, RS256, ES256, EdDSA"
    );
    ConfigError::new(NAME, wrong, allowed)
}

impl TokenKeys {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().filter_map(|entry| match &entry.source {
            Source::Secret(_) => None,
            Source::File(path) => Some(path.as_path()),
        })
    }

    /// The keys as they are now.
    ///
    /// # Errors
    /// A file cannot be read or holds no key, or a key is too weak.
    pub fn read(&self) -> Result<KeySet, ConfigError> {
        let mut keys = Vec::new();
        for (number, entry) in (1..).zip(&self.entries) {
            let failed = |why: KeyError| error(format!("entry {number}: {why}"));
            let bytes = entry.bytes().map_err(|(path, why)| error(format!("entry {number}: {path}: {why}")))?;
            let apps = entry.apps.clone();
            match &entry.form {
                Form::Set => keys.extend(Key::set(&apps, &bytes).map_err(failed)?),
                Form::One(Algorithm::Hs256, id) => {
                    keys.push(Key::secret(id.clone(), apps, line(&bytes)).map_err(failed)?);
                }
                Form::One(algorithm, id) => {
                    keys.push(Key::pem(*algorithm, id.clone(), apps, &bytes).map_err(failed)?);
                }
            }
        }
        KeySet::new(keys, Arc::clone(&self.apps)).map_err(|why| error(why.to_string()))
    }

    /// The first shared secret that may speak for an app, to sign with. An app that is not named is any.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn signing(&self, app: Option<&str>) -> Result<Signing, ConfigError> {
        let named = app.and_then(|app| self.apps.iter().position(|known| known == app));
        if app.is_some() && named.is_none() {
            return Err(ConfigError::new("--app", "there is no such app", "a name of node.apps"));
        }
        let id = named.and_then(|index| u16::try_from(index).ok()).map(AppId);
        let speaks = |apps: &KeyApps| match (apps, id) {
            (KeyApps::All, _) | (_, None) => true,
            (KeyApps::Some(apps), Some(id)) => apps.contains(&id),
        };
        for entry in self.entries.iter().filter(|entry| speaks(&entry.apps)) {
            if let Form::One(Algorithm::Hs256, id) = &entry.form {
                let bytes = entry.bytes().map_err(|(path, why)| error(format!("{path}: {why}")))?;
                return Signing::secret(id.clone(), line(&bytes)).map_err(|why| error(why.to_string()));
            }
        }
        Err(error("there is no HS256 key of that app to sign with; --key FILE signs with a private key".to_owned()))
    }
}

impl Entry {
    /// What is to become a key. The error names the file.
    fn bytes(&self) -> Result<Vec<u8>, (String, io::Error)> {
        match &self.source {
            Source::Secret(secret) => Ok(secret.bytes().to_vec()),
            Source::File(path) => read_file(path).map_err(|why| (path.display().to_string(), why)),
        }
    }
}

/// A small file, whole.
///
/// # Errors
/// It cannot be read, or is larger than a file with keys may be.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(AUTH_KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > AUTH_KEY_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {AUTH_KEY_FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Editors end a line that is no part of a secret.
fn line(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}
