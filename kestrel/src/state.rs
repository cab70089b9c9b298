//! What the agent's tasks share: status, logs, identity. One thread, so plain cells.

use crate::link::protocol::Identity;
use crate::log_ring::{LogRing, RING_BYTES, Slice, Stream};
use crate::status::{Memory, Report, Status};
use crate::workload::process::Ending;
use rustix::process::Pid;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{oneshot, watch};

/// Shared by reference count among the tasks.
pub struct State {
    pub boot_id: String,
    status: watch::Sender<Status>,
    logs: RefCell<LogRing>,
    last_log: watch::Sender<u64>,
    identity: RefCell<Option<Identity>>,
    environment: RefCell<Option<BTreeMap<String, String>>>,
    endings: RefCell<HashMap<Pid, oneshot::Sender<Ending>>>,
}

impl State {
    /// The state at boot.
    pub fn new(boot_id: String) -> Self {
        Self {
            boot_id,
            status: watch::Sender::new(Status::default()),
            logs: RefCell::new(LogRing::new(RING_BYTES)),
            last_log: watch::Sender::new(0),
            identity: RefCell::new(None),
            environment: RefCell::new(None),
            endings: RefCell::new(HashMap::new()),
        }
    }

    /// Changes the status; watchers are woken if it differs afterwards.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// A copy of the status as it is.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The status as one line of JSON, without its end.
    pub fn report(&self) -> String {
        let status = self.status();
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let uptime_ms =
            read("/proc/uptime").split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).map_or(0, |s| (s * 1000.0) as u64);
        let memory = Memory::parse(&read("/proc/meminfo"), &read("/proc/self/status"));
        serde_json::to_string(&Report { status: &status, boot_id: &self.boot_id, uptime_ms, memory }).unwrap_or_default()
    }

    /// Records a line of output and wakes those who follow.
    pub fn log(&self, stream: Stream, line: String, truncated: bool) {
        let seq = self.logs.borrow_mut().push(stream, line, truncated, crate::wall_time::format(now_ms()));
        self.last_log.send_replace(seq);
    }

    /// A remark of the agent's about the workload: in its log and on the console.
    pub fn remark(&self, text: &str) {
        crate::console::say(text);
        self.log(Stream::Agent, text.to_owned(), false);
    }

    /// Reads the log after a line number.
    pub fn read_logs<T>(&self, after: u64, budget: usize, read: impl FnOnce(Slice<'_>) -> T) -> T {
        read(self.logs.borrow().after(after, budget))
    }

    /// Follows the log: the value is the last line's number.
    pub fn watch_logs(&self) -> watch::Receiver<u64> {
        self.last_log.subscribe()
    }

    /// Takes the host's word on who this guest is.
    pub fn identify(&self, identity: Identity) {
        self.identity.replace(Some(identity));
    }

    /// Who this guest is, once a host has said it.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.borrow().clone()
    }

    /// Notes what the workload was started with.
    pub fn set_environment(&self, environment: BTreeMap<String, String>) {
        self.environment.replace(Some(environment));
    }

    /// What the workload was started with, for programs beside it; before there was one, what every program gets.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let known = self.environment.borrow().clone();
        known.unwrap_or_else(|| crate::workload::process::environment(&Default::default(), self.identity().as_ref(), None, &[]))
    }

    /// Resolves when this child has ended. To be called before anything else runs after the child was started, or its end may be missed.
    pub fn ending_of(&self, pid: Pid) -> oneshot::Receiver<Ending> {
        let (tell, told) = oneshot::channel();
        self.endings.borrow_mut().insert(pid, tell);
        told
    }

    /// Passes on how a child ended that is not the workload. Most are orphans, which nobody waits for.
    pub fn child_ended(&self, pid: Pid, ending: Ending) {
        if let Some(waiting) = self.endings.borrow_mut().remove(&pid) {
            let _ = waiting.send(ending);
        }
    }
}

/// The wall clock in Unix milliseconds.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as i64)
}
