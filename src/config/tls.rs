//! `tls.*`: what the edge shows, whom it asks for certificates, and the keys of its tickets.

use super::ConfigError;
use super::layers::{Values, one_line};
use super::token_keys::read_file;
use crate::limits::{TLS_CERTIFICATES_MAX, TLS_TICKET_KEYS_MAX};
use crate::wire::tls::{Identity, IdentityError, NameFrom, Pair, Peers, TICKET_KEY_BYTES, TicketKey};
use std::path::{Path, PathBuf};

const CERTIFICATES: &str = "tls.certificates";
const CLIENT_CA: &str = "tls.client_ca";
const API_CLIENT_CA: &str = "api.client_ca";
const TICKET_KEYS: &str = "tls.ticket_keys";

/// Where everything is. Files are read with [`TlsFiles::read`], as often as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Of each certificate its chain and its key, which may be one file.
    pairs: Vec<(PathBuf, PathBuf)>,
    only_1_3: bool,
    client_ca: Option<PathBuf>,
    /// A client without a certificate is refused.
    pub requires_client: bool,
    name_from: NameFrom,
    ticket_keys: Option<PathBuf>,
    /// The API speaks TLS, too, and asks its callers for certificates that lead to one of these.
    api: Option<Option<PathBuf>>,
}

/// Reads the section; none where there is no certificate.
pub(super) fn parse(values: &Values) -> Result<Option<TlsFiles>, ConfigError> {
    let entries = values.list(CERTIFICATES);
    let path = |name| Some(values.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
    let (client_ca, ticket_keys) = (path(CLIENT_CA), path(TICKET_KEYS));
    let client = values.text("tls.client_certificates");
    match (client, &client_ca) {
        ("none", Some(_)) => {
            let allowed = "tls.client_certificates optional or required";
            return Err(ConfigError::new(CLIENT_CA, "nobody is asked for a certificate", allowed));
        }
        ("optional" | "required", None) => {
            let wrong = "there is nothing to check certificates against";
            return Err(ConfigError::new("tls.client_certificates", wrong, "none, or a file in tls.client_ca"));
        }
        _ => {}
    }
    let (api, api_client_ca) = (values.bool("api.tls"), path(API_CLIENT_CA));
    if !api && api_client_ca.is_some() {
        return Err(ConfigError::new(API_CLIENT_CA, "the API does not speak TLS", "api.tls true"));
    }
    if entries.is_empty() {
        let lonely = [(CLIENT_CA, client_ca.is_some()), (TICKET_KEYS, ticket_keys.is_some()), ("api.tls", api)];
        return match lonely.into_iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(ConfigError::new(name, "there is no certificate to speak TLS with", CERTIFICATES)),
            None => Ok(None),
        };
    }
    if entries.len() > TLS_CERTIFICATES_MAX {
        return Err(error(format!("{} are too many", entries.len())));
    }
    let pairs = entries.iter().map(|entry| pair_of(entry)).collect::<Result<_, _>>()?;
    Ok(Some(TlsFiles {
        pairs,
        only_1_3: values.text("tls.version_min") == "1.3",
        client_ca,
        requires_client: client == "required",
        name_from: match values.text("tls.client_user") {
            "dns" => NameFrom::Dns,
            "uri" => NameFrom::Uri,
            _ => NameFrom::CommonName,
        },
        ticket_keys,
        api: api.then_some(api_client_ca),
    }))
}

fn pair_of(entry: &str) -> Result<(PathBuf, PathBuf), ConfigError> {
    let (chain, key) = entry.split_once(':').unwrap_or((entry, entry));
    if chain.is_empty() || key.is_empty() || key.contains(':') {
        return Err(error(format!("`{}` is not one file or two", one_line(entry))));
    }
    Ok((chain.into(), key.into()))
}

fn error(wrong: String) -> ConfigError {
    let allowed = format!(
        "at most {TLS_CERTIFICATES_MAX} entries CHAIN:KEY, such as /etc/kittiwake/chain.pem:/etc/kittiwake/key.pem, or one \
         file with both; PEM, the server's own certificate first, the key not encrypted"
    );
    ConfigError::new(CERTIFICATES, wrong, allowed)
}

