//! The solution of an exercise in the page of `rpc`: many calls at once on one client, answered in any order.
//!
//! Run it with `cargo run -p rpc --example table` while a `rpc_server` runs elsewhere.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::future::try_join_all;
use rpc::{ReplyTo, RpcClient};
use shared::{Connection, ConnectionArgs, say};

/// Ask for ten Fibonacci numbers at once
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(rpc::QUEUE)?;
        let connection = Connection::open(&args.connection, "table", &shutdown).await?;
        // begin table
        let client = RpcClient::new(&connection, &queue, ReplyTo::Queue);
        let calls = (0..10).map(|n| client.call(n, Duration::from_secs(5)));
        for (n, number) in try_join_all(calls).await?.into_iter().enumerate() {
            say!(" [.] fib({n}) is {number}");
        }
        // end table
        Ok(())
    })
}
