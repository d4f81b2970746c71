//! The client's side: many calls in flight on one reply queue, told apart by their correlation ids.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::message::{BasicReturnMessage, Delivery};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use shared::{CALL_DEADLINE, Connection, Deadline, Error, Session, State, message_id};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ERROR_TYPE;

/// Calls in flight on one client; further ones wait their turn.
const IN_FLIGHT: usize = 1024;

/// How soon it is looked for requests that came back, while calls wait for their answers. The requests need
/// no confirms: the reply is the better one, and each would cost half as much again as the request itself.
const LOOK: Duration = Duration::from_millis(20);

/// The pseudo-queue through which RabbitMQ hands replies straight to the asking channel.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Where replies come back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ReplyTo {
    /// An exclusive queue that the broker names, new in each generation.
    #[default]
    Queue,
    /// RabbitMQ's direct reply-to: no queue at all, faster for many short-lived clients.
    Direct,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request was returned: its queue does not exist.
    #[error(
        "no RPC server: the queue '{queue}' does not exist; start one with `cargo run -p rpc --bin rpc_server`"
    )]
    NoServer {
        /// The request queue.
        queue: String,
    },
    /// The server answered with an error: at most 200 characters of its words, on one line.
    #[error("the server answered: {0}")]
    Server(String),
    /// No answer in time.
    #[error("no reply within {}: {why}", humantime::format_duration(*after))]
    Timeout {
        /// How long it was waited for.
        after: Duration,
        /// The most likely reason, from the connection's state.
        why: String,
    },
    /// The reply is not a number: at most 200 characters of it, on one line.
    #[error("the reply '{0}' is not a number")]
    NotANumber(String),
    /// The client's connection is given up.
    #[error("{}", .0.explain())]
    Connection(Arc<Error>),
}

/// Calls a procedure by publishing to its request queue. Share it: up to 1024 calls run at once.
///
/// When the connection is lost, calls in flight are sent again with their correlation ids in the next
/// generation, so a server may compute one twice. That is harmless for an idempotent procedure.
pub struct RpcClient {
    state: Arc<Calls>,
    send: mpsc::Sender<String>,
    places: Semaphore,
    connection: Connection,
    task: AbortHandle,
}

/// What the callers and the client's task share.
struct Calls {
    queue: String,
    reply_to: ReplyTo,
    waiting: Mutex<HashMap<String, Waiting>>,
    ended: OnceLock<Arc<Error>>,
}

/// A call without an answer yet.
#[derive(Debug)]
struct Waiting {
    body: String,
    expires: Instant,
    /// Whether this generation's channel has it.
    sent: bool,
    answer: oneshot::Sender<Result<u64, CallError>>,
}

impl RpcClient {
    /// A client for the servers of `queue`. Sets itself up in the background; calls may be made at once.
    ///
    /// Needs a tokio runtime.
    #[must_use]
    pub fn new(connection: &Connection, queue: &str, reply_to: ReplyTo) -> Self {
        let (send, to_send) = mpsc::channel(IN_FLIGHT);
        let state = Arc::new(Calls {
            queue: queue.to_owned(),
            reply_to,
            waiting: Mutex::default(),
            ended: OnceLock::new(),
        });
        let task = connection.spawn(state.clone().run(connection.clone(), to_send));
        let places = Semaphore::new(IN_FLIGHT);
        Self { state, send, places, connection: connection.clone(), task: task.abort_handle() }
    }

    /// Asks for the `n`th Fibonacci number and waits for the answer, for `limit` at most.
    ///
    /// # Errors
    /// See [`CallError`]. After a timeout the request may still be served; nobody waits for its reply.
    pub async fn call(&self, n: u64, limit: Duration) -> Result<u64, CallError> {
        // Far enough: longer than RabbitMQ lets a message live.
        let limit = limit.min(Duration::from_millis(u32::MAX.into()));
        let expires = Instant::now() + limit;
        let id = message_id();
        let call = async {
            // Never closed.
            let _place = self.places.acquire().await;
            let (answer, answered) = oneshot::channel();
            let waiting = Waiting { body: n.to_string(), expires, sent: false, answer };
            let _forget = self.state.wait(&id, waiting);
            if self.send.send(id.clone()).await.is_err() {
                return Err(CallError::Connection(self.state.why_ended()));
            }
            answered.await.unwrap_or_else(|_| Err(CallError::Connection(self.state.why_ended())))
        };
        match timeout_at(expires, call).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout { after: limit, why: self.why_no_reply() }),
        }
    }

    fn why_no_reply(&self) -> String {
        match &*self.connection.state().borrow() {
            State::Up { .. } => {
                format!(
                    "is a server of the queue '{}' running? look: rabbitmqctl list_consumers",
                    self.state.queue
                )
            }
            state => state.to_string(),
        }
    }
}

