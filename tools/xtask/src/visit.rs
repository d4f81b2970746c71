//! Manners on somebody else's broker: ask first whether it can be used, leave nothing behind.

use std::time::Duration;

use anyhow::{Error, Result};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use shared::{Connection, ConnectionArgs, Deadline, Session, Shutdown};
use tokio::runtime::Builder;

use crate::exchanges::Exchange;

/// Connects once; the error says why it cannot be done, and what to do about it.
pub(crate) fn check(url: &str) -> Result<()> {
    session(url, async |_| Ok(()))
}

/// Deletes the queues and exchanges that these exchanges leave under this prefix. Deleting what is not
/// there is no error.
pub(crate) fn clean_up(url: &str, prefix: &str, exchanges: &[Exchange]) -> Result<()> {
    session(url, async |session| {
        for name in exchanges.iter().flat_map(|exchange| exchange.queues) {
            let queue = format!("{prefix}{name}");
            let deleted = session.channel.queue_delete(queue.into(), QueueDeleteOptions::default());
            deleted.deadline("delete a queue").await?;
        }
        for name in exchanges.iter().flat_map(|exchange| exchange.exchanges) {
            let exchange = format!("{prefix}{name}");
            let deleted = session.channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
            deleted.deadline("delete an exchange").await?;
        }
        Ok(())
    })
}

fn session(url: &str, body: impl AsyncFnMut(Session) -> shared::Result<()>) -> Result<()> {
    let args = ConnectionArgs::for_url(url).with_wait(Duration::from_secs(3));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let shutdown = Shutdown::new();
    let result = runtime.block_on(async {
        let result =
            async { Connection::open(&args, "cargo xtask demo", &shutdown).await?.session(body).await };
        let result = result.await;
        shutdown.close_connections().await;
        result
    });
    result.map_err(|error| Error::msg(error.explain()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXCHANGES: &[Exchange] = &[Exchange {
        package: "example",
        title: "",
        consumers: &[],
        producers: &[],
        queues: &["never_declared", "inbox"],
        exchanges: &["never_declared", "news"],
    }];

    #[test]
    fn what_is_there_is_deleted_and_what_is_not_is_no_error() {
        let node = broker::node();
        let vhost = node.vhost().unwrap();
        let [queues, exchanges] = ["queues", "exchanges"].map(|what| format!("/api/{what}/{}", vhost.name()));
        for name in ["demo-1-inbox", "demo-2-inbox"] {
            node.put(&format!("{queues}/{name}"), &json!({"durable": true})).unwrap();
        }
        node.put(&format!("{exchanges}/demo-1-news"), &json!({"type": "fanout", "durable": true})).unwrap();

        check(&vhost.url()).unwrap();
        clean_up(&vhost.url(), "demo-1-", EXCHANGES).unwrap();

        let names = |path: &str| {
            let list = node.get(path).unwrap();
            list.as_array()
                .unwrap()
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&queues), ["demo-2-inbox"]);
        assert!(!names(&exchanges).contains(&"demo-1-news".to_owned()));
    }

    #[test]
    fn a_broker_that_cannot_be_used_is_told_before_the_demo() {
        let vhost = broker::node().vhost().unwrap();
        let error = check(&vhost.url().replace("guest:guest", "guest:wrong")).unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("password is wrong"), "{error}");
    }
}
