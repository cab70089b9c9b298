//! Reaching into the guest on a host's behalf: connections to its ports, and programs run in it. Each is one HTTP/2 request that stays
//! open, its bodies carrying bytes both ways; flow control makes a slow end slow the other one, and costs no memory.
pub mod exec;
pub mod exec_frame;
pub mod exec_process;
pub mod forward;
