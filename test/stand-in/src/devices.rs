//! The devices that volantd uses, with their properties, as QEMU 7.2 lists them (`-device <name>,help`). Pure data.

use crate::options::{Kind, Property};

/// Where a device is plugged in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// Transports of `microvm`.
    Mmio,
    Pci,
    /// Ports of a virtio-serial device.
    Serial,
}

impl Bus {
    /// QEMU's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mmio => "virtio-bus",
            Self::Pci => "PCI",
            Self::Serial => "virtio-serial-bus",
        }
    }
}

/// What a device does here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Network,
    SerialBus,
    SerialPort,
    Random,
    /// Served by a process of its own, which gets the guest's memory.
    Vsock,
}

pub struct Device {
    pub name: &'static str,
    pub bus: Bus,
    pub role: Role,
    pub properties: &'static [&'static [Property]],
}

const NUMBER_32: Kind = Kind::Number(u32::MAX as u64);
const NUMBER_16: Kind = Kind::Number(u16::MAX as u64);

const ANY: &[Property] = &[("driver", Kind::Text), ("id", Kind::Text), ("bus", Kind::Text)];

const VIRTIO: &[Property] = &[
    ("any_layout", Kind::Flag),
    ("event_idx", Kind::Flag),
    ("indirect_desc", Kind::Flag),
    ("iommu_platform", Kind::Flag),
    ("notify_on_empty", Kind::Flag),
    ("packed", Kind::Flag),
    ("queue_reset", Kind::Flag),
];

const PCI: &[Property] = &[
    ("addr", Kind::Text),
    ("aer", Kind::Flag),
    ("ats", Kind::Flag),
    ("disable-legacy", Kind::OneOf(&["on", "off", "auto"])),
    ("disable-modern", Kind::Flag),
    ("ioeventfd", Kind::Flag),
    ("multifunction", Kind::Flag),
    ("page-per-vq", Kind::Flag),
    ("rombar", NUMBER_32),
    ("romfile", Kind::Text),
    ("vectors", NUMBER_32),
];

const NETWORK: &[Property] = &[
    ("csum", Kind::Flag),
    ("ctrl_guest_offloads", Kind::Flag),
    ("ctrl_mac_addr", Kind::Flag),
    ("ctrl_rx", Kind::Flag),
    ("ctrl_rx_extra", Kind::Flag),
    ("ctrl_vlan", Kind::Flag),
    ("ctrl_vq", Kind::Flag),
    ("gso", Kind::Flag),
    ("guest_announce", Kind::Flag),
    ("guest_csum", Kind::Flag),
    ("guest_ecn", Kind::Flag),
    ("guest_rsc_ext", Kind::Flag),
    ("guest_tso4", Kind::Flag),
    ("guest_tso6", Kind::Flag),
    ("guest_ufo", Kind::Flag),
    ("host_ecn", Kind::Flag),
    ("host_mtu", NUMBER_16),
    ("host_tso4", Kind::Flag),
    ("host_tso6", Kind::Flag),
    ("host_ufo", Kind::Flag),
    ("mac", Kind::Mac),
    ("mq", Kind::Flag),
    ("mrg_rxbuf", Kind::Flag),
    ("netdev", Kind::Text),
    ("rx_queue_size", NUMBER_16),
    ("status", Kind::Flag),
    ("tx_queue_size", NUMBER_16),
];

const SERIAL_BUS: &[Property] = &[("emergency-write", Kind::Flag), ("max_ports", NUMBER_32)];
const SERIAL_PORT: &[Property] = &[("chardev", Kind::Text), ("name", Kind::Text), ("nr", NUMBER_32)];
const RANDOM: &[Property] = &[("max-bytes", Kind::Number(u64::MAX)), ("period", NUMBER_32), ("rng", Kind::Text)];

const VSOCK: &[Property] = &[("chardev", Kind::Text), ("seqpacket", Kind::OneOf(&["on", "off", "auto"]))];

const DEVICES: &[Device] = &[
    Device { name: "virtio-net-device", bus: Bus::Mmio, role: Role::Network, properties: &[ANY, VIRTIO, NETWORK] },
    Device { name: "virtio-net-pci", bus: Bus::Pci, role: Role::Network, properties: &[ANY, VIRTIO, PCI, NETWORK] },
    Device { name: "virtio-serial-device", bus: Bus::Mmio, role: Role::SerialBus, properties: &[ANY, VIRTIO, SERIAL_BUS] },
    Device { name: "virtio-serial-pci", bus: Bus::Pci, role: Role::SerialBus, properties: &[ANY, VIRTIO, PCI, SERIAL_BUS] },
    Device { name: "virtserialport", bus: Bus::Serial, role: Role::SerialPort, properties: &[ANY, SERIAL_PORT] },
    Device { name: "virtio-rng-device", bus: Bus::Mmio, role: Role::Random, properties: &[ANY, VIRTIO, RANDOM] },
    Device { name: "vhost-user-vsock-device", bus: Bus::Mmio, role: Role::Vsock, properties: &[ANY, VIRTIO, VSOCK] },
    Device { name: "vhost-user-vsock-pci", bus: Bus::Pci, role: Role::Vsock, properties: &[ANY, VIRTIO, PCI, VSOCK] },
    Device { name: "virtio-rng-pci", bus: Bus::Pci, role: Role::Random, properties: &[ANY, VIRTIO, PCI, RANDOM] },
];

/// The device of this name.
pub fn find(name: &str) -> Option<&'static Device> {
    DEVICES.iter().find(|device| device.name == name)
}
