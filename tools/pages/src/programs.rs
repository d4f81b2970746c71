//! Builds the programs of the workspace and knows where they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// The built programs by name, which is a program's own in the whole workspace; `example/` begins an example's.
pub struct Programs(BTreeMap<String, Built>);

/// A built program.
pub struct Built {
    /// The package that it belongs to.
    pub package: String,
    /// The executable.
    pub path: PathBuf,
}

impl Programs {
    /// Builds all programs of these packages; cargo shows its progress and its errors itself.
    ///
    /// # Errors
    /// When cargo cannot be run or something cannot be built.
    pub fn build(packages: &[&str]) -> Result<Self> {
        let mut cargo = workspace::cargo();
        // This very program is named, too: it is built already, and with it in the set cargo chooses the same
        // features for what both need, and does not build lapin and half of the rest a second time.
        cargo.args(["build", "--bins", "--package=xtask"]);
        for package in packages {
            cargo.args(["--package", package]);
        }
        Self::of(cargo)
    }

    /// Builds all programs and examples there are, with the features that `cargo test --workspace` chooses: after
    /// that, nothing is left to build.
    ///
    /// # Errors
    /// As for [`build`](Self::build).
    pub fn build_all() -> Result<Self> {
        let mut cargo = workspace::cargo();
        cargo.args(["build", "--workspace", "--bins", "--examples", "--quiet"]);
        Self::of(cargo)
    }

    fn of(mut cargo: Command) -> Result<Self> {
        // Asked instead of guessed: the target directory can be anywhere.
        cargo.arg("--message-format=json-render-diagnostics");
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo build")?;
        ensure!(output.status.success(), "cargo build: {}", output.status);
        Ok(Self(String::from_utf8_lossy(&output.stdout).lines().filter_map(executable).collect()))
    }

    /// The program of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, program: &str) -> Result<&Built> {
        self.0.get(program).with_context(|| format!("no package has a program {program}"))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(name, built)| (name.as_str(), built.path.as_path()))
    }
}

/// A program's name and where it is, out of one of cargo's messages, if it is about a built program.
fn executable(message: &str) -> Option<(String, Built)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    let mut name = message["target"]["name"].as_str()?.to_owned();
    if message["target"]["kind"][0] == "example" {
        name.insert_str(0, "example/");
    }
    // path+file:///workspace/hello#0.1.0, or …/folder#hello@0.1.0 where the names differ.
    let (location, version) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package = match version.split_once('@') {
        Some((package, _)) => package,
        None => location.rsplit('/').next()?,
    };
    Some((name, Built { package: package.to_owned(), path: path.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_in_messages() {
        let found = |id: &str, kind: &str| {
            let (name, built) = executable(&format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","target":{{"name":"b","kind":["{kind}"]}},"executable":"/t/b"}}"#
            ))
            .unwrap();
            (name, built.package, built.path)
        };
        let expected = |name: &str| (name.to_owned(), "hello".to_owned(), PathBuf::from("/t/b"));
        assert_eq!(found("path+file:///w/hello#0.1.0", "bin"), expected("b"));
        assert_eq!(found("path+file:///w/other#hello@0.1.0", "example"), expected("example/b"));
        for other in [
            r#"{"reason":"compiler-artifact","executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "no message",
        ] {
            assert!(executable(other).is_none(), "{other}");
        }
    }
}
