//! What can go wrong between a program and its broker, and whether trying again can help.

use std::sync::Arc;
use std::time::Duration;

use lapin::ErrorKind;
use lapin::message::BasicReturnMessage;

use crate::Endpoint;
use crate::explain::in_words;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something did not work. The text is one line and never holds a password; [`Error::hint`] says what
/// to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or setting is wrong. Found before anything connects; programs exit with 2.
    #[error("{0}")]
    Usage(String),

    /// A connection could not be made: refused, no login, no such vhost, no TLS.
    #[error("Failed to connect to RabbitMQ at {}: {}", endpoint.address(), in_words(cause))]
    Connect {
        /// What was to be reached, and as whom.
        endpoint: Arc<Endpoint>,
        /// lapin's or the broker's own words.
        cause: lapin::Error,
    },

    /// The attempts, or the time for the first connection, are used up.
    #[error("gave up on {target} after {attempts} failed attempts in {}; the last: {cause}", rounded(*after))]
    Exhausted {
        /// The broker's `host:port`, or the connection's name where a session failed on a living connection.
        target: String,
        /// Consecutive failures.
        attempts: u32,
        /// Since the first of them.
        after: Duration,
        /// The last failure.
        cause: Box<Error>,
    },

    /// The broker, or lapin, refused a step.
    #[error("Failed to {step}: {}", in_words(cause))]
    Refused {
        /// What was being done, as the words after "Failed to".
        step: &'static str,
        /// lapin's or the broker's own words.
        cause: lapin::Error,
    },

    /// The broker did not answer in time.
    #[error("Failed to {step}: no answer from the broker within {}", rounded(*after))]
    Timeout {
        /// What was being done, as the words after "Failed to".
        step: &'static str,
        /// How long it was waited for.
        after: Duration,
    },

    /// The broker takes nothing from publishers at the moment: a resource alarm.
    #[error("the broker blocks publishing ({reason}); waited {}", rounded(*after))]
    Blocked {
        /// The broker's word for it, such as `low on memory`.
        reason: String,
        /// How long it was waited for.
        after: Duration,
    },

    /// How a connection ended, in lapin's or the broker's own words.
    #[error("{}", in_words(.0))]
    Ended(lapin::Error),

    /// The connection was lost while something was under way.
    #[error("connection lost: {0}")]
    Lost(Arc<Error>),

    /// The connection was closed for good, for this reason.
    #[error(transparent)]
    Closed(Arc<Error>),

    /// The broker ended a consumer, as it does when the queue is deleted.
    #[error(
        "the broker cancelled the consumer of queue '{queue}': the queue was deleted or its node went down"
    )]
    ConsumerCancelled {
        /// The queue it consumed.
        queue: String,
    },

    /// A mandatory message had no queue to go to.
    #[error("the message was returned: {code} {text} (exchange '{exchange}', routing key '{routing_key}')")]
    Returned {
        /// AMQP's reply code, 312 for no route.
        code: u16,
        /// The broker's words.
        text: String,
        /// Where it was published.
        exchange: String,
        /// With which key.
        routing_key: String,
    },

    /// The broker could not take a message, for instance because a queue with `reject-publish` is full.
    #[error("the broker refused the message (basic.nack): a queue is full or could not store it")]
    Nacked,

    /// The program was asked to stop. Not a failure: programs exit with 0.
    #[error("stopped")]
    Stopped,

    /// A session ended with an error of its own, which no reconnecting can cure.
    #[error(transparent)]
    Own(Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An [`Error::Usage`].
    pub fn usage(line: impl Into<String>) -> Self {
        Self::Usage(line.into())
    }

    /// An error of a session's own: the session ends with it instead of being run again.
    pub fn own(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Own(Arc::from(error.into()))
    }

    /// The reply code with which the broker refused, if it did: 403, 404, 406, 530, …
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Connect { cause, .. } | Self::Refused { cause, .. } | Self::Ended(cause) => {
                reply_code(cause)
            }
            Self::Returned { code, .. } => Some(*code),
            Self::Lost(cause) | Self::Closed(cause) => cause.code(),
            Self::Exhausted { cause, .. } => cause.code(),
            _ => None,
        }
    }

    /// Whether the broker refused what it was asked for on a channel; not a login, nor a connection.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { cause, .. } if cause.is_amqp_soft_error())
    }

    /// Whether another attempt can end otherwise. `worked_before`: the same steps have succeeded in an
    /// earlier attempt, so what is missing or locked now may come back.
    pub(crate) fn is_transient(&self, worked_before: bool) -> bool {
        match self {
            Self::Lost(_) | Self::Timeout { .. } | Self::ConsumerCancelled { .. } => true,
            Self::Connect { cause, .. } => connect_may_succeed_later(cause),
            Self::Refused { cause, .. } => step_may_succeed_later(cause, worked_before),
            _ => false,
        }
    }
}

impl From<BasicReturnMessage> for Error {
    fn from(returned: BasicReturnMessage) -> Self {
        Self::Returned {
            code: returned.reply_code,
            text: returned.reply_text.to_string(),
            exchange: returned.delivery.exchange.to_string(),
            routing_key: returned.delivery.routing_key.to_string(),
        }
    }
}

pub(crate) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// A duration as a person would say it: no more than milliseconds.
pub(crate) fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(milliseconds))
}

fn connect_may_succeed_later(cause: &lapin::Error) -> bool {
    match cause.kind() {
        // rustls reports a wrong certificate, and a peer that speaks no TLS, as invalid data.
        ErrorKind::IOError(error) => {
            !matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
        }
        // 320: the node is going down or in maintenance. 541: the vhost is still starting.
        ErrorKind::ProtocolError(error) => matches!(error.get_id(), 320 | 541),
        ErrorKind::MissingHeartbeatError
        | ErrorKind::InvalidConnectionState(_)
        | ErrorKind::InvalidChannelState(..) => true,
        _ => false,
    }
}

fn step_may_succeed_later(cause: &lapin::Error, worked_before: bool) -> bool {
    let ErrorKind::ProtocolError(error) = cause.kind() else {
        return !matches!(cause.kind(), ErrorKind::SerialisationError(_));
    };
    match error.get_id() {
        // Forced close; damaged frames; too many of something.
        320 | 501 | 505 | 506 => true,
        // Deleted meanwhile; an exclusive queue still held by our own lost connection.
        404 | 405 => worked_before,
        // A broker in trouble, unless it names the feature that it refuses.
        541 => !error.get_message().as_str().contains("deprecated"),
        // The broker's ack timeout closes the channel with 406; a new one starts afresh.
        406 => error.get_message().as_str().contains("timed out"),
        _ => false,
    }
}
