//! The program `broker`, as somebody sees it in a terminal.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::ROOT;

use crate::support::{
    Program, directory, listeners, processes, signal, until_nothing_is_left, virtual_machine,
};

fn broker() -> Command {
    Command::new(env!("CARGO_BIN_EXE_broker"))
}

#[test]
fn prints_where_it_is_and_ends_on_sigterm() -> Result<()> {
    let [port, management] = [broker::free_port()?, broker::free_port()?];
    let program = Program::start(broker().args([
        "--port",
        &port.to_string(),
        "--management-port",
        &management.to_string(),
    ]))?;
    assert_eq!(
        program.line_with("AMQP_URL")?,
        format!("export AMQP_URL=amqp://guest:guest@127.0.0.1:{port}/%2f")
    );
    assert_eq!(program.line_with("http://")?, format!("http://127.0.0.1:{management}"));
    let rabbitmqctl = program.line_with("rabbitmqctl")?;
    program.line_with("press Ctrl-C to stop")?;
    assert!(broker::speaks_amqp(("127.0.0.1", port), Duration::from_secs(5)));

    let listed =
        Command::new("sh").args(["-c", &format!("{rabbitmqctl}\nrabbitmqctl list_queues")]).output()?;
    assert!(listed.status.success(), "{rabbitmqctl}\n{}", String::from_utf8_lossy(&listed.stderr));

    let directory = directory(&rabbitmqctl)?;
    let listeners = listeners(&processes(&directory)?)?;
    for port in [port, management] {
        assert!(listeners.contains(&format!("0100007F:{port:04X}")), "{listeners:?}");
    }
    assert!(listeners.iter().all(|address| !address.starts_with("00000000:")), "{listeners:?}");

    // As `timeout` does, which signals the process and its group: that is one wish, and no second Ctrl-C.
    // One command, because two processes may take longer to start than one wish lasts.
    let kill = format!("kill -s TERM {0} && kill -s INT {0}", program.id());
    assert!(Command::new("sh").args(["-c", &kill]).status()?.success());
    let (status, errors) = program.end()?;
    assert!(status.success(), "{status}: {errors}");
    assert_eq!(errors, "");
    until_nothing_is_left(&directory)
}

#[test]
fn takes_other_ports_if_the_usual_ones_are_taken_and_says_when_the_node_ends() -> Result<()> {
    // Either this takes the port or somebody else has it.
    let _usual = TcpListener::bind("127.0.0.1:5672");
    let program = Program::start(&mut broker())?;
    let url = program.line_with("AMQP_URL")?;
    assert!(!url.contains(":5672/"), "{url}");
    let directory = directory(&program.line_with("rabbitmqctl")?)?;
    signal(virtual_machine(&directory)?, "KILL")?;
    let (status, errors) = program.end()?;
    assert_eq!(status.code(), Some(1));
    assert_eq!(errors, "error: the node ended by itself\n");
    until_nothing_is_left(&directory)
}

/// Each finds the usual ports free and binds them seconds later, when the other may have them.
#[test]
fn two_that_start_together_both_get_ports() -> Result<()> {
    let programs = [Program::start(&mut broker())?, Program::start(&mut broker())?];
    let mut urls = Vec::new();
    for program in &programs {
        urls.push(program.line_with("AMQP_URL")?);
    }
    assert_ne!(urls[0], urls[1]);
    Ok(())
}

#[test]
fn ctrl_c_while_it_starts_is_not_an_error() -> Result<()> {
    let program = Program::start(&mut broker())?;
    let prefix = format!("rabbitmq-tutorials-{}-", program.id());
    let mut directory = None;
    crate::support::until("the node to start", || {
        directory = std::fs::read_dir(std::env::temp_dir())?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path());
        Ok(directory.as_ref().is_some_and(|directory| directory.join("output").exists()))
    })?;
    program.signal("INT")?;
    let (status, errors) = program.end()?;
    assert!(status.success(), "{status}: {errors}");
    until_nothing_is_left(&directory.context("no directory")?)
}

#[test]
fn wrong_use_and_no_server() -> Result<()> {
    let usage = broker().args(["--port", "http"]).output()?;
    assert_eq!(usage.status.code(), Some(2));
    let none = broker().env_remove(ROOT).env("RABBITMQ_SERVER", "/nowhere/rabbitmq-server").output()?;
    assert_eq!(none.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&none.stderr);
    assert!(errors.starts_with("error: RABBITMQ_SERVER is /nowhere/rabbitmq-server"), "{errors}");
    assert!(errors.contains("apt-get install --no-install-recommends rabbitmq-server"), "{errors}");
    Ok(())
}
