//! `volant.manifest` of the kernel command line: JSON → gzip → base64url without padding, as v1 guests carried it. Pure.

use crate::config::{GuestConfig, HealthCheck, Workload};
use crate::error::AgentError;
use serde::Deserialize;
use std::io::Read;

/// Unpacked size above which a manifest is refused: a command line holds 2 KiB, so anything near this is a bomb.
const LARGEST_MANIFEST: u64 = 4 * 1024 * 1024;

/// The parts of a manifest that concern the guest; the rest is the host's business.
#[derive(Deserialize)]
struct Manifest {
    workload: Option<Workload>,
    health_check: Option<HealthCheck>,
}

/// Decodes a manifest into a configuration that a guest can fall back to when no host speaks to it.
pub fn decode(encoded: &str) -> Result<GuestConfig, AgentError> {
    let wrong = |what: String| AgentError::invalid(format!("volant.manifest: {what}"));
    let packed = decode_base64url(encoded).ok_or_else(|| wrong("it is not base64url".into()))?;
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .take(LARGEST_MANIFEST + 1)
        .read_to_end(&mut text)
        .map_err(|cause| wrong(format!("it is not gzip: {cause}")))?;
    if text.len() as u64 > LARGEST_MANIFEST {
        return Err(wrong(format!("it unpacks to more than {LARGEST_MANIFEST} bytes")));
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|cause| wrong(cause.to_string()))?;
    let config = GuestConfig {
        config_version: "command-line".into(),
        workload: manifest.workload,
        health_check: manifest.health_check,
        ..GuestConfig::default()
    };
    config.check()?;
    Ok(config)
}

/// RFC 4648 section 5, padding optional. `None` when a character is foreign or the length impossible.
fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for &c in text {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_the_command_line_becomes_a_configuration() {
        let encoded = include_str!("../golden/manifest.txt").trim();
        let config = decode(encoded).expect("the golden manifest decodes");
        let workload = config.workload.expect("it has a workload");
        assert_eq!(workload.entrypoint, ["/bin/httpd", "-f", "-p", "8080"]);
        assert_eq!(config.health_check.expect("it has a health check").endpoint, "/healthz");
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = include_str!("../golden/manifest.txt").trim();
        for at in 0..good.len() {
            for replacement in ["A", "!", "_"] {
                let mut text = good.to_owned();
                text.replace_range(at..=at, replacement);
                let _ = decode(&text);
            }
            assert!(decode(&good[..at]).is_err());
        }
    }
}
