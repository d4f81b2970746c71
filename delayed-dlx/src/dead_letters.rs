//! Every way to die, and the rules around it, each shown on a live broker.

mod rules;
mod stage;
mod ways;

use shared::{ConnectionArgs, Result, Session};

use stage::Stage;

/// Something to know about dead letters, which [`Lesson::show`] makes happen.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lesson {
    /// a message that a consumer refuses
    Rejected,
    /// a message whose time to live is up
    Expired,
    /// a message that its queue has no room for
    Maxlen,
    /// a message that comes back to a quorum queue too often
    DeliveryLimit,
    /// a time to live of the queue and another one of the message
    SmallerTtl,
    /// a queue that expires with a message in it
    QueueExpiry,
    /// the key with which a dead letter is published
    RoutingKey,
    /// a queue that is its own dead-letter queue
    Cycle,
    /// a dead letter that a client publishes again
    Republished,
    /// a dead-letter exchange that is not there
    MissingExchange,
    /// a full queue that refuses instead of making room
    RejectPublish,
}

impl Lesson {
    /// What it shows, as one sentence.
    #[must_use]
    pub fn claim(self) -> &'static str {
        match self {
            Self::Rejected => "rejected: a consumer refused the message, with requeue set to false",
            Self::Expired => "expired: the message's time to live was up",
            Self::Maxlen => "maxlen: the queue was full, so its oldest message had to go",
            Self::DeliveryLimit => "delivery_limit: the message came back to a quorum queue too often",
            Self::SmallerTtl => "of two times to live, the smaller one counts",
            Self::QueueExpiry => "a queue that expires takes its messages with it: they are no dead letters",
            Self::RoutingKey => "x-dead-letter-routing-key replaces the message's own key",
            Self::Cycle => "a message that comes round a second time without a rejection is dropped",
            Self::Republished => {
                "the history of a dead letter belongs to the broker, not to whoever publishes it again"
            }
            Self::MissingExchange => "without a dead-letter exchange the dead are gone, and nobody is told",
            Self::RejectPublish => "x-overflow=reject-publish refuses new messages, and none has to die",
        }
    }

    /// Makes it happen and returns what was seen, line by line: the same lines each time.
    ///
    /// Uses queues and exchanges of its own, which are gone with the connection; the quorum queues of
    /// [`Lesson::DeliveryLimit`] are deleted, unless the connection is lost before.
    ///
    /// # Errors
    /// [`shared::Error::Own`] if the broker behaves otherwise; else as the steps in between.
    pub async fn show(self, session: &Session, args: &ConnectionArgs) -> Result<Vec<String>> {
        let mut stage = Stage::set(session, args).await?;
        let stage = &mut stage;
        match self {
            Self::Rejected => ways::rejected(stage).await,
            Self::Expired => ways::expired(stage).await,
            Self::Maxlen => ways::maxlen(stage).await,
            Self::DeliveryLimit => ways::delivery_limit(stage).await,
            Self::SmallerTtl => rules::smaller_ttl(stage).await,
            Self::QueueExpiry => rules::queue_expiry(stage).await,
            Self::RoutingKey => rules::routing_key(stage).await,
            Self::Cycle => rules::cycle(stage).await,
            Self::Republished => rules::republished(stage).await,
            Self::MissingExchange => rules::missing_exchange(stage).await,
            Self::RejectPublish => rules::reject_publish(stage).await,
        }
    }
}
