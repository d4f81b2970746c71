//! How fast each way to publish is, measured in turns on one connection, with every message counted.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use shared::{
    CALL_DEADLINE, Connection, ConnectionArgs, Deadline, Error, Outcome, Publisher, Queue, QueueType,
    Topology,
};
use tokio::time::timeout;

use crate::shots::shot;

/// How often each way has its turn.
const TURNS: u32 = 5;

/// How long the queue outlives a comparison that could not delete it.
const EXPIRES: Duration = Duration::from_secs(60);

/// A way to publish and how long its messages took.
pub struct Measured {
    /// The way, as the options call it.
    pub way: String,
    /// Persistent messages, every one of which has arrived.
    pub messages: u64,
    /// From the first publish until all are in the queue.
    pub time: Duration,
}

#[derive(Clone, Copy)]
enum Way {
    NewChannel,
    Confirmed,
    InFlight(usize),
    Reserved,
}

impl Measured {
    /// Messages in a second.
    #[must_use]
    pub fn pace(&self) -> f64 {
        self.messages as f64 / self.time.as_secs_f64()
    }
}

/// Sends about `count` messages each way to a queue of its own, and deletes it. The first way is a new
/// channel for each message.
///
/// # Errors
/// If a message is lost, and as [`Connection::session`].
pub async fn compare(
    connection: &Connection,
    args: &ConnectionArgs,
    count: u64,
    size: usize,
    in_flight: usize,
) -> anyhow::Result<Vec<Measured>> {
    let name = args.name(&format!("striker.compare.{}", shared::message_id()))?;
    let queue = Queue { expires: Some(EXPIRES), ..Queue::new(&name, QueueType::Classic) };
    Topology { queues: vec![queue], ..Topology::default() }.declare(connection).await?;
    let publisher = Publisher::new(connection, 1).with_window(in_flight);
    let body = ".".repeat(size);
    let in_a_turn = count.div_ceil(TURNS.into()).max(1);
    let ways = [Way::NewChannel, Way::Confirmed, Way::InFlight(in_flight), Way::Reserved];
    let mut times = ways.map(|way| (way, Duration::ZERO));
    for _ in 0..TURNS {
        for (way, time) in &mut times {
            let start = Instant::now();
            way.publish(&publisher, &name, &body, in_a_turn).await?;
            arrived(connection, &name, in_a_turn).await?;
            *time += start.elapsed();
        }
    }
    let delete = connection.session(async |session| {
        let queue = session.channel.queue_delete(name.as_str().into(), QueueDeleteOptions::default());
        queue.deadline("delete the queue").await
    });
    delete.await?;
    let messages = in_a_turn * u64::from(TURNS);
    Ok(times.map(|(way, time)| Measured { way: way.name(), messages, time }).into())
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::NewChannel => "new-channel".to_owned(),
            Self::Confirmed => "confirmed".to_owned(),
            Self::InFlight(number) => format!("confirmed, {number} in flight"),
            Self::Reserved => "reserved".to_owned(),
        }
    }

    async fn publish(self, publisher: &Publisher, queue: &str, body: &str, count: u64) -> anyhow::Result<()> {
        let ids: Vec<_> = (0..count).map(|_| shared::message_id()).collect();
        let messages: Vec<_> = ids.iter().map(|id| shot("", queue, id, body)).collect();
        let mut outcomes = Vec::new();
        match self {
            Self::NewChannel => {
                for message in &messages {
                    outcomes.push(publisher.publish_on_new_channel(message).await);
                }
            }
            Self::Confirmed => {
                for message in &messages {
                    outcomes.push(publisher.publish(message).await);
                }
            }
            Self::InFlight(_) => outcomes = publisher.publish_batch(&messages).await,
            Self::Reserved => publisher.publish_unconfirmed(&messages).await?,
        }
        for outcome in outcomes {
            match outcome {
                Outcome::Confirmed => {}
                Outcome::NotSent(error) | Outcome::Unknown(error) => return Err(error.into()),
                Outcome::Nacked => return Err(Error::Nacked.into()),
                Outcome::Returned { code, text } => bail!("a message came back: {code} {text}"),
            }
        }
        Ok(())
    }
}

/// Waits until all messages of a turn are in the queue, and takes them out.
async fn arrived(connection: &Connection, queue: &str, expected: u64) -> anyhow::Result<()> {
    let count = connection.session(async |session| {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let all = async || -> shared::Result<()> {
            loop {
                let look = session.channel.queue_declare(queue.into(), passive, FieldTable::default());
                if u64::from(look.deadline("count the messages").await?.message_count()) >= expected {
                    return Ok(());
                }
            }
        };
        // Whether they are too few or too many shows below.
        if let Ok(looked) = timeout(CALL_DEADLINE, all()).await {
            looked?;
        }
        let purge = session.channel.queue_purge(queue.into(), QueuePurgeOptions::default());
        purge.deadline("take the messages out").await
    });
    let count = u64::from(count.await?);
    ensure!(count == expected, "{expected} messages were published, and {count} arrived");
    Ok(())
}
