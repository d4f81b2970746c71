//! Priorities: the most urgent message first.
//!
//! Run it with `cargo run -p queue-lifecycle --bin priorities`.

use std::process::ExitCode;

use clap::Parser;
use lapin::{BasicProperties, Channel};
use queue_lifecycle::{Arguments, anonymous, bodies, drain, publish};
use shared::{Connection, ConnectionArgs, Result, say};

/// Send messages with priorities to a queue that knows them and to one that does not
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Bodies and priorities, in the order of sending. No priority counts as 0, too high a one as the highest.
const MESSAGES: [(&str, Option<u8>); 6] = [
    ("zero", Some(0)),
    ("five", Some(5)),
    ("none", None),
    ("nine", Some(9)),
    ("five-again", Some(5)),
    ("200", Some(200)),
];

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "priorities", &shutdown).await?;
        connection.session(async |session| lesson(&session.channel).await).await?;
        Ok(())
    })
}

async fn lesson(channel: &Channel) -> Result<()> {
    let sent: Vec<_> = MESSAGES.iter().map(|(body, _)| *body).collect();
    say!(" [x] Send, one after the other: {}", sent.join(" "));
    for (what, arguments) in [
        ("x-max-priority 9", Arguments::default().max_priority(9)),
        ("no such argument", Arguments::default()),
    ] {
        let queue = &anonymous(channel, arguments).await?;
        for (body, priority) in MESSAGES {
            let properties = match priority {
                Some(priority) => BasicProperties::default().with_priority(priority),
                None => BasicProperties::default(),
            };
            publish(channel, "", queue, properties, body.as_bytes()).await?;
        }
        say!(" [x] Receive from a queue with {what}: {}", bodies(&drain(channel, queue).await?));
    }
    Ok(())
}
