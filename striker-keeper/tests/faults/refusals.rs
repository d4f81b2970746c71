//! What the broker refuses: arguments, permissions, queues of others, vhosts and logins that are gone.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::Running;
use lapin::options::BasicAckOptions;
use shared::{Consumer, Deadline, Outcome, Publisher, Queue, QueueType, State, Topology, Verdict};

use crate::support::{Client, LIMIT, Stage, Tally, Watched, eventually, row};

/// Both programs at work in a vhost, until something that no waiting can cure happens to them.
fn at_work(stage: &Stage<'_>) -> Result<(Watched, Running)> {
    let keeper = stage.start_keeper(&stage.url(), &[])?;
    let striker = stage.striker(&stage.url(), &["--rate", "50"]).start();
    keeper.catch.wait_for(5, LIMIT)?;
    Ok((keeper, striker))
}

/// Both programs must end with exit code 1 and these words.
fn expect_failures(
    stage: &Stage<'_>,
    keeper: &mut Watched,
    striker: &mut Running,
    words: &[&str],
) -> Result<()> {
    for program in [&mut keeper.program, striker] {
        let line = stage.failure(program)?;
        for words in words {
            ensure!(line.contains(words), "no '{words}' in: {line}");
        }
    }
    let confirmed = Tally::of(&striker.wait(LIMIT))?.get("confirmed");
    ensure!(confirmed > 0, "the striker had nothing to lose");
    Ok(())
}

/// What was confirmed and is neither printed by the keeper nor in the queue.
fn count(
    stage: &Stage<'_>,
    row: &mut crate::support::Row,
    keeper: &mut Watched,
    striker: &mut Running,
) -> Result<()> {
    let confirmed = Tally::of(&striker.wait(LIMIT))?.get("confirmed");
    let keeper = Tally::of(&keeper.program.wait(LIMIT))?;
    let left = || {
        let queue = stage.vhost.queue("casillas")?.context("no such queue")?;
        queue["messages"].as_u64().context("no count")
    };
    // A quorum queue's counter is late.
    eventually("the rest in the queue", || Ok(keeper.get("distinct") + left()? >= confirmed))?;
    row.count(confirmed, &keeper, left()?);
    Ok(())
}

