//! The guest's network: addresses by netlink, names by files.
pub mod apply;
pub mod etc;
pub mod netlink;
