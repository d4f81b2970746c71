//! A message on its way, and what can become of it.

use lapin::message::BasicReturnMessage;
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};

use crate::{Error, Result, message_id};

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

impl Message<'_> {
    pub(crate) fn id(&self) -> Option<&ShortString> {
        self.properties.message_id().as_ref()
    }

    /// The same message, with an id if it had none.
    pub(crate) fn identified(mut self) -> Self {
        if self.id().is_none() {
            self.properties = self.properties.with_message_id(message_id().into());
        }
        self
    }

    /// Exchange and routing key as AMQP wants them.
    pub(crate) fn address(&self) -> Result<(ShortString, ShortString)> {
        let too_long = |_| Error::usage("AMQP has no room for an exchange or routing key over 255 bytes");
        Ok((
            ShortString::try_new(self.exchange).map_err(too_long)?,
            ShortString::try_new(self.routing_key).map_err(too_long)?,
        ))
    }
}

impl Outcome {
    /// Why it is not known what the broker did with it.
    pub(crate) fn unsettled(&self) -> Option<&Error> {
        match self {
            // It never came near the broker.
            Self::NotSent(Error::Usage(_)) => None,
            Self::NotSent(error) | Self::Unknown(error) => Some(error),
            _ => None,
        }
    }
}

impl From<&BasicReturnMessage> for Outcome {
    fn from(returned: &BasicReturnMessage) -> Self {
        Self::Returned { code: returned.reply_code, text: returned.reply_text.to_string() }
    }
}

/// Reads a confirm: `Ok` only if the broker has taken the message and, if it was mandatory, routed it.
///
/// For a single publish in flight on its channel; see [`Publisher`](crate::Publisher).
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
