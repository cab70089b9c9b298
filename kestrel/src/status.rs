//! What the guest says of itself (`GET /v1/status`).

use crate::config::NetworkMode;
use crate::dhcp::lease::Lease;
use crate::dhcp::machine::Phase;
use serde::Serialize;
use std::time::Duration;

/// The interface's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    pub applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Why it could not be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In mode `dhcp` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
}

/// What the DHCP client has come to. Times are RFC 3339 by the guest's clock; a lease without an end has only the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LeaseStatus {
    pub state: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obtained_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renews_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebinds_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Why there is none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl LeaseStatus {
    /// The status of a client that has come so far; `obtained_ms` is when its lease began, in Unix milliseconds.
    pub fn of(phase: Phase, lease: Option<(&Lease, i64)>, note: Option<&str>) -> Self {
        let Some((lease, obtained_ms)) = lease else {
            return Self { state: phase, reason: note.map(str::to_owned), ..Self::default() };
        };
        let at = |after: Duration| crate::wall_time::format(obtained_ms.saturating_add(after.as_millis() as i64));
        Self {
            state: phase,
            server: Some(lease.server.to_string()),
            nameservers: lease.nameservers.iter().map(ToString::to_string).collect(),
            domain: lease.domain.clone(),
            obtained_at: Some(at(Duration::ZERO)),
            renews_at: lease.times.map(|times| at(times.renew)),
            rebinds_at: lease.times.map(|times| at(times.rebind)),
            expires_at: lease.times.map(|times| at(times.expire)),
            reason: note.map(str::to_owned),
        }
    }
}

/// The workload's state machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum WorkloadState {
    #[default]
    WaitingForConfig,
    /// Configured; its process does not run yet.
    Starting,
    Running {
        pid: i32,
    },
    /// It ended. `restart_in_ms` is there when it will be started again.
    Exited {
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        restart_in_ms: Option<u64>,
    },
    /// It could not be started.
    Failed {
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        restart_in_ms: Option<u64>,
    },
    /// The guest is shutting down.
    Stopping,
}

/// A workload's state and how often it was started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WorkloadStatus {
    #[serde(flatten)]
    pub state: WorkloadState,
    pub restarts: u32,
}

/// The health check's verdict. `Unknown` carries the last failure while the workload has not been healthy yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    Unknown {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Healthy,
    Unhealthy {
        reason: String,
    },
}

impl Default for Health {
    fn default() -> Self {
        Self::Unknown { reason: None }
    }
}

/// The part of the status that changes by events; a watcher gets a line for each change of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    pub config_version: Option<String>,
    pub hostname: String,
    pub generation: u64,
    pub network: NetworkStatus,
    pub workload: WorkloadStatus,
    pub health: Health,
}

/// Memory figures in KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub total_kib: u64,
    pub available_kib: u64,
    /// Resident size of the agent itself.
    pub agent_kib: u64,
}

/// A whole status line.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    #[serde(flatten)]
    pub status: &'a Status,
    pub boot_id: &'a str,
    pub uptime_ms: u64,
    pub memory: Memory,
}

impl Memory {
    /// Reads the texts of /proc/meminfo and /proc/self/status.
    pub fn parse(meminfo: &str, self_status: &str) -> Self {
        let find = |text: &str, key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self {
            total_kib: find(meminfo, "MemTotal:"),
            available_kib: find(meminfo, "MemAvailable:"),
            agent_kib: find(self_status, "VmRSS:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_tables() {
        let memory = Memory::parse("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   60 kB\n", "Name:\tx\nVmRSS:\t    2100 kB\n");
        assert_eq!(memory, Memory { total_kib: 100, available_kib: 60, agent_kib: 2100 });
    }

    #[test]
    fn a_lease_is_reported_as_the_golden_file_has_it() {
        use crate::dhcp::lease::Times;
        let lease = Lease {
            address: [10, 0, 0, 5].into(),
            prefix_length: 24,
            gateway: None,
            nameservers: vec![[9, 9, 9, 9].into()],
            domain: Some("lan.example".into()),
            server: [10, 0, 0, 1].into(),
            times: Some(Times { renew: Duration::from_secs(60), rebind: Duration::from_secs(105), expire: Duration::from_secs(120) }),
        };
        let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/status.json")).expect("golden");
        let found = serde_json::to_value(LeaseStatus::of(Phase::Renewing, Some((&lease, 951_782_400_000)), None)).expect("json");
        assert_eq!(found, golden[2]["network"]["lease"]);
        let waiting = LeaseStatus::of(Phase::WaitingForLease, None, Some("no DHCP server has answered"));
        assert_eq!(serde_json::to_value(waiting).expect("json"), golden[3]["network"]["lease"]);
    }

    #[test]
    fn the_status_is_the_golden_one() {
        let status = Status {
            config_version: Some("42-7".into()),
            hostname: "web-1".into(),
            generation: 3,
            network: NetworkStatus {
                applied: true,
                mode: Some(NetworkMode::Bridged),
                interface: Some("eth0".into()),
                address: Some("192.168.127.2".into()),
                prefix_length: Some(24),
                gateway: Some("192.168.127.1".into()),
                reason: None,
                lease: None,
            },
            workload: WorkloadStatus {
                state: WorkloadState::Exited { code: Some(1), signal: None, restart_in_ms: Some(200) },
                restarts: 2,
            },
            health: Health::Unhealthy { reason: "the health check answered 503".into() },
        };
        let report = Report {
            status: &status,
            boot_id: "6f1c1b0e-1111-4222-8333-444455556666",
            uptime_ms: 1234,
            memory: Memory { total_kib: 100, available_kib: 60, agent_kib: 2100 },
        };
        let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/status.json")).expect("golden");
        assert_eq!(serde_json::to_value(&report).expect("json"), golden[0]);
    }
}
