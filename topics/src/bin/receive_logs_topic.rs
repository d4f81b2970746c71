//! Prints the log lines whose keys match some patterns, until Ctrl-C.
//!
//! Run it with `cargo run -p topics --bin receive_logs_topic "kern.*" "*.critical"`, then
//! `cargo run -p topics --bin emit_log_topic kern.critical "A critical kernel error"` elsewhere. The
//! quotation marks keep the shell from taking a pattern for file names.

use std::process::ExitCode;

use clap::Parser;
use lapin::types::ShortString;
use shared::{Connection, ConnectionArgs, say};

/// Print the log lines whose keys match some patterns
#[derive(Parser)]
#[command(override_usage = "receive_logs_topic [binding_key]...")]
struct Args {
    /// Patterns of words: * stands for one word, # for any number of words; quote them for the shell
    #[arg(required = true, value_name = "BINDING_KEY", value_parser = topics::key)]
    patterns: Vec<ShortString>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(topics::EXCHANGE)?;
        let connection = Connection::open(&args.connection, "receive_logs_topic", &shutdown).await?;
        let mut first = true;
        let receive = connection.session(async |session| {
            // A queue is lost with its connection, so each connection makes and binds a new one. The lesson
            // is told once; what follows a loss is for the log.
            let tell = |line: &str| if first { say!("{line}") } else { tracing::info!("{line}") };
            let channel = &session.channel;
            topics::declare(channel, &exchange).await?;
            let queue = topics::declare_queue(channel).await?;
            for pattern in &args.patterns {
                tell(&format!("Binding queue {queue} to exchange {exchange} with routing key {pattern}"));
                topics::bind(channel, &queue, &exchange, pattern).await?;
            }
            let mut consumer = topics::consume(channel, &queue).await?;
            tell(" [*] Waiting for logs. To exit press CTRL+C");
            first = false;
            while let Some(delivery) = session.next(&mut consumer).await? {
                say!(" [x] {}", String::from_utf8_lossy(&delivery.data));
            }
            Ok(())
        });
        receive.await?;
        Ok(())
    })
}
