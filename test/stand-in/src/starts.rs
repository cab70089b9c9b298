//! Every start is noted for whoever counts them: a line in the file `starts` beside the program, where there is one.

use std::fs::File;
use std::io::{self, Write};

/// Notes this process, by the mark in its argument list and its pid. One write, so that lines of many processes don't mix (write(2), O_APPEND).
pub fn note(arguments: impl Iterator<Item = String>) -> io::Result<()> {
    let path = std::env::current_exe()?.with_file_name("starts");
    // Only the test makes the file: a VM's own user could not.
    let mut file = match File::options().append(true).open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    file.write_all(line(arguments, std::process::id()).as_bytes())
}

/// `<mark> <pid>`; the mark is empty for a process that bears none.
fn line(mut arguments: impl Iterator<Item = String>, pid: u32) -> String {
    let mark = arguments.find_map(|word| Some(word.strip_prefix("guest=")?.split(',').next()?.to_owned())).unwrap_or_default();
    format!("{mark} {pid}\n")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_start_is_noted_by_its_mark_and_pid() {
        let words = ["-m", "96M", "-name", "guest=volant:0a0b0c0d:7:2,process=web"].map(str::to_owned);
        assert_eq!(line(words.into_iter(), 12), "volant:0a0b0c0d:7:2 12\n");
        assert_eq!(line(std::iter::empty(), 12), " 12\n");
    }
}
