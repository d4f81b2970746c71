//! The tests of all crates, built once and run against one broker after another.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::Node;
use harness::{End, Failure, Program};
use serde_json::Value;

use super::record::Cell;
use crate::built::{self, Built, TestProgram};
use crate::say::say;

/// Longer than the tests of any crate take, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(900);

/// The crate whose program tries a broker, and whose line of the table that run is.
const SMOKE: &str = "smoke";

/// The tests of this name have a line of their own.
const FAULTS: &str = "faults";

/// The RabbitMQ that the nodes of the tests are of.
pub(crate) struct Server<'a> {
    /// The folder of its Debian.
    pub(crate) root: &'a Path,
    /// Lines for the `rabbitmq.conf` of every node.
    pub(crate) config: &'a [&'a str],
}

/// All test programs, by the lines of the table.
pub(crate) struct Suite {
    tests: BTreeMap<String, Vec<TestProgram>>,
    smoke: Option<PathBuf>,
}

impl Suite {
    /// Builds the tests of these crates, or of all that are no tools. cargo shows its progress and its errors.
    pub(crate) fn build(crates: &[String]) -> Result<Suite> {
        let mut suite = Suite { tests: BTreeMap::new(), smoke: None };
        for built in built::all()? {
            match built {
                Built::Test { package, target, program } => {
                    let wanted = match crates {
                        [] => !program.directory.components().any(|part| part.as_os_str() == "tools"),
                        crates => crates.contains(&package),
                    };
                    if wanted {
                        suite.tests.entry(line(&package, &target)).or_default().push(program);
                    }
                }
                Built::Program { name, path } if name == SMOKE => suite.smoke = Some(path),
                Built::Program { .. } => {}
            }
        }
        for name in crates {
            ensure!(suite.tests.contains_key(name), "there is no crate {name}");
        }
        if !crates.is_empty() && !crates.iter().any(|name| name == SMOKE) {
            suite.smoke = None;
        }
        Ok(suite)
    }

    /// Runs all of them, and keeps what each prints in a file in `folder`.
    pub(crate) fn run(&self, server: &Server<'_>, node: &Node, folder: &Path) -> Result<Vec<Cell>> {
        // What an earlier run left must not be read as this one's.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut cells = Vec::new();
        for (what, programs) in &self.tests {
            let started = Instant::now();
            let log = folder.join(what.replace(' ', "-")).with_extension("log");
            let cell = run_tests(what, programs, server, node, &log)?;
            report(&cell, started.elapsed(), &log);
            cells.push(cell);
        }
        if let Some(smoke) = &self.smoke {
            let started = Instant::now();
            let log = folder.join("smoke-run.json");
            let cell = run_smoke(smoke, node, &log)?;
            report(&cell, started.elapsed(), &log);
            cells.push(cell);
        }
        Ok(cells)
    }
}

/// The line of the table that these tests are in.
fn line(package: &str, target: &str) -> String {
    if target == FAULTS { format!("{package} {target}") } else { package.to_owned() }
}

fn report(cell: &Cell, time: Duration, log: &Path) {
    let seconds = time.as_secs_f64();
    say!("  {:<24} {seconds:>6.1} s  {}", cell.what, cell.passed);
    for name in &cell.failed {
        say!("  {:<24}           FAILED: {name}  (see {})", "", log.display());
    }
}

fn run_tests(
    what: &str,
    programs: &[TestProgram],
    server: &Server<'_>,
    node: &Node,
    log: &Path,
) -> Result<Cell> {
    let (mut passed, mut failed, mut printed) = (0, Vec::new(), String::new());
    for test in programs {
        // What is set for one's own programs must not change what is tested.
        let program = Program::new("env")
            .arg("-C")
            .arg(&test.directory)
            .arg(&test.path)
            .env("CARGO_MANIFEST_DIR", &test.directory)
            .env_remove("RABBITMQ_SERVER")
            .env(broker::TEST_NODE, node.description())
            .env(broker::ROOT, server.root)
            .env(broker::CONFIG, server.config.join("\n"));
        let end = Ended::of(program);
        let tests = Tests::read(&end.stdout);
        passed += tests.passed;
        if let Some(how) = end.badly.filter(|_| tests.failed.is_empty()) {
            let name = test.path.file_name().unwrap_or_default().to_string_lossy();
            failed.push(format!("{name}: {how}"));
        }
        failed.extend(tests.failed);
        printed.extend([end.stdout, end.stderr]);
    }
    fs::write(log, printed).with_context(|| format!("cannot write {}", log.display()))?;
    Ok(Cell { what: what.to_owned(), passed: format!("{passed} passed"), failed })
}

/// What a test program printed about its tests.
#[derive(Debug, PartialEq)]
struct Tests {
    passed: usize,
    failed: Vec<String>,
}

