//! The two requests to the management API that tracing needs.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use shared::{Endpoint, Error, Result, shell_word};
use ureq::http::{Method, Request, StatusCode, Uri};

/// How long a request may take. Short enough for a last one after Ctrl-C.
const LIMIT: Duration = Duration::from_secs(2);

/// The port that the management plugin listens on unless told otherwise.
const PORT: u16 = 15_672;

/// Why the management API did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// Nothing answers there, or nothing that makes sense.
    #[error(
        "the management API at {url} does not answer ({cause}): is its plugin enabled (rabbitmq-plugins enable \
         rabbitmq_management), and is this its address (--management-url)?"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What went wrong.
        cause: String,
    },
    /// It answered with something other than success.
    #[error("the management API at {url} refuses ({status}): {advice}")]
    Refused {
        /// Where it is.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What to do about it.
        advice: String,
    },
}

impl ManagementError {
    /// Whether it may be gone in a moment: a broker that has just started answers AMQP first.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
        }
    }
}

/// A vhost's entry in the management API of a broker. Its calls block; see [`Control`](crate::Control).
pub struct Management {
    agent: ureq::Agent,
    url: String,
    user: String,
    vhost: String,
    authorization: String,
}

impl Management {
    /// The API at `url`, by default on port 15672 of the broker's first host, with the broker's user and password.
    ///
    /// # Errors
    /// [`Error::Usage`] if the URL is not of the kind `http://host:15672`.
    pub fn new(endpoint: &Endpoint, url: Option<&str>) -> Result<Self> {
        let url = match url {
            Some(url) => checked(url)?,
            None => default_url(endpoint),
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            // A kept connection would be a dead one after a restart of the broker.
            .max_idle_connections(0)
            .build();
        let login = format!("{}:{}", endpoint.user(), endpoint.password());
        Ok(Self {
            agent: config.new_agent(),
            url,
            user: endpoint.user().to_owned(),
            vhost: endpoint.vhost().to_owned(),
            authorization: format!("Basic {}", BASE64_STANDARD.encode(login)),
        })
    }

    /// The vhost that it is about.
    #[must_use]
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Whether tracing is on.
    ///
    /// # Errors
    /// [`ManagementError`] says what to do about it.
    pub fn tracing(&self) -> Result<bool, ManagementError> {
        Ok(self.request(Method::GET, None)?["tracing"].as_bool().unwrap_or(false))
    }

    /// Turns tracing on or off. The other settings of the vhost stay as they are.
    ///
    /// # Errors
    /// [`ManagementError`] says what to do about it.
    pub fn set_tracing(&self, on: bool) -> Result<(), ManagementError> {
        let now = self.request(Method::GET, None)?;
        self.request(Method::PUT, Some(&changed(&now, on))).map(drop)
    }

    fn request(&self, method: Method, body: Option<&Value>) -> Result<Value, ManagementError> {
        let vhost = utf8_percent_encode(&self.vhost, NON_ALPHANUMERIC);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/api/vhosts/{vhost}", self.url))
            .header("authorization", &self.authorization)
            .header("content-type", "application/json");
        let unreachable = |cause: &dyn ToString| ManagementError::Unreachable {
            url: self.url.clone(),
            cause: cause.to_string(),
        };
        let answer = match body {
            Some(body) => request.body(body.to_string()).map(|request| self.agent.run(request)),
            None => request.body(()).map(|request| self.agent.run(request)),
        };
        let mut answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(cause)) => return Err(unreachable(&cause)),
            Err(cause) => return Err(unreachable(&cause)),
        };
        let status = answer.status();
        if !status.is_success() {
            return Err(self.refused(status));
        }
        let text = answer.body_mut().read_to_string().map_err(|cause| unreachable(&cause))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|cause| unreachable(&cause))
    }

    fn refused(&self, status: StatusCode) -> ManagementError {
        let (user, vhost) = (&self.user, &self.vhost);
        let (user_word, vhost_word) = (shell_word(user), shell_word(vhost));
        let advice = match status.as_u16() {
            401 | 403 => format!(
                "the user '{user}' needs the tag administrator (rabbitmqctl set_user_tags {user_word} administrator), \
                 or turn tracing on without it: rabbitmqctl trace_on -p {vhost_word}"
            ),
            404 => format!("it knows no vhost '{vhost}', or --management-url leads elsewhere"),
            _ => "its log says more: rabbitmq-diagnostics log_tail".to_owned(),
        };
        ManagementError::Refused { url: self.url.clone(), status: status.as_u16(), advice }
    }
}

