//! Several nodes as one cluster on this machine.

use std::fs::{self, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::builder::{AMQP, ATTEMPTS, Builder, MANAGEMENT, check};
use crate::epmd::Epmd;
use crate::find::Server;
use crate::guard::{self, Guard};
use crate::management::segment;
use crate::node::{Node, Processes};
use crate::place::Place;
use crate::ports::{self, Block};
use crate::root;
use crate::vm::Vm;
use crate::wait;

/// Time for all nodes to be members, once each of them answers.
const MEMBERS_LIMIT: Duration = Duration::from_secs(90);

/// What RabbitMQ is told about its cluster, in the file that Docker Compose mounts; the nodes' names follow.
const SETTINGS: &str = include_str!("../../compose/cluster.conf");

/// The first node to look for others finds none that runs, and by default goes on for 5 s. The others wait for it.
const ONE_LOOK: &str = "cluster_formation.discovery_retry_limit = 1";

/// What the lines with the nodes' names begin with.
const NODES: &str = "cluster_formation.classic_config.nodes.";

/// Nodes that are one cluster, `rabbit1@localhost` and so on. They share a name service, and each can be killed
/// and started again like any other [`Node`].
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

impl Deref for Cluster {
    type Target = [Node];

    fn deref(&self) -> &[Node] {
        &self.nodes
    }
}

impl Cluster {
    /// All nodes in one URL, so that a client finds one that lives:
    /// `amqp://guest:guest@127.0.0.1:PORT,127.0.0.1:PORT,…/%2f`.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("amqp://guest:guest@{}/%2f", hosts.join(","))
    }

    /// The node that has a queue of the vhost `/`: a classic queue's only one, or the leader of the replicas. Any
    /// node that runs is asked.
    pub fn node_of(&self, queue: &str) -> Result<&Node> {
        let asked = self.nodes.iter().find(|node| node.is_running()).context("no node runs")?;
        let queue = asked.get(&format!("/api/queues/%2f/{}", segment(queue)))?;
        let name = queue["leader"].as_str().or(queue["node"].as_str()).context("the queue has no node")?;
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node is {name}"))
    }
}

impl Builder {
    /// Starts so many nodes as one cluster, all at once, and waits until each of them answers and all are
    /// members: about 15 s for three of RabbitMQ 3.10 on two idle cores.
    ///
    /// With [`Builder::port`] the nodes have that port and the ones that follow it; the management ports
    /// likewise, and those of [`Builder::usual_ports`].
    pub fn start_cluster(mut self, count: u16) -> Result<Cluster> {
        let server = self.server()?;
        for first in [self.port, self.management_port].into_iter().flatten() {
            ensure!(first.checked_add(count).is_some(), "there are no {count} ports from {first} on");
            for port in first..first + count {
                ensure!(ports::is_free_port(port), "port {port} is taken; choose another one");
            }
        }
        for attempt in 1..=ATTEMPTS {
            self.leave_usual_ports_at_last(attempt);
            if let Some(cluster) = self.attempt_cluster(&server, count)? {
                return Ok(cluster);
            }
        }
        bail!("another program took a port of a node, {ATTEMPTS} times in a row")
    }

    /// `Ok(None)`: another process took a port meanwhile, others may be free.
    fn attempt_cluster(&self, server: &Server, count: u16) -> Result<Option<Cluster>> {
        let names: Vec<_> = (1..=count).map(|number| format!("rabbit{number}@localhost")).collect();
        let cookie =
            format!("{:016x}{:016x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2));
        let (mut places, mut guards) = (Vec::new(), Vec::new());
        let mut name_service = None;
        let mut builder = self.clone();
        for line in settings(&names) {
            builder = builder.config(&line);
        }
        let first_amqp = self.port.or_else(|| self.usual(AMQP, count));
        let first_management = self.management_port.or_else(|| self.usual(MANAGEMENT, count));
        for (offset, name) in (0..count).zip(&names) {
            let mut ports = Block::free()?;
            ports.epmd = *name_service.get_or_insert(ports.epmd);
            ports.amqp = first_amqp.map_or(ports.amqp, |port| port + offset);
            ports.management = first_management.map_or(ports.management, |port| port + offset);
            let guard = Guard::new()?;
            guard::remove_stale(guard.directory());
            let mut place = Place::new(server, guard.directory(), ports, self.listeners());
            place.name.clone_from(name);
            builder.write_files(&place).and_then(|()| write_cookie(&place, &cookie))?;
            root::check(&place)?;
            places.push(place);
            guards.push(guard);
        }
        let Some(epmd) = Epmd::start(&places[0], &mut guards[0])? else {
            return Ok(None);
        };
        let epmd = Arc::new(epmd);
        let mut nodes = Vec::new();
        for (place, guard) in places.into_iter().zip(guards) {
            // From here on an error ends the processes: they belong to values that are dropped.
            let mut processes = Processes { vm: None, epmd: epmd.clone(), guard };
            processes.vm = Some(Vm::start(&place, &mut processes.guard, &[epmd.id()])?);
            nodes.push(Node::running(place, processes));
        }
        for node in &nodes {
            if !self.is_ready(node)? {
                return Ok(None);
            }
        }
        wait::until(MEMBERS_LIMIT, "the nodes to become one cluster", || {
            check(&self.cancelled)?;
            Ok((members(&nodes[0])? == nodes.len()).then_some(()))
        })?;
        Ok(Some(Cluster { nodes }))
    }

    /// Waits until a node answers; false if another process took one of its ports.
    fn is_ready(&self, node: &Node) -> Result<bool> {
        match node.wait_until_ready(&self.cancelled) {
            Ok(()) => Ok(true),
            Err(_) if node.lost_a_port() => Ok(false),
            Err(error) => Err(error.context(node.name().to_owned())),
        }
    }
}

/// The lines for `rabbitmq.conf`: those of the file, with these nodes' names.
fn settings(names: &[String]) -> Vec<String> {
    let general = SETTINGS.lines().filter(|line| !line.starts_with(NODES)).map(str::to_owned);
    let nodes = (1..).zip(names).map(|(number, name)| format!("{NODES}{number} = {name}"));
    general.chain(nodes).chain([ONE_LOOK.to_owned()]).collect()
}

/// The nodes of a cluster know each other by the same cookie, which nobody else may read.
fn write_cookie(place: &Place, cookie: &str) -> Result<()> {
    let file = place.file(".erlang.cookie");
    fs::write(&file, cookie).and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o400)))?;
    Ok(())
}

/// How many nodes of its cluster run, as a node sees it.
fn members(node: &Node) -> Result<usize> {
    let status = node.rabbitmqctl(&["--silent", "--formatter", "json", "cluster_status"])?;
    let status: Value = serde_json::from_str(&status).context("rabbitmqctl cluster_status")?;
    Ok(status["running_nodes"].as_array().map_or(0, Vec::len))
}
