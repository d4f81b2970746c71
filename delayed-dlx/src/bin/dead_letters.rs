//! Lets messages die in every way there is and prints what the broker writes about it.
//!
//! Run it with `cargo run -p delayed-dlx --bin dead_letters`, or with the names of single lessons:
//! `cargo run -p delayed-dlx --bin dead_letters maxlen cycle`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use delayed_dlx::dead_letters::Lesson;
use shared::{Connection, ConnectionArgs, say};

/// Let messages die in every way there is and print what the broker writes about it
#[derive(Parser)]
struct Args {
    /// What to show; everything if none is named
    #[arg(value_enum, value_name = "LESSON")]
    lessons: Vec<Lesson>,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "dead_letters", &shutdown).await?;
        let lessons = if args.lessons.is_empty() { Lesson::value_variants() } else { &args.lessons };
        for lesson in lessons {
            let show = connection.session(async |session| lesson.show(&session, &args.connection).await);
            let seen = show.await?;
            say!(" [x] {}", lesson.claim());
            for line in seen {
                say!("     {line}");
            }
        }
        Ok(())
    })
}
