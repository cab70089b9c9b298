//! When to start a workload again. Pure.

use crate::config::RestartPolicy;
use std::time::Duration;

/// First delay; each further failure doubles it.
const FIRST: Duration = Duration::from_millis(100);
/// The longest delay.
const CEILING: Duration = Duration::from_secs(10);
/// A run this long is taken as a success: the next delay is the first again.
const STABLE: Duration = Duration::from_secs(10);

/// The delay grows with consecutive short runs.
#[derive(Debug, Default)]
pub struct Backoff {
    short_runs: u32,
}

impl Backoff {
    /// The delay after a run of `ran_for`.
    pub fn next(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= STABLE {
            self.short_runs = 0;
        }
        let delay = FIRST.saturating_mul(1 << self.short_runs.min(10)).min(CEILING);
        self.short_runs += 1;
        delay
    }
}

/// Whether a workload that ended so is to be started again.
pub fn wants_restart(policy: RestartPolicy, succeeded: bool) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => !succeeded,
        RestartPolicy::No => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_a_ceiling_and_a_long_run_resets_them() {
        let mut backoff = Backoff::default();
        let delays: Vec<u128> = (0..9).map(|_| backoff.next(Duration::ZERO).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.next(STABLE).as_millis(), 100);
        for _ in 0..100 {
            assert!(backoff.next(Duration::ZERO) <= CEILING);
        }
    }

    #[test]
    fn the_policy_decides() {
        assert!(wants_restart(RestartPolicy::Always, true));
        assert!(wants_restart(RestartPolicy::OnFailure, false));
        assert!(!wants_restart(RestartPolicy::OnFailure, true));
        assert!(!wants_restart(RestartPolicy::No, false));
    }
}
