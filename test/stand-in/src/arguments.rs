//! QEMU's argument list, as far as volantd uses it: what real QEMU refuses is refused, in about its words. `test/crash/stand-in-verdicts.test.ts`
//! holds both against the same lists.

use crate::devices::{self, Bus, Device, Role};
use crate::host;
use crate::options::{Kind, Options, Property, number, size};
use std::os::fd::RawFd;

/// Of `microvm` and `q35` in QEMU 7.2.
const MOST_CPUS: u64 = 288;
/// Both machines' when `-m` says nothing, or 0.
const DEFAULT_MEMORY: u64 = 128 << 20;
/// A virtio-serial device's ports unless it says otherwise; port 0 is a console's.
const DEFAULT_PORTS: u64 = 31;

const NAME: &[Property] = &[("guest", Kind::Text), ("process", Kind::Text), ("debug-threads", Kind::Flag)];
const ALLOW: Kind = Kind::OneOf(&["allow", "deny"]);
const SANDBOX: &[Property] = &[
    ("enable", Kind::Flag),
    ("obsolete", ALLOW),
    ("elevateprivileges", Kind::OneOf(&["allow", "deny", "children"])),
    ("spawn", ALLOW),
    ("resourcecontrol", ALLOW),
];
const ACCELERATOR: &[Property] = &[("accel", Kind::OneOf(&["tcg", "kvm"]))];
const TCG: &[Property] = &[
    ("tb-size", Kind::Number(u64::MAX)),
    ("thread", Kind::OneOf(&["single", "multi"])),
    ("split-wx", Kind::Flag),
    ("one-insn-per-tb", Kind::Flag),
];
const MACHINE: &[Property] = &[
    ("type", Kind::Text),
    ("dump-guest-core", Kind::Flag),
    ("mem-merge", Kind::Flag),
    ("memory-backend", Kind::Text),
    ("usb", Kind::Flag),
];
const MEMORY: &[Property] = &[("size", Kind::Size)];
const CPUS: &[Property] = &[("cpus", Kind::Number(u64::MAX))];
const MONITOR: &[Property] = &[("chardev", Kind::Text), ("mode", Kind::OneOf(&["readline", "control"])), ("pretty", Kind::Flag)];
const FD_SET: &[Property] = &[("fd", Kind::Number(i32::MAX as u64)), ("set", Kind::Number(i32::MAX as u64)), ("opaque", Kind::Text)];
const CHARDEV: &[Property] =
    &[("backend", Kind::OneOf(&["socket", "null"])), ("id", Kind::Text), ("logfile", Kind::Text), ("logappend", Kind::Flag)];
const SOCKET: &[Property] = &[("fd", Kind::Number(i32::MAX as u64)), ("server", Kind::Flag), ("wait", Kind::Flag)];
const OBJECT: &[Property] = &[("qom-type", Kind::OneOf(&["rng-builtin", "memory-backend-file"])), ("id", Kind::Text)];
const MEMORY_FILE: &[Property] = &[("size", Kind::Size), ("share", Kind::Flag), ("mem-path", Kind::Text)];
const NETDEV: &[Property] =
    &[("type", Kind::OneOf(&["tap"])), ("id", Kind::Text), ("fd", Kind::Number(i32::MAX as u64)), ("vhost", Kind::Flag)];

/// A listening socket and the file that gets a copy of what is written to it.
#[derive(Clone, Copy)]
pub struct Channel {
    pub socket: RawFd,
    pub log: Option<RawFd>,
}

/// A virtio-serial port that the guest sees.
pub struct Port {
    pub name: String,
    pub channel: Option<Channel>,
}

/// The machine that the arguments describe.
#[derive(Default)]
pub struct Machine {
    pub paused: bool,
    pub cmdline: String,
    pub monitor: Option<Channel>,
    pub console: Option<Channel>,
    pub ports: Vec<Port>,
    pub tap: Option<RawFd>,
}

