//! The end of the machine, and the buttons that ask for it.

use crate::readiness;
use crate::uevent;
use crate::workload::supervisor::EndMode;
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::process::{WaitId, WaitIdOptions};
use rustix::system::RebootCommand;
use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

// linux/input-event-codes.h
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;
/// sizeof(struct input_event) where a long has 64 bits: two longs of time, then type, code and value.
const EVENT_BYTES: usize = 24;
/// Time for processes outside the workload to end.
const GRACE: Duration = Duration::from_millis(500);

/// Ends the machine: every process, then the file systems, then the power. Never returns.
pub fn end(mode: EndMode) -> ! {
    let started = Instant::now();
    signal_everyone(libc::SIGTERM);
    while started.elapsed() < GRACE && has_children() {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal_everyone(libc::SIGKILL);
    rustix::fs::sync();
    unmount_all();
    crate::console::say(if mode == EndMode::Reboot { "restarting" } else { "powering off" });
    cut(mode)
}

/// Ends the machine at once, for when nothing can be trusted any more.
pub fn cut(mode: EndMode) -> ! {
    rustix::fs::sync();
    if mode == EndMode::Poweroff && can_power_off() {
        let _ = rustix::system::reboot(RebootCommand::PowerOff);
    }
    // Hypervisors that run our guests take a restart for the end.
    let _ = rustix::system::reboot(RebootCommand::Restart);
    // The kernel panics when its first process ends, which the command line turns into the end as well.
    std::process::exit(1)
}

/// Without ACPI an x86 kernel turns "power off" into "halt", and the machine would stay for ever. Elsewhere firmware does it.
fn can_power_off() -> bool {
    !cfg!(target_arch = "x86_64") || Path::new("/sys/firmware/acpi").exists()
}

fn signal_everyone(signal: i32) {
    // SAFETY: kill has no memory effects. As PID 1, -1 means every process but this one.
    unsafe { libc::kill(-1, signal) };
}

fn has_children() -> bool {
    while crate::workload::process::reap_one().is_some() {}
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::All, options).is_ok()
}

fn unmount_all() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if !matches!(target, "/" | "/proc" | "/sys" | "/dev") {
            let _ = rustix::mount::unmount(target, UnmountFlags::empty());
        }
    }
    let _ = rustix::mount::mount_remount("/", rustix::mount::MountFlags::RDONLY, "");
}

/// Watches every input device for the power key and reports each press.
pub async fn watch_buttons(changes: watch::Sender<u64>, pressed: mpsc::Sender<()>) {
    let mut known = HashSet::new();
    loop {
        let node = uevent::appears(&changes, || {
            fs::read_dir("/dev/input")
                .ok()?
                .flatten()
                .map(|entry| entry.path())
                .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("event")) && !known.contains(path))
        })
        .await;
        if let Ok(device) = rustix::fs::open(&node, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            tokio::task::spawn_local(watch_device(device, pressed.clone()));
        }
        known.insert(node);
    }
}

async fn watch_device(device: OwnedFd, pressed: mpsc::Sender<()>) {
    let Ok(device) = readiness::watch(device) else { return };
    let mut buffer = [0u8; EVENT_BYTES * 16];
    loop {
        let Ok(mut guard) = device.readable().await else { return };
        match rustix::io::read(device.get_ref(), &mut buffer) {
            Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
            Err(_) | Ok(0) => return,
            Ok(count) if is_power_key(&buffer[..count]) => {
                let _ = pressed.send(()).await;
            }
            Ok(_) => {}
        }
    }
}

/// Whether these input events hold a press of the power key.
fn is_power_key(events: &[u8]) -> bool {
    events.chunks_exact(EVENT_BYTES).any(|event| {
        let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
        let value = i32::from_ne_bytes([event[20], event[21], event[22], event[23]]);
        (half(16), half(18), value) == (EV_KEY, KEY_POWER, PRESSED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = [0u8; EVENT_BYTES];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..24].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        let press = event(EV_KEY, KEY_POWER, 1);
        assert!(is_power_key(&press));
        assert!(is_power_key(&[event(0, 0, 0), press].concat()));
        assert!(!is_power_key(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_power_key(&event(EV_KEY, 30, 1)));
        assert!(!is_power_key(&press[..20]));
    }
}
