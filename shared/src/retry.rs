//! How long to wait between attempts, and when to give up.

use std::time::Duration;

use rand::RngExt;

/// The wait after the first failure.
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// A connection or session that lasted this long was a success; failures are counted anew after it.
pub(crate) const STABLE: Duration = Duration::from_secs(1);

/// How often and how patiently something is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Consecutive failures after which to give up; 0 means never.
    pub attempts: u32,
    /// The longest wait between two attempts. The waits start at 20 ms and double up to this.
    pub interval: Duration,
}

impl Default for RetryPolicy {
    /// Five minutes of patience (1200 × 250 ms), and half of 250 ms as the median wait after a long outage.
    fn default() -> Self {
        Self { attempts: 1200, interval: Duration::from_millis(250) }
    }
}

/// Counts consecutive failures and tells the wait after each.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Notes a failure; the wait before the next attempt, or `None` when the attempts are used up.
    pub(crate) fn failed(&mut self) -> Option<Duration> {
        let attempts = self.policy.attempts;
        self.failed_unless_over(attempts != 0 && self.failures.saturating_add(1) >= attempts)
    }

    /// Notes a failure; the wait before the next attempt, or `None` when it is over for another reason.
    pub(crate) fn failed_unless_over(&mut self, over: bool) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        (!over).then(|| self.jittered_delay())
    }

    /// The wait after something that worked for long was lost, which is no failed attempt.
    pub(crate) fn lost(&mut self) -> Duration {
        self.failures = 0;
        self.jittered_delay()
    }

    fn jittered_delay(&self) -> Duration {
        self.delay().mul_f64(rand::rng().random_range(0.75..=1.25))
    }

    fn delay(&self) -> Duration {
        let doublings = (self.failures.max(1) - 1).min(16);
        (FIRST_DELAY * (1 << doublings)).min(self.policy.interval)
    }

    /// Consecutive failures so far.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_20_ms_to_the_interval() {
        let mut backoff = Backoff::new(RetryPolicy::default());
        for expected in [20, 40, 80, 160, 250, 250, 250] {
            let delay = backoff.failed().unwrap().as_secs_f64() * 1000.0;
            let expected = f64::from(expected);
            assert!(
                (expected * 0.75..=expected * 1.25).contains(&delay),
                "{delay} ms is not {expected} ± 25 %"
            );
        }
    }

    #[test]
    fn the_attempts_end_and_zero_means_never() {
        let mut three = Backoff::new(RetryPolicy { attempts: 3, ..RetryPolicy::default() });
        assert!(three.failed().is_some());
        assert!(three.failed().is_some());
        assert!(three.failed().is_none());
        three.lost();
        assert!(three.failed().is_some());

        let mut endless = Backoff::new(RetryPolicy { attempts: 0, ..RetryPolicy::default() });
        assert!((0..10_000).all(|_| endless.failed().is_some()));
    }

    #[test]
    fn an_interval_under_the_first_delay_is_kept() {
        let mut quick = Backoff::new(RetryPolicy { attempts: 0, interval: Duration::from_millis(4) });
        assert!((0..5).all(|_| quick.failed().unwrap() <= Duration::from_millis(5)));
    }
}
