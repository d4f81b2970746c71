//! Answers requests for Fibonacci numbers from the queue `rpc_queue`, until Ctrl-C.
//!
//! Run it with `cargo run -p rpc --bin rpc_server`, then `cargo run -p rpc --bin rpc_client 30` elsewhere.

use std::process::ExitCode;
use std::sync::{Arc, Once};

use clap::Parser;
use rpc::Server;
use shared::{Connection, ConnectionArgs, Error, Publisher, QueueType, say};
use tokio::task::JoinSet;

/// Answer requests for Fibonacci numbers from the queue `rpc_queue`
#[derive(Parser)]
struct Args {
    /// What the request queue is declared as; all servers must agree
    #[arg(long, value_enum, default_value_t)]
    queue_type: QueueType,

    /// How many requests to work on at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    prefetch: u16,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let server = Server {
            queue: args.connection.name(rpc::QUEUE)?,
            queue_type: args.queue_type,
            prefetch: args.prefetch,
        };
        // Two connections: a broker short of memory stops reading from the one that publishes, and the
        // acknowledgements must still get through.
        let requests = Connection::open(&args.connection, "rpc_server requests", &shutdown).await?;
        let replies = Connection::open(&args.connection, "rpc_server replies", &shutdown).await?;
        // A channel for each reply in flight; more would not make the broker faster.
        let replies = Arc::new(Publisher::new(&replies, usize::from(args.prefetch).min(64)));
        let waiting = Once::new();
        let serve = requests.session(async |session| {
            let mut consumer = rpc::consume(&session.channel, &server).await?;
            waiting.call_once(|| say!(" [*] Awaiting RPC requests"));
            let mut answers = JoinSet::new();
            loop {
                tokio::select! {
                    request = session.next(&mut consumer) => {
                        let Some(request) = request? else { break };
                        let (channel, replies) = (session.channel.clone(), replies.clone());
                        answers.spawn(async move {
                            rpc::answer(request, &channel, &replies, |n| say!(" [.] fib({n})")).await
                        });
                    }
                    Some(answer) = answers.join_next() => answer.map_err(Error::own)??,
                }
            }
            while let Some(answer) = answers.join_next().await {
                answer.map_err(Error::own)??;
            }
            Ok(())
        });
        serve.await?;
        Ok(())
    })
}
