//! A virtio-serial port as an asynchronous byte stream.
//!
//! Two habits of the kernel's driver (drivers/char/virtio_console.c) shape this file. While no host is connected, a port reports
//! hang-up for as long as that lasts and reads return end-of-file; both end again when a host comes. tokio takes a hang-up for
//! final, so the port sits in an edge-triggered epoll set of its own, and tokio watches that set, whose readiness is ordinary.

use crate::readiness;
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Name of the port that carries control lines.
pub const CONTROL: &str = "volant.control";
/// Name of the port that carries HTTP/2.
pub const STREAM: &str = "volant.stream";

const CLASS: &str = "/sys/class/virtio-ports";

/// The device node of the port with this name, once the host has announced it.
pub fn find(name: &str) -> Option<String> {
    std::fs::read_dir(CLASS).ok()?.flatten().find_map(|entry| {
        let found = std::fs::read_to_string(entry.path().join("name")).ok()?;
        (found.trim_end() == name).then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
    })
}

/// An open port. The kernel lets a port be open once only.
pub struct Port {
    fd: OwnedFd,
    readable: AsyncFd<OwnedFd>,
    writable: AsyncFd<OwnedFd>,
    end_of_file_ends: bool,
}

impl Port {
    /// Opens the port at this device node.
    pub fn open(node: &str) -> io::Result<Self> {
        let fd = rustix::fs::open(node, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
        let readable = watch(&fd, epoll::EventFlags::IN)?;
        let writable = watch(&fd, epoll::EventFlags::OUT)?;
        Ok(Self { fd, readable, writable, end_of_file_ends: false })
    }

    /// From now on a host that lets go ends the stream. Before, reads wait for a host to come.
    pub fn end_with_host(&mut self) {
        self.end_of_file_ends = true;
    }
}

fn watch(fd: &OwnedFd, direction: epoll::EventFlags) -> io::Result<AsyncFd<OwnedFd>> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, fd, epoll::EventData::new_u64(0), direction | epoll::EventFlags::ET)?;
    readiness::watch(set)
}

/// Waits for the set's next edge.
fn poll_edge(set: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut guard = ready!(set.poll_read_ready(cx))?;
    guard.clear_ready();
    let mut events = [std::mem::MaybeUninit::<epoll::Event>::uninit(); 1];
    epoll::wait(set.get_ref().as_fd(), &mut events, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Poll::Ready(Ok(()))
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match rustix::io::read(&this.fd, buf.initialize_unfilled()) {
                Ok(0) if this.end_of_file_ends => return Poll::Ready(Ok(())),
                Ok(0) | Err(Errno::AGAIN) => ready!(poll_edge(&this.readable, cx))?,
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match rustix::io::write(&self.fd, bytes) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => ready!(poll_edge(&self.writable, cx))?,
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
