//! Starts a node: chooses its ports, writes its files, waits until it answers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::certificates::{CertificateFiles, Certificates};
use crate::epmd::Epmd;
use crate::find::{Server, find_in, find_server};
use crate::guard::{self, Guard};
use crate::node::{Node, Processes};
use crate::place::{Listeners, Place};
use crate::ports::{self, Block};
use crate::root;
use crate::vm::Vm;

/// How often a start is tried when somebody takes a port between its choice and its use.
pub(crate) const ATTEMPTS: u32 = 3;

/// RabbitMQ's usual ports.
pub(crate) const AMQP: u16 = 5672;
pub(crate) const TLS: u16 = 5671;
pub(crate) const MANAGEMENT: u16 = 15672;

/// The variable that holds lines for the `rabbitmq.conf` of every node, so that a whole test run has them.
pub const CONFIG: &str = "BROKER_CONFIG";

/// What a node is to have, before it starts.
#[derive(Clone, Debug)]
pub struct Builder {
    root: Option<PathBuf>,
    plugins: Vec<String>,
    lines: Vec<String>,
    management: bool,
    pub(crate) port: Option<u16>,
    pub(crate) management_port: Option<u16>,
    usual_ports: bool,
    plain: bool,
    tls: Option<Certificates>,
    tls_by_config: bool,
    tls_port: Option<u16>,
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            root: None,
            plugins: Vec::new(),
            lines: env::var(CONFIG).iter().flat_map(|lines| lines.lines()).map(str::to_owned).collect(),
            management: true,
            port: None,
            management_port: None,
            usual_ports: false,
            plain: true,
            tls: None,
            tls_by_config: false,
            tls_port: None,
            cancelled: Arc::default(),
        }
    }
}

