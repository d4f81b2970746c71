//! The workloads as programs on `shared` do them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lapin::message::Delivery;
use rpc::{ReplyTo, RpcClient};
use shared::{Connection, ConnectionArgs, Consumer, Outcome, Publisher, Shutdown, Verdict};
use tokio::task::JoinSet;
use transactions::guarantees::Guarantee;

use crate::report::{Report, Watch};
use crate::seen::Seen;
use crate::workload::{ACK_EVERY, CALLERS, PAIRS, PREFETCH, Workload, body, number, pair_queue};

/// How many messages a program hands over at once, where it has many.
const HANDED_OVER: usize = 1000;

/// How many a producer hands over at once that has a consumer beside it.
const BURST: usize = 100;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One run: a connection, and what is to be done on it.
struct Run {
    connection: Connection,
    shutdown: Shutdown,
    workload: Workload,
    messages: usize,
    queue: String,
}

/// Does a workload, and tells how long it took.
pub(crate) async fn run(
    args: &ConnectionArgs,
    workload: Workload,
    messages: usize,
    queue: &str,
) -> Result<Report> {
    let shutdown = Shutdown::new();
    let connection = Connection::open(args, "bench-shared", &shutdown).await?;
    let run = Run { connection, shutdown: shutdown.clone(), workload, messages, queue: queue.to_owned() };
    let watch = Watch::start()?;
    // As a program does to which each answer matters.
    let (wrong, seen) = run.connection.clone().spawn(run.work()).await??;
    shutdown.close_connections().await;
    watch.stop(wrong, seen.as_ref())
}

impl Run {
    /// The number of wrong outcomes, and what came, where something was to come.
    async fn work(self) -> Result<(usize, Option<Seen>)> {
        match self.workload {
            Workload::NewChannel => self.publish_on_new_channels().await.map(|wrong| (wrong, None)),
            Workload::Callers | Workload::CallersMandatory => {
                self.call_publisher().await.map(|wrong| (wrong, None))
            }
            Workload::Consume(prefetch) => self.consume(|consumer| consumer.with_prefetch(prefetch)).await,
            Workload::AckEvery => {
                self.consume(|consumer| consumer.with_prefetch(PREFETCH).with_ack_every(ACK_EVERY)).await
            }
            Workload::Rpc(callers) => self.call(callers).await,
            Workload::Pairs => self.produce_and_consume().await,
            workload => {
                let guarantee = workload.guarantee().context("no guarantee")?;
                self.publish(guarantee).await.map(|wrong| (wrong, None))
            }
        }
    }

    async fn publish(&self, guarantee: Guarantee) -> Result<usize> {
        let publisher = guarantee.publisher(&self.connection);
        let mut sessions = self.connection.sessions();
        let publish = sessions.run(async |session| {
            let mut wrong = 0;
            for first in (0..self.messages).step_by(HANDED_OVER) {
                let numbers: Vec<_> = (first..self.messages.min(first + HANDED_OVER)).collect();
                let content: Vec<_> = numbers
                    .iter()
                    .map(|number| (self.workload.key(&self.queue, *number), body(*number)))
                    .collect();
                let messages: Vec<_> = numbers
                    .iter()
                    .zip(&content)
                    .map(|(number, (key, body))| self.workload.message(key, body, *number))
                    .collect();
                let outcomes = guarantee.publish(&session, &publisher, &messages).await?;
                wrong += numbers
                    .iter()
                    .zip(&outcomes)
                    .filter(|(number, outcome)| self.is_wrong(**number, outcome))
                    .count();
            }
            Ok(wrong)
        });
        let wrong = publish.await?.context("the connection was lost")?;
        publisher.flush().await?;
        Ok(wrong)
    }

