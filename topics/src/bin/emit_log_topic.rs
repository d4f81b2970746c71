//! Sends one log line under a key of words, which the receivers with a matching pattern get.
//!
//! Run it with `cargo run -p topics --bin emit_log_topic kern.critical "A critical kernel error"` while a
//! `receive_logs_topic "kern.*"` runs elsewhere.

use std::process::ExitCode;

use clap::Parser;
use lapin::types::ShortString;
use shared::{Connection, ConnectionArgs, message_id, say, text};
use topics::DEFAULT_KEY;

/// Send a log line under a key of words
#[derive(Parser)]
struct Args {
    /// What the line is about: words with dots between them, as a rule facility.severity
    #[arg(default_value = DEFAULT_KEY, value_parser = key)]
    key: ShortString,

    /// What happened [default: hello]
    words: Vec<String>,

    /// Fail if the key matches no receiver's pattern, instead of dropping the line silently
    #[arg(long)]
    mandatory: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// An empty argument counts as none, as in the other languages' programs.
fn key(text: &str) -> Result<ShortString, String> {
    topics::key(if text.is_empty() { DEFAULT_KEY } else { text })
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(topics::EXCHANGE)?;
        let body = text(&args.words);
        let connection = Connection::open(&args.connection, "emit_log_topic", &shutdown).await?;
        // One id for all attempts: if the connection dies before the confirm, the line is sent again.
        let id = message_id();
        let emit = connection.session(async |session| {
            let channel = &session.channel;
            topics::declare(channel, &exchange).await?;
            topics::emit(channel, &exchange, &args.key, &body, &id, args.mandatory).await
        });
        emit.await?;
        say!(" [x] Sent {body}");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        Args::try_parse_from([&["emit_log_topic"], args].concat()).unwrap()
    }

    #[test]
    fn the_first_word_is_the_key_and_the_others_are_the_line() {
        for (args, expected) in [
            (&[][..], ("anonymous.info", "hello")),
            (&[""], ("anonymous.info", "hello")),
            (&["kern.warn"], ("kern.warn", "hello")),
            (&["kern.warn", ""], ("kern.warn", "hello")),
            (&["kern.warn", "", "x"], ("kern.warn", "hello")),
            (&["", "a", "b"], ("anonymous.info", "a b")),
            (&["kern.warn", "a", "", "b"], ("kern.warn", "a  b")),
            (&["kern.", "--", "-x"], ("kern.", "-x")),
        ] {
            let args = parse(args);
            assert_eq!((args.key.as_str(), &*text(&args.words)), expected);
        }
    }
}
