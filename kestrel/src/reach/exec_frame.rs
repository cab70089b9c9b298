//! The frames of `POST /v1/exec`, in both bodies: one byte for the kind, four for the payload's length (big-endian), the payload.
//! docs/agent-protocol.md has the kinds, golden/exec-frames.json examples. Pure.

use crate::error::AgentError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The longest payload.
pub const LARGEST_PAYLOAD: usize = 64 * 1024;
const HEAD: usize = 5;

/// Kinds that a host sends.
pub const START: u8 = 0x01;
pub const STDIN: u8 = 0x02;
pub const RESIZE: u8 = 0x03;
/// Kinds that the agent sends.
pub const STDOUT: u8 = 0x11;
pub const STDERR: u8 = 0x12;
pub const EXIT: u8 = 0x13;
pub const ERROR: u8 = 0x14;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The program, looked for in the environment's `PATH` unless it has a slash, and its arguments.
    pub argv: Vec<String>,
    /// Added to the workload's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it runs; `/` unless given.
    pub cwd: Option<String>,
    /// With it the program gets a terminal of this size, and its output is all standard output.
    pub tty: Option<Size>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub payload: Bytes,
}

impl Frame {
    /// The start frame's content.
    pub fn start(&self) -> Result<Start, AgentError> {
        if self.kind != START {
            return Err(AgentError::invalid("exec: the first frame must say what to start"));
        }
        let start: Start = serde_json::from_slice(&self.payload).map_err(|cause| AgentError::invalid(format!("exec: {cause}")))?;
        let wrong = |what: &str| Err(AgentError::invalid(format!("exec: {what}")));
        if start.argv.first().is_none_or(String::is_empty) {
            return wrong("argv must name a program");
        }
        if start.argv.iter().chain(start.env.values()).chain(&start.cwd).any(|text| text.contains('\0')) {
            return wrong("a word holds a NUL byte");
        }
        if start.env.keys().any(|key| key.is_empty() || key.contains(['=', '\0'])) {
            return wrong("env has an unusable name");
        }
        Ok(start)
    }
}

/// A frame's bytes. The payload must not be longer than [`LARGEST_PAYLOAD`].
pub fn encode(kind: u8, payload: &[u8]) -> Bytes {
    debug_assert!(payload.len() <= LARGEST_PAYLOAD);
    let mut bytes = BytesMut::with_capacity(HEAD + payload.len());
    bytes.put_u8(kind);
    bytes.put_u32(payload.len() as u32);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// Cuts a byte stream into frames; it holds at most one frame that is not complete, and what was fed with it.
#[derive(Default)]
pub struct Decoder {
    held: BytesMut,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next complete frame.
    pub fn take(&mut self) -> Result<Option<Frame>, AgentError> {
        let Some(&[kind, a, b, c, d]) = self.held.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > LARGEST_PAYLOAD {
            return Err(AgentError::new(413, "too_large", format!("exec: a frame is longer than {LARGEST_PAYLOAD} bytes")));
        }
        if self.held.len() < HEAD + length {
            return Ok(None);
        }
        self.held.advance(HEAD);
        Ok(Some(Frame { kind, payload: self.held.split_to(length).freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
    }

    fn decode(bytes: &[u8], size: usize) -> Result<Vec<Frame>, AgentError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(size) {
            decoder.feed(piece);
            while let Some(frame) = decoder.take()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn golden_frames_mean_what_they_say_however_they_are_cut() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../golden/exec-frames.json")).expect("golden");
        assert!(cases.len() >= 5);
        for case in &cases {
            let bytes = unhex(case["hex"].as_str().expect("hex"));
            let expected: Option<Vec<Frame>> = case["frames"].as_array().map(|frames| {
                frames
                    .iter()
                    .map(|frame| Frame {
                        kind: frame["kind"].as_u64().expect("kind") as u8,
                        payload: unhex(frame["payload_hex"].as_str().expect("payload")).into(),
                    })
                    .collect()
            });
            for size in 1..=bytes.len() {
                assert_eq!(decode(&bytes, size).ok(), expected, "{} cut by {size}", case["name"]);
            }
            if let Some(frames) = expected.filter(|_| case["whole"] == true) {
                let again: Vec<u8> = frames.iter().flat_map(|frame| encode(frame.kind, &frame.payload)).collect();
                assert_eq!(again, bytes, "{}", case["name"]);
            }
        }
    }

    #[test]
    fn what_can_not_be_started_is_refused_by_field() {
        let start = |text: &str| Frame { kind: START, payload: Bytes::copy_from_slice(text.as_bytes()) }.start();
        let full = start(r#"{"argv":["ls","-l"],"env":{"A":"b"},"cwd":"/tmp","tty":{"cols":80,"rows":24}}"#).expect("usable");
        assert_eq!((full.argv.len(), full.tty), (2, Some(Size { cols: 80, rows: 24 })));
        for (text, word) in [
            ("{}", "argv"),
            (r#"{"argv":[]}"#, "argv"),
            (r#"{"argv":[""]}"#, "argv"),
            (r#"{"argv":["a\u0000"]}"#, "NUL"),
            (r#"{"argv":["a"],"env":{"A=":"b"}}"#, "env"),
            (r#"{"argv":["a"],"shell":true}"#, "shell"),
            (r#"{"argv":["a"],"tty":{"cols":-1,"rows":1}}"#, "exec"),
        ] {
            let error = start(text).expect_err(text);
            assert!(error.message.contains(word), "{text} → {}", error.message);
        }
        assert!(Frame { kind: STDIN, payload: Bytes::new() }.start().is_err());
    }

    #[test]
    fn random_bytes_never_break_the_decoder() {
        let mut seed = 7u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..seed % 64)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8 & 0x13
                })
                .collect();
            seed = seed.wrapping_add(1);
            let _ = decode(&bytes, 7);
        }
    }
}
