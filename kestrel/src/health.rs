//! The health check's pure half: where to ask, what an answer means, when to ask again.

use crate::config::GuestConfig;
use crate::error::AgentError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Response head bytes after which a workload is told off rather than read on.
pub const LARGEST_HEAD: usize = 8 * 1024;
/// Time for one probe when the manifest names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(1000);
/// Failed probes in a row after which a workload that was healthy is not.
pub const FAILURES_UNTIL_UNHEALTHY: u32 = 3;

/// One workload's health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    pub path: String,
    pub timeout: Duration,
}

impl Target {
    /// The target that a configuration's `health_check` and `workload.base_url` name.
    pub fn of(config: &GuestConfig) -> Result<Self, AgentError> {
        let wrong = |what: &str| AgentError::invalid(format!("configuration: {what}"));
        let check = config.health_check.as_ref().ok_or_else(|| wrong("there is no health_check"))?;
        let base = config
            .workload
            .as_ref()
            .and_then(|workload| workload.base_url.as_deref())
            .ok_or_else(|| wrong("health_check needs workload.base_url to know host and port"))?;
        let rest = base.strip_prefix("http://").ok_or_else(|| wrong("workload.base_url must begin with http://"))?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let (name, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (name, tail) = rest.split_once(']').ok_or_else(|| wrong("workload.base_url: [ without ]"))?;
                (name, tail.strip_prefix(':').unwrap_or("80"))
            }
            None => authority.split_once(':').unwrap_or((authority, "80")),
        };
        let ip = match name {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => match name.parse::<IpAddr>() {
                Ok(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                Ok(ip) => ip,
                Err(_) => return Err(wrong("workload.base_url must name localhost or an IP address of this guest")),
            },
        };
        let port: u16 =
            port.parse().ok().filter(|&port| port != 0).ok_or_else(|| wrong("workload.base_url: the port must be 1 to 65535"))?;
        if !check.endpoint.starts_with('/') || !check.endpoint.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("health_check.endpoint must be a path such as /healthz"));
        }
        if check.timeout_ms.is_some_and(|ms| !(1..=600_000).contains(&ms)) {
            return Err(wrong("health_check.timeout_ms must be 1 to 600000"));
        }
        Ok(Self {
            address: SocketAddr::new(ip, port),
            host: authority.to_owned(),
            path: check.endpoint.clone(),
            timeout: check.timeout_ms.map_or(DEFAULT_TIMEOUT, Duration::from_millis),
        })
    }

    /// The request's bytes (RFC 9112).
    pub fn request(&self) -> Vec<u8> {
        format!("GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: kestrel\r\nAccept: */*\r\nConnection: close\r\n\r\n", self.path, self.host)
            .into_bytes()
    }
}

/// What a response that has begun says so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The status line is not complete.
    More,
    Healthy,
    Unhealthy(String),
}

/// Judges the first bytes of a response: 2xx and 3xx are healthy, everything else is not.
pub fn judge(head: &[u8]) -> Answer {
    let Some(end) = head.iter().position(|&b| b == b'\n') else {
        let expected = b"HTTP/1.";
        let seen = head.len().min(expected.len());
        return if head[..seen] != expected[..seen] || head.len() >= LARGEST_HEAD {
            Answer::Unhealthy("the answer is not HTTP".into())
        } else {
            Answer::More
        };
    };
    let line = String::from_utf8_lossy(&head[..end]);
    let mut words = line.trim_end().split(' ');
    let version = words.next().unwrap_or("");
    let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse::<u16>().ok());
    match status {
        Some(status) if version.starts_with("HTTP/1.") => match status {
            200..=399 => Answer::Healthy,
            status => Answer::Unhealthy(format!("the health check answered {status}")),
        },
        _ => Answer::Unhealthy("the answer is not HTTP".into()),
    }
}

/// How long to wait before the next probe. While a workload starts, the first healthy moment should be seen soon:
/// 20 ms growing to 50, and 250 once it takes long; afterwards 5 s, or 500 ms when the last probe failed.
pub fn next_delay(ever_healthy: bool, last_ok: bool, probes: u32, since_start: Duration) -> Duration {
    Duration::from_millis(match (ever_healthy, last_ok) {
        (true, true) => 5000,
        (true, false) => 500,
        _ if since_start > Duration::from_secs(20) => 250,
        _ => (20 + u64::from(probes) * 2).min(50),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HealthCheck, Workload};

    fn config(base_url: &str, endpoint: &str) -> GuestConfig {
        GuestConfig {
            config_version: "1".into(),
            workload: Some(Workload { base_url: Some(base_url.into()), entrypoint: vec!["x".into()], ..Workload::default() }),
            health_check: Some(HealthCheck { endpoint: endpoint.into(), timeout_ms: None }),
            ..GuestConfig::default()
        }
    }

    #[test]
    fn targets_come_from_the_base_url() {
        for (base, address) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://0.0.0.0:80/app", "127.0.0.1:80"),
            ("http://localhost", "127.0.0.1:80"),
            ("http://[::1]:9000/", "[::1]:9000"),
        ] {
            assert_eq!(Target::of(&config(base, "/h")).expect(base).address.to_string(), address);
        }
        for base in
            ["https://127.0.0.1", "http://example.org", "http://127.0.0.1:0", "http://127.0.0.1:99999", "http://[::1", "127.0.0.1:80"]
        {
            assert!(Target::of(&config(base, "/h")).is_err(), "{base}");
        }
        assert!(Target::of(&config("http://127.0.0.1", "h\r\nX: y")).is_err());
    }

    #[test]
    fn answers_are_judged_by_their_status() {
        assert_eq!(judge(b"HTT"), Answer::More);
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n"), Answer::Healthy);
        assert_eq!(judge(b"HTTP/1.0 302 Found\r\nx"), Answer::Healthy);
        for bad in [&b"HTTP/1.1 503 no\r\n"[..], b"HTTP/1.1 2000 x\r\n", b"SSH-2.0", b"\n", b"HTTP/1.1\r\n", b"HTTP/2 200\r\n"] {
            assert!(matches!(judge(bad), Answer::Unhealthy(_)), "{bad:?}");
        }
        assert!(matches!(judge(&[b'H'; LARGEST_HEAD]), Answer::Unhealthy(_)));
    }

    #[test]
    fn arbitrary_answers_never_break_the_judge() {
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut bytes = b"HTTP/1.".to_vec();
            for _ in 0..seed % 20 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(3);
                bytes.push((seed >> 40) as u8);
            }
            seed = seed.wrapping_add(1);
            judge(&bytes);
        }
    }

    #[test]
    fn probing_is_quick_until_the_first_success_and_slow_after_it() {
        assert_eq!(next_delay(false, false, 0, Duration::ZERO), Duration::from_millis(20));
        assert_eq!(next_delay(false, false, 1000, Duration::ZERO), Duration::from_millis(50));
        assert_eq!(next_delay(false, false, 1000, Duration::from_secs(60)), Duration::from_millis(250));
        assert_eq!(next_delay(true, true, 1000, Duration::ZERO), Duration::from_secs(5));
    }
}
