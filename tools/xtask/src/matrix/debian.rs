//! Other Debian releases, each in a folder, for the RabbitMQ that is in them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::install::on_path;
use crate::say::say;

const FOLDER: &str = "target/debian";

/// Where a release is, or is to be.
pub(crate) fn folder(suite: &str) -> PathBuf {
    Path::new(FOLDER).join(suite)
}

/// Installs a release into its folder, unless it is there: a minute, half a gigabyte.
pub(crate) fn provide(suite: &str, mirror: Option<&str>) -> Result<()> {
    let folder = folder(suite);
    if folder.exists() {
        return Ok(());
    }
    possible(nix::unistd::geteuid().is_root(), on_path("debootstrap"))?;
    let mirror = match mirror {
        Some(mirror) => mirror.to_owned(),
        None => first_mirror(&apt_sources()?)?,
    };
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
    // Under its own name only when it is complete.
    let part = folder.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    let log = folder.with_extension("log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // What debootstrap mounts in the folder is seen by nobody else, and goes with it.
    let mut command = Command::new("unshare");
    command.args(["--mount", "debootstrap", "--variant=minbase", "--include=rabbitmq-server", suite]);
    command.arg(&part).arg(&mirror).stdin(Stdio::null());
    say!("$ debootstrap --variant=minbase --include=rabbitmq-server {suite} {} {mirror}", part.display());
    let status = command.stdout(output.try_clone()?).stderr(output).status().context("cannot run unshare")?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!("{}", failed(suite, &mirror, &log, &said));
    }
    fs::rename(&part, &folder).with_context(|| format!("cannot rename {}", part.display()))
}

/// Whether a release can be installed here at all.
fn possible(root: bool, debootstrap: bool) -> Result<()> {
    ensure!(
        root,
        "the folders with other Debian releases can be made by root only, who owns the files in them: run this \
         command as root once; afterwards any user can"
    );
    ensure!(
        debootstrap,
        "debootstrap, which makes the folders with other Debian releases, is missing: cargo xtask matrix --install"
    );
    Ok(())
}

/// What apt knows of the archives that it uses: origin, label, address, one a line.
fn apt_sources() -> Result<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"])
        .output()
        .context("cannot ask apt-get for a mirror of Debian: name one with --mirror URL")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The mirror from which this machine itself is installed.
fn first_mirror(sources: &str) -> Result<String> {
    let mirrors = sources.lines().filter_map(|line| line.strip_prefix("Debian Debian "));
    let mirror = mirrors.map(str::trim).find(|mirror| !mirror.is_empty());
    mirror.map(str::to_owned).context(
        "apt knows no mirror of Debian: run apt-get update if this is Debian, or name one with --mirror URL",
    )
}

/// In words, why there is no folder.
fn failed(suite: &str, mirror: &str, log: &Path, said: &str) -> String {
    let lines: Vec<_> = said.lines().filter(|line| !line.starts_with("I: ")).collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n");
    format!(
        "debootstrap could not install Debian's {suite} from {mirror} (is the network there, and does the mirror \
         have that release for this kind of machine? --mirror URL names another one); all of its words are in {}, \
         the last ones are:\n{last}",
        log.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        possible(true, true).unwrap();
        let error = possible(false, true).unwrap_err().to_string();
        assert!(error.contains("run this command as root"), "{error}");
        let error = possible(true, false).unwrap_err().to_string();
        assert!(error.ends_with("cargo xtask matrix --install"), "{error}");
    }

    #[test]
    fn the_mirror_is_the_machines_own() {
        let sources = "Debian Debian-Security http://a.example/security/\nnodistro . http://b.example/\n\
                       Debian Debian http://c.example/debian/\nDebian Debian http://d.example/debian/\n";
        assert_eq!(first_mirror(sources).unwrap(), "http://c.example/debian/");
        for none in ["", "Ubuntu Ubuntu http://a.example/ubuntu/\n"] {
            assert!(first_mirror(none).unwrap_err().to_string().contains("--mirror URL"));
        }
    }

    #[test]
    fn a_failure_shows_the_words_that_matter() {
        let said = "I: Retrieving InRelease\nE: Failed getting release file http://m.example/x\n";
        let text = failed("bullseye", "http://m.example/", Path::new("target/debian/bullseye.log"), said);
        assert!(text.contains("Debian's bullseye from http://m.example/"), "{text}");
        assert!(text.ends_with("are:\nE: Failed getting release file http://m.example/x"), "{text}");
    }
}
