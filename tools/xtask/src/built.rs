//! Builds all tests of the workspace, with the programs that they start, and tells where they are.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::say::say;
use crate::workspace;

/// What one of cargo's messages is about.
#[derive(Debug, PartialEq)]
pub(crate) enum Built {
    Test { package: String, target: String, program: TestProgram },
    Program { name: String, path: PathBuf },
}

#[derive(Debug, PartialEq)]
pub(crate) struct TestProgram {
    pub(crate) path: PathBuf,
    /// The directory of its package, in which cargo runs it.
    pub(crate) directory: PathBuf,
}

/// Builds everything. cargo shows its progress and its errors.
pub(crate) fn all() -> Result<Vec<Built>> {
    let mut cargo = workspace::cargo();
    // All at once, always, so that nothing is built a second time with other features.
    cargo.args(["test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    say!("$ cargo test --workspace --locked --no-run");
    let output =
        cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo test")?;
    ensure!(output.status.success(), "cargo test --no-run: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(built).collect())
}

/// What a message of cargo says was built, if it is something to run.
fn built(message: &str) -> Option<Built> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = PathBuf::from(message["executable"].as_str()?);
    let target = message["target"]["name"].as_str()?.to_owned();
    if message["profile"]["test"] != true {
        return Some(Built::Program { name: target, path });
    }
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    // A package is called as its directory is, everywhere in this workspace.
    let package = directory.file_name()?.to_str()?.to_owned();
    Some(Built::Test { package, target, program: TestProgram { path, directory } })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tests_and_programs_are_found_in_messages() {
        let message = |test: bool| {
            json!({"reason": "compiler-artifact", "manifest_path": "/w/hello/Cargo.toml", "executable": "/t/h-1",
                   "target": {"name": "hello"}, "profile": {"test": test}})
            .to_string()
        };
        let program = TestProgram { path: "/t/h-1".into(), directory: "/w/hello".into() };
        let expected = Built::Test { package: "hello".to_owned(), target: "hello".to_owned(), program };
        assert_eq!(built(&message(true)), Some(expected));
        let expected = Built::Program { name: "hello".to_owned(), path: "/t/h-1".into() };
        assert_eq!(built(&message(false)), Some(expected));
        for other in [r#"{"reason":"build-finished"}"#, r#"{"executable":null}"#, "no message"] {
            assert_eq!(built(other), None, "{other}");
        }
    }
}
