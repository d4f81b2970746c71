//! A consumer of several workers that comes back with its connection.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_lite::future::poll_once;
use futures_util::FutureExt;
use futures_util::future::try_join_all;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Mutex;
use tokio::task::consume_budget;

use crate::lock::lock;
use crate::writes::{Settlement, Writes};
use crate::{Connection, Deadline, Error, Result, Session, Topology};

/// What a handler says about a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Done: the broker may forget it.
    Ack,
    /// Try again: it goes back to the queue, but only once. One that was delivered before is rejected.
    Retry,
    /// No use: it goes to the queue's dead-letter exchange, or is dropped where there is none.
    Reject,
}

/// A named consumer of one queue: workers that share a channel, each with its own prefetch.
///
/// Where the connection is lost, the queue deleted or the channel closed, it starts again, with a pause that
/// grows. A handler that is at work then is left to finish; what it says comes too late, and the broker
/// delivers the message again: handlers see some messages twice.
#[derive(Clone, Debug)]
pub struct Consumer {
    name: String,
    queue: String,
    workers: u16,
    prefetch: u16,
    ack_every: u16,
    topology: Topology,
    tally: Arc<std::sync::Mutex<Tally>>,
}

/// What a consumer has done so far, in messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Deliveries handed to the handler.
    pub received: u64,
    /// Those of them that the broker had delivered before.
    pub redelivered: u64,
    /// Acknowledgements written to the broker.
    pub acked: u64,
    /// Given back to the queue.
    pub requeued: u64,
    /// Rejected for good.
    pub rejected: u64,
    /// Handlers that panicked.
    pub panicked: u64,
}

impl Tally {
    /// Deliveries whose settlement did not reach the broker, which delivers them again: it came too late, or
    /// is still to come.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.received - self.acked - self.requeued - self.rejected
    }

    fn note_received(&mut self, redelivered: bool) {
        self.received += 1;
        self.redelivered += u64::from(redelivered);
    }

    pub(crate) fn note_settled(&mut self, settlement: Settlement, deliveries: u64) {
        *match settlement {
            Settlement::Ack => &mut self.acked,
            Settlement::Requeue => &mut self.requeued,
            Settlement::Reject => &mut self.rejected,
        } += deliveries;
    }
}

impl Consumer {
    /// A consumer of `queue` with one worker and a prefetch of 1. `name` is what its tags begin with, as in
    /// `casillas (1/3)`.
    #[must_use]
    pub fn new(name: impl Into<String>, queue: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            queue: queue.into(),
            workers: 1,
            prefetch: 1,
            ack_every: 1,
            topology: Topology::default(),
            tally: Arc::default(),
        }
    }

    /// The same consumer with this many workers, each of which handles one message at a time. At least 1.
    #[must_use]
    pub fn with_workers(self, workers: u16) -> Self {
        Self { workers, ..self }
    }

    /// The same consumer with this many unacknowledged messages at most for *each* worker. At least 1.
    #[must_use]
    pub fn with_prefetch(self, prefetch: u16) -> Self {
        Self { prefetch, ..self }
    }

    /// The same consumer, which tells the broker of up to so many handled messages in one acknowledgement: as
    /// soon as they are that many, or there is nothing to handle at once. At least 1, and only for one worker,
    /// because such an acknowledgement is about everything that was delivered before.
    ///
    /// It is faster, and it has a price: when the connection is lost, up to so many more messages come again that
    /// were handled already.
    #[must_use]
    pub fn with_ack_every(self, messages: u16) -> Self {
        Self { ack_every: messages, ..self }
    }

    /// The same consumer, which declares `topology` each time before it starts to consume.
    #[must_use]
    pub fn with_topology(self, topology: Topology) -> Self {
        Self { topology, ..self }
    }

    /// What it has done so far. Clones count together.
    #[must_use]
    pub fn tally(&self) -> Tally {
        *lock(&self.tally)
    }

    /// Consumes until the program is asked to stop; what the broker had sent until then is handled first.
    ///
    /// `handler` gets the worker's number, from 1, and the delivery. Unless it is done at once, on a runtime
    /// with one thread, its future becomes a task of its own. One that panics costs the message an attempt, as [`Verdict::Retry`] does.
    ///
    /// On a [`runtime`](crate::runtime) of `shared` it is called on lapin's thread, and what it has to say at once
    /// needs no other one. While it computes, lapin neither reads nor writes: what takes long belongs into a
    /// `spawn_blocking` of tokio's.
    ///
    /// # Errors
    /// [`Error::Usage`] for no workers, no prefetch, cumulative acknowledgements of several workers, or a name over
    /// AMQP's 255 bytes; otherwise as [`Connection::session`].
    pub async fn run<H, F>(&self, connection: &Connection, handler: H) -> Result<()>
    where
        H: Fn(u16, Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Verdict> + Send + 'static,
    {
        self.check()?;
        // Held by a worker's handler, so that a worker never has two, not even across a loss.
        let busy: Vec<_> = (0..self.workers).map(|_| Arc::new(Mutex::new(()))).collect();
        let handler = Arc::new(handler);
        let mut sessions = connection.sessions();
        loop {
            let (consumer, busy, handler) = (self.clone(), busy.clone(), handler.clone());
            let consume = |session| async move { consumer.consume(session, &busy, &*handler).await };
            if sessions.run_on_io_thread(consume).await?.is_some() {
                return Ok(());
            }
        }
    }

    fn check(&self) -> Result<()> {
        let fail = |words: &str| Err(Error::usage(format!("consumer '{}': {words}", self.name)));
        match self {
            Self { workers: 0, .. } => fail("the number of workers must be at least 1"),
            Self { prefetch: 0, .. } => fail("the prefetch must be at least 1: 0 would mean no limit at all"),
            Self { ack_every: 0, .. } => fail("one acknowledgement must be about at least 1 message"),
            Self { ack_every: 2.., workers: 2.., .. } => {
                fail("one worker's acknowledgement of many messages would be about the others' as well")
            }
            _ if self.queue.len() > 255 => fail("the queue's name is over 255 bytes"),
            _ if self.tag(self.workers).len() > 255 => fail("its name is too long for a consumer tag"),
            _ => Ok(()),
        }
    }

    fn tag(&self, worker: u16) -> String {
        format!("{} ({worker}/{})", self.name, self.workers)
    }

    async fn consume<H, F>(&self, session: Session, busy: &[Arc<Mutex<()>>], handler: &H) -> Result<()>
    where
        H: Fn(u16, Delivery) -> F,
        F: Future<Output = Verdict> + Send + 'static,
    {
        let channel = &session.channel;
        self.topology.declare_on(channel).await?;
        channel
            .basic_qos(self.prefetch, BasicQosOptions::default())
            .deadline("limit the unacknowledged messages")
            .await?;
        let mut workers = Vec::new();
        for (worker, busy) in (1..).zip(busy) {
            // Checked to fit.
            let (queue, tag) = (ShortString::from(&*self.queue), ShortString::from(self.tag(worker)));
            let consumer = channel
                .basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default())
                .deadline("start to consume")
                .await?;
            workers.push(Worker { number: worker, consumer, busy, owner: self }.work(&session, handler));
        }
        try_join_all(workers).await.map(|_| ())
    }
}