impl Drop for RpcClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Calls {
    /// Serves the callers in one session after the other, until the connection is given up.
    async fn run(self: Arc<Self>, connection: Connection, mut to_send: mpsc::Receiver<String>) {
        let (mut sessions, mut state) = (connection.sessions(), connection.state());
        let ended = loop {
            match sessions.run(|session| self.serve(session, &mut to_send, &mut state)).await {
                Ok(None) => {}
                Ok(Some(())) => break Error::Stopped,
                // It passes, and each call has its own limit. An error is told by the next session.
                Err(Error::Blocked { .. }) => {
                    let _ = state.wait_for(|state| !matches!(state, State::Blocked { .. })).await;
                }
                Err(error) => break error,
            }
        };
        let _ = self.ended.set(Arc::new(ended));
        // Dropping what is waiting wakes the callers.
        to_send.close();
        self.waiting().clear();
    }

    async fn serve(
        &self,
        session: Session,
        to_send: &mut mpsc::Receiver<String>,
        state: &mut watch::Receiver<State>,
    ) -> shared::Result<()> {
        let channel = &session.channel;
        let reply_to = self.declare_reply_queue(channel).await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(reply_to.clone(), "".into(), options, FieldTable::default());
        let mut consumer = consumer.deadline("register a consumer").await?;

        // The replies to what earlier generations sent are lost with their reply queue: ask again.
        let mut unanswered = Vec::new();
        for (id, call) in self.waiting().iter_mut() {
            call.sent = false;
            unanswered.push(id.clone());
        }
        let mut requests = Requests { channel, reply_to, under_way: VecDeque::new() };
        for id in unanswered {
            self.publish(&id, &mut requests)?;
        }
        let mut look = pin!(sleep(LOOK));
        loop {
            let blocked = matches!(*state.borrow_and_update(), State::Blocked { .. });
            let full = requests.under_way.len() >= IN_FLIGHT;
            tokio::select! {
                delivery = session.next(&mut consumer) => match delivery? {
                    Some(delivery) => self.answered(&delivery),
                    None => return Err(Error::Stopped),
                },
                // A blocked broker takes nothing: what is not handed to lapin can still be withdrawn.
                id = to_send.recv(), if !blocked && !full => match id {
                    Some(id) => self.publish(&id, &mut requests)?,
                    None => return Ok(()),
                },
                () = &mut look, if !requests.under_way.is_empty() || !self.waiting().is_empty() => {
                    requests.collect()?;
                    // On a channel without confirms lapin waits for nothing, and hands out what came back.
                    for returned in channel.wait_for_confirms().deadline("look for returned messages").await? {
                        self.returned(&returned);
                    }
                    look.as_mut().reset(Instant::now() + LOOK);
                }
                _ = state.changed() => {}
            }
        }
    }

    async fn declare_reply_queue(&self, channel: &Channel) -> shared::Result<ShortString> {
        if self.reply_to == ReplyTo::Direct {
            return Ok(DIRECT_REPLY_TO.into());
        }
        // Exclusive goes with the connection, auto-delete with this client, which may go first.
        let options = QueueDeclareOptions::exclusive().auto_delete();
        let declared = channel.queue_declare("".into(), options, FieldTable::default());
        Ok(declared.deadline("declare a queue").await?.name().clone())
    }

    /// Sends a request, if its caller still waits and it is not on its way.
    fn publish(&self, id: &str, requests: &mut Requests<'_>) -> shared::Result<()> {
        let (body, expires) = match self.waiting().get_mut(id) {
            Some(call) if !call.sent => {
                call.sent = true;
                (call.body.clone(), call.expires)
            }
            _ => return Ok(()),
        };
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_correlation_id(id.into())
            // A request that nobody waits for any more is not worth a server's time.
            .with_expiration(milliseconds_until(expires).to_string().into());
        requests.write(&self.queue, body, properties)
    }

