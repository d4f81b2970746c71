//! Nodes that are killed, stopped, not up yet, paused, or short of memory and disk.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use broker::{Node, speaks_amqp};
use futures_util::future::join_all;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::json;
use shared::{Deadline, Outcome, Publisher, Queue, QueueType, Session, State, Topology};
use striker_keeper::shots::shot;

use crate::support::{Client, LIMIT, OwnNode, Resource, Row, Stage, Tally, Watched, after, row, scale};

/// Brings a node back with `start`; when it accepted AMQP, which is a while before `start` is done.
fn come_back(node: &'static Node, start: impl FnOnce(&Node) -> Result<()>) -> Result<Instant> {
    let poll = thread::spawn(move || {
        let end = Instant::now() + LIMIT;
        while !speaks_amqp(("127.0.0.1", node.port()), Duration::from_millis(250)) {
            ensure!(Instant::now() < end, "the node does not accept AMQP");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Instant::now())
    });
    start(node)?;
    poll.join().map_err(|_| anyhow!("the poll panicked"))?
}

#[test]
fn fault_01_broker_killed() -> Result<()> {
    row(1, "the broker is killed (`kill -9`) under full load, and started again", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let (count, kills) = scale((100_000, 2), (1_000_000, 20));
        let limit = Duration::from_secs(scale(200, 900));
        let url = stage.url();
        let keeper = stage.start_keeper(&url, &["--prefetch", "200"])?;
        own.write_out()?;
        let number = count.to_string();
        let in_flight = scale("200", "500");
        let options = ["--count", &number, "--rate", "0", "--in-flight", in_flight];
        let striker = stage.striker(&url, &options).start();
        let mut connected = Vec::new();
        for kill in 1..=kills {
            keeper.catch.wait_for(kill * count / (kills + 1), limit)?;
            connected.push(kill_and_restart(&own, &keeper, row)?);
        }
        stage.expect_keeper(1)?;
        let [striker, keeper] = stage.finish_within(limit, row, striker, keeper)?;
        ensure!(
            striker.get("reconnects") >= kills && keeper.get("reconnects") >= kills,
            "{striker:?} {keeper:?}"
        );
        row.seen = format!(
            "{count} messages through {kills} kills, all confirmed and consumed, {} sent again; the keeper was \
            connected after {:.0} ms at the median, the rest is RabbitMQ's answer to `basic.consume`",
            striker.get("resent"),
            median(connected).as_secs_f64() * 1000.0
        );
        Ok(())
    })
}

/// Row 1 without the load: how long the programs take, rather than the broker with its log.
#[test]
fn fault_36_broker_killed_with_little_to_do() -> Result<()> {
    row(36, "the same as 1 at 50 messages/s", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let url = stage.url();
        let keeper = stage.start_keeper(&url, &[])?;
        own.write_out()?;
        let mut striker = stage.striker(&url, &["--rate", "50"]).start();
        let kills = scale(1, 20);
        for _ in 0..kills {
            keeper.catch.wait_for_more(50, LIMIT)?;
            kill_and_restart(&own, &keeper, row)?;
        }
        stage.expect_keeper(1)?;
        striker.terminate();
        let confirmed = Tally::of(&stage.end(&mut striker, 0)?)?.get("confirmed");
        stage.drain(row, confirmed, keeper)?;
        row.seen = format!("{confirmed} messages through {kills} kills, all consumed");
        Ok(())
    })
}

/// Kills the node and starts it again; notes how long after it accepts AMQP the keeper has its next message, and
/// returns how long after that it was connected.
fn kill_and_restart(own: &OwnNode, keeper: &Watched, row: &mut Row) -> Result<Duration> {
    let starts = keeper.catch.starts();
    own.kill()?;
    let up = come_back(own.node(), Node::restart)?;
    row.recoveries.push(after(up, keeper.catch.wait_for_return(starts, LIMIT)?));
    Ok(after(up, keeper.catch.last_connect().context("the keeper was never connected")?))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[(times.len() - 1) / 2]
}

