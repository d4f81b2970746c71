//! The same messages with five guarantees: what each costs, and what it is worth.

use std::num::NonZero;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use shared::{CALL_DEADLINE, Connection, Deadline, Error, Message, Outcome, Publisher, Result, Session};
use tokio::time::timeout;

use crate::{Arrivals, Fate, Ledger, TrialQueue, arrivals, tx};

/// How a publisher makes sure, or not, that the broker has its messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guarantee {
    /// It does not ask.
    None,
    /// A transaction for each message.
    TxEach,
    /// A transaction for each batch of so many.
    TxBatch(NonZero<usize>),
    /// It waits for the confirm of each message before the next.
    ConfirmEach,
    /// It lets so many messages run ahead of their confirms.
    ConfirmWindow(NonZero<usize>),
}

/// What one way of publishing has shown.
#[derive(Debug)]
pub struct Measured {
    /// From the first publish to the last answer of the broker.
    pub time: Duration,
    /// What arrived in the queue.
    pub arrivals: Arrivals,
}

impl Guarantee {
    /// A short name for a table.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::None => "no guarantee".to_owned(),
            Self::TxEach => "transaction per message".to_owned(),
            Self::TxBatch(size) => format!("transaction per {size}"),
            Self::ConfirmEach => "confirm each".to_owned(),
            Self::ConfirmWindow(size) => format!("confirms, {size} in flight"),
        }
    }

    /// What the publisher knows once it is through.
    #[must_use]
    pub fn promises(self) -> &'static str {
        match self {
            Self::None => "nothing: a publish is over when it is written to the socket",
            Self::TxEach => "after commit-ok the broker has taken responsibility for the message",
            Self::TxBatch(_) => {
                "the same for the batch, and nobody sees any of it before the commit; acknowledgements can be \
                 in it too"
            }
            Self::ConfirmEach => "after its confirm the broker has taken responsibility for the message",
            Self::ConfirmWindow(_) => "the same, message by message, without waiting for each",
        }
    }

    /// What it must not believe all the same.
    #[must_use]
    pub fn does_not(self) -> &'static str {
        match self {
            Self::None => {
                "say so when the queue is missing or full, the connection dies or the broker is killed: the \
                 messages are gone"
            }
            Self::TxEach => "tell of a missing queue, nor whether a commit was done when the connection dies",
            Self::TxBatch(_) => {
                "hold across queues: when one of them refuses, or the broker dies in the commit, a part may \
                 be done"
            }
            Self::ConfirmEach => {
                "reach the consumer; a missing queue is confirmed too, and shows only as a return of a \
                 mandatory message"
            }
            Self::ConfirmWindow(_) => {
                "keep the window together: when the connection dies, any part of it may have arrived"
            }
        }
    }

    /// A publisher for [`Guarantee::publish`].
    #[must_use]
    pub fn publisher(self, connection: &Connection) -> Publisher {
        let publisher = Publisher::new(connection, 1);
        match self {
            Self::ConfirmWindow(size) => publisher.with_window(size.get()),
            _ => publisher,
        }
    }

    /// Publishes messages with this guarantee: what the publisher knows of each, or nothing at all where it
    /// does not ask. The benchmark of this workspace (`tools/bench`) measures this very function.
    ///
    /// # Errors
    /// Why a message was not sent, or nothing is known about it: mostly because the connection was lost.
    pub async fn publish(
        self,
        session: &Session,
        publisher: &Publisher,
        messages: &[Message<'_>],
    ) -> Result<Vec<Outcome>> {
        let outcomes = match self {
            Self::None => publisher.publish_unconfirmed(messages).await.map(|()| Vec::new())?,
            Self::TxEach => in_transactions(session, messages, 1).await?,
            Self::TxBatch(size) => in_transactions(session, messages, size.get()).await?,
            Self::ConfirmEach => {
                let mut outcomes = Vec::with_capacity(messages.len());
                for message in messages {
                    outcomes.push(publisher.publish(message).await);
                }
                outcomes
            }
            Self::ConfirmWindow(_) => publisher.publish_batch(messages).await,
        };
        let known = |outcome| match outcome {
            Outcome::NotSent(error) | Outcome::Unknown(error) => Err(error),
            outcome => Ok(outcome),
        };
        outcomes.into_iter().map(known).collect()
    }

    /// Publishes so many persistent messages with this guarantee to another queue like `model`, takes the
    /// time, and consumes them. A connection that is lost on the way makes it start afresh.
    ///
    /// # Errors
    /// As [`Connection::session`]; [`crate::Mismatch`] if a message was lost or doubled.
    pub async fn measure(
        self,
        connection: &Connection,
        model: &TrialQueue,
        messages: usize,
    ) -> Result<Measured> {
        let trial = Trial { guarantee: self, connection: connection.clone(), model: model.clone(), messages };
        // Where each confirm is waited for, a task of the connection saves two wake-ups for each.
        let (queue, ledger, time) = connection.spawn(trial.run()).await.map_err(Error::own)??;
        let arrivals = arrivals::collect(connection, &queue).await;
        let deleted = connection.session(async |session| queue.delete(&session.channel).await).await;
        let arrivals = arrivals?;
        ledger.compare(&arrivals).map_err(Error::own)?;
        deleted?;
        Ok(Measured { time, arrivals })
    }

    /// Publishes all of a ledger's messages, and writes down what is known of them; how long it took.
    async fn fill(
        self,
        session: &Session,
        publisher: &Publisher,
        queue: &TrialQueue,
        ledger: &mut Ledger,
    ) -> Result<Duration> {
        let numbers: Vec<_> = std::iter::from_fn(|| ledger.send_next()).collect();
        let ids: Vec<_> = numbers.iter().map(|number| ledger.id(*number)).collect();
        let messages: Vec<_> = ids.iter().map(|id| message(&queue.name, id)).collect();
        let start = Instant::now();
        let outcomes = tokio::select! {
            outcomes = self.publish(session, publisher, &messages) => outcomes?,
            () = session.shutdown().requested() => return Err(Error::Stopped),
        };
        if outcomes.is_empty() {
            arrived(session, queue, messages.len()).await?;
        }
        let time = start.elapsed();
        for (number, outcome) in numbers.into_iter().zip(&outcomes) {
            ledger.settle(number, fate(outcome));
        }
        Ok(time)
    }
}

