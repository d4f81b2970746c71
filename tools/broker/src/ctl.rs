//! Runs `rabbitmqctl`, and other tools, against a node, with a deadline.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::vm::end;
use crate::wait;

/// A call takes half a second; one that found no answer by then never will.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a node may call itself not running when its ports answer already, as one of RabbitMQ 3.8 does.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(20);

/// What it says meanwhile.
const BOOTING: &str = "requires the 'rabbit' app to be running";

/// Runs it and returns what it wrote to its standard output.
pub(crate) fn rabbitmqctl(place: &Place, args: &[&str]) -> Result<String> {
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        match call(place, args) {
            Err(error) if error.to_string().contains(BOOTING) && Instant::now() < deadline => {}
            result => return result,
        }
    }
}

fn call(place: &Place, args: &[&str]) -> Result<String> {
    let mut command = place.command(place.tool("rabbitmqctl"));
    finish(command.args(args).stdin(Stdio::null()), &format!("rabbitmqctl {}", args.join(" ")))
}

/// Runs a command, called `what` in errors, to its end and returns what it wrote to its standard output.
pub(crate) fn finish(command: &mut Command, what: &str) -> Result<String> {
    // Files instead of pipes: nobody has to read them while the command runs, and no grandchild can hold them
    // open.
    let (mut output, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| what.to_owned())?;
    let status = match wait::until(LIMIT, "its end", || Ok(child.try_wait()?)) {
        Ok(status) => status,
        Err(error) => {
            end(&mut child);
            return Err(error.context(what.to_owned()));
        }
    };
    let output = content(&mut output)?;
    if !status.success() {
        bail!("{what}: {status}\n{}{output}", content(&mut errors)?);
    }
    Ok(output)
}

fn content(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
