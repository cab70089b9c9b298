//! The guest that is pretended: its kernel, its agent's state, its workload, and what goes wrong with them.

use crate::console::Console;
use crate::faults::Faults;
use crate::hypervisor::{Cause, Hypervisor};
use kestrel::config::GuestConfig;
use kestrel::error::AgentError;
use kestrel::wall_time;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::sleep;

/// The workload's process id, as the agent reports it.
const WORKLOAD_PID: u32 = 80;
/// How long a workload takes to end when it is asked to. The agent's answer is sent meanwhile.
const END_OF_WORKLOAD: Duration = Duration::from_millis(5);

/// About 1 MiB a second.
const LINES_AT_ONCE: u64 = 512;
const BETWEEN_FLOODS: Duration = Duration::from_millis(50);

/// The one line that the workload prints, and when.
struct Printed {
    line: &'static str,
    timestamp: String,
}

#[derive(Default)]
struct Told {
    hostname: String,
    generation: u64,
    config_version: Option<String>,
    network: Value,
    printed: Option<Printed>,
    ending: bool,
}

pub struct Guest {
    pub hypervisor: Rc<Hypervisor>,
    pub faults: Faults,
    console: Rc<Console>,
    started: Instant,
    boot_id: String,
    told: RefCell<Told>,
    changes: watch::Sender<u64>,
}

pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

impl Guest {
    pub fn new(hypervisor: Rc<Hypervisor>, console: Rc<Console>, faults: Faults) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim().to_owned();
        let (changes, _) = watch::channel(0);
        Self { hypervisor, faults, console, started: Instant::now(), boot_id, told: RefCell::default(), changes }
    }

    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Boots, and does what its faults say, in the order of their times.
    pub async fn live(&self) {
        self.console.print(self.started, "Linux version 6.1.0-stand-in");
        self.console.print(self.started, "kestrel: stands in for a guest");
        tokio::join!(self.flood(), self.panic(), self.hang(), self.power_off(), self.obey_power_button());
    }

    async fn flood(&self) {
        for line in (0_u64..).take_while(|_| self.faults.flood_console) {
            self.console.print(self.started, &format!("flood {line} {:.<64}", ""));
            if line % LINES_AT_ONCE == 0 {
                sleep(BETWEEN_FLOODS).await;
            }
        }
    }

    async fn panic(&self) {
        let Some(after) = self.faults.panic_after else { return };
        sleep(after).await;
        self.console.print(self.started, "Kernel panic - not syncing: the stand-in was told to panic");
        self.hypervisor.end(Cause::GuestReset)
    }

    async fn hang(&self) {
        let Some(after) = self.faults.hang_after else { return };
        // Zero: before it has heard of anybody.
        if !after.is_zero() {
            sleep(after).await;
        }
        self.hypervisor.hang();
    }

    async fn power_off(&self) {
        let Some(after) = self.faults.poweroff_after else { return };
        sleep(after).await;
        self.end();
    }

    async fn obey_power_button(&self) {
        loop {
            self.hypervisor.power_button().await;
            if !self.faults.ignore_shutdown {
                self.end();
            }
        }
    }

    fn end(&self) -> ! {
        self.console.print(self.started, "reboot: Power down");
        self.hypervisor.end(Cause::GuestShutdown)
    }

    /// Ends the workload, then the guest.
    pub async fn shut_down(&self) {
        if self.faults.ignore_shutdown || std::mem::replace(&mut self.told.borrow_mut().ending, true) {
            return;
        }
        self.changed();
        sleep(END_OF_WORKLOAD).await;
        self.end();
    }

    /// A host has said who this guest is.
    pub fn greeted(&self, hostname: &str, generation: u64) {
        let mut told = self.told.borrow_mut();
        hostname.clone_into(&mut told.hostname);
        told.generation = generation;
        drop(told);
        self.changed();
    }

    /// Takes a configuration on; false when the guest has this version already. What kestrel would refuse is refused.
    pub fn configure(&self, text: &[u8]) -> Result<bool, AgentError> {
        let version = GuestConfig::version_of(text)?;
        if self.told.borrow().config_version.as_deref() == Some(&version) {
            return Ok(false);
        }
        GuestConfig::parse(text)?;
        let config: Value = serde_json::from_slice(text).map_err(|cause| AgentError::invalid(cause.to_string()))?;
        let mut told = self.told.borrow_mut();
        if let Some(hostname) = config["hostname"].as_str() {
            hostname.clone_into(&mut told.hostname);
        }
        told.config_version = Some(version);
        told.network = network_status(&config["network"]);
        told.printed.get_or_insert_with(|| Printed { line: "the stand-in's workload runs", timestamp: wall_time::format(now_ms()) });
        drop(told);
        self.changed();
        Ok(true)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The status as `GET /v1/status` answers it.
    pub fn status(&self) -> Value {
        let told = self.told.borrow();
        let (workload, health) = match (&told.config_version, told.ending) {
            (None, _) => (json!({ "state": "waiting_for_config", "restarts": 0 }), json!({ "state": "unknown" })),
            (Some(_), true) => (json!({ "state": "stopping", "restarts": 0 }), json!({ "state": "unknown" })),
            (Some(_), false) if told.network["mode"] == "dhcp" => {
                (json!({ "state": "starting", "restarts": 0 }), json!({ "state": "unknown" }))
            }
            (Some(_), false) => (json!({ "state": "running", "pid": WORKLOAD_PID, "restarts": 0 }), self.health()),
        };
        let network = if told.network.is_null() { json!({ "applied": false }) } else { told.network.clone() };
        json!({
            "config_version": told.config_version,
            "hostname": told.hostname,
            "generation": told.generation,
            "network": network,
            "workload": workload,
            "health": health,
            "boot_id": self.boot_id,
            "uptime_ms": self.started.elapsed().as_millis() as u64,
            "memory": { "total_kib": 0, "available_kib": 0, "agent_kib": 0 },
        })
    }

    fn health(&self) -> Value {
        if self.faults.unhealthy {
            json!({ "state": "unhealthy", "reason": "the stand-in was told to be unhealthy" })
        } else {
            json!({ "state": "healthy" })
        }
    }

    /// The lines of the log after a number, as `GET /v1/logs` has them: none, or the one that there is.
    pub fn log_after(&self, after: u64) -> String {
        match &self.told.borrow().printed {
            // A number beyond the last line's counts as 0 (docs/agent-protocol.md, "Log").
            Some(Printed { line, timestamp }) if after != 1 => {
                json!({ "seq": 1, "stream": "stdout", "line": line, "timestamp": timestamp }).to_string()
            }
            _ => String::new(),
        }
    }
}

/// What an agent would report after it had applied this. No DHCP server is ever found.
fn network_status(config: &Value) -> Value {
    if config["mode"] == "dhcp" {
        return json!({ "applied": false, "mode": "dhcp", "interface": "eth0", "lease": { "state": "waiting_for_lease" } });
    }
    let mut status = json!({ "applied": true, "interface": "eth0" });
    for key in ["mode", "address", "prefix_length", "gateway"] {
        if !config[key].is_null() {
            status[key] = config[key].clone();
        }
    }
    status
}
