//! Starting the workload's process and sorting out how processes ended.

use crate::config::GuestConfig;
use crate::link::protocol::Identity;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The workload's control group, so that nothing it leaves behind outlives it.
const CGROUP: &str = "/sys/fs/cgroup/workload";

/// A started workload.
pub struct Started {
    pub pid: Pid,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// The environment of a workload: defaults, what the guest knows of itself, the VM's, the manifest's; later ones win.
pub fn environment(
    config: &GuestConfig,
    identity: Option<&Identity>,
    address: Option<&str>,
    extra: &[(&str, &str)],
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |key: &str, value: &str| env.insert(key.to_owned(), value.to_owned());
    set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    set("HOME", "/root");
    set("TERM", "linux");
    if let Some(identity) = identity {
        set("VOLANT_VM_ID", &identity.vm_id.to_string());
        set("VOLANT_VM_NAME", &identity.name);
    }
    if let Some(address) = address {
        set("VOLANT_ADDRESS", address);
    }
    for (key, value) in extra {
        set(key, value);
    }
    env.extend(config.env.clone());
    env.extend(config.workload.iter().flat_map(|workload| workload.env.clone()));
    env
}

/// Starts the configured workload in a session and a control group of its own, its output on pipes.
pub fn start(config: &GuestConfig, env: &BTreeMap<String, String>) -> io::Result<Started> {
    let workload = config.workload.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
    let (program, arguments) = workload.entrypoint.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.current_dir(workload.workdir.as_deref().unwrap_or("/"));
    let group = join_cgroup();
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid and write, on a descriptor opened before the
    // fork, with no allocation.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if let Some(group) = &group {
                // Without control groups the workload runs all the same.
                let _ = rustix::io::write(group, b"0");
            }
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
    match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Ok(Started { pid, stdout: stdout.into(), stderr: stderr.into() }),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn join_cgroup() -> Option<OwnedFd> {
    let _ = std::fs::create_dir(CGROUP);
    rustix::fs::open(format!("{CGROUP}/cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Asks the workload's processes to end.
pub fn terminate(pid: Pid) {
    let _ = rustix::process::kill_process_group(pid, Signal::TERM);
}

/// Kills whatever of the workload is left, its background processes too.
pub fn kill_all(pid: Pid) {
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    // Since Linux 5.14; Documentation/admin-guide/cgroup-v2.rst, cgroup.kill.
    let _ = std::fs::write(format!("{CGROUP}/cgroup.kill"), "1");
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

impl Ending {
    fn of(status: WaitStatus) -> Self {
        Self { code: status.exit_status(), signal: status.terminating_signal() }
    }

    /// Whether it ended with code 0.
    pub fn succeeded(self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "was killed by signal {signal}"),
            (code, None) => write!(f, "ended with code {}", code.unwrap_or_default()),
        }
    }
}

/// Collects one dead child, whoever started it. As PID 1 this is every orphan's parent.
pub fn reap_one() -> Option<(Pid, Ending)> {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => Some((pid, Ending::of(status))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Workload;

    #[test]
    fn later_sources_of_the_environment_win() {
        let identity = Identity { vm_id: 7, name: "web".into(), ..Identity::default() };
        let config = GuestConfig {
            env: BTreeMap::from([("A".into(), "vm".into()), ("B".into(), "vm".into())]),
            workload: Some(Workload { env: BTreeMap::from([("B".into(), "manifest".into())]), ..Workload::default() }),
            ..GuestConfig::default()
        };
        let env = environment(&config, Some(&identity), Some("10.0.0.2"), &[("A", "line")]);
        assert_eq!(env["A"], "vm");
        assert_eq!(env["B"], "manifest");
        assert_eq!(env["VOLANT_VM_NAME"], "web");
        assert_eq!(env["VOLANT_ADDRESS"], "10.0.0.2");
        assert!(env["PATH"].contains("/bin"));
    }
}
