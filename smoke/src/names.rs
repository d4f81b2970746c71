//! The queues and exchanges that this run made, and their end.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use shared::{Connection, Deadline, Error, Result, Shutdown};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::trial::{Run, unwrapped};

/// Names that are looked for at once.
const AT_ONCE: usize = 8;

/// What was made, or was about to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Name {
    Queue(String),
    Exchange(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue {name}"),
            Self::Exchange(name) => write!(f, "exchange {name}"),
        }
    }
}

/// Names in the order of their making.
#[derive(Default)]
pub(crate) struct Names(RefCell<Vec<Name>>);

/// What became of the names.
#[derive(Debug, Default)]
pub(crate) struct Cleanup {
    /// How many there were.
    pub(crate) made: usize,
    /// Those that are still there.
    pub(crate) left: Vec<String>,
    /// Why it is not known what is still there.
    pub(crate) problem: Option<String>,
}

impl Cleanup {
    /// Takes what became of further names in.
    pub(crate) fn add(&mut self, other: Self) {
        self.made += other.made;
        self.left.extend(other.left);
        self.problem = self.problem.take().or(other.problem);
    }
}

impl Names {
    /// Hands all names over to another list.
    pub(crate) fn move_to(&self, other: &Self) {
        other.0.borrow_mut().append(&mut self.0.borrow_mut());
    }

    /// Adds a name.
    pub(crate) fn note(&self, name: Name) {
        self.0.borrow_mut().push(name);
    }
}

/// Deletes whatever is left of these names, on a connection of its own, and looks whether it is gone. They are
/// forgotten once that is known. The connections of their checks must be closed: what is theirs alone nobody else can delete.
pub(crate) async fn clean_up(run: &Rc<Run>, names: &Names, limit: Duration) -> Cleanup {
    let noted = names;
    let mut names = noted.0.borrow().clone();
    names.reverse();
    let made = names.len();
    if made == 0 {
        return Cleanup::default();
    }
    let shutdown = Shutdown::new();
    let result = timeout(limit, delete_and_look(run, &names, limit / 2, &shutdown)).await;
    shutdown.close_connections().await;
    if let Ok(Ok(_)) = result {
        run.guard.forget(&names);
        noted.0.borrow_mut().retain(|name| !names.contains(name));
    }
    match result {
        Ok(Ok(left)) => Cleanup { made, left, problem: None },
        Ok(Err(error)) => Cleanup { made, left: Vec::new(), problem: Some(error.to_string()) },
        Err(_) => {
            let problem = format!("no answer within {}", humantime::format_duration(limit));
            Cleanup { made, left: Vec::new(), problem: Some(problem) }
        }
    }
}

async fn delete_and_look(
    run: &Rc<Run>,
    names: &[Name],
    wait: Duration,
    shutdown: &Shutdown,
) -> Result<Vec<String>> {
    let args = run.args_for(wait.min(run.connect_limit()));
    let connection = Connection::open(&args, "smoke cleanup", shutdown).await.map_err(unwrapped)?;
    delete(&connection, names).await?;
    look(&connection, names).await
}

/// Deletes all, bindings and messages with them. What is gone already is deleted once more, which is no error.
pub(crate) async fn delete(connection: &Connection, names: &[Name]) -> Result<()> {
    let mut rest = names.iter();
    while rest.len() > 0 {
        // A refusal costs the channel; the others are deleted on the next one.
        let mut sessions = connection.sessions();
        let on_one_channel = sessions.run(|session| {
            let rest = &mut rest;
            async move {
                for name in rest {
                    if name.delete(&session.channel).await.is_err() {
                        break;
                    }
                }
                Ok(())
            }
        });
        if on_one_channel.await?.is_none() {
            return Err(Error::own("the connection was lost"));
        }
    }
    Ok(())
}

/// The names that are still there.
async fn look(connection: &Connection, names: &[Name]) -> Result<Vec<String>> {
    let (mut looking, mut left) = (JoinSet::new(), Vec::new());
    for name in names {
        if looking.len() == AT_ONCE {
            take(&mut looking, &mut left).await?;
        }
        looking.spawn_local(name.clone().find(connection.clone()));
    }
    while !looking.is_empty() {
        take(&mut looking, &mut left).await?;
    }
    left.sort();
    Ok(left)
}

async fn take(looking: &mut JoinSet<Result<Option<String>>>, left: &mut Vec<String>) -> Result<()> {
    if let Some(found) = looking.join_next().await {
        left.extend(found.map_err(Error::own)??);
    }
    Ok(())
}

impl Name {
    /// Reads what [`Name`]'s `Display` writes.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("queue", name) => Some(Self::Queue(name.to_owned())),
            ("exchange", name) => Some(Self::Exchange(name.to_owned())),
            _ => None,
        }
    }

    async fn delete(&self, channel: &Channel) -> Result<()> {
        match self {
            Self::Queue(queue) => {
                let deleted = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default());
                deleted.deadline("delete a queue").await.map(drop)
            }
            Self::Exchange(exchange) => {
                let deleted =
                    channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default());
                deleted.deadline("delete an exchange").await
            }
        }
    }

    /// The name, if it is still there.
    async fn find(self, connection: Connection) -> Result<Option<String>> {
        let mut sessions = connection.sessions();
        let look = sessions.run(|session| {
            let name = &self;
            async move {
                match name {
                    Self::Queue(queue) => queue_lifecycle::inspect(&session.channel, queue).await.map(drop),
                    Self::Exchange(exchange) => inspect_exchange(&session.channel, exchange).await,
                }
            }
        });
        let found = look.await.map_err(unwrapped);
        let (Self::Queue(name) | Self::Exchange(name)) = self;
        match found {
            Err(error) if error.code() == Some(404) => Ok(None),
            // Another connection's own: there all the same.
            Err(error) if error.code() == Some(405) => Ok(Some(name)),
            Err(error) => Err(error),
            Ok(Some(())) => Ok(Some(name)),
            Ok(None) => Err(Error::own("the connection was lost")),
        }
    }
}

async fn inspect_exchange(channel: &Channel, exchange: &str) -> Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, FieldTable::default());
    declared.deadline("look for an exchange").await
}
