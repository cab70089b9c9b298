//! Headers of the tar format: ustar, with pax records where a field is too short (POSIX.1-2024, pax, "Interchange Format"). Pure.

/// Archives are made of blocks of this size.
pub const BLOCK: usize = 512;
/// The largest number that the size field holds: eleven octal digits.
const LARGEST_OCTAL: u64 = 0o777_7777_7777;
const NAME: usize = 100;

/// What an entry is. `Other` is what is never created: hard links, devices, pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

/// One file, directory or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path, without a slash at either end.
    pub name: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, set-id and sticky included.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes that follow.
    pub size: u64,
    /// Where a symbolic link points.
    pub target: Vec<u8>,
}

/// The blocks in front of an entry's bytes.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let mut name = entry.name.clone();
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    let mut records = Vec::new();
    if name.len() > NAME {
        records.extend(record("path", &name));
    }
    if entry.target.len() > NAME {
        records.extend(record("linkpath", &entry.target));
    }
    if entry.size > LARGEST_OCTAL {
        records.extend(record("size", entry.size.to_string().as_bytes()));
    }
    let mut blocks = if records.is_empty() { Vec::new() } else { extended(b'x', &records) };
    let flag = match entry.kind {
        Kind::Directory => b'5',
        Kind::Symlink => b'2',
        Kind::File | Kind::Other => b'0',
    };
    blocks.extend(header(&name, flag, entry.mode, entry.mtime, entry.size.min(LARGEST_OCTAL), &entry.target));
    blocks
}

/// What an archive ends with, after remarks on the whole of it: a global header, which readers that do not know the words pass over.
pub fn encode_end(remarks: &[(&str, String)]) -> Vec<u8> {
    let records: Vec<u8> = remarks.iter().flat_map(|(key, value)| record(key, value.as_bytes())).collect();
    let mut blocks = if records.is_empty() { Vec::new() } else { extended(b'g', &records) };
    blocks.resize(blocks.len() + 2 * BLOCK, 0);
    blocks
}

/// How many zeros fill the last block of a body.
pub fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// The sum of a header's bytes, its own field counted as spaces.
pub fn checksum(block: &[u8; BLOCK]) -> u64 {
    block.iter().enumerate().map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte })).sum()
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut bytes = format!("{length} {key}=").into_bytes();
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
    bytes
}

fn extended(flag: u8, records: &[u8]) -> Vec<u8> {
    let size = records.len() as u64;
    let mut blocks = header(b"pax", flag, 0o644, 0, size, b"").to_vec();
    blocks.extend_from_slice(records);
    blocks.resize(blocks.len() + padding(size), 0);
    blocks
}

fn header(name: &[u8], flag: u8, mode: u32, mtime: u64, size: u64, target: &[u8]) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(NAME)]);
    put(100, format!("{:07o}", mode & 0o7777).as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{:011o}", mtime.min(LARGEST_OCTAL)).as_bytes());
    put(156, &[flag]);
    put(157, &target[..target.len().min(NAME)]);
    put(257, b"ustar\x0000");
    put(265, b"root");
    put(297, b"root");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
