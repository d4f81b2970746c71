//! A vhost of its own for each test, so that tests on one node do not see each other's queues.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::builder::TICK;
use crate::management::segment;
use crate::node::Node;
use crate::wait;

/// Time for the broker to learn that a client is gone.
const CONSUMERS_LIMIT: Duration = Duration::from_secs(30);

/// What [`Vhost::queue`] tells as of the call.
const COUNTERS: &[&str] = &["messages", "messages_ready", "messages_unacknowledged", "consumers"];

/// What [`Vhost::connections`] tells.
const CONNECTION: &[&str] =
    &["vhost", "name", "user", "state", "channels", "timeout", "frame_max", "peer_port", "client_properties"];

/// One of the broker's lists of properties as what JSON calls an object: a queue is its name, a table an object. A
/// client that has not said who it is has `none` instead of a table.
const OBJECT: &str = "maps:from_list([{Key, case {Key, Value} of
        {_, {resource, _, _, Name}} -> Name;
        {_, Pid} when is_pid(Pid) -> list_to_binary(pid_to_list(Pid));
        {arguments, [_ | _]} -> rabbit_misc:amqp_table(Value);
        {arguments, _} -> #{};
        {client_properties, [_ | _]} -> rabbit_misc:amqp_table(Value);
        {client_properties, _} -> #{};
        _ -> Value
    end} || {Key, Value} <- Properties])";

/// A vhost that is deleted, with all that is in it, when it is dropped.
#[derive(Debug)]
pub struct Vhost<'n> {
    node: &'n Node,
    name: String,
}

impl<'n> Vhost<'n> {
    pub(crate) fn new(node: &'n Node) -> Result<Vhost<'n>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Several processes may use one node.
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        node.put(&format!("/api/vhosts/{name}"), &json!({})).context("cannot make a vhost")?;
        let vhost = Vhost { node, name };
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        node.put(&format!("/api/permissions/{}/guest", vhost.name), &all)?;
        Ok(vhost)
    }

    /// Its name, which needs no encoding in a URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where to connect: `amqp://guest:guest@127.0.0.1:PORT/NAME`.
    pub fn url(&self) -> String {
        self.node.url_of(&self.name)
    }

    /// [`Vhost::url`] through a relay on another port of this machine.
    pub fn url_through(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/{}", self.name)
    }

    /// [`Vhost::url`] with TLS, if the node has [`Builder::tls`](crate::Builder::tls).
    pub fn tls_url(&self) -> String {
        self.node.tls_url_of(&self.name)
    }

    /// A queue as the management API shows it, or `None` if there is none of that name.
    ///
    /// The counters `messages`, `messages_ready`, `messages_unacknowledged` and `consumers` are always there
    /// and as of the call: the broker is asked for them and not its statistics. (Those of a quorum queue are what
    /// its leader reported last, which under load may be some seconds ago.) The counters that a `GET` of
    /// `/api/queues/VHOST/NAME` with [`Node::get`] gives lag by a second and are missing at first.
    pub fn queue(&self, name: &str) -> Result<Option<Value>> {
        let path = format!("/api/queues/{}/{}", self.name, segment(name));
        let Some(mut queue) = self.node.api()?.find(Method::GET, &path, None)? else {
            return Ok(None);
        };
        self.refresh(std::slice::from_mut(&mut queue))?;
        Ok(Some(queue))
    }

    /// All queues, each as [`Vhost::queue`] shows it.
    pub fn queues(&self) -> Result<Vec<Value>> {
        let mut queues = self.list("queues")?;
        self.refresh(&mut queues)?;
        Ok(queues)
    }

    /// Puts the present counters into what the management API told about `queues`.
    fn refresh(&self, queues: &mut [Value]) -> Result<()> {
        if queues.is_empty() {
            return Ok(());
        }
        if queues.iter().any(|queue| queue["type"] != "classic") {
            // What such a queue tells is as old as this at the most.
            std::thread::sleep(2 * TICK);
        }
        let items = [&["name"], COUNTERS].concat().join(", ");
        let present = self.ask(&format!("rabbit_amqqueue:info_all(<<\"{}\">>, [{items}])", self.name))?;
        for queue in queues {
            let counters = present.iter().find(|present| present["name"] == queue["name"]);
            for counter in COUNTERS {
                // A queue deleted since then holds nothing.
                queue[counter] = counters.map_or(json!(0), |counters| counters[counter].clone());
            }
        }
        Ok(())
    }

