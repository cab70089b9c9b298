//! Packing a file or a directory of the guest into an archive. Links are not followed below the path that was asked for, and other file
//! systems mounted below it are left out: /proc has files without end.

use super::failure::failure;
use super::tar::{self, Entry, Kind};
use crate::error::AgentError;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes carried at a time.
const PIECE: usize = 64 * 1024;
/// A file that says it is empty, as all do in /proc and /sys, is read up to here to see.
const LARGEST_SIZELESS: usize = 1024 * 1024;

/// What is to be packed: it was there when this was made.
pub struct Source {
    path: PathBuf,
    found: Metadata,
    top: Vec<u8>,
}

impl Source {
    /// Looks at `path`, following it where it is a link.
    pub fn open(path: &Path) -> Result<Self, AgentError> {
        let failed = |cause: io::Error| failure(path, &cause);
        let real = fs::canonicalize(path).map_err(failed)?;
        let found = fs::symlink_metadata(&real).map_err(failed)?;
        if !found.is_dir() && path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(AgentError::new(409, "not_a_directory", format!("{} is no directory in the guest", path.display())));
        }
        if !found.is_dir() && !found.is_file() {
            return Err(AgentError::new(409, "not_a_file", format!("{} is neither a file nor a directory in the guest", path.display())));
        }
        if found.is_file() {
            File::open(&real).map_err(failed)?;
        }
        let top = path.file_name().map_or_else(|| b"root".to_vec(), |name| name.as_bytes().to_vec());
        Ok(Self { path: real, found, top })
    }

    /// Writes the whole archive. What can't be read ends it early, with the reason in its last header.
    ///
    /// An error means that the archive is not whole: its reader is gone, or a file ended before its size.
    pub fn pack(&self, output: &mut impl Write) -> io::Result<()> {
        let mut packing = Packing { output, device: self.found.dev(), left_out: 0, buffer: vec![0; PIECE] };
        let trouble = match packing.put_tree(&self.path, self.top.clone(), &self.found) {
            Ok(()) => None,
            Err(Stop::Unreadable(error)) => Some(error),
            Err(Stop::Broken(cause)) => return Err(cause),
        };
        let left_out = packing.left_out;
        let mut remarks = Vec::new();
        if let Some(error) = trouble {
            remarks.push(("VOLANT.error", error.message));
        }
        if left_out > 0 {
            remarks.push(("VOLANT.left_out", left_out.to_string()));
        }
        output.write_all(&tar::encode_end(&remarks))?;
        output.flush()
    }
}

enum Stop {
    /// Something could not be read, and the archive is whole up to there.
    Unreadable(AgentError),
    Broken(io::Error),
}

impl From<io::Error> for Stop {
    fn from(cause: io::Error) -> Self {
        Self::Broken(cause)
    }
}

struct Packing<'a, W> {
    output: &'a mut W,
    device: u64,
    left_out: u64,
    buffer: Vec<u8>,
}

/// A directory whose children are being packed.
struct Level {
    path: PathBuf,
    name: Vec<u8>,
    children: std::vec::IntoIter<OsString>,
}

impl<W: Write> Packing<'_, W> {
    /// Packs a path and all that lies below it. Levels are kept in a list: how deep a tree is, is the guest's to say, and a thread's stack is small.
    fn put_tree(&mut self, path: &Path, name: Vec<u8>, found: &Metadata) -> Result<(), Stop> {
        let mut levels: Vec<Level> = self.put(path, name, found)?.into_iter().collect();
        while let Some(level) = levels.last_mut() {
            let Some(child) = level.children.next() else {
                levels.pop();
                continue;
            };
            let below = level.path.join(&child);
            let name = [&level.name[..], b"/", child.as_bytes()].concat();
            match fs::symlink_metadata(&below) {
                Ok(found) => levels.extend(self.put(&below, name, &found)?),
                // Gone since the directory was read.
                Err(cause) if cause.kind() == ErrorKind::NotFound => {}
                Err(cause) => return Err(Stop::Unreadable(failure(&below, &cause))),
            }
        }
        Ok(())
    }

    /// Packs one thing; a directory's children are still to come.
    fn put(&mut self, path: &Path, name: Vec<u8>, found: &Metadata) -> Result<Option<Level>, Stop> {
        let unreadable = |cause: io::Error| Stop::Unreadable(failure(path, &cause));
        let mode = found.mode() & 0o7777;
        let mtime = u64::try_from(found.mtime()).unwrap_or(0);
        let head = |kind, size, target| Entry { name: name.clone(), kind, mode, mtime, size, target };
        if found.is_dir() {
            self.output.write_all(&tar::encode(&head(Kind::Directory, 0, Vec::new())))?;
            if found.dev() != self.device {
                return Ok(None);
            }
            let children = sorted(path).map_err(unreadable)?.into_iter();
            return Ok(Some(Level { path: path.to_path_buf(), name, children }));
        }
        if found.is_symlink() {
            let target = fs::read_link(path).map_err(unreadable)?.into_os_string().into_vec();
            self.output.write_all(&tar::encode(&head(Kind::Symlink, 0, target)))?;
            return Ok(None);
        }
        if !found.is_file() {
            self.left_out += 1;
            return Ok(None);
        }
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(unreadable(cause)),
        };
        let size = file.metadata().map_err(unreadable)?.len();
        if size == 0 {
            let mut bytes = Vec::new();
            (&mut file).take(LARGEST_SIZELESS as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            if bytes.len() > LARGEST_SIZELESS {
                let sentence = format!("{} has no size, and more than {LARGEST_SIZELESS} bytes", path.display());
                return Err(Stop::Unreadable(AgentError::invalid(sentence)));
            }
            self.output.write_all(&tar::encode(&head(Kind::File, bytes.len() as u64, Vec::new())))?;
            self.output.write_all(&bytes)?;
            self.pad(bytes.len() as u64)?;
            return Ok(None);
        }
        self.output.write_all(&tar::encode(&head(Kind::File, size, Vec::new())))?;
        self.body(&mut file, size)?;
        Ok(None)
    }

    /// As many bytes as were announced: a file that has grown is cut, one that has shrunk breaks the archive off.
    fn body(&mut self, file: &mut File, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let count = file.read(&mut self.buffer[..most])?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.output.write_all(&self.buffer[..count])?;
            left -= count as u64;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        self.output.write_all(&[0; tar::BLOCK][..tar::padding(size)])
    }
}

fn sorted(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
