//! TLS for the gRPC port, and who may call it. The only file that names the TLS crates.
//!
//! The files are looked at every second: what cert-manager or kubelet renews is taken up for new connections, and what
//! cannot be used leaves everything as it was.

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

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a caller may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Where certificates and keys are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's, and those between it and its authority.
    pub certificate: PathBuf,
    /// The certificate's.
    pub key: PathBuf,
    /// The authorities whose certificates callers must have.
    pub clients: Option<PathBuf>,
}

/// What the files hold.
#[derive(Clone, PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    clients: Option<Vec<u8>>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// A file is no PEM. The parser's own error would repeat lines of the file, which may be a key's.
    #[error("{0}: {1}")]
    Pem(PathBuf, &'static str),
    /// Key and certificate do not go together, or are of a kind that is not known.
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

    /// What the files say now, and whatever they come to say.
    pub fn open(self) -> Result<watch::Receiver<TlsAcceptor>, Unusable> {
        let mut contents = self.read()?;
        let (publish, acceptor) = watch::channel(self.server(&contents)?);
        tokio::spawn(async move {
            let mut refused = None;
            while !publish.is_closed() {
                tokio::time::sleep(LOOK_EVERY).await;
                // Small files, seldom on slow disks.
                let Ok(now) = self.read() else { continue };
                if now == contents || refused.as_ref() == Some(&now) {
                    continue;
                }
                match self.server(&now) {
                    Ok(server) => {
                        tracing::info!("another certificate, key or client authority is in use");
                        publish.send_replace(server);
                        (contents, refused) = (now, None);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the TLS files cannot be used; those before stay in use");
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
        PemError::IllegalSectionStart { .. } => "a PEM section does not begin with a line of its own",
        PemError::Base64Decode(_) => "a PEM section is not base64",
        PemError::NoItemsFound => "has no PEM section of the kind that is needed",
        _ => "is not PEM",
    }
}

impl From<TlsError> for Unusable {
    fn from(error: TlsError) -> Self {
        Self::Tls(error.to_string())
    }
}

/// The connections of a listener whose callers have shown who they are. One that takes its time keeps no other back.
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
                // Out of file descriptors, most likely; what is open ends some time.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (acceptor, ready) = (acceptor.borrow().clone(), ready.clone());
            tokio::spawn(async move {
                match shake_hands(stream, acceptor).await {
                    // It can be sent unless nobody serves any more.
                    Ok(stream) => drop(ready.send(Ok(stream)).await),
                    Err(error) => tracing::debug!(%error, "a caller was turned away"),
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
