//! The four programs, and what they stand on, against a real broker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use broker::{Node, Vhost};
use harness::{Direction, Program, Relay};
use serde_json::json;
use shared::{Connection, ConnectionArgs, Error, QueueType, Shutdown};
use std::num::NonZero;
use tokio::time::{sleep, timeout};
use transactions::confirms::{self, Plan, Strategy};
use transactions::tx::{self, CommitError};
use transactions::{Fate, Ledger, TrialQueue, arrivals};

const TX_PUBLISH: &str = env!("CARGO_BIN_EXE_tx_publish");
const CONFIRM_PUBLISH: &str = env!("CARGO_BIN_EXE_confirm_publish");
const GUARANTEES: &str = env!("CARGO_BIN_EXE_guarantees");
const TX_RULES: &str = env!("CARGO_BIN_EXE_tx_rules");

/// The pause between two looks at something that is about to happen.
const LOOK: Duration = Duration::from_millis(20);

/// For what should happen at once.
const LIMIT: Duration = Duration::from_secs(60);

fn program(path: &str, url: &str) -> Program {
    Program::new(path).args(["--url", url])
}

fn relay() -> Result<Relay> {
    Ok(Relay::start(("127.0.0.1", broker::node().port()))?)
}

/// Waits for something, but not for ever: the run may have ended.
async fn within<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(LIMIT, what).await.context("waited for it in vain")?
}

/// The queue of a run, once it is there.
async fn queue_of_run(vhost: &Vhost<'_>, purpose: &str) -> Result<TrialQueue> {
    within(async {
        loop {
            // Each queue is bound to the default exchange, and bindings are told faster than queues: a fast run
            // would be over.
            let bindings = vhost.bindings()?;
            let names = bindings.iter().filter_map(|binding| binding["destination"].as_str());
            if let Some(name) = names.into_iter().find(|name| name.starts_with(purpose)) {
                return Ok(TrialQueue { name: name.to_owned(), queue_type: QueueType::Classic, limit: None });
            }
            sleep(LOOK).await;
        }
    })
    .await
}

async fn messages_in(observer: &Connection, queue: &TrialQueue) -> Result<u32> {
    Ok(observer.session(async |session| queue.count(&session.channel).await).await?)
}

async fn wait_for_messages(observer: &Connection, queue: &TrialQueue, count: u32) -> Result<()> {
    within(async {
        while messages_in(observer, queue).await? < count {
            sleep(LOOK).await;
        }
        Ok(())
    })
    .await
}

/// The number in a line such as ` [.] Unknown: 3 (1, 2, 3)`.
fn number(lines: &[String], label: &str) -> Result<usize> {
    let line = lines.iter().find_map(|line| line.strip_prefix(label)).with_context(|| label.to_owned())?;
    let digits = line.trim().split([' ', ',']).next().unwrap_or_default();
    Ok(digits.parse()?)
}

#[test]
fn others_see_nothing_of_a_transaction_before_its_commit_and_all_of_it_afterwards() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let end = program(TX_PUBLISH, &vhost.url()).args(["--messages", "5"]).run().expect_code(0);
    assert_eq!(
        end.stdout,
        [
            " [.] In the queues at the start: invoices 0, orders 1",
            " [x] In one transaction: took the order, published 5 invoices, acknowledged the order",
            " [.] In the queues before the commit: invoices 0, orders 0",
            " [x] Committed",
            " [.] In the queues after the commit: invoices 5, orders 0",
            " [.] Received 5 of 5 invoices, none twice",
        ]
    );
    assert_eq!(vhost.queues()?, Vec::<serde_json::Value>::new(), "left behind");
    Ok(())
}

