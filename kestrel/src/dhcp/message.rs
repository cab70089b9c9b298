//! Messages to and from servers (RFC 2131, options RFC 2132), within UDP and IPv4. Pure.

use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UDP_HEADER_LEN,
    UdpPacket, UdpRepr,
};
use std::net::Ipv4Addr;

/// Where servers listen.
pub const SERVER_PORT: u16 = 67;
/// Where clients do.
pub const CLIENT_PORT: u16 = 68;

// RFC 2132, by section: 3.3, 3.5, 3.8, 3.14, 3.17, 9.2, 9.6, 9.7, 9.11, 9.12
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const DOMAIN_NAME_SERVER: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const WANTED: [u8; 7] = [SUBNET_MASK, ROUTER, DOMAIN_NAME_SERVER, DOMAIN_NAME, LEASE_TIME, RENEWAL_TIME, REBINDING_TIME];

/// RFC 1542, 2.1: some relays drop what is shorter than a BOOTP message.
const SHORTEST: usize = 300;
const TTL: u8 = 64;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub mac: [u8; 6],
    pub hostname: String,
}

/// What is asked of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// DHCPDISCOVER.
    Discover,
    /// DHCPREQUEST that takes an offer.
    Take { address: Ipv4Addr, server: Ipv4Addr },
    /// DHCPREQUEST that asks for more time for the address that the interface has.
    Extend { address: Ipv4Addr },
}

/// A message of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub question: Question,
    pub xid: u32,
    /// Since the client began to ask.
    pub seconds: u16,
}

impl Outgoing {
    /// The address that it is sent from.
    pub fn source(&self) -> Ipv4Addr {
        match self.question {
            Question::Extend { address } => address,
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// The payload of the UDP datagram.
    pub fn payload(&self, client: &Client) -> Vec<u8> {
        let (message_type, requested_ip, server_identifier) = match self.question {
            Question::Discover => (DhcpMessageType::Discover, None, None),
            Question::Take { address, server } => (DhcpMessageType::Request, Some(address), Some(server)),
            Question::Extend { .. } => (DhcpMessageType::Request, None, None),
        };
        let mac = EthernetAddress(client.mac);
        let hostname = DhcpOption { kind: HOST_NAME, data: client.hostname.as_bytes() };
        let message = DhcpRepr {
            message_type,
            transaction_id: self.xid,
            secs: self.seconds,
            client_hardware_address: mac,
            client_ip: self.source(),
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip,
            client_identifier: Some(mac),
            server_identifier,
            parameter_request_list: Some(&WANTED),
            dns_servers: None,
            max_size: Some(1500),
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: if client.hostname.is_empty() { &[] } else { std::slice::from_ref(&hostname) },
        };
        let mut payload = vec![0; message.buffer_len().max(SHORTEST)];
        message.emit(&mut DhcpPacket::new_unchecked(&mut payload[..])).expect("the buffer has the length that the message asked for");
        payload
    }

    /// The whole IPv4 packet to every server of the link.
    pub fn broadcast(&self, client: &Client) -> Vec<u8> {
        let payload = self.payload(client);
        let (source, target) = (self.source(), Ipv4Addr::BROADCAST);
        let checksums = ChecksumCapabilities::default();
        let ip = Ipv4Repr {
            src_addr: source,
            dst_addr: target,
            next_header: IpProtocol::Udp,
            payload_len: UDP_HEADER_LEN + payload.len(),
            hop_limit: TTL,
        };
        let mut packet = vec![0; ip.buffer_len() + ip.payload_len];
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &checksums);
        let (source, target) = (IpAddress::Ipv4(source), IpAddress::Ipv4(target));
        UdpRepr { src_port: CLIENT_PORT, dst_port: SERVER_PORT }.emit(
            &mut UdpPacket::new_unchecked(&mut packet[ip.buffer_len()..]),
            &source,
            &target,
            payload.len(),
            |room| room.copy_from_slice(&payload),
            &checksums,
        );
        packet
    }
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    Offer,
    Ack,
    Nak,
}

/// A server's message, as it was sent: nothing in it has been judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub kind: ReplyKind,
    pub address: Ipv4Addr,
    pub server: Option<Ipv4Addr>,
    pub mask: Option<Ipv4Addr>,
    pub router: Option<Ipv4Addr>,
    pub nameservers: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub lease_seconds: Option<u32>,
    pub renew_seconds: Option<u32>,
    pub rebind_seconds: Option<u32>,
}

