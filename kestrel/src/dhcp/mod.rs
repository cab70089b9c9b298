//! The DHCP client (RFC 2131): messages, the pure state machine, the sockets, and the task that drives them.
pub mod client;
pub mod lease;
pub mod machine;
pub mod message;
pub mod socket;
