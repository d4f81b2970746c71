//! Builds the programs of the demo and knows where they are.

use std::{collections::HashMap, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// The built programs, by package and name.
pub(crate) struct Programs(HashMap<(String, String), PathBuf>);

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

    /// The path of a program.
    pub(crate) fn path(&self, package: &str, program: &str) -> Result<&PathBuf> {
        self.0
            .get(&(package.to_owned(), program.to_owned()))
            .with_context(|| format!("the package {package} has no program {program}"))
    }
}

/// Package, name and path out of one of cargo's messages, if it is about a built program.
fn executable(message: &str) -> Option<((String, String), PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    let name = message["target"]["name"].as_str()?;
    // path+file:///workspace/hello#0.1.0, or …/folder#hello@0.1.0 where the names differ.
    let (location, version) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = match version.split_once('@') {
        Some((package, _)) => package,
        None => location.rsplit('/').next()?,
    };
    Some(((package.to_owned(), name.to_owned()), path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_messages() {
        let found = |id: &str| {
            executable(&format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","target":{{"name":"b"}},"executable":"/t/b"}}"#
            ))
        };
        let expected = Some((("hello".to_owned(), "b".to_owned()), PathBuf::from("/t/b")));
        assert_eq!(found("path+file:///w/hello#0.1.0"), expected);
        assert_eq!(found("path+file:///w/other#hello@0.1.0"), expected);
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("no message"), None);
    }
}
