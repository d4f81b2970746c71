//! A queue of one's own on the trace exchange.

use std::pin::Pin;
use std::time::SystemTime;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use shared::{ConnectionArgs, Deadline, Error, Result, Session};

use crate::probe::{self, Verdict};
use crate::{EXCHANGE, Event, Record};

/// Traces that the broker may send ahead of their acknowledgements.
const PREFETCH: u16 = 200;

/// How many bytes of traces the broker keeps for a tail that does not keep up; then it drops the oldest.
const MAX_BYTES: u32 = 64 * 1024 * 1024;

/// Which traces are wanted. Without any name, all are.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// What is published to these exchanges. The default exchange's name is empty.
    pub exchanges: Vec<String>,
    /// What is delivered from these queues.
    pub queues: Vec<String>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.exchanges.is_empty() && self.queues.is_empty()
    }

    /// What to bind with. A binding that names what is looked for keeps the rest on the broker.
    fn binding_keys(&self) -> Vec<String> {
        if self.is_empty() {
            return vec!["publish.#".to_owned(), "deliver.#".to_owned()];
        }
        let publish = self.exchanges.iter().map(|exchange| format!("publish.{exchange}"));
        publish.chain(self.queues.iter().map(|queue| format!("deliver.{queue}"))).collect()
    }

    /// Whether the traces of probes need a binding of their own.
    fn hides_probes(&self) -> bool {
        !self.is_empty() && !self.exchanges.iter().any(String::is_empty)
    }

    /// Whether a record is wanted. The binding alone does not say: in it, a `*` or `#` that is a word of a
    /// name stands for other words too.
    fn wants(&self, record: &Record) -> bool {
        self.is_empty()
            || match &record.event {
                Event::Published { .. } => self.exchanges.contains(&record.exchange),
                Event::Received { queue } => self.queues.contains(queue),
            }
    }
}

/// What a tail has to say.
#[derive(Debug)]
pub enum Seen {
    /// A message passed the broker.
    Record(Box<Record>),
    /// Tracing is off, so there will be no records until it is turned on.
    Off,
    /// Whether tracing is on could not be found out, for this reason.
    CannotTell(Error),
}

/// Follows the trace exchange through an exclusive queue, which is gone with its connection.
pub struct Tail {
    filter: Filter,
    consumer: Consumer,
    probe: Option<Probe>,
}

/// A probe that has no answer yet; becomes its verdict if none comes.
type Probe = Pin<Box<dyn Future<Output = Verdict> + Send>>;

impl Tail {
    /// Binds a new queue to the trace exchange and consumes it. What the filter wants and passes the
    /// broker from now on is traced, if tracing is on.
    ///
    /// # Errors
    /// [`Error::Refused`] with 403 if the user may not read the trace exchange.
    pub async fn start(session: &Session, filter: &Filter) -> Result<Self> {
        let channel = &session.channel;
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongUInt(MAX_BYTES));
        let declared = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), arguments);
        let queue = declared.deadline("declare a queue").await?.name().clone();
        for key in filter.binding_keys() {
            bind(channel, queue.as_str(), &key).await?;
        }
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).deadline("set QoS").await?;
        let consumer =
            channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let consumer = consumer.deadline("register a consumer").await?;
        Ok(Self { filter: filter.clone(), consumer, probe: None })
    }

    /// Finds out whether tracing is on: [`Tail::next`] reports if it is not, or if that cannot be told.
    ///
    /// # Errors
    /// [`Error::Refused`] with the broker's reason.
    pub async fn check(&mut self, session: &Session, args: &ConnectionArgs) -> Result<()> {
        if self.filter.hides_probes() {
            bind(&session.channel, self.consumer.queue().as_str(), probe::BINDING_KEY).await?;
        }
        self.probe = Some(Box::pin(probe::publish(args.clone(), session.shutdown().clone())));
        Ok(())
    }

    /// Waits for the next record that the filter wants, or for the answer to [`Tail::check`]. `None` once
    /// the program was asked to stop.
    ///
    /// # Errors
    /// As [`Session::next`].
    pub async fn next(&mut self, session: &Session) -> Result<Option<Seen>> {
        loop {
            let delivery = tokio::select! {
                // A record that is there already is an answer too.
                biased;
                delivery = session.next(&mut self.consumer) => delivery?,
                verdict = verdict(&mut self.probe) => {
                    self.end_check(session).await?;
                    match verdict {
                        Verdict::Off => return Ok(Some(Seen::Off)),
                        Verdict::CannotTell(Error::Stopped) => continue,
                        Verdict::CannotTell(error) => return Ok(Some(Seen::CannotTell(error))),
                    }
                }
            };
            let Some(delivery) = delivery else { return Ok(None) };
            let acknowledged = session.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
            acknowledged.deadline("acknowledge a trace").await?;
            let Some(record) = Record::read(&delivery, SystemTime::now()) else {
                tracing::debug!("ignored a message on {EXCHANGE} that is no trace");
                continue;
            };
            if self.probe.is_some() {
                // Whichever record it is: tracing is on.
                self.end_check(session).await?;
            }
            if !probe::is_probe(&record) && self.filter.wants(&record) {
                return Ok(Some(Seen::Record(Box::new(record))));
            }
        }
    }

    /// Takes back the binding that the probe needed, unless the filter needs it too.
    async fn end_check(&mut self, session: &Session) -> Result<()> {
        self.probe = None;
        if !self.filter.hides_probes() {
            return Ok(());
        }
        let unbound = session.channel.queue_unbind(
            self.consumer.queue(),
            EXCHANGE.into(),
            probe::BINDING_KEY.into(),
            FieldTable::default(),
        );
        unbound.deadline("unbind a queue").await
    }
}

async fn bind(channel: &Channel, queue: &str, key: &str) -> Result<()> {
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.into(), EXCHANGE.into(), key.into(), options, FieldTable::default());
    bound.deadline("bind a queue").await
}

/// The probe's verdict; never, if there is no probe under way.
async fn verdict(probe: &mut Option<Probe>) -> Verdict {
    match probe {
        Some(probe) => probe.as_mut().await,
        None => std::future::pending().await,
    }
}
