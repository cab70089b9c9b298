//! Starting a program for `POST /v1/exec`, on pipes or on a terminal, and its descriptors as asynchronous streams.

use super::exec_frame::{Size, Start};
use crate::error::AgentError;
use crate::readiness;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One of a program's descriptors, ours of the two ends. A terminal is one for all directions.
pub type Channel = Rc<AsyncFd<OwnedFd>>;

/// A program that runs.
pub struct Program {
    pub pid: Pid,
    pub stdin: Channel,
    pub stdout: Channel,
    /// `None` on a terminal.
    pub stderr: Option<Channel>,
}

/// Starts a program in a session of its own.
pub fn start(start: &Start, env: &BTreeMap<String, String>) -> Result<Program, AgentError> {
    let cwd = start.cwd.as_deref().unwrap_or("/");
    if !std::path::Path::new(cwd).is_dir() {
        return Err(AgentError::new(404, "not_found", format!("exec: the guest has no directory {cwd:?}")));
    }
    let name = start.argv.first().ok_or_else(|| AgentError::invalid("exec: argv must name a program"))?;
    let mut command = Command::new(name);
    command.args(&start.argv[1..]).env_clear().envs(env).envs(&start.env).current_dir(cwd);
    let started = match start.tty {
        None => on_pipes(&mut command),
        Some(size) => on_terminal(&mut command, size),
    };
    started.map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => {
            AgentError::new(404, "not_found", format!("exec: the guest has no program {name:?}, or not what it needs to run"))
        }
        io::ErrorKind::PermissionDenied => AgentError::new(403, "not_executable", format!("exec: {name:?} is not executable in the guest")),
        _ => AgentError::failed(&format!("exec: {name:?} could not be started"), cause),
    })
}

fn on_pipes(command: &mut Command) -> io::Result<Program> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?)) };
    let mut child = command.spawn()?;
    let pid = pid_of(child.id())?;
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok(Program {
            pid,
            stdin: channel(stdin.into(), Interest::WRITABLE)?,
            stdout: channel(stdout.into(), Interest::READABLE)?,
            stderr: Some(channel(stderr.into(), Interest::READABLE)?),
        }),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn on_terminal(command: &mut Command, size: Size) -> io::Result<Program> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let terminal = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    resize(&master, size)?;
    command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
    // SAFETY: between fork and exec only setsid and an ioctl are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
        });
    }
    let child = command.spawn()?;
    // Our copies of the terminal go, or its end would never be seen.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let channel = channel(master, Interest::READABLE | Interest::WRITABLE)?;
    Ok(Program { pid: pid_of(child.id())?, stdin: channel.clone(), stdout: channel, stderr: None })
}

fn pid_of(id: u32) -> io::Result<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::Other.into())
}

fn channel(fd: OwnedFd, interest: Interest) -> io::Result<Channel> {
    rustix::fs::fcntl_setfl(&fd, rustix::fs::fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    Ok(Rc::new(readiness::watch_for(fd, interest)?))
}

/// Tells a terminal its size; programs on it get SIGWINCH.
pub fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Reads what there is; 0 is the end.
pub async fn read(channel: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = channel.readable().await?;
        if let Ok(count) = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
            return ended_as_zero(count);
        }
    }
}

/// Reads what lies there already: `None` when there is nothing yet.
pub fn read_now(channel: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Option<usize> {
    match rustix::io::read(channel.get_ref(), buffer) {
        Ok(0) | Err(_) => None,
        Ok(count) => Some(count),
    }
}

/// A terminal whose last program is gone reports EIO (pty(7) does not say so; drivers/tty/pty.c does).
fn ended_as_zero(count: io::Result<usize>) -> io::Result<usize> {
    match count {
        Err(cause) if cause.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
        count => count,
    }
}

/// Writes all of it, as fast as the program reads.
pub async fn write_all(channel: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = channel.writable().await?;
        if let Ok(count) = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
            bytes = &bytes[count?..];
        }
    }
    Ok(())
}

/// Sends a signal to the program and all that it started in its session's first group.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = rustix::process::kill_process_group(pid, signal);
}
