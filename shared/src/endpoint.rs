//! Where the broker is and who asks: an AMQP URL taken apart, checked, and never shown with its password.

use std::fmt;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use crate::tls::{Identity, Tls};
use crate::{Configuration, Error, Result, Scheme};

/// Seconds between heartbeats unless the URL says otherwise: a silent broker is noticed after two of them.
const HEARTBEAT: u16 = 10;

/// Bytes in a frame unless the URL says otherwise. lapin allocates 64 frames per connection, so the
/// broker's own 131072 costs 8 MiB and twice the time to connect, and gains nothing even for large bodies.
const FRAME_MAX: u32 = 16_384;

/// How long one attempt to connect and log in may take unless the URL's `connection_timeout` says otherwise.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The files that TLS needs, all PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificates of the authorities to trust besides the operating system's.
    pub ca_cert: Option<PathBuf>,
    /// The client's own certificate, followed by its intermediates.
    pub client_cert: Option<PathBuf>,
    /// The private key of `client_cert`.
    pub client_key: Option<PathBuf>,
}

/// A broker's address, the login for it, and how to reach it. `Display` leaves the password out.
///
/// A cluster has several hosts, and the same login, vhost and certificates for all of them.
#[derive(Clone)]
pub struct Endpoint {
    /// With the first host.
    uri: AMQPUri,
    /// The hosts and ports that follow it in the URL.
    others: Vec<(String, u16)>,
    tls: Tls,
    connect_deadline: Duration,
}

impl Endpoint {
    /// Takes an `amqp://` or `amqps://` URL apart.
    ///
    /// User, password and vhost are percent-decoded; no path and a lone `/` both mean the vhost `/`; an
    /// IPv6 address stands in brackets; several hosts, each with its port, are separated by commas, as in
    /// `amqp://user:password@a:5672,b:5673/vhost`. Known parameters are `heartbeat` (s), `frame_max` (bytes),
    /// `channel_max`, `connection_timeout` (ms) and `auth_mechanism`.
    ///
    /// # Errors
    /// [`Error::Usage`] says in one line what is wrong, without the URL's password.
    pub fn parse(url: &str) -> Result<Self> {
        if url.matches("://").count() > 1 {
            return Err(Error::usage(
                "the broker URL holds several URLs: write one with several hosts, \
                 amqp://user:password@a:5672,b:5673/vhost",
            ));
        }
        if hides_a_password(url) {
            return Err(Error::usage(
                "the broker URL has an '@' behind a '/', '?' or '#': inside the user or password, write %2f for /, \
                 %3f for ?, %23 for # and %40 for @",
            ));
        }
        let mut hosts = one_url_a_host(url).into_iter().map(|url| Self::with_one_host(&url));
        let first = hosts.next().unwrap_or_else(|| Self::with_one_host(url))?;
        let others = hosts.map(|other| other.map(|other| (other.host().to_owned(), other.port())));
        Ok(Self { others: others.collect::<Result<_>>()?, ..first })
    }

    fn with_one_host(url: &str) -> Result<Self> {
        let url = Url::parse(url).map_err(|error| {
            Error::usage(format!(
                "the broker URL cannot be read ({error}): write amqp://user:password@host:5672/vhost, \
                 with %40 for @, %2f for / and %23 for # inside the user, password or vhost"
            ))
        })?;
        let scheme = match url.scheme() {
            "amqp" => AMQPScheme::AMQP,
            "amqps" => AMQPScheme::AMQPS,
            other => {
                return Err(Error::usage(format!(
                    "the broker URL starts with '{other}:': write amqp://… or, for TLS, amqps://…"
                )));
            }
        };
        let host = match url.host() {
            Some(url::Host::Domain(name)) if !name.is_empty() => decode("host", name)?,
            Some(url::Host::Ipv4(address)) => address.to_string(),
            Some(url::Host::Ipv6(address)) => address.to_string(),
            _ => return Err(Error::usage("the broker URL names no host: write amqp://localhost:5672")),
        };
        if url.fragment().is_some() {
            return Err(Error::usage("the broker URL contains a bare '#': write it as %23"));
        }
        let default = AMQPUserInfo::default();
        let userinfo = AMQPUserInfo {
            username: match url.username() {
                "" => default.username,
                user => decode("user", user)?,
            },
            password: url.password().map_or(Ok(default.password), |word| decode("password", word))?,
        };
        let port = url.port().unwrap_or_else(|| scheme.default_port());
        let (query, connect_deadline) = parameters(&url)?;
        let uri =
            AMQPUri { scheme, authority: AMQPAuthority { userinfo, host, port }, vhost: vhost(&url)?, query };
        Ok(Self { uri, others: Vec::new(), tls: Tls::default(), connect_deadline })
    }

