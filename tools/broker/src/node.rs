//! A running private node: where it is, whether it is up, and how to ask it something.

use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use ureq::http::Method;

use crate::builder::{Builder, check};
use crate::ctl;
use crate::epmd::Epmd;
use crate::evaluate::evaluate;
use crate::guard::Guard;
use crate::management::Management;
use crate::output;
use crate::place::Place;
use crate::ports;
use crate::probe::greet;
use crate::vhost::Vhost;
use crate::vm::Vm;
use crate::wait;

/// Time for a node to answer; it takes about 6 s on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Time for one question whether the node answers.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Time for a node that another process runs to answer.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// A running RabbitMQ node of one's own. Dropping it kills it and removes its files.
///
/// It can be used from several threads. Whatever stops the node or makes it unusable is refused on the node
/// that tests share, [`node()`](crate::node): start another one for that.
pub struct Node {
    pub(crate) place: Place,
    api: Option<Management>,
    /// `None`: another process runs it.
    pub(crate) processes: Option<Mutex<Processes>>,
    /// Whether it is the node of [`node()`](crate::node).
    pub(crate) shared: bool,
}

/// The processes of a node, in the order in which they have to end, and in which Rust drops them: without its
/// name service a living node would start one that stays.
pub(crate) struct Processes {
    pub(crate) vm: Option<Vm>,
    /// Shared by the nodes of a cluster.
    pub(crate) epmd: Arc<Epmd>,
    pub(crate) guard: Guard,
}

impl Node {
    /// Starts a node with the management plugin, on free ports, and waits until it answers (about 6 s).
    pub fn start() -> Result<Node> {
        Node::builder().start()
    }

