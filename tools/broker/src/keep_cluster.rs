//! `broker --cluster`: nodes that can be killed to see what happens, and that come back.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use broker::{Builder, Cluster, Node};

use crate::INTERVAL;

/// How long a node that was killed stays away: long enough to see what that means.
const ABSENCE: Duration = Duration::from_secs(10);

/// Starts the cluster and keeps it until `stop` is true.
pub(crate) fn run(builder: Builder, count: u16, stop: &AtomicBool) -> Result<()> {
    println!("# Starting {count} RabbitMQ nodes as one cluster, which takes up to half a minute.");
    let cluster = match builder.start_cluster(count) {
        // Interrupted while it started: that is what the user wanted.
        Err(_) if stop.load(Ordering::Relaxed) => return Ok(()),
        started => started?,
    };
    introduce(&cluster).context("cannot write to standard output")?;
    let mut gone_since = vec![None; cluster.len()];
    while !stop.load(Ordering::Relaxed) {
        for (node, gone_since) in cluster.iter().zip(&mut gone_since) {
            revive(node, gone_since, stop)?;
        }
        if gone_since.iter().all(Option::is_some) {
            bail!("all nodes ended");
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Starts a node again that has been away for long enough.
fn revive(node: &Node, gone_since: &mut Option<Instant>, stop: &AtomicBool) -> Result<()> {
    match *gone_since {
        _ if node.is_running() => {}
        None => {
            say(format_args!("# {} ended; it starts again in {} s", node.name(), ABSENCE.as_secs()))?;
            *gone_since = Some(Instant::now());
        }
        Some(since) if since.elapsed() >= ABSENCE => {
            match node.restart_unless(stop) {
                // Interrupted while it started: that is what the user wanted.
                Err(_) if stop.load(Ordering::Relaxed) => return Ok(()),
                started => started?,
            }
            *gone_since = None;
            say(format_args!("# {} is back, as process {}", node.name(), process(node)))?;
        }
        Some(_) => {}
    }
    Ok(())
}

/// Says where the nodes are. Each line that starts at the margin can be pasted into a shell.
fn introduce(cluster: &Cluster) -> Result<()> {
    let mut lines = vec![
        "# RabbitMQ is ready. For the programs, in another terminal:".to_owned(),
        format!("export AMQP_URL={}", cluster.url()),
    ];
    for node in cluster.iter() {
        let (name, port, process) = (node.name(), node.port(), process(node));
        lines.push(format!("# {name}: port {port}, process {process}, {}", node.management_url()));
    }
    lines
        .push("# So that the commands of the pages ask the first node, or the second, and so on:".to_owned());
    for (number, node) in (1..).zip(cluster.iter()) {
        let number = if number == 1 { String::new() } else { number.to_string() };
        lines.push(format!("rabbitmqctl{number}() {{ {} \"$@\"; }}", node.rabbitmqctl_line()));
    }
    lines.push("# press Ctrl-C to stop".to_owned());
    say(format_args!("{}", lines.join("\n")))
}

fn process(node: &Node) -> u32 {
    node.process_id().unwrap_or_default()
}

fn say(text: std::fmt::Arguments<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}