impl TlsFiles {
    /// All of them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs.iter().flat_map(|(chain, key)| [chain, key]);
        let others = [&self.client_ca, &self.ticket_keys].into_iter().flatten();
        pairs.chain(others).chain(self.api.iter().flatten()).map(PathBuf::as_path)
    }

    /// Whether the API speaks TLS.
    pub fn secures_api(&self) -> bool {
        self.api.is_some()
    }

    /// Whether ticket keys are in a file, and not drawn here.
    pub fn has_ticket_keys(&self) -> bool {
        self.ticket_keys.is_some()
    }

    /// What is in them now.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn read(&self) -> Result<Content, ConfigError> {
        let pairs = self.pairs.iter().map(|(chain, key)| {
            let pair = Pair::from_pem(&content(chain)?, &content(key)?);
            let names = if chain == key { show(chain) } else { format!("{}, {}", show(chain), show(key)) };
            pair.map_err(|why: IdentityError| error(one_line(&format!("{names}: {why}"))))
        });
        let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
        let peers = |name, path: &PathBuf, required| peers(name, path, required, self.name_from);
        let edge = self.client_ca.as_ref().map(|path| peers(CLIENT_CA, path, self.requires_client)).transpose()?;
        let api = match &self.api {
            None => None,
            Some(ca) => {
                let peers = ca.as_ref().map(|path| peers(API_CLIENT_CA, path, true)).transpose()?;
                Some(Identity {
                    pairs: pairs.clone(),
                    peers,
                    only_1_3: self.only_1_3,
                    protocols: &[b"h2", b"http/1.1"],
                })
            }
        };
        let keys = self.ticket_keys.as_deref().map(ticket_keys).transpose()?.unwrap_or_default();
        Ok(Content { edge: Identity { pairs, peers: edge, only_1_3: self.only_1_3, protocols: &[] }, api, keys })
    }
}

/// What the files say.
pub struct Content {
    /// Who the edge is.
    pub edge: Identity,
    /// Who the API is; none: it does not speak TLS.
    pub api: Option<Identity>,
    /// Ticket keys; none in a file: empty.
    pub keys: Vec<TicketKey>,
}

/// Whoever has a certificate that leads to one of a file's.
fn peers(name: &str, path: &Path, required: bool, name_from: NameFrom) -> Result<Peers, ConfigError> {
    let allowed = "a PEM file with the certificates that clients' certificates lead to";
    let wrong = |why: String| ConfigError::new(name, one_line(&format!("{}: {why}", show(path))), allowed);
    let pem = read_file(path).map_err(|why| wrong(why.to_string()))?;
    Peers::from_pem(&pem, required, name_from).map_err(|why| wrong(why.to_string()))
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn content(path: &Path) -> Result<Vec<u8>, ConfigError> {
    read_file(path).map_err(|why| error(one_line(&format!("{}: {why}", show(path)))))
}

/// A key a line, the newest first. No error repeats one.
fn ticket_keys(path: &Path) -> Result<Vec<TicketKey>, ConfigError> {
    let wrong = |why: String| {
        let allowed = format!(
            "1 to {TLS_TICKET_KEYS_MAX} lines, each of {} hexadecimal digits, as `openssl rand -hex {TICKET_KEY_BYTES}` \
             writes one; the first seals, all open",
            2 * TICKET_KEY_BYTES
        );
        ConfigError::new(TICKET_KEYS, one_line(&format!("{}: {why}", show(path))), allowed)
    };
    let bytes = read_file(path).map_err(|why| wrong(why.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is no text".to_owned()))?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let keys = lines.map(|(number, line)| {
        TicketKey::from_hex(line.trim()).ok_or_else(|| wrong(format!("line {number} is no key")))
    });
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    if keys.is_empty() || keys.len() > TLS_TICKET_KEYS_MAX {
        return Err(wrong(format!("it has {} keys", keys.len())));
    }
    Ok(keys)
}
