//! The kernel command line, parsed. Pure.
//! Quoting as in the kernel's own parser (lib/cmdline.c, next_arg): double quotes group, and are dropped.

use std::net::Ipv4Addr;

/// Where the root file system comes from (`volant.boot`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// A root disk where one is named, else the initramfs.
    Auto,
    /// Stay in the initramfs.
    Initramfs,
    /// Mount the root disk and switch to it.
    Rootfs,
}

/// A static address as `ip=` gives it: `<address>::<gateway>:<netmask>:<hostname>:<interface>:off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpParameter {
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    pub gateway: Option<Ipv4Addr>,
    pub hostname: Option<String>,
    pub interface: String,
}

/// What the agent reads from the kernel command line. Unusable values become `problems`, never a failure to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    pub ip: Option<IpParameter>,
    pub runtime: Option<String>,
    pub plugin: Option<String>,
    pub api_host: Option<String>,
    pub api_port: Option<String>,
    pub rootfs_device: Option<String>,
    pub rootfs_fstype: String,
    pub boot: BootMode,
    /// Still encoded: gzip, then base64url without padding.
    pub manifest: Option<String>,
    pub problems: Vec<String>,
}

impl CommandLine {
    /// Parses the text of /proc/cmdline. A key given twice keeps its last value, as the kernel does.
    pub fn parse(text: &str) -> Self {
        let mut line = Self {
            ip: None,
            runtime: None,
            plugin: None,
            api_host: None,
            api_port: None,
            rootfs_device: None,
            rootfs_fstype: "ext4".into(),
            boot: BootMode::Auto,
            manifest: None,
            problems: Vec::new(),
        };
        for word in split_words(text) {
            if word == "--" {
                break;
            }
            let Some((key, value)) = word.split_once('=') else { continue };
            let filled = || (!value.is_empty()).then(|| value.to_owned());
            match key {
                "ip" => match parse_ip(value) {
                    Ok(ip) => line.ip = ip,
                    Err(problem) => line.problems.push(problem),
                },
                "volant.runtime" => line.runtime = filled(),
                "volant.plugin" => line.plugin = filled(),
                "volant.api_host" => line.api_host = filled(),
                "volant.api_port" => line.api_port = filled(),
                "volant.rootfs_device" => line.rootfs_device = filled(),
                "volant.rootfs_fstype" => line.rootfs_fstype = filled().unwrap_or(line.rootfs_fstype),
                "volant.manifest" => line.manifest = filled(),
                "volant.boot" => match value {
                    "auto" | "" => line.boot = BootMode::Auto,
                    "initramfs" => line.boot = BootMode::Initramfs,
                    "rootfs" => line.boot = BootMode::Rootfs,
                    other => line.problems.push(format!("volant.boot={other}: must be auto, initramfs or rootfs")),
                },
                _ => {}
            }
        }
        line
    }

    /// The device whose root file system is wanted instead of the initramfs, if any (`vda` when only the mode says so).
    pub fn wanted_root_disk(&self) -> Option<&str> {
        match self.boot {
            BootMode::Initramfs => None,
            BootMode::Rootfs => Some(self.rootfs_device.as_deref().unwrap_or("vda")),
            BootMode::Auto => self.rootfs_device.as_deref(),
        }
    }
}

fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn parse_ip(value: &str) -> Result<Option<IpParameter>, String> {
    if matches!(value, "" | "off" | "none") {
        return Ok(None);
    }
    let fields: Vec<&str> = value.split(':').collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or("");
    let wrong = |what: &str| format!("ip={value}: {what}; expected <address>::<gateway>:<netmask>:<hostname>:<interface>:off");
    let address: Ipv4Addr = field(0).parse().map_err(|_| wrong("the address is not an IPv4 address"))?;
    if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        return Err(wrong("the address can't be given to an interface"));
    }
    let gateway = match field(2) {
        "" | "0.0.0.0" => None,
        text => Some(text.parse().map_err(|_| wrong("the gateway is not an IPv4 address"))?),
    };
    let prefix_length = match field(3) {
        "" => 32,
        text => text.parse().ok().and_then(prefix_of_netmask).ok_or_else(|| wrong("the netmask is not a run of ones followed by zeros"))?,
    };
    if !matches!(field(6), "" | "off" | "none" | "static") {
        return Err(wrong("automatic configuration is not done from the command line"));
    }
    let interface = if field(5).is_empty() { "eth0" } else { field(5) };
    if !is_interface_name(interface) {
        return Err(wrong("the interface name is not usable"));
    }
    let hostname = (!field(4).is_empty()).then(|| field(4).to_owned());
    Ok(Some(IpParameter { address, prefix_length, gateway, hostname, interface: interface.to_owned() }))
}

