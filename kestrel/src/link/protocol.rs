//! Lines of the control port. Wire format: docs/agent-protocol.md. Pure.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Version of the protocol that this agent speaks.
pub const PROTOCOL: u32 = 2;
/// Longest line from the host, its end included.
pub const LONGEST_LINE: usize = 64 * 1024;
/// Longest line to the host, likewise.
pub const LONGEST_LINE_TO_HOST: usize = 256 * 1024;
/// How often a host may want a sign of life.
const BEATS_MS: RangeInclusive<u64> = 100..=60_000;
/// Flow-control window of each HTTP/2 stream and of the connection: the measured compromise between throughput and the time
/// that a small request waits behind a bulk transfer.
pub const WINDOW: u32 = 256 * 1024;

/// Who this guest is, as the host says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Identity {
    pub vm_id: u64,
    pub name: String,
    pub hostname: String,
    pub mac: Option<String>,
    pub address: Option<String>,
}

/// The host's greeting: a new session begins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub nonce: String,
    /// Grows with every restore; another number means that time has passed unnoticed.
    pub generation: u64,
    pub wall_time: String,
    /// How often the host wants a sign of life. Protocols before 2 knew none.
    #[serde(default)]
    pub beat_ms: u64,
    pub identity: Identity,
}

/// The exact wall clock, sent when the ack showed that the guest's is off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Clock {
    pub nonce: String,
    pub wall_time: String,
}

/// A question, which is answered once.
#[derive(Debug, Clone, Deserialize)]
pub struct Ask {
    pub nonce: String,
    pub id: u64,
    pub method: String,
    /// With its query.
    pub path: String,
    /// As the host wrote it.
    pub body: Option<Box<RawValue>>,
}

/// A line from the host.
#[derive(Debug, Clone)]
pub enum FromHost {
    Hello(Hello),
    Clock(Clock),
    Ask(Ask),
}

/// What the agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AgentInfo {
    pub version: &'static str,
    pub protocol: u32,
    pub kernel: String,
    pub boot_id: String,
    /// Where it listens on virtio-vsock; `None` where the guest has no such device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock_port: Option<u32>,
}