    /// All bindings (exact), those to the default exchange included, whose `source` is empty.
    pub fn bindings(&self) -> Result<Vec<Value>> {
        self.list("bindings")
    }

    fn list(&self, what: &str) -> Result<Vec<Value>> {
        array(self.node.get(&format!("/api/{what}/{}", self.name))?)
    }

    /// All consumers. Exact, because the broker is asked and not its statistics; the fields are those of
    /// `rabbitmqctl list_consumers`, such as `queue_name`, `consumer_tag`, `ack_required`, `prefetch_count`,
    /// `active`, `arguments`.
    pub fn consumers(&self) -> Result<Vec<Value>> {
        self.ask(&format!("rabbit_amqqueue:consumers_all(<<\"{}\">>)", self.name))
    }

    /// Waits until there are so many: the broker learns late of a client whose connection was cut.
    ///
    /// # Errors
    /// If there are others after half a minute.
    pub fn wait_for_consumers(&self, count: usize) -> Result<()> {
        wait::until(CONSUMERS_LIMIT, &format!("{count} consumers"), || {
            Ok((self.consumers()?.len() == count).then_some(()))
        })
    }

    /// All connections of this vhost. Exact, because the broker is asked and not its statistics; the fields are
    /// those of `rabbitmqctl list_connections`: `name`, `user_provided_name` (the client's own), `user`,
    /// `state`, `channels`, `timeout` (the heartbeat, seconds), `frame_max`, `peer_port`, `client_properties`.
    pub fn connections(&self) -> Result<Vec<Value>> {
        let mut connections =
            self.ask(&format!("rabbit_networking:connection_info_all([{}])", CONNECTION.join(", ")))?;
        connections.retain(|connection| connection["vhost"] == self.name.as_str());
        for connection in &mut connections {
            // As in the management API.
            connection["user_provided_name"] = connection["client_properties"]["connection_name"].clone();
        }
        Ok(connections)
    }

    /// Closes all connections of this vhost with 320 (CONNECTION_FORCED) and says how many there were. The
    /// broker has told every client when this returns; a client that does not read is listed as `closing` for
    /// some seconds more.
    pub fn close_connections(&self) -> Result<usize> {
        let open = format!(
            "[{{pid, Pid}}, {{vhost, <<\"{}\">>}}, {{state, State}}] <- \
             rabbit_networking:connection_info_all([pid, vhost, state]), State =/= closing, State =/= closed",
            self.name
        );
        let close = "rabbit_networking:close_connection(Pid, \"closed by a test\")";
        Ok(array(self.node.evaluate(&format!("[begin {close}, 1 end || {open}]"))?)?.len())
    }

    /// Deletes a queue, also one that is exclusive to a connection, with what is in it.
    ///
    /// # Errors
    /// If there is no such queue.
    pub fn delete_queue(&self, name: &str) -> Result<()> {
        let lookup =
            format!("rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{name}\">>))", self.name);
        let delete = "{ok, _} = rabbit_amqqueue:delete(Queue, false, false, <<\"test\">>), true";
        let deleted =
            self.node.evaluate(&format!("case {lookup} of {{ok, Queue}} -> {delete}; _ -> false end"))?;
        ensure!(deleted == true, "there is no queue {name}");
        Ok(())
    }

    /// A list of the broker's lists of properties.
    fn ask(&self, expression: &str) -> Result<Vec<Value>> {
        array(self.node.evaluate(&format!("[{OBJECT} || Properties <- {expression}]"))?)
    }
}

impl Drop for Vhost<'_> {
    fn drop(&mut self) {
        // A test that left its node paused or dead has better things to report than this.
        if self.node.is_usable() {
            let _ = self.node.delete(&format!("/api/vhosts/{}", self.name));
        }
    }
}

fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => anyhow::bail!("expected a list: {other}"),
    }
}
