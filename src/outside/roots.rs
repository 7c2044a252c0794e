//! Whose certificates are believed.

use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::Fault;

/// How to speak TLS with a provider: with these authorities, or with the system's.
pub async fn config(ca_bundle: Option<&str>) -> Result<Arc<ClientConfig>, Fault> {
    static OF_SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(pem) = ca_bundle {
        return with(given(pem)?);
    }
    if let Some(config) = OF_SYSTEM.get() {
        return Ok(config.clone());
    }
    // Some hundred files, on some systems.
    let found = tokio::task::spawn_blocking(of_system).await;
    let roots = found.map_err(|why| Fault::Unreachable(why.to_string()))?;
    if roots.is_empty() {
        return Err(Fault::Refused(
            "this system trusts no certificate authority: set spec.caBundle, or install certificates".into(),
        ));
    }
    let config = with(roots)?;
    Ok(OF_SYSTEM.get_or_init(|| config).clone())
}

fn of_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // What is none, or can not be read, is left out.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn given(pem: &str) -> Result<RootCertStore, Fault> {
    let refused = |why: String| {
        Fault::Refused(format!(
            "spec.caBundle has a certificate that is none: {why}"
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|why| refused(why.to_string()))?;
        roots
            .add(certificate)
            .map_err(|why| refused(why.to_string()))?;
    }
    if roots.is_empty() {
        return Err(Fault::Refused("spec.caBundle has no certificate".into()));
    }
    Ok(roots)
}

fn with(roots: RootCertStore) -> Result<Arc<ClientConfig>, Fault> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| Fault::Refused(why.to_string()))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
