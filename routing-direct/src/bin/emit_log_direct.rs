//! Sends one log line with a severity, which only the receivers that asked for that severity get.
//!
//! Run it with `cargo run -p routing-direct --bin emit_log_direct warn "a warning"` while a
//! `receive_logs_direct info warn` runs elsewhere.

use std::process::ExitCode;

use clap::Parser;
use lapin::types::ShortString;
use routing_direct::DEFAULT_SEVERITY;
use shared::{Connection, ConnectionArgs, message_id, say, text};

/// Send a log line with a severity
#[derive(Parser)]
struct Args {
    /// How bad it is: any text, which receivers ask for by exactly the same text
    #[arg(default_value = DEFAULT_SEVERITY, value_parser = severity)]
    severity: ShortString,

    /// What happened [default: hello]
    words: Vec<String>,

    /// Fail if no receiver asked for this severity, instead of dropping the line silently
    #[arg(long)]
    mandatory: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// An empty argument counts as none, as in the other languages' programs.
fn severity(text: &str) -> Result<ShortString, String> {
    routing_direct::severity(if text.is_empty() { DEFAULT_SEVERITY } else { text })
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(routing_direct::EXCHANGE)?;
        let body = text(&args.words);
        let connection = Connection::open(&args.connection, "emit_log_direct", &shutdown).await?;
        // One id for all attempts: if the connection dies before the confirm, the line is sent again.
        let id = message_id();
        let emit = connection.session(async |session| {
            let channel = &session.channel;
            routing_direct::declare(channel, &exchange).await?;
            routing_direct::emit(channel, &exchange, &args.severity, &body, &id, args.mandatory).await
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
        Args::try_parse_from([&["emit_log_direct"], args].concat()).unwrap()
    }

    #[test]
    fn the_first_word_is_the_severity_and_the_others_are_the_line() {
        for (args, expected) in [
            (&[][..], ("info", "hello")),
            (&[""], ("info", "hello")),
            (&["warn"], ("warn", "hello")),
            (&["warn", ""], ("warn", "hello")),
            (&["warn", "", "x"], ("warn", "hello")),
            (&["", "a", "b"], ("info", "a b")),
            (&["warn", "a", "", "b"], ("warn", "a  b")),
            (&["error", "--", "-x"], ("error", "-x")),
        ] {
            let args = parse(args);
            assert_eq!((args.severity.as_str(), &*text(&args.words)), expected);
        }
    }
}
