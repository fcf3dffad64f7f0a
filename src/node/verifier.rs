//! Checks the tokens that devices show, on threads of its own: a shard never waits for a signature.

use crate::auth::{self, Fault, KeySet, Rules};
use crate::config::token_keys::TokenKeys;
use crate::limits::{AUTH_RELOAD_INTERVAL, AUTH_THREADS};
use crate::shard::Handle;
use crate::shard::command::{Question, Shown};
use crossbeam_channel::Receiver;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::SystemTime;
use tokio::signal::unix::Signal;
use tracing::{info, warn};

/// The keys as they are now, and what tokens have to say.
pub(super) struct Verifier {
    keys: RwLock<Arc<KeySet>>,
    rules: Rules,
}

impl Verifier {
    pub(super) fn new(keys: KeySet, rules: Rules) -> Self {
        Self { keys: RwLock::new(Arc::new(keys)), rules }
    }

    fn keys(&self) -> Arc<KeySet> {
        // Nobody panics while it is held: the value in it is whole.
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, keys: KeySet) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

/// Starts the threads. They end when all shards have dropped their side of `questions`. Should one of them be lost, the
/// others go on; without any, questions find no room, and nobody who needs a token is let in.
pub(super) fn spawn(
    verifier: &Arc<Verifier>,
    questions: &Receiver<Question>,
    handle: &Handle,
    wall_ms: fn() -> u64,
) -> io::Result<Vec<JoinHandle<()>>> {
    let one = |number| {
        let (verifier, questions, handle) = (Arc::clone(verifier), questions.clone(), handle.clone());
        std::thread::Builder::new().name(format!("kittiwake-auth-{number}")).spawn(move || {
            for Question { token, shown } in questions.iter() {
                let Shown::Token(shown) = shown else {
                    // In this mode nobody is asked for anything else.
                    handle.verdict(token, Err(Fault::Malformed));
                    continue;
                };
                let keys = verifier.keys();
                handle.verdict(token, auth::verify(shown.bytes(), &keys, &verifier.rules, wall_ms()));
            }
        })
    };
    (0..AUTH_THREADS).map(one).collect()
}

/// Reads the keys again on each SIGHUP, and when a file of theirs has changed. What cannot be read leaves them as they
/// are: a half-written file must not lock everybody out. For as long as the process lives.
pub(super) async fn keep_current(tokens: Option<(TokenKeys, Arc<Verifier>)>, mut hangup: Signal) {
    let mut last = tokens.as_ref().map(|(keys, _)| marks(keys.files()));
    let mut looks = tokio::time::interval(AUTH_RELOAD_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_asked = tokio::select! {
            _ = hangup.recv() => true,
            _ = looks.tick() => false,
        };
        let Some((keys, verifier)) = &tokens else {
            if is_asked {
                info!("SIGHUP: there are no token keys to read again");
            }
            continue;
        };
        let (keys, verifier) = (keys.clone(), Arc::clone(verifier));
        let known = last.clone();
        // Files may be on a disk that hangs.
        let looked = tokio::task::spawn_blocking(move || {
            let now = marks(keys.files());
            if is_asked || Some(&now) != known.as_ref() {
                reload(&keys, &verifier);
            }
            now
        });
        last = looked.await.ok();
    }
}

fn reload(keys: &TokenKeys, verifier: &Verifier) {
    match keys.read() {
        Ok(set) => {
            info!("token keys: read again, {} of them", set.len());
            verifier.replace(set);
        }
        Err(error) => warn!("token keys stay as they were: {error}"),
    }
}

/// What changes when a file does: when, how long it is, which one. None: it cannot be looked at.
pub(super) type Mark = Option<(SystemTime, u64, u64)>;

pub(super) fn marks<'path>(files: impl Iterator<Item = &'path Path>) -> Vec<Mark> {
    let mark = |path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    files.map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Fault, Wanted, sign};
    use crate::config::{Flags, parse};

    #[test]
    fn a_file_that_cannot_be_read_leaves_the_keys_as_they_were() {
        let path = std::env::temp_dir().join(format!("kittiwake-verifier-{}", std::process::id()));
        let write = |text: &str| std::fs::write(&path, text).expect("the folder can be written to");
        write(&"a".repeat(32));
        let variable = |name: &str, value: String| (name.to_owned(), value);
        let environment = [
            variable("KITTIWAKE_AUTH_MODE", "jwt".to_owned()),
            variable("KITTIWAKE_AUTH_KEYS", format!("HS256:*:file={}", path.display())),
        ];
        let config = parse(None, environment, &Flags::default()).expect("it is valid");
        let tokens = config.tokens.expect("the mode is jwt");
        let verifier = Verifier::new(tokens.keys.read().expect("it is a secret"), tokens.rules);
        let wanted = Wanted { sub: "ann".to_owned(), exp: 1_000, ..Wanted::default() };
        let token = sign(&wanted, &tokens.keys.signing(None).expect("it is there")).expect("it signs");
        let check = || auth::verify(token.as_bytes(), &verifier.keys(), &verifier.rules, 0).map(|grant| grant.user);
        let (known, good) = (marks(tokens.keys.files()), Ok("ann".into()));
        assert_eq!(check(), good);
        write("half");
        assert_ne!(marks(tokens.keys.files()), known, "it has changed");
        reload(&tokens.keys, &verifier);
        assert_eq!(check(), good);
        std::fs::remove_file(&path).expect("it is there");
        reload(&tokens.keys, &verifier);
        assert_eq!((check(), marks(tokens.keys.files())), (good, vec![None]));
        write(&"b".repeat(32));
        reload(&tokens.keys, &verifier);
        assert_eq!(check(), Err(Fault::Signature));
        std::fs::remove_file(&path).expect("it is there");
    }
}
