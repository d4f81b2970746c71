//! Publishing that tells what became of each message.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::link::Link;
use crate::{CALL_DEADLINE, Connection, Deadline, Error, Result, State};

/// The pause before another try to reserve a channel, when the connection is up but gave none.
const RESERVE_PAUSE: Duration = Duration::from_millis(50);

/// How long a refusal may be on its way.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// A message on its way to an exchange.
#[derive(Clone, Debug)]
pub struct Message<'m> {
    /// The exchange; empty for the default one, whose routing keys are queue names.
    pub exchange: &'m str,
    /// What the exchange routes by. At most 255 bytes.
    pub routing_key: &'m str,
    /// Whether a message without a queue to go to comes back, as [`Outcome::Returned`], or is dropped.
    pub mandatory: bool,
    /// Content type, delivery mode, ids and so on.
    pub properties: BasicProperties,
    /// The payload, which the broker never looks at.
    pub body: &'m [u8],
}

/// What became of a message.
#[derive(Debug)]
pub enum Outcome {
    /// The broker has dealt with it: every queue that it was routed to has it, on disk where message and
    /// queue are durable. A message that is not mandatory may have been routed to none.
    Confirmed,
    /// It was mandatory and no queue wanted it.
    Returned {
        /// AMQP's reply code, 312 for no route.
        code: u16,
        /// The broker's words.
        text: String,
    },
    /// The broker could not take it, for instance because a queue is full.
    Nacked,
    /// It never left, or the broker refused it: sending it again cannot make two of it.
    NotSent(Error),
    /// It left, and the answer did not come: it may or may not have arrived.
    Unknown(Error),
}

/// Publishes confirmed messages on reserved channels of a [`Connection`], whichever generation it is in.
///
/// One message at a time is in flight on each channel, which makes the outcome of each exact: lapin hands
/// a returned message to whichever confirm comes next. Keep one publisher and share it.
pub struct Publisher {
    connection: Connection,
    deadline: Duration,
    places: Semaphore,
    idle: Mutex<Vec<Arc<Reserved>>>,
}

/// A channel in confirm mode and the connection it belongs to.
struct Reserved {
    link: Arc<Link>,
    channel: Channel,
}

impl Publisher {
    /// At most `channels` messages are in flight at once; further ones wait their turn. At least 1.
    #[must_use]
    pub fn new(connection: &Connection, channels: usize) -> Self {
        Self {
            connection: connection.clone(),
            deadline: CALL_DEADLINE,
            places: Semaphore::new(channels.max(1)),
            idle: Mutex::default(),
        }
    }

    /// The same publisher with another limit for each message than [`CALL_DEADLINE`].
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Publishes a message and waits for what becomes of it, up to the deadline. While there is no
    /// connection, or the broker blocks publishing, that time is spent waiting for it.
    ///
    /// Dropping the future leaves the outcome unknown and costs the channel. Needs a tokio runtime.
    pub async fn publish(&self, message: &Message<'_>) -> Outcome {
        let end = Instant::now() + self.deadline;
        // The semaphore is never closed, so an error is a timeout.
        let Ok(Ok(_place)) = timeout_at(end, self.places.acquire()).await else {
            return Outcome::NotSent(self.late("reserve a channel"));
        };
        let reserved = match timeout_at(end, self.reserve()).await {
            Ok(Ok(reserved)) => reserved,
            Ok(Err(error)) => return Outcome::NotSent(error),
            Err(_) => return Outcome::NotSent(self.late("reserve a channel")),
        };
        let in_doubt = InDoubt(Some(reserved.clone()));
        let outcome = tokio::select! {
            biased;
            outcome = timeout_at(end, reserved.publish(message)) => {
                outcome.unwrap_or_else(|_| Outcome::Unknown(self.late("get the broker's confirm")))
            }
            cause = reserved.link.lost() => Outcome::Unknown(Error::Lost(cause)),
        };
        match &outcome {
            Outcome::Confirmed | Outcome::Returned { .. } | Outcome::Nacked => {
                in_doubt.settled();
                self.idle().push(reserved);
            }
            // A channel in any other state is not used again.
            Outcome::NotSent(_) | Outcome::Unknown(_) => reserved.link.suspect(),
        }
        outcome
    }

