//! Nodes that are killed, stopped, not up yet, paused, or short of memory and disk.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::{Node, speaks_amqp};

use crate::support::{LIMIT, OwnNode, Stage, after, row, scale};

/// RabbitMQ loses the content of a quorum queue that is declared less than a second before a crash: the
/// broker's fault, on every version. A queue that is to survive has to be older.
const QUORUM_QUEUE_IS_SAFE: Duration = Duration::from_millis(1500);

/// Restarts a killed node; when it accepted AMQP.
fn restart(node: &'static Node) -> Result<Instant> {
    let (accepts, accepted) = mpsc::channel();
    let poll = thread::spawn(move || {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if speaks_amqp(("127.0.0.1", node.port()), Duration::from_millis(250)) {
                let _ = accepts.send(Instant::now());
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    node.restart()?;
    poll.join().ok().context("the poll ended badly")?;
    accepted.recv().context("the node does not accept AMQP")
}

#[test]
fn fault_01_broker_killed() -> Result<()> {
    row(1, "the broker is killed (`kill -9`) and started again", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        let (count, kills) = scale((100_000, 2), (1_000_000, 20));
        let limit = scale(LIMIT, Duration::from_secs(900));
        let url = stage.url();
        let keeper = stage.start_keeper(&url, &["--prefetch", "200"])?;
        thread::sleep(QUORUM_QUEUE_IS_SAFE);
        let number = count.to_string();
        let in_flight = scale("1000", "500");
        let options = ["--count", &number, "--rate", "0", "--in-flight", in_flight];
        let striker = stage.striker(&url, &options).start();
        for kill in 1..=kills {
            keeper.catch.wait_for(kill * count / (kills + 1), limit)?;
            let starts = keeper.catch.starts();
            own.kill()?;
            let up = restart(own.node())?;
            let first = keeper.catch.wait_for_return(starts, LIMIT)?;
            row.recoveries.push(after(up, first));
        }
        stage.expect_keeper(1)?;
        let [striker, keeper] = stage.finish_within(limit, row, striker, keeper)?;
        ensure!(striker.get("reconnects") >= kills && keeper.get("reconnects") >= kills, "{striker:?} {keeper:?}");
        row.seen = format!(
            "{count} messages through {kills} kills, all confirmed and consumed; {} sent again",
            striker.get("resent")
        );
        Ok(())
    })
}
