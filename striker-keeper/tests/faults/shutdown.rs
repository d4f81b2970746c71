//! SIGTERM in every state in which a program can be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Direction, Running};
use serde_json::Value;
use shared::SHUTDOWN_DEADLINE;

use crate::support::{LIMIT, Stage, eventually, row};

/// For a machine that has other things to do as well.
const SLACK: Duration = Duration::from_secs(3);

/// SIGTERM; the program must end with 0 within `limit`.
fn stop(stage: &Stage<'_>, program: &mut Running, limit: Duration) -> Result<()> {
    let since = Instant::now();
    program.terminate();
    let end = stage.end(program, 0)?;
    ensure!(since.elapsed() < limit + SLACK, "{:?} until its end: {end}", since.elapsed());
    Ok(())
}

#[test]
fn fault_31_sigterm_in_every_state() -> Result<()> {
    row(
        31,
        "SIGTERM while connecting, logging in, consuming, publishing, reconnecting, cut off, or at work",
        |row| {
            let stage = Stage::new()?;
            let relay = stage.relay()?;
            let url = stage.url_at(relay.port());
            let soon = Duration::from_secs(1);

            relay.refuse(true);
            let mut connecting = stage.striker(&url, &["--wait", "60s"]).start();
            connecting.wait_for_error_line(|line| line.contains("trying for 1m"));
            stop(&stage, &mut connecting, soon)?;

            relay.refuse(false);
            relay.silence(Direction::Both, true);
            let mut logging_in = stage.striker(&url, &["--wait", "60s"]).start();
            relay.wait_for_accepted(relay.accepted().max(1), LIMIT);
            stop(&stage, &mut logging_in, soon)?;
            relay.cut();
            relay.silence(Direction::Both, false);

            let mut consuming = stage.start_keeper(&url, &[])?;
            stop(&stage, &mut consuming.program, soon)?;

            let keeper = stage.start_keeper(&stage.url(), &[])?;
            let striker = stage.striker(&stage.url(), &["--rate", "0", "--in-flight", "50"]).start();
            keeper.catch.wait_for(200, LIMIT)?;
            striker.terminate();
            stage.finish(row, striker, keeper)?;

            let mut reconnecting = stage.start_keeper(&url, &[])?;
            relay.refuse(true);
            relay.cut();
            reconnecting.program.wait_for_error_line(|line| line.contains("connection lost: "));
            stop(&stage, &mut reconnecting.program, soon)?;

            relay.refuse(false);
            let mut cut_off = stage.start_keeper(&url, &[])?;
            relay.silence(Direction::Both, true);
            stop(&stage, &mut cut_off.program, SHUTDOWN_DEADLINE)?;
            relay.cut();
            relay.silence(Direction::Both, false);

            let held = || {
                let queue = || stage.vhost.queue("casillas").map(Option::unwrap_or_default);
                let all = |queue: &Value| queue["messages"] == 1 && queue["messages_unacknowledged"] == 1;
                eventually("a message in hand", || Ok(all(&queue()?)))
                    .with_context(|| format!("{:?}", queue()))
            };
            // It prints a line at the end of the work, and takes the next message at once.
            let mut at_work = stage.start_keeper(&stage.url(), &["--work", "2s"])?;
            stage.run_striker(&stage.url(), &["--count", "2", "--rate", "0"])?;
            at_work.catch.wait_for(1, LIMIT)?;
            // As `timeout` does: one to the process and one to its group.
            at_work.program.interrupt();
            stop(&stage, &mut at_work.program, SHUTDOWN_DEADLINE)?;
            ensure!(at_work.catch.lines() == 2, "the work in hand was finished");

            let mut endless = stage.start_keeper(&stage.url(), &["--work", "1h"])?;
            stage.run_striker(&stage.url(), &["--count", "1", "--rate", "0"])?;
            held()?;
            stop(&stage, &mut endless.program, SHUTDOWN_DEADLINE)?;
            let mut impatient = stage.start_keeper(&stage.url(), &["--work", "1h"])?;
            held()?;
            impatient.program.terminate();
            impatient.program.wait_for_error_line(|line| line.contains("finishing the work in hand"));
            impatient.program.terminate();
            stage.end(&mut impatient.program, 130)?;
            eventually("the unfinished message back in the queue", || {
                let queue = stage.vhost.queue("casillas")?.unwrap_or(Value::Null);
                Ok(queue["messages_ready"] == 1)
            })?;
            row.seen = "exit code 0 at once, or once the work in hand is done, after 5 s at most; a second signal ends \
            it with 130; unfinished work is back in the queue"
            .to_owned();
            Ok(())
        },
    )
}
