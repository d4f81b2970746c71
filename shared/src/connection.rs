//! A connection that comes back: a supervisor dials, watches and dials again; sessions run on what it has.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::io_thread::Movable;
use crate::link::{Link, dial};
use crate::retry::{Backoff, STABLE};
use crate::{ConnectionArgs, Endpoint, Error, Result, RetryPolicy, Session, Sessions, Shutdown, State};

/// The least time for an attempt to connect, however little of `--wait` is left.
const LEAST_DIAL: Duration = Duration::from_millis(100);

/// A handle on a connection that is made again whenever it is lost. Clones share it; when the last one is
/// dropped, it is closed.
///
/// Each lapin connection is a *generation*. Nothing is carried over from one to the next: what a program
/// needs on the broker it declares in a [session](Connection::session), which runs again in each generation.
#[derive(Clone)]
pub struct Connection {
    link: watch::Receiver<Availability>,
    state: watch::Receiver<State>,
    pub(crate) retry: RetryPolicy,
    pub(crate) shutdown: Shutdown,
    name: Arc<str>,
    _closing: Arc<DropGuard>,
}

#[derive(Clone)]
enum Availability {
    Waiting,
    Up(Arc<Link>),
    Over(Arc<Error>),
}

impl Availability {
    /// The generation, unless it is lost already.
    fn link(&self) -> Option<&Arc<Link>> {
        match self {
            Self::Up(link) if !link.is_lost() => Some(link),
            _ => None,
        }
    }
}

impl Connection {
    /// Connects, and goes on connecting whenever the connection is lost.
    ///
    /// `name` is what the management page shows. A process that publishes and consumes for long opens two
    /// connections, because a broker short of memory stops reading from those that publish.
    ///
    /// # Errors
    /// [`Error::Usage`] before anything connects. [`Error::Closed`] with [`Error::Exhausted`] in it if no
    /// broker answers within `--wait`, with [`Error::Connect`] at once if trying again cannot help.
    /// [`Error::Stopped`] on shutdown.
    pub async fn open(args: &ConnectionArgs, name: &str, shutdown: &Shutdown) -> Result<Self> {
        Self::start(args.endpoint()?, name, args.wait(), args.retry(), shutdown).up().await
    }

    /// Not `async`, so that what it spawns, all of lapin's connection, is compiled here once. The code of an
    /// async function is made where it is awaited: in each program.
    pub(crate) fn start(
        endpoint: Endpoint,
        name: &str,
        wait: Duration,
        retry: RetryPolicy,
        shutdown: &Shutdown,
    ) -> Self {
        let (link, link_seen) = watch::channel(Availability::Waiting);
        let (state, state_seen) = watch::channel(State::Connecting);
        let closing = shutdown.closing();
        let supervisor = Supervisor {
            hosts: endpoint.each().map(Arc::new).collect(),
            turn: 0,
            refusals: 0,
            generation: 0,
            endpoint,
            name: name.into(),
            wait,
            retry,
            link,
            state,
            shutdown: shutdown.clone(),
            closing: closing.clone(),
        };
        let connection = Self {
            link: link_seen,
            state: state_seen,
            retry,
            name: name.into(),
            shutdown: shutdown.clone(),
            _closing: Arc::new(closing.drop_guard()),
        };
        shutdown.connections().spawn(supervisor.run());
        connection
    }

    /// The connection once it is there.
    pub(crate) async fn up(self) -> Result<Self> {
        self.link().await?;
        Ok(self)
    }

    /// Runs `body` on a fresh channel, and again on another one after each loss of the connection, until it
    /// returns `Ok`, or an error that trying again cannot cure.
    ///
    /// The body declares what it needs and then consumes or publishes. It is dropped when its connection
    /// is lost, wherever it stands, so a call that lapin would leave hanging cannot hang.
    ///
    /// # Errors
    /// The body's own error; [`Error::Closed`] once the connection is given up; [`Error::Exhausted`] if
    /// the body fails too often in a row; [`Error::Blocked`] if a step timed out under a resource alarm.
    pub async fn session<T>(&self, mut body: impl AsyncFnMut(Session) -> Result<T>) -> Result<T> {
        let mut sessions = self.sessions();
        loop {
            if let Some(value) = sessions.run(|session| body(session)).await? {
                return Ok(value);
            }
        }
    }

