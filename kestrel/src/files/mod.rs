//! `/v1/files`: files and directories of the guest, carried as a tar archive (POSIX pax), or a single file as its bytes. Work on files
//! blocks, so each request has a thread of its own; a channel of a few pieces joins it to the stream, whose flow control it passes on.
mod failure;
#[cfg(test)]
mod files_tests;
mod pack;
mod place;
mod resource;
mod tar;
mod tar_reader;
mod unpack;

pub use resource::{Target, receive, send};
