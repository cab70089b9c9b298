//! The serial console: the agent's own words, and a bounded share of the workload's. Writing never blocks for long, because a
//! console that nobody drains must not stop PID 1.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Workload bytes that may go to the console at once, and per second after that.
const BURST_BYTES: f64 = 64.0 * 1024.0;
const BYTES_PER_SECOND: f64 = 16.0 * 1024.0;
/// How long one line of the agent's may wait for a console that is full.
const PATIENCE: Duration = Duration::from_millis(100);

struct Console {
    fd: Option<OwnedFd>,
    budget: Budget,
}

thread_local! {
    static CONSOLE: RefCell<Console> = const { RefCell::new(Console { fd: None, budget: Budget::new() }) };
}

/// Opens /dev/console; until then nothing is written.
pub fn open() {
    let fd = rustix::fs::open("/dev/console", OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).ok();
    CONSOLE.with_borrow_mut(|console| console.fd = fd);
}

/// Prints a line of the agent's own.
pub fn say(text: &str) {
    CONSOLE.with_borrow(|console| write(console.fd.as_ref(), &format!("kestrel: {}\n", printable(text)), PATIENCE));
}

/// Prints a line of the workload's, or counts it as left out when it prints more than a console can carry.
pub fn echo(stream: &str, text: &str) {
    CONSOLE.with_borrow_mut(|console| {
        let Console { fd, budget } = console;
        // Asked before the line is made: a flood must not cost more than counting it.
        if let Some(left_out) = budget.take(Instant::now(), stream.len() + text.len() + 3) {
            if left_out > 0 {
                write(fd.as_ref(), &format!("kestrel: {left_out} lines of the workload not shown here\n"), Duration::ZERO);
            }
            write(fd.as_ref(), &format!("{stream}: {}\n", printable(text)), Duration::ZERO);
        }
    });
}

/// Control characters could repaint the terminal of whoever reads the console.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn write(fd: Option<&OwnedFd>, text: &str, patience: Duration) {
    let Some(fd) = fd else { return };
    let mut bytes = text.as_bytes();
    let deadline = Instant::now() + patience;
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                let mut waiting = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::OUT)];
                let _ = rustix::event::poll(&mut waiting, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
            }
            Err(_) => return,
        }
    }
}

/// A token bucket that remembers how many lines it refused.
struct Budget {
    tokens: f64,
    filled_at: Option<Instant>,
    left_out: u64,
}

impl Budget {
    const fn new() -> Self {
        Self { tokens: BURST_BYTES, filled_at: None, left_out: 0 }
    }

    /// `Some(lines left out since the last one shown)` when `bytes` may be printed now.
    fn take(&mut self, now: Instant, bytes: usize) -> Option<u64> {
        let passed = self.filled_at.map_or(0.0, |then| now.saturating_duration_since(then).as_secs_f64());
        self.filled_at = Some(now);
        self.tokens = (self.tokens + passed * BYTES_PER_SECOND).min(BURST_BYTES);
        if self.tokens < bytes as f64 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= bytes as f64;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_what_was_left_out_is_said() {
        let mut budget = Budget::new();
        let start = Instant::now();
        let shown = (0..10_000).filter(|_| budget.take(start, 100).is_some()).count();
        assert_eq!(shown, 655);
        assert_eq!(budget.take(start + Duration::from_secs(1), 100), Some(10_000 - 655));
    }

    #[test]
    fn terminal_sequences_of_a_workload_are_disarmed() {
        assert_eq!(printable("a\u{1b}[2J\tb\r"), "a\u{fffd}[2J\tb\u{fffd}");
    }
}
