//! Lines of the control port. Wire format: docs/agent-protocol.md. Pure.

use serde::{Deserialize, Serialize};

/// Version of the protocol that this agent speaks.
pub const PROTOCOL: u32 = 1;
/// Longest line, its end included.
pub const LONGEST_LINE: usize = 64 * 1024;
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
    pub identity: Identity,
}

/// The exact wall clock, sent when the ack showed that the guest's is off.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Clock {
    pub nonce: String,
    pub wall_time: String,
}

/// A line from the host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromHost {
    Hello(Hello),
    Clock(Clock),
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

/// A line to the host.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToHost<'a> {
    Ack { nonce: &'a str, wall_time: String, agent: &'a AgentInfo },
    Error { nonce: &'a str, error: String, code: &'static str },
}

impl ToHost<'_> {
    /// The line's bytes. The leading newline ends whatever a dead session left unfinished.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = b"\n".to_vec();
        line.extend(serde_json::to_vec(self).unwrap_or_default());
        line.push(b'\n');
        line
    }
}

/// Parses one line. `None` for everything that is not a well-formed message of a known type.
pub fn parse_line(line: &[u8]) -> Option<FromHost> {
    let message: FromHost = serde_json::from_slice(line).ok()?;
    let nonce = match &message {
        FromHost::Hello(hello) => &hello.nonce,
        FromHost::Clock(clock) => &clock.nonce,
    };
    is_nonce(nonce).then_some(message)
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

    #[test]
    fn golden_control_lines_are_understood_or_ignored_as_they_say() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../golden/control.json")).expect("golden");
        let mut from_host = 0;
        for case in cases.iter().filter(|case| case["from"] == "host") {
            from_host += 1;
            let line = case["line"].as_str().expect("line");
            let parsed = parse_line(line.as_bytes());
            match case["accepted"].as_bool() {
                Some(true) => match parsed.unwrap_or_else(|| panic!("{}", case["name"])) {
                    FromHost::Hello(hello) => {
                        assert_eq!(hello.nonce, case["nonce"]);
                        assert_eq!(hello.generation, case["generation"].as_u64().expect("generation"));
                        assert_eq!(crate::wall_time::parse(&hello.wall_time), case["unix_ms"].as_i64());
                        assert_eq!(hello.identity.name, case["vm_name"]);
                    }
                    FromHost::Clock(clock) => {
                        assert_eq!(clock.nonce, case["nonce"]);
                        assert_eq!(crate::wall_time::parse(&clock.wall_time), case["unix_ms"].as_i64());
                    }
                },
                _ => assert_eq!(parsed, None, "{}", case["name"]),
            }
        }
        assert!(from_host >= 5);
    }

    #[test]
    fn acks_are_the_golden_ones() {
        let cases: Vec<Value> = serde_json::from_str(include_str!("../../golden/control.json")).expect("golden");
        for (name, vsock_port) in [("ack", None), ("ack of an agent that listens on vsock", Some(1000))] {
            let golden = cases.iter().find(|case| case["name"] == name).expect(name);
            let agent = AgentInfo {
                version: "0.1.0",
                protocol: 1,
                kernel: "6.1.0-56-cloud-amd64".into(),
                boot_id: "6f1c1b0e-1111-4222-8333-444455556666".into(),
                vsock_port,
            };
            let wall_time = "2026-01-02T03:04:05.678Z".into();
            let ack = ToHost::Ack { nonce: "0123456789abcdef0123456789abcdef", wall_time, agent: &agent };
            let line = String::from_utf8(ack.encode()).expect("utf-8");
            assert_eq!(line, format!("\n{}\n", golden["line"].as_str().expect("line")));
        }
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
        let good = br#"{"type":"hello","protocol":1,"nonce":"0123456789abcdef0123456789abcdef","generation":1,"wall_time":"2026-01-01T00:00:00.000Z","identity":{"vm_id":1,"name":"a","hostname":"a"}}"#;
        assert!(parse_line(good).is_some());
        let mut seed = 5u64;
        for _ in 0..20_000 {
            let mut line = good.to_vec();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (seed >> 33) as usize % line.len();
                line[at] = (seed >> 20) as u8;
            }
            parse_line(&line);
        }
    }
}