/// One way of publishing, tried.
struct Trial {
    guarantee: Guarantee,
    connection: Connection,
    model: TrialQueue,
    messages: usize,
}

impl Trial {
    /// Publishes to a queue: which, what is known of the messages, and how long it took.
    async fn run(self) -> Result<(TrialQueue, Ledger, Duration)> {
        let publisher = self.guarantee.publisher(&self.connection);
        let mut abandoned = Vec::new();
        let mut sessions = self.connection.sessions();
        loop {
            let attempt = sessions.run(|session| self.attempt(session, &publisher, &mut abandoned));
            if let Some(done) = attempt.await? {
                return Ok(done);
            }
        }
    }

    async fn attempt(
        &self,
        session: Session,
        publisher: &Publisher,
        abandoned: &mut Vec<TrialQueue>,
    ) -> Result<(TrialQueue, Ledger, Duration)> {
        for queue in &*abandoned {
            queue.delete(&session.channel).await?;
        }
        // A new queue, because what a lost connection carried may still come to the old one.
        let queue = self.model.another();
        abandoned.push(queue.clone());
        queue.declare(&session.channel).await?;
        let mut ledger = Ledger::new(self.messages);
        let time = self.guarantee.fill(&session, publisher, &queue, &mut ledger).await?;
        Ok((queue, ledger, time))
    }
}

/// A persistent message whose body is its id, and which comes back if there is no such queue.
fn message<'m>(queue: &'m str, id: &'m str) -> Message<'m> {
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_delivery_mode(tx::PERSISTENT)
        .with_message_id(id.into());
    Message { exchange: "", routing_key: queue, mandatory: true, properties, body: id.as_bytes() }
}

fn fate(outcome: &Outcome) -> Fate {
    match outcome {
        Outcome::Confirmed => Fate::Confirmed,
        Outcome::Returned { .. } => Fate::Returned,
        Outcome::Nacked => Fate::Nacked,
        Outcome::NotSent(_) | Outcome::Unknown(_) => Fate::Unknown,
    }
}

/// Waits until so many messages are in the queue, so that the time is the broker's and not the socket's.
/// Where some never come, the comparison with what arrived says so.
async fn arrived(session: &Session, queue: &TrialQueue, messages: usize) -> Result<()> {
    let all = async {
        // No message can be more than u32 counts.
        while (queue.count(&session.channel).await? as usize) < messages {}
        Ok(())
    };
    timeout(CALL_DEADLINE, all).await.unwrap_or(Ok(()))
}

async fn in_transactions(session: &Session, messages: &[Message<'_>], size: usize) -> Result<Vec<Outcome>> {
    let channel = &session.channel;
    tx::select(channel).await?;
    for batch in messages.chunks(size) {
        for message in batch {
            let (exchange, key) = (message.exchange.into(), message.routing_key.into());
            let options = BasicPublishOptions::default();
            let published =
                channel.basic_publish(exchange, key, options, message.body, message.properties.clone());
            published.deadline("publish a message").await?;
        }
        // Where the outcome matters it is `tx::commit`; here a loss starts the trial afresh.
        channel.tx_commit().deadline("commit the transaction").await?;
    }
    Ok(messages.iter().map(|_| Outcome::Confirmed).collect())
}