/// One of a consumer's workers in one session.
struct Worker<'w> {
    number: u16,
    consumer: lapin::Consumer,
    busy: &'w Arc<Mutex<()>>,
    owner: &'w Consumer,
}

impl Worker<'_> {
    async fn work<H, F>(mut self, session: &Session, handler: &H) -> Result<()>
    where
        H: Fn(u16, Delivery) -> F,
        F: Future<Output = Verdict> + Send + 'static,
    {
        let consumer_tag = self.consumer.tag();
        let running = Running::announce(consumer_tag.to_string());
        let tally = &self.owner.tally;
        let mut writes = Writes::new(&session.channel, self.owner.ack_every, tally);
        while let Some(delivery) = writes.during(session.next(&mut self.consumer)).await?? {
            let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
            lock(tally).note_received(redelivered);
            let verdict = self.handle(delivery, handler);
            let settlement = match writes.during(session.cancelling(&consumer_tag, verdict)).await?? {
                Ok(Verdict::Ack) => Settlement::Ack,
                Ok(Verdict::Reject) => Settlement::Reject,
                Ok(Verdict::Retry) => once_more(redelivered),
                Err(Panicked) => {
                    lock(tally).panicked += 1;
                    tracing::error!("{}: the handler panicked; {}", running.0, after_panic(redelivered));
                    once_more(redelivered)
                }
            };
            writes.start(tag, settlement).await?;
            // Handlers that are done at once must not keep the thread from everybody else.
            consume_budget().await;
        }
        writes.finish().await
    }

    /// What the handler says. If that takes time, it is a task of its own: it outlives the session if the
    /// connection is lost. An error is a panic.
    async fn handle<H, F>(&self, delivery: Delivery, handler: &H) -> Result<Verdict, Panicked>
    where
        H: Fn(u16, Delivery) -> F,
        F: Future<Output = Verdict> + Send + 'static,
    {
        let busy = self.busy.clone().lock_owned().await;
        let work = catch_unwind(AssertUnwindSafe(|| handler(self.number, delivery)));
        let work = work.map_err(|_| Panicked)?;
        let work = async move {
            let _busy = busy;
            work.await
        };
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        // A task costs two switches. Where other threads could help with heavy ones, each gets one.
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
            && let Some(verdict) = poll_once(&mut work).await
        {
            return verdict.map_err(|_| Panicked);
        }
        // Dropping the handle lets the task go on.
        tokio::spawn(work).await.map_err(|_| Panicked)?.map_err(|_| Panicked)
    }
}

/// A handler did.
struct Panicked;

fn once_more(redelivered: bool) -> Settlement {
    if redelivered { Settlement::Reject } else { Settlement::Requeue }
}

fn after_panic(redelivered: bool) -> &'static str {
    if redelivered { "the message is rejected" } else { "the message is tried once more" }
}

/// Tells when a worker starts and, however it ends, when it stops.
struct Running(String);

impl Running {
    fn announce(tag: String) -> Self {
        tracing::info!("{tag}: consuming");
        Self(tag)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        tracing::info!("{}: stopped consuming", self.0);
    }
}
