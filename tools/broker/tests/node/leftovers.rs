//! Nothing is left of a node, whatever happens to the program that started it.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use broker::{Node, TEST_NODE, node};

use crate::support::{
    Program, directory, listeners, processes, signal, until_nothing_is_left, virtual_machine,
};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_broker"))
}

#[test]
fn killed_with_a_paused_node() -> Result<()> {
    let broker = Program::start(&mut program())?;
    let directory = directory(&broker.line_with("rabbitmqctl")?)?;
    // It cannot notice the end of its input.
    signal(virtual_machine(&directory)?, "STOP")?;
    broker.signal("KILL")?;
    broker.end()?;
    until_nothing_is_left(&directory)
}

#[test]
fn killed_while_the_node_starts() -> Result<()> {
    let child = Program::start(Command::new(env::current_exe()?).args([
        "--exact",
        "leftovers::starting_in_another_process",
        "--ignored",
        "--nocapture",
    ]))?;
    let directory = directory(&child.line_with("HOME=")?)?;
    assert!(!processes(&directory)?.is_empty());
    child.signal("KILL")?;
    child.end()?;
    until_nothing_is_left(&directory)
}

#[test]
#[ignore = "run by killed_while_the_node_starts"]
fn starting_in_another_process() -> Result<()> {
    let prefix = format!("rabbitmq-tutorials-{}-", std::process::id());
    std::thread::spawn(move || {
        loop {
            for entry in std::fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
                // The files are written before the first process starts, the output when the virtual machine
                // does.
                if entry.file_name().to_string_lossy().starts_with(&prefix)
                    && entry.path().join("output").exists()
                {
                    println!("HOME={}", entry.path().display());
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    Node::start().map(drop)
}

#[test]
fn a_panic_in_a_test() -> Result<()> {
    let child = Program::start(
        Command::new(env::current_exe()?)
            .args(["--exact", "leftovers::panicking_in_another_process", "--ignored", "--nocapture"])
            .env_remove(TEST_NODE),
    )?;
    let directory = directory(&child.line_with("HOME=")?)?;
    let (status, errors) = child.end()?;
    assert_eq!(status.code(), Some(101));
    assert!(errors.contains("on purpose"), "{errors}");
    until_nothing_is_left(&directory)
}

#[test]
#[ignore = "run by a_panic_in_a_test"]
fn panicking_in_another_process() {
    // The shared node: a static, which is never dropped.
    println!("{}", node().rabbitmqctl_line());
    panic!("on purpose");
}

#[test]
fn a_drop() -> Result<()> {
    let node = Node::builder().management(false).start()?;
    let directory = directory(&node.rabbitmqctl_line())?;
    let pids = processes(&directory)?;
    // The virtual machine, the name service, the watcher, and helpers of Erlang.
    assert!(pids.len() >= 3, "{pids:?}");
    let listeners = listeners(&pids)?;
    assert!(listeners.len() >= 3, "{listeners:?}");
    for listener in listeners {
        let loopback = ["0100007F:", "00000000000000000000000001000000:"];
        assert!(loopback.iter().any(|address| listener.starts_with(address)), "{listener}");
    }
    drop(node);
    assert!(!directory.exists());
    until_nothing_is_left(&directory)
}
