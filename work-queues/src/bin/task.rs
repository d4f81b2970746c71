//! Sends a task to the queue `task_queue`; each dot in it stands for a second of work.
//!
//! Run it with `cargo run -p work-queues --bin task A hard one...`, before or after a `worker`.

use std::process::ExitCode;

use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, message_id, say, text};

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

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(work_queues::QUEUE)?;
        let body = text(&args.words);
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
