//! Waiting for a descriptor to become ready.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Puts a descriptor under the runtime's watch, for reading.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch_for(fd, Interest::READABLE)
}

/// Puts a descriptor under the runtime's watch.
pub fn watch_for(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the registration must not outlive the descriptor's number. OwnedFd names the same open descriptor for as long as
    // it lives, and AsyncFd deregisters before it drops it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(io::Error::from)
}
