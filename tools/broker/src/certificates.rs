//! A certificate authority for tests: it vouches for this machine only, and its key is written nowhere.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The names of a broker on this machine; a client refuses every other.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The common name of the client's certificate: the user whom RabbitMQ has from the start.
const USER: &str = "guest";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key (PKCS#8).
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Signs certificates as long as the process lives. Nobody can sign more of them afterwards.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    days: u32,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("days", &self.days).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, whose own certificate and whose signatures are valid for `days` from now on (and, for
    /// clocks that differ, one day back).
    pub fn new(days: u32) -> Result<Authority> {
        // With a name of its own: an old certificate of another one is then "unknown", not "wrongly signed".
        let number = RandomState::new().hash_one(days);
        let name = format!("RabbitMQ tutorials test authority {number:016x}");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, SystemTime::now() - DAY, DAY * (days + 1));
        Ok(Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, days })
    }

    /// Its own certificate, for those who are to trust it, as PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// For a broker on this machine: `localhost`, `127.0.0.1`, `::1`, and no other name.
    pub fn server(&self) -> Result<Identity> {
        self.sign(server_params(&LOCAL)?, SystemTime::now() - DAY, DAY * (self.days + 1))
    }

    /// The same, but it was valid up to yesterday.
    pub fn expired_server(&self) -> Result<Identity> {
        self.sign(server_params(&LOCAL)?, SystemTime::now() - 2 * DAY, DAY)
    }

    /// For a broker at `broker.example`, a name that no machine has.
    pub fn server_elsewhere(&self) -> Result<Identity> {
        self.sign(server_params(&["broker.example"])?, SystemTime::now() - DAY, DAY * (self.days + 1))
    }

    /// For a client. A broker that takes logins by certificate takes `user` for its name.
    pub fn client(&self, user: &str) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, SystemTime::now() - DAY, DAY * (self.days + 1))
    }

    /// What a broker on this machine and a client that logs in as `guest` need.
    pub fn certificates(&self) -> Result<Certificates> {
        Ok(Certificates {
            ca_certificate: self.certificate(),
            server: self.server()?,
            client: self.client(USER)?,
        })
    }

    fn sign(&self, mut params: CertificateParams, from: SystemTime, time: Duration) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, from, time);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

fn server_params(names: &[&str]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, names[0]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, from: SystemTime, time: Duration) {
    params.not_before = from.into();
    params.not_after = (from + time).into();
}

/// All that a broker and its clients need for TLS.
///
/// The parts can be exchanged to make a broker that clients have to refuse:
///
/// ```
/// # use broker::{Authority, Certificates};
/// # fn main() -> anyhow::Result<()> {
/// let authority = Authority::new(1)?;
/// let expired = Certificates { server: authority.expired_server()?, ..authority.certificates()? };
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority that both sides trust, as PEM.
    pub ca_certificate: String,
    /// The broker's side.
    pub server: Identity,
    /// The client's side; a login by certificate is one as `guest`.
    pub client: Identity,
}

impl Certificates {
    /// A new authority's, valid for `days` from now on.
    pub fn for_days(days: u32) -> Result<Certificates> {
        Authority::new(days)?.certificates()
    }

    /// Writes them into a folder, which is made if it is missing. Everybody on the machine can read them, the
    /// keys too: a broker in a container runs as another user.
    pub fn write(&self, folder: &Path) -> Result<CertificateFiles> {
        let files = CertificateFiles::in_folder(folder);
        make_readable_folder(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (file, text) in [
            (&files.ca_certificate, &self.ca_certificate),
            (&files.server_certificate, &self.server.certificate),
            (&files.server_key, &self.server.key),
            (&files.client_certificate, &self.client.certificate),
            (&files.client_key, &self.client.key),
        ] {
            write_readable(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(files)
    }

    /// Reads what [`Certificates::write`] wrote.
    pub fn read(folder: &Path) -> Result<Certificates> {
        let files = CertificateFiles::in_folder(folder);
        let read =
            |file: &Path| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
        Ok(Certificates {
            ca_certificate: read(&files.ca_certificate)?,
            server: Identity { certificate: read(&files.server_certificate)?, key: read(&files.server_key)? },
            client: Identity { certificate: read(&files.client_certificate)?, key: read(&files.client_key)? },
        })
    }
}

/// One that is there already stays as it is.
fn make_readable_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// Whatever the file mode creation mask of this process says.
fn write_readable(file: &Path, text: &str) -> std::io::Result<()> {
    fs::write(file, text)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))
}

/// Where the certificates and keys are, by the file names that the tutorial texts use.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// `ca_certificate.pem`
    pub ca_certificate: PathBuf,
    /// `server_certificate.pem`
    pub server_certificate: PathBuf,
    /// `server_key.pem`
    pub server_key: PathBuf,
    /// `client_certificate.pem`
    pub client_certificate: PathBuf,
    /// `client_key.pem`
    pub client_key: PathBuf,
}

impl CertificateFiles {
    /// Their paths in a folder, whether they are there or not.
    pub fn in_folder(folder: &Path) -> CertificateFiles {
        CertificateFiles {
            ca_certificate: folder.join("ca_certificate.pem"),
            server_certificate: folder.join("server_certificate.pem"),
            server_key: folder.join("server_key.pem"),
            client_certificate: folder.join("client_certificate.pem"),
            client_key: folder.join("client_key.pem"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_by_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let cert = folder.path().join("deep/cert");
        let certificates = Certificates::for_days(3).unwrap();
        let files = certificates.write(&cert).unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&cert), 0o755);
        assert_eq!(mode(&files.server_key), 0o644);
        assert_eq!(mode(&files.client_key), 0o644);
        let read = Certificates::read(&cert).unwrap();
        assert_eq!(read.server.key, certificates.server.key);
        assert_eq!(read.client.certificate, certificates.client.certificate);
        assert_eq!(read.ca_certificate, certificates.ca_certificate);
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Certificates::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ca_certificate.pem"), "{error}");
    }

    #[test]
    fn keys_do_not_reach_debug_output() {
        let certificates = Certificates::for_days(1).unwrap();
        assert!(!format!("{certificates:?}").contains("PRIVATE KEY"));
    }
}
