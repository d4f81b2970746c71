//! The HTTP API of the management plugin.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::http::{Method, Request};

/// The API answers within milliseconds; a node that is stopped or paused does not answer at all.
const LIMIT: Duration = Duration::from_secs(30);

/// `guest:guest`, the well-known login that RabbitMQ accepts from the same machine only.
const LOGIN: &str = "Basic Z3Vlc3Q6Z3Vlc3Q=";

/// A client of the API of one node.
#[derive(Debug)]
pub(crate) struct Management {
    agent: ureq::Agent,
    url: String,
}

impl Management {
    pub(crate) fn new(port: u16) -> Management {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            // A proxy that the environment names cannot reach this machine's loopback interface.
            .proxy(None)
            // A kept connection would be a dead one after a restart.
            .max_idle_connections(0)
            .build();
        Management { agent: config.new_agent(), url: format!("http://127.0.0.1:{port}") }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a request and returns the body of a successful answer (`Null` where there is none). An answer
    /// 404 is `None`, any other failure an error that quotes it.
    pub(crate) fn find(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Option<Value>> {
        let what = || format!("{method} {path}");
        if !path.starts_with("/api/") {
            bail!("{}: a path of the management API begins with /api/", what());
        }
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.url))
            .header("authorization", LOGIN);
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(body.to_string())?)
            }
            None => self.agent.run(request.body(())?),
        };
        let mut answer = answer.with_context(what)?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().with_context(what)?;
        if status.as_u16() == 404 {
            return Ok(None);
        }
        if !status.is_success() {
            bail!("{}: {status}: {text}", what());
        }
        if text.is_empty() {
            return Ok(Some(Value::Null));
        }
        Ok(Some(serde_json::from_str(&text).with_context(what)?))
    }

    /// The same where 404 is an error too.
    pub(crate) fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        self.find(method.clone(), path, body)?.with_context(|| format!("{method} {path}: 404 Not Found"))
    }
}

/// `text` as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_hold_any_text() {
        assert_eq!(segment("amq.gen-a_b~"), "amq.gen-a_b~");
        assert_eq!(segment("/"), "%2F");
        assert_eq!(segment("a b%ü"), "a%20b%25%C3%BC");
    }
}
