//! The client's two sockets: a packet socket, which works without an address and hears what is not for the interface's own yet
//! (man 7 packet), and a UDP socket to the server that granted a lease.

use super::message::{CLIENT_PORT, SERVER_PORT};
use crate::readiness;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

// linux/if_ether.h
const ETH_P_IP: u16 = 0x0800;
/// The largest message that we said we take, with the headers before it, fits with room to spare.
const LARGEST: usize = 2048;

/// Unfragmented UDP to the client's port and nothing else, so that the guest's other traffic never wakes the agent
/// (Documentation/networking/filter.rst of the kernel). Offset 0 is the IPv4 header.
const FILTER: [libc::sock_filter; 9] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 9),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 6, libc::IPPROTO_UDP as u32),
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 6),
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 4, 0, 0x1fff),
    instruction(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 2),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, CLIENT_PORT as u32),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, LARGEST as u32),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
];

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Sends to every station of one link and hears servers, whether or not the interface has an address.
pub struct LinkSocket {
    socket: AsyncFd<OwnedFd>,
    interface: u32,
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn everyone(interface: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ETH_P_IP.to_be(),
        sll_ifindex: interface as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    }
}

impl LinkSocket {
    /// Opens it on the interface with this number.
    pub fn open(interface: u32) -> io::Result<Self> {
        // Protocol 0 hears nothing: the filter is there before the first packet is.
        // SAFETY: socket has no memory effects.
        let fd = checked(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })?;
        // SAFETY: the descriptor was opened just now, and nothing else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program, whose length is that of the array that it points to, and does not write to it.
        checked(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as u32,
            )
        })?;
        let name = everyone(interface);
        // SAFETY: the address is a sockaddr_ll of the given size and lives through the call.
        checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), size_of::<libc::sockaddr_ll>() as u32) })?;
        Ok(Self { socket: readiness::watch(socket)?, interface })
    }

    /// Sends an IPv4 packet in a frame to everyone.
    pub fn broadcast(&self, packet: &[u8]) -> io::Result<()> {
        let to = everyone(self.interface);
        // SAFETY: packet and address live through the call and have the given sizes.
        let sent = unsafe {
            libc::sendto(
                self.socket.get_ref().as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The first packet in which `read` finds something. Packets after it wait for the next call. Safe to cancel.
    pub async fn receive<T>(&self, mut read: impl FnMut(&[u8]) -> Option<T>) -> io::Result<T> {
        let mut buffer = [0u8; LARGEST];
        loop {
            let mut guard = self.socket.readable().await?;
            match rustix::net::recv(self.socket.get_ref(), &mut buffer, rustix::net::RecvFlags::empty()) {
                Ok((count, _)) => {
                    if let Some(found) = read(&buffer[..count]) {
                        return Ok(found);
                    }
                    // Somebody else's answers without end must not keep the agent from its work.
                    tokio::task::yield_now().await;
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(cause) => return Err(cause.into()),
            }
        }
    }
}

/// Asks one server from the leased address. Answers are heard by [`LinkSocket`]; that this one is open keeps the kernel from
/// telling the server that nobody listens.
pub struct ServerSocket(UdpSocket);

impl ServerSocket {
    /// Opens it on an address that the interface has.
    pub fn open(address: Ipv4Addr) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, CLIENT_PORT))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Sends a message.
    pub fn send(&self, server: Ipv4Addr, payload: &[u8]) -> io::Result<()> {
        self.0.send_to(payload, (server, SERVER_PORT)).map(|_| ())
    }
}
