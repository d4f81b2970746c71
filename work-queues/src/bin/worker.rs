//! Works on the tasks in the queue `task_queue`, one second for each dot, until Ctrl-C.
//!
//! Run it with `cargo run -p work-queues --bin worker`, in two terminals to see the work shared out, then
//! `cargo run -p work-queues --bin task A hard one...` elsewhere.

use std::process::ExitCode;
use std::sync::Once;

use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, say};
use work_queues::Acks;

/// Work on the tasks in the queue `task_queue`
#[derive(Parser)]
struct Args {
    /// How many unfinished tasks to hold at once; 1 leaves the next one to whoever is free
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    prefetch: u16,

    /// A mistake to try: take tasks as done when they are sent, so that a killed worker loses them
    #[arg(long, conflicts_with = "forget_ack")]
    auto_ack: bool,

    /// A mistake to try: never acknowledge, so that finished tasks pile up and come back
    #[arg(long)]
    forget_ack: bool,

    /// What the queue is declared as; tasks and workers must agree
    #[arg(long, value_enum, default_value_t)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

impl Args {
    fn acks(&self) -> Acks {
        match (self.auto_ack, self.forget_ack) {
            (true, _) => Acks::Automatic,
            (_, true) => Acks::Forgotten,
            _ => Acks::AfterWork,
        }
    }
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(work_queues::QUEUE)?;
        let acks = args.acks();
        let connection = Connection::open(&args.connection, "worker", &shutdown).await?;
        let waiting = Once::new();
        let work = connection.session(async |session| {
            work_queues::declare(&session.channel, &queue, args.queue_type).await?;
            let mut tasks = work_queues::consume(&session.channel, &queue, args.prefetch, acks).await?;
            waiting.call_once(|| say!(" [*] Waiting for messages. To exit press CTRL+C"));
            while let Some(task) = session.next(&mut tasks).await? {
                // Not begun, so left to others: it goes back to the queue when the channel closes. What
                // the broker has forgotten already has nowhere to go back to.
                if shutdown.is_requested() && acks != Acks::Automatic {
                    break;
                }
                say!("Received a message: {}", String::from_utf8_lossy(&task.data));
                if task.redelivered {
                    tracing::info!("redelivered: it was sent to a worker before and not acknowledged");
                }
                work_queues::work(&session.channel, &task, acks).await?;
                say!("Done");
            }
            Ok(())
        });
        work.await?;
        Ok(())
    })
}
