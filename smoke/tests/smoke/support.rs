//! What the tests have in common.

use std::time::{Duration, Instant};

use broker::{Node, Vhost};
use harness::{End, Program};
use serde_json::Value;

/// The program, on this broker, under the deadline of a test. That this machine is busy is nothing to warn of, and no
/// reason to fail.
pub(crate) fn smoke(url: &str) -> Program {
    let program = Program::new(env!("CARGO_BIN_EXE_smoke")).deadline(Duration::from_secs(90));
    program.args(["--url", url, "--slow", "1m", "--timeout", "20s", "--deadline", "80s"])
}

/// A report and how the program ended.
pub(crate) struct Report {
    pub(crate) end: End,
    pub(crate) value: Value,
}

/// Runs the program to its end and reads its report, which must be all that it prints.
#[track_caller]
pub(crate) fn report(program: Program) -> Report {
    let end = program.args(["--output", "json"]).run();
    assert_eq!(end.stderr, [""; 0], "{end}");
    let value: Value =
        serde_json::from_str(&end.stdout.join("\n")).unwrap_or_else(|error| panic!("{error}: {end}"));
    assert_eq!(end.code.map(i64::from), value["exit_code"].as_i64(), "{end}");
    Report { end, value }
}

impl Report {
    /// What is said about a check.
    #[track_caller]
    pub(crate) fn check(&self, name: &str) -> &Value {
        let checks = self.value["checks"].as_array().unwrap();
        checks
            .iter()
            .find(|check| check["name"] == name)
            .unwrap_or_else(|| panic!("no check {name}: {}", self.end))
    }

    /// Checks how a check ended, and that its note holds these words.
    #[track_caller]
    pub(crate) fn expect(&self, name: &str, status: &str, words: &[&str]) {
        let check = self.check(name);
        assert_eq!(check["status"], status, "{name}: {}", self.end);
        let note = check["note"].as_str().unwrap();
        for word in words {
            assert!(note.contains(word), "{name}: {word:?} is not in: {note}");
        }
        assert!(!note.contains('\n'), "{note:?}");
    }

    /// The names of the checks that ended so.
    pub(crate) fn with(&self, status: &str) -> Vec<&str> {
        let checks = self.value["checks"].as_array().unwrap();
        let with = checks.iter().filter(|check| check["status"] == status);
        with.map(|check| check["name"].as_str().unwrap()).collect()
    }

    /// Checks that this one failed, and that nothing was tried after it.
    #[track_caller]
    pub(crate) fn expect_first_failure(&self, name: &str, words: &[&str]) {
        self.expect(name, "fail", words);
        assert_eq!(self.with("fail"), [name], "{}", self.end);
        self.expect("hello", "skipped", &["which did not pass"]);
    }
}

/// The queues and exchanges of the program that are on a vhost.
pub(crate) fn left_on(node: &Node, vhost: &str) -> Vec<String> {
    let names = |what: &str| {
        // It answers 500 when a queue goes while it makes its list, and for a moment after a start.
        let list = (0..100).find_map(|_| match node.get(&format!("/api/{what}/{vhost}")) {
            Ok(list) => Some(list),
            Err(_) => {
                std::thread::sleep(Duration::from_millis(50));
                None
            }
        });
        let list = list.expect("a list from the management API");
        let names = list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let mut left = names("queues");
    left.extend(names("exchanges").into_iter().filter(|name| !name.is_empty() && !name.starts_with("amq.")));
    left
}

/// Waits until there is a queue whose name ends so; its name.
#[track_caller]
pub(crate) fn wait_for_queue(node: &Node, vhost: &str, end: &str) -> String {
    let since = Instant::now();
    loop {
        if let Some(name) = left_on(node, vhost).into_iter().find(|name| name.ends_with(end)) {
            return name;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "no queue {end} appeared");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Checks that nothing is left on a vhost, where nobody but the program was.
#[track_caller]
pub(crate) fn expect_nothing_left(vhost: &Vhost<'_>) {
    assert_eq!(left_on(broker::node(), vhost.name()), [""; 0]);
}

/// Waits until nothing is left.
#[track_caller]
pub(crate) fn wait_until_nothing_left(node: &Node, vhost: &str, limit: Duration) {
    let since = Instant::now();
    loop {
        let left = left_on(node, vhost);
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < limit, "left after {limit:?}: {left:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
