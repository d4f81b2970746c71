//! Builds the programs of the demo and knows where they are.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// The built programs by name, which is a program's own in the whole workspace.
pub(crate) struct Programs(HashMap<String, Built>);

/// A built program.
pub(crate) struct Built {
    /// The package that it belongs to.
    pub(crate) package: String,
    /// The executable.
    pub(crate) path: PathBuf,
}

impl Programs {
    /// Builds all programs of these packages; cargo shows its progress and its errors itself.
    pub(crate) fn build(packages: &[&str]) -> Result<Self> {
        let mut cargo = workspace::cargo();
        // Asked instead of guessed: the target directory can be anywhere. This very program is named, too: it
        // is built already, and with it in the set cargo chooses the same features for what both need, and
        // does not build lapin and half of the rest a second time.
        cargo.args(["build", "--bins", "--message-format=json-render-diagnostics", "--package=xtask"]);
        for package in packages {
            cargo.args(["--package", package]);
        }
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo build")?;
        ensure!(output.status.success(), "cargo build: {}", output.status);
        Ok(Self(String::from_utf8_lossy(&output.stdout).lines().filter_map(executable).collect()))
    }

    /// The program of this name.
    pub(crate) fn get(&self, program: &str) -> Result<&Built> {
        self.0.get(program).with_context(|| format!("no package has a program {program}"))
    }
}

/// A program's name and where it is, out of one of cargo's messages, if it is about a built program.
fn executable(message: &str) -> Option<(String, Built)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    let name = message["target"]["name"].as_str()?;
    // path+file:///workspace/hello#0.1.0, or …/folder#hello@0.1.0 where the names differ.
    let (location, version) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = match version.split_once('@') {
        Some((package, _)) => package,
        None => location.rsplit('/').next()?,
    };
    Some((name.to_owned(), Built { package: package.to_owned(), path: path.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_messages() {
        let found = |id: &str| {
            let (name, built) = executable(&format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","target":{{"name":"b"}},"executable":"/t/b"}}"#
            ))
            .unwrap();
            (name, built.package, built.path)
        };
        let expected = ("b".to_owned(), "hello".to_owned(), PathBuf::from("/t/b"));
        assert_eq!(found("path+file:///w/hello#0.1.0"), expected);
        assert_eq!(found("path+file:///w/other#hello@0.1.0"), expected);
        for other in [
            r#"{"reason":"compiler-artifact","executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "no message",
        ] {
            assert!(executable(other).is_none(), "{other}");
        }
    }
}
