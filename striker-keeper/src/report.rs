//! How the programs report: line by line for people, or one JSON object for other programs.

use std::fmt;
use std::io::{IsTerminal, stderr, stdout};

use clap::{Args, ValueEnum};
use serde_json::Value;
use shared::say;

/// The options of both programs about what they print.
#[derive(Args, Clone, Copy)]
pub struct ReportArgs {
    /// What to print: a line for each message and a tally, or nothing but the tally as JSON
    #[arg(long, value_enum, default_value_t)]
    report: Format,

    /// No line for each message
    #[arg(long)]
    quiet: bool,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// for people
    #[default]
    Text,
    /// one object on one line
    Json,
}

impl ReportArgs {
    /// Whether each message gets its line.
    #[must_use]
    pub fn each_message(&self) -> bool {
        self.report == Format::Text && !self.quiet
    }

    /// Whether somebody watches, and no other lines come between.
    #[must_use]
    pub fn progress(&self) -> bool {
        stderr().is_terminal() && !(self.each_message() && stdout().is_terminal())
    }

    /// Prints a line for people.
    pub fn line(&self, line: impl fmt::Display) {
        if self.report == Format::Text {
            say!("{line}");
        }
    }

    /// Prints the tally.
    pub fn tally(&self, text: impl fmt::Display, json: &Value) {
        match self.report {
            Format::Text => say!(" [.] {text}"),
            Format::Json => say!("{json}"),
        }
    }
}
