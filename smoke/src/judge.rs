//! Turns what a check ended with into a verdict that a person can act on.

use std::time::Duration;

use shared::{Error, Result, shell_word};

use crate::check::{Check, Fault, Finding, Status, Stop, Verdict};
use crate::trial::{Run, Trial, unwrapped};

/// The verdict on an attempt. `None`: it did not end within its limit.
pub(crate) fn judge(
    check: &Check,
    trial: &Trial,
    result: Option<Result<Finding>>,
    took: Duration,
    limit: Duration,
) -> Verdict {
    match result {
        Some(Ok(finding)) => found(check, trial.run(), finding, took),
        Some(Err(error)) => failed(trial, unwrapped(error)),
        None => Verdict::failed(late(trial, limit)),
    }
}

fn found(check: &Check, run: &Run, finding: Finding, took: Duration) -> Verdict {
    let (status, note) = match finding {
        Finding::Pass(note) => (Status::Pass, note),
        Finding::Warn(note) => (Status::Warn, note),
    };
    let slow = took.saturating_sub(check.rests) > run.slow;
    if !slow {
        return Verdict::new(status, note);
    }
    let slow = format!(
        "slow: took {} instead of at most {}",
        rounded(took),
        humantime::format_duration(run.slow + check.rests)
    );
    Verdict::new(Status::Warn, if note.is_empty() { slow } else { format!("{slow}; {note}") })
}

fn failed(trial: &Trial, error: Error) -> Verdict {
    if let Error::Own(own) = &error
        && let Some(stop) = own.downcast_ref::<Stop>()
    {
        return stopped(trial.run(), stop.clone());
    }
    if let Some(line) = missing_permission(trial.run(), &error) {
        let verdict = Verdict::new(Status::Skipped, line);
        return Verdict { forbidden: true, ..verdict };
    }
    let next = hint(trial.run(), &error).unwrap_or_else(|| "rabbitmq-diagnostics log_tail".to_owned());
    Verdict::failed(Fault { expected: format!("to {}", trial.current_step()), seen: error.to_string(), next })
}

fn stopped(run: &Run, stop: Stop) -> Verdict {
    match stop {
        Stop::Fault(fault) => {
            let next = fault.next.replace("{vhost}", &shell_word(run.endpoint.vhost()));
            Verdict::failed(Fault { next, ..fault })
        }
        Stop::Unsupported(reply) => Verdict::new(Status::Unsupported, reply),
        Stop::Skip(why) => Verdict::new(Status::Skipped, why),
    }
}

/// Nothing came in time.
fn late(trial: &Trial, limit: Duration) -> Fault {
    let (seen, next) = match trial.blocked() {
        Some(reason) => (
            format!("the broker blocks publishing: {reason}"),
            "see which resource is short: rabbitmq-diagnostics alarms",
        ),
        None => (
            "nothing".to_owned(),
            "see whether the broker or the network is in trouble: rabbitmq-diagnostics status; \
             if both are only slow: --timeout",
        ),
    };
    Fault {
        expected: format!("to {} within {}", trial.current_step(), humantime::format_duration(limit)),
        seen,
        next: next.to_owned(),
    }
}

/// What the broker said, and the command that gives this user what this program needs.
fn missing_permission(run: &Run, error: &Error) -> Option<String> {
    let text = error.to_string();
    // Not the refusal of a login, nor of a name that belongs to the broker or to another connection.
    let forbidden = error.code() == Some(403) && text.contains("access to") && text.contains("refused");
    let at_connect = matches!(error, Error::Connect { .. });
    (forbidden && !at_connect).then(|| format!("no permission: {text}; {}", permission_command(run)))
}

/// The command that gives the user the least permissions that this program needs.
pub(crate) fn permission_command(run: &Run) -> String {
    let name = run.args.name("smoke.").unwrap_or_default();
    let start: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() || c == '-' { c.to_string() } else { format!("\\{c}") })
        .collect();
    let own = shell_word(&format!("^({start}|amq\\.gen)"));
    let write = shell_word(&format!("^({start}|amq\\.gen|amq\\.default)"));
    format!(
        "rabbitmqctl set_permissions -p {} {} {own} {write} {own} (in place of those that the user has)",
        shell_word(run.endpoint.vhost()),
        shell_word(run.endpoint.user()),
    )
}

/// What to do about an error: what `shared` knows, and what only this program meets.
fn hint(run: &Run, error: &Error) -> Option<String> {
    let vhost = shell_word(run.endpoint.vhost());
    if error.code() == Some(406) && error.to_string().contains("queue limit") {
        return Some(format!(
            "raise the vhost's limit: rabbitmqctl set_vhost_limits -p {vhost} '{{\"max-queues\": -1}}'"
        ));
    }
    if let Error::Returned { code: 312, exchange, .. } = error
        && exchange.is_empty()
    {
        return Some(format!(
            "somebody deleted this program's queue, or a policy made it expire: rabbitmqctl list_policies -p {vhost}"
        ));
    }
    if let Error::ConsumerCancelled { .. } = error {
        return Some(
            "somebody deletes queues, or the node went down: rabbitmq-diagnostics log_tail".to_owned(),
        );
    }
    error.hint()
}

/// A duration as a person would say it.
pub(crate) fn rounded(duration: Duration) -> String {
    match duration.as_millis() {
        milliseconds @ 0..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (milliseconds, text) in [(0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (61_250, "61.2 s")] {
            assert_eq!(rounded(Duration::from_millis(milliseconds)), text);
        }
    }
}