/// A line to the host. A nonce is one that was checked, and `status` and `body` are JSON on one line.
#[derive(Debug)]
pub enum ToHost<'a> {
    Ack { nonce: &'a str, wall_time: &'a str, agent: &'a AgentInfo },
    Error { nonce: &'a str, error: &'a str, code: &'a str },
    Answer { nonce: &'a str, id: u64, status: u16, body: &'a str },
    Status { nonce: &'a str, status: &'a str },
    Beat { nonce: &'a str },
}

impl ToHost<'_> {
    /// The line's bytes. The leading newline ends whatever a dead session left unfinished.
    pub fn encode(&self) -> Vec<u8> {
        let line = match self {
            Self::Ack { nonce, wall_time, agent } => {
                format!("\n{{\"type\":\"ack\",\"nonce\":\"{nonce}\",\"wall_time\":\"{wall_time}\",\"agent\":{}}}\n", json(agent))
            }
            Self::Error { nonce, error, code } => {
                format!("\n{{\"type\":\"error\",\"nonce\":\"{nonce}\",\"error\":{},\"code\":\"{code}\"}}\n", json(error))
            }
            Self::Answer { nonce, id, status, body } => {
                format!("\n{{\"type\":\"answer\",\"nonce\":\"{nonce}\",\"id\":{id},\"status\":{status},\"body\":{body}}}\n")
            }
            Self::Status { nonce, status } => format!("\n{{\"type\":\"status\",\"nonce\":\"{nonce}\",\"status\":{status}}}\n"),
            Self::Beat { nonce } => format!("\n{{\"type\":\"beat\",\"nonce\":\"{nonce}\"}}\n"),
        };
        line.into_bytes()
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Parses one line. `None` for everything that is not a well-formed message of a known type.
pub fn parse_line(line: &[u8]) -> Option<FromHost> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        name: Cow<'a, str>,
    }
    let kind: Kind<'_> = serde_json::from_slice(line).ok()?;
    match &*kind.name {
        "hello" => {
            let hello: Hello = serde_json::from_slice(line).ok()?;
            // One of another protocol is read as far as it takes to refuse it in words.
            let beats = hello.protocol != PROTOCOL || BEATS_MS.contains(&hello.beat_ms);
            (beats && is_nonce(&hello.nonce)).then_some(FromHost::Hello(hello))
        }
        "clock" => serde_json::from_slice(line).ok().filter(|clock: &Clock| is_nonce(&clock.nonce)).map(FromHost::Clock),
        "ask" => serde_json::from_slice(line).ok().filter(|ask: &Ask| is_nonce(&ask.nonce)).map(FromHost::Ask),
        _ => None,
    }
}

/// 32 lower-case hexadecimal digits.
pub fn is_nonce(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Collects bytes into lines of at most [`LONGEST_LINE`]; longer ones are dropped whole.
#[derive(Default)]
pub struct LineReader {
    held: Vec<u8>,
    skipping: bool,
}

impl LineReader {
    /// Feeds bytes and returns the non-empty lines they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            if !self.skipping {
                self.held.extend_from_slice(part);
                if self.held.len() > LONGEST_LINE {
                    self.skipping = true;
                    self.held = Vec::new();
                }
            }
            if part.ends_with(b"\n") {
                let mut line = std::mem::take(&mut self.held);
                line.pop();
                if !self.skipping && !line.is_empty() {
                    lines.push(line);
                }
                self.skipping = false;
            }
        }
        lines
    }

    /// Forgets an unfinished line.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn golden() -> Vec<Value> {
        serde_json::from_str(include_str!("../../golden/control.json")).expect("golden")
    }

    #[test]
    fn golden_control_lines_are_understood_or_ignored_as_they_say() {
        let mut from_host = 0;
        for case in golden().iter().filter(|case| case["from"] == "host") {
            from_host += 1;
            let line = case["line"].as_str().expect("line");
            let parsed = parse_line(line.as_bytes());
            if case["accepted"] != true {
                assert!(parsed.is_none(), "{}", case["name"]);
                continue;
            }
            match parsed.unwrap_or_else(|| panic!("{}", case["name"])) {
                FromHost::Hello(hello) => {
                    assert_eq!(case["type"], "hello");
                    assert_eq!((&hello.nonce, hello.protocol), (&text(&case["nonce"]), number(&case["protocol"]) as u32));
                    assert_eq!((hello.generation, hello.beat_ms), (number(&case["generation"]), case["beat_ms"].as_u64().unwrap_or(0)));
                    assert_eq!(crate::wall_time::parse(&hello.wall_time), case["unix_ms"].as_i64());
                    assert_eq!(hello.identity.name, case["vm_name"]);
                }
                FromHost::Clock(clock) => {
                    assert_eq!((&case["type"], &case["nonce"]), (&"clock".into(), &clock.nonce.into()));
                    assert_eq!(crate::wall_time::parse(&clock.wall_time), case["unix_ms"].as_i64());
                }
                FromHost::Ask(ask) => {
                    assert_eq!((&case["type"], &case["nonce"]), (&"ask".into(), &ask.nonce.into()));
                    assert_eq!((ask.id, ask.method, ask.path), (number(&case["id"]), text(&case["method"]), text(&case["path"])));
                    let body = ask.body.map_or(Value::Null, |body| serde_json::from_str(body.get()).expect("JSON"));
                    assert_eq!(body, case["body"], "{}", case["name"]);
                }
            }
        }
        assert!(from_host >= 30);
    }

    fn text(value: &Value) -> String {
        value.as_str().expect("text").to_owned()
    }

    fn number(value: &Value) -> u64 {
        value.as_u64().expect("a number")
    }

    #[test]
    fn lines_to_the_host_are_the_golden_ones() {
        let agent = |vsock_port| AgentInfo {
            version: "0.1.0",
            protocol: 2,
            kernel: "6.1.0-56-cloud-amd64".into(),
            boot_id: "6f1c1b0e-1111-4222-8333-444455556666".into(),
            vsock_port,
        };
        let (nonce, wall_time) = (NONCE, "2026-01-02T03:04:05.678Z");
        let answer = |id, status, body| ToHost::Answer { nonce, id, status, body }.encode();
        let lines = [
            ("ack", ToHost::Ack { nonce, wall_time, agent: &agent(None) }.encode()),
            ("ack of an agent that listens on vsock", ToHost::Ack { nonce, wall_time, agent: &agent(Some(1000)) }.encode()),
            ("error", ToHost::Error { nonce, error: "this agent speaks protocol 2, not 1", code: "protocol_unsupported" }.encode()),
            ("answer", answer(1, 200, r#"{"status":"ok"}"#)),
            ("answer that is an error", answer(0, 404, r#"{"error":"this agent has no resource /v1/nothing","code":"not_found"}"#)),
            ("beat", ToHost::Beat { nonce }.encode()),
        ];
        for (name, line) in lines {
            assert_eq!(String::from_utf8(line).expect("utf-8"), format!("\n{}\n", line_of(name)));
        }
        let status: Value = serde_json::from_str(&line_of("status")).expect("JSON");
        let line = ToHost::Status { nonce, status: &status["status"].to_string() }.encode();
        assert_eq!(serde_json::from_slice::<Value>(&line).expect("JSON"), status);
    }

    fn line_of(name: &str) -> String {
        let golden = golden();
        text(&golden.iter().find(|case| case["name"] == name).expect(name)["line"])
    }

    #[test]
    fn lines_are_found_however_bytes_arrive_and_long_ones_are_dropped_whole() {
        let mut text = b"junk half\n\n{\"a\":1}\n".to_vec();
        text.extend(vec![b'x'; LONGEST_LINE + 10]);
        text.extend(b"\nafter\n");
        for size in [1, 3, 1000, text.len()] {
            let mut reader = LineReader::default();
            let lines: Vec<Vec<u8>> = text.chunks(size).flat_map(|chunk| reader.feed(chunk)).collect();
            assert_eq!(lines, [&b"junk half"[..], b"{\"a\":1}", b"after"]);
        }
    }

    #[test]
    fn an_endless_line_takes_bounded_memory() {
        let mut reader = LineReader::default();
        for _ in 0..10_000 {
            assert!(reader.feed(&[b'y'; 4096]).is_empty());
            assert!(reader.held.capacity() <= 4 * LONGEST_LINE);
        }
    }

    #[test]
    fn random_lines_never_break_the_parser() {
        for name in ["hello", "ask with a body"] {
            let good = line_of(name).into_bytes();
            assert!(parse_line(&good).is_some());
            let mut seed = 5u64;
            for _ in 0..20_000 {
                let mut line = good.clone();
                for _ in 0..3 {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let at = (seed >> 33) as usize % line.len();
                    line[at] = (seed >> 20) as u8;
                }
                parse_line(&line);
            }
        }
    }
}