#[test]
fn a_rollback_drops_the_publishes_and_leaves_the_delivery_with_its_consumer() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let end = program(TX_PUBLISH, &vhost.url()).arg("--rollback").run().expect_code(0);
    assert_eq!(
        end.stdout,
        [
            " [.] In the queues at the start: invoices 0, orders 1",
            " [x] In one transaction: took the order, published 3 invoices, acknowledged the order",
            " [.] In the queues before the rollback: invoices 0, orders 0",
            " [x] Rolled back",
            " [.] In the queues after the rollback: invoices 0, orders 0",
            " [x] Closed the channel",
            " [.] In the queues after that: invoices 0, orders 1",
            " [.] Received 0 of 3 invoices, none twice",
        ]
    );
    Ok(())
}

/// A quorum queue where it has all arguments that these programs give it.
fn quorum() -> Result<&'static str> {
    Ok(if broker::node().is_from(3, 10)? { "quorum" } else { "classic" })
}

#[test]
fn a_channel_closed_without_a_commit_takes_its_transaction_with_it() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let end = program(TX_PUBLISH, &vhost.url()).args(["--close", "--queue-type", quorum()?]).run();
    assert_eq!(
        end.expect_code(0).stdout,
        [
            " [.] In the queues at the start: invoices 0, orders 1",
            " [x] In one transaction: took the order, published 3 invoices, acknowledged the order",
            " [.] In the queues before the channel is closed: invoices 0, orders 0",
            " [x] Closed the channel",
            " [.] In the queues after that: invoices 0, orders 1",
            " [.] Received 0 of 3 invoices, none twice",
        ]
    );
    Ok(())
}

#[test]
fn the_rules_of_transactions_hold_on_this_broker() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let end = program(TX_RULES, &vhost.url()).run().expect_code(0);
    assert_eq!(
        end.stdout,
        [
            " [x] confirm.select after tx.select",
            " [.] refused: 406 PRECONDITION_FAILED - cannot switch from tx to confirm mode",
            " [x] tx.select after confirm.select",
            " [.] refused: 406 PRECONDITION_FAILED - cannot switch from confirm to tx mode",
            " [x] tx.commit without tx.select",
            " [.] refused: 406 PRECONDITION_FAILED - channel is not transactional",
            " [x] tx.rollback without tx.select",
            " [.] refused: 406 PRECONDITION_FAILED - channel is not transactional",
            " [x] two transactions after one tx.select",
            " [.] both are done: 2 messages in the queue",
            " [x] queue.declare in a transaction that is rolled back",
            " [.] the queue is there",
            " [x] basic.ack in a transaction that is rolled back",
            " [.] not requeued: its consumer still has the message, acknowledges it again and commits",
            " [x] basic.publish, then the channel is closed without a commit",
            " [.] the publish is dropped: 0 messages in the queue",
            " [x] tx.commit of messages for two queues, one of them full",
            " [.] refused: 406 PRECONDITION_FAILED - partial tx completion, with a part of it done: 1 message in \
             each queue",
        ]
    );
    assert_eq!(vhost.queues()?, Vec::<serde_json::Value>::new(), "left behind");
    Ok(())
}

#[test]
fn queues_are_the_runs_own_durable_and_expire_if_the_run_is_killed() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut first = program(TX_PUBLISH, &vhost.url()).args(["--prefix", "ann-", "--pause", "1m"]).start();
    let mut second = program(TX_PUBLISH, &vhost.url()).args(["--prefix", "ann-", "--pause", "1m"]).start();
    for running in [&mut first, &mut second] {
        running.wait_for_line(|line| line.contains("before the commit"));
    }
    let queues = vhost.queues()?;
    assert_eq!(queues.len(), 4, "{queues:?}");
    for queue in &queues {
        let name = queue["name"].as_str().context("a name")?;
        assert!(name.starts_with("ann-tx_orders.") || name.starts_with("ann-tx_invoices."), "{name}");
        assert_eq!(queue["durable"], true);
        assert_eq!(queue["arguments"], json!({"x-queue-type": "classic", "x-expires": 600_000}));
    }
    // Stopped in the middle: nothing is done, nothing is left.
    first.interrupt();
    second.terminate();
    for running in [&mut first, &mut second] {
        running.wait(LIMIT).expect_code(0);
    }
    assert_eq!(vhost.queues()?, Vec::<serde_json::Value>::new(), "left behind");
    Ok(())
}

