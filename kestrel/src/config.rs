//! The configuration a guest receives (`PUT /v1/config`, see docs/agent-protocol.md) and its checks. Pure.

use crate::boot::cmdline::is_interface_name;
use crate::error::AgentError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// When a workload that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    No,
}

/// The program this guest exists for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// `http` is the only kind; kept because manifests carry it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `http://host:port[/path]` inside the guest: where the health check goes.
    pub base_url: Option<String>,
    #[serde(default)]
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub workdir: Option<String>,
    #[serde(default)]
    pub restart: RestartPolicy,
}

/// How to tell that the workload is well: an HTTP GET that answers 2xx or 3xx.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// A path on the workload's `base_url` host and port.
    pub endpoint: String,
    pub timeout_ms: Option<u64>,
}

/// Network mode as in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    Bridged,
    Vsock,
    Dhcp,
}

/// What the guest's interface shall be. Without an address, `bridged` keeps what `ip=` said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    pub mode: NetworkMode,
    pub interface: Option<String>,
    pub address: Option<Ipv4Addr>,
    pub prefix_length: Option<u8>,
    pub gateway: Option<Ipv4Addr>,
    pub mac: Option<String>,
    pub mtu: Option<u32>,
}

/// Everything a guest is told. The same `config_version` again changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    pub config_version: String,
    pub hostname: Option<String>,
    pub network: Option<NetworkConfig>,
    #[serde(default)]
    pub nameservers: Vec<IpAddr>,
    #[serde(default)]
    pub search: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub workload: Option<Workload>,
    pub health_check: Option<HealthCheck>,
    /// How long the workload may take to end when the guest shuts down without being given a time.
    pub shutdown_timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
struct VersionOnly {
    config_version: String,
}

impl GuestConfig {
    /// Only the version, so that a configuration already applied is recognised even when a newer host adds fields to it.
    pub fn version_of(text: &[u8]) -> Result<String, AgentError> {
        serde_json::from_slice::<VersionOnly>(text)
            .map(|found| found.config_version)
            .map_err(|cause| AgentError::invalid(format!("configuration: {cause}")))
    }

    /// Parses and checks a configuration.
    pub fn parse(text: &[u8]) -> Result<Self, AgentError> {
        let config: Self = serde_json::from_slice(text).map_err(|cause| AgentError::invalid(format!("configuration: {cause}")))?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what could not be applied later: the message names the field.
    pub fn check(&self) -> Result<(), AgentError> {
        let wrong = |what: &str| Err(AgentError::invalid(format!("configuration: {what}")));
        if self.config_version.is_empty() || self.config_version.len() > 128 {
            return wrong("config_version must have 1 to 128 bytes");
        }
        if self.hostname.as_deref().is_some_and(|name| !is_hostname(name)) {
            return wrong("hostname must be 1 to 63 of a-z, 0-9 and -, with no - at either end");
        }
        if self.search.iter().any(|domain| {
            domain.is_empty() || domain.len() > 253 || !domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }) {
            return wrong("search must hold domain names");
        }
        if let Some(network) = &self.network {
            if network.prefix_length.is_some_and(|length| length > 32) {
                return wrong("network.prefix_length must be 0 to 32");
            }
            if network.interface.as_deref().is_some_and(|name| !is_interface_name(name)) {
                return wrong("network.interface is not an interface name");
            }
            if network.mac.as_deref().is_some_and(|mac| parse_mac(mac).is_none()) {
                return wrong("network.mac must be a unicast address such as 02:00:00:00:00:01");
            }
            if network.mtu.is_some_and(|mtu| !(576..=65_535).contains(&mtu)) {
                return wrong("network.mtu must be 576 to 65535");
            }
            if network.mode != NetworkMode::Bridged && network.address.is_some() {
                return wrong("network.address belongs to mode bridged only");
            }
        }
        check_env("env", &self.env)?;
        if let Some(workload) = &self.workload {
            check_env("workload.env", &workload.env)?;
            if workload.entrypoint.iter().any(|word| word.contains('\0')) {
                return wrong("workload.entrypoint holds a NUL byte");
            }
            if workload.entrypoint.first().is_none_or(String::is_empty) {
                return wrong("workload.entrypoint must name a program");
            }
            if workload.workdir.as_deref().is_some_and(|dir| !dir.starts_with('/') || dir.contains('\0')) {
                return wrong("workload.workdir must be an absolute path");
            }
            if workload.kind.as_deref().is_some_and(|kind| kind != "http") {
                return wrong("workload.type must be http");
            }
        }
        if self.health_check.is_some() {
            crate::health::Target::of(self)?;
        }
        Ok(())
    }
}

fn check_env(field: &str, env: &BTreeMap<String, String>) -> Result<(), AgentError> {
    match env.iter().find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0')) {
        None => Ok(()),
        Some((key, _)) => Err(AgentError::invalid(format!("configuration: {field} has an unusable entry {key:?}"))),
    }
}

/// RFC 1123 label, lower case, as volantd makes them.
pub fn is_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Six colon-separated octets of a unicast hardware address.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0u8; 6];
    let mut parts = text.split(':');
    for octet in &mut mac {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_configuration_parses() {
        let config = GuestConfig::parse(include_bytes!("../golden/config.json")).expect("golden");
        assert_eq!(config.config_version, "42-7");
        assert_eq!(config.network.as_ref().map(|n| n.mode), Some(NetworkMode::Bridged));
        assert_eq!(config.workload.as_ref().map(|w| w.restart), Some(RestartPolicy::OnFailure));
        assert_eq!(config.nameservers.len(), 2);
    }

    #[test]
    fn unusable_configurations_are_refused_by_field() {
        for (text, field) in [
            (r#"{}"#, "config_version"),
            (r#"{"config_version":""}"#, "config_version"),
            (r#"{"config_version":"1","surprise":1}"#, "surprise"),
            (r#"{"config_version":"1","hostname":"-x"}"#, "hostname"),
            (r#"{"config_version":"1","nameservers":["nine"]}"#, "IP"),
            (r#"{"config_version":"1","search":["a b"]}"#, "search"),
            (r#"{"config_version":"1","env":{"A=B":"c"}}"#, "env"),
            (r#"{"config_version":"1","workload":{"entrypoint":[]}}"#, "entrypoint"),
            (r#"{"config_version":"1","workload":{"entrypoint":["a\u0000"]}}"#, "entrypoint"),
            (r#"{"config_version":"1","workload":{"entrypoint":["a"],"workdir":"x"}}"#, "workdir"),
            (r#"{"config_version":"1","network":{"mode":"bridged","mac":"01:00:00:00:00:00"}}"#, "mac"),
            (r#"{"config_version":"1","network":{"mode":"bridged","prefix_length":33}}"#, "prefix_length"),
            (r#"{"config_version":"1","network":{"mode":"vsock","address":"10.0.0.1"}}"#, "address"),
            (r#"{"config_version":"1","network":{"mode":"tunnel"}}"#, "tunnel"),
            (r#"{"config_version":"1","health_check":{"endpoint":"/"}}"#, "base_url"),
        ] {
            let error = GuestConfig::parse(text.as_bytes()).expect_err(text);
            assert!(error.message.contains(field), "{text} → {}", error.message);
            assert_eq!(error.status, 400);
        }
    }

    #[test]
    fn a_version_is_found_among_fields_of_the_future() {
        assert_eq!(GuestConfig::version_of(br#"{"new":[],"config_version":"3"}"#).as_deref(), Ok("3"));
    }
}