    /// The broker that a [`Configuration`]'s plain fields name.
    pub(crate) fn from_fields(fields: &Configuration) -> Result<Self> {
        let scheme = match fields.scheme {
            Scheme::Amqp => AMQPScheme::AMQP,
            Scheme::Amqps => AMQPScheme::AMQPS,
        };
        if fields.host.is_empty() || fields.host.contains(['/', '@', '[', ' ']) {
            return Err(Error::usage(format!("the host '{}' is no name and no address", fields.host)));
        }
        let port = match fields.port {
            0 => scheme.default_port(),
            port => port,
        };
        let vhost = if fields.vhost.is_empty() { "/" } else { &fields.vhost };
        let userinfo = AMQPUserInfo { username: fields.user.clone(), password: fields.password.clone() };
        let authority = AMQPAuthority { userinfo, host: fields.host.clone(), port };
        let uri = AMQPUri { scheme, authority, vhost: vhost.to_owned(), query: default_query() };
        let tls = Tls::default();
        Ok(Self { uri, others: Vec::new(), tls, connect_deadline: CONNECT_DEADLINE })
    }

    /// Reads the files for TLS, so that a wrong one is named before anything connects.
    ///
    /// # Errors
    /// [`Error::Usage`] if a file cannot be read or holds no such PEM, if only one of the client's
    /// certificate and key is given, or if any is given for a URL that is not `amqps://`.
    pub fn with_tls(self, files: &TlsFiles) -> Result<Self> {
        let read =
            |option, path: &Option<PathBuf>| path.as_ref().map(|path| Pem::read(option, path)).transpose();
        self.with_pem(
            read("--ca-cert", &files.ca_cert)?,
            read("--client-cert", &files.client_cert)?,
            read("--client-key", &files.client_key)?,
        )
    }

    /// Checks the parts of TLS, so that a wrong one is named before anything connects.
    pub(crate) fn with_pem(
        mut self,
        ca_cert: Option<Pem>,
        client_cert: Option<Pem>,
        client_key: Option<Pem>,
    ) -> Result<Self> {
        let any = ca_cert.is_some() || client_cert.is_some() || client_key.is_some();
        if any && self.uri.scheme != AMQPScheme::AMQPS {
            return Err(Error::usage("certificates are given, but the broker URL is not amqps://"));
        }
        if let Some(ca_cert) = ca_cert {
            self.tls.roots = ca_cert.certificates()?;
        }
        self.tls.identity = match (client_cert, client_key) {
            (Some(cert), Some(key)) => {
                Some(Identity { chain: cert.certificates()?, key: Arc::new(key.private_key()?) })
            }
            (None, None) => None,
            _ => {
                return Err(Error::usage(
                    "a client certificate and its key (--client-cert, --client-key) go together: give both or neither",
                ));
            }
        };
        Ok(self)
    }

    /// `host:port`, an IPv6 address in brackets; of several hosts all, separated by commas.
    #[must_use]
    pub fn address(&self) -> String {
        let address = |(host, port): (&str, u16)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        self.hosts().map(address).collect::<Vec<_>>().join(",")
    }

    /// An endpoint for each host, in the order of the URL.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.hosts().map(|(host, port)| {
            let mut one = Self { others: Vec::new(), ..self.clone() };
            (one.uri.authority.host, one.uri.authority.port) = (host.to_owned(), port);
            one
        })
    }

    fn hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        once((self.host(), self.port())).chain(self.others.iter().map(|(host, port)| (&**host, *port)))
    }

    /// The first host, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.uri.authority.host
    }

    /// The port of the first host.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.uri.authority.port
    }

    /// The user that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    /// The user's password, decoded. Not for printing.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.uri.authority.userinfo.password
    }

    /// The virtual host, decoded.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// Whether the connection is to be encrypted: the URL is `amqps://`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    pub(crate) fn uri(&self) -> &AMQPUri {
        &self.uri
    }

    /// What TLS is to trust and to show; `None` for a plain connection.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.is_tls().then_some(&self.tls)
    }

    pub(crate) fn connect_deadline(&self) -> Duration {
        self.connect_deadline
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = utf8_percent_encode(self.user(), NON_ALPHANUMERIC);
        let vhost = utf8_percent_encode(self.vhost(), NON_ALPHANUMERIC);
        write!(f, "{}://{user}@{}/{vhost}", self.uri.scheme, self.address())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// Whether what looks like a host or path may be part of a password, which must not be shown.
fn hides_a_password(url: &str) -> bool {
    let behind_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    behind_scheme.split_once(['/', '?', '#']).is_some_and(|(_, rest)| rest.contains('@'))
}

/// A URL with several hosts as one URL for each.
fn one_url_a_host(url: &str) -> Vec<String> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    // A comma may be part of the password as well.
    let hosts = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let one = |host| format!("{}{host}{}", &url[..hosts], &url[end..]);
    url[hosts..end].split(',').map(one).collect()
}

