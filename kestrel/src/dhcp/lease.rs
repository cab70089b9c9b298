//! What a server grants, and whether a guest can use it. Pure.

use super::message::Reply;
use crate::boot::cmdline::prefix_of_netmask;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A lease without an end (RFC 2131, 3.3).
const FOREVER: u32 = u32::MAX;
/// The C library reads no more (man 5 resolv.conf).
const MOST_NAMESERVERS: usize = 3;

/// When a lease is to be renewed, counted from the request that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// T1: the server that granted it is asked from then on.
    pub renew: Duration,
    /// T2: any server is asked from then on.
    pub rebind: Duration,
    /// The address must not be used afterwards.
    pub expire: Duration,
}

/// A usable grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    pub gateway: Option<Ipv4Addr>,
    pub nameservers: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub server: Ipv4Addr,
    /// `None`: it never ends.
    pub times: Option<Times>,
}

impl Lease {
    /// The lease that an offer or an acknowledgement describes, or what makes it unusable.
    pub fn of(reply: &Reply) -> Result<Self, &'static str> {
        let server = reply.server.filter(|&ip| is_host(ip)).ok_or("it does not say which server it is from")?;
        if !is_host(reply.address) {
            return Err("its address can't be given to an interface");
        }
        let mask = reply.mask.ok_or("it has no subnet mask")?;
        let prefix_length = prefix_of_netmask(mask).filter(|&length| length > 0).ok_or("its subnet mask is not one")?;
        let host_bits = !u32::from(mask) & u32::from(reply.address);
        if prefix_length < 31 && (host_bits == 0 || host_bits == !u32::from(mask)) {
            return Err("its address is the subnet's own or its broadcast address");
        }
        let seconds = reply.lease_seconds.filter(|&seconds| seconds > 0).ok_or("it has no lease time")?;
        Ok(Self {
            address: reply.address,
            prefix_length,
            gateway: reply.router.filter(|&ip| is_host(ip) && ip != reply.address),
            nameservers: reply.nameservers.iter().copied().filter(|&ip| is_host(ip) || ip.is_loopback()).take(MOST_NAMESERVERS).collect(),
            domain: reply.domain.clone().filter(|name| is_domain(name)),
            server,
            times: (seconds != FOREVER).then(|| times(seconds, reply.renew_seconds, reply.rebind_seconds)),
        })
    }
}

/// T1 and T2 as the server says where they make sense, else a half and seven eighths of the lease (RFC 2131, 4.4.5).
fn times(seconds: u32, renew: Option<u32>, rebind: Option<u32>) -> Times {
    let expire = Duration::from_secs(seconds.into());
    let rebind = rebind.filter(|&t2| t2 > 0 && t2 < seconds).map_or(expire * 7 / 8, |t2| Duration::from_secs(t2.into()));
    let sensible = |t1: &Duration| !t1.is_zero() && *t1 < rebind;
    let renew = renew.map(|t1| Duration::from_secs(t1.into())).filter(sensible);
    Times { renew: renew.or(Some(expire / 2).filter(sensible)).unwrap_or(rebind / 2), rebind, expire }
}

fn is_host(ip: Ipv4Addr) -> bool {
    let first = ip.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// What may stand behind `search` in resolv.conf: a server must not be able to write other lines there.
fn is_domain(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::super::message::ReplyKind;
    use super::*;

    fn reply() -> Reply {
        Reply {
            kind: ReplyKind::Offer,
            address: Ipv4Addr::new(10, 0, 0, 5),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
            mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            router: Some(Ipv4Addr::new(10, 0, 0, 1)),
            nameservers: vec![Ipv4Addr::new(9, 9, 9, 9)],
            domain: Some("lan.example".into()),
            lease_seconds: Some(80),
            renew_seconds: None,
            rebind_seconds: None,
        }
    }

    #[test]
    fn a_complete_reply_is_a_lease_with_default_times() {
        let lease = Lease::of(&reply()).expect("usable");
        assert_eq!(lease.prefix_length, 24);
        let seconds = Duration::from_secs;
        assert_eq!(lease.times, Some(Times { renew: seconds(40), rebind: seconds(70), expire: seconds(80) }));
    }

    #[test]
    fn what_can_not_be_configured_is_refused_in_words() {
        type Breaking = fn(&mut Reply);
        let broken: [(&str, Breaking); 8] = [
            ("server", |r| r.server = None),
            ("interface", |r| r.address = Ipv4Addr::UNSPECIFIED),
            ("interface", |r| r.address = Ipv4Addr::new(239, 1, 1, 1)),
            ("no subnet mask", |r| r.mask = None),
            ("is not one", |r| r.mask = Some(Ipv4Addr::new(255, 0, 255, 0))),
            ("broadcast", |r| r.address = Ipv4Addr::new(10, 0, 0, 255)),
            ("own", |r| r.address = Ipv4Addr::new(10, 0, 0, 0)),
            ("lease time", |r| r.lease_seconds = Some(0)),
        ];
        for (word, breaking) in broken {
            let mut reply = reply();
            breaking(&mut reply);
            let why = Lease::of(&reply).expect_err(word);
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn nonsense_in_the_extras_is_left_out() {
        let mut odd = reply();
        odd.router = Some(Ipv4Addr::BROADCAST);
        odd.domain = Some("a\nnameserver 6.6.6.6".into());
        odd.nameservers = vec![Ipv4Addr::BROADCAST, Ipv4Addr::new(1, 1, 1, 1)];
        let lease = Lease::of(&odd).expect("usable");
        assert_eq!((lease.gateway, lease.domain, lease.nameservers), (None, None, vec![Ipv4Addr::new(1, 1, 1, 1)]));
    }

    #[test]
    fn times_are_always_in_order_whatever_the_server_says() {
        for seconds in [1, 2, 10, 3600, u32::MAX - 1] {
            for t1 in [None, Some(0), Some(1), Some(seconds), Some(u32::MAX)] {
                for t2 in [None, Some(0), Some(1), Some(seconds), Some(u32::MAX)] {
                    let found = times(seconds, t1, t2);
                    assert!(Duration::ZERO < found.renew && found.renew < found.rebind && found.rebind < found.expire, "{found:?}");
                }
            }
        }
        let mut endless = reply();
        endless.lease_seconds = Some(FOREVER);
        assert_eq!(Lease::of(&endless).expect("usable").times, None);
    }
}
