//! What the tests of this crate share.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use broker::Vhost;
use harness::Relay;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use shared::{Connection, ConnectionArgs, Deadline, Shutdown, confirmed};
use tokio::runtime::Builder;

/// No step of a test may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Waits for `event`, and panics where it does not come.
#[track_caller]
pub(crate) fn within<F: Future>(event: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    let event = tokio::time::timeout(LIMIT, event);
    async move { event.await.unwrap_or_else(|_| panic!("{caller}: nothing happened within {LIMIT:?}")) }
}

/// The same for what lasts through several steps of a test.
#[track_caller]
pub(crate) fn in_the_end<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    let work = tokio::time::timeout(6 * LIMIT, work);
    async move { work.await.unwrap_or_else(|_| panic!("{caller}: it does not end")) }
}

/// Runs a test on tokio's usual runtime, and then as the programs run.
pub(crate) fn on_both_runtimes(test: impl AsyncFn() -> Result<()>) -> Result<()> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test())?;
    shared::runtime()?.block_on(test())
}

/// Asks again until `holds` is true.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > LIMIT {
            bail!("not within {LIMIT:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A connection to `vhost` that passes through `relay`.
pub(crate) fn args_through(relay: &Relay, vhost: &Vhost<'_>) -> ConnectionArgs {
    ConnectionArgs::for_url(vhost.url_through(relay.port()))
}

/// `url` with another port.
pub(crate) fn url_at(port: u16, url: &str) -> String {
    let (head, tail) = url.rsplit_once(':').expect("the node's URL has a port");
    let (_, vhost) = tail.split_once('/').expect("the node's URL has a vhost");
    format!("{head}:{port}/{vhost}")
}

/// Consumes without acknowledgements.
pub(crate) async fn consume(channel: &Channel, queue: &str) -> shared::Result<Consumer> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    consumer.deadline("register a consumer").await
}

/// Publishes one confirmed, mandatory message on a connection of its own.
pub(crate) async fn publish(
    args: &ConnectionArgs,
    exchange: &str,
    key: &str,
    body: &str,
) -> shared::Result<()> {
    let shutdown = Shutdown::new();
    let connection = Connection::open(args, "test publisher", &shutdown).await?;
    let publish = connection.session(async |session| {
        let channel = &session.channel;
        channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on confirms").await?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let published =
            channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
        let confirm = published.deadline("publish a message").await?;
        confirmed(confirm.deadline("get a confirm").await?)
    });
    let result = publish.await;
    shutdown.close_connections().await;
    result
}