#[test]
fn each_message_is_tallied_as_confirmed_returned_or_nacked() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let each = "each awaited before the next";
    let batch = "awaited in batches of 7";
    let window = "at most 5 without one";
    for (args, pace, tally) in [
        (&["--strategy", "each"][..], each, ["40", "0", "0", "40"]),
        (&["--strategy", "batch", "--batch", "7"], batch, ["40", "0", "0", "40"]),
        (&["--window", "5"], window, ["40", "0", "0", "40"]),
        (&["--strategy", "each", "--unroutable-every", "13"], each, ["37", "3 (13, 26, 39)", "0", "37"]),
        (
            &["--strategy", "batch", "--batch", "7", "--unroutable-every", "9"],
            batch,
            ["36", "4 (9, 18, 27, 36)", "0", "36"],
        ),
        (&["--window", "5", "--unroutable-every", "10"], window, ["36", "4 (10, 20, 30, 40)", "0", "36"]),
        (&["--window", "5", "--queue-limit", "36"], window, ["36", "0", "4 (37, 38, 39, 40)", "36"]),
        (
            &["--window", "5", "--queue-limit", "30", "--unroutable-every", "10"],
            window,
            ["30", "4 (10, 20, 30, 40)", "6 (34, 35, 36, 37, 38, 39)", "30"],
        ),
        (
            &["--window", "5", "--unroutable-every", "20", "--queue-type", quorum()?],
            window,
            ["38", "2 (20, 40)", "0", "38"],
        ),
    ] {
        let end = program(CONFIRM_PUBLISH, &vhost.url()).args(["--messages", "40"]).args(args).run();
        let end = end.expect_code(0);
        let (rate, lines) = end.stdout.split_last().context("lines")?;
        let [confirmed, returned, nacked, received] = tally;
        assert_eq!(
            lines,
            [
                format!(" [*] Publishing 40 messages with confirms, {pace}"),
                format!(" [.] Confirmed: {confirmed}"),
                format!(" [.] Returned: {returned}"),
                format!(" [.] Nacked: {nacked}"),
                " [.] Unknown: 0".to_owned(),
                format!(" [.] Received: {received}, every confirmed message once and no other"),
            ],
            "{args:?}"
        );
        assert!(number(std::slice::from_ref(rate), " [.]")? > 0 && rate.ends_with(" messages per second"));
    }
    assert_eq!(vhost.queues()?, Vec::<serde_json::Value>::new(), "left behind");
    Ok(())
}

/// lapin hands a returned message to whichever confirm it completes next, so with many messages on their
/// way this fails as soon as a return is believed to belong to the confirm it came with.
#[tokio::test]
async fn returns_are_told_apart_exactly_with_hundreds_of_messages_on_their_way() -> Result<()> {
    const MESSAGES: usize = 3000;
    let vhost = broker::node().vhost()?;
    let args = ConnectionArgs::for_url(vhost.url());
    let connection = Connection::open(&args, "confirms", &Shutdown::new()).await?;
    let size = NonZero::new(500).context("500 is not 0")?;
    for strategy in [Strategy::Batch(size), Strategy::Windowed(size)] {
        let queue = TrialQueue::new(&args, "confirms", QueueType::Classic)?;
        let plan = Plan { queue: queue.name.clone(), unroutable_every: NonZero::new(2), strategy };
        let mut ledger = Ledger::new(MESSAGES);
        let published = connection.session(async |session| {
            queue.declare(&session.channel).await?;
            confirms::publish_all(&session, &plan, &mut ledger).await
        });
        published.await?;
        assert_eq!(ledger.with(Fate::Returned), (2..=MESSAGES).step_by(2).collect::<Vec<_>>());
        assert_eq!(ledger.with(Fate::Confirmed), (1..=MESSAGES).step_by(2).collect::<Vec<_>>());
        assert_eq!(ledger.compare(&arrivals::collect(&connection, &queue).await?)?, 0);
    }
    Ok(())
}

