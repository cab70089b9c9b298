//! What a guest is to do wrong: words `standin.…` of its kernel command line. Pure.

use std::time::Duration;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// `standin.silent`: the agent never calls home.
    pub silent: bool,
    /// `standin.unhealthy`: the workload runs and its health check fails.
    pub unhealthy: bool,
    /// `standin.ignore_shutdown`: neither the agent's shutdown nor the power button ends the guest.
    pub ignore_shutdown: bool,
    /// `standin.flood_console`: the guest prints numbered lines without end, faster than its console's log can take them for long.
    pub flood_console: bool,
    /// `standin.panic_after_ms=N`: the guest's kernel panics that long after its start.
    pub panic_after: Option<Duration>,
    /// `standin.hang_after_ms=N`: the guest stops doing anything, with 0 before it has answered anybody; the hypervisor still answers.
    pub hang_after: Option<Duration>,
    /// `standin.poweroff_after_ms=N`: the guest powers itself off.
    pub poweroff_after: Option<Duration>,
}

impl Faults {
    /// Reads a kernel command line. A word `standin.…` that is none of these is an error: a fault that does not happen proves nothing.
    pub fn parse(cmdline: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for word in cmdline.split_ascii_whitespace() {
            let Some(word) = word.strip_prefix("standin.") else { continue };
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let after = value.parse().map(Duration::from_millis).ok();
            match (name, value, after) {
                ("silent", "", _) => faults.silent = true,
                ("unhealthy", "", _) => faults.unhealthy = true,
                ("ignore_shutdown", "", _) => faults.ignore_shutdown = true,
                ("flood_console", "", _) => faults.flood_console = true,
                ("panic_after_ms", _, Some(_)) => faults.panic_after = after,
                ("hang_after_ms", _, Some(_)) => faults.hang_after = after,
                ("poweroff_after_ms", _, Some(_)) => faults.poweroff_after = after,
                _ => return Err(format!("standin.{word} is no fault that the stand-in knows")),
            }
        }
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_left_alone_and_misspelt_ones_of_ours_are_refused() {
        let faults = Faults::parse("quiet ip=1::2 standin.silent  standin.panic_after_ms=250").expect("faults");
        assert_eq!(faults, Faults { silent: true, panic_after: Some(Duration::from_millis(250)), ..Faults::default() });
        for wrong in ["standin.silnt", "standin.panic_after_ms", "standin.panic_after_ms=x", "standin.silent=1"] {
            assert!(Faults::parse(wrong).is_err(), "{wrong}");
        }
    }
}
