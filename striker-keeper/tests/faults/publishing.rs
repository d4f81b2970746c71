//! Messages that the broker sends back, refuses or has no exchange for, and callers that give up halfway.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use shared::{Outcome, Publisher, Queue, QueueType, Topology};
use striker_keeper::shots::shot;
use striker_keeper::{EXCHANGE, QUEUE, ROUTING_KEY};
use tokio::time::timeout;

use crate::support::{Client, LIMIT, Stage, Tally, eventually, row, scale};

fn queue_q() -> Topology {
    Topology { queues: vec![Queue::new("q", QueueType::Classic)], ..Topology::default() }
}

#[test]
fn fault_12_missing_exchange() -> Result<()> {
    row(12, "a message for an exchange that does not exist", |row| {
        let stage = Stage::new()?;
        let client = Client::open(&stage.url(), "missing")?;
        client.declare(&queue_q())?;
        let publisher = Publisher::new(&client.connection, 1);
        let outcome = client.publish(&publisher, "missing", "q", "alone")?;
        ensure!(matches!(&outcome, Outcome::NotSent(error) if error.code() == Some(404)), "{outcome:?}");

        // Among others: whose fault it was cannot be told, and what was in flight with it is in doubt.
        let ids: Vec<_> = (0..3).map(|_| shared::message_id()).collect();
        let batch =
            [shot("", "q", &ids[0], "1"), shot("missing", "q", &ids[1], "2"), shot("", "q", &ids[2], "3")];
        let outcomes = client.wait(publisher.publish_batch(&batch))?;
        ensure!(outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Confirmed)), "{outcomes:?}");
        let code = |outcome: &Outcome| match outcome {
            Outcome::Unknown(error) | Outcome::NotSent(error) => error.code(),
            _ => None,
        };
        ensure!(outcomes.iter().any(|outcome| code(outcome) == Some(404)), "{outcomes:?}");

        let outcome = client.publish(&publisher, "", "q", "afterwards")?;
        ensure!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
        ensure!(client.states().len() == 1, "the same connection: {:?}", client.states());
        eventually("one channel", || Ok(stage.vhost.connections()?[0]["channels"] == 1))?;
        client.close()?;
        row.seen =
            "*not sent*, `404 NOT_FOUND`; what was in flight with it is *unknown*; the channel is replaced, \
            the connection stays"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_16_no_queue() -> Result<()> {
    row(16, "a message that no queue wants", |row| {
        let stage = Stage::new()?;
        for in_flight in ["1", "10"] {
            let options = ["--count", "20", "--rate", "0", "--in-flight", in_flight];
            let mut striker = stage.striker(&stage.url(), &options).start();
            let line = stage.failure(&mut striker)?;
            ensure!(line.contains("20 of 20 messages were not confirmed; start keeper first"), "{line}");
            let tally = Tally::of(&striker.wait(LIMIT))?;
            ensure!(tally.get("returned") == 20 && tally.get("confirmed") == 0, "{tally:?}");
        }
        row.seen = "*returned*, `312 NO_ROUTE`, never called confirmed; exit code 1".to_owned();
        Ok(())
    })
}

#[test]
fn fault_17_full_queue() -> Result<()> {
    row(17, "a queue that is full and refuses more", |row| {
        let stage = Stage::new()?;
        let v = stage.vhost.name();
        stage
            .node
            .put(&format!("/api/exchanges/{v}/{EXCHANGE}"), &json!({"type": "direct", "durable": true}))?;
        let full = json!({"durable": true, "arguments": {"x-max-length": 1, "x-overflow": "reject-publish"}});
        stage.node.put(&format!("/api/queues/{v}/full"), &full)?;
        let key = json!({"routing_key": ROUTING_KEY});
        stage.node.post(&format!("/api/bindings/{v}/e/{EXCHANGE}/q/full"), &key)?;
        let mut striker =
            stage.striker(&stage.url(), &["--count", "5", "--rate", "0", "--resends", "3"]).start();
        let line = stage.failure(&mut striker)?;
        ensure!(line.contains("4 of 5 messages were not confirmed") && line.contains("full queue"), "{line}");
        let tally = Tally::of(&striker.wait(LIMIT))?;
        ensure!(tally.get("nacked") == 4 && tally.get("confirmed") == 1, "{tally:?}");
        let queue = stage.vhost.queue("full")?.unwrap_or_default();
        ensure!(queue["messages"] == 1, "{queue}");
        row.seen =
            "sent again as often as `--resends` says, then *nacked*, never called confirmed; exit code 1, and a line that says where to look"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_20_exchange_deleted() -> Result<()> {
    row(20, "the exchange is deleted, and the keeper's binding with it", |row| {
        let stage = Stage::new()?;
        let url = stage.url();
        let keeper = stage.start_keeper(&url, &[])?;
        let before = stage.run_striker(&url, &["--count", "20", "--rate", "0"])?.get("confirmed");
        stage.node.delete(&format!("/api/exchanges/{}/{EXCHANGE}", stage.vhost.name()))?;
        let mut unheard = stage.striker(&url, &["--count", "5", "--rate", "0"]).start();
        stage.failure(&mut unheard)?;
        let tally = Tally::of(&unheard.wait(LIMIT))?;
        ensure!(tally.get("returned") == 5, "told, not lost: {tally:?}");

        let starts = keeper.catch.starts();
        stage.vhost.close_connections()?;
        keeper.catch.wait_for_start(starts, LIMIT)?;
        stage.expect_keeper(1)?;
        let confirmed = stage.run_striker(&url, &["--count", "20", "--rate", "0"])?.get("confirmed");
        stage.drain(row, before + confirmed, keeper)?;
        row.seen = format!(
            "the striker declares the exchange again and is told that no queue wants its messages (`312`); the \
             keeper binds `{QUEUE}` again with its next connection"
        );
        Ok(())
    })
}

#[test]
fn fault_32_callers_that_give_up() -> Result<()> {
    row(32, "callers drop their publish halfway", |row| {
        let stage = Stage::new()?;
        // A confirm takes 10 ms, which is more than the timers' millisecond.
        let relay = stage.relay()?;
        relay.delay(Duration::from_millis(5));
        let client = Client::open(&stage.url_at(relay.port()), "dropped")?;
        client.declare(&queue_q())?;
        let publisher = Publisher::new(&client.connection, 4);
        let drops: u64 = scale(200, 2000);
        let mut dropped = 0_u64;
        for number in 0..drops {
            let key = if number % 2 == 0 { "q" } else { "nobody" };
            // From "not written yet" to "nearly confirmed".
            let patience = Duration::from_millis(number % 15);
            let id = shared::message_id();
            let message = shot("", key, &id, "dropped");
            dropped += u64::from(
                client.wait(async { timeout(patience, publisher.publish(&message)).await })?.is_err(),
            );
        }
        // A channel with somebody else's return on it would tell the wrong outcome here.
        for _ in 0..50 {
            let outcome = client.publish(&publisher, "", "q", "kept")?;
            ensure!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
            let outcome = client.publish(&publisher, "", "nobody", "kept")?;
            ensure!(matches!(outcome, Outcome::Returned { code: 312, .. }), "{outcome:?}");
        }
        ensure!(dropped > drops / 10, "only {dropped} of {drops} were dropped");
        eventually("as many channels as were asked for", || {
            Ok(stage.vhost.connections()?[0]["channels"].as_u64().is_some_and(|channels| channels <= 4))
        })?;
        ensure!(client.states().len() == 1, "the same connection: {:?}", client.states());
        client.close()?;
        row.seen =
            "their channels are not used again; outcomes of later messages are their own, and no channel \
            is left over"
                .to_owned();
        Ok(())
    })
}
