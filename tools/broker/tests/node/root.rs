//! A node of another Linux system. This machine's own serves as one: it is a folder with a RabbitMQ in it, too.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use broker::{Node, ROOT};

use crate::support::{Program, directory, processes, signal, until_nothing_is_left, virtual_machine};

fn broker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    command.args(["--root", "/"]).env_remove(ROOT);
    command
}

/// Whether this user may mount things in a namespace of its own. Containers and some systems forbid it, and then
/// the program has to say so.
fn may_mount() -> Result<bool> {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    let output = unshare.args(["mount", "--rbind", "/proc", "/proc"]).output().context("no unshare")?;
    Ok(output.status.success())
}

/// What is mounted, as this process sees it, where the node needs something mounted.
fn mounts() -> Result<Vec<String>> {
    let places = [Path::new("/proc"), &env::temp_dir(), Path::new("/etc/hosts")].map(Path::to_owned);
    let there = |line: &&str| {
        let place = line.split(' ').nth(4).map(Path::new);
        places.iter().any(|wanted| place == Some(wanted))
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().filter(there).map(str::to_owned).collect())
}

#[test]
fn a_node_of_another_system_works_and_leaves_nothing_behind() -> Result<()> {
    let before = mounts()?;
    let program = Program::start(&mut broker())?;
    let refusal = if !Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists() {
        Some("error: no RabbitMQ in /: ")
    } else if !may_mount()? {
        Some("error: cannot run anything in /, which takes root, or a kernel that lets other users ")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        let (status, errors) = program.end()?;
        assert_eq!(status.code(), Some(1));
        assert!(errors.starts_with(refusal), "{errors}");
        return Ok(());
    }
    let url = program.line_with("AMQP_URL")?;
    let rabbitmqctl = program.line_with("rabbitmqctl")?;
    assert!(rabbitmqctl.contains(" chroot "), "{rabbitmqctl}");
    let port =
        url.rsplit_once(':').and_then(|(_, end)| end.split('/').next()?.parse().ok()).context("no port")?;
    assert!(broker::speaks_amqp(("127.0.0.1", port), Duration::from_secs(5)));
    let listed =
        Command::new("sh").args(["-c", &format!("{rabbitmqctl}\nrabbitmqctl list_queues")]).output()?;
    assert!(listed.status.success(), "{rabbitmqctl}\n{}", String::from_utf8_lossy(&listed.stderr));

    let directory = directory(&rabbitmqctl)?;
    let vm = virtual_machine(&directory)?;
    // It sees mounts that nobody else sees.
    assert_ne!(fs::read_link(format!("/proc/{vm}/ns/mnt"))?, fs::read_link("/proc/self/ns/mnt")?);
    assert_eq!(mounts()?, before);
    // It cannot notice the end of its input.
    signal(vm, "STOP")?;
    program.signal("KILL")?;
    program.end()?;
    until_nothing_is_left(&directory)?;
    assert_eq!(processes(&directory)?, [0; 0]);
    assert_eq!(mounts()?, before);
    Ok(())
}

#[test]
fn a_folder_without_rabbitmq_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for builder in [Node::builder().root(folder.path()), Node::builder().root(folder.path().join("nothing"))]
    {
        let error = format!("{:#}", builder.start().unwrap_err());
        assert!(error.contains(&*folder.path().to_string_lossy()), "{error}");
    }
    let program = Program::start(Command::new(env!("CARGO_BIN_EXE_broker")).env(ROOT, folder.path()))?;
    let (status, errors) = program.end()?;
    assert_eq!(status.code(), Some(1));
    assert!(errors.starts_with("error: BROKER_ROOT: no RabbitMQ in "), "{errors}");
    Ok(())
}

/// As a whole test run gets them.
#[test]
fn lines_for_the_configuration_come_from_the_environment() -> Result<()> {
    let mut broker = Command::new(env!("CARGO_BIN_EXE_broker"));
    let program = Program::start(broker.env(broker::CONFIG, "heartbeat = 7\nnonsense = 1"))?;
    let (status, errors) = program.end()?;
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("nonsense") && !errors.contains("heartbeat is"), "{errors}");
    Ok(())
}