impl Reply {
    /// The reply in an IPv4 packet that answers transaction `xid` of the client with this hardware address.
    pub fn of_packet(packet: &[u8], xid: u32, mac: [u8; 6]) -> Option<Self> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let mut checksums = ChecksumCapabilities::ignored();
        // Not of UDP: a packet that was never on a wire may come with its checksum left to the device (Documentation/networking/
        // checksum-offloads.rst of the kernel). The xid and the hardware address are what tell.
        checksums.ipv4 = Checksum::Rx;
        if ip.header_len() < 20 || ip.more_frags() || ip.frag_offset() != 0 || ip.next_header() != IpProtocol::Udp {
            return None;
        }
        Ipv4Repr::parse(&ip, &checksums).ok()?;
        let udp = UdpPacket::new_checked(ip.payload()).ok()?;
        (udp.src_port() == SERVER_PORT && udp.dst_port() == CLIENT_PORT).then_some(())?;
        Self::of_payload(udp.payload(), xid, mac)
    }

    fn of_payload(payload: &[u8], xid: u32, mac: [u8; 6]) -> Option<Self> {
        let message = DhcpPacket::new_checked(payload).ok()?;
        // op, htype, hlen (RFC 2131, 2) and the magic cookie that options follow (RFC 2132, 2).
        let is_reply = payload[..3] == [2, 1, 6] && message.magic_number() == 0x6382_5363;
        if !is_reply || message.transaction_id() != xid || message.client_hardware_address() != EthernetAddress(mac) {
            return None;
        }
        let mut kind = None;
        let mut reply = Self {
            kind: ReplyKind::Nak,
            address: message.your_ip(),
            server: None,
            mask: None,
            router: None,
            nameservers: Vec::new(),
            domain: None,
            lease_seconds: None,
            renew_seconds: None,
            rebind_seconds: None,
        };
        for option in message.options() {
            match option.kind {
                MESSAGE_TYPE => {
                    kind = match option.data {
                        [2] => Some(ReplyKind::Offer),
                        [5] => Some(ReplyKind::Ack),
                        [6] => Some(ReplyKind::Nak),
                        _ => None,
                    }
                }
                SERVER_IDENTIFIER => reply.server = first_address(option.data),
                SUBNET_MASK => reply.mask = first_address(option.data),
                ROUTER => reply.router = first_address(option.data),
                DOMAIN_NAME_SERVER => {
                    reply.nameservers = option.data.chunks_exact(4).filter_map(first_address).collect();
                }
                DOMAIN_NAME => {
                    reply.domain = std::str::from_utf8(option.data).ok().map(|name| name.trim_end_matches('\0').to_owned());
                }
                LEASE_TIME => reply.lease_seconds = seconds(option.data),
                RENEWAL_TIME => reply.renew_seconds = seconds(option.data),
                REBINDING_TIME => reply.rebind_seconds = seconds(option.data),
                _ => {}
            }
        }
        reply.kind = kind?;
        Some(reply)
    }
}

fn first_address(data: &[u8]) -> Option<Ipv4Addr> {
    data.first_chunk::<4>().map(|&octets| octets.into())
}