fn decode(part: &str, text: &str) -> Result<String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Error::usage(format!("the {part} in the broker URL is not UTF-8 once decoded"))),
    }
}

fn vhost(url: &Url) -> Result<String> {
    match url.path().strip_prefix('/').unwrap_or_default() {
        "" => Ok("/".to_owned()),
        path if path.contains('/') => Err(Error::usage(format!(
            "the vhost in the broker URL has a bare '/' in it: write {}",
            utf8_percent_encode(path, NON_ALPHANUMERIC)
        ))),
        path => decode("vhost", path),
    }
}

fn default_query() -> AMQPQueryString {
    AMQPQueryString { heartbeat: Some(HEARTBEAT), frame_max: Some(FRAME_MAX), ..AMQPQueryString::default() }
}

fn parameters(url: &Url) -> Result<(AMQPQueryString, Duration)> {
    fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
        value.parse().map_err(|_| {
            Error::usage(format!("the broker URL's {key}={value} is not a number, or too large"))
        })
    }
    let mut query = default_query();
    let mut deadline = CONNECT_DEADLINE;
    for (key, value) in url.query_pairs() {
        match &*key {
            "heartbeat" => query.heartbeat = Some(number(&key, &value)?),
            "frame_max" => query.frame_max = Some(number(&key, &value)?),
            "channel_max" => query.channel_max = Some(number(&key, &value)?),
            "connection_timeout" => deadline = Duration::from_millis(number(&key, &value)?),
            "auth_mechanism" => {
                let unknown =
                    |_| Error::usage(format!("the broker URL's {key}={value} is no known mechanism"));
                query.auth_mechanism = Some(value.parse().map_err(unknown)?);
            }
            _ => {
                return Err(Error::usage(format!(
                    "the broker URL has an unknown parameter '{key}': known are heartbeat, frame_max, \
                     channel_max, connection_timeout and auth_mechanism"
                )));
            }
        }
    }
    Ok((query, deadline))
}

