//! The files with credentials and certificates for Redis. They are read again for each connection, so that
//! they can be rotated.

use crate::ledger::{StorageFault, Unavailable};
use crate::secret::Secret;
use redis::{ClientTlsConfig, RedisConnectionInfo, TlsCertificates};
use std::path::{Path, PathBuf};

/// Where the credentials are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The password of the user that the URL names, or of the default user.
    pub password: Option<PathBuf>,
    /// The password for the sentinels.
    pub sentinel_password: Option<PathBuf>,
    /// The certificates of the authorities to trust, as PEM, instead of the system's.
    pub authorities: Option<PathBuf>,
    pub client: Option<ClientFiles>,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The chain as PEM.
    pub certificate: PathBuf,
    /// The private key as PEM.
    pub key: PathBuf,
}

impl CredentialFiles {
    pub fn has_certificates(&self) -> bool {
        self.authorities.is_some() || self.client.is_some()
    }

    pub fn read(&self) -> Result<Credentials, Unavailable> {
        let client = match &self.client {
            Some(files) => Some(ClientTlsConfig {
                client_cert: contents(&files.certificate)?,
                client_key: contents(&files.key)?,
            }),
            None => None,
        };
        let certificates = TlsCertificates {
            client_tls: client,
            root_cert: self.authorities.as_deref().map(contents).transpose()?,
        };
        Ok(Credentials {
            password: self.password.as_deref().map(password).transpose()?,
            sentinel_password: self.sentinel_password.as_deref().map(password).transpose()?,
            certificates: self.has_certificates().then_some(certificates),
        })
    }
}

/// The present contents of the files.
pub struct Credentials {
    pub password: Option<Secret>,
    pub sentinel_password: Option<Secret>,
    pub certificates: Option<TlsCertificates>,
}

/// Adds a password, if there is one.
pub fn with_password(settings: RedisConnectionInfo, password: Option<&Secret>) -> RedisConnectionInfo {
    match password {
        Some(password) => settings.set_password(password.expose()),
        None => settings,
    }
}

/// Reads a password. Spaces and line ends around it do not belong to it.
fn password(file: &Path) -> Result<Secret, Unavailable> {
    let text = String::from_utf8(contents(file)?);
    let text = text.map_err(|_| unusable(file, "is not UTF-8"))?;
    match text.trim() {
        "" => Err(unusable(file, "is empty")),
        password => Ok(Secret::new(password)),
    }
}

fn contents(file: &Path) -> Result<Vec<u8>, Unavailable> {
    std::fs::read(file).map_err(|error| unusable(file, &format!("cannot be read: {error}")))
}

fn unusable(file: &Path, problem: &str) -> Unavailable {
    Unavailable::new(StorageFault::Denied, format!("{} {problem}", file.display()))
}
