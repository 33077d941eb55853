//! TLS for the gRPC port, and client authentication. Only the webhook also uses TLS crates.
//!
//! The files are checked every second. New connections use renewed certificates from cert-manager or the
//! kubelet. If the new files are unusable, nothing changes.

use futures::Stream;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{Error as TlsError, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

pub use tokio_rustls::TlsAcceptor;

/// The interval between checks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The timeout of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The paths of certificates and keys.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate chain.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authorities that issue client certificates.
    pub clients: Option<PathBuf>,
}

/// The contents of the files.
#[derive(Clone, PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    clients: Option<Vec<u8>>,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// A file is not valid PEM. The parser's own error may quote the file, which may contain a key.
    #[error("{0}: {1}")]
    Pem(PathBuf, &'static str),
    /// The key does not match the certificate, or is of an unknown kind.
    #[error("{0}")]
    Tls(String),
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, Unusable> {
        let file = |path: &PathBuf| std::fs::read(path).map_err(|error| Unusable::File(path.clone(), error));
        Ok(Contents {
            certificate: file(&self.certificate)?,
            key: file(&self.key)?,
            clients: self.clients.as_ref().map(file).transpose()?,
        })
    }

    fn server(&self, contents: &Contents) -> Result<TlsAcceptor, Unusable> {
        let certificates = |path: &PathBuf, pem: &[u8]| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            all.map_err(|error| Unusable::Pem(path.clone(), problem(&error)))
        };
        let chain = certificates(&self.certificate, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| Unusable::Pem(self.key.clone(), problem(&error)))?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match (&self.clients, &contents.clients) {
            (Some(path), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, pem)? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| Unusable::Tls(error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(chain, key)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(server)))
    }

    /// Returns the configuration from the files, and a channel with its changes.
    pub fn open(self) -> Result<watch::Receiver<TlsAcceptor>, Unusable> {
        let mut contents = self.read()?;
        let (publish, acceptor) = watch::channel(self.server(&contents)?);
        tokio::spawn(async move {
            let mut refused = None;
            while !publish.is_closed() {
                tokio::time::sleep(LOOK_EVERY).await;
                // Blocking is acceptable here: the files are small and rarely on slow disks.
                let Ok(now) = self.read() else { continue };
                if now == contents || refused.as_ref() == Some(&now) {
                    continue;
                }
                match self.server(&now) {
                    Ok(server) => {
                        tracing::info!("the TLS files have changed and are in use");
                        publish.send_replace(server);
                        (contents, refused) = (now, None);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the TLS files are unusable; the previous ones stay in use");
                        refused = Some(now);
                    }
                }
            }
        });
        Ok(acceptor)
    }
}

fn problem(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "a PEM section has no end line",
        PemError::IllegalSectionStart { .. } => "a PEM section does not begin on a separate line",
        PemError::Base64Decode(_) => "a PEM section is not base64",
        PemError::NoItemsFound => "has no PEM section of the required kind",
        _ => "is not PEM",
    }
}

impl From<TlsError> for Unusable {
    fn from(error: TlsError) -> Self {
        Self::Tls(error.to_string())
    }
}

/// Returns the connections of a listener after their handshakes. A slow handshake does not delay other
/// connections.
pub fn incoming(
    listener: TcpListener,
    acceptor: watch::Receiver<TlsAcceptor>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let (ready, connections) = mpsc::channel(64);
    tokio::spawn(async move {
        while !ready.is_closed() {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let Ok((stream, _)) = accepted else {
                // The process may have run out of file descriptors. Some become free when open connections
                // end.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (acceptor, ready) = (acceptor.borrow().clone(), ready.clone());
            tokio::spawn(async move {
                match shake_hands(stream, acceptor).await {
                    // This fails only after the server has ended.
                    Ok(stream) => drop(ready.send(Ok(stream)).await),
                    Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                }
            });
        }
    });
    futures::stream::unfold(connections, |mut connections| async {
        connections.recv().await.map(|connection| (connection, connections))
    })
}

async fn shake_hands(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await?
}
