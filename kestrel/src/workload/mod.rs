//! The program this guest exists for: started, watched, started again, ended.
pub mod backoff;
pub mod lease;
pub mod probe;
pub mod process;
pub mod supervisor;
