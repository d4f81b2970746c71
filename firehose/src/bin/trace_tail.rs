//! Prints every message that passes the vhost, until Ctrl-C, as RabbitMQ's trace files show it.
//!
//! Run it with `cargo run -p firehose --bin trace_tail -- --enable`, and any other pattern elsewhere.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use firehose::{Control, Filter, Management, Seen, Tail};
use shared::{Connection, ConnectionArgs, Error, Session, shell_word, try_print_line};

/// Print every message that passes the vhost
///
/// Tracing must be on in the vhost: rabbitmqctl trace_on -p VHOST, or --enable.
#[derive(Parser)]
struct Args {
    /// Only what is published to this exchange; '' is the default exchange; may be repeated
    #[arg(long, value_name = "NAME")]
    exchange: Vec<String>,

    /// Only what is delivered from this queue; may be repeated
    #[arg(long, value_name = "NAME")]
    queue: Vec<String>,

    /// Turn tracing on through the management API, and off again at the end if it was off
    #[arg(long)]
    enable: bool,

    /// Where the management API is, if not on port 15672 of the broker's host
    #[arg(long, value_name = "URL", requires = "enable")]
    management_url: Option<String>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let endpoint = args.connection.endpoint()?;
        let vhost = endpoint.vhost();
        let filter = Filter {
            exchanges: names(&args.exchange, &args.connection)?,
            queues: names(&args.queue, &args.connection)?,
        };
        let mut control = match args.enable {
            true => Some(Control::new(Management::new(&endpoint, args.management_url.as_deref())?)),
            false => None,
        };
        let connection = Connection::open(&args.connection, "trace_tail", &shutdown).await?;
        let mut is_waiting = false;
        let tail = connection.session(async |session| {
            let mut tail = Tail::start(&session, &filter).await?;
            match &mut control {
                Some(control) => {
                    control.turn_on(session.shutdown()).await?;
                    tracing::info!(
                        "tracing is on in the vhost '{vhost}': each message costs the broker more"
                    );
                }
                None => tail.check(&session, &args.connection).await?,
            }
            if !std::mem::replace(&mut is_waiting, true)
                && !print(" [*] Waiting for traces. To exit press CTRL+C")?
            {
                return Ok(());
            }
            print_all(tail, &session, vhost).await
        });
        let result = tail.await;
        if let Some(control) = &mut control {
            match control.restore().await {
                Ok(true) => tracing::info!("tracing is off again in the vhost '{vhost}'"),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    "tracing may still be on: {error}; turn it off with `rabbitmqctl trace_off -p {}`",
                    shell_word(vhost)
                ),
            }
        }
        Ok(result?)
    })
}

async fn print_all(mut tail: Tail, session: &Session, vhost: &str) -> shared::Result<()> {
    while let Some(seen) = tail.next(session).await? {
        match seen {
            Seen::Record(record) => {
                if !print(record)? {
                    return Ok(());
                }
            }
            Seen::Off => tracing::warn!(
                "tracing is off in the vhost '{vhost}', so there is nothing to see: turn it on with \
                 `rabbitmqctl trace_on -p {}`, and afterwards off with trace_off",
                shell_word(vhost)
            ),
            Seen::CannotTell(error) => {
                tracing::warn!(
                    "whether tracing is on in the vhost '{vhost}' cannot be told: {}",
                    error.explain()
                );
            }
        }
    }
    Ok(())
}

/// Prints a line. False if nobody reads any more: tracing is still to be turned off.
fn print(line: impl Display) -> shared::Result<bool> {
    match try_print_line(format_args!("{line}")) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::own(format!("cannot write to standard output: {error}"))),
    }
}

/// The names with the prefix in front, but for those that the broker gives out itself.
fn names(names: &[String], args: &ConnectionArgs) -> shared::Result<Vec<String>> {
    let prefixed = |name: &String| match &**name {
        "" => Ok(String::new()),
        name if name.starts_with("amq.") => Ok(name.to_owned()),
        name => args.name(name),
    };
    let traceable = |name: shared::Result<String>| match name? {
        // A trace's routing key has `publish.` or `deliver.` in front of it.
        name if name.len() > 255 - 8 => {
            Err(Error::usage(format!("'{name}' is over 247 bytes, too long to be traced alone")))
        }
        name => Ok(name),
    };
    names.iter().map(prefixed).map(traceable).collect()
}
