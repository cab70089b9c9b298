//! Putting one thing into a directory so that it is there whole or not at all: made under a name of its own, then renamed.

use rustix::fs::{Timespec, Timestamps, futimens};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes carried at a time.
const PIECE: usize = 64 * 1024;
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Something under its passing name, gone when this is dropped before it has got its own.
struct Passing {
    path: PathBuf,
    kept: bool,
}

impl Passing {
    fn make<T>(target: &Path, mut make: impl FnMut(&Path) -> io::Result<T>) -> io::Result<(Self, T)> {
        let directory = target.parent().unwrap_or(Path::new("/"));
        loop {
            let path = directory.join(format!(".volant-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
            match make(&path) {
                Ok(made) => return Ok((Self { path, kept: false }, made)),
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
                Err(cause) => return Err(cause),
            }
        }
    }

    fn keep_as(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes all of `input` to `target`, in place of a file that is there. Gives the number of bytes.
pub fn file(input: &mut impl Read, target: &Path, mode: u32, mtime: Option<u64>) -> io::Result<u64> {
    if fs::symlink_metadata(target).is_ok_and(|found| found.is_dir()) {
        return Err(ErrorKind::IsADirectory.into());
    }
    let (passing, mut output) = Passing::make(target, |path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))?;
    let count = copy(input, &mut output)?;
    output.set_permissions(Permissions::from_mode(mode))?;
    if let Some(seconds) = mtime.and_then(|seconds| i64::try_from(seconds).ok()) {
        let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
        futimens(&output, &Timestamps { last_access: at, last_modification: at })?;
    }
    drop(output);
    passing.keep_as(target)?;
    Ok(count)
}

fn copy(input: &mut impl Read, output: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0u8; PIECE];
    let mut total = 0;
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(total),
            count => {
                output.write_all(&buffer[..count])?;
                total += count as u64;
            }
        }
    }
}

/// Makes a symbolic link, in place of a file or link that is there.
pub fn link(points_to: &[u8], target: &Path) -> io::Result<()> {
    if fs::symlink_metadata(target).is_ok_and(|found| found.is_dir()) {
        return Err(ErrorKind::IsADirectory.into());
    }
    let (passing, ()) = Passing::make(target, |path| symlink(std::ffi::OsStr::from_bytes(points_to), path))?;
    passing.keep_as(target)
}
