//! What a server shows (certificates, by the name that is asked for), asks for (its peers' certificates) and has its
//! peers remember (tickets).

use super::names::{NameFrom, dns_names};
use super::provider;
use super::tickets::{TicketKey, Tickets};
use crate::limits::{TLS_TICKET_LIFETIME, TLS_TICKETS_PER_HANDSHAKE};
use core::fmt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::collections::HashMap;
use std::sync::Arc;

/// What is wrong with what a server was given. Each says it in a few words, for a line that names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// There is no certificate in the file.
    NoCertificate,
    /// There is no private key in the file.
    NoKey,
    /// What looks like one is none.
    Malformed(String),
    /// The key is not the certificate's.
    OtherKey,
    /// The library does not take it.
    Refused(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("there is no PEM certificate in it"),
            Self::NoKey => f.write_str("there is no PEM private key in it, or it is encrypted"),
            Self::Malformed(why) => write!(f, "it is malformed: {why}"),
            Self::OtherKey => f.write_str("the key is not the certificate's"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for IdentityError {}

impl From<rustls::Error> for IdentityError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::OtherKey,
            other => Self::Refused(other.to_string()),
        }
    }
}

/// A certificate with what leads to its root, and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    key: Arc<CertifiedKey>,
    /// In lower case; one may begin with `*.`.
    names: Vec<Box<str>>,
}

impl Pair {
    /// Reads both, each a PEM file's content; they may be the same.
    ///
    /// # Errors
    /// One of them is not what it should be, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::NoKey)?;
        let first = chain.first().ok_or(IdentityError::NoCertificate)?;
        let malformed = || IdentityError::Malformed("its first certificate is none of X.509 version 3".to_owned());
        let names = dns_names(first).ok_or_else(malformed)?;
        Ok(Self { key: Arc::new(CertifiedKey::from_der(chain, key, &provider())?), names })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| IdentityError::Malformed(error.to_string()))?;
    if all.is_empty() { Err(IdentityError::NoCertificate) } else { Ok(all) }
}

/// Reads the certificates that others are checked against, a PEM file's content.
pub(super) fn roots(pem: &[u8]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Who clients with certificates are.
#[derive(Clone, Debug)]
pub struct Peers {
    roots: Arc<RootCertStore>,
    required: bool,
    name_from: NameFrom,
}

impl Peers {
    /// Those whose certificate leads to one of these, a PEM file's content. `required`: nobody else is let in.
    ///
    /// # Errors
    /// There is no certificate in it, or one that cannot be a root.
    pub fn from_pem(roots_pem: &[u8], required: bool, name_from: NameFrom) -> Result<Self, IdentityError> {
        Ok(Self { roots: Arc::new(roots(roots_pem)?), required, name_from })
    }

    /// What tickets hold for: who was let in under other roots is checked anew.
    fn scope(&self) -> Vec<u8> {
        let subjects = self.roots.roots.iter();
        let bytes: Vec<u8> =
            subjects.flat_map(|root| [&*root.subject, &*root.subject_public_key_info].concat()).collect();
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref().to_vec()
    }
}

/// All that makes a server.
#[derive(Clone, Debug)]
pub struct Identity {
    /// At least one. Who asks for a name that none has, or for none, gets the first.
    pub pairs: Vec<Pair>,
    /// None: nobody is asked for a certificate.
    pub peers: Option<Peers>,
    /// TLS 1.2 is not spoken.
    pub only_1_3: bool,
    /// Protocols to agree on, the best first; none: nothing is said of it, which every client takes.
    pub protocols: &'static [&'static [u8]],
}

/// A server that is ready; cheap to clone.
#[derive(Clone)]
pub struct Server {
    config: Arc<ServerConfig>,
    name_from: NameFrom,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

impl Server {
    /// Puts everything together. The first of the keys seals tickets, all open them; without any nothing is resumed.
    ///
    /// # Errors
    /// The library does not take it.
    pub fn new(identity: &Identity, keys: &[TicketKey]) -> Result<Self, IdentityError> {
        let versions: &[_] = if identity.only_1_3 {
            &[&rustls::version::TLS13]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
        let builder = match &identity.peers {
            None => builder.with_no_client_auth(),
            Some(peers) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&peers.roots), provider());
                let verifier = if peers.required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| IdentityError::Refused(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chooser = Chooser::new(&identity.pairs).ok_or(IdentityError::NoCertificate)?;
        let mut config = builder.with_cert_resolver(Arc::new(chooser));
        config.alpn_protocols = identity.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let scope = identity.peers.as_ref().map(Peers::scope).unwrap_or_default();
        let lifetime = u32::try_from(TLS_TICKET_LIFETIME.as_secs()).expect("tickets live for days at most");
        config.ticketer = Arc::new(Tickets::new(keys, &scope, lifetime));
        config.send_tls13_tickets = if keys.is_empty() { 0 } else { TLS_TICKETS_PER_HANDSHAKE };
        let name_from = identity.peers.as_ref().map_or_else(NameFrom::default, |peers| peers.name_from);
        Ok(Self { config: Arc::new(config), name_from })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// As rustls takes it, for another transport than the engine's.
    pub fn rustls(&self) -> Arc<ServerConfig> {
        self.config()
    }

    pub(super) fn name_from(&self) -> NameFrom {
        self.name_from
    }
}

/// Finds the certificate for a name: the name itself, else a wildcard for it (RFC 6125 §6.4.3), else the first one.
/// Where several have it, the first whose key the client can check.
#[derive(Debug)]
struct Chooser {
    by_name: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl Chooser {
    fn new(pairs: &[Pair]) -> Option<Self> {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for pair in pairs {
            for name in &pair.names {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&pair.key));
            }
        }
        let all: Vec<_> = pairs.iter().map(|pair| Arc::clone(&pair.key)).collect();
        (!all.is_empty()).then_some(Self { by_name, all })
    }

    fn of_name(&self, name: &str) -> &[Arc<CertifiedKey>] {
        let name = name.to_ascii_lowercase();
        let exact = self.by_name.get(&*name);
        let wildcard = || self.by_name.get(&*format!("*.{}", name.split_once('.')?.1));
        exact.or_else(wildcard).unwrap_or(&self.all)
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = hello.server_name().map_or(&*self.all, |name| self.of_name(name));
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // Without a key that it can check, the handshake fails in rustls' words.
        keys.iter().find(fits).or_else(|| keys.first()).cloned()
    }
}