fn seconds(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0x76, 0x6f, 0, 0, 1];

    fn client() -> Client {
        Client { mac: MAC, hostname: "web-1".into() }
    }

    /// An answer as a server would send it: `options` are code, length, data.
    fn answer(xid: u32, mac: [u8; 6], options: &[u8]) -> Vec<u8> {
        let mut payload = Outgoing { question: Question::Discover, xid, seconds: 0 }.payload(&Client { mac, hostname: String::new() });
        payload[0] = 2;
        payload[16..20].copy_from_slice(&[10, 0, 0, 5]);
        payload.truncate(240);
        payload.extend(options);
        payload.push(255);
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 255, 255, 255, 255];
        let udp = [&67u16.to_be_bytes()[..], &68u16.to_be_bytes(), &(8 + payload.len() as u16).to_be_bytes(), &[0xab, 0xcd]].concat();
        let total = (20 + udp.len() + payload.len()) as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        Ipv4Packet::new_unchecked(&mut packet[..20]).fill_checksum();
        [packet, udp, payload].concat()
    }

    const OFFER: [u8; 42] = [
        53, 1, 2, 54, 4, 10, 0, 0, 1, 1, 4, 255, 255, 255, 0, 3, 8, 10, 0, 0, 1, 10, 0, 0, 2, 15, 3, b'l', b'a', b'n', 51, 4, 0, 0, 0, 120,
        6, 4, 9, 9, 9, 9,
    ];

    #[test]
    fn questions_carry_what_the_rfc_asks_for() {
        let mac = EthernetAddress(MAC);
        let address = Ipv4Addr::new(10, 0, 0, 5);
        let server = Ipv4Addr::new(10, 0, 0, 1);
        for (question, requested, identifier, own) in [
            (Question::Discover, None, None, Ipv4Addr::UNSPECIFIED),
            (Question::Take { address, server }, Some(address), Some(server), Ipv4Addr::UNSPECIFIED),
            (Question::Extend { address }, None, None, address),
        ] {
            let packet = Outgoing { question, xid: 7, seconds: 9 }.broadcast(&client());
            let ip = Ipv4Packet::new_checked(&packet[..]).expect("ip");
            assert!(ip.verify_checksum() && ip.src_addr() == own && ip.dst_addr() == Ipv4Addr::BROADCAST);
            let udp = UdpPacket::new_checked(ip.payload()).expect("udp");
            assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
            assert_eq!((udp.src_port(), udp.dst_port()), (68, 67));
            assert!(udp.payload().len() >= SHORTEST);
            let message = DhcpPacket::new_checked(udp.payload()).expect("dhcp");
            let found = DhcpRepr::parse(&message).expect("message");
            assert_eq!((found.transaction_id, found.secs, found.client_hardware_address), (7, 9, mac));
            assert_eq!((found.requested_ip, found.server_identifier, found.client_ip), (requested, identifier, own));
            assert_eq!(found.client_identifier, Some(mac));
            let name = message.options().find(|option| option.kind == HOST_NAME).expect("hostname");
            assert_eq!(name.data, b"web-1");
        }
    }

    #[test]
    fn an_offer_is_read_whatever_its_udp_checksum() {
        let reply = Reply::of_packet(&answer(7, MAC, &OFFER), 7, MAC).expect("an offer");
        assert_eq!(reply.kind, ReplyKind::Offer);
        assert_eq!(reply.address, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!((reply.router, reply.lease_seconds), (Some(Ipv4Addr::new(10, 0, 0, 1)), Some(120)));
        assert_eq!((reply.domain.as_deref(), reply.nameservers), (Some("lan"), vec![Ipv4Addr::new(9, 9, 9, 9)]));
    }

    #[test]
    fn what_answers_someone_else_is_not_for_us() {
        let offer = answer(7, MAC, &OFFER);
        assert_eq!(Reply::of_packet(&offer, 8, MAC), None);
        assert_eq!(Reply::of_packet(&offer, 7, [2, 0, 0, 0, 0, 9]), None);
        let mut question = offer.clone();
        question[28] = 1;
        assert_eq!(Reply::of_packet(&question, 7, MAC), None);
        let mut other_port = offer.clone();
        other_port[23] = 69;
        assert_eq!(Reply::of_packet(&other_port, 7, MAC), None);
        let mut fragment = offer;
        fragment[6] = 0x20;
        assert_eq!(Reply::of_packet(&fragment, 7, MAC), None);
    }

    #[test]
    fn cut_and_mangled_packets_never_break_the_reader() {
        let offer = answer(7, MAC, &OFFER);
        for length in 0..offer.len() {
            Reply::of_packet(&offer[..length], 7, MAC);
        }
        let mut seed = 1u64;
        for _ in 0..50_000 {
            let mut packet = offer.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = 1 + (seed >> 33) as usize % (packet.len() - 1);
                packet[at] = (seed >> 24) as u8;
            }
            Ipv4Packet::new_unchecked(&mut packet[..20]).fill_checksum();
            Reply::of_packet(&packet, 7, MAC);
        }
    }
}
