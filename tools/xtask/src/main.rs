//! The workspace's own commands. `cargo xtask demo` shows the programs at work, `cargo xtask test` checks
//! everything that CI checks.

mod browser;
mod built;
mod certs;
mod choose_broker;
mod demo;
mod docs;
mod exchanges;
mod faults;
mod install;
mod interrupt;
mod matrix;
mod page;
mod pictures;
mod say;
mod smoke;
mod stage;
mod test;
mod test_programs;
mod visit;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pages::{programs, workspace};
use test_programs::Selection;

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

        /// Leave out the tests that start brokers of their own, mostly to break them, and do not play the pages
        #[arg(long, conflicts_with = "args")]
        quick: bool,

        /// Passed on to cargo test
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Make certificates for TLS between a broker and clients on this machine
    ///
    /// `cargo run -p broker -- --tls` and the profile `tls` of docker-compose.yml use them.
    Certs {
        /// Where to write them, replacing those that are there
        #[arg(long, value_name = "FOLDER", default_value = "cert")]
        folder: PathBuf,

        /// How long they are valid
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,

        /// Make something wrong with the broker's certificate, to see clients refuse it
        #[arg(long, value_enum)]
        fault: Option<certs::Fault>,
    },
    /// Take the pictures of the management page anew, with Chromium
    Pictures,
    /// Run the pages: every command on a real broker, every output compared
    Docs {
        /// Correct the outputs and the excerpts of code in the pages
        #[arg(long)]
        update: bool,

        /// Only these pages, or those in these folders
        #[arg(value_name = "PATH")]
        only: Vec<PathBuf>,
    },
    /// Put striker and keeper through every fault, at length, and write what was seen into their page
    Faults {
        /// Only this row (may be given several times); its line is printed, the page stays as it is
        #[arg(long, value_name = "ROW")]
        only: Vec<u32>,
    },
    /// Run everything against RabbitMQ 3.8 to 4.3 and write what passed into docs/versions.md
    ///
    /// The tests of each crate, the fault suite and the full smoke run, against the RabbitMQ of four Debian
    /// releases, and once more with what RabbitMQ 4.3 refuses by default. The releases are installed under
    /// target/debian with debootstrap, once, which takes root, the network and 2 GB.
    Matrix(matrix::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Certs { folder, days, fault } => certs::certs(&folder, days, fault),
        Command::Demo { install } => demo::demo(install),
        Command::Docs { update, only } => docs::docs(update, &only),
        Command::Faults { only } => faults::faults(&only),
        Command::Matrix(args) => matrix::matrix(&args),
        Command::Pictures => pictures::pictures(),
        Command::Test { install, quick, args } => {
            test::test(install, if quick { Selection::Quick } else { Selection::All }, &args)
        }
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
