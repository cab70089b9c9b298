//! The agent's listener on virtio-vsock, where the guest has such a device: the service of the stream port once more, for data.
//!
//! Programs of the guest can reach the socket layer, too. They are not served: a connection must come from the host's context id,
//! which the kernel writes and no program of the guest can have (vsock(7)), and must show the session's nonce, which the host gave
//! over the control port. The host sees the nonce first, so that nobody else can pass for the agent.

use super::service::Service;
use super::stream::synchronise;
use crate::{console, readiness};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Where the agent listens. Up to 1023 it takes CAP_NET_BIND_SERVICE (LAST_RESERVED_PORT, net/vmw_vsock/af_vsock.c).
pub const PORT: u32 = 1000;

const DEVICE: &str = "/dev/vsock";
/// IOCTL_VM_SOCKETS_GET_LOCAL_CID (include/uapi/linux/vm_sockets.h).
const GET_LOCAL_CID: libc::c_ulong = 0x7b9;
/// Context ids below it are the hypervisor's, the loopback's and the host's.
const FIRST_GUEST_CID: u32 = 3;
/// A host has one connection; a dead host's may linger beside it for a moment.
const MOST_CONNECTIONS: usize = 4;
/// For both lines of a greeting.
const GREETING: Duration = Duration::from_secs(10);
/// Between attempts where accepting fails.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens where there is a device. `None` where there is not, which is how most guests are.
pub fn listen() -> io::Result<Option<OwnedFd>> {
    if !has_device()? {
        return Ok(None);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
    bind(socket.as_fd(), libc::VMADDR_CID_ANY, PORT)?;
    rustix::net::listen(&socket, MOST_CONNECTIONS as i32)?;
    Ok(Some(socket))
}

/// The kernel makes the device node with the socket layer, and gives it a context id with a device of the host's.
fn has_device() -> io::Result<bool> {
    let device = match rustix::fs::open(DEVICE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) => device,
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    let mut cid: libc::c_uint = 0;
    // SAFETY: this request writes one unsigned int through its argument, which points to one.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), GET_LOCAL_CID, &raw mut cid) };
    Ok(result == 0 && cid >= FIRST_GUEST_CID && cid != libc::VMADDR_CID_ANY)
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: sockaddr_vm consists of integers, for which zero is a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn bind(socket: BorrowedFd<'_>, cid: u32, port: u32) -> io::Result<()> {
    let address = address(cid, port);
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the pointer is to a sockaddr_vm that lives until the call returns, and the length is its size.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The next connection, and the context id that it comes from.
fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, u32)> {
    let mut peer = address(0, 0);
    let mut length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most `length` bytes to the address, and both live until the call returns.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut peer).cast(), &raw mut length, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: accept4 gave this descriptor to us, and to nobody else.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, peer.svm_cid))
}

async fn next(listener: &AsyncFd<OwnedFd>) -> io::Result<(OwnedFd, u32)> {
    loop {
        let mut ready = listener.readable().await?;
        if let Ok(accepted) = ready.try_io(|fd| accept(fd.get_ref().as_fd())) {
            return accepted;
        }
    }
}

/// Serves the host for as long as the guest lives. A connection belongs to the session in which it began, and ends with it.
///
/// `nonces` has the present session's nonce; before the first session it is empty.
pub async fn attend(listener: OwnedFd, mut nonces: watch::Receiver<String>, service: Service) -> io::Result<()> {
    let listener = readiness::watch(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // A new session is seen before the connections that were made in it.
            biased;
            changed = nonces.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                connections.abort_all();
            }
            Some(_) = connections.join_next() => {}
            accepted = next(&listener) => match accepted {
                Ok((socket, cid)) => {
                    let nonce = nonces.borrow().clone();
                    if is_admitted(cid, &nonce, connections.len()) {
                        connections.spawn_local(serve(socket, nonce, service.clone()));
                    }
                }
                Err(cause) => {
                    console::say(&format!("vsock: {cause}"));
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

fn is_admitted(cid: u32, nonce: &str, connections: usize) -> bool {
    cid == libc::VMADDR_CID_HOST && !nonce.is_empty() && connections < MOST_CONNECTIONS
}

async fn serve(socket: OwnedFd, nonce: String, service: Service) {
    let Ok(connection) = Connection::new(socket) else { return };
    let Ok(Ok(stream)) = tokio::time::timeout(GREETING, synchronise(connection, &nonce)).await else { return };
    if let Err(cause) = service.serve(stream).await
        && !cause.is_io()
    {
        console::say(&format!("vsock: {cause}"));
    }
}

/// A connected socket. Nothing is ever half closed: the host's end knows no such thing.
struct Connection(AsyncFd<OwnedFd>);

impl Connection {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(readiness::watch_for(socket, Interest::READABLE | Interest::WRITABLE)?))
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            if let Ok(count) = ready.try_io(|fd| Ok(rustix::net::recv(fd.get_ref(), unfilled, RecvFlags::empty())?.0)) {
                buf.advance(count?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(count) = ready.try_io(|fd| Ok(rustix::net::send(fd.get_ref(), bytes, SendFlags::NOSIGNAL)?)) {
                return Poll::Ready(count);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_in_a_session_is_admitted() {
        let nonce = "0123456789abcdef0123456789abcdef";
        assert!(is_admitted(libc::VMADDR_CID_HOST, nonce, 0));
        for cid in [libc::VMADDR_CID_HYPERVISOR, libc::VMADDR_CID_LOCAL, FIRST_GUEST_CID, libc::VMADDR_CID_ANY] {
            assert!(!is_admitted(cid, nonce, 0), "{cid}");
        }
        assert!(!is_admitted(libc::VMADDR_CID_HOST, "", 0));
        assert!(!is_admitted(libc::VMADDR_CID_HOST, nonce, MOST_CONNECTIONS));
    }
}
