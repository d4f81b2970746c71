//! `shared`'s API in this process, for what the two programs do not do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::message::Delivery;
use shared::{Connection, ConnectionArgs, Consumer, Outcome, Publisher, Shutdown, State, Topology, Verdict};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::LIMIT;
use super::history::History;

/// A connection with a runtime of its own, whose states are watched.
pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    pub(crate) connection: Connection,
    pub(crate) shutdown: Shutdown,
    history: History,
}

impl Client {
    /// Connects to `url`.
    pub(crate) fn open(url: &str, name: &str) -> Result<Self> {
        Self::with(&ConnectionArgs::for_url(url), name)
    }

    /// Connects as `args` say.
    pub(crate) fn with(args: &ConnectionArgs, name: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let shutdown = Shutdown::new();
        let connection = runtime.block_on(Connection::open(args, name, &shutdown))?;
        let history = History::watch(runtime.handle(), &connection);
        Ok(Self { runtime, connection, shutdown, history })
    }

    /// Awaits `work`, for as long as a step may take.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        self.runtime.block_on(async { timeout(LIMIT, work).await }).context("a step took too long")
    }

    /// Declares a topology.
    pub(crate) fn declare(&self, topology: &Topology) -> Result<()> {
        self.wait(topology.declare(&self.connection))?.context("cannot declare")
    }

    /// Publishes a persistent, mandatory message with an id.
    pub(crate) fn publish(
        &self,
        publisher: &Publisher,
        exchange: &str,
        key: &str,
        body: &str,
    ) -> Result<Outcome> {
        let id = shared::message_id();
        self.wait(publisher.publish(&striker_keeper::shots::shot(exchange, key, &id, body)))
    }

    /// Consumes in the background.
    pub(crate) fn consume<F>(
        &self,
        consumer: &Consumer,
        handler: impl Fn(u16, Delivery) -> F + Send + Sync + 'static,
    ) -> JoinHandle<shared::Result<()>>
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let (consumer, connection) = (consumer.clone(), self.connection.clone());
        let handler = Arc::new(handler);
        self.runtime.spawn(async move {
            consumer.run(&connection, move |worker, delivery| handler(worker, delivery)).await
        })
    }

    /// Waits until the connection's state is one of these.
    pub(crate) fn wait_for_state(&self, what: &str, is: impl FnMut(&State) -> bool) -> Result<()> {
        let mut state = self.connection.state();
        let found = self.wait(async { state.wait_for(is).await.map(drop) });
        found.with_context(|| format!("{what}: {:?}", self.history.states()))??;
        Ok(())
    }

    /// All states so far.
    pub(crate) fn states(&self) -> Vec<State> {
        self.history.states()
    }

    /// Closes everything; all changes of state must have been legal.
    pub(crate) fn close(self) -> Result<()> {
        self.shutdown.request();
        self.runtime.block_on(self.shutdown.close_connections());
        let state = self.connection.state().borrow().clone();
        ensure!(matches!(state, State::Closed { .. }), "{state:?} after the end");
        self.history.check()?;
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(())
    }
}