impl Tests {
    fn read(output: &str) -> Tests {
        let mut tests = Tests { passed: 0, failed: Vec::new() };
        for line in output.lines().filter_map(|line| line.strip_prefix("test ")) {
            // "test NAME ... ok", and "test NAME - should panic ... ok".
            match line.rsplit_once(" ... ") {
                Some((_, "ok")) => tests.passed += 1,
                Some((name, "FAILED")) => tests.failed.push(name.to_owned()),
                _ => {}
            }
        }
        tests
    }
}

/// All checks of `smoke`, on the node's own vhost.
fn run_smoke(program: &Path, node: &Node, log: &Path) -> Result<Cell> {
    let end = Ended::of(Program::new(program).args(["--url", &node.url(), "--output", "json"]));
    fs::write(log, [&*end.stdout, &*end.stderr].concat())
        .with_context(|| format!("cannot write {}", log.display()))?;
    Ok(smoke_cell(end.badly, &end.stdout))
}

fn smoke_cell(badly: Option<String>, report: &str) -> Cell {
    let report: Value = serde_json::from_str(report).unwrap_or_default();
    let with = |status: &str| -> Vec<String> {
        let checks = report["checks"].as_array().into_iter().flatten();
        checks
            .filter(|check| check["status"] == status)
            .map(|check| check["name"].as_str().unwrap_or("?").to_owned())
            .collect()
    };
    let mut failed = with("fail");
    failed.extend(badly.filter(|_| failed.is_empty()));
    let mut passed = format!("{} pass", with("pass").len());
    for (status, word) in [("warn", "warned of"), ("unsupported", "unsupported")] {
        let names = with(status);
        if !names.is_empty() {
            passed.push_str(&format!("; {word}: {}", names.join(", ")));
        }
    }
    Cell { what: format!("{SMOKE} run"), passed, failed }
}

/// How a program ended and what it printed.
struct Ended {
    /// How it ended, unless it was well.
    badly: Option<String>,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// Runs it to its end, or to the end of its time. Should this process end before, so does that one.
    fn of(program: Program) -> Ended {
        let running = match program.try_start() {
            Ok(running) => running,
            Err(failure) => {
                return Ended {
                    badly: Some(first_line(&failure)),
                    stdout: String::new(),
                    stderr: String::new(),
                };
            }
        };
        let badly = match running.try_wait(LIMIT) {
            Err(failure) => Some(first_line(&failure)),
            Ok(End { code: Some(0), .. }) => None,
            Ok(End { code: Some(code), .. }) => Some(format!("exit code {code}")),
            Ok(End { signal, .. }) => Some(format!("signal {}", signal.unwrap_or_default())),
        };
        let text = |lines: Vec<String>| lines.iter().map(|line| format!("{line}\n")).collect();
        Ended { badly, stdout: text(running.stdout()), stderr: text(running.stderr()) }
    }
}

/// Of a failure, without the lines that the program printed.
fn first_line(failure: &Failure) -> String {
    failure.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fault_matrix_has_a_line_of_its_own() {
        assert_eq!(line("striker-keeper", "faults"), "striker-keeper faults");
        assert_eq!(line("striker-keeper", "striker_keeper"), "striker-keeper");
    }

    #[test]
    fn failing_tests_are_named() {
        let output = "running 4 tests\ntest a::b ... ok\ntest c - should panic ... ok\ntest d ... FAILED\n\
                      test e ... ignored, run by d\ntest f has been running for over 60 seconds\n\
                      test result: FAILED. 2 passed; 1 failed\n";
        assert_eq!(Tests::read(output), Tests { passed: 2, failed: vec!["d".to_owned()] });
    }

    #[test]
    fn a_program_that_fails_without_a_word_fails_all_the_same() {
        let of = |script: &str| Ended::of(Program::new("sh").args(["-c", script]));
        let end = of("echo out; echo error >&2");
        assert_eq!((end.badly, &*end.stdout, &*end.stderr), (None, "out\n", "error\n"));
        assert_eq!(of("kill -9 $$").badly.as_deref(), Some("signal 9"));
        assert_eq!(smoke_cell(of("exit 2").badly, "").failed, ["exit code 2"]);
        assert!(Ended::of(Program::new("/nowhere/program")).badly.is_some());
    }

    #[test]
    fn what_a_broker_has_not_is_in_the_cell_of_smoke() {
        let check = |name: &str, status: &str| json!({"name": name, "status": status});
        let report = json!({"checks": [
            check("hello", "pass"), check("tls", "skipped"), check("stream", "unsupported"),
            check("global-qos", "warn"),
        ]});
        let cell = smoke_cell(None, &report.to_string());
        assert_eq!(cell.passed, "1 pass; warned of: global-qos; unsupported: stream");
        assert!(cell.failed.is_empty());
        let report = json!({"checks": [check("hello", "fail")]}).to_string();
        assert_eq!(smoke_cell(Some("exit code 1".to_owned()), &report).failed, ["hello"]);
    }
}
