//! Certificate authorities for tests.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::Path;

/// A certificate authority that only a test trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Creates an authority.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are good names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("a certificate can be signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Returns the authority's certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate and its key for these host names and addresses.
    pub fn sign(&self, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("these are names");
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("", String::as_str));
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed");
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes `tls.crt`, `tls.key` and `ca.crt`, as in a Kubernetes Secret.
    pub fn write(&self, folder: &Path, names: &[&str]) {
        let (certificate, key) = self.sign(names);
        for (name, text) in [("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", &self.pem)] {
            let new = folder.join(format!(".{name}"));
            std::fs::write(&new, text).expect("a file can be written");
            std::fs::rename(new, folder.join(name)).expect("a file can be moved");
        }
    }
}
