//! https to binary caches: TLS by the authorities whose certificates the system has (`SSL_CERT_FILE` names others), and with no certificate of
//! our own. What comes is not believed for it ([`description`](super::description)); it keeps what is asked for from those on the way.

use std::io;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Why there is no connection.
#[derive(Clone, Debug, Error)]
pub enum TlsError {
    /// Nobody's word would count.
    #[error(
        "this machine has no certificates of authorities ({0})\n\
         hint: install the package ca-certificates, or have SSL_CERT_FILE name a file with the cache's certificate; then restart the agent"
    )]
    NoRoots(String),
    /// A host's name that no certificate can have.
    #[error("{0:?} is no name of a host")]
    Name(String),
    /// A bug.
    #[error("TLS can't be set up: {0}")]
    SetUp(String),
    /// The other side has shown another certificate, or does not speak TLS.
    #[error("no secure connection: {0}")]
    HandShake(String),
}

type Configured = Result<Arc<ClientConfig>, TlsError>;

/// Makes connections secure. What the system trusts is read at the first one, and stays. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tls(Arc<OnceLock<Configured>>);

impl Tls {
    /// Trusts `roots` alone.
    #[cfg(test)]
    pub fn trusting(roots: Vec<CertificateDer<'static>>) -> Self {
        Self(Arc::new(OnceLock::from(configured(roots, String::new))))
    }

    /// Greets `host` on `stream`, and checks its certificate.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        let this = Arc::clone(&self.0);
        let reading = tokio::task::spawn_blocking(move || this.get_or_init(of_system).clone());
        let config = reading.await.map_err(|error| TlsError::SetUp(error.to_string()))??;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
        let shaking = TlsConnector::from(config).connect(name, stream);
        shaking.await.map_err(|error: io::Error| TlsError::HandShake(error.to_string()))
    }
}

fn of_system() -> Configured {
    let found = rustls_native_certs::load_native_certs();
    let why = || found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    configured(found.certs, why)
}

/// Certificates that can't be understood are left out.
fn configured(certificates: Vec<CertificateDer<'static>>, why_none: impl FnOnce() -> String) -> Configured {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(TlsError::NoRoots(why_none()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error: rustls::Error| TlsError::SetUp(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
