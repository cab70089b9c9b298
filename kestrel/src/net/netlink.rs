//! The few rtnetlink requests that an address takes (man 7 rtnetlink). Encoding is pure; [`Socket`] sends.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

// linux/netlink.h and linux/rtnetlink.h
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNICAST: u8 = 1;
const AF_INET: u8 = 2;

/// One request. `index` is the interface's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Brings a link up, changing its hardware address and MTU on the way where given.
    LinkUp {
        index: u32,
        mac: Option<[u8; 6]>,
        mtu: Option<u32>,
    },
    AddAddress {
        index: u32,
        address: Ipv4Addr,
        prefix_length: u8,
    },
    DeleteAddress {
        index: u32,
        address: Ipv4Addr,
        prefix_length: u8,
    },
    /// Makes this the default route.
    SetDefaultRoute {
        index: u32,
        gateway: Ipv4Addr,
    },
    DeleteDefaultRoute {
        index: u32,
        gateway: Ipv4Addr,
    },
}

impl Request {
    /// The message's bytes, header included.
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut message = vec![0u8; 16];
        let (kind, flags) = match self {
            Self::LinkUp { index, mac, mtu } => {
                // struct ifinfomsg: family, pad, type, index, flags, change
                message.extend([0, 0, 0, 0]);
                message.extend(index.to_ne_bytes());
                message.extend(IFF_UP.to_ne_bytes());
                message.extend(IFF_UP.to_ne_bytes());
                if let Some(mac) = mac {
                    attribute(&mut message, IFLA_ADDRESS, mac);
                }
                if let Some(mtu) = mtu {
                    attribute(&mut message, IFLA_MTU, &mtu.to_ne_bytes());
                }
                (RTM_NEWLINK, 0)
            }
            Self::AddAddress { index, address, prefix_length } | Self::DeleteAddress { index, address, prefix_length } => {
                // struct ifaddrmsg: family, prefix length, flags, scope, index
                message.extend([AF_INET, *prefix_length, 0, RT_SCOPE_UNIVERSE]);
                message.extend(index.to_ne_bytes());
                attribute(&mut message, IFA_LOCAL, &address.octets());
                attribute(&mut message, IFA_ADDRESS, &address.octets());
                if matches!(self, Self::DeleteAddress { .. }) {
                    (RTM_DELADDR, 0)
                } else {
                    if *prefix_length < 31 {
                        let host_bits = u32::MAX.checked_shr(u32::from(*prefix_length)).unwrap_or(0);
                        attribute(&mut message, IFA_BROADCAST, &(u32::from(*address) | host_bits).to_be_bytes());
                    }
                    (RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)
                }
            }
            Self::SetDefaultRoute { index, gateway } | Self::DeleteDefaultRoute { index, gateway } => {
                // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
                message.extend([AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0, 0, 0, 0]);
                attribute(&mut message, RTA_GATEWAY, &gateway.octets());
                attribute(&mut message, RTA_OIF, &index.to_ne_bytes());
                if matches!(self, Self::SetDefaultRoute { .. }) { (RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE) } else { (RTM_DELROUTE, 0) }
            }
        };
        let length = message.len() as u32;
        message[0..4].copy_from_slice(&length.to_ne_bytes());
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message[8..12].copy_from_slice(&sequence.to_ne_bytes());
        message
    }
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The errno of an acknowledgement (0 means done), or `None` when the bytes are something else.
pub fn acknowledgement(message: &[u8], sequence: u32) -> Option<i32> {
    let word = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    (kind == NLMSG_ERROR && word(8)? == sequence).then_some(())?;
    Some(-(word(16)? as i32))
}

/// A route netlink socket. The kernel answers within the send, so this never waits.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, the default.
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends one request and returns the kernel's verdict.
    pub fn call(&mut self, request: &Request) -> io::Result<()> {
        self.sequence += 1;
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, &request.encode(self.sequence), SendFlags::empty(), &kernel)?;
        let mut answer = [0u8; 4096];
        loop {
            let (count, _) = rustix::net::recv(&self.fd, &mut answer, RecvFlags::empty())?;
            match acknowledgement(&answer[..count], self.sequence) {
                Some(0) => return Ok(()),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_aligned_and_carry_their_length() {
        for request in [
            Request::LinkUp { index: 2, mac: Some([2, 0, 0, 0, 0, 1]), mtu: Some(1400) },
            Request::AddAddress { index: 2, address: Ipv4Addr::new(10, 0, 0, 2), prefix_length: 24 },
            Request::DeleteAddress { index: 2, address: Ipv4Addr::new(10, 0, 0, 2), prefix_length: 0 },
            Request::SetDefaultRoute { index: 2, gateway: Ipv4Addr::new(10, 0, 0, 1) },
        ] {
            let bytes = request.encode(9);
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(u32::from_ne_bytes(bytes[0..4].try_into().expect("4")), bytes.len() as u32);
            assert_eq!(u32::from_ne_bytes(bytes[8..12].try_into().expect("4")), 9);
        }
    }

    #[test]
    fn the_broadcast_address_follows_from_the_prefix() {
        let bytes = Request::AddAddress { index: 1, address: Ipv4Addr::new(10, 0, 0, 2), prefix_length: 24 }.encode(1);
        assert!(bytes.windows(4).any(|w| w == [10, 0, 0, 255]));
        let bytes = Request::AddAddress { index: 1, address: Ipv4Addr::new(10, 0, 0, 2), prefix_length: 32 }.encode(1);
        assert_eq!(bytes.len(), 16 + 8 + 8 + 8);
    }

    #[test]
    fn acknowledgements_are_told_from_other_messages() {
        let mut ack = vec![0u8; 36];
        ack[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        ack[8..12].copy_from_slice(&5u32.to_ne_bytes());
        ack[16..20].copy_from_slice(&(-17i32).to_ne_bytes());
        assert_eq!(acknowledgement(&ack, 5), Some(17));
        assert_eq!(acknowledgement(&ack, 6), None);
        for length in 0..20 {
            assert_eq!(acknowledgement(&ack[..length], 5), None);
        }
    }
}
