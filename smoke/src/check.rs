//! What a check is, and what can come of it.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use shared::{Error, Result};

use crate::trial::Trial;

/// One thing that is tried on the broker.
pub(crate) struct Check {
    /// What it is called on the command line and in reports.
    pub(crate) name: &'static str,
    /// What is tried, in a few words.
    pub(crate) about: &'static str,
    /// Where it belongs.
    pub(crate) group: Group,
    /// The checks that have to pass before this one makes sense.
    pub(crate) needs: &'static [&'static str],
    /// How long it rests on purpose, which is neither slow nor part of its time limit.
    pub(crate) rests: Duration,
    /// Tries it.
    pub(crate) run: fn(Trial) -> Running,
}

/// A check under way. It belongs to one thread.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<Finding>>>>;

/// The kinds of checks, in their order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Group {
    /// From the first packet to the vhost.
    Connection,
    /// A queue and a message, which all others need.
    Basics,
    /// The patterns of this workspace.
    Patterns,
    /// What brokers have besides.
    Features,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connection => "connection",
            Self::Basics => "basics",
            Self::Patterns => "patterns",
            Self::Features => "features",
        })
    }
}

/// How much is tried.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    /// the connection, the basics and the patterns
    Quick,
    /// all checks
    Full,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quick => "quick",
            Self::Full => "full",
        })
    }
}

impl Profile {
    /// Whether the checks of a group are in it.
    pub(crate) fn has(self, group: Group) -> bool {
        self == Self::Full || group != Group::Features
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Status {
    /// All was as expected.
    Pass,
    /// As expected, but slow, deprecated or soon to fail.
    Warn,
    /// The broker does not have it and says so.
    Unsupported,
    /// Not tried, because something that it needs is missing.
    Skipped,
    /// Something else happened than must happen.
    Fail,
}

impl Status {
    /// All of them, the best first.
    pub(crate) const ALL: [Self; 5] = [Self::Pass, Self::Warn, Self::Unsupported, Self::Skipped, Self::Fail];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Unsupported => "unsupported",
            Self::Skipped => "skipped",
            Self::Fail => "fail",
        })
    }
}

/// What a check that came to its end found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// All was as expected; what is worth knowing about it.
    Pass(String),
    /// As expected, but.
    Warn(String),
}

/// A pass with a note.
pub(crate) fn pass(note: impl Into<String>) -> Result<Finding> {
    Ok(Finding::Pass(note.into()))
}

/// What went wrong: enough to act on without this program at hand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    /// What must happen.
    pub(crate) expected: String,
    /// What happened.
    pub(crate) seen: String,
    /// What to do or look at now.
    pub(crate) next: String,
}

/// Why a check ends before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// It failed.
    #[error("expected {}; seen: {}; next: {}", .0.expected, .0.seen, .0.next)]
    Fault(Fault),
    /// The broker said that it has no such thing; its words.
    #[error("{0}")]
    Unsupported(String),
    /// It cannot be tried here; why.
    #[error("{0}")]
    Skip(String),
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        Self::own(stop)
    }
}

/// The error of a check that saw something else than it must.
pub(crate) fn fault(expected: impl Into<String>, seen: impl Into<String>, next: impl Into<String>) -> Error {
    Stop::Fault(Fault { expected: expected.into(), seen: seen.into(), next: next.into() }).into()
}

/// How a check ended and what is to be said about it.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// How it ended.
    pub(crate) status: Status,
    /// One line about it; for a fault all that there is to say.
    pub(crate) note: String,
    /// What went wrong.
    pub(crate) fault: Option<Fault>,
    /// Whether it could not be tried because the user lacks a permission.
    pub(crate) forbidden: bool,
}

impl Verdict {
    /// A verdict that needs no more than a line.
    pub(crate) fn new(status: Status, note: impl Into<String>) -> Self {
        Self { status, note: note.into(), fault: None, forbidden: false }
    }

    /// A failure.
    pub(crate) fn failed(fault: Fault) -> Self {
        let note = format!("expected {}; seen: {}; next: {}", fault.expected, fault.seen, fault.next);
        Self { fault: Some(fault), ..Self::new(Status::Fail, note) }
    }
}
