//! PID 1, from the kernel's first call to the machine's end.

use crate::boot::cmdline::CommandLine;
use crate::boot::{modules, mounts};
use crate::console;
use crate::error::AgentError;
use crate::link::answer::Answer;
use crate::link::control::{Endpoint, converse};
use crate::link::port::{self, Port};
use crate::link::protocol::{AgentInfo, Ask, Hello, PROTOCOL};
use crate::link::service::Service;
use crate::link::stream::Resumed;
use crate::link::vsock;
use crate::power;
use crate::state::{State, now_ms};
use crate::status::Status;
use crate::uevent;
use crate::workload::supervisor::{Command, EndMode, Supervisor};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a guest with a manifest on its command line waits for a host before it goes by that.
const FALLBACK_AFTER: Duration = Duration::from_secs(5);

/// Runs the agent. Returns only when this is not the first process of a machine.
pub fn main() -> i32 {
    if rustix::process::getpid().as_raw_nonzero().get() != 1 {
        eprintln!("kestrel {} runs as the first process of a Volant guest (rdinit=/.volant/init), not by hand", env!("CARGO_PKG_VERSION"));
        return 2;
    }
    let problems = mounts::mount_all();
    console::open();
    std::panic::set_hook(Box::new(|panic| {
        console::say(&format!("fatal: {panic}"));
        power::cut(EndMode::Poweroff)
    }));
    if let Err(cause) = replace_standard_streams() {
        console::say(&format!("standard streams: {cause}"));
    }
    for problem in problems {
        console::say(&problem);
    }
    match boot() {
        Ok(mode) => power::end(mode),
        Err(cause) => {
            console::say(&format!("fatal: {cause}"));
            power::cut(EndMode::Poweroff)
        }
    }
}

fn boot() -> io::Result<EndMode> {
    let line = CommandLine::parse(&fs::read_to_string("/proc/cmdline")?);
    let uevents = uevent::open()?;
    let problems = modules::load_all();
    for problem in problems.iter().chain(&line.problems) {
        console::say(problem);
    }
    if let Some(disk) = line.wanted_root_disk() {
        return Err(io::Error::other(format!(
            "root disk {disk}: this agent boots from the initramfs only; remove volant.rootfs_device or set volant.boot=initramfs"
        )));
    }
    // Ctrl-alt-del becomes SIGINT to this process instead of an immediate restart (man 2 reboot).
    let _ = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
    if let Err(error) = crate::net::apply::raise_loopback() {
        console::say(&error.message);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, live(Rc::new(line), uevents))
}

async fn live(line: Rc<CommandLine>, uevents: OwnedFd) -> io::Result<EndMode> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    let state = Rc::new(State::new(boot_id.clone()));
    let (commands, inbox) = mpsc::channel(16);
    let changes = watch::Sender::new(0);

    let mut supervisor = Supervisor::new(state.clone(), line.clone())?;
    supervisor.apply_command_line();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::user_defined1(), SignalKind::user_defined2()] {
        let mut signals = signal(kind)?;
        let commands = commands.clone();
        tokio::task::spawn_local(async move {
            while signals.recv().await.is_some() {
                let _ = commands.send(Command::Shutdown { mode: EndMode::Poweroff, timeout: None }).await;
            }
        });
    }
    tokio::task::spawn_local(watch_power_button(changes.clone(), commands.clone()));
    let pump = changes.clone();
    tokio::task::spawn_local(async move {
        if let Err(cause) = uevent::pump(uevents, pump).await {
            console::say(&format!("uevents: {cause}"));
        }
    });
    if let Some(ip) = line.ip.clone().filter(|_| !state.status().network.applied) {
        // The card may be announced after its driver was loaded.
        let (changes, state, commands) = (changes.clone(), state.clone(), commands.clone());
        tokio::task::spawn_local(async move {
            uevent::appears(&changes, || crate::net::apply::interface_index(&ip.interface)).await;
            if !state.status().network.applied {
                let _ = commands.send(Command::DeviceAppeared).await;
            }
        });
    }
    if let Some(manifest) = line.manifest.clone() {
        tokio::task::spawn_local(fall_back(manifest, state.clone(), commands.clone()));
    }
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let service = Service { state, commands };
    let nonces = watch::Sender::new(String::new());
    let vsock_port = attend_vsock(&nonces, &service);
    let link = Rc::new(Link {
        agent: AgentInfo { version: env!("CARGO_PKG_VERSION"), protocol: PROTOCOL, kernel, boot_id, vsock_port },
        service,
        changes,
        nonces,
    });
    tokio::task::spawn_local(call_home(link));
    Ok(supervisor.run(inbox).await)
}

