//! Installs RabbitMQ, what makes others of it, and the parser of the pages' pictures, with the machine's own tools.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::say::say;

/// Installs RabbitMQ, unless it is there.
pub(crate) fn rabbitmq() -> Result<()> {
    let Err(missing) = broker::find_server() else {
        return Ok(());
    };
    if on_path("apt-get") {
        apt_get(&["update"])?;
        // A systemd machine starts it at once, on port 5672; that does no harm.
        apt_get(&["install", "-y", "--no-install-recommends", "rabbitmq-server"])?;
    } else if on_path("brew") {
        run(Command::new("brew").args(["install", "rabbitmq"]))?;
    } else {
        return Err(missing.context("nothing to install RabbitMQ with: neither apt-get nor brew"));
    }
    broker::find_server().context("RabbitMQ was installed, but cannot be found").map(drop)
}

/// Installs debootstrap, unless it is there.
pub(crate) fn debootstrap() -> Result<()> {
    if on_path("debootstrap") {
        return Ok(());
    }
    ensure!(on_path("apt-get"), "nothing to install debootstrap with: there is no apt-get");
    apt_get(&["update"])?;
    apt_get(&["install", "-y", "--no-install-recommends", "debootstrap", "debian-archive-keyring"])
}

/// Installs the parser that the test of the pages' pictures uses, unless it is there. Without Node there is no such test.
pub(crate) fn mermaid() -> Result<()> {
    let folder = Path::new("tools/pages/mermaid");
    if !on_path("node") || !on_path("npm") || folder.join("node_modules/mermaid").exists() {
        return Ok(());
    }
    run(Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
        .arg(folder))
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new("env")
    } else if on_path("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    } else {
        bail!("apt-get needs root, and there is no sudo: run as root: apt-get {}", args.join(" "));
    };
    // sudo drops variables, so they are set behind it.
    run(command.arg("DEBIAN_FRONTEND=noninteractive").arg("apt-get").args(args))
}

fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    say!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run {line}"))?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    words.join(std::ffi::OsStr::new(" ")).to_string_lossy().into_owned()
}

/// Whether there is a program of this name.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).any(|file| Path::is_file(&file))
}
