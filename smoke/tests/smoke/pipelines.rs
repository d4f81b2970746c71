//! The commands of the page about pipelines, as the pipelines run them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::Program;

#[test]
fn the_pipelines_commands_report_a_sound_broker() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ci.md");
    let page = fs::read_to_string(page)?;
    let mut commands: Vec<_> = page.lines().filter_map(|line| line.trim().split_once("smoke --")).collect();
    commands.retain(|(before, _)| matches!(*before, "- " | "- run: "));
    ensure!(commands.len() == 2, "a command for each kind of pipeline: {commands:?}");
    // The same checks each time.
    commands.dedup_by_key(|(_, options)| *options);
    for (_, options) in commands {
        let folder = tempfile::tempdir()?;
        let report = folder.path().join("smoke.xml");
        ensure!(options.ends_with("--output-file smoke.xml"), "{options}");
        let options = format!("--{}", options.trim_end_matches("smoke.xml").trim_end());
        let vhost = broker::node().vhost()?;
        let smoke = Program::new(env!("CARGO_BIN_EXE_smoke")).args(options.split_whitespace()).arg(&report);
        smoke.args(["--profile", "quick"]).env("AMQP_URL", vhost.url()).run().expect_code(0);
        let report = fs::read_to_string(&report).context("no report")?;
        ensure!(report.contains("<testsuites") && report.contains("failures=\"0\""), "{report}");
    }
    Ok(())
}
