//! What each program says at its end: counts that must add up.

use std::fmt;
use std::time::Duration;

use humantime::format_duration;
use serde_json::{Value, json};
use shared::{Error, Outcome};

use crate::numbers::Seen;
use crate::outages::Outages;

/// What became of the striker's messages.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StrikerTally {
    /// Messages handed to the publisher.
    pub sent: u64,
    /// Those that the broker has taken.
    pub confirmed: u64,
    /// Those that no queue wanted.
    pub returned: u64,
    /// Those that a queue refused.
    pub nacked: u64,
    /// Those that did not leave.
    pub not_sent: u64,
    /// Those without an answer.
    pub unknown: u64,
    /// Those that left without asking for an answer.
    pub unconfirmed: u64,
    /// How often a message was sent again.
    pub resent: u64,
    /// What happened to the connection.
    pub outages: Outages,
}

/// What the keeper caught.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeeperTally {
    /// Deliveries.
    pub received: u64,
    /// Acknowledgements that reached the broker.
    pub acked: u64,
    /// Deliveries that the broker marked as not the first.
    pub redelivered: u64,
    /// Messages, each counted once.
    pub distinct: u64,
    /// Deliveries of a message that had come before.
    pub duplicates: u64,
    /// Numbers that never came, between the lowest and the highest of each run.
    pub missing: u64,
    /// What happened to the connection.
    pub outages: Outages,
}

impl StrikerTally {
    /// Counts a message's outcome.
    pub fn count(&mut self, outcome: &Outcome) {
        self.sent += 1;
        *match outcome {
            Outcome::Confirmed => &mut self.confirmed,
            Outcome::Returned { .. } => &mut self.returned,
            Outcome::Nacked => &mut self.nacked,
            Outcome::NotSent(_) => &mut self.not_sent,
            Outcome::Unknown(_) => &mut self.unknown,
        } += 1;
    }

    /// Messages that are not known to have arrived.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.sent - self.confirmed - self.unconfirmed
    }

    /// What to do about messages that are not known to have arrived, where that can be told.
    #[must_use]
    pub fn advice(&self) -> Option<String> {
        if self.nacked > 0 {
            Error::Nacked.hint()
        } else {
            (self.returned > 0).then(|| "start keeper first".to_owned())
        }
    }

    /// The same as one JSON object; times in milliseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "program": "striker",
            "sent": self.sent,
            "confirmed": self.confirmed,
            "returned": self.returned,
            "nacked": self.nacked,
            "not_sent": self.not_sent,
            "unknown": self.unknown,
            "unconfirmed": self.unconfirmed,
            "resent": self.resent,
            "reconnects": self.outages.reconnects,
            "longest_outage_ms": milliseconds(self.outages.longest),
        })
    }
}

impl KeeperTally {
    /// From what the consumer counted and what the handler saw.
    #[must_use]
    pub fn new(consumed: shared::Tally, seen: &Seen, outages: Outages) -> Self {
        Self {
            received: consumed.received,
            acked: consumed.acked,
            redelivered: consumed.redelivered,
            distinct: seen.distinct,
            duplicates: seen.duplicates,
            missing: seen.missing(),
            outages,
        }
    }

    /// The same as one JSON object; times in milliseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "program": "keeper",
            "received": self.received,
            "acked": self.acked,
            "redelivered": self.redelivered,
            "distinct": self.distinct,
            "duplicates": self.duplicates,
            "missing": self.missing,
            "reconnects": self.outages.reconnects,
            "longest_outage_ms": milliseconds(self.outages.longest),
        })
    }
}

impl fmt::Display for StrikerTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, confirmed, returned, nacked, not_sent, unknown, unconfirmed, resent, outages } =
            self;
        write!(f, "striker: {sent} sent: {confirmed} confirmed, {returned} returned, {nacked} nacked, ")?;
        write!(
            f,
            "{not_sent} not sent, {unknown} unknown, {unconfirmed} unconfirmed; {resent} re-sent; {outages}"
        )
    }
}

impl fmt::Display for KeeperTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, acked, redelivered, distinct, duplicates, missing, outages } = self;
        write!(f, "keeper: {received} received, {acked} acked, {redelivered} redelivered; ")?;
        write!(f, "{distinct} distinct, {duplicates} duplicates, {missing} missing; {outages}")
    }
}

impl fmt::Display for Outages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = Duration::from_millis(milliseconds(self.longest));
        write!(f, "{} reconnects, longest outage {}", self.reconnects, format_duration(longest))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
