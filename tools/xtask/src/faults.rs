//! `cargo xtask faults`: the fault matrix with its long counts, and the table of what was seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use broker::Node;
use serde_json::Value;

use crate::say::say;
use crate::{page, workspace};

/// The rows that one node can provoke: all but a cluster without a majority (35).
fn rows() -> impl Iterator<Item = u32> {
    (1..=34).chain([36])
}

/// The page that holds the table.
pub(crate) const PAGE: &str = "striker-keeper/README.md";

/// Records of rows by their numbers.
type Records = BTreeMap<u32, Value>;

/// Plays all rows and writes their table into the page; or plays those of `only` and prints theirs.
pub(crate) fn faults(only: &[u32]) -> Result<ExitCode> {
    workspace::enter()?;
    if let Some(unknown) = only.iter().find(|number| !rows().any(|row| row == **number)) {
        bail!("there is no row {unknown}: the rows are 1 to 34, and 36");
    }
    let rows: Vec<_> = rows().filter(|number| only.is_empty() || only.contains(number)).collect();
    let folder = Path::new("target/faults");
    // What an earlier run left must not fill this one's gaps.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    say!("$ rabbitmq-server (private node)");
    let node = Node::start()?;
    let played = play(&rows, &node, &folder.canonicalize()?);
    let table = table(&read(folder, &rows)?, &machine(&node)?);
    say!("\n{table}");
    played?;
    if only.is_empty() {
        page::write(PAGE, "faults", &table)?;
        say!("faults: the table is in {PAGE}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the tests, optimised: that takes a build, but less time than a million messages without.
fn play(rows: &[u32], node: &Node, folder: &Path) -> Result<()> {
    let mut test = workspace::cargo();
    test.args(["test", "--release", "--locked", "-p", "striker-keeper", "--test", "faults", "--"]);
    // One after the other, so that no row slows down what another one measures.
    test.arg("--test-threads=1");
    test.args(rows.iter().map(|row| format!("fault_{row:02}_")));
    test.env_remove("AMQP_URL").env_remove("AMQP_PREFIX");
    test.env(broker::TEST_NODE, node.description());
    test.env("FAULTS_SCALE", "long").env("FAULTS_REPORT", folder);
    say!("$ FAULTS_SCALE=long cargo test --release -p striker-keeper --test faults");
    let status = test.status().context("cannot run cargo test")?;
    ensure!(status.success(), "a row failed: {status}");
    Ok(())
}

/// The record of each row; all of them have to be there.
fn read(folder: &Path, rows: &[u32]) -> Result<Records> {
    let mut records = Records::new();
    let mut missing = Vec::new();
    for row in rows {
        match fs::read_to_string(folder.join(format!("{row:02}.json"))) {
            Ok(text) => {
                let record =
                    serde_json::from_str(&text).with_context(|| format!("the record of row {row}"))?;
                records.insert(*row, record);
            }
            Err(_) => missing.push(row.to_string()),
        }
    }
    ensure!(
        missing.is_empty(),
        "no record of row {}: it failed, or there is no such test",
        missing.join(", ")
    );
    Ok(records)
}

fn machine(node: &Node) -> Result<String> {
    let version = node.version()?;
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(format!("{cores} cores, RabbitMQ {version}"))
}

fn table(records: &Records, machine: &str) -> String {
    let mut table =
        "| | fault | what was seen | back after | lost | duplicated |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for (number, record) in records {
        let text = |name: &str| record[name].as_str().unwrap_or_default().replace('|', "\\|");
        let (fault, seen, lost, duplicated) =
            (text("fault"), text("seen"), &record["lost"], &record["duplicated"]);
        let times: Vec<_> =
            record["recoveries_ms"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {number} | {fault} | {seen} | {} | {lost} | {duplicated} |",
            back_after(times)
        );
    }
    let _ = write!(
        table,
        "\nWritten by `cargo xtask faults` on {machine}. *Back after* is the time from the moment when the broker \
         answers again or the network is whole until the keeper has the next message (or, where nothing is sent at \
         that moment, consumes again): once, or median / worst of several. *Lost* are confirmed messages that were \
         neither consumed nor in the queue; *duplicated* ones came more than once, which at least once delivery allows."
    );
    table
}

/// One time, or the median and the worst of several.
fn back_after(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    match times[..] {
        [] => String::new(),
        [time] => format!("{time:.0} ms"),
        [.., worst] => format!("{:.0} / {worst:.0} ms", times[(times.len() - 1) / 2]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_has_its_median_and_its_worst_time() {
        let record = json!({"fault": "a | b", "seen": "c", "recoveries_ms": [30.4, 10.0, 20.0], "lost": 0, "duplicated": 7});
        let table = table(&Records::from([(6, record)]), "a machine");
        assert!(table.contains("| 6 | a \\| b | c | 20 / 30 ms | 0 | 7 |\n"), "{table}");
        assert!(table.contains("on a machine."), "{table}");
        assert_eq!(back_after(vec![]), "");
        assert_eq!(back_after(vec![1.6]), "2 ms");
    }

    #[test]
    fn a_row_without_a_record_is_named() {
        let error = read(Path::new("there/is/no/such/folder"), &[7, 9]).unwrap_err().to_string();
        assert!(error.contains("row 7, 9"), "{error}");
    }
}
