//! The rules of transactions, each tried out on the broker.

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, ErrorKind};
use shared::{Connection, Deadline, Error, Result};

use crate::TrialQueue;
use crate::tx::{self, CommitError};

/// Something that holds, or does not, for channels in transaction mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// A channel in transaction mode cannot be switched to confirms.
    NoConfirmsAfterTx,
    /// Nor the other way round.
    NoTxAfterConfirms,
    /// A commit needs `tx.select` first.
    NoCommitWithoutSelect,
    /// So does a rollback.
    NoRollbackWithoutSelect,
    /// The end of a transaction begins the next.
    OneSelectIsEnough,
    /// Declaring is no part of a transaction.
    DeclareStays,
    /// A rolled-back acknowledgement does not put the message back into its queue.
    RollbackDoesNotRequeue,
    /// A channel that is closed without a commit takes its publishes with it.
    CloseDropsPublishes,
    /// A transaction over two queues can be done in one of them only.
    NotAtomicAcrossQueues,
}

impl Rule {
    /// All rules, in the order in which they make sense.
    pub const ALL: [Self; 9] = [
        Self::NoConfirmsAfterTx,
        Self::NoTxAfterConfirms,
        Self::NoCommitWithoutSelect,
        Self::NoRollbackWithoutSelect,
        Self::OneSelectIsEnough,
        Self::DeclareStays,
        Self::RollbackDoesNotRequeue,
        Self::CloseDropsPublishes,
        Self::NotAtomicAcrossQueues,
    ];

    /// What is tried.
    #[must_use]
    pub fn tries(self) -> &'static str {
        match self {
            Self::NoConfirmsAfterTx => "confirm.select after tx.select",
            Self::NoTxAfterConfirms => "tx.select after confirm.select",
            Self::NoCommitWithoutSelect => "tx.commit without tx.select",
            Self::NoRollbackWithoutSelect => "tx.rollback without tx.select",
            Self::OneSelectIsEnough => "two transactions after one tx.select",
            Self::DeclareStays => "queue.declare in a transaction that is rolled back",
            Self::RollbackDoesNotRequeue => "basic.ack in a transaction that is rolled back",
            Self::CloseDropsPublishes => "basic.publish, then the channel is closed without a commit",
            Self::NotAtomicAcrossQueues => "tx.commit of messages for two queues, one of them full",
        }
    }

    /// Tries it out on queues like `model`, which are deleted afterwards, and says what happened. They
    /// must be classic ones: only those are full at exactly their limit.
    ///
    /// # Errors
    /// [`Error::Own`] if something else happened than the rule says; otherwise as [`Connection::session`].
    pub async fn try_out(self, connection: &Connection, model: &TrialQueue) -> Result<String> {
        let trial = Trial { connection, queue: model.another(), full: model.another().with_limit(Some(1)) };
        let result = self.observe(&trial).await;
        let delete = connection.session(async |session| {
            trial.queue.delete(&session.channel).await?;
            trial.full.delete(&session.channel).await
        });
        let deleted = delete.await;
        let observed = result?;
        deleted?;
        Ok(observed)
    }

    async fn observe(self, trial: &Trial<'_>) -> Result<String> {
        match self {
            Self::NoConfirmsAfterTx => {
                let refused = trial.refused(async |channel| {
                    tx::select(channel).await?;
                    confirm_select(channel).await
                });
                refused.await
            }
            Self::NoTxAfterConfirms => {
                let refused = trial.refused(async |channel| {
                    confirm_select(channel).await?;
                    tx::select(channel).await
                });
                refused.await
            }
            Self::NoCommitWithoutSelect => {
                trial.refused(async |channel| channel.tx_commit().deadline("commit").await).await
            }
            Self::NoRollbackWithoutSelect => {
                trial.refused(async |channel| channel.tx_rollback().deadline("roll back").await).await
            }
            Self::OneSelectIsEnough => trial.one_select_is_enough().await,
            Self::DeclareStays => trial.declare_stays().await,
            Self::RollbackDoesNotRequeue => trial.rollback_does_not_requeue().await,
            Self::CloseDropsPublishes => trial.close_drops_publishes().await,
            Self::NotAtomicAcrossQueues => trial.not_atomic_across_queues().await,
        }
    }
}

/// Where a rule is tried out.
struct Trial<'a> {
    connection: &'a Connection,
    queue: TrialQueue,
    /// Takes one message and refuses the next.
    full: TrialQueue,
}

