//! Whether tracing is on, found out by a message of one's own: if it is, a trace of it comes, or of another
//! message before it.
//!
//! The probe goes to the default exchange with a routing key that no queue has, so it ends there and
//! disturbs nobody. Other tails of this program see its trace too, recognize it and do not show it.

use std::time::Duration;

use lapin::BasicProperties;
use shared::{Connection, ConnectionArgs, Error, Message, Outcome, Publisher, Shutdown, message_id};
use tokio::time::sleep;

use crate::Record;

/// The `type` property of a probe.
const TYPE: &str = "firehose.probe";

/// How long the trace of a probe may take once the broker has confirmed the probe.
const PATIENCE: Duration = Duration::from_secs(1);

/// The key under which the trace exchange has what is published to the default exchange.
pub(crate) const BINDING_KEY: &str = "publish.";

/// What a probe has shown, if no trace came first.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The broker took the probe and wrote no trace of it.
    Off,
    /// The probe did not get through.
    CannotTell(Error),
}

/// Publishes a probe and waits for long enough for its trace. It has a connection of its own, because a
/// broker short of memory stops reading from those that publish.
pub(crate) async fn publish(args: ConnectionArgs, shutdown: Shutdown) -> Verdict {
    match try_publish(&args, &shutdown).await {
        Ok(()) => {
            sleep(PATIENCE).await;
            Verdict::Off
        }
        Err(error) => Verdict::CannotTell(error),
    }
}

async fn try_publish(args: &ConnectionArgs, shutdown: &Shutdown) -> shared::Result<()> {
    let connection = Connection::open(args, "trace_tail probe", shutdown).await?;
    let message = Message {
        exchange: "",
        routing_key: &format!("{TYPE}.{}", message_id()),
        mandatory: false,
        properties: BasicProperties::default().with_type(TYPE.into()),
        body: b"",
    };
    match Publisher::new(&connection, 1).publish(&message).await {
        Outcome::Confirmed | Outcome::Returned { .. } => Ok(()),
        Outcome::Nacked => Err(Error::Nacked),
        Outcome::NotSent(error) | Outcome::Unknown(error) => Err(error),
    }
}

/// Whether a record is the trace of anybody's probe.
#[must_use]
pub fn is_probe(record: &Record) -> bool {
    record.exchange.is_empty() && record.property("type").as_deref() == Some(TYPE)
}