#[test]
fn fault_02_orderly_stop() -> Result<()> {
    row(2, "the broker is stopped in good order, for longer than somebody is willing to wait", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let url = stage.url();
        let keeper = stage.start_keeper(&url, &["--reconnect-attempts", "0"])?;
        let mut impatient = stage.striker(&url, &["--reconnect-attempts", "5", "--rate", "50"]).start();
        keeper.catch.wait_for(5, LIMIT)?;
        let starts = keeper.catch.starts();

        own.stop_app()?;
        let line = stage.failure(&mut impatient)?;
        ensure!(line.contains("gave up on 127.0.0.1:") && line.contains("after 5 failed attempts"), "{line}");
        ensure!(line.contains("connection refused; nothing listens on"), "{line}");
        thread::sleep(scale(Duration::ZERO, Duration::from_secs(61)));

        let up = come_back(own.node(), Node::start_app)?;
        row.recoveries.push(after(up, keeper.catch.wait_for_start(starts, LIMIT)?));
        stage.expect_keeper(1)?;
        let striker = stage.run_striker(&url, &["--count", "50", "--rate", "0"])?;
        let confirmed = Tally::of(&impatient.wait(LIMIT))?.get("confirmed") + striker.get("confirmed");
        stage.drain(row, confirmed, keeper)?;
        row.seen =
            "the patient program comes back, the one with 5 attempts ends with exit code 1 and says so"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_03_not_up_at_start() -> Result<()> {
    row(3, "the broker is not up when the programs start", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let url = stage.url();
        own.write_out()?;
        own.kill()?;
        let mut keeper = Watched::launch(stage.keeper(&url, &["--wait", "60s"]), LIMIT);
        keeper.program.wait_for_error_line(|line| line.contains("trying for 1m"));
        let line = stage.failure(&mut stage.striker(&url, &["--wait", "300ms"]).start())?;
        ensure!(line.contains("connection refused; nothing listens on"), "{line}");

        let up = come_back(own.node(), Node::restart)?;
        row.recoveries.push(after(up, keeper.catch.wait_for_start(0, LIMIT)?));
        let striker = stage.striker(&url, &["--count", "100", "--rate", "0"]).start();
        stage.finish(row, striker, keeper)?;
        row.seen =
            "tried for as long as `--wait` says, with a line that names the port; the one with 300 ms ends \
            with exit code 1"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_07_half_open() -> Result<()> {
    row(7, "the broker's process stands still (SIGSTOP): connections stay open, nothing is answered", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let url = format!("{}?heartbeat=1&connection_timeout=1000", stage.url());
        let mut keeper = stage.start_keeper(&url, &[])?;
        let mut striker = stage.striker(&url, &["--count", "400", "--rate", "100"]).start();
        keeper.catch.wait_for(20, LIMIT)?;

        own.pause()?;
        let since = Instant::now();
        keeper.program.wait_for_error_line(|line| line.contains("connection lost: "));
        let noticed = since.elapsed();
        striker.wait_for_error_line(|line| line.contains("connection lost: "));
        let starts = keeper.catch.starts();
        own.resume()?;
        let resumed = Instant::now();
        row.recoveries.push(after(resumed, keeper.catch.wait_for_return(starts, LIMIT)?));
        stage.expect_keeper(1)?;
        stage.finish(row, striker, keeper)?;
        row.seen = format!("noticed after {:.1} s with a heartbeat of 1 s", noticed.as_secs_f64());
        Ok(())
    })
}

#[test]
fn fault_10_memory_alarm() -> Result<()> {
    row(10, "the broker is short of memory and blocks publishers", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let url = stage.url();
        let keeper = stage.start_keeper(&url, &["--work", "10ms"])?;
        // Work for the keeper while nobody can publish.
        let options = ["--count", "300", "--rate", "0", "--in-flight", "300"];
        let before = stage.run_striker(&url, &options)?.get("confirmed");
        let mut patient = stage.striker(&url, &["--rate", "100"]).start();
        let mut stopped = stage.striker(&url, &["--rate", "100"]).start();

        let alarm = own.alarm(Resource::Memory)?;
        for striker in [&mut patient, &mut stopped] {
            striker.wait_for_error_line(|line| line.contains("the broker blocks publishing: low on memory"));
        }
        keeper.catch.wait_for_more(10, LIMIT)?;
        let since = Instant::now();
        stopped.terminate();
        let stopped = Tally::of(&stage.end(&mut stopped, 0)?)?.get("confirmed");
        ensure!(
            since.elapsed() < 2 * shared::SHUTDOWN_DEADLINE,
            "a blocked program ends: {:?}",
            since.elapsed()
        );

        drop(alarm);
        patient.wait_for_error_line(|line| line.contains("the broker takes messages again"));
        stage.expect_keeper(1)?;
        patient.terminate();
        let patient = Tally::of(&stage.end(&mut patient, 0)?)?;
        ensure!(patient.get("confirmed") == patient.get("sent"), "{patient:?}");
        stage.drain(row, before + stopped + patient.get("confirmed"), keeper)?;
        row.seen =
            "the strikers say `low on memory` and wait, one of them ends on SIGTERM meanwhile; the keeper \
            goes on"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_11_disk_and_memory_alarm() -> Result<()> {
    row(11, "the disk is full, then the memory too", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let client = Client::open(&stage.url(), "alarmed")?;
        let queues = vec![Queue::new("q", QueueType::Classic)];
        client.declare(&Topology { queues, ..Topology::default() })?;
        let publisher = Publisher::new(&client.connection, 1).with_deadline(Duration::from_secs(2));
        let publish = || client.publish(&publisher, "", "q", "body");
        ensure!(matches!(publish()?, Outcome::Confirmed));

        let disk = own.alarm(Resource::Disk)?;
        // The first message that is in flight brings the news.
        let outcome = publish()?;
        ensure!(
            matches!(&outcome, Outcome::Unknown(error) if error.to_string().contains("low on disk")),
            "{outcome:?}"
        );
        let memory = own.alarm(Resource::Memory)?;
        drop(disk);
        let outcome = publish()?;
        ensure!(matches!(&outcome, Outcome::NotSent(_)), "still short of memory: {outcome:?}");
        drop(memory);
        client.wait_for_state("unblocked", |state| matches!(state, State::Up { generation: 1 }))?;
        let outcome = publish()?;
        ensure!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
        let states = client.states();
        ensure!(
            matches!(states[..], [State::Up { .. }, State::Blocked { .. }, State::Up { .. }]),
            "blocked once, unblocked once: {states:?}"
        );
        client.close()?;
        row.seen =
            "blocked once, unblocked once both alarms are over; what is published meanwhile is *unknown* or \
            *not sent*, within its deadline"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_18_channel_limit() -> Result<()> {
    row(18, "the broker allows fewer channels than the program would like", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let _setting = own.set("channel_max", 4)?;
        let client = Client::open(&stage.url(), "channels")?;
        let queues = vec![Queue::new("q", QueueType::Classic)];
        client.declare(&Topology { queues, ..Topology::default() })?;
        let publisher = Publisher::new(&client.connection, 20);
        let outcomes = client.wait(async {
            let ids: Vec<_> = (0..20).map(|_| shared::message_id()).collect();
            let messages: Vec<_> = ids.iter().map(|id| shot("", "q", id, "body")).collect();
            join_all(messages.iter().map(|message| publisher.publish(message))).await
        })?;
        ensure!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Confirmed)), "{outcomes:?}");
        ensure!(client.states().len() == 1, "{:?}", client.states());
        client.close()?;
        row.seen =
            "20 messages at once on a connection of 4 channels: all confirmed, on the channels that there \
            are"
            .to_owned();
        Ok(())
    })
}

#[test]
fn fault_34_transient_state_lost() -> Result<()> {
    row(34, "the broker comes back without its transient queues", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let url = stage.url();
        let queue_type = if takes_transient_queues(&stage)? { "transient" } else { "classic" };
        let keeper = stage.start_keeper(&url, &["--queue-type", queue_type])?;
        let client = Client::open(&url, "server-named")?;
        let (names, named) = mpsc::channel();
        let connection = client.connection.clone();
        let session = client.runtime.spawn(async move {
            let mut sessions = connection.sessions();
            while sessions.run(|session| anonymous(session, names.clone())).await?.is_none() {}
            Ok::<_, shared::Error>(())
        });
        let first = named.recv_timeout(LIMIT)?;
        let starts = keeper.catch.starts();

        own.stop_app()?;
        let up = come_back(own.node(), Node::start_app)?;
        row.recoveries.push(after(up, keeper.catch.wait_for_start(starts, LIMIT)?));
        let second = named.recv_timeout(LIMIT)?;
        ensure!(
            first.starts_with("amq.gen-") && second.starts_with("amq.gen-") && first != second,
            "{first} {second}"
        );
        let queues = stage.vhost.queues()?;
        ensure!(queues.len() == 2 && queues.iter().any(|queue| queue["name"] == *second), "{queues:?}");
        client.shutdown.request();
        client.wait(session)???;
        client.close()?;
        stage.expect_keeper(1)?;
        let striker = stage.striker(&url, &["--count", "50", "--rate", "0"]).start();
        stage.finish(row, striker, keeper)?;
        row.seen = "declared again before they are consumed; a queue that the broker named has a new name, which the \
            program is told"
            .to_owned();
        Ok(())
    })
}

/// Whether the broker lets the keeper have a transient queue; if not, the keeper has to say why.
fn takes_transient_queues(stage: &Stage<'_>) -> Result<bool> {
    let probe = stage.node.vhost()?;
    if stage.node.put(&format!("/api/queues/{}/probe", probe.name()), &json!({"durable": false})).is_ok() {
        return Ok(true);
    }
    let mut keeper = stage.keeper(&stage.url(), &["--queue-type", "transient"]).start();
    let line = stage.failure(&mut keeper)?;
    ensure!(
        line.contains("541 INTERNAL_ERROR - Feature `transient_nonexcl_queues`")
            && line.contains("use --queue-type quorum or classic"),
        "{line}"
    );
    Ok(false)
}

/// Consumes from a queue that the broker names, and tells the name.
async fn anonymous(session: Session, names: mpsc::Sender<String>) -> shared::Result<()> {
    let (options, table) = (QueueDeclareOptions::exclusive(), FieldTable::default());
    let queue = session.channel.queue_declare("".into(), options, table).deadline("declare a queue").await?;
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let consume = session.channel.basic_consume(queue.name().clone(), "".into(), options, table);
    let mut consumer = consume.deadline("start to consume").await?;
    // The row may be over.
    let _ = names.send(queue.name().to_string());
    while session.next(&mut consumer).await?.is_some() {}
    Ok(())
}