#[test]
fn the_table_of_guarantees_counts_what_arrived_and_says_what_each_is_worth() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let args = ["--messages", "60", "--batch", "25", "--window", "16"];
    let end = program(GUARANTEES, &vhost.url()).args(args).run().expect_code(0);
    assert_eq!(end.stdout[0], " [*] Publishing 60 persistent messages in each way");
    let names = [
        "no guarantee",
        "transaction per message",
        "transaction per 25",
        "confirm each",
        "confirms, 16 in flight",
    ];
    for (name, line) in names.iter().zip(&end.stdout[2..]) {
        let rest = line.strip_prefix(name).with_context(|| format!("{name}: {line}"))?;
        let (rate, received) = rest.trim().split_once(' ').context("two columns")?;
        assert!(rate.parse::<u64>()? > 0, "{line}");
        assert_eq!(received.trim(), "60 of 60", "{line}");
    }
    for (name, lines) in names.iter().zip(end.stdout[7..].chunks(4)) {
        assert_eq!(lines[..2], ["", name]);
        assert!(lines[2].starts_with("  promises  ") && lines[3].starts_with("  does not  "), "{lines:?}");
    }
    assert_eq!(vhost.queues()?, Vec::<serde_json::Value>::new(), "left behind");
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_before_anything_connects() {
    for (path, args) in [
        (TX_PUBLISH, &["--messages", "0"][..]),
        (TX_PUBLISH, &["--rollback", "--close"]),
        (TX_PUBLISH, &["--pause", "5"]),
        (CONFIRM_PUBLISH, &["--strategy", "none"]),
        (CONFIRM_PUBLISH, &["--unroutable-every", "0"]),
        (CONFIRM_PUBLISH, &["--window", "0"]),
        (CONFIRM_PUBLISH, &["--messages", "-1"]),
        (GUARANTEES, &["--batch", "0"]),
        (TX_RULES, &["--prefix", &"x".repeat(250)]),
    ] {
        let end = Program::new(path).args(["--url", "amqp://127.0.0.1:1"]).args(args).run().expect_code(2);
        assert!(end.stdout.is_empty() && !end.stderr.is_empty(), "{args:?}: {end:?}");
    }
}

/// How a connection is broken under a commit.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// The commit is done; its answer never comes.
    AnswerLost,
    /// The commit never reaches the broker.
    CommitLost,
    /// Nothing is heard from the broker any more.
    Silence,
}

#[tokio::test]
async fn a_commit_without_an_answer_is_unknown_and_not_tried_again() -> Result<()> {
    tokio::try_join!(
        commit_on_a_connection_that_breaks(Break::AnswerLost, 1),
        commit_on_a_connection_that_breaks(Break::CommitLost, 0),
        commit_on_a_connection_that_breaks(Break::Silence, 1),
    )?;
    Ok(())
}

async fn commit_on_a_connection_that_breaks(how: Break, arrived: u32) -> Result<()> {
    let (vhost, relay) = (broker::node().vhost()?, relay()?);
    let direct = ConnectionArgs::for_url(vhost.url());
    let observer = Connection::open(&direct, "observer", &Shutdown::new()).await?;
    let args = ConnectionArgs::for_url(vhost.url_through(relay.port()));
    let connection = Connection::open(&args, "tx", &Shutdown::new()).await?;
    let queue = TrialQueue::new(&direct, "tx", QueueType::Classic)?;
    observer.session(async |session| queue.declare(&session.channel).await).await?;

    let committing = AtomicBool::new(false);
    let commit = tx::commit_all(&connection, async |session| {
        assert!(!committing.load(Ordering::Relaxed), "the transaction was done again");
        tx::publish(&session.channel, &queue.name, "1").await?;
        let lost = if let Break::CommitLost = how { Direction::ToBroker } else { Direction::ToClient };
        relay.silence(lost, true);
        committing.store(true, Ordering::Relaxed);
        Ok(())
    });
    let break_it = async {
        while !committing.load(Ordering::Relaxed) {
            sleep(LOOK).await;
        }
        wait_for_messages(&observer, &queue, arrived).await?;
        if !matches!(how, Break::Silence) {
            relay.cut();
            relay.silence(Direction::Both, false);
        }
        anyhow::Ok(())
    };
    let (committed, broken) = tokio::join!(commit, break_it);
    broken?;
    assert!(matches!(committed, Err(CommitError::Unknown(_))), "{how:?}: {committed:?}");
    assert_eq!(messages_in(&observer, &queue).await?, arrived, "{how:?}");
    Ok(())
}

