//! TLS of the edge: read at start, and again when a file changes or somebody asks; ticket keys that are drawn here.

use super::verifier::marks;
use crate::config::ConfigError;
use crate::config::tls::{Content, TlsFiles};
use crate::limits::{AUTH_RELOAD_INTERVAL, TLS_TICKET_ROTATION};
use crate::shard::Handle;
use crate::wire::tls::{Identity, Server, TICKET_KEY_BYTES, TicketKey};
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tracing::{info, warn};

/// Keys that were drawn here: the one that seals, then the one before.
pub(super) struct Keyring {
    keys: Vec<TicketKey>,
    drawn: Instant,
}

impl Keyring {
    /// A first key.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { keys: vec![draw()?], drawn: Instant::now() })
    }

    /// Draws another key when it is time; whether it did.
    pub(super) fn turn(&mut self, now: Instant) -> io::Result<bool> {
        if now.saturating_duration_since(self.drawn) < TLS_TICKET_ROTATION {
            return Ok(false);
        }
        self.keys.insert(0, draw()?);
        self.keys.truncate(2);
        self.drawn = now;
        Ok(true)
    }
}

fn draw() -> io::Result<TicketKey> {
    let mut bytes = [0; TICKET_KEY_BYTES];
    let count = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    assert_eq!(count, bytes.len(), "the kernel gives up to 256 bytes at once, or none");
    Ok(bytes.into())
}

/// Servers of what the files hold now.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) edge: Server,
    /// None: the API does not speak TLS.
    pub(super) api: Option<Arc<ServerConfig>>,
}

/// Reads the files.
///
/// # Errors
/// One of them cannot be read, or is not what it should be.
pub(super) fn read(files: &TlsFiles, ring: &Keyring) -> Result<Servers, ConfigError> {
    let Content { edge, api, keys } = files.read()?;
    let keys = if files.has_ticket_keys() { &keys } else { &ring.keys };
    let server = |identity: &Identity| {
        Server::new(identity, keys).map_err(|why| ConfigError {
            key: "tls.certificates".to_owned(),
            wrong: why.to_string(),
            allowed: "what rustls takes".to_owned(),
        })
    };
    let api = api.map(|identity| server(&identity)).transpose()?.map(|server| server.rustls());
    Ok(Servers { edge: server(&edge)?, api })
}

/// TLS as the node keeps it.
pub(super) struct Kept {
    pub(super) files: TlsFiles,
    pub(super) ring: Keyring,
    /// The API's, which takes what is sent there for its next connections.
    pub(super) api: watch::Sender<Option<Arc<ServerConfig>>>,
}

/// Reads everything again and gives it to the shards. What cannot be read leaves them as they are.
fn renew(kept: &Kept, handle: &Handle) -> Result<(), ConfigError> {
    let Servers { edge, api } = read(&kept.files, &kept.ring)?;
    handle.renew_tls(&edge);
    kept.api.send_replace(api);
    Ok(())
}

/// Does so on each SIGHUP, when a file has changed, and when it is time for another key. For as long as the process lives.
pub(super) async fn keep_current(tls: Option<Kept>, handle: Handle, mut hangup: Signal) {
    let Some(mut kept) = tls else { return };
    let mut last = marks(kept.files.files());
    let mut looks = tokio::time::interval(AUTH_RELOAD_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            _ = hangup.recv() => true,
            _ = looks.tick() => false,
        };
        let (handle, known) = (handle.clone(), last);
        // Files may be on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let now = marks(kept.files.files());
            let drew = kept.ring.turn(Instant::now()).unwrap_or_else(|error| {
                warn!("TLS: the ticket key stays as it was: {error}");
                false
            });
            if is_asked || drew || now != known {
                match renew(&kept, &handle) {
                    Ok(()) => info!("TLS: certificates and ticket keys are current"),
                    Err(error) => warn!("TLS stays as it was: {error}"),
                }
            }
            (now, kept)
        });
        match looked.await {
            Ok((now, same)) => (last, kept) = (now, same),
            Err(error) => return warn!("TLS is not read again any more: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_key_seals_for_one_rotation_and_opens_for_two() {
        let mut ring = Keyring::new().expect("there is randomness");
        let (first, start) = (ring.keys[0].clone(), ring.drawn);
        let almost = TLS_TICKET_ROTATION - std::time::Duration::from_millis(1);
        assert!(!ring.turn(start + almost).expect("there is randomness"));
        assert!(ring.turn(start + TLS_TICKET_ROTATION).expect("there is randomness"));
        assert!(ring.keys.len() == 2 && ring.keys[0] != first && ring.keys[1] == first);
        assert!(ring.turn(start + 2 * TLS_TICKET_ROTATION).expect("there is randomness"));
        assert!(ring.keys.len() == 2 && !ring.keys.contains(&first));
    }
}