impl Builder {
    /// Runs the RabbitMQ of another Linux system, which is in the folder `root`: what debootstrap makes, or an
    /// unpacked image. It sees the network, the processes, the names (`/etc/hosts`) and the temporary directory
    /// of this machine, and the files of `root`.
    ///
    /// This takes root, or a kernel that lets other users make namespaces. Without it
    /// [`find_server`](crate::find_server) decides.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Builder {
        self.root = Some(root.into());
        self
    }

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

    /// Takes RabbitMQ's usual ports (5672, with TLS 5671, and 15672) where they are free and no others were
    /// chosen.
    pub fn usual_ports(mut self) -> Builder {
        self.usual_ports = true;
        self
    }

    /// Listens for AMQP with TLS too, at [`Node::tls_url`]: the client must have a certificate of the same
    /// authority, and may log in by it (EXTERNAL; its common name is the user).
    pub fn tls(mut self, certificates: &Certificates) -> Builder {
        self.tls = Some(certificates.clone());
        self
    }

    /// Says that the lines given to [`Builder::config`] make it listen with TLS, at [`Builder::tls_port`].
    pub fn tls_by_config(mut self) -> Builder {
        self.tls_by_config = true;
        self
    }

    /// The port for TLS, instead of a free one. [`Builder::start`] fails if it is taken.
    pub fn tls_port(mut self, port: u16) -> Builder {
        self.tls_port = Some(port);
        self
    }

    /// Whether it listens for AMQP without TLS (the default).
    pub fn plain(mut self, on: bool) -> Builder {
        self.plain = on;
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
    pub fn start(mut self) -> Result<Node> {
        let server = self.server()?;
        let listeners = self.listeners();
        ensure!(listeners.plain || listeners.tls, "a node without AMQP: neither with TLS nor without");
        let chosen = [
            self.port.filter(|_| listeners.plain),
            self.tls_port.filter(|_| listeners.tls),
            self.management_port.filter(|_| listeners.management),
        ];
        for port in chosen.into_iter().flatten() {
            ensure!(ports::is_free_port(port), "port {port} is taken; choose another one");
        }
        for attempt in 1..=ATTEMPTS {
            self.leave_usual_ports_at_last(attempt);
            let mut ports = Block::free()?;
            if listeners.plain {
                ports.amqp = self.port.or_else(|| self.usual(AMQP, 1)).unwrap_or(ports.amqp);
            }
            if listeners.management {
                let chosen = self.management_port.or_else(|| self.usual(MANAGEMENT, 1));
                ports.management = chosen.unwrap_or(ports.management);
            }
            if listeners.tls {
                ports.tls = self.tls_port.or_else(|| self.usual(TLS, 1)).unwrap_or(ports.tls);
            }
            if let Some(node) = self.attempt(&server, ports)? {
                return Ok(node);
            }
        }
        bail!("another program took a port of the node, {ATTEMPTS} times in a row")
    }

    /// Two that start together could go on taking the usual ports from each other.
    pub(crate) fn leave_usual_ports_at_last(&mut self, attempt: u32) {
        self.usual_ports &= attempt < ATTEMPTS;
    }

    /// The first of so many ports in a row, if they are wanted and all free.
    pub(crate) fn usual(&self, first: u16, count: u16) -> Option<u16> {
        (self.usual_ports && (first..first + count).all(ports::is_free_port)).then_some(first)
    }

    /// `Ok(None)`: another process took a port meanwhile, others may be free.
    fn attempt(&self, server: &Server, ports: Block) -> Result<Option<Node>> {
        let mut guard = Guard::new()?;
        guard::remove_stale(guard.directory());
        let place = Place::new(server, guard.directory(), ports, self.listeners());
        self.write_files(&place).context("cannot write the files of the node")?;
        root::check(&place)?;
        let Some(epmd) = Epmd::start(&place, &mut guard)? else {
            return Ok(None);
        };
        // From here on an error ends the processes: they belong to a value that is dropped.
        let mut processes = Processes { vm: None, epmd: Arc::new(epmd), guard };
        let vm = Vm::start(&place, &mut processes.guard, &[processes.epmd.id()])?;
        processes.vm = Some(vm);
        let node = Node::running(place, processes);
        match node.wait_until_ready(&self.cancelled) {
            Ok(()) => Ok(Some(node)),
            Err(_) if node.lost_a_port() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What to start: the RabbitMQ of the chosen folder, or the one that is installed.
    pub(crate) fn server(&self) -> Result<Server> {
        self.root.as_deref().map_or_else(find_server, find_in)
    }

    pub(crate) fn listeners(&self) -> Listeners {
        let tls = self.tls.is_some() || self.tls_by_config;
        Listeners { plain: self.plain, tls, management: self.management }
    }

    pub(crate) fn write_files(&self, place: &Place) -> Result<()> {
        let mut plugins = self.plugins.clone();
        if self.management {
            plugins.push("rabbitmq_management".to_owned());
        }
        if let Some(certificates) = &self.tls {
            plugins.push("rabbitmq_auth_mechanism_ssl".to_owned());
            certificates.write(&place.file("tls"))?;
        }
        plugins.sort();
        plugins.dedup();
        fs::write(place.file("enabled_plugins"), format!("[{}].\n", plugins.join(",")))?;
        fs::write(place.file("advanced.config"), settings(place, self.tls.is_some()))?;
        fs::create_dir(place.file("conf.d"))?;
        if !self.lines.is_empty() {
            fs::write(place.file("rabbitmq.conf"), self.lines.join("\n") + "\n")?;
        }
        Ok(())
    }
}

/// How old the counters of quorum queues and streams may be; 5 s by default.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// This crate's own settings, as Erlang terms: without a `rabbitmq.conf` to translate a node starts faster.
fn settings(place: &Place, tls: bool) -> String {
    let traces = quoted(&place.file("traces"));
    let management = place.ports.management;
    let listeners = listener_settings(place, tls);
    let tick = TICK.as_millis();
    format!(
        r#"%% coding: utf-8
[
 {{rabbit, [{listeners}
   {{quorum_tick_interval, {tick}}}, {{stream_tick_interval, {tick}}},
   {{collect_statistics_interval, 500}}
 ]}},
 {{rabbitmq_management, [
   {{tcp_config, [{{ip, "127.0.0.1"}}, {{port, {management}}}]}},
   %% A list is else given out again for five times as long as it took to make: seconds, on a busy machine.
   {{management_db_cache_multiplier, 0}},
   %% The shortest interval, in seconds, is the age of the counters of the management API; 5 by default.
   {{sample_retention_policies, [{{global, [{{60, 1}}]}}, {{basic, [{{60, 1}}]}}, {{detailed, [{{60, 1}}]}}]}}
 ]}},
 %% /var/tmp by default.
 {{rabbitmq_tracing, [{{directory, {traces}}}]}}
].
"#
    )
}

/// The settings of the application `rabbit` for its listeners, each with a comma.
fn listener_settings(place: &Place, tls: bool) -> String {
    let mut settings = String::new();
    if !place.listeners.plain {
        settings.push_str("\n   {tcp_listeners, []},");
    }
    if tls {
        let files = CertificateFiles::in_folder(&place.file("tls"));
        settings.push_str(&format!(
            r#"
   {{ssl_listeners, [{{"127.0.0.1", {}}}]}},
   {{ssl_options, [
     {{cacertfile, {}}}, {{certfile, {}}}, {{keyfile, {}}},
     {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}
   ]}},
   {{auth_mechanisms, ['PLAIN', 'AMQPLAIN', 'EXTERNAL']}}, {{ssl_cert_login_from, common_name}},"#,
            place.ports.tls,
            quoted(&files.ca_certificate),
            quoted(&files.server_certificate),
            quoted(&files.server_key),
        ));
    }
    settings
}

/// A path as an Erlang string.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.to_string_lossy().replace('\\', r"\\").replace('"', "\\\""))
}

/// Whether starting was given up.
pub(crate) fn check(cancelled: &AtomicBool) -> Result<()> {
    ensure!(!cancelled.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::wait;

    #[test]
    fn a_port_that_another_takes_calls_for_another_attempt() {
        let ports = Block::free().unwrap();
        let _other = TcpListener::bind(("127.0.0.1", ports.amqp)).unwrap();
        let builder = Builder::default().management(false);
        assert!(builder.attempt(&find_server().unwrap(), ports).unwrap().is_none());
    }

    /// A node ends seconds after it has found its port taken.
    #[test]
    fn so_does_one_that_is_free_again_when_the_node_ends() {
        let server = find_server().unwrap();
        let takes: [fn(Block) -> u16; 3] = [|all| all.amqp, |all| all.management, |all| all.distribution];
        thread::scope(|scope| {
            for taken in takes {
                let ports = Block::free().unwrap();
                let other = TcpListener::bind(("127.0.0.1", taken(ports))).unwrap();
                let server = &server;
                scope.spawn(move || assert!(Builder::default().attempt(server, ports).unwrap().is_none()));
                scope.spawn(move || {
                    let failed = || Ok(has_failed(ports).then_some(()));
                    wait::until(Duration::from_secs(85), "the node to fail", failed).unwrap();
                    drop(other);
                });
            }
        });
    }

    /// Whether a node of this process says so that is to have these ports.
    fn has_failed(ports: Block) -> bool {
        let management = format!("{{port, {}}}", ports.management);
        let mut directories = fs::read_dir(env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
        let directory = directories.find(|directory| {
            fs::read_to_string(directory.join("advanced.config")).is_ok_and(|text| text.contains(&management))
        });
        let output = directory.and_then(|directory| fs::read(directory.join("output")).ok());
        output.is_some_and(|output| String::from_utf8_lossy(&output).contains("BOOT FAILED"))
    }

    #[test]
    fn so_does_the_port_of_the_name_service() {
        let ports = Block::free().unwrap();
        let _other = TcpListener::bind(("127.0.0.1", ports.epmd)).unwrap();
        assert!(Builder::default().attempt(&find_server().unwrap(), ports).unwrap().is_none());
    }
}
