//! The options that every program has.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::{Endpoint, Error, Result, RetryPolicy, TlsFiles};

/// Where the broker is and how patiently to reach it. Flatten it into a program's own options.
#[derive(Args, Clone)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// The broker: amqp://user:password@host:port/vhost, or amqps:// for TLS; of a cluster, host:port,host:port
    #[arg(
        long,
        env = "AMQP_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "amqp://guest:guest@localhost:5672/%2f"
    )]
    url: String,

    /// Put in front of every queue and exchange name, so that a room of people can share one broker
    #[arg(long, env = "AMQP_PREFIX", value_name = "TEXT", default_value = "")]
    prefix: String,

    /// How long to wait for a broker that is not up yet
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    wait: Duration,

    /// Failed attempts in a row after which a lost connection is given up; 0 means never
    #[arg(long, value_name = "N", default_value_t = RetryPolicy::default().attempts)]
    reconnect_attempts: u32,

    /// The longest pause between two attempts; the first is 20ms, then it doubles
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = positive_duration)]
    reconnect_interval: Duration,

    /// PEM file with the certificate authority to trust, besides the system's
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,

    /// PEM file with the client's certificate
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// PEM file with the client's private key
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
}

impl ConnectionArgs {
    /// How long the first connection is tried for unless it is said otherwise.
    pub(crate) const WAIT: Duration = Duration::from_secs(10);

    /// The same options from code: the defaults, but for the URL.
    #[must_use]
    pub fn for_url(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: String::new(),
            wait: Self::WAIT,
            reconnect_attempts: RetryPolicy::default().attempts,
            reconnect_interval: RetryPolicy::default().interval,
            ca_cert: None,
            client_cert: None,
            client_key: None,
        }
    }

    /// The same options with another patience for the first connection.
    #[must_use]
    pub fn with_wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// The same options with another patience for a lost connection.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { reconnect_attempts: retry.attempts, reconnect_interval: retry.interval, ..self }
    }

    /// The same options with a heartbeat of so many seconds, whatever the URL says.
    #[must_use]
    pub fn with_heartbeat(mut self, seconds: u16) -> Self {
        // Of several parameters of one name the last counts.
        self.url.push(if self.url.contains('?') { '&' } else { '?' });
        self.url += &format!("heartbeat={seconds}");
        self
    }

    /// The broker that the URL and the certificate files describe.
    ///
    /// # Errors
    /// [`Error::Usage`] names the first wrong value, before anything connects.
    pub fn endpoint(&self) -> Result<Endpoint> {
        Endpoint::parse(&self.url)?.with_tls(&TlsFiles {
            ca_cert: self.ca_cert.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
        })
    }

    /// A queue's or exchange's name with the prefix in front.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that AMQP cannot carry: over 255 bytes.
    pub fn name(&self, name: &str) -> Result<String> {
        let name = format!("{}{name}", self.prefix);
        if name.len() > 255 {
            return Err(Error::usage(format!("the name '{name}' is over 255 bytes: shorten --prefix")));
        }
        Ok(name)
    }

    /// How long to wait for a broker that is not up yet.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.wait
    }

    pub(crate) fn retry(&self) -> RetryPolicy {
        RetryPolicy { attempts: self.reconnect_attempts, interval: self.reconnect_interval }
    }
}

impl fmt::Debug for ConnectionArgs {
    /// Leaves the URL out, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url: _,
            prefix,
            wait,
            reconnect_attempts,
            reconnect_interval,
            ca_cert,
            client_cert,
            client_key,
        } = self;
        f.debug_struct("ConnectionArgs")
            .field("prefix", prefix)
            .field("wait", wait)
            .field("reconnect_attempts", reconnect_attempts)
            .field("reconnect_interval", reconnect_interval)
            .field("tls", &[ca_cert, client_cert, client_key])
            .finish()
    }
}

fn positive_duration(text: &str) -> std::result::Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be above 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    fn parse(args: &[&str]) -> clap::error::Result<ConnectionArgs> {
        Program::try_parse_from([&["program"], args].concat()).map(|program| program.connection)
    }

    #[test]
    fn durations_carry_their_unit_and_an_interval_is_above_zero() {
        let args = parse(&["--wait", "2m", "--reconnect-interval", "200ms"]).unwrap();
        assert_eq!(args.wait(), Duration::from_secs(120));
        assert_eq!(args.retry().interval, Duration::from_millis(200));
        assert!(parse(&["--wait", "5"]).is_err());
        assert!(parse(&["--reconnect-interval", "0s"]).unwrap_err().to_string().contains("above 0"));
        assert!(parse(&["--reconnect-attempts", "-1"]).is_err());
    }

    #[test]
    fn a_heartbeat_from_code_replaces_that_of_the_url() {
        for url in ["amqp://localhost", "amqp://localhost/%2f?heartbeat=30", "amqp://localhost?channel_max=9"]
        {
            let endpoint = ConnectionArgs::for_url(url).with_heartbeat(1).endpoint().unwrap();
            assert_eq!(endpoint.uri().query.heartbeat, Some(1), "{url}");
        }
    }

    #[test]
    fn names_get_the_prefix_and_stay_within_amqps_limit() {
        let args = parse(&["--prefix", "ann-"]).unwrap();
        assert_eq!(args.name("hello").unwrap(), "ann-hello");
        assert!(matches!(args.name(&"x".repeat(252)), Err(Error::Usage(_))));
    }

    #[test]
    fn the_options_from_code_are_the_command_lines_defaults() {
        let url = "amqp://guest:guest@localhost:5672/%2f";
        let (line, code) = (parse(&["--url", url, "--prefix", ""]).unwrap(), ConnectionArgs::for_url(url));
        assert_eq!(line.url, code.url);
        assert_eq!(format!("{line:?}"), format!("{code:?}"));
        assert!(!format!("{line:?}").contains("guest"));
    }
}
