//! The workspace's own commands. `cargo xtask demo` shows the programs at work, `cargo xtask test` checks
//! everything that CI checks.

mod choose_broker;
mod demo;
mod exchanges;
mod faults;
mod install;
mod interrupt;
mod programs;
mod say;
mod smoke;
mod stage;
mod test;
mod test_programs;
mod visit;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The workspace's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the programs against a broker and show what each prints
    ///
    /// The broker is the one of AMQP_URL; else the one on localhost:5672; else an installed RabbitMQ is
    /// started for the time of the demo. Nothing is left behind on it.
    Demo {
        /// Install RabbitMQ if there is no broker (apt-get, or brew)
        #[arg(long)]
        install: bool,
    },
    /// Check everything: format, lints, documentation, tests against an installed RabbitMQ
    Test {
        /// Install RabbitMQ if it is missing (apt-get, or brew)
        #[arg(long)]
        install: bool,

        /// Passed on to cargo test
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Put striker and keeper through every fault, at length, and write what was seen into their page
    Faults {
        /// Only this row (may be given several times); its line is printed, the page stays as it is
        #[arg(long, value_name = "ROW")]
        only: Vec<u32>,
    },
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Demo { install } => demo::demo(install),
        Command::Faults { only } => faults::faults(&only),
        Command::Test { install, args } => test::test(install, &args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