struct Chardev {
    id: String,
    channel: Option<Channel>,
    /// A socket that is connected already, and not one to serve.
    connected: bool,
    used: bool,
}

#[derive(Default)]
struct Given {
    values: Vec<(&'static str, String)>,
}

impl Given {
    fn all(&self, option: &'static str) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(name, _)| *name == option).map(|(_, value)| value.as_str())
    }

    fn last(&self, option: &'static str) -> Option<&str> {
        self.all(option).last()
    }
}

const WITH_VALUE: &[&str] = &[
    "-name", "-accel", "-machine", "-M", "-cpu", "-m", "-smp", "-display", "-sandbox", "-kernel", "-initrd", "-append", "-chardev", "-mon",
    "-add-fd", "-serial", "-device", "-object", "-netdev",
];
const ALONE: &[&str] = &["-nodefaults", "-no-user-config", "-no-reboot", "-S"];

/// Reads an argument list, without the program's own name, and looks at everything that it names.
pub fn read(arguments: impl Iterator<Item = String>) -> Result<Machine, String> {
    let given = collect(arguments)?;
    for value in given.all("-name") {
        Options::parse("-name", value, "guest").check(&[NAME])?;
    }
    for value in given.all("-sandbox") {
        Options::parse("-sandbox", value, "enable").check(&[SANDBOX])?;
    }
    if let Some(value) = given.last("-display").filter(|value| *value != "none") {
        return Err(format!("-display {value}: Parameter 'type' does not accept value '{value}'"));
    }
    let accelerator = check_accelerator(&given)?;
    let pci = check_machine(&given)?;
    check_cpu(&given, accelerator)?;
    let memory = check_size(&given)?;
    let sets = descriptor_sets(&given)?;
    let mut chardevs = chardevs(&given, &sets)?;
    let objects = objects(&given)?;
    check_memory_backend(&given, &objects)?;
    let mut netdevs = netdevs(&given)?;
    host::check_memory(memory)?;
    check_boot(&given)?;
    let mut machine = Machine {
        paused: given.last("-S").is_some(),
        cmdline: given.last("-append").unwrap_or("").to_owned(),
        tap: netdevs.first().map(|(_, fd, _)| *fd),
        ..Machine::default()
    };
    for value in given.all("-mon") {
        let options = Options::parse("-mon", value, "chardev");
        options.check(&[MONITOR])?;
        let channel = attach(&options, options.need("chardev")?, &mut chardevs)?;
        machine.monitor = machine.monitor.or(channel);
    }
    for value in given.all("-serial").filter(|value| !matches!(*value, "none" | "null")) {
        let options = Options::parse("-serial", value, "backend");
        let Some(id) = value.strip_prefix("chardev:") else { return options.wrong("it is not a valid char driver") };
        // The machine has one serial port. What a second one names must be there, and is not used.
        if machine.console.is_none() {
            machine.console = attach(&options, id, &mut chardevs)?;
        } else if !chardevs.iter().any(|chardev| chardev.id == id) {
            return options.wrong("could not connect serial device to character backend");
        }
    }
    let mut buses = Buses { pci, serial: None };
    for value in given.all("-device") {
        let options = Options::parse("-device", value, "driver");
        let Some(device) = options.get("driver").and_then(devices::find) else {
            return options.wrong("it is not a valid device model name");
        };
        options.check(device.properties)?;
        buses.check(device, &options)?;
        plug(device, &options, &mut buses, &mut machine, &mut chardevs, &objects, &mut netdevs)?;
    }
    Ok(machine)
}

fn collect(mut arguments: impl Iterator<Item = String>) -> Result<Given, String> {
    let mut given = Given::default();
    while let Some(word) = arguments.next() {
        // QEMU takes each option with two dashes as well.
        let option = if word.starts_with("--") { &word[1..] } else { &word };
        if let Some(name) = ALONE.iter().find(|name| **name == option) {
            given.values.push((name, String::new()));
        } else if let Some(name) = WITH_VALUE.iter().find(|name| **name == option) {
            let Some(value) = arguments.next() else { return Err(format!("{word}: requires an argument")) };
            given.values.push((if *name == "-M" { "-machine" } else { name }, value));
        } else if word.starts_with('-') {
            return Err(format!("{word}: invalid option"));
        } else {
            return Err(format!("{word}: Could not open '{word}': it is a disk image, and the stand-in takes none"));
        }
    }
    Ok(given)
}

fn check_accelerator(given: &Given) -> Result<&'static str, String> {
    let Some(value) = given.last("-accel") else { return Ok("tcg") };
    let options = Options::parse("-accel", value, "accel");
    if options.get("accel") == Some("kvm") {
        options.check(&[ACCELERATOR])?;
        return match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Ok("kvm"),
            Err(cause) => options.wrong(format_args!("Could not access KVM kernel module: {cause}")),
        };
    }
    options.check(&[ACCELERATOR, TCG])?;
    Ok("tcg")
}

