//! `cargo xtask test`: everything that must hold before a change is merged.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::Node;

use crate::say::say;
use crate::test_programs::Selection;
use crate::{install, test_programs, workspace};

/// Runs all steps, up to the first that fails, and says how each went.
pub(crate) fn test(install: bool, selection: Selection, args: &[String]) -> Result<ExitCode> {
    workspace::enter()?;
    if install {
        install::rabbitmq()?;
        install::mermaid()?;
    }
    // Asked first: without a broker the last step fails, and it is the longest way there.
    broker::find_server().context(
        "the tests need an installed RabbitMQ, because they start, stop and kill nodes of it; \
         cargo xtask test --install installs it",
    )?;

    let mut report = Report::default();
    let passed = report.step("format", cargo(&["fmt", "--all", "--check"]))
        && report.step(
            "lints",
            cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
        )
        && report.step("documentation", || {
            let mut doc = command(&["doc", "--workspace", "--no-deps", "--locked"]);
            run(doc.env("RUSTDOCFLAGS", "-D warnings"))
        })
        && report.step("tests", || {
            // One node for all test binaries: each would take seconds to start its own.
            say!("$ rabbitmq-server (private node)");
            let node = Node::start()?;
            if args.is_empty() {
                return test_programs::run(&node.description(), selection);
            }
            // Somebody is after certain tests: cargo knows how to choose.
            let mut test = command(&["test", "--workspace", "--locked"]);
            run(test.args(args).env(broker::TEST_NODE, node.description()))
        });
    report.print();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = workspace::cargo();
    // What is set for one's own programs must not change what is tested.
    command.args(args).env_remove("AMQP_URL").env_remove("AMQP_PREFIX");
    command
}

fn cargo(args: &[&'static str]) -> impl FnOnce() -> Result<()> {
    let mut command = command(args);
    move || run(&mut command)
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words: Vec<_> = command.get_args().map(std::ffi::OsStr::to_string_lossy).collect();
    let line = format!("cargo {}", words.join(" "));
    say!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run {line}"))?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// How each step went.
#[derive(Default)]
struct Report(Vec<Step>);

struct Step {
    name: &'static str,
    time: Duration,
    result: Result<()>,
}

impl Report {
    /// Runs a step; whether it passed.
    fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> bool {
        say!("\n{name}");
        let started = Instant::now();
        let result = step();
        let passed = result.is_ok();
        self.0.push(Step { name, time: started.elapsed(), result });
        passed
    }

    fn print(&self) {
        say!("");
        for Step { name, time, result } in &self.0 {
            let seconds = time.as_secs_f64();
            match result {
                Ok(()) => say!("test: {name:<13} {seconds:>6.1} s  passed"),
                Err(error) => say!("test: {name:<13} {seconds:>6.1} s  FAILED: {error:#}"),
            }
        }
    }
}
