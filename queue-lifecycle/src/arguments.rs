//! The optional arguments of a queue: how long, how many, how big, and what then.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable, ShortString};

/// The arguments to declare a queue with, each under its exact name and with its right type.
///
/// A name with a spelling mistake in it is not refused but ignored by many brokers, and a number as text is
/// refused, so it is worth to write them down once. Arguments cannot be changed once the queue exists; where
/// that matters, set a policy on the broker instead (`rabbitmqctl set_policy`).
///
/// ```
/// use std::time::Duration;
/// use queue_lifecycle::{Arguments, Overflow};
///
/// let table = Arguments::default()
///     .max_length(1000)
///     .overflow(Overflow::RejectPublish)
///     .message_ttl(Duration::from_secs(60))
///     .table();
/// assert!(table.contains_key("x-max-length"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Arguments(FieldTable);

/// What a queue at its limit does with the next message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overflow {
    /// Drops the oldest message, or dead-letters it. What queues do unless told.
    DropHead,
    /// Refuses the new message: its publisher gets a nack.
    RejectPublish,
}

impl Arguments {
    /// `x-queue-type: classic`, for a durable queue that must not become a quorum queue where the vhost
    /// has that as its default.
    #[must_use]
    pub fn classic(self) -> Self {
        self.text("x-queue-type", "classic")
    }

    /// `x-message-ttl`: how long a message may wait in the queue, to the millisecond. A message can ask for
    /// less by its own `expiration`; the smaller of the two counts.
    #[must_use]
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.milliseconds("x-message-ttl", ttl)
    }

    /// `x-expires`: how long the queue may be unused before it is deleted with all that is in it, to the
    /// millisecond and above 0. Unused: no consumer, and not declared again.
    #[must_use]
    pub fn expires(self, unused: Duration) -> Self {
        self.milliseconds("x-expires", unused)
    }

    /// `x-max-length`: how many messages may be ready.
    #[must_use]
    pub fn max_length(self, messages: u32) -> Self {
        self.number("x-max-length", messages.into())
    }

    /// `x-max-length-bytes`: how many bytes the bodies of all ready messages may have together.
    #[must_use]
    pub fn max_length_bytes(self, bytes: u32) -> Self {
        self.number("x-max-length-bytes", bytes.into())
    }

    /// `x-overflow`: what happens at the limit.
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        let value = match overflow {
            Overflow::DropHead => "drop-head",
            Overflow::RejectPublish => "reject-publish",
        };
        self.text("x-overflow", value)
    }

    /// `x-max-priority`: the highest priority that the queue tells apart. Each costs memory; up to 10 is
    /// enough for most. Only classic queues have it.
    #[must_use]
    pub fn max_priority(self, highest: u8) -> Self {
        self.number("x-max-priority", highest.into())
    }

    /// `x-dead-letter-exchange`: where messages go that expire, overflow or are rejected.
    #[must_use]
    pub fn dead_letter_exchange(self, exchange: &str) -> Self {
        self.text("x-dead-letter-exchange", exchange)
    }

    /// `x-dead-letter-routing-key`: with which key, instead of their own.
    #[must_use]
    pub fn dead_letter_routing_key(self, key: &str) -> Self {
        self.text("x-dead-letter-routing-key", key)
    }

    /// Any other argument, as it stands.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: AMQPValue) -> Self {
        self.0.insert(ShortString::from(name), value);
        self
    }

    /// The table for `queue_declare`.
    #[must_use]
    pub fn table(self) -> FieldTable {
        self.0
    }

    fn milliseconds(self, name: &'static str, duration: Duration) -> Self {
        self.number(name, i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// AMQP has eight sizes of numbers. Brokers take any of them; 64 bits have room for all values.
    fn number(self, name: &'static str, value: i64) -> Self {
        self.with(name, AMQPValue::LongLongInt(value))
    }

    fn text(self, name: &'static str, value: &str) -> Self {
        self.with(name, AMQPValue::LongString(value.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_argument_has_its_exact_name_and_type() {
        let table = Arguments::default()
            .classic()
            .message_ttl(Duration::from_secs(60))
            .expires(Duration::from_millis(1500))
            .max_length(10)
            .max_length_bytes(u32::MAX)
            .overflow(Overflow::DropHead)
            .max_priority(9)
            .dead_letter_exchange("dead")
            .dead_letter_routing_key("letter")
            .table();
        let number = AMQPValue::LongLongInt;
        let text = |value: &str| AMQPValue::LongString(value.into());
        let expected = [
            ("x-dead-letter-exchange", text("dead")),
            ("x-dead-letter-routing-key", text("letter")),
            ("x-expires", number(1500)),
            ("x-max-length", number(10)),
            ("x-max-length-bytes", number(u32::MAX.into())),
            ("x-max-priority", number(9)),
            ("x-message-ttl", number(60_000)),
            ("x-overflow", text("drop-head")),
            ("x-queue-type", text("classic")),
        ];
        assert!(table.into_iter().map(|(name, value)| (name.as_str(), value.clone())).eq(expected));
    }

    #[test]
    fn a_duration_without_end_is_the_longest_there_is() {
        let table = Arguments::default().message_ttl(Duration::MAX).overflow(Overflow::RejectPublish).table();
        assert_eq!(table.inner()["x-message-ttl"], AMQPValue::LongLongInt(i64::MAX));
        assert_eq!(table.inner()["x-overflow"], AMQPValue::LongString("reject-publish".into()));
    }
}