    /// The request queue does not exist. The message's own correlation id says whose call it was.
    fn returned(&self, returned: &BasicReturnMessage) {
        if let Some(id) = returned.delivery.properties.correlation_id() {
            self.finish(id.as_str(), Err(CallError::NoServer { queue: self.queue.clone() }));
        }
    }

    fn answered(&self, reply: &Delivery) {
        let Some(id) = reply.properties.correlation_id() else {
            tracing::debug!("ignored a reply without a correlation id");
            return;
        };
        let text = String::from_utf8_lossy(&reply.data);
        let excerpt = || crate::excerpt(&reply.data, 200);
        let is_error = reply.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == ERROR_TYPE);
        let result = match text.trim().parse() {
            _ if is_error => Err(CallError::Server(excerpt())),
            Ok(number) => Ok(number),
            Err(_) => Err(CallError::NotANumber(excerpt())),
        };
        self.finish(id.as_str(), result);
    }

    /// Hands a caller its answer. Unknown ids are ignored: a server that died between its reply and its
    /// acknowledgement makes another server reply a second time.
    fn finish(&self, id: &str, result: Result<u64, CallError>) {
        match self.waiting().remove(id) {
            // The caller may have given up this very moment.
            Some(call) => drop(call.answer.send(result)),
            None => tracing::debug!("ignored a reply to {id}, which nobody waits for"),
        }
    }

    /// Enters a call in the list, until the answer comes or the caller goes.
    fn wait<'c>(&'c self, id: &'c str, waiting: Waiting) -> Forget<'c> {
        self.waiting().insert(id.to_owned(), waiting);
        Forget(self, id)
    }

    fn why_ended(&self) -> Arc<Error> {
        self.ended.get().cloned().unwrap_or_else(|| Arc::new(Error::Stopped))
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        // A panic elsewhere cannot leave the map half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way to the socket.
type Write = BoxFuture<'static, lapin::Result<Confirmation>>;

/// The requests that one session has handed to lapin.
struct Requests<'s> {
    channel: &'s Channel,
    reply_to: ShortString,
    /// Not written to the socket yet, in the order in which they will be; and until when they must be.
    under_way: VecDeque<(Write, Instant)>,
}

impl Requests<'_> {
    fn write(&mut self, queue: &str, body: String, properties: BasicProperties) -> shared::Result<()> {
        let (channel, queue) = (self.channel.clone(), queue.into());
        let properties = properties.with_reply_to(self.reply_to.clone());
        let mut write: Write = Box::pin(async move {
            // Mandatory, so that a missing request queue is known long before the time limit.
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            channel.basic_publish("".into(), queue, options, body.as_bytes(), properties).await?.await
        });
        // lapin takes it at the first poll. It need not wake anybody once it is written: that is dear.
        match write.as_mut().now_or_never() {
            Some(written) => drop(written.map_err(not_sent)?),
            None => self.under_way.push_back((write, Instant::now() + CALL_DEADLINE)),
        }
        self.collect()
    }

    /// Takes note of those that are written by now.
    fn collect(&mut self) -> shared::Result<()> {
        while let Some((write, end)) = self.under_way.front_mut() {
            match write.as_mut().now_or_never() {
                Some(written) => drop(written.map_err(not_sent)?),
                None if *end < Instant::now() => {
                    return Err(Error::Timeout { step: PUBLISH, after: CALL_DEADLINE });
                }
                None => break,
            }
            self.under_way.pop_front();
        }
        Ok(())
    }
}

const PUBLISH: &str = "publish a message";

fn not_sent(cause: lapin::Error) -> Error {
    Error::Refused { step: PUBLISH, cause }
}

/// Takes a call off the list when its caller goes, answered or not.
struct Forget<'c>(&'c Calls, &'c str);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.waiting().remove(self.1);
    }
}

/// What is left, at least 1: RabbitMQ drops a message with 0 unless a consumer is waiting.
fn milliseconds_until(end: Instant) -> u128 {
    end.saturating_duration_since(Instant::now()).as_millis().max(1)
}
