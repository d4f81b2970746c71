//! Tries every messaging pattern on a broker and says what works.
//!
//! Run it with `cargo run -p smoke`, or `cargo run -p smoke -- --url amqps://…` for a broker elsewhere.

mod args;
mod check;
mod checks;
mod guard;
mod judge;
mod messages;
mod names;
mod plan;
mod report;
mod run;
mod start_frame;
mod trial;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::Parser;
use shared::{Error, Shutdown, print_usage, say};
use tokio::time::Instant;
use tracing::subscriber::{NoSubscriber, set_global_default};

use args::{Args, Output};
use report::table::Table;
use report::{Report, json, junit, nagios, table};
use run::Options;
use trial::{Run, random_word};

/// Wrong usage, as in sysexits.h.
const USAGE: u8 = 64;

/// This program's own fault, as in sysexits.h.
const INTERNAL: u8 = 70;

/// Nagios' word for what says nothing about the broker.
const UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            print_usage(&error);
            return if error.use_stderr() {
                ExitCode::from(usage_code(for_nagios()))
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    if args.list {
        say!("{}", plan::list());
        return ExitCode::SUCCESS;
    }
    if std::env::var_os("RUST_LOG").is_none_or(|filter| filter.is_empty()) {
        // What connections log while they are tried and broken on purpose would only confuse. An error means
        // that there is a subscriber already.
        let _ = set_global_default(NoSubscriber::new());
    }
    if args.guard {
        return shared::run(async |shutdown| {
            guard::watch_over(&args.connection, &shutdown).await?;
            Ok(())
        });
    }
    let code = Cell::new(None);
    let fallback = shared::run(async |shutdown| {
        code.set(Some(smoke(&args, &shutdown).await.unwrap_or_else(|error| fail(&args, &error))));
        Ok(())
    });
    code.get().map_or(fallback, ExitCode::from)
}

/// Runs the checks and reports; the exit code.
async fn smoke(args: &Args, shutdown: &Shutdown) -> Result<u8> {
    let (started, now) = (SystemTime::now(), Instant::now());
    let plan = plan::choose(args.profile, &args.only, &args.skip)?;
    let run = Rc::new(Run {
        args: args.connection.clone(),
        endpoint: args.connection.endpoint()?,
        id: random_word(),
        names: Default::default(),
        cleaned: Default::default(),
        guard: Default::default(),
        expires: args.expires,
        timeout: args.timeout,
        slow: args.slow,
        patience: now + args.connection.wait(),
        broker: RefCell::default(),
    });
    // The longest name that a check makes up.
    args.connection.name(&format!("smoke.{}.{}", run.id, "x".repeat(60)))?;
    let file = args.output_file.as_deref().map(create).transpose()?;
    let options =
        Options { repeat: args.repeat as usize, jobs: args.jobs.into(), deadline: now + args.deadline };
    let mut table = Table::new(args.output == Output::Table || file.is_some());
    let url = run.endpoint.to_string();
    table.head(&url);
    let results = run::run(&plan, &run, &options, shutdown, &mut table).await;
    let report = Report {
        started,
        took: now.elapsed(),
        url,
        broker: run.broker.take(),
        profile: args.profile,
        strict: args.strict,
        id: run.id.clone(),
        records: results.records,
        ended: results.ended,
        cleanup: results.cleanup,
    };
    table.foot(&report);
    let text = match args.output {
        Output::Table if file.is_none() => return Ok(report.exit_code(args.output)),
        Output::Table => table::whole(&report),
        Output::Json => json::text(&report),
        Output::Junit => junit::text(&report),
        Output::Nagios => nagios::text(&report),
    };
    match file {
        Some(mut file) => file.write_all(text.as_bytes()).context("cannot write --output-file")?,
        None => match table::print(text.trim_end()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error).context("cannot write the report to standard output");
            }
            // Nobody reads it any more.
            _ => {}
        },
    }
    Ok(report.exit_code(args.output))
}

/// Before the run, which would be in vain if its report could not be written.
fn create(path: &Path) -> Result<File, Error> {
    File::create(path)
        .map_err(|error| Error::usage(format!("cannot write --output-file {}: {error}", path.display())))
}

fn fail(args: &Args, error: &anyhow::Error) -> u8 {
    let _ = writeln!(io::stderr(), "error: {error:#}");
    let usage = error.downcast_ref::<Error>().is_some_and(|error| matches!(error, Error::Usage(_)));
    match args.output {
        _ if usage => usage_code(args.output == Output::Nagios),
        Output::Nagios => UNKNOWN,
        _ => INTERNAL,
    }
}

fn usage_code(for_nagios: bool) -> u8 {
    if for_nagios { UNKNOWN } else { USAGE }
}

/// Whether a command line that cannot be read asks for Nagios' exit codes.
fn for_nagios() -> bool {
    let args: Vec<_> = std::env::args_os().collect();
    args.iter().any(|arg| arg == "--output=nagios")
        || args.windows(2).any(|pair| pair == ["--output", "nagios"])
}
