//! `cargo xtask certs`: a small certificate authority's files for TLS on this machine.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use broker::Certificates;

use crate::say::say;
use crate::workspace;

/// Writes new files into `folder`, relative to the workspace, and says what they are for.
pub(crate) fn certs(folder: &Path, days: u32) -> Result<ExitCode> {
    workspace::enter()?;
    let files = Certificates::for_days(days)?.write(folder).context("no certificates")?;
    for (file, purpose) in [
        (files.ca_certificate, "the authority that both sides trust (its key is thrown away)"),
        (files.server_certificate, "the broker's: for localhost, 127.0.0.1 and ::1 only"),
        (files.server_key, "the broker's key"),
        (files.client_certificate, "the client's: the user guest"),
        (files.client_key, "the client's key"),
    ] {
        say!("{:<32} {purpose}", file.display());
    }
    say!("valid for {days} days; for tests on this machine: everybody here can read the keys");
    Ok(ExitCode::SUCCESS)
}
