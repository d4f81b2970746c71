//! Networks that cut, close, swallow and delay, and connections that the broker or a peer ends.

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Direction, Running};
use shared::{Outcome, Publisher};

use crate::support::{Client, LIMIT, OwnNode, Stage, Tally, after, eventually, row, scale};

/// A connection that lasted this long counts as a success, after which the first pause is the shortest.
const STABLE: Duration = Duration::from_millis(1100);

/// Resident memory, in KiB.
fn memory(program: &Running) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

#[test]
fn fault_04_forced_closes() -> Result<()> {
    row(4, "an operator closes all connections, again and again", |row| {
        let stage = Stage::new()?;
        let url = stage.url();
        let keeper = stage.start_keeper(&url, &["--workers", "2"])?;
        let striker = stage.striker(&url, &["--rate", "50"]).start();
        keeper.catch.wait_for(5, LIMIT)?;
        // The first losses cost memory once: code that has not run yet, buffers of their final size.
        let warm = 10;
        storm(&stage, warm)?;
        let before = [&keeper.program, &striker].map(|program| (program.threads(), memory(program)));
        let closes = scale(20, 100);
        storm(&stage, closes)?;
        keeper.catch.wait_for_more(5, LIMIT)?;
        stage.expect_keeper(2)?;
        let connections = stage.vhost.connections()?;
        let channels: u64 = connections.iter().filter_map(|connection| connection["channels"].as_u64()).sum();
        ensure!(connections.len() == 2 && channels == 2, "{connections:?}");
        let after = [&keeper.program, &striker].map(|program| (program.threads(), memory(program)));
        for ((threads, kib), (threads_after, kib_after)) in before.iter().zip(&after) {
            let (kib, kib_after) = (kib.as_ref().ok(), kib_after.as_ref().ok());
            let (kib, kib_after) = kib.zip(kib_after).context("no memory to look at")?;
            // A leak of one connection's buffers for each close would be twice as much.
            ensure!(*kib_after < kib + 1024 + 10 * closes as u64, "{kib} KiB became {kib_after} KiB");
            // A name look-up may leave a thread for some seconds.
            ensure!(*threads_after <= threads + 1, "{threads} threads became {threads_after}");
        }
        striker.terminate();
        let [striker, keeper] = stage.finish(row, striker, keeper)?;
        // A connection that is closed before it is quite open was none to the program.
        let all = (warm + closes) as u64;
        let plausible = |tally: &Tally| (all / 2..=all).contains(&tally.get("reconnects"));
        ensure!(plausible(&striker) && plausible(&keeper), "{striker:?} {keeper:?}");
        row.seen = format!(
            "{closes} closes (`320 CONNECTION_FORCED`): connected again each time, one channel a connection, no more \
             threads or memory than before"
        );
        Ok(())
    })
}

