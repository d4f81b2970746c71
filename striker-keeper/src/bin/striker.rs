//! Shoots messages at the exchange `penalty` with the routing key `spain`, through every outage, and ends
//! with a tally.
//!
//! Run `cargo run -p striker-keeper --bin keeper` first, then `cargo run -p striker-keeper --bin striker`.

use std::num::NonZero;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use shared::{Connection, ConnectionArgs, Error, say};
use striker_keeper::comparison::{Measured, compare};
use striker_keeper::report::ReportArgs;
use striker_keeper::shots::{Run, Shots, Way};
use striker_keeper::tally::StrikerTally;
use striker_keeper::{EXCHANGE, outages, progress, striker_topology};

/// Shoot messages at the exchange `penalty`
#[derive(Parser)]
struct Args {
    /// How many messages; without it, send until Ctrl-C
    #[arg(long, value_name = "N")]
    count: Option<u64>,

    /// How many messages in a second; 0 means as many as possible
    #[arg(long, value_name = "N", default_value_t = 1)]
    rate: u32,

    /// Bytes of a message; its text is filled up with dots
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=MOST_BYTES))]
    size: u32,

    /// How many messages may wait for their confirms at once
    #[arg(long, value_name = "N", default_value = "1")]
    in_flight: NonZero<u16>,

    /// How to send
    #[arg(long, value_enum, default_value_t)]
    publish: Way,

    /// How often a confirmed message without a good answer is sent again
    #[arg(long, value_name = "N", default_value_t = 1000)]
    resends: u32,

    /// Measure the ways to send instead, with a queue of its own
    #[arg(long, conflicts_with_all = ["publish", "rate", "resends", "report", "quiet"])]
    compare: bool,

    #[command(flatten)]
    report: ReportArgs,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// No RabbitMQ takes a larger message, however it is configured.
const MOST_BYTES: i64 = 512 << 20;

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        if args.publish == Way::NewChannel && args.in_flight.get() > 1 {
            let words = "--publish new-channel has one message in flight: leave --in-flight away";
            return Err(Error::usage(words).into());
        }
        let topology = striker_topology(&args.connection)?;
        let shots = args.shots()?;
        let connection = Connection::open(&args.connection, "striker", &shutdown).await?;
        if args.compare {
            return tokio::select! {
                result = print_comparison(&args, &connection) => result,
                () = shutdown.requested() => Err(Error::Stopped.into()),
            };
        }
        let outages = outages::watch(&connection);
        args.report.line("running striker ...");
        topology.declare(&connection).await?;
        let run = Run::new(&shots, &connection, topology);
        let mut tally = StrikerTally::default();
        let shoot = run.shoot(args.report, &shutdown, &mut tally);
        let result = progress::during(args.report.progress(), "striker", || run.sent(), shoot).await;
        tally.outages = outages();
        args.report.tally(&tally, &tally.json());
        result?;
        if tally.failed() > 0 {
            let (failed, sent) = (tally.failed(), tally.sent);
            match tally.advice() {
                Some(advice) => bail!("{failed} of {sent} messages were not confirmed; {advice}"),
                None => bail!("{failed} of {sent} messages were not confirmed"),
            }
        }
        Ok(())
    })
}

impl Args {
    fn shots(&self) -> shared::Result<Shots> {
        Ok(Shots {
            exchange: self.connection.name(EXCHANGE)?,
            count: self.count,
            rate: self.rate,
            size: self.size as usize,
            in_flight: self.in_flight.get().into(),
            way: self.publish,
            resends: self.resends,
        })
    }
}

async fn print_comparison(args: &Args, connection: &Connection) -> anyhow::Result<()> {
    let in_flight = if args.in_flight.get() > 1 { args.in_flight.get() } else { 1000 };
    let count = args.count.unwrap_or(2000);
    let measured = compare(connection, &args.connection, count, args.size as usize, in_flight.into()).await?;
    let slowest = measured.first().map_or(f64::NAN, Measured::pace);
    for way in &measured {
        let (name, pace) = (&way.way, way.pace());
        say!(" [.] {name}: {pace:.0} messages per second, {:.1} × new-channel", pace / slowest);
    }
    Ok(())
}
