//! The benchmark at a tiny size: whether it counts rightly, never how fast anything is.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use harness::{End, Program};
use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_bench");

/// Workloads that `shared` does, and those of them that lapin does not.
const WORKLOADS: [usize; 2] = [16, 2];

fn bench(url: &str, args: &[&str]) -> End {
    Program::new(BENCH).env("AMQP_URL", url).args(["--rounds", "1", "--messages", "100"]).args(args).run()
}

fn records(end: &End) -> Vec<Value> {
    let lines = end.stdout.iter().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// A contestant that is a shell script; its arguments are a workload, a number of messages and a queue.
fn script(folder: &tempfile::TempDir, name: &str, script: &str) -> Result<String> {
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(format!("{name}={}", path.display()))
}

#[test]
fn every_workload_keeps_every_message_and_has_a_line_in_the_table() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let workloads = [
        "unconfirmed",
        "confirmed",
        "new-",
        "in-",
        "callers",
        "callers-",
        "consume-",
        "ack-",
        "rpc-",
        "pairs",
        "tx-",
    ];
    let only: Vec<_> = workloads.iter().flat_map(|name| ["--only", name]).collect();
    let end = bench(&vhost.url(), &only).expect_code(0);
    let records = records(&end);
    assert_eq!(records.len(), 2 * WORKLOADS[0] - WORKLOADS[1], "{end:?}");
    for record in &records {
        assert_eq!(record["messages"], 100);
        for count in ["lost", "doubled", "foreign"] {
            assert_eq!(record[count], 0, "{record}");
        }
        if record["contestant"] == "shared" {
            assert_eq!(record["wrong_outcomes"], 0, "{record}");
        }
    }
    let rows = end.stdout.iter().filter(|line| line.starts_with("| ")).count();
    assert_eq!(rows, 1 + WORKLOADS[0], "{end:?}");
    assert_eq!(vhost.queues()?, Vec::<Value>::new(), "left behind");
    Ok(())
}

#[test]
fn a_run_that_loses_or_doubles_messages_is_found_out() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let folder = tempfile::tempdir()?;
    let lazy =
        script(&folder, "lazy", r#"echo '{"seconds":0.001,"cpu_seconds":0.001,"distinct":99,"doubled":0}'"#)?;
    let twice =
        script(&folder, "twice", &format!(r#"{BENCH} run lapin "$@" >/dev/null && {BENCH} run lapin "$@""#))?;
    let other = script(&folder, "other", "exit 3")?;

    let only = ["--only", "confirmed", "--peer", &*lazy, "--peer", &*twice, "--peer", &*other];
    let end = bench(&vhost.url(), &only).expect_code(1);
    let of = |name: &str, field: &str| {
        let records = records(&end);
        let record = records.iter().find(|record| record["contestant"] == name);
        record.and_then(|record| record[field].as_u64())
    };
    assert_eq!((of("lazy", "lost"), of("lazy", "doubled")), (Some(100), Some(0)), "{end:?}");
    assert_eq!((of("twice", "lost"), of("twice", "doubled")), (Some(0), Some(100)), "{end:?}");
    assert_eq!((of("shared", "lost"), of("other", "lost")), (Some(0), None), "{end:?}");
    let table = end.stdout.join("\n");
    assert!(table.contains("100 lost") && table.contains("100 doubled"), "{table}");
    assert!(end.stderr.iter().any(|line| line.contains("2 runs lost or doubled messages")), "{end:?}");

    // Consumers are not believed either: the queue still holds what they did not acknowledge.
    let end = bench(&vhost.url(), &["--only", "consume-100", "--peer", &*lazy]).expect_code(1);
    let records = records(&end);
    let lazy = records.iter().find(|record| record["contestant"] == "lazy").expect("a record");
    assert_eq!((&lazy["lost"], &lazy["foreign"]), (&1.into(), &100.into()), "{lazy}");
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_and_an_unknown_workload_with_the_names_of_all() {
    for args in [&["--peer", "peer"][..], &["--rounds", "0"]] {
        Program::new(BENCH).args(args).run().expect_code(2);
    }
    let end =
        Program::new(BENCH).env("AMQP_URL", "amqp://127.0.0.1:1").args(["--only", "x"]).run().expect_code(1);
    assert!(
        end.stderr.iter().any(|line| line.contains("consume-100") && line.contains("restart")),
        "{end:?}"
    );
}