#[tokio::test]
async fn a_refused_transaction_is_not_done_and_a_partial_one_is_unknown() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let args = ConnectionArgs::for_url(vhost.url());
    let connection = Connection::open(&args, "tx", &Shutdown::new()).await?;
    let free = TrialQueue::new(&args, "free", QueueType::Classic)?;
    let full = TrialQueue::new(&args, "full", QueueType::Classic)?.with_limit(Some(1));

    let refused = tx::commit_all(&connection, async |session| {
        free.declare(&session.channel).await?;
        full.declare(&session.channel).await?;
        tx::publish(&session.channel, &free.name, "1").await?;
        // Closes the channel when the broker reads it, before the commit.
        session.channel.basic_ack(99, Default::default()).await.map_err(Error::own)
    });
    let refused = refused.await;
    assert!(matches!(refused, Err(CommitError::NotDone(_))), "{refused:?}");

    let partial = tx::commit_all(&connection, async |session| {
        for queue in [&free, &full, &full] {
            tx::publish(&session.channel, &queue.name, "2").await?;
        }
        Ok(())
    });
    let partial = partial.await;
    assert!(matches!(&partial, Err(CommitError::Unknown(error)) if error.code() == Some(406)), "{partial:?}");
    let arrived = arrivals::collect(&connection, &free).await?;
    assert_eq!(arrived, [("2".to_owned(), 1)].into(), "the refused transaction was done, or the partial not");
    Ok(())
}

#[tokio::test]
async fn tx_publish_calls_a_commit_unknown_whose_answer_was_cut_off_though_it_was_done() -> Result<()> {
    let (vhost, relay) = (broker::node().vhost()?, relay()?);
    let direct = ConnectionArgs::for_url(vhost.url());
    let observer = Connection::open(&direct, "observer", &Shutdown::new()).await?;
    let mut running = program(TX_PUBLISH, &vhost.url_through(relay.port())).args(["--pause", "5s"]).start();
    running.wait_for_line(|line| line.contains("before the commit"));
    relay.silence(Direction::ToClient, true);
    let invoices = queue_of_run(&vhost, "tx_invoices").await?;
    wait_for_messages(&observer, &invoices, 3).await?;
    relay.cut();
    relay.silence(Direction::ToClient, false);
    running.expect_line(" [!] No answer to the commit: done or not done, unknown");
    running.expect_line(" [.] In the queues a moment later: invoices 3, orders 0");
    let end = running.wait(LIMIT).expect_code(1);
    assert!(!end.stdout.iter().any(|line| line.contains("Committed")));
    assert!(end.stderr.iter().any(|line| line.starts_with("error: the outcome of the commit is unknown")));
    assert_eq!(vhost.queues()?, Vec::<serde_json::Value>::new(), "left behind");
    Ok(())
}

#[test]
fn a_transaction_lost_before_its_commit_is_done_again_as_a_whole() -> Result<()> {
    let (vhost, relay) = (broker::node().vhost()?, relay()?);
    let mut running = program(TX_PUBLISH, &vhost.url_through(relay.port())).args(["--pause", "5s"]).start();
    running.wait_for_line(|line| line.contains("before the commit"));
    relay.cut();
    for line in [
        " [x] In one transaction: took the order, published 3 invoices, acknowledged the order",
        " [.] In the queues before the commit: invoices 0, orders 0",
        " [x] Committed",
        " [.] In the queues after the commit: invoices 3, orders 0",
        " [.] Received 3 of 3 invoices, none twice",
    ] {
        running.expect_line(line);
    }
    running.wait(LIMIT).expect_code(0);
    Ok(())
}

