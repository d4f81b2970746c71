//! TLS towards the broker: whom to trust, what to show, and the handshake.
//!
//! lapin would do it too, and brings what reads PKCS#12 key stores along for it: a quarter of all that a small
//! program compiles.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls_platform_verifier::Verifier;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::{TlsConnector, rustls};

use crate::socket::Socket;

/// What the user says about TLS.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    /// The authorities to trust besides the operating system's.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) identity: Option<Identity>,
}

/// A client's certificate, its intermediates, and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

impl Tls {
    /// Speaks TLS on `stream`. What is wrong with a certificate, either side's, is an
    /// [`io::ErrorKind::InvalidData`].
    pub(crate) async fn handshake(&self, host: &str, stream: Socket) -> io::Result<TlsStream<Socket>> {
        let name = ServerName::try_from(host.to_owned()).map_err(invalid)?;
        let config = self.client_config().map_err(invalid)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Made anew for each connection, so that the operating system's certificates are today's.
    fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(self.roots.clone(), provider.clone())?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            // Not a danger: it is the operating system's own verifier.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match &self.identity {
            Some(Identity { chain, key }) => config.with_client_auth_cert(chain.clone(), key.clone_key()),
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn invalid(error: impl Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
