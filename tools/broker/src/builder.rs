//! Starts a node: chooses its ports, writes its files, waits until it answers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::epmd::Epmd;
use crate::find::find_server;
use crate::guard::{self, Guard};
use crate::node::{Node, Processes};
use crate::place::Place;
use crate::ports::{self, Block};
use crate::vm::Vm;

/// How often a start is tried when somebody takes a port between its choice and its use.
const ATTEMPTS: u32 = 3;

/// What a node is to have, before it starts.
#[derive(Clone, Debug)]
pub struct Builder {
    plugins: Vec<String>,
    lines: Vec<String>,
    management: bool,
    port: Option<u16>,
    management_port: Option<u16>,
    cancelled: Arc<AtomicBool>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            plugins: Vec::new(),
            lines: Vec::new(),
            management: true,
            port: None,
            management_port: None,
            cancelled: Arc::default(),
        }
    }
}

impl Builder {
    /// Enables a plugin that comes with RabbitMQ, such as `rabbitmq_tracing`.
    pub fn plugin(mut self, name: &str) -> Builder {
        self.plugins.push(name.to_owned());
        self
    }

    /// Adds a line to `rabbitmq.conf`. The ports of AMQP, management and distribution stay as they are.
    pub fn config(mut self, line: &str) -> Builder {
        self.lines.push(line.to_owned());
        self
    }

    /// Whether the management plugin is on (the default). Without it a node starts faster and has no HTTP
    /// API: no [`Node::vhost`], no [`Node::get`].
    pub fn management(mut self, on: bool) -> Builder {
        self.management = on;
        self
    }

    /// The AMQP port, instead of a free one. [`Builder::start`] fails if it is taken.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = Some(port);
        self
    }

    /// The port of the management API, instead of a free one. [`Builder::start`] fails if it is taken.
    pub fn management_port(mut self, port: u16) -> Builder {
        self.management_port = Some(port);
        self
    }

    /// Gives up starting as soon as `flag` is true.
    pub fn cancel_when(mut self, flag: Arc<AtomicBool>) -> Builder {
        self.cancelled = flag;
        self
    }

    /// Starts the node and waits until it answers AMQP and, with the plugin, HTTP: about 6 s, 90 s at most.
    ///
    /// If there is no RabbitMQ on this machine the error lists the ways to get one; if the node ends early
    /// the error shows the last lines of its output.
    pub fn start(self) -> Result<Node> {
        let server = find_server()?;
        for port in [self.port, self.management_port.filter(|_| self.management)].into_iter().flatten() {
            ensure!(ports::is_free_port(port), "port {port} is taken; choose another one");
        }
        for _ in 0..ATTEMPTS {
            let mut ports = Block::free()?;
            ports.amqp = self.port.unwrap_or(ports.amqp);
            ports.management = self.management_port.unwrap_or(ports.management);
            if let Some(node) = self.attempt(&server, ports)? {
                return Ok(node);
            }
        }
        bail!("another program took a port of the node, {ATTEMPTS} times in a row")
    }

    /// `Ok(None)`: another process took a port meanwhile, others may be free.
    fn attempt(&self, server: &Path, ports: Block) -> Result<Option<Node>> {
        let mut guard = Guard::new()?;
        guard::remove_stale(guard.directory());
        let place = Place::new(server, guard.directory(), ports, self.management);
        self.write_files(&place).context("cannot write the files of the node")?;
        let Some(epmd) = Epmd::start(&place, &mut guard)? else {
            return Ok(None);
        };
        // From here on an error ends the processes: they belong to a value that is dropped.
        let mut processes = Processes { vm: None, epmd, guard };
        let vm = Vm::start(&place, &mut processes.guard, &[processes.epmd.id()])?;
        processes.vm = Some(vm);
        let node = Node::running(place, processes);
        match node.wait_until_ready(&self.cancelled) {
            Ok(()) => Ok(Some(node)),
            Err(_) if node.lost_a_port() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_files(&self, place: &Place) -> Result<()> {
        let mut plugins = self.plugins.clone();
        if self.management {
            plugins.push("rabbitmq_management".to_owned());
        }
        plugins.sort();
        plugins.dedup();
        fs::write(place.file("enabled_plugins"), format!("[{}].\n", plugins.join(",")))?;
        fs::write(place.file("advanced.config"), settings(place))?;
        fs::create_dir(place.file("conf.d"))?;
        if !self.lines.is_empty() {
            fs::write(place.file("rabbitmq.conf"), self.lines.join("\n") + "\n")?;
        }
        Ok(())
    }
}

/// This crate's own settings, as Erlang terms: without a `rabbitmq.conf` to translate a node starts faster.
fn settings(place: &Place) -> String {
    let traces = place.file("traces").to_string_lossy().replace('\\', r"\\").replace('"', "\\\"");
    let port = place.ports.management;
    format!(
        r#"%% coding: utf-8
[
 {{rabbit, [
   %% How old the counters of quorum queues and streams may be, in milliseconds; 5000 by default.
   {{quorum_tick_interval, 100}}, {{stream_tick_interval, 100}},
   {{collect_statistics_interval, 500}}
 ]}},
 {{rabbitmq_management, [
   {{tcp_config, [{{ip, "127.0.0.1"}}, {{port, {port}}}]}},
   %% The shortest interval, in seconds, is the age of the counters of the management API; 5 by default.
   {{sample_retention_policies, [{{global, [{{60, 1}}]}}, {{basic, [{{60, 1}}]}}, {{detailed, [{{60, 1}}]}}]}}
 ]}},
 %% /var/tmp by default.
 {{rabbitmq_tracing, [{{directory, "{traces}"}}]}}
].
"#
    )
}

/// Whether starting was given up.
pub(crate) fn check(cancelled: &AtomicBool) -> Result<()> {
    ensure!(!cancelled.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_another_takes_calls_for_another_attempt() {
        let ports = Block::free().unwrap();
        let _other = TcpListener::bind(("127.0.0.1", ports.amqp)).unwrap();
        let builder = Builder::default().management(false);
        assert!(builder.attempt(&find_server().unwrap(), ports).unwrap().is_none());
    }

    #[test]
    fn so_does_the_port_of_the_name_service() {
        let ports = Block::free().unwrap();
        let _other = TcpListener::bind(("127.0.0.1", ports.epmd)).unwrap();
        assert!(Builder::default().attempt(&find_server().unwrap(), ports).unwrap().is_none());
    }
}
