//! Runs `rabbitmqctl` and `erl_call` against a node, with a deadline.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use crate::place::Place;
use crate::vm::end;
use crate::wait;

/// A call takes half a second; one that found no answer by then never will.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a node may call itself not running when its ports answer already, as one of RabbitMQ 3.8 does.
const BOOT_LIMIT: Duration = Duration::from_secs(20);

/// The pause between two looks whether it does.
const BOOT_PAUSE: Duration = Duration::from_millis(200);

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

/// How often this process has called a node.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Lets a node evaluate an Erlang expression, and returns its value, which must have a form in JSON. It takes some
/// milliseconds where `rabbitmqctl eval` takes half a second of work, and comes with Erlang as well.
pub(crate) fn evaluate(place: &Place, expression: &str) -> Result<Value> {
    let deadline = Instant::now() + BOOT_LIMIT;
    // Base64, because `erl_call` shows the beginning of a binary only, and no quotes inside a text.
    let question = format!(
        "base64:encode_to_string(rabbit_json:encode(
            case rabbit:is_running() of true -> [{expression}]; false -> [] end)).\n"
    );
    loop {
        let mut input = tempfile::tempfile()?;
        input.write_all(question.as_bytes())?;
        input.rewind()?;
        let mut command = place.command("erl_call");
        // A name of its own: the node takes only one of those that call themselves the same.
        let caller = format!("ask-{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
        let answer = finish(command.args(["-h", &caller, "-n", &place.name, "-e"]).stdin(input), "erl_call")?;
        let value = json(&answer).with_context(|| format!("erl_call: {expression} came to {answer}"))?;
        let value: Vec<Value> = serde_json::from_slice(&value)?;
        if let Some(value) = value.into_iter().next() {
            return Ok(value);
        }
        ensure!(Instant::now() < deadline, "erl_call: {} is not running", place.name);
        std::thread::sleep(BOOT_PAUSE);
    }
}

/// What is encoded in `{ok, "W10="}`.
fn json(answer: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(answer.trim().strip_prefix("{ok, \"")?.strip_suffix("\"}")?).ok()
}

/// Runs a command to its end and returns what it wrote to its standard output.
fn finish(command: &mut Command, what: &str) -> Result<String> {
    let what = || what.to_owned();
    // Files instead of pipes: nobody has to read them while the command runs, and no grandchild can hold them
    // open.
    let (mut output, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(what)?;
    let status = match wait::until(LIMIT, "its end", || Ok(child.try_wait()?)) {
        Ok(status) => status,
        Err(error) => {
            end(&mut child);
            return Err(error.context(what()));
        }
    };
    let output = content(&mut output)?;
    if !status.success() {
        bail!("{}: {status}\n{}{output}", what(), content(&mut errors)?);
    }
    Ok(output)
}

fn content(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_bytes_or_none() {
        assert_eq!(json("{ok, \"W10=\"}\n"), Some(b"[]".to_vec()));
        assert_eq!(json("{error, {undef, []}}"), None);
        assert_eq!(json("{ok, [87, 49]}"), None);
    }
}
