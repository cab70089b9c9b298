//! What the arguments name on the host, looked at as QEMU does: descriptors, files, memory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A kernel's first sector and its set-up header (Linux, Documentation/arch/x86/boot.rst).
const SETUP_SECTORS_AT: usize = 0x1f1;
const DEFAULT_SETUP_SECTORS: u64 = 4;
const SECTOR: u64 = 512;
/// `struct ifreq`: a name of 16 bytes and a union of 24.
const IFREQ_BYTES: usize = 40;

/// Whether a descriptor was handed to this process.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads the descriptor table and touches no memory.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Whether a descriptor is a socket.
pub fn is_socket(fd: RawFd) -> bool {
    // SAFETY: fstat writes one `struct stat`, which consists of integers, for which zero is a value.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut found) == 0 && found.st_mode & libc::S_IFMT == libc::S_IFSOCK
    }
}

/// Whether a descriptor is a tap: one that the kernel tells the interface of (Linux, Documentation/networking/tuntap.rst).
pub fn is_tap(fd: RawFd) -> bool {
    let mut request = [0u8; IFREQ_BYTES];
    // SAFETY: TUNGETIFF writes one `struct ifreq`, which has that many bytes.
    unsafe { libc::ioctl(fd, libc::TUNGETIFF as libc::Ioctl, request.as_mut_ptr()) != -1 }
}

/// Takes over a descriptor that this process was started with. Call it once for each.
pub fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller has seen that the descriptor is open, and takes each only once.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: F_SETFD changes a flag of a descriptor that is ours.
    unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    owned
}

/// Opens the log that a chardev copies itself to: one of a descriptor set, or a file.
pub fn open_log(path: &str, sets: &[(u64, RawFd)]) -> Result<RawFd, String> {
    let Some(set) = path.strip_prefix("/dev/fdset/") else {
        let file =
            File::options().append(true).create(true).open(path).map_err(|cause| format!("Unable to open logfile {path}: {cause}"))?;
        return Ok(file.into_raw_fd());
    };
    let wanted = set.parse::<u64>().ok();
    match sets.iter().find(|(id, _)| Some(*id) == wanted) {
        Some((_, fd)) => Ok(*fd),
        None => Err(format!("Unable to open logfile {path}: No such file or directory")),
    }
}

/// Whether a file is what QEMU takes for a kernel: an ELF file, or one with a boot sector that is not larger than itself.
pub fn check_kernel(path: &str) -> Result<(), String> {
    let unreadable = |cause: &dyn std::fmt::Display| format!("could not open kernel file '{path}': {cause}");
    let mut file = File::open(path).map_err(|cause| unreadable(&cause))?;
    let bytes = file.metadata().map_err(|cause| unreadable(&cause))?.len();
    let mut header = Vec::with_capacity(SECTOR as usize);
    file.by_ref().take(SECTOR).read_to_end(&mut header).map_err(|cause| unreadable(&cause))?;
    if header.is_empty() {
        return Err(unreadable(&"it is empty"));
    }
    if header.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let sectors = match header.get(SETUP_SECTORS_AT) {
        None | Some(0) => DEFAULT_SETUP_SECTORS,
        Some(&count) => u64::from(count),
    };
    if (sectors + 1) * SECTOR > bytes { Err("invalid kernel header".to_owned()) } else { Ok(()) }
}

/// Asks the kernel for a guest's memory, as QEMU does, and gives it back.
pub fn check_memory(bytes: u64) -> Result<(), String> {
    let refused = |cause: io::Error| Err(format!("cannot set up guest memory 'microvm.ram': {cause}"));
    let Ok(length) = usize::try_from(bytes) else { return refused(io::ErrorKind::OutOfMemory.into()) };
    let (protection, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length.max(1), protection, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return refused(io::Error::last_os_error());
    }
    // SAFETY: exactly what was mapped above, which nothing refers to.
    unsafe { libc::munmap(memory, length.max(1)) };
    Ok(())
}
