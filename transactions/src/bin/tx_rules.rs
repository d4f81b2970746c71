//! Tries out on the broker what holds for channels in transaction mode, rule by rule.
//!
//! Run it with `cargo run -p transactions --bin tx_rules`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, say};
use transactions::TrialQueue;
use transactions::rules::Rule;

/// Try out what holds for channels in transaction mode, rule by rule
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let model = TrialQueue::new(&args.connection, "tx_rules", QueueType::Classic)?;
        let connection = Connection::open(&args.connection, "tx_rules", &shutdown).await?;
        for rule in Rule::ALL {
            say!(" [x] {}", rule.tries());
            let observed = rule.try_out(&connection, &model).await;
            say!(" [.] {}", observed.with_context(|| format!("the rule '{}' does not hold", rule.tries()))?);
        }
        Ok(())
    })
}