    /// For a node with other plugins, settings or ports.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn running(place: Place, processes: Processes) -> Node {
        Node::new(place, Some(Mutex::new(processes)))
    }

    fn new(place: Place, processes: Option<Mutex<Processes>>) -> Node {
        let api = place.listeners.management.then(|| Management::new(place.ports.management));
        Node { place, api, processes, shared: false }
    }

    /// A node that another process runs, from its [`Node::description`].
    pub(crate) fn attach(description: &str) -> Result<Node> {
        let node = Node::new(Place::from_description(description)?, None);
        // That it runs was true before; one bad answer on a busy machine says nothing.
        let mut answer = Ok(());
        let answered = wait::until(ATTACH_LIMIT, "an answer", || {
            answer = node.answer();
            Ok(answer.is_ok().then_some(()))
        });
        if answered.is_err() {
            answer.with_context(|| format!("no broker answers at {}", node.url()))?;
        }
        Ok(node)
    }

    /// The same node, for everybody in this process.
    pub(crate) fn into_shared(mut self) -> Node {
        self.shared = true;
        self
    }

    /// What another process needs to use this node: the value for the variable
    /// [`TEST_NODE`](crate::TEST_NODE).
    pub fn description(&self) -> String {
        self.place.describe()
    }

    /// Where it accepts AMQP: `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    pub fn url(&self) -> String {
        self.url_of("%2f")
    }

    pub(crate) fn url_of(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{vhost}", self.port())
    }

    /// Where it accepts AMQP with TLS, from clients with a certificate:
    /// `amqps://guest:guest@localhost:PORT/%2f`. Nothing listens there without [`Builder::tls`].
    pub fn tls_url(&self) -> String {
        self.tls_url_of("%2f")
    }

    pub(crate) fn tls_url_of(&self, vhost: &str) -> String {
        format!("amqps://guest:guest@localhost:{}/{vhost}", self.tls_port())
    }

    /// Its port for AMQP with TLS.
    pub fn tls_port(&self) -> u16 {
        self.place.ports.tls
    }

    /// Its AMQP port.
    pub fn port(&self) -> u16 {
        self.place.ports.amqp
    }

    /// Where its management page is: `http://127.0.0.1:PORT` (log in as guest, guest). Nothing listens there
    /// if the plugin is off.
    pub fn management_url(&self) -> String {
        match &self.api {
            Some(api) => api.url().to_owned(),
            None => format!("http://127.0.0.1:{}", self.place.ports.management),
        }
    }

    /// Its Erlang name, for `rabbitmqctl -n`.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// The version of RabbitMQ, such as `3.10.8`, as its management API tells.
    pub fn version(&self) -> Result<String> {
        let overview = self.get("/api/overview")?;
        Ok(overview["rabbitmq_version"].as_str().context("the broker does not tell its version")?.to_owned())
    }

    /// Whether it is this version of RabbitMQ or a later one, for tests of what differs between versions.
    pub fn is_from(&self, major: u32, minor: u32) -> Result<bool> {
        let version = self.version()?;
        let mut numbers = version.split('.').map_while(|number| number.parse().ok());
        Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor))
    }

    /// A new, empty vhost, on which `guest` may do everything; it is deleted when it is dropped.
    pub fn vhost(&self) -> Result<Vhost<'_>> {
        Vhost::new(self)
    }

    /// The process id of its virtual machine, for a `kill`; `None` while it does not run, and for an attached
    /// node.
    pub fn process_id(&self) -> Option<u32> {
        lock(self.processes.as_ref()?).vm.as_ref().map(Vm::id)
    }

    /// Whether its process runs, paused or not. An attached node counts as running while it answers.
    pub fn is_running(&self) -> bool {
        match &self.processes {
            Some(processes) => lock(processes).vm.as_mut().is_some_and(|vm| matches!(vm.exited(), Ok(None))),
            None => self.answers(),
        }
    }

    /// Runs `rabbitmqctl` and returns its standard output; if it fails the error holds what it said. It takes
    /// about half a second, 60 s at most. `-q` as an argument keeps headings out of the output.
    pub fn rabbitmqctl(&self, args: &[&str]) -> Result<String> {
        ctl::rabbitmqctl(&self.place, args)
    }

    /// The value, as JSON, of an Erlang expression that the node evaluates.
    pub(crate) fn evaluate(&self, expression: &str) -> Result<Value> {
        evaluate(&self.place, expression)
    }

    /// A line to paste into a shell that runs `rabbitmqctl` against this node; arguments go at its end.
    pub fn rabbitmqctl_line(&self) -> String {
        self.place.rabbitmqctl_line()
    }

    /// `GET` of the management API; `path` begins with `/api/`. Counters in the answer lag by a second.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.api()?.request(Method::GET, path, None)
    }

    /// `PUT` of the management API. The answer is `Null` if it has no body, as for most.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.api()?.request(Method::PUT, path, Some(body))
    }

    /// `POST` of the management API, for bindings and for `/api/exchanges/VHOST/NAME/publish`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.api()?.request(Method::POST, path, Some(body))
    }

    /// `DELETE` of the management API.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.api()?.request(Method::DELETE, path, None).map(drop)
    }

    pub(crate) fn api(&self) -> Result<&Management> {
        self.api.as_ref().context("this node was started without the management plugin")
    }

    /// Whether it accepts AMQP now.
    fn answers(&self) -> bool {
        self.answer().is_ok()
    }

    /// Like [`Node::answers`], and says what is wrong.
    fn answer(&self) -> io::Result<()> {
        let listeners = self.place.listeners;
        if listeners.plain {
            greet((Ipv4Addr::LOCALHOST, self.port()), PROBE_LIMIT)?;
        }
        // Behind TLS the broker cannot be asked, but it opens that port last.
        if listeners.tls {
            TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, self.tls_port()).into(), PROBE_LIMIT)?;
        }
        Ok(())
    }

    /// Whether a question to the node has a chance of an answer.
    pub(crate) fn is_usable(&self) -> bool {
        match &self.processes {
            Some(processes) => lock(processes)
                .vm
                .as_mut()
                .is_some_and(|vm| !vm.is_paused() && matches!(vm.exited(), Ok(None))),
            None => true,
        }
    }

    /// Waits until it answers AMQP and, with the plugin, HTTP, unless it ends or `cancelled` turns true.
    pub(crate) fn wait_until_ready(&self, cancelled: &AtomicBool) -> Result<()> {
        let ready = wait::until(START_LIMIT, "the node to answer", || {
            check(cancelled)?;
            if let Some(processes) = &self.processes {
                let status = match lock(processes).vm.as_mut() {
                    Some(vm) => vm.exited()?,
                    None => bail!("the node was stopped while it started"),
                };
                if let Some(status) = status {
                    bail!("the node ended while it started ({status})");
                }
            }
            let up = self.answers() && self.api.as_ref().is_none_or(|api| self.is_behind(api));
            Ok(up.then_some(()))
        });
        ready.map_err(|error| match output::tail(&self.place) {
            tail if tail.is_empty() => error,
            tail => anyhow!("{error:#}; from its output:\n{tail}"),
        })
    }

    /// Whether the management API answers, and for this node. RabbitMQ 4.3 answers with 500 for a moment.
    fn is_behind(&self, api: &Management) -> bool {
        let overview = api.request(Method::GET, "/api/overview", None);
        overview.is_ok_and(|overview| {
            let answers_early =
                overview["rabbitmq_version"].as_str().is_some_and(|version| version.starts_with("3.8."));
            overview["node"] == self.name() && (!answers_early || self.has_booted(api))
        })
    }

    /// Whether the broker runs behind its management API. Until then 3.8 answers with 500 to whoever publishes there.
    fn has_booted(&self, api: &Management) -> bool {
        let node = api.request(Method::GET, &format!("/api/nodes/{}", self.name()), None);
        let runs = |node: Value| {
            node["applications"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "rabbit"))
        };
        node.is_ok_and(runs)
    }

    /// Whether another process listens on one of the ports that this node, which ended, was to have; or did when
    /// the node wanted it.
    pub(crate) fn lost_a_port(&self) -> bool {
        let ports = self.place.ports;
        let needed = [ports.distribution, ports.amqp, ports.management, ports.tls];
        let was_taken = || output::tells_of_a_taken_port(&self.place, &needed);
        !self.is_running() && (needed.into_iter().any(|port| !ports::is_free_port(port)) || was_taken())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("place", &self.place)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// The processes, also after a thread panicked while it held the lock: it left nothing half-done that
/// matters.
pub(crate) fn lock(processes: &Mutex<Processes>) -> MutexGuard<'_, Processes> {
    processes.lock().unwrap_or_else(PoisonError::into_inner)
}
