//! What a check works with: names of its own, connections of its own, and a note of what it is doing.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use queue_lifecycle::Arguments;
use shared::{
    Connection, ConnectionArgs, Endpoint, Error, Result, RetryPolicy, Session, Shutdown, State, message_id,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::check::Stop;
use crate::guard::Guard;
use crate::names::{Cleanup, Name, Names};
use crate::start_frame::Broker;

/// What all checks of a run have in common.
pub(crate) struct Run {
    /// Where the broker is and how patiently to reach it.
    pub(crate) args: ConnectionArgs,
    /// The same, taken apart.
    pub(crate) endpoint: Endpoint,
    /// The random part of all names.
    pub(crate) id: String,
    /// All queues and exchanges that were made and are still to be looked for.
    pub(crate) names: Names,
    /// What became of those that were looked for already.
    pub(crate) cleaned: RefCell<Cleanup>,
    /// Deletes what would stay if this process were killed.
    pub(crate) guard: Guard,
    /// How long the broker keeps a durable queue that nobody deleted.
    pub(crate) expires: Duration,
    /// How long one check may take.
    pub(crate) timeout: Duration,
    /// How long a check may take before it counts as slow.
    pub(crate) slow: Duration,
    /// Until when the broker may still be starting.
    pub(crate) patience: Instant,
    /// What the broker says about itself, once it was asked.
    pub(crate) broker: RefCell<Option<Broker>>,
}

impl Run {
    /// The time that is left for a broker that is still starting.
    pub(crate) fn wait_left(&self) -> Duration {
        self.patience.saturating_duration_since(Instant::now())
    }

    /// The connection options of one attempt: a check that loses its connection has failed.
    pub(crate) fn args_for(&self, wait: Duration) -> ConnectionArgs {
        self.args.clone().with_wait(wait).with_retry(RetryPolicy { attempts: 1, ..RetryPolicy::default() })
    }

    /// How long an attempt to connect may take: less than a check, which has to tell about it.
    pub(crate) fn connect_limit(&self) -> Duration {
        self.timeout / 2
    }
}

/// A random word for the names of one run.
pub(crate) fn random_word() -> String {
    let mut word = message_id().to_lowercase();
    word.truncate(8);
    word
}

impl Drop for Inner {
    /// What nobody has looked for yet is left to the end of the run, however this attempt ended.
    fn drop(&mut self) {
        self.names.move_to(&self.run.names);
    }
}

/// One attempt at a check. Clones are the same.
#[derive(Clone)]
pub(crate) struct Trial(Rc<Inner>);

struct Inner {
    run: Rc<Run>,
    /// What its names begin with, before the user's prefix is put in front.
    stem: String,
    shutdown: Shutdown,
    names: Names,
    step: RefCell<String>,
    states: RefCell<Vec<watch::Receiver<State>>>,
}

impl Trial {
    /// The `round`th attempt at a check, counted from 0.
    pub(crate) fn new(run: &Rc<Run>, check: &str, round: usize) -> Self {
        let stem = match round {
            0 => format!("smoke.{}.{check}", run.id),
            _ => format!("smoke.{}.{check}-{round}", run.id),
        };
        Self(Rc::new(Inner {
            run: run.clone(),
            stem,
            shutdown: Shutdown::new(),
            names: Names::default(),
            step: RefCell::new("begin".to_owned()),
            states: RefCell::default(),
        }))
    }

    /// What all checks of this run have in common.
    pub(crate) fn run(&self) -> &Rc<Run> {
        &self.0.run
    }

    /// The queues and exchanges that it made.
    pub(crate) fn names(&self) -> &Names {
        &self.0.names
    }

    /// Notes what comes next, as the words after "to"; a check that takes too long is asked for it.
    pub(crate) fn step(&self, step: impl Into<String>) {
        *self.0.step.borrow_mut() = step.into();
    }

    /// What it is doing.
    pub(crate) fn current_step(&self) -> String {
        self.0.step.borrow().clone()
    }

    /// A queue's name, noted for the end, when it is deleted if it is still there.
    ///
    /// # Errors
    /// [`Error::Usage`] if the user's prefix is too long.
    pub(crate) fn queue(&self, what: &str) -> Result<String> {
        let name = self.name(what)?;
        self.0.names.note(Name::Queue(name.clone()));
        Ok(name)
    }

    /// An exchange's name, noted like that of a queue.
    ///
    /// # Errors
    /// [`Error::Usage`] if the user's prefix is too long.
    pub(crate) fn exchange(&self, what: &str) -> Result<String> {
        let name = self.name(what)?;
        let noted = Name::Exchange(name.clone());
        // Without a guard an exchange stays only if this process is killed before it is bound: no reason to stop.
        let _ = self.0.run.guard.over(&noted);
        self.0.names.note(noted);
        Ok(name)
    }

    /// A name for something that is never made.
    ///
    /// # Errors
    /// [`Error::Usage`] if the user's prefix is too long.
    pub(crate) fn name(&self, what: &str) -> Result<String> {
        self.0.run.args.name(&format!("{}.{what}", self.0.stem))
    }

    /// A text that no other message has. Without dots, each of which would be a second of a worker's work.
    pub(crate) fn payload(&self, what: &str) -> String {
        format!("{}: {what} {}", self.0.stem, random_word()).replace('.', " ")
    }

    /// The arguments of a queue that outlives its connection: it goes by itself when nobody uses it.
    pub(crate) fn expiring(&self) -> Arguments {
        Arguments::default().expires(self.0.run.expires)
    }

    /// A connection of this attempt's own, which ends with it.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(crate) async fn connect(&self) -> Result<Connection> {
        self.connect_with(&self.0.run.args_for(self.0.run.connect_limit())).await
    }

    /// The same with other options.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(crate) async fn connect_with(&self, args: &ConnectionArgs) -> Result<Connection> {
        self.step("connect");
        let connection = Connection::open(args, &self.0.stem, &self.0.shutdown).await.map_err(unwrapped)?;
        self.0.states.borrow_mut().push(connection.state());
        Ok(connection)
    }

    /// Does something on a fresh channel, once.
    ///
    /// # Errors
    /// The body's own error, or [`Error::Lost`].
    pub(crate) async fn on<T>(
        &self,
        connection: &Connection,
        body: impl AsyncFnOnce(Session) -> Result<T>,
    ) -> Result<T> {
        match connection.sessions().run(|session| body(session)).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(why_lost(connection)),
            Err(error) => Err(unwrapped(error)),
        }
    }

    /// The same on a connection of its own: for what needs one channel alone, or may cost a connection.
    ///
    /// # Errors
    /// As [`Trial::connect`] and [`Trial::on`].
    pub(crate) async fn alone<T>(&self, body: impl AsyncFnOnce(Session) -> Result<T>) -> Result<T> {
        let connection = self.connect().await?;
        self.on(&connection, body).await
    }

    /// The reason for which the broker blocks one of the connections, if it does.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.0.states.borrow().iter().find_map(|state| match &*state.borrow() {
            State::Blocked { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    }

    /// Closes its connections, and with them all queues that were theirs alone.
    pub(crate) async fn close(&self) {
        self.0.shutdown.close_connections().await;
    }
}