/// Whether the machine has a PCI bus; the other kind has MMIO transports.
fn check_machine(given: &Given) -> Result<bool, String> {
    let Some(value) = given.last("-machine") else { return Ok(true) };
    let options = Options::parse("-machine", value, "type");
    options.check(&[MACHINE])?;
    match options.get("type") {
        Some("microvm") => Ok(false),
        Some("q35" | "pc") | None => Ok(true),
        Some(_) => options.wrong("unsupported machine type"),
    }
}

fn check_memory_backend(given: &Given, objects: &[String]) -> Result<(), String> {
    let Some(value) = given.last("-machine") else { return Ok(()) };
    let options = Options::parse("-machine", value, "type");
    match options.get("memory-backend") {
        Some(id) if !objects.iter().any(|known| known == id) => options.wrong(format_args!("memory backend '{id}' not found")),
        _ => Ok(()),
    }
}

fn check_cpu(given: &Given, accelerator: &str) -> Result<(), String> {
    match given.last("-cpu") {
        None | Some("max" | "qemu64") => {}
        Some("host") if accelerator == "kvm" => {}
        Some("host") => return Err("CPU model 'host' requires KVM or HVF".to_owned()),
        Some(other) => return Err(format!("unable to find CPU model '{other}'")),
    }
    let Some(value) = given.last("-smp") else { return Ok(()) };
    let options = Options::parse("-smp", value, "cpus");
    options.check(&[CPUS])?;
    match options.get("cpus").and_then(number) {
        Some(cpus) if cpus > MOST_CPUS => options.wrong(format_args!("Invalid SMP CPUs {cpus}. The max CPUs supported is {MOST_CPUS}")),
        _ => Ok(()),
    }
}

fn check_size(given: &Given) -> Result<u64, String> {
    let Some(value) = given.last("-m") else { return Ok(DEFAULT_MEMORY) };
    let options = Options::parse("-m", value, "size");
    options.check(&[MEMORY])?;
    let written = options.need("size")?;
    // A number without a unit is of MiB.
    let unit = if written.ends_with(|letter: char| letter.is_ascii_digit()) { 1 << 20 } else { 1 };
    match size(written).and_then(|bytes| bytes.checked_mul(unit)) {
        Some(0) => Ok(DEFAULT_MEMORY),
        Some(bytes) => Ok(bytes),
        None => options.wrong("Parameter 'size' expects a non-negative number below 2^64"),
    }
}

fn check_boot(given: &Given) -> Result<(), String> {
    let Some(kernel) = given.last("-kernel") else {
        for option in ["-initrd", "-append"] {
            if given.last(option).is_some() {
                return Err(format!("{option} only allowed with -kernel option"));
            }
        }
        return Ok(());
    };
    host::check_kernel(kernel)?;
    if let Some(initrd) = given.last("-initrd") {
        std::fs::File::open(initrd).map_err(|cause| format!("error reading initrd {initrd}: {cause}"))?;
    }
    Ok(())
}

