//! The one task that owns the workload, the network settings and the end of the machine. Everything reaches it as a message,
//! so that a new configuration, a death and a shutdown never race.

use super::backoff::{Backoff, wants_restart};
use super::lease::LeaseKeeper;
use super::{probe, process};
use crate::boot::cmdline::CommandLine;
use crate::config::{GuestConfig, NetworkMode};
use crate::dhcp::client::Progress;
use crate::error::{AgentError, LONGEST_MESSAGE, cut};
use crate::health::Target;
use crate::log_ring::{LineSplitter, Stream};
use crate::net::{apply, etc};
use crate::state::State;
use crate::status::{Health, LeaseStatus, NetworkStatus, WorkloadState};
use rustix::process::Pid;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

/// Time for a workload to end by itself, where nobody says otherwise.
const DEFAULT_SHUTDOWN: Duration = Duration::from_secs(5);

/// How the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndMode {
    Poweroff,
    Reboot,
}

/// A message to the supervisor.
pub enum Command {
    /// Apply a configuration. The answer is false when it was applied already.
    Configure(Box<GuestConfig>, oneshot::Sender<Result<bool, AgentError>>),
    /// An interface that `ip=` waits for is there.
    DeviceAppeared,
    /// The host said who we are.
    Greeted,
    /// End the machine in good order.
    Shutdown { mode: EndMode, timeout: Option<Duration> },
}

struct Running {
    pid: Pid,
    since: Instant,
    probe: Option<JoinHandle<()>>,
}

/// How long output that a dead workload left in its pipes is read on before the machine ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// See the module.
pub struct Supervisor {
    state: Rc<State>,
    line: Rc<CommandLine>,
    config: Option<GuestConfig>,
    network: Option<apply::Wanted>,
    lease: LeaseKeeper,
    running: Option<Running>,
    backoff: Backoff,
    restart_at: Option<Instant>,
    collectors: JoinSet<()>,
    children: Signal,
}

impl Supervisor {
    /// Made inside the runtime, because it listens for SIGCHLD.
    pub fn new(state: Rc<State>, line: Rc<CommandLine>) -> io::Result<Self> {
        let children = signal(SignalKind::child())?;
        Ok(Self {
            state,
            line,
            config: None,
            network: None,
            lease: LeaseKeeper::default(),
            running: None,
            backoff: Backoff::default(),
            restart_at: None,
            collectors: JoinSet::new(),
            children,
        })
    }

    /// What can be done before a host speaks: `ip=` and names.
    pub fn apply_command_line(&mut self) {
        if let Some(ip) = self.line.ip.clone() {
            let wanted = apply::Wanted::from_ip(&ip);
            if let Err(error) = self.set_network(Some(wanted)) {
                crate::console::say(&error.message);
            }
        }
        let hostname = self.line.ip.as_ref().and_then(|ip| ip.hostname.clone()).filter(|name| crate::config::is_hostname(name));
        self.set_names(hostname.as_deref().unwrap_or("vm"));
    }

