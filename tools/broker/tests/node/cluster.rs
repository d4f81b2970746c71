//! The program `broker --cluster`, and what is left of it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::support::{
    Program, directory, listeners, processes, signal, until_nothing_is_left, virtual_machine,
};

const PAGE: &str = include_str!("../../../../docs/cluster.md");

/// What the page shows for the command, up to what it leaves out and from there on; ports and processes differ.
fn page(command: &str) -> Result<[Vec<String>; 2]> {
    let block = PAGE.split_once(&format!("\n$ {command}\n")).and_then(|(_, rest)| rest.split_once("\n```"));
    let (start, end) = block.and_then(|(block, _)| block.split_once("\n…\n")).context("no block")?;
    Ok([start, end].map(|part| part.lines().map(without_ports).collect()))
}

fn without_ports(line: &str) -> String {
    // The numbers of nodes are part of their names.
    let (name, rest) = line.split_once(':').unwrap_or((line, ""));
    name.chars().chain(rest.chars().filter(|char| !char.is_ascii_digit())).collect()
}

#[test]
fn a_cluster_is_three_nodes_and_nothing_is_left_of_it_when_its_parent_is_killed() -> Result<()> {
    let mut broker = Command::new(env!("CARGO_BIN_EXE_broker"));
    let broker = Program::start(broker.args(["--cluster", "3"]))?;
    let printed = broker.lines_until("# press Ctrl-C to stop")?;
    let like: Vec<_> = printed.iter().map(|line| without_ports(line)).collect();
    let [start, end] = page("cargo run -p broker -- --cluster 3")?;
    ensure!(like.starts_with(&start) && like.ends_with(&end), "{start:#?} … {end:#?} is not {printed:#?}");

    let line_with = |text: &str| printed.iter().find(|line| line.contains(text)).context("no such line");
    let url = line_with("AMQP_URL")?;
    let hosts = url.split_once('@').and_then(|(_, rest)| rest.split_once('/')).context("no hosts")?.0;
    let ports = hosts.split(',').map(|host| Ok(host.rsplit_once(':').context("no port")?.1.parse()?));
    let ports: Vec<u16> = ports.collect::<Result<_>>()?;
    ensure!(ports.len() == 3 && ports.is_sorted(), "{url}");
    let names: Vec<_> = (1..=3).map(|number| format!("rabbit{number}@localhost")).collect();
    for (name, port) in names.iter().zip(&ports) {
        let line = line_with(&format!("# {name}: "))?;
        ensure!(line.starts_with(&format!("# {name}: port {port}, process ")), "{line}");
        ensure!(broker::speaks_amqp(("127.0.0.1", *port), Duration::from_secs(5)), "{line}");
    }
    let lines: Vec<_> = ["rabbitmqctl()", "rabbitmqctl2()", "rabbitmqctl3()"]
        .iter()
        .map(|name| line_with(name))
        .collect::<Result<_>>()?;
    let directories: Vec<_> = lines.iter().map(|line| directory(line)).collect::<Result<_>>()?;

    // Each node says the same of all.
    let ask = format!("{}\nrabbitmqctl3 -q cluster_status --formatter json", lines[2]);
    let status = Command::new("sh").args(["-c", &ask]).output()?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    let mut running: Vec<_> = status["running_nodes"]
        .as_array()
        .context("no nodes")?
        .iter()
        .filter_map(|name| name.as_str())
        .collect();
    running.sort_unstable();
    assert_eq!(running, names);
    for directory in &directories {
        let listeners = listeners(&processes(directory)?)?;
        ensure!(listeners.iter().all(|address| !address.starts_with("00000000:")), "{listeners:?}");
    }

    // The others do not mind.
    signal(virtual_machine(&directories[1])?, "KILL")?;
    broker.line_with("# rabbit2@localhost ended; it starts again in 10 s")?;
    broker.signal("KILL")?;
    broker.end()?;
    directories.iter().try_for_each(|directory| until_nothing_is_left(directory))
}