fn descriptor(options: &Options) -> Option<RawFd> {
    options.get("fd").and_then(number).and_then(|fd| RawFd::try_from(fd).ok())
}

fn descriptor_sets(given: &Given) -> Result<Vec<(u64, RawFd)>, String> {
    let mut sets = Vec::new();
    for value in given.all("-add-fd") {
        let options = Options::parse("-add-fd", value, "fd");
        options.check(&[FD_SET])?;
        let Some(fd) = descriptor(&options) else { return options.wrong("fd option is required and must be non-negative") };
        if fd <= 2 {
            return options.wrong("fd cannot be a standard I/O stream");
        }
        let Some(set) = options.get("set").and_then(number) else {
            return options.wrong("set option is required and must be non-negative");
        };
        if !host::is_open(fd) {
            return options.wrong("fd is not valid or already in use");
        }
        sets.push((set, fd));
    }
    Ok(sets)
}

fn chardevs(given: &Given, sets: &[(u64, RawFd)]) -> Result<Vec<Chardev>, String> {
    let mut chardevs: Vec<Chardev> = Vec::new();
    for value in given.all("-chardev") {
        let options = Options::parse("-chardev", value, "backend");
        let socket = options.get("backend") == Some("socket");
        options.check(if socket { &[CHARDEV, SOCKET] } else { &[CHARDEV] })?;
        let id = options.id()?;
        if chardevs.iter().any(|chardev| chardev.id == id) {
            return options.wrong(format_args!("Duplicate ID '{id}' for chardev"));
        }
        let log = options.get("logfile").map(|path| host::open_log(path, sets)).transpose()?;
        let channel = if socket {
            let Some(fd) = descriptor(&options) else { return options.wrong("the stand-in takes a socket by its fd only") };
            if !host::is_socket(fd) {
                return options.wrong(format_args!("File descriptor '{fd}' is not a socket"));
            }
            options.is_on("server").then_some(Channel { socket: fd, log })
        } else {
            None
        };
        let connected = socket && channel.is_none();
        chardevs.push(Chardev { id, channel, connected, used: false });
    }
    Ok(chardevs)
}

fn objects(given: &Given) -> Result<Vec<String>, String> {
    let mut objects: Vec<String> = Vec::new();
    for value in given.all("-object") {
        let options = Options::parse("-object", value, "qom-type");
        let file = options.get("qom-type") == Some("memory-backend-file");
        options.check(if file { &[OBJECT, MEMORY_FILE] } else { &[OBJECT] })?;
        let id = options.id()?;
        if file {
            let path = options.need("mem-path")?;
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map_err(|cause| format!("can't open backing store {path} for guest RAM: {cause}"))?;
        }
        if objects.contains(&id) {
            return options.wrong(format_args!("Duplicate ID '{id}' for object"));
        }
        objects.push(id);
    }
    Ok(objects)
}

fn netdevs(given: &Given) -> Result<Vec<(String, RawFd, bool)>, String> {
    let mut netdevs: Vec<(String, RawFd, bool)> = Vec::new();
    for value in given.all("-netdev") {
        let options = Options::parse("-netdev", value, "type");
        options.check(&[NETDEV])?;
        let id = options.id()?;
        if netdevs.iter().any(|(known, _, _)| *known == id) {
            return options.wrong(format_args!("Duplicate ID '{id}' for netdev"));
        }
        let Some(fd) = descriptor(&options) else { return options.wrong("the stand-in takes a tap by its fd only") };
        if !host::is_tap(fd) {
            return options.wrong(format_args!("Unable to query TUNGETIFF on FD {fd}"));
        }
        if options.is_on("vhost") && !std::path::Path::new("/dev/vhost-net").exists() {
            return options.wrong("tap: open vhost char device failed: No such file or directory");
        }
        netdevs.push((id, fd, false));
    }
    Ok(netdevs)
}

