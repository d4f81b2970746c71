//! Asks a server for a Fibonacci number and prints it.
//!
//! Run it with `cargo run -p rpc --bin rpc_client 30` while a `rpc_server` runs elsewhere.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rpc::{ReplyTo, RpcClient};
use shared::{Connection, ConnectionArgs, Error, say};

/// Ask a server for a Fibonacci number
#[derive(Parser)]
#[command(allow_negative_numbers = true)]
struct Args {
    /// Which Fibonacci number to ask for
    #[arg(default_value_t = 30, value_parser = number)]
    n: u64,

    /// How long to wait for the reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Get the reply through amq.rabbitmq.reply-to instead of a queue
    #[arg(long)]
    direct_reply_to: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// An empty argument counts as none, as in the other languages' programs.
fn number(text: &str) -> Result<u64, String> {
    match text {
        "" => Ok(30),
        _ => text.parse().map_err(|_| "give one whole number of at least 0".to_owned()),
    }
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(rpc::QUEUE)?;
        let reply_to = if args.direct_reply_to { ReplyTo::Direct } else { ReplyTo::Queue };
        let connection = Connection::open(&args.connection, "rpc_client", &shutdown).await?;
        say!(" [x] Requesting fib({})", args.n);
        let client = RpcClient::new(&connection, &queue, reply_to);
        tokio::select! {
            result = client.call(args.n, args.timeout) => {
                say!(" [.] Got {}", result.context("Failed to handle RPC request")?);
                Ok(())
            }
            () = shutdown.requested() => Err(Error::Stopped.into()),
        }
    })
}
