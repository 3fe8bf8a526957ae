//! The cluster's certificate authority and the certificates that it issues.
//!
//! Only the authority's key and the service-account key are kept (mode 0600): every leaf is issued anew at each
//! start, so a changed address or an expired certificate cannot keep a cluster from coming up.
//! Upstream counterpart: kubeadm's `certs` phase and its list of subject names.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const CA_YEARS: u64 = 10;
const LEAF_YEARS: u64 = 1;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Clocks of machines that join differ; a certificate is valid from a little before now.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate and its key, PEM.
pub struct KeyPairPem {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// The cluster's certificate authority.
pub struct Authority {
    /// The authority's certificate, PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for.
pub enum Leaf<'a> {
    /// A server that answers at these names and addresses.
    Server {
        /// DNS names.
        names: &'a [String],
        /// Addresses.
        addresses: &'a [IpAddr],
    },
    /// A client: the groups are the certificate's organisations.
    Client {
        /// Groups.
        groups: &'a [&'a str],
    },
}

impl Authority {
    /// Loads the authority from `directory`, or makes one there at the first start.
    pub fn load_or_create(directory: &Path) -> Result<Self> {
        let (certificate_file, key_file) = (directory.join("ca.crt"), directory.join("ca.key"));
        if key_file.exists() {
            let key = read(&key_file)?;
            let certificate = read(&certificate_file)?;
            let key = KeyPair::from_pem(&key).context("the cluster CA key is damaged")?;
            let issuer = Issuer::from_ca_cert_pem(&certificate, key)
                .context("the cluster CA certificate is damaged")?;
            return Ok(Self { certificate, issuer });
        }
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let key = KeyPair::generate()?;
        let mut params = params("kubernetes", CA_YEARS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        // The key goes last: a crash in between leaves no half authority that the next start would load.
        write(&certificate_file, &certificate, 0o644)?;
        write(&key_file, &key.serialize_pem(), 0o600)?;
        Ok(Self {
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues a certificate for `common_name`.
    pub fn issue(&self, common_name: &str, leaf: &Leaf) -> Result<KeyPairPem> {
        let key = KeyPair::generate()?;
        let mut params = params(common_name, LEAF_YEARS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match leaf {
            Leaf::Server { names, addresses } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                for name in *names {
                    params
                        .subject_alt_names
                        .push(rcgen::SanType::DnsName(name.clone().try_into()?));
                }
                for address in *addresses {
                    params.subject_alt_names.push(rcgen::SanType::IpAddress(*address));
                }
            }
            Leaf::Client { groups } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                for group in *groups {
                    params.distinguished_name.push(DnType::OrganizationName, *group);
                }
            }
        }
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot issue a certificate for {common_name}"))?
            .pem();
        Ok(KeyPairPem {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

/// The key that signs service-account tokens (P-256, PKCS#8 PEM), made at the first start.
pub fn service_account_key(directory: &Path) -> Result<String> {
    let file = directory.join("sa.key");
    if file.exists() {
        return read(&file);
    }
    let key = KeyPair::generate()?.serialize_pem();
    write(&file, &key, 0o600)?;
    Ok(key)
}

fn params(common_name: &str, years: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + YEAR * u32::try_from(years).expect("a few years")).into();
    params
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Writes a file so that it is whole or absent: a new file, synced, then renamed.
pub fn write(file: &Path, content: &str, mode: u32) -> Result<()> {
    let temporary = file.with_extension("new");
    let attempt = || -> std::io::Result<()> {
        let _ = fs::remove_file(&temporary);
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        out.write_all(content.as_bytes())?;
        out.sync_all()?;
        fs::rename(&temporary, file)
    };
    attempt().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_survives_a_restart_and_its_keys_are_private() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Authority::load_or_create(dir.path()).expect("created");
        let again = Authority::load_or_create(dir.path()).expect("loaded");
        assert_eq!(first.certificate, again.certificate);
        let key = service_account_key(dir.path()).expect("key");
        assert_eq!(key, service_account_key(dir.path()).expect("key"));
        for file in ["ca.key", "sa.key"] {
            let mode = fs::metadata(dir.path().join(file))
                .expect("file")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let leaf = again.issue(
            "kubernetes-admin",
            &Leaf::Client {
                groups: &["system:masters"],
            },
        );
        assert!(leaf.expect("issued").certificate.contains("BEGIN CERTIFICATE"));
    }
}
