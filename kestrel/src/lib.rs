//! kestrel, Volant's guest agent: PID 1 of every microVM. It loads drivers, applies the network, calls home over virtio-serial,
//! receives its configuration there, and starts, watches and ends the workload. It listens on no network address.
//!
//! The wire protocol is written down in docs/agent-protocol.md; golden/ holds frames that both ends' tests decode.

pub mod boot;
pub mod config;
pub mod console;
pub mod dhcp;
pub mod error;
pub mod files;
pub mod health;
pub mod init;
pub mod link;
pub mod log_ring;
pub mod manifest;
pub mod net;
pub mod power;
pub mod reach;
pub mod readiness;
pub mod state;
pub mod status;
pub mod uevent;
pub mod wall_time;
pub mod workload;
