//! How full a queue is, and whether there is one, without making one.
//!
//! Run it with `cargo run -p queue-lifecycle --bin inspect_queue hello`.

use std::process::ExitCode;

use clap::Parser;
use queue_lifecycle::inspect;
use shared::{Connection, ConnectionArgs, say};

/// Say how many messages and consumers a queue has, or that there is none
#[derive(Parser)]
struct Args {
    /// The queue's name
    queue: String,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(&args.queue)?;
        let connection = Connection::open(&args.connection, "inspect_queue", &shutdown).await?;
        let counts = connection.session(async |session| inspect(&session.channel, &queue).await).await?;
        say!(" [x] {queue}: {counts}");
        Ok(())
    })
}
