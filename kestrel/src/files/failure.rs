//! What the kernel says about a file, as a sentence with a code.

use crate::error::AgentError;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Why `path` could not be read or written.
pub fn failure(path: &Path, cause: &io::Error) -> AgentError {
    let shown = path.display();
    match cause.kind() {
        ErrorKind::NotFound => AgentError::new(404, "not_found", format!("the guest has no file or directory {shown}")),
        ErrorKind::IsADirectory => AgentError::new(409, "is_directory", format!("{shown} is a directory in the guest")),
        ErrorKind::NotADirectory => AgentError::new(409, "not_a_directory", format!("{shown} leads through a file, which is no directory")),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            AgentError::new(507, "no_space", format!("no space is left in the guest for {shown}"))
        }
        ErrorKind::ReadOnlyFilesystem => AgentError::new(409, "read_only", format!("{shown} is on a read-only file system in the guest")),
        ErrorKind::InvalidFilename => AgentError::invalid(format!("{shown}: the name is too long")),
        // From our own reader, in words already.
        ErrorKind::UnexpectedEof => AgentError::invalid("what was sent ended before it was complete"),
        ErrorKind::InvalidData => AgentError::invalid(cause.to_string()),
        _ => AgentError::failed(&format!("{shown} in the guest"), cause),
    }
}
