//! Has `smoke` try every pattern on the broker of the demo.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use harness::{Failure, Program};

use crate::say::say;
use crate::stage::Stage;

/// The package, and its program.
pub(crate) const PACKAGE: &str = "smoke";

/// Its own deadline is one minute.
const PATIENCE: Duration = Duration::from_secs(75);

/// Runs it and shows what it prints; an error if a check failed.
pub(crate) fn run(stage: &Stage) -> Result<()> {
    say!("\n{PACKAGE}: every pattern tried on this broker, and what it has besides");
    say!("  {PACKAGE} $ cargo run -p {PACKAGE}");
    let program = Program::new(&stage.programs.get(PACKAGE)?.path)
        .env("AMQP_URL", &stage.url)
        .env("AMQP_PREFIX", &stage.prefix)
        .on_line(|_, line| say!("  {PACKAGE} | {line}"));
    let program = Arc::new(program.try_start().map_err(first_line)?);
    stage.interrupt.stops(&program);
    program.try_wait(PATIENCE).and_then(|end| end.try_code(0)).map_err(first_line)?;
    Ok(())
}

/// The lines of the program, which follow in the failure's text, were shown already.
fn first_line(failure: Failure) -> anyhow::Error {
    anyhow::Error::msg(failure.to_string().lines().next().unwrap_or_default().to_owned())
}
