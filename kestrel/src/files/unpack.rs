//! Unpacking an archive into the guest. Nothing lands outside the place that was named: no name climbs out of it, and none leads
//! through a symbolic link below it.

use super::failure::failure;
use super::place;
use super::tar::{Entry, Kind};
use super::tar_reader::Reader;
use crate::error::AgentError;
use serde::Serialize;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// What was written.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Files and symbolic links.
    pub files: u64,
    pub bytes: u64,
    /// Entries that are no file, directory or symbolic link.
    pub left_out: u64,
}

/// Where things go.
enum Place {
    /// Into this directory, under their own names.
    Into(PathBuf),
    /// The one thing there is gets this path.
    As(PathBuf),
}

fn place_for(path: &Path) -> Result<Place, AgentError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(Place::Into(path.to_path_buf())),
        // Through a link, as every program that writes there would.
        Ok(found) if found.is_file() => Ok(Place::As(fs::canonicalize(path).map_err(|cause| failure(path, &cause))?)),
        Ok(_) => Err(AgentError::new(409, "not_a_file", format!("{} is neither a file nor a directory in the guest", path.display()))),
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            let no_directory = |path: &Path| AgentError::new(404, "not_found", format!("the guest has no directory {}", path.display()));
            if path.as_os_str().as_bytes().ends_with(b"/") {
                return Err(no_directory(path));
            }
            let parent = path.parent().unwrap_or(Path::new("/"));
            match fs::metadata(parent) {
                Ok(found) if found.is_dir() => Ok(Place::As(path.to_path_buf())),
                _ => Err(no_directory(parent)),
            }
        }
        Err(cause) => Err(failure(path, &cause)),
    }
}

/// Writes one file's bytes to `path`, which must not be a directory.
pub fn write_file(mut input: impl Read, path: &Path, mode: u32) -> Result<Written, AgentError> {
    match place_for(path)? {
        Place::Into(path) => Err(failure(&path, &ErrorKind::IsADirectory.into())),
        Place::As(path) => {
            let bytes = place::file(&mut input, &path, mode, None).map_err(|cause| failure(&path, &cause))?;
            Ok(Written { files: 1, bytes, left_out: 0 })
        }
    }
}

/// Unpacks an archive: into `path` where that is a directory, else its one entry gets that path.
pub fn write_archive(input: impl Read, path: &Path) -> Result<Written, AgentError> {
    let mut unpacking = Unpacking { place: place_for(path)?, top: None, parent: None, written: Written::default() };
    let mut reader = Reader::new(input);
    while let Some(entry) = reader.next().map_err(|cause| failure(path, &cause))? {
        unpacking.put(&entry, &mut reader)?;
    }
    Ok(unpacking.written)
}

struct Unpacking {
    place: Place,
    /// The first component of every name, where there may be only one.
    top: Option<PathBuf>,
    /// The last directory that was found to be one.
    parent: Option<PathBuf>,
    written: Written,
}

/// The name as a relative path without `.` and empty components.
fn relative(name: &[u8]) -> Result<PathBuf, AgentError> {
    let shown = || String::from_utf8_lossy(name).escape_debug().to_string();
    if name.contains(&0) {
        return Err(AgentError::invalid(format!("the archive holds a name with a zero byte: \"{}\"", shown())));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(AgentError::invalid(format!("the archive holds a name that leads out of its place: \"{}\"", shown()))),
        }
    }
    Ok(path)
}

impl Unpacking {
    fn put(&mut self, entry: &Entry, body: &mut impl Read) -> Result<(), AgentError> {
        let name = relative(&entry.name)?;
        let Some((base, rest)) = self.locate(&name)? else { return Ok(()) };
        let target = if rest.as_os_str().is_empty() { base.clone() } else { base.join(&rest) };
        if !rest.as_os_str().is_empty() {
            self.make_parents(&base, &rest)?;
        }
        let failed = |cause: std::io::Error| failure(&target, &cause);
        match entry.kind {
            Kind::File => self.written.bytes += place::file(body, &target, entry.mode, Some(entry.mtime)).map_err(failed)?,
            Kind::Symlink => place::link(&entry.target, &target).map_err(failed)?,
            Kind::Directory => return make_directory(&target, Some(entry.mode)),
            Kind::Other => {
                self.written.left_out += 1;
                return Ok(());
            }
        }
        self.written.files += 1;
        Ok(())
    }

    /// The directory or path that bounds an entry, and what lies below it; `None` for the archive's own root.
    fn locate(&mut self, name: &Path) -> Result<Option<(PathBuf, PathBuf)>, AgentError> {
        if name.as_os_str().is_empty() {
            return Ok(None);
        }
        match &self.place {
            Place::Into(directory) => Ok(Some((directory.clone(), name.to_path_buf()))),
            Place::As(path) => {
                let mut parts = name.components();
                let first: PathBuf = parts.next().iter().collect();
                if *self.top.get_or_insert_with(|| first.clone()) != first {
                    let sentence = format!("the archive holds several things, and {} is no directory in the guest", path.display());
                    return Err(AgentError::new(409, "not_a_directory", sentence));
                }
                Ok(Some((path.clone(), parts.as_path().to_path_buf())))
            }
        }
    }

    fn make_parents(&mut self, base: &Path, rest: &Path) -> Result<(), AgentError> {
        let parent = base.join(rest.parent().unwrap_or(Path::new("")));
        if self.parent.as_ref() == Some(&parent) {
            return Ok(());
        }
        let mut path = base.to_path_buf();
        if matches!(self.place, Place::As(_)) {
            make_directory(&path, None)?;
        }
        for part in rest.parent().into_iter().flat_map(Path::components) {
            path.push(part);
            make_directory(&path, None)?;
        }
        self.parent = Some(parent);
        Ok(())
    }
}

/// Makes a directory that is not there; one that is there stays as it is.
fn make_directory(path: &Path, mode: Option<u32>) -> Result<(), AgentError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(found) => {
            let what = if found.is_symlink() { "a symbolic link" } else { "a file" };
            Err(AgentError::new(409, "not_a_directory", format!("{} is {what} in the guest, and no directory", path.display())))
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            let made = DirBuilder::new().mode(0o755).create(path);
            let made = made.and_then(|()| mode.map_or(Ok(()), |mode| fs::set_permissions(path, Permissions::from_mode(mode))));
            made.map_err(|cause| failure(path, &cause))
        }
        Err(cause) => Err(failure(path, &cause)),
    }
}
