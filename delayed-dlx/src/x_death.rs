//! What the broker writes into a message that died: the header `x-death` and its relatives.
//!
//! The broker's field types are not a promise: they differ between versions, and a client that published
//! the message again may have changed them. So every field is read by its meaning, a missing or odd one is
//! left out, and nothing in a header can make this fail.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

/// The last second that RFC 3339 can write: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A message's history of deaths.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct XDeath {
    /// One entry for each queue and reason, the latest death first.
    pub deaths: Vec<Death>,
    /// The first death, from `x-first-death-*`. Absent if the message never died.
    pub first: Option<Cause>,
    /// The latest death, from `x-last-death-*`, which RabbitMQ writes since 3.13.
    pub last: Option<Cause>,
}

/// The deaths of a message in one queue for one reason. `None`: the broker did not say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Death {
    /// Where it died.
    pub queue: Option<String>,
    /// Of what.
    pub reason: Option<Reason>,
    /// How often it died there of that; at least once.
    pub count: u64,
    /// The exchange that it had been published to. From its second death on, a dead-letter exchange.
    pub exchange: Option<String>,
    /// The keys that it had been published with, CC included, BCC not.
    pub routing_keys: Vec<String>,
    /// When it first died there of that, in seconds since 1970.
    pub time: Option<u64>,
    /// The property `expiration`, in milliseconds, if that is what it died of. The broker takes the
    /// property away, so that the message does not expire once more in the next queue.
    pub original_expiration: Option<String>,
}

/// Where and why a message died, from the headers that need no search in the history. `None`: the broker
/// did not say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cause {
    /// Of what.
    pub reason: Option<Reason>,
    /// Where.
    pub queue: Option<String>,
    /// The exchange that it had been published to.
    pub exchange: Option<String>,
}

/// Why a message died.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// A consumer refused it: `basic.reject` or `basic.nack` with `requeue` set to false.
    Rejected,
    /// Its time to live was up.
    Expired,
    /// The queue was longer than its `x-max-length` or `x-max-length-bytes`.
    MaxLen,
    /// It came back to a quorum queue more often than that queue's delivery limit.
    DeliveryLimit,
    /// A word that this program does not know.
    Other(String),
}

impl XDeath {
    /// Reads the history of a message. Empty for one that never died.
    #[must_use]
    pub fn of(properties: &BasicProperties) -> Self {
        properties.headers().as_ref().map(Self::from_headers).unwrap_or_default()
    }

    /// Reads the history from a message's headers.
    #[must_use]
    pub fn from_headers(headers: &FieldTable) -> Self {
        let deaths = match headers.inner().get("x-death") {
            Some(AMQPValue::FieldArray(entries)) => {
                entries.as_slice().iter().filter_map(Death::read).collect()
            }
            _ => Vec::new(),
        };
        Self { deaths, first: Cause::read(headers, "first"), last: Cause::read(headers, "last") }
    }

    /// How often the message died in `queue` for `reason`.
    #[must_use]
    pub fn count(&self, queue: &str, reason: &Reason) -> u64 {
        self.deaths
            .iter()
            .filter(|death| death.queue.as_deref() == Some(queue) && death.reason.as_ref() == Some(reason))
            .fold(0, |sum, death| sum.saturating_add(death.count))
    }
}

impl Death {
    fn read(entry: &AMQPValue) -> Option<Self> {
        let AMQPValue::FieldTable(entry) = entry else { return None };
        let field = |name: &str| entry.inner().get(name);
        Some(Self {
            queue: field("queue").and_then(text),
            reason: field("reason").and_then(text).map(Reason::from),
            count: field("count").and_then(whole).unwrap_or(1).max(1),
            exchange: field("exchange").and_then(text),
            routing_keys: match field("routing-keys") {
                Some(AMQPValue::FieldArray(keys)) => keys.as_slice().iter().filter_map(text).collect(),
                _ => Vec::new(),
            },
            time: field("time").and_then(whole),
            original_expiration: field("original-expiration").and_then(text),
        })
    }
}

impl Cause {
    fn read(headers: &FieldTable, which: &str) -> Option<Self> {
        let header = |name: &str| headers.inner().get(&*format!("x-{which}-death-{name}")).and_then(text);
        let cause = Self {
            reason: header("reason").map(Reason::from),
            queue: header("queue"),
            exchange: header("exchange"),
        };
        let known = cause.reason.is_some() || cause.queue.is_some() || cause.exchange.is_some();
        known.then_some(cause)
    }
}

/// Text of either kind; bytes that are no text are replaced.
fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A number of at least 0, of whatever size it was sent in.
fn whole(value: &AMQPValue) -> Option<u64> {
    match *value {
        AMQPValue::ShortShortInt(number) => number.try_into().ok(),
        AMQPValue::ShortShortUInt(number) => Some(number.into()),
        AMQPValue::ShortInt(number) => number.try_into().ok(),
        AMQPValue::ShortUInt(number) => Some(number.into()),
        AMQPValue::LongInt(number) => number.try_into().ok(),
        AMQPValue::LongUInt(number) => Some(number.into()),
        AMQPValue::LongLongInt(number) => number.try_into().ok(),
        AMQPValue::Timestamp(number) => Some(number),
        _ => None,
    }
}

impl From<String> for Reason {
    fn from(word: String) -> Self {
        match word.as_str() {
            "rejected" => Self::Rejected,
            "expired" => Self::Expired,
            "maxlen" => Self::MaxLen,
            "delivery_limit" => Self::DeliveryLimit,
            _ => Self::Other(word),
        }
    }
}

impl fmt::Display for Reason {
    /// The broker's word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected => f.write_str("rejected"),
            Self::Expired => f.write_str("expired"),
            Self::MaxLen => f.write_str("maxlen"),
            Self::DeliveryLimit => f.write_str("delivery_limit"),
            Self::Other(word) => write!(f, "{word:?}"),
        }
    }
}

impl fmt::Display for Death {
    /// The fields under the broker's names, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(queue) = &self.queue {
            write!(f, "queue={queue:?} ")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "reason={reason} ")?;
        }
        write!(f, "count={}", self.count)?;
        if let Some(exchange) = &self.exchange {
            write!(f, " exchange={exchange:?}")?;
        }
        if !self.routing_keys.is_empty() {
            write!(f, " routing-keys={:?}", self.routing_keys)?;
        }
        match self.time {
            Some(time @ 0..=LAST_SECOND) => {
                let time = UNIX_EPOCH + Duration::from_secs(time);
                write!(f, " time={}", humantime::format_rfc3339_seconds(time))?;
            }
            Some(time) => write!(f, " time={time}")?,
            None => {}
        }
        if let Some(expiration) = &self.original_expiration {
            write!(f, " original-expiration={expiration:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
