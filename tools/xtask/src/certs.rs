//! `cargo xtask certs`: a small certificate authority's files for TLS on this machine.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use broker::{Authority, Certificates};
use clap::ValueEnum;

use crate::say::say;
use crate::workspace;

/// What is wrong with the broker's certificate, on purpose.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Fault {
    /// it was valid up to yesterday
    Expired,
    /// it is for broker.example, and for no name of this machine
    OtherHost,
}

/// Writes new files into `folder`, relative to the workspace, and says what they are for.
pub(crate) fn certs(folder: &Path, days: u32, fault: Option<Fault>) -> Result<ExitCode> {
    workspace::enter()?;
    let authority = Authority::new(days)?;
    let right = authority.certificates()?;
    let (certificates, whose) = match fault {
        None => (right, "for localhost, 127.0.0.1 and ::1 only"),
        Some(Fault::Expired) => {
            (Certificates { server: authority.expired_server()?, ..right }, "EXPIRED, to see it refused")
        }
        Some(Fault::OtherHost) => (
            Certificates { server: authority.server_elsewhere()?, ..right },
            "FOR ANOTHER HOST, to see it refused",
        ),
    };
    let files = certificates.write(folder).context("no certificates")?;
    for (file, purpose) in [
        (files.ca_certificate, "the authority that both sides trust; its key is kept nowhere"),
        (files.server_certificate, &*format!("the broker's, {whose}")),
        (files.server_key, "the broker's key"),
        (files.client_certificate, "the client's, who is the user guest"),
        (files.client_key, "the client's key"),
    ] {
        say!("{}: {purpose}", file.display());
    }
    say!("valid for {days} days, for tests on this machine: everybody here can read the keys");
    Ok(ExitCode::SUCCESS)
}