impl Trial<'_> {
    /// What the broker says to steps that it must refuse. Its refusal closes the channel.
    async fn refused(&self, steps: impl AsyncFn(&Channel) -> Result<()>) -> Result<String> {
        let tried = self.connection.session(async |session| steps(&session.channel).await).await;
        match tried {
            Ok(()) => Err(Error::own("the broker accepted it")),
            Err(Error::Refused { cause, .. }) => Ok(words(&cause)),
            Err(error) => Err(error),
        }
    }

    async fn one_select_is_enough(&self) -> Result<String> {
        let twice = self.connection.session(async |session| {
            let channel = &session.channel;
            renew(&self.queue, channel).await?;
            tx::select(channel).await?;
            for id in ["1", "2"] {
                tx::publish(channel, &self.queue.name, id).await?;
                tx::commit(channel).await.map_err(Error::own)?;
            }
            Ok(())
        });
        twice.await?;
        self.expect(&self.queue, 2).await?;
        Ok("both are done: 2 messages in the queue".to_owned())
    }

    async fn declare_stays(&self) -> Result<String> {
        let declared = self.connection.session(async |session| {
            tx::select(&session.channel).await?;
            self.queue.declare(&session.channel).await?;
            tx::rollback(&session.channel).await
        });
        declared.await?;
        self.expect(&self.queue, 0).await?;
        Ok("the queue is there".to_owned())
    }

    async fn rollback_does_not_requeue(&self) -> Result<String> {
        let prepared = self.connection.session(async |session| {
            renew(&self.queue, &session.channel).await?;
            tx::select(&session.channel).await?;
            tx::publish(&session.channel, &self.queue.name, "1").await?;
            tx::commit(&session.channel).await.map_err(Error::own)
        });
        prepared.await?;
        let taken = self.connection.session(async |session| {
            let channel = &session.channel;
            tx::select(channel).await?;
            let mut consumer = tx::consume(channel, &self.queue.name).await?;
            let Some(delivery) = session.next(&mut consumer).await? else { return Err(Error::Stopped) };
            tx::acknowledge(channel, &delivery).await?;
            tx::rollback(channel).await?;
            self.expect(&self.queue, 0).await?;
            tx::acknowledge(channel, &delivery).await?;
            tx::commit(channel).await.map_err(Error::own)
        });
        taken.await?;
        self.expect(&self.queue, 0).await?;
        Ok("not requeued: its consumer still has the message, acknowledges it again and commits".to_owned())
    }

    async fn close_drops_publishes(&self) -> Result<String> {
        let published = self.connection.session(async |session| {
            renew(&self.queue, &session.channel).await?;
            tx::select(&session.channel).await?;
            tx::publish(&session.channel, &self.queue.name, "1").await
        });
        // The session's end closes its channel.
        published.await?;
        self.expect(&self.queue, 0).await?;
        Ok("the publish is dropped: 0 messages in the queue".to_owned())
    }

    async fn not_atomic_across_queues(&self) -> Result<String> {
        let committed = self.connection.session(async |session| {
            let channel = &session.channel;
            renew(&self.queue, channel).await?;
            renew(&self.full, channel).await?;
            tx::select(channel).await?;
            for (queue, id) in [(&self.queue, "1"), (&self.full, "2"), (&self.full, "3")] {
                tx::publish(channel, &queue.name, id).await?;
            }
            Ok(tx::commit(channel).await)
        });
        let Err(CommitError::Unknown(Error::Refused { cause, .. })) = committed.await? else {
            return Err(Error::own("the broker did not refuse a part of the transaction"));
        };
        self.expect(&self.queue, 1).await?;
        self.expect(&self.full, 1).await?;
        Ok(format!("{}, with a part of it done: 1 message in each queue", words(&cause)))
    }

    /// Looks at a queue from another channel.
    async fn expect(&self, queue: &TrialQueue, messages: u32) -> Result<()> {
        let count = self.connection.session(async |session| queue.count(&session.channel).await).await?;
        if count == messages {
            return Ok(());
        }
        Err(Error::own(format!("{count} messages in the queue instead of {messages}")))
    }
}

/// An empty queue, whatever an attempt that lost its connection has left in it.
async fn renew(queue: &TrialQueue, channel: &Channel) -> Result<()> {
    queue.delete(channel).await?;
    queue.declare(channel).await
}

async fn confirm_select(channel: &Channel) -> Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await
}

/// The broker's own words.
fn words(cause: &lapin::Error) -> String {
    match cause.kind() {
        ErrorKind::ProtocolError(error) => format!("refused: {} {}", error.get_id(), error.get_message()),
        _ => cause.to_string(),
    }
}
