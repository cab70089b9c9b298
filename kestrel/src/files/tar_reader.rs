//! Reading a tar archive from a stream, in bounded memory: ustar, pax, and GNU's long names.

use super::tar::{BLOCK, Entry, Kind, checksum, padding};
use std::io::{self, ErrorKind, Read};

/// Extended headers larger than this are refused; a path has at most 4,096 bytes (limits.h, PATH_MAX).
const LARGEST_EXTENSION: u64 = 64 * 1024;

/// Reads entries one after another; what is not read of a body is passed over.
pub struct Reader<R> {
    input: R,
    left: u64,
    padding: usize,
}

#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("what was sent is no archive: {what}"))
}

impl<R: Read> Reader<R> {
    /// Reads from the archive's first block on.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, padding: 0 }
    }

    /// The next entry; its bytes are to be had by reading. `None` at the archive's end, with all of the stream read.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            self.pass_over()?;
            let mut block = [0u8; BLOCK];
            self.input.read_exact(&mut block)?;
            if block.iter().all(|&byte| byte == 0) {
                io::copy(&mut self.input, &mut io::sink())?;
                return Ok(None);
            }
            if number(&block[148..156]) != Some(checksum(&block)) {
                return Err(wrong("the sum of a header is not right"));
            }
            let size = number(&block[124..136]).ok_or_else(|| wrong("an entry has no size"))?;
            match block[156] {
                b'x' => extension.take(&self.extension(size)?)?,
                b'g' => drop(self.extension(size)?),
                b'L' => extension.name = Some(text(&self.extension(size)?)),
                b'K' => extension.target = Some(text(&self.extension(size)?)),
                flag => return Ok(Some(self.entry(&block, flag, size, extension)?)),
            }
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], flag: u8, size: u64, extension: Extension) -> io::Result<Entry> {
        let mut name = extension.name.unwrap_or_else(|| long_name(block));
        let kind = match flag {
            b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'5' => Kind::Directory,
            b'2' => Kind::Symlink,
            _ => Kind::Other,
        };
        while name.ends_with(b"/") {
            name.pop();
        }
        // Only files have bytes behind them, and so may what is unknown.
        let size = extension.size.unwrap_or(size);
        let size = if matches!(flag, b'1'..=b'6') { 0 } else { size };
        (self.left, self.padding) = (size, padding(size));
        Ok(Entry {
            name,
            kind,
            mode: (number(&block[100..108]).unwrap_or(0o644) & 0o7777) as u32,
            mtime: number(&block[136..148]).unwrap_or(0),
            size,
            target: extension.target.unwrap_or_else(|| text(&block[157..257])),
        })
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > LARGEST_EXTENSION {
            return Err(wrong("an extended header is too large"));
        }
        let mut bytes = vec![0u8; size as usize + padding(size)];
        self.input.read_exact(&mut bytes)?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn pass_over(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding as u64;
        let passed = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if passed < rest { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// The bytes of the present entry.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.input.read(&mut buffer[..most])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

impl Extension {
    fn take(&mut self, records: &[u8]) -> io::Result<()> {
        let mut rest = records;
        while !rest.is_empty() {
            let (key, value, after) = split_record(rest).ok_or_else(|| wrong("an extended header is malformed"))?;
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                    // What can't be padded to a block is no size.
                    let size = size.filter(|&size| size <= i64::MAX as u64);
                    self.size = Some(size.ok_or_else(|| wrong("an entry has no size"))?);
                }
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

fn text(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|&byte| byte != 0).collect()
}

fn long_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&block[0..100]);
    // GNU's own format has other things in the prefix's place.
    let prefix = if &block[257..263] == b"ustar\0" { text(&block[345..500]) } else { Vec::new() };
    if prefix.is_empty() { name } else { [prefix, name].join(&b'/') }
}

/// A number in octal, or in base 256 where its first bit is set (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let first = u64::from(field[0] & 0x7f);
        let value = field[1..].iter().try_fold(first, |value, &byte| value.checked_mul(256)?.checked_add(u64::from(byte)))?;
        return (value <= i64::MAX as u64).then_some(value);
    }
    let digits = field.iter().copied().skip_while(|&byte| byte == b' ').take_while(|&byte| byte != 0 && byte != b' ');
    let mut value = 0u64;
    for byte in digits {
        if !(b'0'..=b'7').contains(&byte) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(u64::from(byte - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::super::tar::{encode, encode_end};
    use super::*;

    fn entry(name: Vec<u8>, kind: Kind, size: u64, target: Vec<u8>) -> Entry {
        Entry { name, kind, mode: 0o4751, mtime: 1_700_000_000, size, target }
    }

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.extend(encode(entry));
            bytes.extend((0..entry.size).map(|at| at as u8));
            bytes.extend(vec![0; padding(entry.size)]);
        }
        bytes.extend(encode_end(&[("VOLANT.left_out", "3".into())]));
        bytes
    }

    fn read_all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut body = Vec::new();
            reader.read_to_end(&mut body)?;
            found.push((entry, body));
        }
        Ok(found)
    }

    #[test]
    fn what_is_written_is_read_whatever_the_lengths() {
        for length in [1, 2, 57, 98, 99, 100, 101, 155, 256, 1000, 4000] {
            for size in [0, 1, 511, 512, 513, 5000] {
                let name = vec![b'n'; length];
                let entries = [
                    entry(name.clone(), Kind::Directory, 0, Vec::new()),
                    entry([&name[..], b"/f\n\x1b"].concat(), Kind::File, size, Vec::new()),
                    entry([&name[..], b"/l"].concat(), Kind::Symlink, 0, name.clone()),
                ];
                let found = read_all(&archive(&entries)).expect("an archive");
                assert_eq!(found.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>(), entries, "{length} {size}");
                assert_eq!(found[1].1.len() as u64, size);
            }
        }
    }

    #[test]
    fn a_size_beyond_octal_is_kept() {
        let large = entry(b"x".to_vec(), Kind::File, 9_000_000_000, Vec::new());
        assert_eq!(Reader::new(&encode(&large)[..]).next().expect("an entry"), Some(large));
    }

    #[test]
    fn a_cut_archive_is_an_error_wherever_it_is_cut() {
        let bytes = archive(&[entry(b"a".to_vec(), Kind::File, 700, Vec::new()), entry(vec![b'n'; 300], Kind::Directory, 0, Vec::new())]);
        // The last of the two end blocks may be missing: many writers leave it out.
        for length in 0..bytes.len() - BLOCK {
            assert!(read_all(&bytes[..length]).is_err(), "cut at {length}");
        }
        assert!(read_all(&bytes).is_ok());
    }

    #[test]
    fn a_damaged_archive_never_panics() {
        let bytes = archive(&[entry(vec![b'n'; 200], Kind::File, 30, Vec::new())]);
        for at in 0..bytes.len() {
            for value in [0, b' ', b'9', 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = read_all(&damaged);
            }
        }
    }

    #[test]
    fn absurd_numbers_are_refused() {
        assert_eq!(number(b"777 \0"), Some(0o777));
        assert_eq!(number(b"-1\0"), None);
        assert_eq!(number(b"77777777777777777777777\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), None);
    }
}
