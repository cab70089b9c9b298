//! The file systems a Linux program expects.

use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs;
use std::io;

struct Entry {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static str,
    /// Mounting it is a convenience: kernels without it are fine.
    optional: bool,
}

const BASIC: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

const TABLE: &[Entry] = &[
    Entry { kind: "proc", target: "/proc", flags: BASIC.union(MountFlags::NOEXEC), options: "", optional: false },
    Entry { kind: "sysfs", target: "/sys", flags: BASIC.union(MountFlags::NOEXEC), options: "", optional: false },
    Entry { kind: "devtmpfs", target: "/dev", flags: MountFlags::NOSUID, options: "mode=0755", optional: false },
    Entry {
        kind: "devpts",
        target: "/dev/pts",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: "gid=5,mode=0620,ptmxmode=0666",
        optional: true,
    },
    Entry { kind: "tmpfs", target: "/dev/shm", flags: BASIC, options: "mode=1777", optional: true },
    Entry { kind: "tmpfs", target: "/run", flags: BASIC, options: "mode=0755", optional: true },
    Entry { kind: "tmpfs", target: "/tmp", flags: BASIC, options: "mode=1777", optional: true },
    Entry { kind: "cgroup2", target: "/sys/fs/cgroup", flags: BASIC.union(MountFlags::NOEXEC), options: "", optional: true },
];

/// Mounts them. Returns what went wrong as sentences: a guest that lacks /tmp still boots, and says so.
pub fn mount_all() -> Vec<String> {
    let mut problems = Vec::new();
    for entry in TABLE {
        // Missing mount points are made; where that fails, the mount says why.
        let _ = fs::create_dir_all(entry.target);
        let options = CString::new(entry.options).unwrap_or_default();
        match mount(entry.kind, entry.target, entry.kind, entry.flags, options.as_c_str()) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(_) if entry.optional && entry.kind != "tmpfs" => {}
            Err(cause) => problems.push(format!("mounting {} on {}: {}", entry.kind, entry.target, io::Error::from(cause))),
        }
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        let _ = std::os::unix::fs::symlink(target, link);
    }
    problems
}
