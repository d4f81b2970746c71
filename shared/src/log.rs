//! Logging: to standard error, so that standard output holds nothing but the lesson.

use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// lapin logs whole messages, and an error for each loss, which the supervisor reports better.
const DEFAULT_FILTER: &str = "info,lapin=off";

/// Starts logging. `RUST_LOG` sets the level, or one for each module: `debug`, `info,lapin=debug`.
pub(crate) fn init() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let wanted = if wanted.is_empty() { DEFAULT_FILTER } else { &wanted };
    let filter = wanted.parse::<Targets>();
    let used =
        filter.as_ref().map_or_else(|_| Targets::new().with_default(tracing::Level::INFO), Clone::clone);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .without_time();
    let of_lapin = filter_fn(|meta| {
        // At TRACE lapin logs its login, password and all. Its spans would be on the lines of tasks on its thread.
        !meta.target().starts_with("lapin") || *meta.level() < tracing::Level::TRACE && !meta.is_span()
    });
    // Fails only if a subscriber is set already, which then is the one wanted.
    let _ = tracing_subscriber::registry().with(used).with(of_lapin).with(lines).try_init();
    if let Err(error) = filter {
        tracing::warn!("RUST_LOG={wanted} is not understood ({error}): logging at info");
    }
}
