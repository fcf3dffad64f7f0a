//! A client: whom it trusts, and what it shows.

use super::identity::{IdentityError, roots};
use super::provider;
use core::fmt;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// Whom a client trusts.
#[derive(Clone, Debug)]
pub enum Trust<'pem> {
    /// Servers whose certificate leads to one of these and has their name: a PEM file's content.
    Roots(&'pem [u8]),
    /// Any server. For tests and measurements: nobody knows who is there.
    Anybody,
}

/// A client that is ready; cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// A client. `resumes`: it remembers servers and takes up where it was; else each handshake is a whole one.
    /// `shows`: its certificate and key, PEM files' contents.
    ///
    /// # Errors
    /// A file is not what it should be.
    pub fn new(trust: &Trust<'_>, resumes: bool, shows: Option<(&[u8], &[u8])>) -> Result<Self, IdentityError> {
        let config = Self::config_of(trust, &[&rustls::version::TLS13, &rustls::version::TLS12], shows)?;
        Ok(Self::with(config, resumes))
    }

    /// One that speaks TLS 1.2 alone.
    #[cfg(test)]
    pub(super) fn only_1_2(trust: &Trust<'_>) -> Result<Self, IdentityError> {
        Ok(Self::with(Self::config_of(trust, &[&rustls::version::TLS12], None)?, true))
    }

    /// One whose keys may be taken out.
    #[cfg(test)]
    pub(super) fn extracting(trust: &Trust<'_>) -> Result<Self, IdentityError> {
        let mut config = Self::config_of(trust, &[&rustls::version::TLS13], None)?;
        config.enable_secret_extraction = true;
        Ok(Self::with(config, false))
    }

    fn with(mut config: ClientConfig, resumes: bool) -> Self {
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Self(Arc::new(config))
    }

    fn config_of(
        trust: &Trust<'_>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        shows: Option<(&[u8], &[u8])>,
    ) -> Result<ClientConfig, IdentityError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
        let builder = match trust {
            Trust::Roots(pem) => builder.with_root_certificates(roots(pem)?),
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider()))),
        };
        match shows {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
                let chain = chain.map_err(|error| IdentityError::Malformed(error.to_string()))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::NoKey)?;
                Ok(builder.with_client_auth_cert(chain, key)?)
            }
        }
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    /// As rustls takes it, for another transport than the engine's.
    pub fn rustls(&self) -> Arc<ClientConfig> {
        self.config()
    }
}

/// Trusts any certificate whose key the server has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