/// PEM text and what to call it in an error.
pub(crate) struct Pem {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Pem {
    fn read(option: &str, path: &Path) -> Result<Self> {
        let name = format!("{option} {}", path.display());
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self { name, bytes }),
            Err(error) => Err(Error::usage(format!("{name}: {error}"))),
        }
    }

    fn certificates(self) -> Result<Vec<CertificateDer<'static>>> {
        let certificates: std::result::Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&self.bytes).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(Error::usage(format!("{}: no PEM certificate in it", self.name))),
        }
    }

    fn private_key(self) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_slice(&self.bytes)
            .map_err(|_| Error::usage(format!("{}: no PEM private key in it", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vhost_is_the_decoded_path_and_slash_by_default() {
        for (url, vhost) in [
            ("amqp://localhost", "/"),
            ("amqp://localhost/", "/"),
            ("amqp://guest:guest@localhost:5672/", "/"),
            ("amqp://localhost/%2f", "/"),
            ("amqp://localhost/%2F", "/"),
            ("amqp://localhost/shop", "shop"),
            ("amqp://localhost/a%2fb%20c", "a/b c"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().vhost(), vhost, "{url}");
        }
    }

    #[test]
    fn addresses_have_the_schemes_port_and_keep_ipv6() {
        for (url, address) in [
            ("amqp://localhost", "localhost:5672"),
            ("amqps://broker.example", "broker.example:5671"),
            ("amqp://127.0.0.1:1234/x", "127.0.0.1:1234"),
            ("amqp://[::1]", "[::1]:5672"),
            ("amqp://guest:guest@[2001:db8::7]:5673/", "[2001:db8::7]:5673"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().address(), address, "{url}");
        }
        assert_eq!(Endpoint::parse("amqp://[::1]").unwrap().uri().authority.host, "::1");
    }

    #[test]
    fn several_hosts_share_everything_else() {
        let endpoint = Endpoint::parse("amqp://u:a,b@one,[::1]:5673,10.0.0.3:5674/shop?heartbeat=3").unwrap();
        assert_eq!(endpoint.to_string(), "amqp://u@one:5672,[::1]:5673,10.0.0.3:5674/shop");
        let each: Vec<_> = endpoint.each().collect();
        let addresses: Vec<_> = each.iter().map(Endpoint::address).collect();
        assert_eq!(addresses, ["one:5672", "[::1]:5673", "10.0.0.3:5674"]);
        for one in &each {
            assert_eq!((one.password(), one.vhost(), one.uri().query.heartbeat), ("a,b", "shop", Some(3)));
        }
        let tls = Endpoint::parse("amqps://one,two:5681").unwrap();
        assert_eq!(tls.to_string(), "amqps://guest@one:5671,two:5681/%2F");
        assert_eq!(Endpoint::parse("amqp://one").unwrap().each().count(), 1);
    }

    #[test]
    fn user_and_password_are_decoded_and_the_password_is_never_shown() {
        let endpoint = Endpoint::parse("amqp://a%40b:s%2fcr%23t@localhost/%2f").unwrap();
        assert_eq!(endpoint.user(), "a@b");
        assert_eq!(endpoint.password(), "s/cr#t");
        assert_eq!(endpoint.to_string(), "amqp://a%40b@localhost:5672/%2F");
        assert!(!format!("{endpoint:?}").contains("cr"));
    }

    #[test]
    fn a_wrong_url_is_one_line_without_the_password() {
        for (url, word) in [
            ("", "cannot be read"),
            ("localhost", "cannot be read"),
            ("localhost:5672", "starts with 'localhost:'"),
            ("http://localhost", "starts with 'http:'"),
            ("amqp://", "names no host"),
            ("amqp:///x", "names no host"),
            ("amqp://user:sec#ret@localhost", "%23"),
            ("amqp://user:sec/ret@localhost", "%2f"),
            ("amqp://user:secret@localhost/a/b", "a%2Fb"),
            ("amqp://user:123/se/secret@localhost", "%2f"),
            ("amqp://user:12?secret@localhost", "%3f"),
            ("amqp://user:secret@localhost:99999", "cannot be read"),
            ("amqp://user:secret@localhost?hartbeat=3", "unknown parameter 'hartbeat'"),
            ("amqp://user:secret@localhost?heartbeat=x", "heartbeat=x"),
            ("amqp://user:secret@localhost?auth_mechanism=x", "auth_mechanism=x"),
            ("amqp://user:secret%ff@localhost", "not UTF-8"),
            ("amqp://user:secret@localhost/#x", "%23"),
            ("amqp://user:secret@one,/v", "empty host"),
            ("amqp://user:secret@one,two:99999", "cannot be read"),
            ("amqp://user:secret@one/v,amqp://user:secret@two/v", "amqp://user:password@a:5672,b:5673/vhost"),
        ] {
            let Err(Error::Usage(line)) = Endpoint::parse(url) else { panic!("{url} was taken") };
            assert!(line.contains(word), "{url}: {line}");
            assert!(!line.contains("sec") && !line.contains('\n'), "{url}: {line}");
        }
    }

    #[test]
    fn files_for_tls_are_checked_before_anything_connects() {
        let plain = Endpoint::parse("amqp://localhost").unwrap();
        let tls = Endpoint::parse("amqps://localhost").unwrap();
        let missing = Some(PathBuf::from("/nonexistent/ca.pem"));
        let no_pem = Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")));
        for (endpoint, files, word) in [
            (&plain, TlsFiles { ca_cert: no_pem.clone(), ..TlsFiles::default() }, "not amqps"),
            (&tls, TlsFiles { ca_cert: missing, ..TlsFiles::default() }, "--ca-cert /nonexistent/ca.pem"),
            (&tls, TlsFiles { ca_cert: no_pem.clone(), ..TlsFiles::default() }, "no PEM certificate"),
            (&tls, TlsFiles { client_cert: no_pem, ..TlsFiles::default() }, "go together"),
        ] {
            let Err(Error::Usage(line)) = endpoint.clone().with_tls(&files) else { panic!("{word}") };
            assert!(line.contains(word), "{line}");
        }
    }
}
