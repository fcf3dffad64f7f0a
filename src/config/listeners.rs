//! `edge.listen`: each entry names an address and, behind it, what is spoken there: `ADDRESS WORD=VALUE...`.

use super::layers::one_line;
use super::{ConfigError, address};
use crate::base::prefix::Prefix;
use crate::limits::{LISTENERS_MAX, PROXY_SOURCES_MAX};
use crate::shard::{Door, Protocols, TlsUse};
use std::net::SocketAddr;

const NAME: &str = "edge.listen (--listen)";

/// Reads the list: addresses, and as many doors.
pub(super) fn parse(entries: &[String]) -> Result<(Vec<SocketAddr>, Vec<Door>), ConfigError> {
    if entries.is_empty() {
        return Err(ConfigError::new("edge.listen", "it is empty", "at least one IP:PORT"));
    }
    if entries.len() > LISTENERS_MAX {
        let wrong = format!("{} are too many", entries.len());
        return Err(ConfigError::new("edge.listen", wrong, format!("at most {LISTENERS_MAX}")));
    }
    let entries: Result<Vec<_>, _> = entries.iter().map(|entry| entry_of(entry)).collect();
    Ok(entries?.into_iter().unzip())
}

fn entry_of(entry: &str) -> Result<(SocketAddr, Door), ConfigError> {
    let mut words = entry.split_ascii_whitespace();
    let address = address(NAME, words.next().unwrap_or_default())?;
    let mut door = Door::OPEN;
    for word in words {
        let known = match word.split_once('=') {
            Some(("tls", value)) => tls_use(value).map(|tls| door.tls = tls),
            Some(("protocols", value)) => protocols(value).map(|protocols| door.protocols = protocols),
            Some(("proxy", value)) => proxies(value).map(|proxies| door.proxies = proxies),
            _ => None,
        };
        known.ok_or_else(|| error(address, word))?;
    }
    Ok((address, door))
}

fn tls_use(value: &str) -> Option<TlsUse> {
    match value {
        "true" => Some(TlsUse::Always),
        "false" => Some(TlsUse::Never),
        "detect" => Some(TlsUse::Detected),
        _ => None,
    }
}

fn protocols(value: &str) -> Option<Protocols> {
    let mut protocols = Protocols { mqtt: false, websocket: false, sse: false, poll: false };
    for name in value.split('+') {
        match name {
            "mqtt" => protocols.mqtt = true,
            "websocket" => protocols.websocket = true,
            "sse" => protocols.sse = true,
            "poll" => protocols.poll = true,
            _ => return None,
        }
    }
    Some(protocols)
}

fn proxies(value: &str) -> Option<Vec<Prefix>> {
    let prefixes: Option<Vec<Prefix>> = value.split('+').map(|text| text.parse().ok()).collect();
    prefixes.filter(|prefixes| prefixes.len() <= PROXY_SOURCES_MAX)
}

fn error(address: SocketAddr, word: &str) -> ConfigError {
    let allowed = format!(
        "tls=true, tls=false, tls=detect, protocols=mqtt+websocket+sse+poll or some of them, proxy=PREFIX+PREFIX (at most \
         {PROXY_SOURCES_MAX}, such as 10.0.0.0/8)"
    );
    ConfigError::new(NAME, format!("{address}: `{}` is not allowed", one_line(word)), allowed)
}
