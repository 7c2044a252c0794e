//! TLS from a mounted certificate and key, read again when they change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// How often the files are looked at.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// A certificate with its key, and the files that they come from.
pub struct Tls {
    certificate_path: PathBuf,
    key_path: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    /// What was read last, sound or not, so that one mistake is said once.
    last_read: Mutex<Files>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Tls {
    /// Reads a certificate chain and its private key (PEM).
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = Files::read(certificate, key)?;
        let pair = files
            .pair(&provider)
            .map_err(|why| format!("{} and {}: {why}", certificate.display(), key.display()))?;
        Ok(Arc::new(Self {
            certificate_path: certificate.to_owned(),
            key_path: key.to_owned(),
            provider,
            current: ArcSwap::from_pointee(pair),
            last_read: Mutex::new(files),
        }))
    }

    /// Reads the files again: true if there was something new, which now serves.
    ///
    /// # Errors
    /// A sentence about what is wrong with the new files. The old pair goes on serving.
    pub fn reload(&self) -> Result<bool, String> {
        let files = Files::read(&self.certificate_path, &self.key_path)?;
        let mut last_read = self
            .last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *last_read == files {
            return Ok(false);
        }
        // Also if it is not sound: half of a change may have been seen, and the other half
        // differs again.
        last_read.clone_from(&files);
        let pair = files.pair(&self.provider).map_err(|why| {
            format!(
                "The new content of {} and {} is not usable, so the certificate before it goes \
                 on serving: {why}",
                self.certificate_path.display(),
                self.key_path.display()
            )
        })?;
        self.current.store(Arc::new(pair));
        Ok(true)
    }

    /// Reads the files again whenever they change, until the returned future is dropped.
    pub async fn follow(&self) {
        let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
        loop {
            ticks.tick().await;
            match self.reload() {
                Ok(true) => tracing::info!(
                    certificate = %self.certificate_path.display(),
                    "Serving a new certificate."
                ),
                Ok(false) => {}
                Err(why) => tracing::error!("{why}"),
            }
        }
    }

    /// What takes connections with it: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, String> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| format!("TLS can not be set up: {e}."))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|e| format!("{} can not be read: {e}.", path.display()))
        };
        Ok(Self {
            certificate: read(certificate)?,
            key: Zeroizing::new(read(key)?),
        })
    }

    fn pair(&self, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| "the certificate file is no PEM.")?;
        if chain.is_empty() {
            return Err("the certificate file holds no certificate.".into());
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| "the key file holds no private key in PEM.")?;
        CertifiedKey::from_der(chain, key, provider)
            .map_err(|e| format!("the certificate and the key do not serve together: {e}."))
    }
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate_path)
            .finish_non_exhaustive()
    }
}
