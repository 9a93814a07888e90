//! TLS to ZooKeeper: whom we trust, who we are, and whether a server must be who its name says.
//!
//! Certificates and keys are PEM; what they are used for is rustls'. Without a check of names a server must still be vouched for by
//! whom we trust.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// What connections by TLS go by; all of it PEM.
#[derive(Clone)]
pub struct TlsMaterial {
    /// Certificates of whom we trust.
    pub trusted: Vec<u8>,
    /// Our certificate with those that vouch for it, and its key, not encrypted.
    pub identity: Option<Vec<u8>>,
    /// At least one.
    pub versions: Vec<TlsVersion>,
    /// A server must have the name by which it was called.
    pub verifies_host_name: bool,
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsMaterial({:?})", self.versions)
    }
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the trust store has no certificate in PEM")]
    NobodyTrusted,
    #[error("the key store has no certificate in PEM, or no key that is not encrypted")]
    NoIdentity,
    #[error(transparent)]
    Rustls(#[from] Error),
}

/// A configuration that connections share.
#[derive(Clone, Debug)]
pub struct TlsClient(pub(super) Arc<ClientConfig>);

impl TlsClient {
    /// # Errors
    /// See [`TlsError`].
    pub fn new(material: &TlsMaterial) -> Result<TlsClient, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&material.trusted).ok_or(TlsError::NobodyTrusted)? {
            roots.add(certificate)?;
        }
        let roots = Arc::new(roots);
        let versions: Vec<&SupportedProtocolVersion> = material
            .versions
            .iter()
            .map(|version| match version {
                TlsVersion::Tls12 => &rustls::version::TLS12,
                TlsVersion::Tls13 => &rustls::version::TLS13,
            })
            .collect();
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions)?;
        let builder = match material.verifies_host_name {
            true => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                builder.with_webpki_verifier(verifier.map_err(|error| Error::General(error.to_string()))?)
            }
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyName { roots, provider })),
        };
        let config = match &material.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates(identity).ok_or(TlsError::NoIdentity)?;
                let key = PrivateKeyDer::from_pem_slice(identity).map_err(|_| TlsError::NoIdentity)?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        Ok(TlsClient(Arc::new(config)))
    }
}

/// The certificates of a text, at least one.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty())
}

/// Takes a server whose certificate is vouched for, whatever its name.
#[derive(Debug)]
struct AnyName {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl AnyName {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms().all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let mut material = TlsMaterial {
            trusted: b"-----BEGIN NOTHING-----".to_vec(),
            identity: None,
            versions: vec![TlsVersion::Tls12],
            verifies_host_name: true,
        };
        assert!(matches!(TlsClient::new(&material), Err(TlsError::NobodyTrusted)));
        material.trusted = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_vec();
        assert!(matches!(TlsClient::new(&material), Err(TlsError::Rustls(_))));
    }
}