/// The vhost as it is, but for tracing: what a request leaves out is reset.
fn changed(now: &Value, tracing: bool) -> Value {
    let mut body = json!({ "tracing": tracing });
    if let Some(description) = now["description"].as_str() {
        body["description"] = description.into();
    }
    if let Some(tags) = now["tags"].as_array() {
        let tags: Vec<_> = tags.iter().filter_map(Value::as_str).collect();
        body["tags"] = tags.join(",").into();
    }
    if let Some(queue_type) = now["default_queue_type"].as_str().filter(|name| *name != "undefined") {
        body["default_queue_type"] = queue_type.into();
    }
    body
}

fn checked(url: &str) -> Result<String> {
    let usage = |problem: &str| Error::usage(format!("--management-url {problem}: write http://host:{PORT}"));
    let uri: Uri = url.parse().map_err(|_| usage("is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| usage("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(usage("contains a login, which comes from --url instead"));
    }
    match uri.scheme_str() {
        Some("http") if uri.query().is_none() => Ok(url.trim_end_matches('/').to_owned()),
        Some("http") => Err(usage("has a query")),
        _ => Err(usage("is not plain http, which is all that this program speaks")),
    }
}

fn default_url(endpoint: &Endpoint) -> String {
    match endpoint.host() {
        host if host.contains(':') => format!("http://[{host}]:{PORT}"),
        host => format!("http://{host}:{PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_looked_for_on_the_brokers_host() {
        for (url, management) in [
            ("amqp://localhost", "http://localhost:15672"),
            ("amqps://broker.example:5671/x", "http://broker.example:15672"),
            ("amqp://[::1]", "http://[::1]:15672"),
            ("amqp://one:5672,two:5673/x", "http://one:15672"),
        ] {
            assert_eq!(default_url(&Endpoint::parse(url).unwrap()), management);
        }
    }

    #[test]
    fn a_management_url_is_plain_http_without_a_login() {
        let endpoint = Endpoint::parse("amqp://localhost").unwrap();
        for (url, expected) in [
            ("http://localhost:15672", Ok("http://localhost:15672")),
            ("http://localhost:15672/rabbit/", Ok("http://localhost:15672/rabbit")),
            ("https://localhost:15671", Err("not plain http")),
            ("localhost:15672", Err("")),
            ("http://guest:guest@localhost:15672", Err("--url")),
            ("http://localhost/?a=b", Err("query")),
            ("http://a b", Err("not a URL")),
        ] {
            match (Management::new(&endpoint, Some(url)), expected) {
                (Ok(management), Ok(base)) => assert_eq!(management.url, base),
                (Err(Error::Usage(line)), Err(words)) => assert!(line.contains(words), "{line}"),
                _ => panic!("{url}"),
            }
        }
    }

    #[test]
    fn a_change_keeps_what_the_vhost_has() {
        let now = json!({"name": "x", "tracing": false, "description": "d", "tags": ["a", "b"],
            "default_queue_type": "quorum"});
        let expected =
            json!({"tracing": true, "description": "d", "tags": "a,b", "default_queue_type": "quorum"});
        assert_eq!(changed(&now, true), expected);
        assert_eq!(changed(&json!({"default_queue_type": "undefined"}), false), json!({"tracing": false}));
    }
}
