//! The node that rows may break, one row at a time.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use broker::{Node, speaks_amqp};

/// The node for rows that kill, stop, pause, alarm or set it. Whoever has it is alone with it.
pub(crate) struct OwnNode {
    node: &'static Node,
    _alone: MutexGuard<'static, ()>,
}

/// A changed setting of the broker, which is as before once this is dropped.
pub(crate) struct Setting {
    node: &'static Node,
    name: &'static str,
    before: String,
}

/// A shortage that the broker believes in, until this is dropped.
pub(crate) struct Alarm {
    node: &'static Node,
    of: Resource,
}

/// What a broker can be short of.
#[derive(Clone, Copy)]
pub(crate) enum Resource {
    Memory,
    Disk,
}

impl OwnNode {
    /// Waits for one's turn; the node runs and answers.
    pub(crate) fn take() -> Result<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        static NODE: OnceLock<Result<Node, String>> = OnceLock::new();
        // A row that failed while it had the node spoils no other.
        let alone = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let node = NODE.get_or_init(|| Node::start().map_err(|error| format!("{error:#}")));
        let node = node.as_ref().map_err(|error| anyhow!("no node for the faults: {error}"))?;
        if !speaks_amqp(("127.0.0.1", node.port()), Duration::from_secs(2)) {
            node.kill()?;
            node.restart()?;
        }
        Ok(Self { node, _alone: alone })
    }

    /// The node, for as long as the process runs.
    pub(crate) fn node(&self) -> &'static Node {
        self.node
    }

    /// Changes a number of the broker's application `rabbit`.
    pub(crate) fn set(&self, name: &'static str, value: u64) -> Result<Setting> {
        let words = format!(
            "Old = application:get_env(rabbit, {name}), application:set_env(rabbit, {name}, {value}), Old."
        );
        let before = self.node.rabbitmqctl(&["eval", &words])?.trim().to_owned();
        Ok(Setting { node: self.node, name, before })
    }
}

impl OwnNode {
    /// Makes the broker short of something.
    pub(crate) fn alarm(&self, of: Resource) -> Result<Alarm> {
        let alarm = Alarm { node: self.node, of };
        alarm.raise(true)?;
        Ok(alarm)
    }
}

impl Alarm {
    fn raise(&self, on: bool) -> Result<()> {
        match self.of {
            Resource::Memory => self.node.memory_alarm(on),
            Resource::Disk => {
                let limit = if on { "9999GB" } else { "50MB" };
                self.node.rabbitmqctl(&["set_disk_free_limit", limit]).map(drop)
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // A row that left its node dead has better things to report.
        let _ = self.raise(false);
    }
}

impl Deref for OwnNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.node
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let Self { node, name, before } = self;
        let words = match before.strip_prefix("{ok,").and_then(|before| before.strip_suffix('}')) {
            Some(value) => format!("application:set_env(rabbit, {name}, {value})."),
            None => format!("application:unset_env(rabbit, {name})."),
        };
        // A row that left its node dead has better things to report.
        let _ = node.rabbitmqctl(&["eval", &words]);
    }
}
