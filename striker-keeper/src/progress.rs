//! A line on the terminal that says how a long run is going.

use std::io::{Write, stderr};
use std::time::{Duration, Instant};

use tokio::time::interval;

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(500);

/// Erases the line and goes back to its beginning.
const ERASE: &str = "\r\x1b[K";

/// Awaits `work`, and meanwhile shows on standard error, if it `is_shown`, what `count` says and how much of
/// it there is in a second.
pub async fn during<T>(
    is_shown: bool,
    name: &str,
    count: impl Fn() -> u64,
    work: impl Future<Output = T>,
) -> T {
    if !is_shown {
        return work.await;
    }
    let show = async {
        let mut ticks = interval(INTERVAL);
        let (mut last, mut since) = (count(), Instant::now());
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let (now, elapsed) = (count(), since.elapsed());
            let pace = (now - last) as f64 / elapsed.as_secs_f64();
            (last, since) = (now, Instant::now());
            // Nothing can be done about a terminal that is gone.
            let _ = write!(stderr(), "{ERASE}{name}: {now} messages, {pace:.0} per second");
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = show => unreachable!("it never ends"),
    };
    let _ = write!(stderr(), "{ERASE}");
    done
}
