//! `cargo xtask demo`: the programs of the tutorial at work, as real processes on a real broker.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;

use anyhow::{Result, bail};
use broker::Node;

use crate::interrupt::Interrupt;
use crate::programs::Programs;
use crate::say::say;
use crate::stage::Stage;
use crate::{choose_broker, exchanges, smoke, visit, workspace};

/// Plays all exchanges, has `smoke` try the broker, and says whether all was as expected.
pub(crate) fn demo(install: bool) -> Result<ExitCode> {
    workspace::enter()?;
    let broker = choose_broker::choose(install)?;
    if broker.private.is_none() {
        visit::check(&broker.url)?;
    }
    let mut packages: Vec<_> = exchanges::ALL.iter().map(|exchange| exchange.package).collect();
    packages.push(smoke::PACKAGE);
    say!("programs: {}", packages.join(", "));
    let stage = Stage {
        url: broker.url.clone(),
        management: broker.private.as_ref().map(Node::management_url),
        prefix: match &broker.private {
            Some(_) => String::new(),
            None => format!("demo-{:x}-", RandomState::new().build_hasher().finish()),
        },
        programs: Programs::build(&packages)?,
        interrupt: Interrupt::listen()?,
    };
    let mut failures = play_all(&stage);
    let played = exchanges::ALL.iter().filter(|exchange| stage.can_play(exchange)).count();
    let as_expected = played - failures.len();
    if !stage.interrupt.came()
        && let Err(error) = smoke::run(&stage)
    {
        failures.push(format!("{}: {error:#}", smoke::PACKAGE));
    }
    if broker.private.is_none()
        && let Err(error) = visit::clean_up(&stage.url, &stage.prefix, exchanges::ALL)
    {
        failures.push(format!("queues named {}… may be left on the broker: {error:#}", stage.prefix));
    }
    if stage.interrupt.came() {
        eprintln!("demo: interrupted {}", failures.join("\n"));
        return Ok(ExitCode::from(130));
    }
    say!("\ndemo: {as_expected} of {played} exchanges as expected");
    if !failures.is_empty() {
        bail!("{}", failures.join("\nerror: "));
    }
    // The answer that all this was for, where nobody has to look for it.
    if let Some(line) = exchanges::ALL.last().and_then(|exchange| exchange.producers.last()?.prints.last()) {
        say!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What went wrong, for each exchange in which something did.
fn play_all(stage: &Stage) -> Vec<String> {
    let mut failures = Vec::new();
    for exchange in exchanges::ALL {
        say!("\n{}: {}", exchange.package, exchange.title);
        if !stage.can_play(exchange) {
            say!("  not played: it changes the broker's settings, which is for a private node only");
            continue;
        }
        let result = stage.play(exchange);
        if stage.interrupt.came() {
            break;
        }
        if let Err(error) = result {
            say!("  not as expected: {error:#}");
            failures.push(format!("{}: {error:#}", exchange.package));
        }
    }
    failures
}
