//! The hypervisor's own state: whether the guest's processor runs, who listens to its events, and how it ends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::UnixStream;

/// Why a machine went down: QEMU's ShutdownCause (qapi/run-state.json).
#[derive(Clone, Copy)]
pub enum Cause {
    GuestShutdown,
    GuestReset,
    HostSignal,
    HostQuit,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::GuestShutdown => "guest-shutdown",
            Self::GuestReset => "guest-reset",
            Self::HostSignal => "host-signal",
            Self::HostQuit => "host-qmp-quit",
        }
    }
}

#[derive(Default)]
pub struct Hypervisor {
    running: Cell<bool>,
    hung: Cell<bool>,
    started: Cell<bool>,
    stopped_guest: RefCell<Option<Waker>>,
    listener: RefCell<Option<Rc<UnixStream>>>,
    power_button: tokio::sync::Notify,
}

impl Hypervisor {
    pub fn new(paused: bool) -> Self {
        let hypervisor = Self::default();
        hypervisor.running.set(!paused);
        hypervisor.started.set(!paused);
        hypervisor
    }

    /// `status` of QMP's query-status.
    pub fn status(&self) -> &'static str {
        match (self.running.get(), self.started.get()) {
            (true, _) => "running",
            (false, true) => "paused",
            (false, false) => "prelaunch",
        }
    }

    pub fn is_running(&self) -> bool {
        self.running.get()
    }

    /// Whether the guest may go on. Where it may not, it is woken when it may.
    pub fn lets_guest_run(&self, cx: &mut Context<'_>) -> bool {
        if self.running.get() && !self.hung.get() {
            return true;
        }
        *self.stopped_guest.borrow_mut() = Some(cx.waker().clone());
        false
    }

    pub fn stop(&self) {
        if self.running.replace(false) {
            self.emit("STOP", serde_json::Value::Null);
        }
    }

    pub fn resume(&self) {
        self.started.set(true);
        if self.running.replace(true) {
            return;
        }
        self.emit("RESUME", serde_json::Value::Null);
        if let Some(guest) = self.stopped_guest.take() {
            guest.wake();
        }
    }

    /// The guest does nothing any more, for good; nobody is told, as with a kernel that spins.
    pub fn hang(&self) {
        self.hung.set(true);
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.emit("POWERDOWN", serde_json::Value::Null);
        self.power_button.notify_one();
    }

    /// Resolves when the power button has been pressed.
    pub async fn power_button(&self) {
        self.power_button.notified().await;
    }

    /// Who is told of events from now on.
    pub fn tell(&self, listener: Option<Rc<UnixStream>>) {
        *self.listener.borrow_mut() = listener;
    }

    fn emit(&self, event: &str, data: serde_json::Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let timestamp = serde_json::json!({ "seconds": now.as_secs(), "microseconds": now.subsec_micros() });
        let mut message = serde_json::json!({ "timestamp": timestamp, "event": event });
        if !data.is_null() {
            message["data"] = data;
        }
        if let Some(listener) = &*self.listener.borrow() {
            // Events are few and short: a socket that has no room for one belongs to a client that has stopped reading.
            let _ = listener.try_write(format!("{message}\r\n").as_bytes());
        }
    }

    /// Tells why, and ends the process. With `-no-reboot`, which volantd always gives, a reset ends it too.
    pub fn end(&self, cause: Cause) -> ! {
        let guest = matches!(cause, Cause::GuestShutdown | Cause::GuestReset);
        self.emit("SHUTDOWN", serde_json::json!({ "guest": guest, "reason": cause.name() }));
        std::process::exit(0)
    }
}
