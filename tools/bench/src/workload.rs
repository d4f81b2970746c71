//! The workloads: what a contestant is asked to do, and with how many messages.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

use shared::Message;
use transactions::guarantees::Guarantee;

/// Bytes of a body.
const BODY: usize = 100;

/// Of the mandatory messages every so-many-th has no queue to go to, and must be reported as returned.
const UNROUTABLE_EVERY: usize = 100;

/// Messages without an answer at once, where there are many.
pub(crate) const IN_FLIGHT: usize = 1000;

/// Callers that each wait for an answer of their own.
pub(crate) const CALLERS: usize = 50;

/// Messages in a transaction.
const TRANSACTION: usize = 100;

/// Deliveries that one cumulative acknowledgement settles.
pub(crate) const ACK_EVERY: u16 = 25;

/// Unacknowledged deliveries of each consumer beside a producer, and where acknowledgements are cumulative.
pub(crate) const PREFETCH: u16 = 100;

/// Producers, and consumers, on one connection.
pub(crate) const PAIRS: usize = 4;

/// What a contestant is asked to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Workload {
    /// Publish without confirms.
    Unconfirmed,
    /// Publish persistent messages, each with its confirm before the next.
    Confirmed,
    /// The same, on a channel that is opened for each message and closed after it.
    NewChannel,
    /// Publish persistent, mandatory messages, a thousand at once, and tell what became of each.
    InFlight,
    /// Fifty callers on one connection, each of whom waits for the confirm of its message.
    Callers,
    /// The same with mandatory messages, whose returns must reach the right caller.
    CallersMandatory,
    /// Consume with so many unacknowledged deliveries at most, and acknowledge each.
    Consume(u16),
    /// Consume with one acknowledgement for many deliveries.
    AckEvery,
    /// Ask a server, which echoes, so many questions at once.
    Rpc(usize),
    /// Four producers and four consumers on one connection.
    Pairs,
    /// Publish persistent messages, each in a transaction.
    TxEach,
    /// Publish persistent messages in transactions of a hundred.
    TxBatch,
}

impl Workload {
    pub(crate) const ALL: [Self; 16] = [
        Self::Unconfirmed,
        Self::Confirmed,
        Self::NewChannel,
        Self::InFlight,
        Self::Callers,
        Self::CallersMandatory,
        Self::Consume(1),
        Self::Consume(3),
        Self::Consume(100),
        Self::Consume(1000),
        Self::AckEvery,
        Self::Rpc(1),
        Self::Rpc(CALLERS),
        Self::Pairs,
        Self::TxEach,
        Self::TxBatch,
    ];

    /// How many messages take about a second on a small machine.
    pub(crate) fn messages(self) -> usize {
        match self {
            Self::Unconfirmed => 60_000,
            Self::Confirmed | Self::Rpc(1) => 2_000,
            Self::NewChannel | Self::TxEach => 1_000,
            Self::InFlight => 20_000,
            Self::Callers | Self::CallersMandatory | Self::Rpc(_) => 12_000,
            Self::Consume(1) => 5_000,
            Self::Consume(3) => 10_000,
            Self::Consume(_) | Self::AckEvery | Self::Pairs => 40_000,
            Self::TxBatch => 10_000,
        }
    }

    /// The guarantee of `transactions` whose code the programs on `shared` run here.
    pub(crate) fn guarantee(self) -> Option<Guarantee> {
        let number = |number| NonZero::new(number).unwrap_or(NonZero::<usize>::MIN);
        match self {
            Self::Unconfirmed => Some(Guarantee::None),
            Self::Confirmed => Some(Guarantee::ConfirmEach),
            Self::InFlight => Some(Guarantee::ConfirmWindow(number(IN_FLIGHT))),
            Self::TxEach => Some(Guarantee::TxEach),
            Self::TxBatch => Some(Guarantee::TxBatch(number(TRANSACTION))),
            _ => None,
        }
    }

    /// Whether a contestant finds the messages in the queue, instead of putting them there.
    pub(crate) fn consumes(self) -> bool {
        matches!(self, Self::Consume(_) | Self::AckEvery)
    }

    /// Whether the messages are mandatory, and some of them without a queue.
    pub(crate) fn is_mandatory(self) -> bool {
        matches!(self, Self::InFlight | Self::CallersMandatory)
    }

    fn is_persistent(self) -> bool {
        !matches!(self, Self::Unconfirmed | Self::Pairs) && !self.consumes()
    }

    /// Whether the message of this number must come back.
    pub(crate) fn is_unroutable(self, number: usize) -> bool {
        self.is_mandatory() && number % UNROUTABLE_EVERY == UNROUTABLE_EVERY - 1
    }

    /// Where the message of this number goes.
    pub(crate) fn key(self, queue: &str, number: usize) -> String {
        if self.is_unroutable(number) { format!("{queue}.nobody") } else { queue.to_owned() }
    }

    pub(crate) fn properties(self, number: usize) -> lapin::BasicProperties {
        lapin::BasicProperties::default()
            .with_delivery_mode(if self.is_persistent() { 2 } else { 1 })
            .with_message_id(number.to_string().into())
    }

    /// A message for `shared`.
    pub(crate) fn message<'m>(self, key: &'m str, body: &'m [u8], number: usize) -> Message<'m> {
        let (mandatory, properties) = (self.is_mandatory(), self.properties(number));
        Message { exchange: "", routing_key: key, mandatory, properties, body }
    }
}

/// The queue of one of the pairs.
pub(crate) fn pair_queue(queue: &str, pair: usize) -> String {
    format!("{queue}.{pair}")
}

/// A body of 100 bytes that begins with its number.
pub(crate) fn body(number: usize) -> Vec<u8> {
    let mut body = number.to_string().into_bytes();
    body.resize(BODY, b'.');
    body
}

/// The number in a body.
pub(crate) fn number(body: &[u8]) -> Option<usize> {
    let digits = body.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&body[..digits]).ok()?.parse().ok()
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconfirmed => f.write_str("unconfirmed"),
            Self::Confirmed => f.write_str("confirmed"),
            Self::NewChannel => f.write_str("new-channel"),
            Self::InFlight => f.write_str("in-flight"),
            Self::Callers => f.write_str("callers"),
            Self::CallersMandatory => f.write_str("callers-mandatory"),
            Self::Consume(prefetch) => write!(f, "consume-{prefetch}"),
            Self::AckEvery => f.write_str("ack-every"),
            Self::Rpc(callers) => write!(f, "rpc-{callers}"),
            Self::Pairs => f.write_str("pairs"),
            Self::TxEach => f.write_str("tx-each"),
            Self::TxBatch => f.write_str("tx-batch"),
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|workload| workload.to_string() == text);
        found.ok_or_else(|| format!("there is no workload '{text}'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bodies_can_be_read_back() {
        for workload in Workload::ALL {
            assert_eq!(workload.to_string().parse(), Ok(workload));
        }
        assert!("consume-7".parse::<Workload>().is_err());
        assert_eq!(number(&body(12345)), Some(12345));
        assert_eq!(body(7).len(), BODY);
        assert_eq!(number(b"x"), None);
    }
}
