//! Sends a task to the queue `task_queue`; each dot in it stands for a second of work.
//!
//! Run it with `cargo run -p work-queues --bin task A hard one...`, before or after a `worker`.

use std::process::ExitCode;

use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, message_id, say};

/// Send a task to the queue `task_queue`
#[derive(Parser)]
struct Args {
    /// The task's text; a worker takes one second for each dot in it [default: hello]
    words: Vec<String>,

    /// What the queue is declared as; tasks and workers must agree
    #[arg(long, value_enum, default_value_t)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The words as one text. If the first is empty, the others do not count either.
fn body(words: &[String]) -> String {
    match words {
        [first, ..] if !first.is_empty() => words.join(" "),
        _ => "hello".to_owned(),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(work_queues::QUEUE)?;
        let body = body(&args.words);
        let connection = Connection::open(&args.connection, "task", &shutdown).await?;
        // One id for all attempts: if the connection dies before the confirm, the task is sent again.
        let id = message_id();
        let send = connection.session(async |session| {
            work_queues::declare(&session.channel, &queue, args.queue_type).await?;
            work_queues::send(&session.channel, &queue, &body, &id).await
        });
        send.await?;
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
