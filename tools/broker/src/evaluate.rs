//! Lets a node evaluate Erlang: in some milliseconds, where `rabbitmqctl eval` takes half a second of work.

use std::io::{Seek, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;

use crate::ctl::{BOOT_LIMIT, finish};
use crate::place::Place;
use crate::wait;

/// How often this process has called a node.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// The value of an Erlang expression, which must have a form in JSON. Waits for a node that still boots.
pub(crate) fn evaluate(place: &Place, expression: &str) -> Result<Value> {
    // Base64, because `erl_call` shows the beginning of a binary only, and no quotes inside a text.
    let question = format!(
        "base64:encode_to_string(rabbit_json:encode(
            case rabbit:is_running() of true -> [{expression}]; false -> [] end)).\n"
    );
    wait::until(BOOT_LIMIT, "RabbitMQ to run in its node", || {
        let answer = erl_call(place, &question)?;
        let values = json(&answer).with_context(|| format!("erl_call: {expression} came to {answer}"))?;
        let values: Vec<Value> = serde_json::from_slice(&values)?;
        Ok(values.into_iter().next())
    })
}

/// Erlang's own tool, which prints what its standard input comes to.
fn erl_call(place: &Place, question: &str) -> Result<String> {
    let mut input = tempfile::tempfile()?;
    input.write_all(question.as_bytes())?;
    input.rewind()?;
    // A name of its own: the node takes only one of those that call themselves the same.
    let caller = format!("ask-{}-{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
    let mut command = place.command("erl_call");
    finish(command.args(["-h", &caller, "-n", &place.name, "-e"]).stdin(input), "erl_call")
}

/// What is encoded in `{ok, "W10="}`.
fn json(answer: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(answer.trim().strip_prefix("{ok, \"")?.strip_suffix("\"}")?).ok()
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
