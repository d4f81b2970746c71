//! Takes an order, writes invoices for it and acknowledges it, all in one transaction, while a second
//! connection looks at the queues before and after.
//!
//! Run it with `cargo run -p transactions --bin tx_publish`; then with `--rollback`, and with `--close`.

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use shared::{Connection, ConnectionArgs, Error, QueueType, Result, Session, say};
use tokio::time::{Instant, sleep, timeout};
use transactions::tx::{self, CommitError};
use transactions::{Fate, LAST_STEPS, Ledger, TrialQueue, arrivals, clean_up};

/// How long the counts may take to become what they should be, and the pause between two looks at them.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Publish and acknowledge in one transaction, and see what others see of it
#[derive(Parser)]
struct Args {
    /// How many messages to publish in the transaction
    #[arg(long, value_name = "N", default_value = "3")]
    messages: NonZeroU32,

    /// Roll the transaction back instead of committing it
    #[arg(long)]
    rollback: bool,

    /// Close the channel instead, with the transaction open
    #[arg(long, conflicts_with = "rollback")]
    close: bool,

    /// Wait before the end of the transaction, to look at the queues or to break something
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pause: Duration,

    /// What the queues are declared as
    #[arg(long, value_enum, default_value_t = QueueType::Classic)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let demo = Demo {
            orders: TrialQueue::new(&args.connection, "tx_orders", args.queue_type)?,
            invoices: TrialQueue::new(&args.connection, "tx_invoices", args.queue_type)?,
            observer: Connection::open(&args.connection, "tx_publish observer", &shutdown).await?,
            args: &args,
        };
        demo.prepare().await?;
        let connection = Connection::open(&args.connection, "tx_publish", &shutdown).await?;
        let result = demo.run(&connection).await;
        clean_up(&demo.observer, &[&demo.invoices, &demo.orders]).await;
        result
    })
}

struct Demo<'a> {
    args: &'a Args,
    orders: TrialQueue,
    invoices: TrialQueue,
    /// Another client, which sees what all others see.
    observer: Connection,
}

impl Demo<'_> {
    /// Declares both queues and puts an order into its queue.
    async fn prepare(&self) -> anyhow::Result<()> {
        let prepared = tx::commit_all(&self.observer, async |session| {
            self.invoices.declare(&session.channel).await?;
            self.orders.declare(&session.channel).await?;
            tx::publish(&session.channel, &self.orders.name, "order").await
        });
        prepared.await?;
        Ok(self.look("at the start", (0, 1)).await?)
    }

    async fn run(&self, connection: &Connection) -> anyhow::Result<()> {
        let ledger = if self.args.rollback || self.args.close {
            self.give_up(connection).await?
        } else {
            self.commit(connection).await?
        };
        let arrivals = arrivals::collect(&self.observer, &self.invoices).await?;
        ledger.compare(&arrivals)?;
        say!(" [.] Received {} of {} invoices, none twice", arrivals.len(), ledger.sent());
        Ok(())
    }

    async fn commit(&self, connection: &Connection) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger::new(0);
        let committed = tx::commit_all(connection, async |session| {
            ledger = self.transact(session).await?;
            self.look("before the commit", (0, 0)).await?;
            self.pause(session).await
        });
        if let Err(error) = committed.await {
            self.explain(&error).await;
            return Err(error.into());
        }
        say!(" [x] Committed");
        self.look("after the commit", (self.args.messages.get(), 0)).await?;
        ledger.settle_all(Fate::Confirmed);
        Ok(ledger)
    }

    async fn give_up(&self, connection: &Connection) -> anyhow::Result<Ledger> {
        let end = if self.args.rollback { "before the rollback" } else { "before the channel is closed" };
        let given_up = connection.session(async |session| {
            tx::select(&session.channel).await?;
            let ledger = self.transact(&session).await?;
            self.look(end, (0, 0)).await?;
            self.pause(&session).await?;
            if self.args.rollback {
                tx::rollback(&session.channel).await?;
                say!(" [x] Rolled back");
                self.look("after the rollback", (0, 0)).await?;
            }
            // The session's end closes its channel.
            Ok(ledger)
        });
        let mut ledger = given_up.await?;
        say!(" [x] Closed the channel");
        self.look("after that", (0, 1)).await?;
        // The publishes are taken back: none of them may arrive.
        ledger.settle_all(Fate::Nacked);
        Ok(ledger)
    }

    /// The transaction, but for its end: takes the order, writes the invoices, acknowledges the order.
    async fn transact(&self, session: &Session) -> Result<Ledger> {
        let channel = &session.channel;
        let mut consumer = tx::consume(channel, &self.orders.name).await?;
        let Some(order) = session.next(&mut consumer).await? else { return Err(Error::Stopped) };
        let mut ledger = Ledger::new(self.args.messages.get() as usize);
        while let Some(number) = ledger.send_next() {
            tx::publish(channel, &self.invoices.name, &ledger.id(number)).await?;
        }
        tx::acknowledge(channel, &order).await?;
        say!(
            " [x] In one transaction: took the order, published {} invoices, acknowledged the order",
            self.args.messages
        );
        Ok(ledger)
    }

    async fn pause(&self, session: &Session) -> Result<()> {
        tokio::select! {
            () = sleep(self.args.pause) => Ok(()),
            () = session.shutdown().requested() => Err(Error::Stopped),
        }
    }

    /// Counts what is ready in the queues, through the other connection. A quorum queue takes a moment for
    /// what a classic one does at once, so a look that finds too little or too much is repeated for a while.
    async fn look(&self, when: &str, expected: (u32, u32)) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let counted = self.observer.session(async |session| {
                let invoices = self.invoices.count(&session.channel).await?;
                Ok((invoices, self.orders.count(&session.channel).await?))
            });
            let counted = counted.await?;
            if counted == expected || Instant::now() >= give_up {
                let (invoices, orders) = counted;
                say!(" [.] In the queues {when}: invoices {invoices}, orders {orders}");
                return Ok(());
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// A look says what came of an unknown commit this time. It is no proof: the broker may still be at it.
    async fn explain(&self, error: &CommitError) {
        if !matches!(error, CommitError::Unknown(_)) {
            return;
        }
        say!(" [!] No answer to the commit: done or not done, unknown");
        let looked = timeout(LAST_STEPS, self.look("a moment later", (self.args.messages.get(), 0))).await;
        if !matches!(looked, Ok(Ok(()))) {
            tracing::warn!("the queues cannot be looked at");
        }
    }
}
