//! A connection's settings as plain fields, for programs that have them from elsewhere than a command line.

use std::str::FromStr;
use std::time::Duration;

use crate::endpoint::Pem;
use crate::{Connection, ConnectionArgs, Endpoint, Error, Result, RetryPolicy, Shutdown};

/// Everything about a connection. The default is a local broker's own account.
///
/// ```no_run
/// # use shared::{Configuration, Scheme, Shutdown};
/// # async fn example(shutdown: &Shutdown) -> shared::Result<()> {
/// let striker = Configuration { name: "striker".to_owned(), ..Configuration::default() };
/// let connection = striker.open(shutdown).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Configuration {
    /// What the management page shows.
    pub name: String,
    /// Plain or TLS.
    pub scheme: Scheme,
    /// The user, not encoded.
    pub user: String,
    /// The user's password, not encoded. Never shown.
    pub password: String,
    /// A host name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port; 0 means the scheme's own, 5672 or 5671.
    pub port: u16,
    /// The virtual host, not encoded; empty means `/`.
    pub vhost: String,
    /// Failed attempts in a row after which a lost connection is given up; 0 means never.
    pub reconnect_attempts: u32,
    /// The longest pause between two attempts, above 0.
    pub reconnect_interval: Duration,
    /// PEM with the certificate authorities to trust besides the system's.
    pub ca_cert: Option<Vec<u8>>,
    /// PEM with the client's certificate.
    pub client_cert: Option<Vec<u8>>,
    /// PEM with the client's private key.
    pub client_key: Option<Vec<u8>>,
}

/// How the broker is spoken to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Scheme {
    /// AMQP over TCP.
    #[default]
    Amqp,
    /// AMQP over TLS.
    Amqps,
}

impl FromStr for Scheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "amqp" => Ok(Self::Amqp),
            "amqps" => Ok(Self::Amqps),
            other => Err(Error::usage(format!("the scheme is '{other}': it must be amqp or amqps"))),
        }
    }
}

impl Default for Configuration {
    fn default() -> Self {
        let RetryPolicy { attempts, interval } = RetryPolicy::default();
        Self {
            name: String::new(),
            scheme: Scheme::default(),
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            host: "localhost".to_owned(),
            port: 0,
            vhost: String::new(),
            reconnect_attempts: attempts,
            reconnect_interval: interval,
            ca_cert: None,
            client_cert: None,
            client_key: None,
        }
    }
}

impl Configuration {
    /// Checks everything, then connects as [`Connection::open`] does.
    ///
    /// # Errors
    /// [`Error::Usage`] names the first wrong value, before anything connects; otherwise as
    /// [`Connection::open`].
    pub async fn open(&self, shutdown: &Shutdown) -> Result<Connection> {
        let endpoint = self.endpoint()?;
        let retry = RetryPolicy { attempts: self.reconnect_attempts, interval: self.reconnect_interval };
        Connection::start(endpoint, &self.name, ConnectionArgs::WAIT, retry, shutdown).up().await
    }

    /// The broker that the fields describe.
    ///
    /// # Errors
    /// [`Error::Usage`] names the first wrong value.
    pub fn endpoint(&self) -> Result<Endpoint> {
        if self.reconnect_interval.is_zero() {
            return Err(Error::usage("the reconnection interval must be above 0"));
        }
        let pem = |name, bytes: &Option<Vec<u8>>| {
            bytes.clone().map(|bytes| Pem { name: format!("the {name}"), bytes })
        };
        Endpoint::from_fields(self)?.with_pem(
            pem("CA certificate", &self.ca_cert),
            pem("client certificate", &self.client_cert),
            pem("client key", &self.client_key),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_taken_as_they_are_and_empty_ones_mean_the_usual() {
        let endpoint = Configuration::default().endpoint().unwrap();
        assert_eq!(endpoint.to_string(), "amqp://guest@localhost:5672/%2F");
        let fields = Configuration {
            scheme: "amqps".parse().unwrap(),
            user: "a@b".to_owned(),
            password: "s/cr#t".to_owned(),
            host: "::1".to_owned(),
            vhost: "a/b".to_owned(),
            ..Configuration::default()
        };
        let endpoint = fields.endpoint().unwrap();
        assert_eq!(endpoint.to_string(), "amqps://a%40b@[::1]:5671/a%2Fb");
        assert_eq!(endpoint.password(), "s/cr#t");
    }

    #[test]
    fn each_wrong_value_is_named_in_one_line_without_the_password() {
        let usual = || Configuration { password: "secret".to_owned(), ..Configuration::default() };
        let pem = Some(b"no PEM".to_vec());
        for (fields, words) in [
            (Configuration { reconnect_interval: Duration::ZERO, ..usual() }, "interval must be above 0"),
            (Configuration { host: String::new(), ..usual() }, "the host ''"),
            (Configuration { host: "amqp://localhost".to_owned(), ..usual() }, "the host 'amqp://localhost'"),
            (Configuration { ca_cert: pem.clone(), ..usual() }, "not amqps://"),
            (
                Configuration { scheme: Scheme::Amqps, ca_cert: pem.clone(), ..usual() },
                "the CA certificate: no PEM certificate",
            ),
            (
                Configuration { scheme: Scheme::Amqps, client_cert: pem.clone(), ..usual() },
                "give both or neither",
            ),
            (
                Configuration {
                    scheme: Scheme::Amqps,
                    client_cert: pem.clone(),
                    client_key: pem.clone(),
                    ..usual()
                },
                "the client certificate: no PEM certificate",
            ),
        ] {
            let Err(Error::Usage(line)) = fields.endpoint() else { panic!("{words}: taken") };
            assert!(line.contains(words), "{words}: {line}");
            assert!(!line.contains("secret") && !line.contains('\n'), "{line}");
        }
        let Err(Error::Usage(line)) = "amqpx".parse::<Scheme>() else { panic!("taken") };
        assert!(line.contains("'amqpx'"), "{line}");
    }
}
