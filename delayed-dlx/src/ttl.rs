//! How a time to live is written: a number of milliseconds for a queue, the same as text for a message.

use std::time::Duration;

use lapin::types::{AMQPValue, ShortString};

/// The longest time to live that every RabbitMQ accepts: 2³² - 1 milliseconds, seven weeks.
const LONGEST: u64 = u32::MAX as u64;

/// Reads a time to live from the command line: `300ms`, `5s`, `30m`.
///
/// # Errors
/// A line for the user, if it is not a whole number of milliseconds that a broker accepts.
pub fn parse(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !ttl.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("brokers count in whole milliseconds".to_owned());
    }
    if !(1..=u128::from(LONGEST)).contains(&ttl.as_millis()) {
        return Err(format!("must be from 1ms to {LONGEST}ms, which is seven weeks"));
    }
    Ok(ttl)
}

/// The value of a queue's `x-message-ttl`: an integer. Text is refused with 406.
#[must_use]
pub fn of_queue(ttl: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
}

/// The value of a message's property `expiration`: digits, because the property is a string.
#[must_use]
pub fn of_message(ttl: Duration) -> ShortString {
    ttl.as_millis().to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_whole_milliseconds_within_what_brokers_accept() {
        for (text, expected) in [
            ("1ms", Ok(1)),
            ("300ms", Ok(300)),
            ("1s 500ms", Ok(1500)),
            ("30m", Ok(1_800_000)),
            ("4294967295ms", Ok(LONGEST)),
            ("4294967296ms", Err("from 1ms to 4294967295ms")),
            ("0s", Err("from 1ms")),
            ("1500us", Err("whole milliseconds")),
            ("5", Err("unit")),
            ("-5s", Err("")),
            ("", Err("")),
        ] {
            match (parse(text), expected) {
                (Ok(ttl), Ok(milliseconds)) => assert_eq!(ttl, Duration::from_millis(milliseconds)),
                (Err(error), Err(words)) => assert!(error.contains(words), "{text}: {error}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn queues_take_a_number_and_messages_take_text() {
        let ttl = Duration::from_secs(5);
        assert_eq!(of_queue(ttl), AMQPValue::LongLongInt(5000));
        assert_eq!(of_message(ttl).as_str(), "5000");
        assert_eq!(of_queue(Duration::MAX), AMQPValue::LongLongInt(i64::MAX));
    }
}
