//! Prints the log lines of some severities, until Ctrl-C.
//!
//! Run it with `cargo run -p routing-direct --bin receive_logs_direct info warn`, then
//! `cargo run -p routing-direct --bin emit_log_direct warn "a warning"` elsewhere.

use std::process::ExitCode;

use clap::Parser;
use lapin::types::ShortString;
use shared::{Connection, ConnectionArgs, say};

/// Print the log lines of some severities
#[derive(Parser)]
#[command(override_usage = "receive_logs_direct [info] [warning] [error]")]
struct Args {
    /// Which severities to receive: any texts, one binding for each
    #[arg(required = true, value_name = "SEVERITY", value_parser = routing_direct::severity)]
    severities: Vec<ShortString>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(routing_direct::EXCHANGE)?;
        let connection = Connection::open(&args.connection, "receive_logs_direct", &shutdown).await?;
        let mut first = true;
        let receive = connection.session(async |session| {
            // A queue is lost with its connection, so each connection makes and binds a new one. The lesson
            // is told once; what follows a loss is for the log.
            let tell = |line: &str| if first { say!("{line}") } else { tracing::info!("{line}") };
            let channel = &session.channel;
            routing_direct::declare(channel, &exchange).await?;
            let queue = routing_direct::declare_queue(channel).await?;
            for severity in &args.severities {
                tell(&format!("Binding queue {queue} to exchange {exchange} with routing key {severity}"));
                routing_direct::bind(channel, &queue, &exchange, severity).await?;
            }
            let mut consumer = routing_direct::consume(channel, &queue).await?;
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
