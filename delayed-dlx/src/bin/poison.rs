//! Works on payments, some of which always fail, until Ctrl-C: a failed one is tried a few times and then
//! set aside.
//!
//! Run it with `cargo run -p delayed-dlx --bin poison`. With `--requeue` it shows how not to do it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use delayed_dlx::payments::{self, Failed, Payments};
use delayed_dlx::ttl;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use shared::{Connection, ConnectionArgs, Deadline, Publisher, QueueType, Session, message_id, say};

/// Work on payments, some of which always fail
#[derive(Parser)]
struct Args {
    /// Payments to send first; one with the word poison in it always fails
    #[arg(default_values = ["payment 1", "poison", "payment 2"])]
    payments: Vec<String>,

    /// How many times a payment is tried
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,

    /// The pause between two attempts
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = ttl::parse)]
    retry_after: Duration,

    /// A mistake to try: put a failed payment back into its queue. A quorum queue allows that N times,
    /// a classic one for ever
    #[arg(long)]
    requeue: bool,

    /// What the queues are declared as; all workers must agree
    #[arg(long, value_enum, default_value_t)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let payments = Payments::new(&args.connection, args.attempts, args.retry_after, args.queue_type)?;
        // Two connections: a broker short of memory stops reading from the one that publishes, and the
        // acknowledgements must still get through.
        let sending = Connection::open(&args.connection, "poison sender", &shutdown).await?;
        let working = Connection::open(&args.connection, "poison worker", &shutdown).await?;
        for payment in &args.payments {
            let id = message_id();
            let send = sending.session(async |session| {
                payments.declare(&session.channel).await?;
                payments::send(&session.channel, &payments.queue, payment, &id).await
            });
            send.await?;
            say!(" [x] Sent {payment}");
        }
        let copies = Publisher::new(&sending, 1);
        let work = working.session(async |session| {
            payments.declare(&session.channel).await?;
            let mut consumer = payments.consume(&session.channel).await?;
            while let Some(payment) = session.next(&mut consumer).await? {
                work_on(&payment, &session, &payments, &copies, args.requeue).await?;
            }
            Ok(())
        });
        work.await?;
        Ok(())
    })
}

/// Handles one payment and settles it, whatever comes of it.
async fn work_on(
    payment: &Delivery,
    session: &Session,
    payments: &Payments,
    copies: &Publisher,
    requeue: bool,
) -> shared::Result<()> {
    let name = String::from_utf8_lossy(&payment.data);
    let Err(why) = pay(&name) else {
        let ack = session.channel.basic_ack(payment.delivery_tag, BasicAckOptions::default());
        ack.deadline("acknowledge a payment").await?;
        say!(" [x] {name}: paid");
        return Ok(());
    };
    if requeue {
        payments::reject(payment, &session.channel, true).await?;
        say!(" [!] {name}: {why}; put back at once");
        return Ok(());
    }
    let attempt = format!("attempt {} of {}", payments::attempt(&payment.properties), payments.attempts);
    match payments.failed(payment, &session.channel, copies).await? {
        Failed::Again => {
            let pause = humantime::format_duration(payments.pause);
            say!(" [!] {name}: {why}; {attempt}, the next in {pause}");
        }
        Failed::Dead => say!(" [!] {name}: {why}; {attempt}, rejected to {}", payments.dead),
    }
    Ok(())
}

/// The handler. What fails here fails every time, as a message does that nobody can read.
fn pay(payment: &str) -> Result<(), &'static str> {
    if payment.contains("poison") { Err("cannot be paid") } else { Ok(()) }
}