/// Turns a broker's refusal into the finding that it does not have the feature.
///
/// For the one step that asks for the feature: elsewhere the same words are a failure.
pub(crate) fn feature<T>(asked: Result<T>) -> Result<T> {
    match asked {
        Err(error) if is_refused_feature(&error) => Err(Stop::Unsupported(error.explain()).into()),
        other => other,
    }
}

fn is_refused_feature(error: &Error) -> bool {
    let text = error.to_string().to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match error.code() {
        // Not implemented; and, before RabbitMQ 3.13, an exchange type that is not there.
        Some(540 | 503) => true,
        Some(541) => says(&["deprecated", "not permitted"]),
        Some(406) => says(&[
            "invalid arg",
            "invalid property",
            "invalid exchange type",
            "unsupported",
            "not supported",
            "unknown",
            "deprecated",
        ]),
        _ => false,
    }
}

/// The failure itself, without the words that an attempt was the last.
pub(crate) fn unwrapped(error: Error) -> Error {
    match error {
        Error::Exhausted { cause, .. } => unwrapped(*cause),
        other => other,
    }
}

fn why_lost(connection: &Connection) -> Error {
    match &*connection.state().borrow() {
        State::Reconnecting { cause, .. } | State::Closed { cause: Some(cause) } => {
            Error::Lost(innermost(cause))
        }
        _ => Error::own("the connection was lost"),
    }
}

fn innermost(error: &std::sync::Arc<Error>) -> std::sync::Arc<Error> {
    match &**error {
        Error::Lost(cause) | Error::Closed(cause) => innermost(cause),
        Error::Exhausted { cause, .. } => match &**cause {
            Error::Lost(cause) | Error::Closed(cause) => innermost(cause),
            _ => error.clone(),
        },
        _ => error.clone(),
    }
}