    fn is_wrong(&self, number: usize, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Confirmed => self.workload.is_unroutable(number),
            Outcome::Returned { .. } => !self.workload.is_unroutable(number),
            _ => true,
        }
    }

    async fn publish_on_new_channels(&self) -> Result<usize> {
        let publisher = Publisher::new(&self.connection, 1);
        let mut wrong = 0;
        for number in 0..self.messages {
            let body = body(number);
            let message = self.workload.message(&self.queue, &body, number);
            let outcome = publisher.publish_on_new_channel(&message).await;
            wrong += usize::from(self.is_wrong(number, &outcome));
        }
        Ok(wrong)
    }

    /// Fifty callers share a publisher.
    async fn call_publisher(self) -> Result<usize> {
        let publisher = Arc::new(Publisher::new(&self.connection, CALLERS));
        let run = Arc::new(self);
        let call = |caller| {
            let (run, publisher) = (run.clone(), publisher.clone());
            run.connection.clone().spawn(async move {
                let mut wrong = 0;
                for number in (caller..run.messages).step_by(CALLERS) {
                    let (key, body) = (run.workload.key(&run.queue, number), body(number));
                    let outcome = publisher.publish(&run.workload.message(&key, &body, number)).await;
                    wrong += usize::from(run.is_wrong(number, &outcome));
                }
                wrong
            })
        };
        let callers: Vec<_> = (0..CALLERS).map(call).collect();
        let mut wrong = 0;
        for caller in callers {
            wrong += caller.await?;
        }
        Ok(wrong)
    }

    async fn consume(self, with: impl FnOnce(Consumer) -> Consumer) -> Result<(usize, Option<Seen>)> {
        let catcher = self.catcher();
        let consumer = with(Consumer::new("bench", &self.queue));
        catch(&consumer, &self.connection, &catcher).await?;
        Ok((0, Some(Catcher::into_seen(catcher)?)))
    }

    fn catcher(&self) -> Arc<Catcher> {
        let seen = Mutex::new(Seen::new(self.messages));
        Arc::new(Catcher { seen, messages: self.messages, shutdown: self.shutdown.clone() })
    }

    async fn call(self, callers: usize) -> Result<(usize, Option<Seen>)> {
        let client = Arc::new(RpcClient::new(&self.connection, &self.queue, ReplyTo::Queue));
        let messages = self.messages;
        let call = |caller| {
            let client = client.clone();
            self.connection.spawn(async move {
                let mut replies = Vec::new();
                for number in (caller..messages).step_by(callers) {
                    replies.push((number, client.call(number as u64, PATIENCE).await?));
                }
                Ok::<_, rpc::CallError>(replies)
            })
        };
        let callers: Vec<_> = (0..callers).map(call).collect();
        let mut seen = Seen::new(messages);
        let mut wrong = 0;
        for caller in callers {
            for (number, reply) in caller.await?? {
                seen.note(Some(number));
                wrong += usize::from(reply != number as u64);
            }
        }
        Ok((wrong, Some(seen)))
    }

    /// Four producers and four consumers, each pair with a queue of its own.
    async fn produce_and_consume(self) -> Result<(usize, Option<Seen>)> {
        let catcher = self.catcher();
        let mut tasks = JoinSet::new();
        for pair in 0..PAIRS {
            let queue = pair_queue(&self.queue, pair);
            let (connection, catcher) = (self.connection.clone(), catcher.clone());
            let consumer = Consumer::new("bench", &queue).with_prefetch(PREFETCH);
            tasks.spawn(async move { catch(&consumer, &connection, &catcher).await });
            let publisher = Publisher::new(&self.connection, 1);
            let (workload, messages) = (self.workload, self.messages);
            tasks.spawn(async move {
                let numbers: Vec<_> = (pair..messages).step_by(PAIRS).collect();
                for numbers in numbers.chunks(BURST) {
                    let bodies: Vec<_> = numbers.iter().map(|number| body(*number)).collect();
                    let messages: Vec<_> = numbers
                        .iter()
                        .zip(&bodies)
                        .map(|(number, body)| workload.message(&queue, body, *number))
                        .collect();
                    publisher.publish_unconfirmed(&messages).await?;
                }
                publisher.flush().await?;
                Ok(())
            });
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        Ok((0, Some(Catcher::into_seen(catcher)?)))
    }
}

async fn catch(consumer: &Consumer, connection: &Connection, catcher: &Arc<Catcher>) -> Result<()> {
    let catcher = catcher.clone();
    consumer.run(connection, move |_, delivery| catcher.clone().catch(delivery)).await?;
    ensure!(consumer.tally().unsettled() == 0, "{:?}", consumer.tally());
    Ok(())
}

/// Notes what comes, and stops the program when all is there.
struct Catcher {
    seen: Mutex<Seen>,
    messages: usize,
    shutdown: Shutdown,
}

impl Catcher {
    async fn catch(self: Arc<Self>, delivery: Delivery) -> Verdict {
        // Poisoned by a panic that fails the run in any case.
        if let Ok(mut seen) = self.seen.lock() {
            seen.note(number(&delivery.data));
            if seen.distinct() >= self.messages {
                self.shutdown.request();
            }
        }
        Verdict::Ack
    }

    fn into_seen(catcher: Arc<Self>) -> Result<Seen> {
        let catcher = Arc::into_inner(catcher).context("a handler still runs")?;
        catcher.seen.into_inner().ok().context("a handler panicked")
    }
}
