//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use shared::ConnectionArgs;

use crate::check::Profile;

/// Try every messaging pattern on a broker and say what works
///
/// Exit codes: 0 all passed, 1 a check failed or lacked a permission, 2 no connection or login, 3 the deadline
/// came first, 64 wrong usage, 130 interrupted. With --output nagios: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
///
/// Of an option that is given twice the last one counts, so that an alias may have options of its own.
#[derive(Parser)]
#[command(name = "smoke", version, args_override_self = true)]
pub(crate) struct Args {
    /// List all checks and end
    #[arg(long)]
    pub(crate) list: bool,

    /// How much to try
    #[arg(long, value_enum, default_value = "full")]
    pub(crate) profile: Profile,

    /// Only these checks or groups (see --list), with what they need; separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Not these checks or groups
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) skip: Vec<String>,

    /// How long one check may take
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = above_zero)]
    pub(crate) timeout: Duration,

    /// How long all checks may take together, the wait for the broker included; to delete what they left takes up to
    /// 12s more
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = above_zero)]
    pub(crate) deadline: Duration,

    /// A check that takes longer gets a warning
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = above_zero)]
    pub(crate) slow: Duration,

    /// How long the broker keeps a durable queue if this program is killed before it can delete it
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = expiry)]
    pub(crate) expires: Duration,

    /// Try each check so often, and tell the distribution of the times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) repeat: u32,

    /// How many checks to try at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,

    /// Count warnings and unsupported features as failures
    #[arg(long)]
    pub(crate) strict: bool,

    /// What to print
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) output: Output,

    /// Write that to a file, and print the table
    #[arg(long, value_name = "FILE")]
    pub(crate) output_file: Option<PathBuf>,

    /// Be the guard of another process: delete what standard input names, once it ends
    #[arg(long = crate::guard::OPTION, hide = true)]
    pub(crate) guard: bool,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// A kind of report.
#[derive(ValueEnum, Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    /// lines for a person, while it runs
    Table,
    /// one JSON object at the end
    Json,
    /// JUnit's XML, for pipelines
    Junit,
    /// one line with performance data, and Nagios' exit codes
    Nagios,
}

fn above_zero(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(1), Duration::from_secs(100 * 365 * 24 * 60 * 60))
}

/// What RabbitMQ takes as `x-expires`.
fn expiry(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_secs(1), Duration::from_millis(u32::MAX.into()))
}

fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < least {
        return Err(format!("must be at least {}", humantime::format_duration(least)));
    }
    if duration > most {
        return Err(format!("must be at most {}", humantime::format_duration(most)));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn names_are_separated_by_commas_or_given_several_times() {
        let args =
            Args::parse_from(["smoke", "--only", "hello,topic", "--only", "rpc", "--profile", "quick"]);
        assert_eq!(args.only, ["hello", "topic", "rpc"]);
        assert_eq!(args.profile, Profile::Quick);
    }

    #[test]
    fn the_last_of_two_values_counts() {
        let args = Args::parse_from(["smoke", "--slow", "1m", "--slow", "3s", "--strict", "--strict"]);
        assert_eq!(args.slow, Duration::from_secs(3));
        assert!(args.strict);
    }

    #[test]
    fn times_are_above_zero_and_no_more_than_the_clock_or_the_broker_can_take() {
        for (option, value) in [
            ("--timeout", "0s"),
            ("--deadline", "0ms"),
            ("--expires", "999ms"),
            ("--slow", "5"),
            ("--deadline", "500000000000y"),
            ("--expires", "50d"),
        ] {
            assert!(Args::try_parse_from(["smoke", option, value]).is_err(), "{option} {value}");
        }
    }
}
