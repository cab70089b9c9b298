//! What the workload wrote, line by line, in bounded memory. Old lines make room for new ones; readers are told of the gap.

use crate::error::cut;
use serde::Serialize;
use std::collections::VecDeque;

/// Bytes of text kept before the oldest lines go.
pub const RING_BYTES: usize = 256 * 1024;
/// A longer line is cut here and marked.
pub const LONGEST_LINE: usize = 8 * 1024;
/// Charged to every line for its bookkeeping, so that empty lines fill the ring too.
const LINE_OVERHEAD: usize = 64;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
    /// The agent's own remarks about the workload.
    Agent,
}

/// One line, as `GET /v1/logs` sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Counts from 1 since boot, without holes.
    pub seq: u64,
    pub stream: Stream,
    pub line: String,
    /// RFC 3339 with milliseconds.
    pub timestamp: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A bounded queue of lines.
pub struct LogRing {
    lines: VecDeque<Line>,
    bytes: usize,
    limit: usize,
    next_seq: u64,
}

/// What a reader who has seen everything up to some line gets next.
#[derive(Debug, PartialEq, Eq)]
pub struct Slice<'a> {
    /// First and last line that were dropped before this reader came.
    pub gap: Option<(u64, u64)>,
    pub lines: Vec<&'a Line>,
}

impl LogRing {
    /// An empty ring that holds about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { lines: VecDeque::new(), bytes: 0, limit, next_seq: 1 }
    }

    /// Appends a line and drops the oldest ones while the limit is exceeded. Returns the line's number. A line that has grown too long by what stands for
    /// invalid bytes, or a long remark, is cut here.
    pub fn push(&mut self, stream: Stream, mut line: String, truncated: bool, timestamp: String) -> u64 {
        let truncated = cut(&mut line, LONGEST_LINE) || truncated;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.bytes += line.len() + LINE_OVERHEAD;
        self.lines.push_back(Line { seq, stream, line, timestamp, truncated });
        while self.bytes > self.limit && self.lines.len() > 1 {
            if let Some(old) = self.lines.pop_front() {
                self.bytes -= old.line.len() + LINE_OVERHEAD;
            }
        }
        seq
    }

    /// The last number given out; 0 before the first line.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Lines after number `after`, up to about `budget` bytes. A number never given out means an earlier boot: all lines.
    pub fn after(&self, after: u64, budget: usize) -> Slice<'_> {
        let after = if after > self.last_seq() { 0 } else { after };
        let Some(first) = self.lines.front().map(|line| line.seq) else { return Slice { gap: None, lines: Vec::new() } };
        let gap = (after + 1 < first).then_some((after + 1, first - 1));
        let skip = (after + 1).saturating_sub(first) as usize;
        let mut spent = 0;
        let lines = self
            .lines
            .iter()
            .skip(skip)
            .take_while(|line| {
                let room = spent == 0 || spent < budget;
                spent += line.line.len() + LINE_OVERHEAD;
                room
            })
            .collect();
        Slice { gap, lines }
    }
}

/// Cuts a byte stream into lines: `\n` or `\r\n` ends one, invalid UTF-8 is replaced, long lines are cut and marked.
#[derive(Default)]
pub struct LineSplitter {
    held: Vec<u8>,
    overflowed: bool,
}

impl LineSplitter {
    /// Feeds bytes; `emit` gets every line that they complete and whether it was cut.
    pub fn feed(&mut self, bytes: &[u8], mut emit: impl FnMut(String, bool)) {
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            let (body, ended) = match part.split_last() {
                Some((b'\n', body)) => (body, true),
                _ => (part, false),
            };
            let room = LONGEST_LINE - self.held.len();
            self.overflowed |= body.len() > room;
            self.held.extend_from_slice(&body[..body.len().min(room)]);
            if ended {
                self.flush(&mut emit);
            }
        }
    }

    /// The end of the stream: an unfinished line counts as one.
    pub fn finish(&mut self, mut emit: impl FnMut(String, bool)) {
        if !self.held.is_empty() {
            self.flush(&mut emit);
        }
    }

    fn flush(&mut self, emit: &mut impl FnMut(String, bool)) {
        if !self.overflowed && self.held.last() == Some(&b'\r') {
            self.held.pop();
        }
        emit(String::from_utf8_lossy(&self.held).into_owned(), self.overflowed);
        self.held.clear();
        self.held.shrink_to(1024);
        self.overflowed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: u64, limit: usize) -> LogRing {
        let mut ring = LogRing::new(limit);
        for n in 1..=count {
            ring.push(Stream::Stdout, format!("line {n}"), false, String::new());
        }
        ring
    }

    fn numbers(slice: &Slice<'_>) -> Vec<u64> {
        slice.lines.iter().map(|line| line.seq).collect()
    }

    #[test]
    fn a_reader_gets_what_it_has_not_seen() {
        let ring = filled(5, 10_000);
        assert_eq!(numbers(&ring.after(0, 10_000)), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&ring.after(3, 10_000)), [4, 5]);
        assert_eq!(numbers(&ring.after(5, 10_000)), [0u64; 0]);
        assert_eq!(numbers(&ring.after(99, 10_000)), [1, 2, 3, 4, 5]);
        assert_eq!(numbers(&ring.after(0, 1)), [1]);
    }

    #[test]
    fn a_gap_is_said_when_lines_were_dropped() {
        let ring = filled(1000, 1000);
        let slice = ring.after(0, usize::MAX);
        let first = slice.lines.first().expect("lines").seq;
        assert_eq!(slice.gap, Some((1, first - 1)));
        assert_eq!(slice.lines.last().expect("lines").seq, 1000);
        assert!(slice.lines.len() < 20);
        assert_eq!(ring.after(first - 1, usize::MAX).gap, None);
    }

    #[test]
    fn a_line_is_cut_whoever_says_it() {
        let mut ring = LogRing::new(RING_BYTES);
        ring.push(Stream::Agent, "\u{fffd}".repeat(LONGEST_LINE), false, String::new());
        let slice = ring.after(0, 1);
        assert!(slice.lines[0].truncated && (LONGEST_LINE - 2..=LONGEST_LINE).contains(&slice.lines[0].line.len()));
    }

    #[test]
    fn empty_lines_are_bounded_too() {
        let mut ring = LogRing::new(RING_BYTES);
        for _ in 0..100_000 {
            ring.push(Stream::Stderr, String::new(), false, String::new());
        }
        assert!(ring.lines.len() <= RING_BYTES / LINE_OVERHEAD);
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let text = b"one\ntwo\r\n\n\xffthree\nrest";
        let whole = ["one", "two", "", "\u{fffd}three", "rest"];
        for size in 1..text.len() {
            let mut splitter = LineSplitter::default();
            let mut lines = Vec::new();
            for chunk in text.chunks(size) {
                splitter.feed(chunk, |line, _| lines.push(line));
            }
            splitter.finish(|line, _| lines.push(line));
            assert_eq!(lines, whole);
        }
    }

    #[test]
    fn an_endless_line_is_cut_and_marked() {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for _ in 0..100 {
            splitter.feed(&[b'x'; 1000], |line, cut| lines.push((line.len(), cut)));
        }
        assert!(splitter.held.capacity() <= 2 * LONGEST_LINE);
        splitter.feed(b"\nshort\n", |line, cut| lines.push((line.len(), cut)));
        assert_eq!(lines, [(LONGEST_LINE, true), (5, false)]);
    }
}