    /// An idle channel of the present generation, or a new one.
    async fn reserve(&self) -> Result<Arc<Reserved>> {
        loop {
            let link = self.connection.link().await?;
            link.unblocked().await;
            if let Some(reserved) = self.take_idle(&link) {
                return Ok(reserved);
            }
            match Reserved::open(link).await {
                Err(error) if error.is_transient(true) => sleep(RESERVE_PAUSE).await,
                reserved => return reserved.map(Arc::new),
            }
        }
    }

    fn take_idle(&self, link: &Link) -> Option<Arc<Reserved>> {
        let mut idle = self.idle();
        idle.retain(|reserved| {
            reserved.link.generation == link.generation && reserved.channel.status().connected()
        });
        idle.pop()
    }

    /// Why `step` took too long, as far as the connection's state tells.
    fn late(&self, step: &'static str) -> Error {
        match &*self.connection.state().borrow() {
            State::Blocked { reason, .. } => Error::Blocked { reason: reason.clone(), after: self.deadline },
            State::Reconnecting { cause, .. } => match &**cause {
                Error::Lost(cause) => Error::Lost(cause.clone()),
                _ => Error::Lost(cause.clone()),
            },
            _ => Error::Timeout { step, after: self.deadline },
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Arc<Reserved>>> {
        // A panic elsewhere cannot leave a list of channels half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved {
    async fn open(link: Arc<Link>) -> Result<Self> {
        let channel = link.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        link.unless_lost(confirms.deadline("switch on publisher confirms")).await?;
        Ok(Self { link, channel })
    }

    async fn publish(&self, message: &Message<'_>) -> Outcome {
        let Message { exchange, routing_key, mandatory, properties, body } = message.clone();
        let (Ok(exchange), Ok(routing_key)) =
            (ShortString::try_new(exchange), ShortString::try_new(routing_key))
        else {
            return Outcome::NotSent(Error::usage(
                "AMQP has no room for an exchange or routing key over 255 bytes",
            ));
        };
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        let written = self.channel.basic_publish(exchange, routing_key, options, body, properties).await;
        let confirmation = match written {
            Ok(confirm) => confirm.await,
            // Found closed before anything was written.
            Err(cause) if is_closed(&cause) => {
                return Outcome::NotSent(Error::Refused { step: "publish a message", cause });
            }
            Err(cause) => Err(cause),
        };
        match confirmation {
            Ok(Confirmation::Ack(Some(returned))) => {
                Outcome::Returned { code: returned.reply_code, text: returned.reply_text.to_string() }
            }
            Ok(Confirmation::Ack(None)) => Outcome::Confirmed,
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => Outcome::Nacked,
            // The only message in flight on this channel is the one that the broker refused.
            Err(cause) if cause.is_amqp_soft_error() => {
                Outcome::NotSent(Error::Refused { step: "publish a message", cause })
            }
            Err(cause) => Outcome::Unknown(Error::Refused { step: "get a confirm", cause }),
        }
    }
}

fn is_closed(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_))
}

/// A channel whose message has no known outcome. Dropping it leaves the channel open for a moment more.
///
/// The broker may be about to refuse the message. lapin takes a channel that is closed before it has seen
/// that refusal for a broken connection.
struct InDoubt(Option<Arc<Reserved>>);

impl InDoubt {
    fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for InDoubt {
    fn drop(&mut self) {
        if let (Some(reserved), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                tokio::select! {
                    () = sleep(REFUSAL_TIME) => {}
                    _ = reserved.link.lost() => {}
                }
            });
        }
    }
}

/// Reads a confirm: `Ok` only if the broker has taken the message and, if it was mandatory, routed it.
///
/// For a single publish in flight on its channel; see [`Publisher`].
///
/// # Errors
/// [`Error::Returned`] or [`Error::Nacked`].
pub fn confirmed(confirmation: Confirmation) -> Result<()> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) => Err(returned.into()),
        Confirmation::Nack(_) => Err(Error::Nacked),
        Confirmation::NotRequested => Err(Error::own("the channel is not in confirm mode")),
    }
}
