//! Devices that appear: the kernel's uevents (man 7 netlink, NETLINK_KOBJECT_UEVENT) as "something changed, look again".

use crate::readiness;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};
use std::io;
use std::os::fd::OwnedFd;
use tokio::sync::watch;

/// The multicast group in which the kernel itself speaks.
const KERNEL_GROUP: u32 = 1;

/// Opens the socket. Do it before loading drivers, so that nothing they announce is missed.
pub fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::KOBJECT_UEVENT))?;
    rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, KERNEL_GROUP))?;
    Ok(fd)
}

/// Counts the events up in `changes` for ever.
pub async fn pump(socket: OwnedFd, changes: watch::Sender<u64>) -> io::Result<()> {
    let socket = readiness::watch(socket)?;
    let mut buffer = [0u8; 2048];
    loop {
        let mut guard = socket.readable().await?;
        loop {
            // ENOBUFS means that events were lost: as good a reason to look again as any event.
            match rustix::net::recv(socket.get_ref(), &mut buffer, RecvFlags::empty()) {
                Err(rustix::io::Errno::AGAIN) => break,
                Err(cause) if cause != rustix::io::Errno::NOBUFS => return Err(cause.into()),
                _ => changes.send_modify(|count| *count += 1),
            }
        }
        guard.clear_ready();
    }
}

/// Waits until `look` finds something, looking again after each event.
pub async fn appears<T>(changes: &watch::Sender<u64>, mut look: impl FnMut() -> Option<T>) -> T {
    let mut seen = changes.subscribe();
    loop {
        seen.mark_unchanged();
        if let Some(found) = look() {
            return found;
        }
        // The sender lives as long as the agent.
        let _ = seen.changed().await;
    }
}
