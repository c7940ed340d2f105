//! TLS settings of a host: the system's authorities, more from files, client certificates, and for
//! hosts that are declared insecure no verification at all.

use crate::hosts::{Host, HostsError};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// The configuration for hosts about which nothing special is said; made once.
pub(crate) fn plain() -> Arc<ClientConfig> {
    static PLAIN: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    PLAIN
        .get_or_init(|| {
            Arc::new(builder().with_root_certificates(system_roots()).with_no_client_auth())
        })
        .clone()
}

pub(crate) fn for_host(host: &Host) -> Result<Arc<ClientConfig>, HostsError> {
    if !host.skip_verify
        && host.certificate_authorities.is_empty()
        && host.client_certificates.is_empty()
    {
        return Ok(plain());
    }
    let verified = if host.skip_verify {
        let provider = Arc::new(ring::default_provider());
        builder().dangerous().with_custom_certificate_verifier(Arc::new(AcceptAll { provider }))
    } else {
        let mut roots = system_roots();
        for file in &host.certificate_authorities {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| wrong(file, &error))?;
            }
        }
        builder().with_root_certificates(roots)
    };
    let config = match host.client_certificates.first() {
        None => verified.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
            verified.with_client_auth_cert(chain, private).map_err(|error| wrong(key, &error))?
        }
    };
    Ok(Arc::new(config))
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring serves the default protocol versions")
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 || !found.errors.is_empty() {
        tracing::warn!(
            ignored,
            errors = found.errors.len(),
            "some system certificates are unusable"
        );
    }
    roots
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, HostsError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(file, &error))
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> HostsError {
    HostsError::Certificate { path: path.to_owned(), reason: error.to_string() }
}

/// For `skip_verify`: whoever configures it accepts any certificate.
#[derive(Debug)]
struct AcceptAll {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
