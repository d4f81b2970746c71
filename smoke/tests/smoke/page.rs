//! The page tells the truth: its commands work, and what it says they print is what they print.

use std::path::Path;

use crate::support::*;

const PAGE: &str = include_str!("../../README.md");

/// What the page has between fences of this kind.
fn blocks(kind: &str) -> Vec<&'static str> {
    let fence = format!("```{kind}\n");
    PAGE.split(&*fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The arguments of a command of the page.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let rest = line.strip_prefix("$ cargo run -p smoke")?;
    Some(rest.strip_prefix(" --").unwrap_or(rest).split_whitespace().collect())
}

#[test]
fn the_commands_of_the_page_work() {
    let vhost = broker::node().vhost().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The page writes into the target directory of whoever types it.
    let file = folder.path().join("smoke.xml").to_string_lossy().into_owned();
    let commands: Vec<_> =
        blocks("console").iter().flat_map(|block| block.lines()).filter_map(arguments).collect();
    assert!(commands.len() >= 7);
    for arguments in commands {
        let arguments = arguments.iter().map(|word| if *word == "target/smoke.xml" { &*file } else { *word });
        smoke(&vhost.url()).args(arguments).run().expect_code(0);
    }
    assert!(Path::new(&file).exists());
    expect_nothing_left(&vhost);
}

#[test]
fn the_table_of_the_page_is_what_is_printed() {
    let vhost = broker::node().vhost().unwrap();
    let block = blocks("console")[0];
    let mut lines = block.lines();
    let end = smoke(&vhost.url()).args(arguments(lines.next().unwrap()).unwrap()).run().expect_code(0);
    let expected: Vec<_> = lines.collect();
    let cut = expected.iter().position(|line| *line == "…").unwrap();
    let (first, last) = (&expected[..cut], &expected[cut + 1..]);
    let printed = &end.stdout;
    for (expected, line) in first.iter().zip(printed).chain(last.iter().rev().zip(printed.iter().rev())) {
        assert_eq!(shape(expected), shape(line), "{expected}\n{line}");
    }
}

/// A line without what differs from run to run: numbers, addresses, versions, what a cluster is called.
fn shape(line: &str) -> String {
    let line = line.split(" on amqp://").next().unwrap().split("; cluster ").next().unwrap();
    let words =
        line.split_whitespace().filter(|word| !word.starts_with(|c: char| c.is_ascii_digit() || c == '/'));
    // The ways to log in are a broker's own.
    let differ = ["ms", "s", "test", "PLAIN", "AMQPLAIN", "ANONYMOUS", "EXTERNAL"];
    words
        .filter(|word| !differ.iter().any(|other| word == other || word.starts_with("test-")))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_page_names_all_there_is() {
    let help = smoke("amqp://127.0.0.1:1").arg("--help").run().expect_code(0).stdout.join("\n");
    let own = help.split("Connection:").next().unwrap();
    let options = own.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    for option in options.map(|word| word.trim_end_matches([',', '.', ')'])) {
        assert!(
            ["--help", "--version"].contains(&option) || PAGE.contains(option),
            "{option} is not on the page"
        );
    }
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../schema/report.v1.json")).unwrap();
    let check = &schema["$defs"]["check"]["properties"];
    let objects =
        [&schema["properties"], check, &check["times"]["properties"], &check["fault"]["properties"]];
    for field in objects.iter().flat_map(|object| object.as_object().unwrap().keys()) {
        assert!(PAGE.contains(&format!("`{field}`")), "{field} is not on the page");
    }
}
