//! Making the guest's interface what it shall be, by steps that [`plan`] decides without I/O.

use super::netlink::{Request, Socket};
use crate::boot::cmdline::IpParameter;
use crate::config::{NetworkConfig, NetworkMode, parse_mac};
use crate::error::AgentError;
use std::net::Ipv4Addr;

/// What an interface shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub interface: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub address: Option<(Ipv4Addr, u8)>,
    pub gateway: Option<Ipv4Addr>,
}

impl Wanted {
    /// The address of the command line.
    pub fn from_ip(ip: &IpParameter) -> Self {
        Self { interface: ip.interface.clone(), mac: None, mtu: None, address: Some((ip.address, ip.prefix_length)), gateway: ip.gateway }
    }

    /// What a configuration asks for, the command line filling in an address that `bridged` leaves out.
    /// `None`: this guest has no interface but lo. In `dhcp` the address is a server's to give.
    pub fn from_config(config: &NetworkConfig, ip: Option<&IpParameter>) -> Result<Option<Self>, AgentError> {
        match config.mode {
            NetworkMode::Vsock => return Ok(None),
            NetworkMode::Dhcp => {
                return Ok(Some(Self {
                    interface: config.interface.clone().unwrap_or_else(|| "eth0".into()),
                    mac: config.mac.as_deref().and_then(parse_mac),
                    mtu: config.mtu,
                    address: None,
                    gateway: None,
                }));
            }
            NetworkMode::Bridged => {}
        }
        let base = ip.map(Self::from_ip);
        let address = match (config.address, base.as_ref()) {
            (Some(address), _) => (address, config.prefix_length.unwrap_or(24)),
            (None, Some(Self { address: Some(address), .. })) => *address,
            _ => return Err(AgentError::invalid("configuration: network.address is missing, and the command line has no ip=")),
        };
        Ok(Some(Self {
            interface: config.interface.clone().or(base.as_ref().map(|b| b.interface.clone())).unwrap_or_else(|| "eth0".into()),
            mac: config.mac.as_deref().and_then(parse_mac),
            mtu: config.mtu,
            address: Some(address),
            gateway: config.gateway.or(if config.address.is_none() { base.and_then(|b| b.gateway) } else { None }),
        }))
    }
}

/// The requests that turn `before` into `wanted` on interface `index`, in order.
pub fn plan(before: Option<&Wanted>, wanted: &Wanted, index: u32) -> Vec<Request> {
    let before = before.filter(|before| before.interface == wanted.interface);
    let mut steps = Vec::new();
    if let Some(old @ (address, prefix_length)) = before.and_then(|b| b.address) {
        if Some(old) != wanted.address {
            steps.push(Request::DeleteAddress { index, address, prefix_length });
        }
    }
    if before.is_none_or(|before| (before.mac, before.mtu) != (wanted.mac, wanted.mtu)) {
        steps.push(Request::LinkUp { index, mac: wanted.mac, mtu: wanted.mtu });
    }
    if let Some((address, prefix_length)) = wanted.address {
        steps.push(Request::AddAddress { index, address, prefix_length });
    }
    match (before.and_then(|b| b.gateway), wanted.gateway) {
        (_, Some(gateway)) => steps.push(Request::SetDefaultRoute { index, gateway }),
        (Some(gateway), None) => steps.push(Request::DeleteDefaultRoute { index, gateway }),
        (None, None) => {}
    }
    steps
}

/// The kernel's number of an interface.
pub fn interface_index(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// The hardware address of an interface.
pub fn hardware_address(name: &str) -> Option<[u8; 6]> {
    parse_mac(std::fs::read_to_string(format!("/sys/class/net/{name}/address")).ok()?.trim())
}

/// Carries the plan out. The interface must exist.
pub fn apply(before: Option<&Wanted>, wanted: &Wanted) -> Result<(), AgentError> {
    let index = interface_index(&wanted.interface)
        .ok_or_else(|| AgentError::new(409, "no_interface", format!("there is no interface {}", wanted.interface)))?;
    let mut socket = Socket::open().map_err(|cause| AgentError::failed("netlink", cause))?;
    for request in plan(before, wanted, index) {
        match socket.call(&request) {
            Ok(()) => {}
            // Something else took it away already: deleting an address takes its routes with it.
            Err(cause) if matches!(request, Request::DeleteAddress { .. } | Request::DeleteDefaultRoute { .. }) && is_gone(&cause) => {}
            Err(cause) => return Err(AgentError::failed(&format!("{}: {request:?}", wanted.interface), cause)),
        }
    }
    Ok(())
}

fn is_gone(cause: &std::io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ESRCH | libc::ENOENT))
}

/// Raises the loopback interface.
pub fn raise_loopback() -> Result<(), AgentError> {
    apply(None, &Wanted { interface: "lo".into(), mac: None, mtu: None, address: None, gateway: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(last: u8) -> Wanted {
        Wanted {
            interface: "eth0".into(),
            mac: None,
            mtu: None,
            address: Some((Ipv4Addr::new(10, 0, 0, last), 24)),
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        }
    }

    #[test]
    fn a_new_interface_is_raised_then_addressed_then_routed() {
        let steps = plan(None, &wanted(2), 5);
        assert!(matches!(steps[..], [Request::LinkUp { .. }, Request::AddAddress { .. }, Request::SetDefaultRoute { .. }]));
    }

    #[test]
    fn another_address_replaces_the_old_one() {
        let steps = plan(Some(&wanted(2)), &wanted(3), 5);
        assert_eq!(steps[0], Request::DeleteAddress { index: 5, address: Ipv4Addr::new(10, 0, 0, 2), prefix_length: 24 });
        assert!(!plan(Some(&wanted(2)), &wanted(2), 5).iter().any(|s| matches!(s, Request::DeleteAddress { .. })));
    }

    #[test]
    fn a_lease_comes_and_goes_without_touching_the_link() {
        let bare = Wanted { address: None, gateway: None, ..wanted(2) };
        assert!(matches!(plan(Some(&bare), &wanted(2), 5)[..], [Request::AddAddress { .. }, Request::SetDefaultRoute { .. }]));
        assert!(matches!(plan(Some(&wanted(2)), &bare, 5)[..], [Request::DeleteAddress { .. }, Request::DeleteDefaultRoute { .. }]));
    }

    #[test]
    fn a_configuration_without_an_address_takes_the_command_lines() {
        let line = crate::boot::cmdline::CommandLine::parse("ip=10.0.0.9::10.0.0.1:255.0.0.0::eth0:off");
        let config = NetworkConfig {
            mode: NetworkMode::Bridged,
            interface: None,
            address: None,
            prefix_length: None,
            gateway: None,
            mac: None,
            mtu: None,
        };
        let found = Wanted::from_config(&config, line.ip.as_ref()).expect("usable").expect("an interface");
        assert_eq!(found, Wanted::from_ip(line.ip.as_ref().expect("ip")));
        assert!(Wanted::from_config(&config, None).is_err());
        let dhcp = NetworkConfig { mode: NetworkMode::Dhcp, ..config };
        let raised = Wanted::from_config(&dhcp, None).expect("usable").expect("an interface");
        assert_eq!((raised.interface.as_str(), raised.address), ("eth0", None));
    }
}
