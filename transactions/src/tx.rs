//! Transactions: publishes and acknowledgements that take effect together, or not at all.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer, ErrorKind};
use shared::{Connection, Deadline, Error, Result, Session};
use tokio::time::sleep;

/// `delivery_mode` of a message that a durable queue keeps on disk.
pub(crate) const PERSISTENT: u8 = 2;

/// A lost connection is noticed within this time.
const NOTICED: Duration = Duration::from_secs(1);

/// Why a transaction is not known to be done.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It did not get to its commit, or the broker refused something in it.
    #[error("nothing of the transaction is done")]
    NotDone(#[source] Error),
    /// The answer to the commit did not come, or says that a part is done. Doing it again may do it twice.
    #[error(
        "the outcome of the commit is unknown: wholly, in part or not at all; \
         look for its messages by their message_id before doing it again"
    )]
    Unknown(#[source] Error),
}

impl CommitError {
    /// Tells from the commit's error whether the transaction can have been done.
    fn from_error(error: Error) -> Self {
        let Error::Refused { cause, .. } = &error else {
            return Self::Unknown(error);
        };
        let not_done = match cause.kind() {
            // lapin did not send the commit, because the broker has closed the channel before.
            ErrorKind::InvalidChannelState(_, "tx.commit") => true,
            // The broker reads a channel's methods in order and closes it at the first that it refuses:
            // what closed it came before the commit. Two things can come after: one queue refused its
            // message while others took theirs, or time ran out while the queues were still writing.
            ErrorKind::ProtocolError(refusal) => {
                let words = refusal.get_message().as_str();
                let afterwards = ["partial tx completion", "delivery acknowledgement"];
                cause.is_amqp_soft_error() && !afterwards.iter().any(|late| words.contains(late))
            }
            _ => false,
        };
        if not_done { Self::NotDone(error) } else { Self::Unknown(error) }
    }
}

/// Takes some steps in a transaction and commits it.
///
/// When the connection is lost before the commit, the broker forgets the transaction, and all of it is
/// done again on the next connection. Once the commit is under way it is never done again: it might be
/// done twice.
///
/// # Errors
/// See [`CommitError`].
pub async fn commit_all(
    connection: &Connection,
    mut steps: impl AsyncFnMut(&Session) -> Result<()>,
) -> Result<(), CommitError> {
    let mut sessions = connection.sessions();
    let mut committing = false;
    loop {
        let attempt = sessions.run(|session| attempt(session, &mut steps, &mut committing)).await;
        match attempt.map_err(CommitError::NotDone)? {
            Some(committed) => return committed,
            None if committing => return Err(CommitError::Unknown(Error::own("the connection was lost"))),
            None => {}
        }
    }
}

async fn attempt(
    session: Session,
    steps: &mut impl AsyncFnMut(&Session) -> Result<()>,
    committing: &mut bool,
) -> Result<Result<(), CommitError>> {
    select(&session.channel).await?;
    steps(&session).await?;
    if !session.channel.status().connected() {
        // If the connection is lost too, this ends here, and all of it is done again on the next one.
        sleep(NOTICED).await;
    }
    *committing = true;
    Ok(commit(&session.channel).await)
}

/// Puts a channel into transaction mode, where it stays until it is closed. Its first transaction begins
/// here, each further one at the end of the one before.
///
/// # Errors
/// [`Error::Refused`] with 406 on a channel that is in confirm mode.
pub async fn select(channel: &Channel) -> Result<()> {
    channel.tx_select().deadline("switch on transactions").await
}

/// Publishes a message in the transaction: nobody sees it before the commit.
///
/// What becomes of a mandatory message in a transaction is undefined in AMQP, so this one is not.
///
/// # Errors
/// [`Error::Refused`] or [`Error::Timeout`] if it cannot be written to the connection.
pub async fn publish(channel: &Channel, queue: &str, message_id: &str) -> Result<()> {
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.into());
    let options = BasicPublishOptions::default();
    let published =
        channel.basic_publish("".into(), queue.into(), options, message_id.as_bytes(), properties);
    // Without confirm mode there is no confirm to wait for.
    published.deadline("publish a message").await.map(drop)
}

/// Starts a consumer that gets one message at a time and acknowledges it itself.
///
/// Consuming is no part of a transaction: what was delivered stays delivered when it is rolled back.
///
/// # Errors
/// [`Error::Refused`] with the broker's reason.
pub async fn consume(channel: &Channel, queue: &str) -> Result<Consumer> {
    channel.basic_qos(1, BasicQosOptions::default()).deadline("set QoS").await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    consumer.deadline("register a consumer").await
}

/// Acknowledges a delivery in the transaction: the broker keeps the message until the commit.
///
/// # Errors
/// [`Error::Refused`] or [`Error::Timeout`] if it cannot be written to the connection.
pub async fn acknowledge(channel: &Channel, delivery: &Delivery) -> Result<()> {
    let acknowledged = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
    acknowledged.deadline("acknowledge a message").await
}

/// Commits the transaction and begins the next. `Ok` means that the broker has taken responsibility: each
/// message is in its queues, on disk where both are durable, and the acknowledged deliveries are forgotten.
///
/// # Errors
/// See [`CommitError`]; on a lost connection the outcome is unknown.
pub async fn commit(channel: &Channel) -> Result<(), CommitError> {
    channel.tx_commit().deadline("commit the transaction").await.map_err(CommitError::from_error)
}

/// Takes back the publishes and acknowledgements of the transaction and begins the next. The deliveries
/// stay with this channel and can be acknowledged again.
///
/// # Errors
/// [`Error::Refused`] with 406 on a channel that is not in transaction mode.
pub async fn rollback(channel: &Channel) -> Result<()> {
    channel.tx_rollback().deadline("roll the transaction back").await
}