    /// The loop behind [`Connection::session`], one turn at a time. For futures that are spawned: an async
    /// closure that borrows cannot yet be proven `Send`.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(self.clone())
    }

    /// Spawns a task that lapin's thread runs, of whichever generation: what it publishes and what it waits for
    /// needs no other thread to be woken, which is a large part of the time of a single confirmed message or an
    /// RPC. While there is no connection, and on other runtimes than [`runtime`](crate::runtime), it is a task
    /// like any other.
    ///
    /// While it computes, lapin neither reads nor writes. It keeps the connection open.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let (connection, work) = (self.clone(), Movable::new(work));
        tokio::spawn(async move { connection.run(work).await })
    }

    async fn run<T: Send + 'static>(&self, work: Movable<T>) -> T {
        loop {
            let link = tokio::select! {
                biased;
                link = self.link() => link,
                result = work.here() => return result,
            };
            let Ok(link) = link else { return work.here().await };
            if let Some(result) = link.on_io_thread(&work).await {
                return result;
            }
            tokio::select! {
                biased;
                result = work.here() => return result,
                _ = link.lost() => {}
            }
        }
    }

    /// What the connection is doing; changes can be awaited.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The name that it was opened with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The present generation, if there is one.
    pub(crate) fn present_link(&self) -> Option<Arc<Link>> {
        self.link.borrow().link().cloned()
    }

    /// The present generation, once there is one.
    pub(crate) async fn link(&self) -> Result<Arc<Link>> {
        let mut link = self.link.clone();
        loop {
            let available = link.borrow_and_update().clone();
            if let Some(link) = available.link() {
                return Ok(link.clone());
            }
            if let Availability::Over(cause) = available {
                return Err(match &*cause {
                    Error::Stopped => Error::Stopped,
                    _ => Error::Closed(cause),
                });
            }
            tokio::select! {
                changed = link.changed() => if changed.is_err() { return Err(Error::Stopped) },
                () = self.shutdown.requested() => return Err(Error::Stopped),
            }
        }
    }
}

/// Owns the lapin connection: the task behind every [`Connection`].
struct Supervisor {
    endpoint: Endpoint,
    /// The hosts of the endpoint, tried in turn.
    hosts: Vec<Arc<Endpoint>>,
    /// Whose turn it is, or who has it.
    turn: usize,
    /// How many of them in a row said no for good.
    refusals: usize,
    /// The last connection's; 0 before the first.
    generation: u64,
    name: Arc<str>,
    wait: Duration,
    retry: RetryPolicy,
    link: watch::Sender<Availability>,
    state: watch::Sender<State>,
    shutdown: Shutdown,
    closing: CancellationToken,
}

impl Supervisor {
    async fn run(mut self) {
        let closing = self.closing.clone();
        let cause = tokio::select! {
            cause = self.keep_connected() => cause,
            () = closing.cancelled() => Error::Stopped,
        };
        let last = self.link.borrow().clone();
        if let Availability::Up(link) = last {
            link.close().await;
        }
        let cause = Arc::new(cause);
        let given_up = !matches!(*cause, Error::Stopped);
        // The state first, always: whoever acts on the link may look at the state.
        self.announce(State::Closed { cause: given_up.then(|| cause.clone()) });
        self.link.send_replace(Availability::Over(cause));
    }