/// Closes both connections, each time that both are there.
fn storm(stage: &Stage<'_>, closes: usize) -> Result<()> {
    let words = format!(
        "V = <<\"{}\">>, L = fun() -> rabbit_connection_tracking:list(V) end,
         W = fun W() -> case length(L()) of 2 -> ok; _ -> timer:sleep(10), W() end end,
         [begin W(), rabbit_connection_tracking:close_connections(L(), \"storm\", 0),
            timer:sleep(20) end || _ <- lists:seq(1, {closes})], W().",
        stage.vhost.name()
    );
    stage.node.rabbitmqctl(&["eval", &words]).map(drop)
}

#[test]
fn fault_05_loss_during_rebuild() -> Result<()> {
    row(5, "the next connection is lost while it is made, and the vhost is down for a while", |row| {
        let stage = Stage::new()?;
        let relay = stage.relay()?;
        let url = stage.url_at(relay.port());
        let keeper = stage.start_keeper(&url, &["--workers", "2"])?;
        let striker = stage.striker(&url, &["--count", "600", "--rate", "100"]).start();
        keeper.catch.wait_for(5, LIMIT)?;

        // Each time a little later: in the handshake, the declarations, the start of the consumers.
        let cuts: u64 = scale(12, 60);
        let mut accepted = relay.accepted();
        relay.cut();
        for cut in 0..cuts {
            relay.wait_for_accepted(accepted + 1, LIMIT);
            sleep(Duration::from_millis(cut % 12));
            accepted = relay.accepted();
            relay.cut();
        }
        let starts = keeper.catch.starts();
        keeper.catch.wait_for_return(starts.max(1) - 1, LIMIT)?;
        stage.expect_keeper(2)?;

        // The login succeeds, and `connection.open` is refused with 541.
        let stop = format!("rabbit_vhost_sup_sup:stop_and_delete_vhost(<<\"{}\">>).", stage.vhost.name());
        stage.node.rabbitmqctl(&["eval", &stop])?;
        relay.cut();
        let down = relay.accepted();
        relay.wait_for_accepted(down + 4, LIMIT);
        let starts = keeper.catch.starts();
        stage.node.rabbitmqctl(&["restart_vhost", "-p", stage.vhost.name()])?;
        keeper.catch.wait_for_start(starts + 1, LIMIT)?;
        stage.expect_keeper(2)?;
        stage.finish(row, striker, keeper)?;
        row.seen = format!(
            "{cuts} cuts at different moments of the handshake and the declarations, then `541 INTERNAL_ERROR` \
             at `connection.open`: tried again, one set of consumers in the end"
        );
        Ok(())
    })
}

#[test]
fn fault_06_tcp_reset_and_end() -> Result<()> {
    row(6, "TCP connections are reset, or ended in good order, with the broker up", |row| {
        let stage = Stage::new()?;
        let relay = stage.relay()?;
        let url = stage.url_at(relay.port());
        let keeper = stage.start_keeper(&url, &[])?;
        let striker = stage.striker(&url, &["--rate", "200"]).start();
        keeper.catch.wait_for(5, LIMIT)?;
        for cut in 0..scale(10, 100) {
            sleep(STABLE);
            let starts = keeper.catch.starts();
            let since = Instant::now();
            if cut % 2 == 0 {
                relay.cut();
            } else {
                relay.close();
            }
            row.recoveries.push(after(since, keeper.catch.wait_for_return(starts, LIMIT)?));
        }
        stage.expect_keeper(1)?;
        striker.terminate();
        stage.finish(row, striker, keeper)?;
        row.seen =
            format!("{} cuts, each after a second of quiet: connected again at once", row.recoveries.len());
        Ok(())
    })
}

#[test]
fn fault_08_one_way_hole() -> Result<()> {
    row(8, "what the programs send is swallowed, what the broker sends arrives", |row| {
        let stage = Stage::new()?;
        let relay = stage.relay()?;
        let url = format!("{}?heartbeat=1&connection_timeout=1000", stage.url_at(relay.port()));
        let mut keeper = stage.start_keeper(&url, &[])?;
        let striker = stage.striker(&url, &["--count", "200", "--rate", "100"]).start();
        keeper.catch.wait_for(5, LIMIT)?;
        relay.silence(Direction::ToBroker, true);
        let since = Instant::now();
        keeper.program.wait_for_error_line(|line| line.contains("connection lost: "));
        let noticed = since.elapsed();
        // An attempt to connect meanwhile has an end as well.
        relay.wait_for_accepted(relay.accepted() + 1, LIMIT);
        let starts = keeper.catch.starts();
        relay.silence(Direction::ToBroker, false);
        let mended = Instant::now();
        row.recoveries.push(after(mended, keeper.catch.wait_for_return(starts, LIMIT)?));
        stage.expect_keeper(1)?;
        stage.finish(row, striker, keeper)?;
        row.seen = format!(
            "the broker misses the heartbeats (1 s) and hangs up; noticed after {:.1} s",
            noticed.as_secs_f64()
        );
        Ok(())
    })
}

#[test]
fn fault_09_slow_network() -> Result<()> {
    row(9, "a slow network", |row| {
        let stage = Stage::new()?;
        let relay = stage.relay()?;
        let delay = Duration::from_millis(scale(150, 500));
        relay.delay(delay);
        let url = stage.url_at(relay.port());
        let keeper = stage.start_keeper(&url, &["--prefetch", "10"])?;
        let options = ["--count", "30", "--rate", "0", "--in-flight", "15", "--size", "300000"];
        let striker = stage.striker(&url, &options).start();
        let [striker, keeper] = stage.finish(row, striker, keeper)?;
        ensure!(striker.get("reconnects") == 0 && keeper.get("reconnects") == 0, "{striker:?} {keeper:?}");
        row.seen = format!("bodies of 300 kB, {delay:?} later each way: slow, and no connection is lost");
        Ok(())
    })
}

#[test]
fn fault_25_client_stands_still() -> Result<()> {
    row(25, "the keeper stands still (SIGSTOP) until the broker gives it up", |row| {
        let stage = Stage::new()?;
        let url = format!("{}?heartbeat=1", stage.url());
        let keeper = stage.start_keeper(&url, &["--prefetch", "10", "--work", "20ms"])?;
        let options = ["--count", "100", "--rate", "0", "--in-flight", "100"];
        let striker = stage.striker(&stage.url(), &options).start();
        keeper.catch.wait_for(5, LIMIT)?;
        keeper.program.pause();
        eventually("the broker to give the keeper up", || {
            Ok(!stage
                .vhost
                .connections()?
                .iter()
                .any(|connection| connection["user_provided_name"] == "keeper"))
        })?;
        let starts = keeper.catch.starts();
        keeper.program.resume();
        let resumed = Instant::now();
        row.recoveries.push(after(resumed, keeper.catch.wait_for_return(starts, LIMIT)?));
        stage.expect_keeper(1)?;
        let [_, keeper] = stage.finish(row, striker, keeper)?;
        ensure!(keeper.get("redelivered") > 0 && keeper.get("reconnects") == 1, "{keeper:?}");
        row.seen =
            "the broker delivers again what was in hand; acknowledgements of the old connection go nowhere"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_26_rubbish_and_sizes() -> Result<()> {
    row(26, "rubbish between the frames, in either direction; a body over the broker's limit", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        for direction in [Direction::ToClient, Direction::ToBroker] {
            let (port, throw) = rubbish(own.port(), direction)?;
            let mut keeper = stage.start_keeper(&stage.url_at(port), &[])?;
            throw.send(())?;
            keeper.program.wait_for_error_line(|line| line.contains("connection lost: "));
            keeper.catch.wait_for_start(1, LIMIT)?;
            let striker = stage.striker(&stage.url(), &["--count", "20", "--rate", "0"]).start();
            stage.expect_keeper(1)?;
            stage.finish(row, striker, keeper)?;
        }

        let _setting = own.set("max_message_size", 1000)?;
        // RabbitMQ 4 looks at the setting only when it starts.
        let most = if own.is_from(4, 0)? { 16 << 20 } else { 1000 };
        let client = Client::open(&stage.url(), "sizes")?;
        let publisher = Publisher::new(&client.connection, 1);
        let outcome = client.publish(&publisher, "", "casillas", &"x".repeat(most + 1))?;
        ensure!(matches!(&outcome, Outcome::NotSent(error) if error.code() == Some(406)), "{outcome:?}");
        let outcome = client.publish(&publisher, "", "casillas", &"x".repeat(most))?;
        ensure!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
        ensure!(client.states().len() == 1, "the same connection: {:?}", client.states());
        client.close()?;
        row.seen =
            "rubbish costs the connection and no more; a body that is too long costs its channel: *not \
            sent*, `406 PRECONDITION_FAILED`"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_33_several_addresses() -> Result<()> {
    row(33, "the broker has two addresses, and now one, now the other cannot be reached", |row| {
        let stage = Stage::new()?;
        let relays = [stage.relay()?, stage.relay()?];
        let [first, second] = [relays[0].port(), relays[1].port()];
        let url =
            stage.url_at(first).replace(&format!(":{first}/"), &format!(":{first},localhost:{second}/"));
        let keeper = stage.start_keeper(&url, &[])?;
        let striker = stage.striker(&url, &["--rate", "200"]).start();
        keeper.catch.wait_for(5, LIMIT)?;
        for change in 0..scale(4, 40) {
            sleep(STABLE);
            let [gone, there] = [&relays[change % 2], &relays[(change + 1) % 2]];
            eventually("both programs at one address", || {
                Ok(gone.connections() == 2 && there.connections() == 0)
            })?;
            let starts = keeper.catch.starts();
            let since = Instant::now();
            there.refuse(false);
            gone.refuse(true);
            gone.cut();
            row.recoveries.push(after(since, keeper.catch.wait_for_return(starts, LIMIT)?));
        }
        stage.expect_keeper(1)?;
        striker.terminate();
        stage.finish(row, striker, keeper)?;
        row.seen = "connected at the other address each time".to_owned();
        Ok(())
    })
}

/// A relay that mixes rubbish into its first connection when it is told to, and none into later ones: its port,
/// and whom to tell. Its threads end with the process.
fn rubbish(broker: u16, direction: Direction) -> Result<(u16, Sender<()>)> {
    let (throw, thrown) = mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || -> Result<()> {
        for (number, client) in listener.incoming().enumerate() {
            let (client, broker) = (client?, TcpStream::connect(("127.0.0.1", broker))?);
            forward(client.try_clone()?, broker.try_clone()?);
            forward(broker.try_clone()?, client.try_clone()?);
            if number == 0 {
                thrown.recv()?;
                let mut victim = if direction == Direction::ToClient { client } else { broker };
                victim.write_all(&[0xfe; 64])?;
            }
        }
        Ok(())
    });
    Ok((port, throw))
}

/// Passes on what comes, up to its end.
fn forward(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
