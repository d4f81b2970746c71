//! Publishes a log line to the exchange `logs`, for all who listen at that moment.
//!
//! Run it with `cargo run -p pubsub-fanout --bin emit_log A line of the log`, while a `receive_logs` runs
//! elsewhere.

use std::process::ExitCode;

use clap::Parser;
use shared::{Connection, ConnectionArgs, message_id, say};

/// Publish a log line to the exchange logs
#[derive(Parser)]
struct Args {
    /// The line's text [default: hello]
    words: Vec<String>,

    /// Fail if nobody listens, instead of letting the broker drop the line
    #[arg(long)]
    mandatory: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The words as one line. If the first is empty, the others do not count either.
fn body(words: &[String]) -> String {
    match words {
        [first, ..] if !first.is_empty() => words.join(" "),
        _ => "hello".to_owned(),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(pubsub_fanout::EXCHANGE)?;
        let body = body(&args.words);
        let connection = Connection::open(&args.connection, "emit_log", &shutdown).await?;
        // One id for all attempts: if the connection dies before the confirm, the line is sent again.
        let id = message_id();
        let emit = connection.session(async |session| {
            pubsub_fanout::declare(&session.channel, &exchange).await?;
            pubsub_fanout::emit(&session.channel, &exchange, &body, &id, args.mandatory).await
        });
        emit.await?;
        say!(" [x] Sent {body}");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_one_text_and_an_empty_first_one_means_hello() {
        for (words, expected) in [
            (&[][..], "hello"),
            (&[""], "hello"),
            (&["", "x"], "hello"),
            (&["a", "b"], "a b"),
            (&["a", ""], "a "),
            (&["a  b", "c"], "a  b c"),
        ] {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            assert_eq!(body(&words), expected, "{words:?}");
        }
    }
}