/// Confirmed and unknown together are all messages, and what arrived bears it out.
fn expect_tally(end: &harness::End, messages: usize) -> Result<()> {
    let confirmed = number(&end.stdout, " [.] Confirmed:")?;
    let unknown = number(&end.stdout, " [.] Unknown:")?;
    assert_eq!(confirmed + unknown, messages, "{end:?}");
    assert_eq!(number(&end.stdout, " [.] Received:")?, confirmed, "{end:?}");
    assert_eq!(end.code, Some(i32::from(unknown > 0)), "{end:?}");
    Ok(())
}

#[tokio::test]
async fn confirms_lost_with_their_connection_are_unknown_and_the_rest_is_published() -> Result<()> {
    const MESSAGES: usize = 8000;
    let (vhost, relay) = (broker::node().vhost()?, relay()?);
    let direct = ConnectionArgs::for_url(vhost.url());
    let observer = Connection::open(&direct, "observer", &Shutdown::new()).await?;
    // With a window of 128 this makes 3200 messages per second at most, however fast the machine is.
    relay.delay(Duration::from_millis(20));
    let mut running =
        program(CONFIRM_PUBLISH, &vhost.url_through(relay.port())).args(["--messages", "8000"]).start();
    let queue = queue_of_run(&vhost, "confirms").await?;
    for (connections, count) in [(1, 500), (2, 2000), (3, 4000)] {
        relay.wait_for_accepted(connections, LIMIT);
        wait_for_messages(&observer, &queue, count).await?;
        relay.cut();
    }
    let end = running.wait(Duration::from_secs(30));
    expect_tally(&end, MESSAGES)?;
    assert!(relay.accepted() >= 4, "{} connections", relay.accepted());
    Ok(())
}

mod own_broker {
    use super::*;

    #[tokio::test]
    async fn a_broker_that_is_killed_and_restarted_loses_and_doubles_nothing() -> Result<()> {
        const MESSAGES: usize = 8000;
        let node = Node::start()?;
        let vhost = node.vhost()?;
        let direct = ConnectionArgs::for_url(vhost.url());
        let observer = Connection::open(&direct, "observer", &Shutdown::new()).await?;
        let mut transaction = program(TX_PUBLISH, &vhost.url()).args(["--pause", "8s"]).start();
        transaction.wait_for_line(|line| line.contains("before the commit"));
        let slow = Relay::start(("127.0.0.1", node.port()))?;
        slow.delay(Duration::from_millis(40));
        let mut confirms =
            program(CONFIRM_PUBLISH, &vhost.url_through(slow.port())).args(["--messages", "8000"]).start();
        let queue = queue_of_run(&vhost, "confirms").await?;
        wait_for_messages(&observer, &queue, 500).await?;
        // Far more than it can send until the kill.
        let mut table = program(GUARANTEES, &vhost.url()).args(["--messages", "3000"]).start();
        queue_of_run(&vhost, "guarantees").await?;
        node.write_out()?;
        node.kill()?;
        node.restart()?;

        let limit = Duration::from_secs(60);
        expect_tally(&confirms.wait(limit), MESSAGES)?;
        let table = table.wait(limit).expect_code(0);
        assert_eq!(table.stdout.iter().filter(|line| line.ends_with("3000 of 3000")).count(), 5, "{table:?}");
        assert!(table.stderr.iter().any(|line| line.contains("connection lost")), "{table:?}");
        // Its transaction was open when the broker died: nothing was done, and all of it is done now.
        let transaction = transaction.wait(limit).expect_code(0);
        assert_eq!(
            transaction.stdout.last().map(String::as_str),
            Some(" [.] Received 3 of 3 invoices, none twice")
        );
        Ok(())
    }
}