async fn watch_power_button(changes: watch::Sender<u64>, commands: mpsc::Sender<Command>) {
    let (pressed, mut presses) = mpsc::channel(1);
    tokio::task::spawn_local(power::watch_buttons(changes, pressed));
    while presses.recv().await.is_some() {
        console::say("the power button was pressed");
        let _ = commands.send(Command::Shutdown { mode: EndMode::Poweroff, timeout: None }).await;
    }
}

/// A guest built for v1 finds its manifest on the command line; it is used when no host has configured the guest by then.
async fn fall_back(manifest: String, state: Rc<State>, commands: mpsc::Sender<Command>) {
    let config = match crate::manifest::decode(&manifest) {
        Ok(config) => config,
        Err(error) => return console::say(&error.message),
    };
    tokio::time::sleep(FALLBACK_AFTER).await;
    if state.identity().is_none() && state.status().config_version.is_none() {
        console::say("no host has called: going by the manifest of the command line");
        let (answer, answered) = oneshot::channel();
        let _ = commands.send(Command::Configure(Box::new(config), answer)).await;
        if let Ok(Err(error)) = answered.await {
            console::say(&error.message);
        }
    }
}

/// Listens on virtio-vsock where there is such a device, and says on which port. Without it everything goes over the stream port.
fn attend_vsock(nonces: &watch::Sender<String>, service: &Service) -> Option<u32> {
    let listener = vsock::listen().unwrap_or_else(|cause| {
        console::say(&format!("vsock: {cause}"));
        None
    })?;
    let (nonces, service) = (nonces.subscribe(), service.clone());
    tokio::task::spawn_local(async move {
        if let Err(cause) = vsock::attend(listener, nonces, service).await {
            console::say(&format!("vsock: {cause}"));
        }
    });
    Some(vsock::PORT)
}

/// The link's end in the guest.
struct Link {
    agent: AgentInfo,
    service: Service,
    changes: watch::Sender<u64>,
    /// The present session's, for the connections that belong to it.
    nonces: watch::Sender<String>,
}

async fn call_home(link: Rc<Link>) {
    loop {
        let node = uevent::appears(&link.changes, || port::find(port::CONTROL)).await;
        let ended = match Port::open(&node) {
            Ok(control) => converse(control, link.clone()).await,
            Err(cause) => Err(cause),
        };
        if let Err(cause) = ended {
            console::say(&format!("control port {node}: {cause}"));
        }
        // A port fails when it is unplugged, and opening one fails while the device is half made: look again then.
        let mut news = link.changes.subscribe();
        tokio::select! {
            _ = news.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
}

impl Endpoint for Link {
    type Stream = Port;
    type Change = Status;

    fn agent(&self) -> &AgentInfo {
        &self.agent
    }

    fn greeted(&self, hello: &Hello) {
        self.nonces.send_replace(hello.nonce.clone());
        let state = &self.service.state;
        state.identify(hello.identity.clone());
        state.update(|status| status.generation = hello.generation);
        // The supervisor may be on its way out.
        let _ = self.service.commands.try_send(Command::Greeted);
    }

    fn now_ms(&self) -> i64 {
        now_ms()
    }

    fn set_clock(&self, unix_ms: i64) {
        let moment = rustix::time::Timespec { tv_sec: unix_ms.div_euclid(1000), tv_nsec: (unix_ms.rem_euclid(1000) * 1_000_000) as _ };
        match rustix::time::clock_settime(rustix::time::ClockId::Realtime, moment) {
            Ok(()) => console::say(&format!("the clock was set to {}", crate::wall_time::format(unix_ms))),
            Err(cause) => console::say(&format!("setting the clock: {cause}")),
        }
    }

    fn status(&self) -> String {
        self.service.state.report()
    }

    fn watch_status(&self) -> watch::Receiver<Status> {
        self.service.state.watch_status()
    }

    async fn answer(&self, question: Ask) -> Answer {
        self.service.answer(question).await
    }

    async fn open_stream(&self) -> Result<Port, AgentError> {
        let node = uevent::appears(&self.changes, || port::find(port::STREAM)).await;
        Port::open(&node).map_err(|cause| AgentError::new(503, "stream_port", format!("the stream port can't be opened: {cause}")))
    }

    async fn serve(&self, mut stream: Resumed<Port>) {
        stream.stream.end_with_host();
        if let Err(cause) = self.service.serve(stream).await {
            // The host's death is ordinary; it comes back with another hello.
            if !cause.is_io() {
                console::say(&format!("link: {cause}"));
            }
        }
    }
}

/// Nothing that the agent starts shall inherit the console by accident.
fn replace_standard_streams() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}
