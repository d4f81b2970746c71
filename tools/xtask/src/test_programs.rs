//! Runs the test programs of the workspace beside each other: most tests wait for a broker, so one program
//! after the other would leave the machine idle for most of the time.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, ensure};
use pages::workspace::OWN_BROKERS;

use crate::built::{self, Built, TestProgram};
use crate::say::say;
use crate::test;

/// How many programs run at once. Each has several tests under way, as many as the machine has cores; more of
/// them would make brokers too slow for the patience of tests.
const AT_ONCE: usize = 2;

/// Those that take longest, and are begun first: the end of the longest is the end of all.
const LONGEST: [&str; 7] = ["faults", "smoke", "pages", "shared", "node", "cluster", "demo"];

/// In the names of tests of other programs that start brokers as well.
const OWN_BROKER: &str = "own_broker::";

/// Which tests are run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Selection {
    All,
    /// What needs no other broker than the one that all share.
    Quick,
}

/// A test program that cargo has built.
struct Program {
    name: String,
    path: PathBuf,
    /// Where cargo would run it.
    folder: PathBuf,
}

/// Builds all tests and runs the selected ones; they find the node by its description. Fails after all have run.
pub(crate) fn run(node: &str, selection: Selection) -> Result<()> {
    let mut programs = build()?;
    if selection == Selection::Quick {
        programs.retain(|program| !OWN_BROKERS.iter().any(|name| program.is(name)));
    }
    let programs = Mutex::new(programs);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(program) = lock(&programs).pop_front() else { break };
                    if let Err(error) = program.run(node, selection) {
                        say!("{}: {error:#}", program.name);
                        lock(&failed).push(program.name);
                    }
                }
            });
        }
    });
    // The examples in the documentation.
    test::run(test::command(&["test", "--workspace", "--doc", "--locked"]).env(broker::TEST_NODE, node))?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    if selection == Selection::Quick {
        say!(
            "\nLeft out: {}, and {OWN_BROKER} elsewhere. Without --quick they are run.",
            OWN_BROKERS.join(", ")
        );
    }
    Ok(())
}

/// Builds all test programs.
fn build() -> Result<VecDeque<Program>> {
    let test = |built| match built {
        Built::Test { package, target, program: TestProgram { path, directory: folder } } => {
            let name = if package == target { package } else { format!("{package}/{target}") };
            Some(Program { name, path, folder })
        }
        // The programs that the tests start.
        Built::Program { .. } => None,
    };
    let mut programs: Vec<_> = built::all()?.into_iter().filter_map(test).collect();
    ensure!(!programs.is_empty(), "cargo has built no tests");
    programs.sort_by_key(|program| LONGEST.iter().position(|long| program.is(long)).unwrap_or(LONGEST.len()));
    Ok(programs.into())
}

impl Program {
    fn is(&self, target: &str) -> bool {
        self.name.rsplit('/').next() == Some(target)
    }

    /// Runs it, and prints what it printed in one piece.
    fn run(&self, node: &str, selection: Selection) -> Result<()> {
        let started = Instant::now();
        let mut command = Command::new(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command.env_remove("AMQP_URL").env_remove("AMQP_PREFIX").env(broker::TEST_NODE, node);
        if selection == Selection::Quick {
            command.args(["--skip", OWN_BROKER]);
        }
        let output = command.stdin(Stdio::null()).output().context("cannot run it")?;
        let has_tests = !output.stdout.starts_with(b"\nrunning 0 tests");
        if has_tests || !output.status.success() {
            self.print(started.elapsed(), &output.stdout, &output.stderr);
        }
        ensure!(output.status.success(), "{}", output.status);
        Ok(())
    }

    fn print(&self, time: Duration, stdout: &[u8], stderr: &[u8]) {
        let mut all = io::stdout().lock();
        // If nobody reads, the exit code still tells.
        let _ = writeln!(all, "\n{} ({:.1} s)", self.name, time.as_secs_f64());
        let _ = all.write_all(stdout).and_then(|()| all.write_all(stderr)).and_then(|()| all.flush());
    }
}

fn lock<T>(list: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a list half changed.
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
