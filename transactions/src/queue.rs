//! A queue for one run of a program: named like no other, and gone afterwards.

use std::time::Duration;

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use shared::{Connection, ConnectionArgs, Deadline, QueueType, Result, message_id};
use tokio::time::timeout;

/// How long a program tries to look at its queues and to delete them after the work is done, when the broker
/// may be the one that does not answer.
pub const LAST_STEPS: Duration = Duration::from_secs(3);

/// How long the broker keeps the queue of a run that was killed before it could delete it, in ms.
const EXPIRES: u32 = 600_000;

/// A queue that belongs to one run. Its name ends in letters that no other run has, so that what is
/// counted in it is this run's, however many run beside it.
#[derive(Clone, Debug)]
pub struct TrialQueue {
    /// The full name: the prefix, what it is for, a dot and letters.
    pub name: String,
    /// What it is declared as.
    pub queue_type: QueueType,
    /// How many messages fit in it. One more is refused with `basic.nack`.
    pub limit: Option<u32>,
}

impl TrialQueue {
    /// Makes up a name that begins with the prefix and `purpose`. Nothing is declared yet.
    ///
    /// # Errors
    /// [`shared::Error::Usage`] if the prefix makes it longer than AMQP can carry.
    pub fn new(args: &ConnectionArgs, purpose: &str, queue_type: QueueType) -> Result<Self> {
        let name = args.name(&format!("{purpose}.{}", letters()))?;
        Ok(Self { name, queue_type, limit: None })
    }

    /// Another queue of the same kind, with letters of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        let stem = self.name.rsplit_once('.').map_or(&*self.name, |(stem, _)| stem);
        Self { name: format!("{stem}.{}", letters()), ..self.clone() }
    }

    /// The same queue with room for so many messages.
    #[must_use]
    pub fn with_limit(self, limit: Option<u32>) -> Self {
        Self { limit, ..self }
    }

    /// Declares the queue. The broker deletes it by itself if nobody uses it for ten minutes.
    ///
    /// # Errors
    /// [`shared::Error::Refused`] with the broker's reason.
    pub async fn declare(&self, channel: &Channel) -> Result<()> {
        let declared =
            channel.queue_declare(self.name.as_str().into(), self.queue_type.options(), self.arguments());
        declared.deadline("declare a queue").await.map(drop)
    }

    fn arguments(&self) -> FieldTable {
        let mut arguments = self.queue_type.arguments();
        arguments.insert("x-expires".into(), AMQPValue::LongUInt(EXPIRES));
        if let Some(limit) = self.limit {
            arguments.insert("x-max-length".into(), AMQPValue::LongUInt(limit));
            arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        }
        arguments
    }

    /// How many messages are ready in the queue, by a passive declare. Those that a consumer holds
    /// unacknowledged do not count.
    ///
    /// # Errors
    /// [`shared::Error::Refused`] with 404 if there is no such queue.
    pub async fn count(&self, channel: &Channel) -> Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(self.name.as_str().into(), options, FieldTable::default());
        Ok(found.deadline("look at a queue").await?.message_count())
    }

    /// Deletes the queue and what is in it. It is no error if it is gone already.
    ///
    /// # Errors
    /// [`shared::Error::Refused`] with the broker's reason.
    pub async fn delete(&self, channel: &Channel) -> Result<()> {
        let deleted = channel.queue_delete(self.name.as_str().into(), QueueDeleteOptions::default());
        deleted.deadline("delete a queue").await.map(drop)
    }
}

/// Deletes queues that are not needed any more, if the broker answers within [`LAST_STEPS`]. If not, they
/// expire: the work is done either way.
pub async fn clean_up(connection: &Connection, queues: &[&TrialQueue]) {
    let deleted = connection.session(async |session| {
        for queue in queues {
            queue.delete(&session.channel).await?;
        }
        Ok(())
    });
    let problem = match timeout(LAST_STEPS, deleted).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the broker does not answer".to_owned(),
    };
    tracing::warn!("the queues stay until they expire: {problem}");
}

fn letters() -> String {
    let mut letters = message_id();
    letters.truncate(8);
    letters
}