/// The length of a contiguous netmask: 255.255.255.0 → 24.
pub fn prefix_of_netmask(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() == 32 || bits == u32::MAX).then_some(bits.leading_ones() as u8)
}

/// A name that can stand in /sys/class/net: 1 to 15 bytes, no slash, not a dot name.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_contract_is_understood() {
        let line = CommandLine::parse("console=ttyS0 ip=192.168.127.2::192.168.127.1:255.255.255.0:web-1:eth0:off quiet\n");
        assert_eq!(
            line.ip,
            Some(IpParameter {
                address: Ipv4Addr::new(192, 168, 127, 2),
                prefix_length: 24,
                gateway: Some(Ipv4Addr::new(192, 168, 127, 1)),
                hostname: Some("web-1".into()),
                interface: "eth0".into(),
            })
        );
        assert!(line.problems.is_empty());
    }

    #[test]
    fn unusable_addresses_are_problems_and_not_addresses() {
        for value in [
            "1.2.3::::::",
            "0.0.0.0::::::",
            "10.0.0.1::x:::eth0:off",
            "10.0.0.1:::255.0.255.0:::off",
            "10.0.0.1::::::dhcp",
            "10.0.0.1:::::../../x:off",
            "dhcp",
        ] {
            let line = CommandLine::parse(&format!("ip={value}"));
            assert_eq!(line.ip, None, "{value}");
            assert_eq!(line.problems.len(), 1, "{value}");
        }
        assert!(CommandLine::parse("ip=off").problems.is_empty());
    }

    #[test]
    fn netmasks_become_prefix_lengths() {
        for length in 0..=32u32 {
            let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - length).unwrap_or(0));
            assert_eq!(prefix_of_netmask(mask), Some(length as u8));
        }
        assert_eq!(prefix_of_netmask(Ipv4Addr::new(255, 0, 255, 0)), None);
    }

    #[test]
    fn keys_of_ours_are_read_quotes_are_dropped_and_the_double_dash_ends_it() {
        let line = CommandLine::parse(
            r#"volant.plugin="my plugin" volant.runtime=a volant.runtime=b volant.boot=rootfs volant.manifest=abc -- volant.plugin=other"#,
        );
        assert_eq!(line.plugin.as_deref(), Some("my plugin"));
        assert_eq!(line.runtime.as_deref(), Some("b"));
        assert_eq!(line.wanted_root_disk(), Some("vda"));
        assert_eq!(line.manifest.as_deref(), Some("abc"));
    }

    #[test]
    fn a_root_disk_is_wanted_only_when_named_or_asked_for() {
        assert_eq!(CommandLine::parse("").wanted_root_disk(), None);
        assert_eq!(CommandLine::parse("volant.rootfs_device=vdb").wanted_root_disk(), Some("vdb"));
        assert_eq!(CommandLine::parse("volant.rootfs_device=vdb volant.boot=initramfs").wanted_root_disk(), None);
        assert_eq!(CommandLine::parse("volant.boot=sideways").problems.len(), 1);
    }

    #[test]
    fn random_bytes_never_break_the_parser() {
        let mut seed = 7u64;
        for _ in 0..20_000 {
            let mut text = String::from("ip=");
            for _ in 0..(seed % 40) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push(char::from(b" \"=:.0123/-ipvolant\n"[(seed >> 33) as usize % 20]));
            }
            seed = seed.wrapping_add(1);
            CommandLine::parse(&text);
        }
    }
}