    /// Dials and watches until there is no point in it any more; why.
    async fn keep_connected(&mut self) -> Error {
        let mut backoff = Backoff::new(self.retry);
        let mut failing_since = Instant::now();
        loop {
            let mut lasted = false;
            let error = match self.dial_next(failing_since).await {
                Ok(link) => {
                    let since = Instant::now();
                    let cause = self.watch(link).await;
                    // Time in which an answer was waited for in vain shows no connection that works.
                    let in_vain =
                        if let Error::Timeout { after, .. } = *cause { after } else { Duration::ZERO };
                    // Only what came after the first connection counts as an attempt to have it back.
                    lasted = self.generation == 1 || since.elapsed() >= STABLE + in_vain;
                    Error::Lost(cause)
                }
                // One node's certificate may have expired; what all of them refuse, they refuse for good.
                Err(error) if self.refusals == self.hosts.len() => return error,
                Err(error) => error,
            };
            self.turn = (self.turn + 1) % self.hosts.len();
            if lasted {
                failing_since = Instant::now();
            }
            let pause = match self.generation {
                // The first connection has a time limit instead of a number of attempts, and tries every host.
                0 => backoff.failed_unless_over(self.turn == 0 && failing_since.elapsed() >= self.wait),
                _ if lasted => Some(backoff.lost()),
                _ => backoff.failed(),
            };
            let Some(next) = pause else {
                return Error::Exhausted {
                    target: self.endpoint.address(),
                    attempts: backoff.failures(),
                    after: failing_since.elapsed(),
                    cause: Box::new(error),
                };
            };
            let attempt = backoff.failures() + 1;
            let of = if self.generation == 0 { 0 } else { self.retry.attempts };
            self.announce(State::Reconnecting { attempt, of, cause: Arc::new(error), next });
            self.link.send_replace(Availability::Waiting);
            tokio::select! {
                () = sleep(next) => {}
                () = self.shutdown.requested() => return Error::Stopped,
            }
        }
    }

    /// Dials the host whose turn it is.
    async fn dial_next(&mut self, failing_since: Instant) -> Result<Arc<Link>> {
        let mut limit = self.endpoint.connect_deadline();
        if self.generation == 0 {
            // What is left is shared out among the hosts whose turn has not come yet.
            let left = self.wait.saturating_sub(failing_since.elapsed());
            limit = limit.min((left / (self.hosts.len() - self.turn) as u32).max(LEAST_DIAL));
        }
        let dialled = dial(&self.hosts[self.turn], &self.name, self.generation + 1, limit).await;
        match &dialled {
            Err(error) if !error.is_transient(false) => self.refusals += 1,
            _ => self.refusals = 0,
        }
        dialled
    }

    /// Lets the connection be used until it is lost; why.
    async fn watch(&mut self, link: Arc<Link>) -> Arc<Error> {
        let generation = link.generation;
        self.generation = generation;
        self.announce(State::Up { generation });
        self.link.send_replace(Availability::Up(link.clone()));
        link.watch(|blocked| self.announce_blocked(generation, blocked)).await
    }

    fn announce_blocked(&self, generation: u64, blocked: Option<String>) {
        self.announce(match blocked {
            Some(reason) => State::Blocked { generation, reason },
            None => State::Up { generation },
        });
    }

    /// Publishes a state and logs it: losses and blocks as warnings, what follows them as information.
    fn announce(&self, state: State) {
        let name = &*self.name;
        match (&*self.state.borrow(), &state) {
            (State::Connecting, State::Up { .. }) => tracing::debug!("{name}: {state} to {}", self.endpoint),
            (State::Connecting, State::Reconnecting { cause, .. }) => {
                tracing::warn!(
                    "{name}: {}; trying for {}",
                    cause.explain(),
                    humantime::format_duration(self.wait)
                );
            }
            (State::Blocked { .. }, State::Up { .. }) => {
                tracing::info!("{name}: the broker takes messages again");
            }
            (_, State::Up { .. }) if self.hosts.len() > 1 => {
                tracing::info!("{name}: {state} to {}", self.hosts[self.turn].address());
            }
            (_, State::Up { .. }) => tracing::info!("{name}: {state}"),
            (State::Reconnecting { .. }, State::Reconnecting { .. }) => tracing::debug!("{name}: {state}"),
            (_, State::Reconnecting { cause, .. }) => match cause.hint() {
                Some(hint) => tracing::warn!("{name}: {state}; {hint}"),
                None => tracing::warn!("{name}: {state}"),
            },
            (_, State::Blocked { .. }) => tracing::warn!("{name}: {state}"),
            _ => tracing::debug!("{name}: {state}"),
        }
        self.state.send_replace(state);
    }
}
