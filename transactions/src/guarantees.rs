//! The same messages with five guarantees: what each costs, and what it is worth.

use std::num::NonZero;
use std::time::{Duration, Instant};

use shared::{Connection, Deadline, Error, Result, Session};

use crate::confirms::{self, Plan, Strategy};
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
            Self::ConfirmWindow(size) => format!("confirms, window of {size}"),
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
        let mut abandoned: Vec<TrialQueue> = Vec::new();
        let publish = connection.session(async |session| {
            for queue in &abandoned {
                queue.delete(&session.channel).await?;
            }
            // A new queue, because what a lost connection carried may still come to the old one.
            let queue = model.another();
            abandoned.push(queue.clone());
            queue.declare(&session.channel).await?;
            let mut ledger = Ledger::new(messages);
            let start = Instant::now();
            self.publish(&session, &queue, &mut ledger).await?;
            let time = start.elapsed();
            if ledger.sent() < messages { Err(Error::Stopped) } else { Ok((queue, ledger, time)) }
        });
        let (queue, ledger, time) = publish.await?;
        let arrivals = arrivals::collect(connection, &queue).await?;
        connection.session(async |session| queue.delete(&session.channel).await).await?;
        ledger.compare(&arrivals).map_err(Error::own)?;
        Ok(Measured { time, arrivals })
    }

    async fn publish(self, session: &Session, queue: &TrialQueue, ledger: &mut Ledger) -> Result<()> {
        let strategy = match self {
            Self::None => return publish_blindly(session, queue, ledger).await,
            Self::TxEach => return publish_in_transactions(session, queue, ledger, 1).await,
            Self::TxBatch(size) => return publish_in_transactions(session, queue, ledger, size.get()).await,
            Self::ConfirmEach => Strategy::Each,
            Self::ConfirmWindow(size) => Strategy::Windowed(size),
        };
        let plan = Plan { queue: queue.name.clone(), unroutable_every: None, strategy };
        confirms::publish_all(session, &plan, ledger).await
    }
}

async fn publish_blindly(session: &Session, queue: &TrialQueue, ledger: &mut Ledger) -> Result<()> {
    while let Some(number) = next(session, ledger) {
        // The same publish as in a transaction, on a channel that is in neither mode.
        tx::publish(&session.channel, &queue.name, &ledger.id(number)).await?;
    }
    // The broker reads a channel in order: its answer comes when it has read all messages, so that the
    // time is the broker's and not the socket's.
    queue.count(&session.channel).await.map(drop)
}

async fn publish_in_transactions(
    session: &Session,
    queue: &TrialQueue,
    ledger: &mut Ledger,
    size: usize,
) -> Result<()> {
    let channel = &session.channel;
    tx::select(channel).await?;
    loop {
        let mut batch = Vec::with_capacity(size);
        while batch.len() < size
            && let Some(number) = next(session, ledger)
        {
            tx::publish(channel, &queue.name, &ledger.id(number)).await?;
            batch.push(number);
        }
        if batch.is_empty() {
            return Ok(());
        }
        // Where the outcome matters it is `tx::commit`; here a loss starts the trial afresh.
        channel.tx_commit().deadline("commit the transaction").await?;
        for number in batch {
            ledger.settle(number, Fate::Confirmed);
        }
    }
}

fn next(session: &Session, ledger: &mut Ledger) -> Option<usize> {
    if session.shutdown().is_requested() { None } else { ledger.send_next() }
}
