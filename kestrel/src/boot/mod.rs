//! From the kernel's hands to a machine that can be configured.
pub mod cmdline;
pub mod modules;
pub mod mounts;
