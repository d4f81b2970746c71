//! Where the workspace is and which cargo builds it.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

/// The test programs that start brokers of their own. In others the tests that do are in a module `own_broker`.
pub const OWN_BROKERS: [&str; 4] = ["faults", "node", "cluster", "tls_page"];

/// Makes the workspace's root the current directory, wherever the command was typed.
pub fn enter() -> Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))
}

/// The cargo that runs this command, so that a toolchain chosen by `cargo +…` stays chosen.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    // What cargo tells this program about its own package would look like a changed environment to the
    // build scripts of dependencies (ring's is one), and half of the workspace would be built anew each time.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(&*name);
        }
    }
    cargo
}
