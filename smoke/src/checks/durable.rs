//! Queues that outlive their connection, and yet do not stay.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::AMQPValue;
use queue_lifecycle::Arguments;
use shared::Result;

use crate::check::Stop;
use crate::names::Name;
use crate::trial::{Trial, feature};

/// A durable queue, to be deleted with [`DurableQueue::delete`].
pub(super) struct DurableQueue {
    pub(super) name: String,
}

impl DurableQueue {
    /// Declares a queue of this type, which the broker deletes when nobody uses it, or the guard if the broker
    /// knows no expiry for this type.
    pub(super) async fn declare(
        trial: &Trial,
        what: &str,
        queue_type: &str,
        arguments: Arguments,
    ) -> Result<Self> {
        let name = trial.queue(what)?;
        trial.step(format!("declare a queue of type {queue_type}"));
        let arguments = arguments.with("x-queue-type", AMQPValue::LongString(queue_type.into()));
        let declare = async |arguments: Arguments| {
            let declared = trial.alone(async |session| {
                let options = QueueDeclareOptions::durable();
                queue_lifecycle::declare(&session.channel, &name, options, arguments).await
            });
            declared.await.map(drop)
        };
        match declare(arguments.clone().expires(trial.run().expires)).await {
            Err(error) if error.code() == Some(406) && error.to_string().contains("'x-expires'") => {
                let guarded = trial.run().guard.over(&Name::Queue(name.clone()));
                guarded.map_err(|error| {
                    Stop::Skip(format!(
                        "this broker knows no x-expires for it, and there is no process to delete it instead: {error}"
                    ))
                })?;
                feature(declare(arguments).await)?;
            }
            declared => feature(declared)?,
        }
        Ok(Self { name })
    }

    /// Deletes the queue.
    pub(super) async fn delete(self, trial: &Trial, channel: &lapin::Channel) -> Result<()> {
        trial.step("delete a queue");
        queue_lifecycle::delete(channel, &self.name, QueueDeleteOptions::default()).await.map(drop)
    }
}