/// Takes a chardev for one user; QEMU gives it to no second.
fn attach(options: &Options, id: &str, chardevs: &mut [Chardev]) -> Result<Option<Channel>, String> {
    match chardevs.iter_mut().find(|chardev| chardev.id == id) {
        None => options.wrong(format_args!("chardev '{id}' not found")),
        Some(chardev) if chardev.connected => options.wrong("the stand-in only serves sockets"),
        Some(chardev) if chardev.used => options.wrong(format_args!("Device '{id}' is in use")),
        Some(chardev) => {
            chardev.used = true;
            Ok(chardev.channel)
        }
    }
}

struct Buses {
    pci: bool,
    /// How many ports there may be.
    serial: Option<u64>,
}

impl Buses {
    fn check(&self, device: &Device, options: &Options) -> Result<(), String> {
        let there = match device.bus {
            Bus::Mmio => !self.pci,
            Bus::Pci => self.pci,
            Bus::Serial => self.serial.is_some(),
        };
        if there { Ok(()) } else { options.wrong(format_args!("No '{}' bus found for device '{}'", device.bus.name(), device.name)) }
    }
}

fn plug(
    device: &Device,
    options: &Options,
    buses: &mut Buses,
    machine: &mut Machine,
    chardevs: &mut [Chardev],
    objects: &[String],
    netdevs: &mut [(String, RawFd, bool)],
) -> Result<(), String> {
    match device.role {
        Role::SerialBus => {
            let ports = options.get("max_ports").and_then(number).unwrap_or(DEFAULT_PORTS);
            if ports == 0 {
                return options.wrong("Maximum number of serial ports not specified");
            }
            buses.serial = Some(ports);
        }
        Role::SerialPort => {
            let name = options.get("name").unwrap_or("").to_owned();
            if !name.is_empty() && machine.ports.iter().any(|port| port.name == name) {
                return options.wrong(format_args!("virtio-serial-bus: A port already exists by name {name}"));
            }
            // Number 0 is kept for a console.
            if machine.ports.len() as u64 + 1 >= buses.serial.unwrap_or(0) {
                return options.wrong("virtio-serial-bus: Out-of-range port id specified");
            }
            let channel = match options.get("chardev") {
                Some(id) => attach(options, id, chardevs)?,
                None => None,
            };
            machine.ports.push(Port { name, channel });
        }
        Role::Random => {
            if let Some(id) = options.get("rng").filter(|id| !objects.iter().any(|known| known == id)) {
                return options.wrong(format_args!("Device '{id}' not found"));
            }
        }
        Role::Vsock => {
            // Nothing goes over it: its guests' agents listen on no vsock port. The socket stays open until the process ends.
            let Some(id) = options.get("chardev") else { return options.wrong("missing chardev") };
            match chardevs.iter_mut().find(|chardev| chardev.id == id) {
                None => return options.wrong(format_args!("Property 'chardev' can't find value '{id}'")),
                Some(chardev) if !chardev.connected => return options.wrong("the stand-in takes its backend by a connected socket only"),
                Some(chardev) if chardev.used => {
                    return options.wrong(format_args!("Property 'chardev' can't take value '{id}', it's in use"));
                }
                Some(chardev) => chardev.used = true,
            }
        }
        Role::Network => {
            let Some(id) = options.get("netdev") else { return Ok(()) };
            match netdevs.iter_mut().find(|(known, _, _)| known == id) {
                None => return options.wrong(format_args!("Property 'netdev' can't find value '{id}'")),
                Some((_, _, true)) => return options.wrong(format_args!("Property 'netdev' can't take value '{id}', it's in use")),
                Some((_, _, used)) => *used = true,
            }
        }
    }
    Ok(())
}
