//! Which broker the demo runs on.

use std::env;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use broker::Node;
use shared::Endpoint;

use crate::install;
use crate::say::say;

/// What programs connect to when they are told nothing.
const DEFAULT_URL: &str = "amqp://guest:guest@localhost:5672/%2f";

/// A broker for the demo.
pub(crate) struct Broker {
    /// Where it is, with the password.
    pub(crate) url: String,
    /// Started for the demo, and gone with it. `None`: it is somebody else's, so nothing may be left on it.
    pub(crate) private: Option<Node>,
}

/// The broker of `AMQP_URL`; else the one on this machine; else a private node of an installed RabbitMQ,
/// which `install` may bring about; else an error with the ways to get one.
pub(crate) fn choose(install: bool) -> Result<Broker> {
    if let Some(url) = env::var("AMQP_URL").ok().filter(|url| !url.is_empty()) {
        // Displayed without the password.
        let endpoint = Endpoint::parse(&url).context("AMQP_URL")?;
        say!("broker: AMQP_URL, {endpoint}");
        return Ok(Broker { url, private: None });
    }
    if broker::speaks_amqp("localhost:5672", Duration::from_secs(2)) {
        say!("broker: the one on localhost:5672");
        return Ok(Broker { url: DEFAULT_URL.to_owned(), private: None });
    }
    if install {
        install::rabbitmq()?;
    }
    let server = match broker::find_server() {
        Ok(server) => server,
        Err(_) if docker_runs() => bail!(
            "no broker: AMQP_URL is not set and nothing answers on localhost:5672; Docker runs here, so start one \
             with it and try again:\n  docker compose up -d --wait"
        ),
        Err(missing) => bail!(
            "no broker: AMQP_URL is not set, nothing answers on localhost:5672, and {missing}\n  \
             cargo xtask demo --install                                (installs RabbitMQ, then runs the demo)"
        ),
    };
    say!("broker: a private node of {server}");
    let node = Node::start()?;
    Ok(Broker { url: node.url(), private: Some(node) })
}

/// Having the command is not enough: the engine, and its compose plugin, must be there, too.
fn docker_runs() -> bool {
    let succeeds = |args: &[&str]| {
        let mut docker = Command::new("docker");
        docker.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        docker.status().is_ok_and(|status| status.success())
    };
    succeeds(&["compose", "version"]) && succeeds(&["info"])
}