#[test]
fn fault_13_other_arguments() -> Result<()> {
    row(13, "the queue exists with other arguments; a message is acknowledged twice", |row| {
        let stage = Stage::new()?;
        let url = stage.url();
        let mut keeper = stage.start_keeper(&url, &["--queue-type", "quorum"])?;
        keeper.program.terminate();
        stage.end(&mut keeper.program, 0)?;
        let line = stage.failure(&mut stage.keeper(&url, &["--queue-type", "classic"]).start())?;
        ensure!(
            line.contains("406 PRECONDITION_FAILED") && line.contains("with another x-queue-type"),
            "{line}"
        );

        let client = Client::open(&url, "twice")?;
        let queues = vec![Queue::new("q", QueueType::Classic)];
        client.declare(&Topology { queues, ..Topology::default() })?;
        let session = client.connection.session(async |session| {
            for _ in 0..2 {
                session.channel.basic_ack(1, BasicAckOptions::default()).deadline("acknowledge").await?;
            }
            let (options, table) = (Default::default(), Default::default());
            session.channel.queue_declare("q".into(), options, table).deadline("look at the queue").await
        });
        let error = client.wait(session)?.err().context("an unknown delivery tag was taken")?;
        ensure!(error.code() == Some(406) && error.to_string().contains("unknown delivery tag"), "{error}");
        let publisher = Publisher::new(&client.connection, 1);
        let outcome = client.publish(&publisher, "", "q", "afterwards")?;
        ensure!(matches!(outcome, Outcome::Confirmed) && client.states().len() == 1, "{outcome:?}");
        client.close()?;
        row.seen =
            "`406 PRECONDITION_FAILED`: the program ends at once with the argument's name; nothing is tried \
            again"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_14_no_permission() -> Result<()> {
    row(14, "the user may not declare, may not publish, or uses a name of the broker's own", |row| {
        let stage = Stage::new()?;
        let url = stage.url();
        stage.permit("^$", ".*", ".*")?;
        let line = stage.failure(&mut stage.keeper(&url, &[]).start())?;
        ensure!(
            line.contains("403 ACCESS_REFUSED") && line.contains("rabbitmqctl set_permissions -p"),
            "{line}"
        );
        stage.permit(".*", "^$", ".*")?;
        // Without end: a refusal of this kind concerns every further message as well.
        let line = stage.failure(&mut stage.striker(&url, &["--rate", "0"]).start())?;
        ensure!(
            line.contains("403 ACCESS_REFUSED") && line.contains("rabbitmqctl set_permissions -p"),
            "{line}"
        );
        stage.permit(".*", ".*", ".*")?;
        let line = stage.failure(&mut stage.keeper(&url, &["--prefix", "amq."]).start())?;
        ensure!(line.contains("403 ACCESS_REFUSED") && line.contains("reserved prefix"), "{line}");
        row.seen =
            "`403 ACCESS_REFUSED`: the programs end at once and print the command that permits it".to_owned();
        Ok(())
    })
}

#[test]
fn fault_15_exclusive_queue_of_another() -> Result<()> {
    row(15, "the queue belongs to another connection alone: at first, and after a loss", |row| {
        let stage = Stage::new()?;
        let relay = stage.relay()?;
        let queues = vec![Queue::new("q", QueueType::Exclusive)];
        let topology = Topology { queues, ..Topology::default() };
        let consumer = Consumer::new("alone", "q").with_topology(topology.clone());
        let ours = Client::open(&stage.url_at(relay.port()), "ours")?;
        let running = ours.consume(&consumer, async |_, _| Verdict::Ack);
        let consumers = |count| stage.vhost.consumers().map(|consumers| consumers.len() == count);
        eventually("the first consumer", || consumers(1))?;

        let theirs = Client::open(&stage.url(), "theirs")?;
        let refused = theirs.wait(theirs.consume(&consumer, async |_, _| Verdict::Ack))??;
        ensure!(refused.as_ref().is_err_and(|error| error.code() == Some(405)), "{refused:?}");

        // Now the queue is theirs, as it is the broker's idea of our own lost connection for a while.
        relay.refuse(true);
        relay.cut();
        ours.wait_for_state("lost", |state| matches!(state, State::Reconnecting { .. }))?;
        eventually("the queue to be free", || Ok(theirs.declare(&topology).is_ok()))?;
        relay.refuse(false);
        ours.wait_for_state("back", |state| matches!(state, State::Up { .. }))?;
        sleep(Duration::from_millis(500));
        ensure!(!running.is_finished() && consumers(0)?, "it is tried again");
        theirs.close()?;
        eventually("the consumer to come back", || consumers(1))?;
        ours.shutdown.request();
        ours.wait(running)???;
        ours.close()?;
        row.seen =
            "at first `405 RESOURCE_LOCKED` is an error; after a loss it is tried again until the queue is \
            free"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_21_vhost_deleted() -> Result<()> {
    row(21, "the vhost is deleted", |row| {
        let stage = Stage::new()?;
        let (mut keeper, mut striker) = at_work(&stage)?;
        stage.node.delete(&format!("/api/vhosts/{}", stage.vhost.name()))?;
        // The broker takes the permissions away first: whoever asks for something just then hears of that.
        let add = format!("rabbitmqctl add_vhost {}", stage.vhost.name());
        for program in [&mut keeper.program, &mut striker] {
            let line = stage.failure(program)?;
            let gone =
                line.contains("530 NOT_ALLOWED") && line.contains("no such vhost") && line.contains(&add);
            let going = (line.contains("403 ACCESS_REFUSED") || line.contains("530 NOT_ALLOWED"))
                && line.contains("rabbitmqctl set_permissions");
            ensure!(gone || going, "{line}");
        }
        row.seen =
            "`530 NOT_ALLOWED` on the next connection: both programs end with exit code 1 and print the \
            command that makes the vhost; what was in it is gone with it"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_22_password_changed() -> Result<()> {
    row(22, "the password is changed", |row| {
        let stage = Stage::new()?;
        let (mut keeper, mut striker) = at_work(&stage)?;
        stage.set_password(&shared::message_id())?;
        keeper.catch.wait_for_more(20, LIMIT)?;
        stage.vhost.close_connections()?;
        let change = format!("rabbitmqctl change_password {} NEW", stage.user);
        expect_failures(&stage, &mut keeper, &mut striker, &["403 ACCESS_REFUSED", &change])?;
        count(&stage, row, &mut keeper, &mut striker)?;
        row.seen =
            "connections that stand go on; the next one is refused with `403 ACCESS_REFUSED`: both programs \
            end with exit code 1 and print the command that sets a password"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_23_user_deleted() -> Result<()> {
    row(23, "the user is deleted, or loses the permissions", |row| {
        let stage = Stage::new()?;
        let (mut keeper, mut striker) = at_work(&stage)?;
        stage.node.delete(&format!("/api/users/{}", stage.user))?;
        expect_failures(
            &stage,
            &mut keeper,
            &mut striker,
            &["403 ACCESS_REFUSED", "rabbitmqctl change_password"],
        )?;
        count(&stage, row, &mut keeper, &mut striker)?;

        let stage = Stage::new()?;
        let (mut keeper, mut striker) = at_work(&stage)?;
        stage.node.delete(&stage.permissions())?;
        stage.vhost.close_connections()?;
        let permit = format!("rabbitmqctl set_permissions -p {} {}", stage.vhost.name(), stage.user);
        expect_failures(&stage, &mut keeper, &mut striker, &["530 NOT_ALLOWED", &permit])?;
        count(&stage, row, &mut keeper, &mut striker)?;
        row.seen =
            "`403 ACCESS_REFUSED`, `530 NOT_ALLOWED`: both programs end with exit code 1 and print the \
            command that helps"
                .to_owned();
        Ok(())
    })
}