    /// Serves messages until a shutdown, and returns how the machine is to end once the workload is down.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> EndMode {
        loop {
            tokio::select! {
                Some(command) = commands.recv() => match command {
                    Command::Configure(config, answer) => {
                        let result = self.configure(*config).await;
                        // The asker may be gone; the configuration stands.
                        let _ = answer.send(result);
                    }
                    // A configuration that came first knows better.
                    Command::DeviceAppeared if self.config.is_some() => {}
                    Command::DeviceAppeared => self.apply_command_line(),
                    Command::Greeted => self.greeted(),
                    Command::Shutdown { mode, timeout } => {
                        let timeout = timeout
                            .or(self.config.as_ref().and_then(|config| config.shutdown_timeout_ms.map(Duration::from_millis)))
                            .unwrap_or(DEFAULT_SHUTDOWN);
                        crate::console::say("shutting down");
                        self.state.update(|status| status.workload.state = WorkloadState::Stopping);
                        self.stop(timeout).await;
                        let _ = tokio::time::timeout(LAST_WORDS, async { while self.collectors.join_next().await.is_some() {} }).await;
                        return mode;
                    }
                },
                _ = self.children.recv() => self.reap(),
                Some(progress) = self.lease.next() => self.leased(progress),
                Some(_) = self.collectors.join_next() => {}
                () = sleep_until(self.restart_at) => self.start(true),
            }
        }
    }

    fn greeted(&mut self) {
        // Until a configuration says more, the identity's name is the best there is.
        if let (None, Some(identity)) = (&self.config, self.state.identity()) {
            if crate::config::is_hostname(&identity.hostname) {
                self.set_names(&identity.hostname);
            }
        }
    }

    async fn configure(&mut self, config: GuestConfig) -> Result<bool, AgentError> {
        if self.config.as_ref().is_some_and(|current| current.config_version == config.config_version) {
            return Ok(false);
        }
        config.check()?;
        let wanted = match &config.network {
            None => self.line.ip.as_ref().map(apply::Wanted::from_ip),
            Some(network) => apply::Wanted::from_config(network, self.line.ip.as_ref())?,
        };
        let hostname = config.hostname.clone().unwrap_or_else(|| self.state.status().hostname);
        match (&config.network, wanted) {
            (Some(network), Some(wanted)) if network.mode == NetworkMode::Dhcp => self.ask_for_lease(wanted, &hostname)?,
            (_, wanted) => {
                self.lease.end();
                self.set_network(wanted)?;
            }
        }
        if let Some(network) = &config.network {
            let mode = network.mode;
            self.state.update(|status| {
                status.network.mode = Some(mode);
                status.network.applied |= mode == NetworkMode::Vsock;
            });
        }
        let same_workload = self.config.as_ref().is_some_and(|current| {
            current.workload == config.workload && current.env == config.env && current.health_check == config.health_check
        });
        let version = config.config_version.clone();
        self.config = Some(config);
        self.set_names(&hostname);
        self.state.update(|status| status.config_version = Some(version));
        if !same_workload {
            if self.running.is_some() {
                self.state.remark("the configuration changed: starting the workload anew");
                self.stop(DEFAULT_SHUTDOWN).await;
            }
            self.backoff = Backoff::default();
            self.state.update(|status| status.workload.restarts = 0);
            self.start(false);
        }
        Ok(true)
    }

    fn set_network(&mut self, wanted: Option<apply::Wanted>) -> Result<(), AgentError> {
        let Some(wanted) = wanted else { return Ok(()) };
        if self.network.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let result = apply::apply(self.network.as_ref(), &wanted);
        let status = NetworkStatus {
            applied: result.is_ok(),
            mode: Some(NetworkMode::Bridged),
            interface: Some(wanted.interface.clone()),
            address: wanted.address.map(|(address, _)| address.to_string()),
            prefix_length: wanted.address.map(|(_, length)| length),
            gateway: wanted.gateway.map(|gateway| gateway.to_string()),
            reason: result.as_ref().err().map(|error| error.message.clone()),
            lease: None,
        };
        self.state.update(|current| current.network = status);
        result.map(|()| self.network = Some(wanted))
    }

    /// Raises the interface and leaves its address to a DHCP server. A lease that is there already is kept.
    fn ask_for_lease(&mut self, bare: apply::Wanted, hostname: &str) -> Result<(), AgentError> {
        if self.lease.asks_for(&bare, hostname) {
            return Ok(());
        }
        self.lease.end();
        let result = apply::apply(self.network.as_ref(), &bare).and_then(|()| self.lease.begin(&bare, hostname));
        let status = NetworkStatus {
            mode: Some(NetworkMode::Dhcp),
            interface: Some(bare.interface.clone()),
            reason: result.as_ref().err().map(|error| error.message.clone()),
            lease: Some(LeaseStatus::default()),
            ..NetworkStatus::default()
        };
        self.state.update(|current| current.network = status);
        result.map(|()| self.network = Some(bare))
    }

    /// The DHCP client has news: the interface follows, and the first lease starts the workload.
    fn leased(&mut self, progress: Progress) {
        let Some(wanted) = self.lease.wanted(&progress) else { return };
        let before = self.state.status().network;
        let is_new = self.network.as_ref() != Some(&wanted);
        let result = if is_new { apply::apply(self.network.as_ref(), &wanted) } else { Ok(()) };
        let reason = result.as_ref().err().map(|error| error.message.clone()).or(before.reason.filter(|_| !is_new));
        let address = wanted.address.filter(|_| reason.is_none());
        let status = NetworkStatus {
            applied: address.is_some(),
            mode: Some(NetworkMode::Dhcp),
            interface: Some(wanted.interface.clone()),
            address: address.map(|(address, _)| address.to_string()),
            prefix_length: address.map(|(_, length)| length),
            gateway: address.and(wanted.gateway).map(|gateway| gateway.to_string()),
            reason: reason.clone(),
            lease: Some(self.lease.status(&progress)),
        };
        if before.address != status.address {
            self.state.remark(&match (&status.address, &reason) {
                (Some(address), _) => format!("the interface has {address} by DHCP"),
                (None, Some(reason)) => format!("the lease can't be used: {reason}"),
                (None, None) => "the lease is lost, and the interface has no address".to_owned(),
            });
        }
        // What was applied in part is undone by the next plan just the same.
        self.network = Some(wanted);
        let known = self.lease.names() != self.lease.remember(progress);
        if is_new || known {
            self.set_names(&self.state.status().hostname);
        }
        self.state.update(|current| current.network = status);
        let waits = self.config.is_some() && self.running.is_none() && self.restart_at.is_none();
        if waits && address.is_some() && self.state.status().workload.state == WorkloadState::Starting {
            self.start(false);
        }
    }

    fn set_names(&self, hostname: &str) {
        let address = self.network.as_ref().and_then(|network| network.address).map(|(address, _)| address.into());
        if let Err(cause) = rustix::system::sethostname(hostname.as_bytes()) {
            crate::console::say(&format!("setting the hostname {hostname}: {cause}"));
        }
        let (mut nameservers, mut search) =
            self.config.as_ref().map_or_else(Default::default, |config| (config.nameservers.clone(), config.search.clone()));
        // What the VM was given wins over what its network says.
        let (leased_nameservers, domain) = self.lease.names();
        if nameservers.is_empty() {
            nameservers = leased_nameservers;
        }
        if search.is_empty() {
            search.extend(domain);
        }
        if let Err(error) = etc::write(Path::new("/etc"), hostname, address, &nameservers, &search) {
            crate::console::say(&error.message);
        }
        self.state.update(|status| hostname.clone_into(&mut status.hostname));
    }

    fn start(&mut self, again: bool) {
        self.restart_at = None;
        let Some(config) = self.config.as_ref().filter(|config| config.workload.is_some()) else { return };
        self.state.update(|status| {
            status.workload.state = WorkloadState::Starting;
            status.workload.restarts += u32::from(again);
            status.health = Health::default();
        });
        let address = self.state.status().network.address;
        // A workload finds its address and its name servers in every mode. A later start must not wait: the network may stay away.
        if !again && address.is_none() && self.lease.is_asking() {
            return;
        }
        let extra: Vec<(&str, &str)> = [
            ("VOLANT_RUNTIME", &self.line.runtime),
            ("VOLANT_PLUGIN", &self.line.plugin),
            ("VOLANT_API_HOST", &self.line.api_host),
            ("VOLANT_API_PORT", &self.line.api_port),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
        .collect();
        let env = process::environment(config, self.state.identity().as_ref(), address.as_deref(), &extra);
        self.state.set_environment(env.clone());
        match process::start(config, &env) {
            Ok(started) => {
                crate::console::say(&format!("the workload runs as process {}", started.pid.as_raw_nonzero()));
                for (stream, pipe) in [(Stream::Stdout, started.stdout), (Stream::Stderr, started.stderr)] {
                    self.collectors.spawn_local(collect(self.state.clone(), stream, pipe));
                }
                let probe = Target::of(config).ok().map(|target| tokio::task::spawn_local(probe::watch(self.state.clone(), target)));
                let healthy = probe.is_none();
                self.running = Some(Running { pid: started.pid, since: Instant::now(), probe });
                self.state.update(|status| {
                    status.workload.state = WorkloadState::Running { pid: started.pid.as_raw_nonzero().get() };
                    if healthy {
                        status.health = Health::Healthy;
                    }
                });
            }
            Err(cause) => {
                let mut program = config.workload.as_ref().and_then(|workload| workload.entrypoint.first()).cloned().unwrap_or_default();
                cut(&mut program, LONGEST_MESSAGE);
                let reason = format!("{program} could not be started: {cause}");
                self.state.remark(&reason);
                let restart_in_ms = self.schedule_restart(Duration::ZERO, false);
                self.state.update(|status| status.workload.state = WorkloadState::Failed { reason, restart_in_ms });
            }
        }
    }

    fn schedule_restart(&mut self, ran_for: Duration, succeeded: bool) -> Option<u64> {
        let policy = self.config.as_ref()?.workload.as_ref()?.restart;
        if !wants_restart(policy, succeeded) {
            return None;
        }
        let delay = self.backoff.next(ran_for);
        self.restart_at = Some(Instant::now() + delay);
        Some(delay.as_millis() as u64)
    }

    /// Collects every dead child; the workload's death has consequences.
    fn reap(&mut self) {
        while let Some((pid, ending)) = process::reap_one() {
            let Some(running) = self.running.take_if(|running| running.pid == pid) else {
                self.state.child_ended(pid, ending);
                continue;
            };
            if let Some(probe) = &running.probe {
                probe.abort();
            }
            process::kill_all(pid);
            self.state.remark(&format!("the workload {ending}"));
            let stopping = self.state.status().workload.state == WorkloadState::Stopping;
            let restart_in_ms = if stopping { None } else { self.schedule_restart(running.since.elapsed(), ending.succeeded()) };
            self.state.update(|status| {
                if !stopping {
                    status.workload.state = WorkloadState::Exited { code: ending.code, signal: ending.signal, restart_in_ms };
                }
                status.health = Health::default();
            });
        }
    }

    /// Ends the workload: asks, waits, kills. Nothing is started again by it.
    async fn stop(&mut self, timeout: Duration) {
        let Some(pid) = self.running.as_ref().map(|running| running.pid) else {
            self.restart_at = None;
            return;
        };
        process::terminate(pid);
        let deadline = tokio::time::Instant::now() + timeout;
        while self.running.is_some() {
            tokio::select! {
                _ = self.children.recv() => self.reap(),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        if self.running.is_some() {
            self.state.remark(&format!("the workload did not end within {} ms: killing it", timeout.as_millis()));
            process::kill_all(pid);
            while self.running.is_some() {
                let _ = self.children.recv().await;
                self.reap();
            }
        }
        self.restart_at = None;
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Reads one of the workload's pipes into the log and, within bounds, onto the console.
async fn collect(state: Rc<State>, stream: Stream, pipe: OwnedFd) {
    let Ok(mut pipe) = pipe::Receiver::from_owned_fd(pipe) else { return };
    let name = if stream == Stream::Stderr { "stderr" } else { "stdout" };
    let mut splitter = LineSplitter::default();
    let mut buffer = vec![0u8; 4096];
    let emit = |line: String, truncated: bool| {
        crate::console::echo(name, &line);
        state.log(stream, line, truncated);
    };
    while let Ok(count) = pipe.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        splitter.feed(&buffer[..count], emit);
        // A workload that prints without end must not keep the link waiting: others have their turn after each piece.
        tokio::task::yield_now().await;
    }
    splitter.finish(emit);
}
