//! The health check's effects: one TCP connection per probe, within the guest.

use crate::health::{Answer, FAILURES_UNTIL_UNHEALTHY, LARGEST_HEAD, Target, judge, next_delay};
use crate::state::State;
use crate::status::Health;
use std::io;
use std::rc::Rc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Probes for as long as the workload runs, and writes the verdict into the status.
pub async fn watch(state: Rc<State>, target: Target) {
    let started = Instant::now();
    let (mut ever_healthy, mut failures, mut probes) = (false, 0u32, 0u32);
    loop {
        let verdict = match tokio::time::timeout(target.timeout, probe(&target)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(cause),
            Err(_) => Err(format!("the health check did not answer within {} ms", target.timeout.as_millis())),
        };
        probes = probes.saturating_add(1);
        let ok = verdict.is_ok();
        match verdict {
            Ok(()) => {
                if !ever_healthy {
                    crate::console::say("the workload is healthy");
                }
                (ever_healthy, failures) = (true, 0);
                state.update(|status| status.health = Health::Healthy);
            }
            Err(reason) => {
                failures = failures.saturating_add(1);
                if !ever_healthy {
                    state.update(|status| status.health = Health::Unknown { reason: Some(reason) });
                } else if failures >= FAILURES_UNTIL_UNHEALTHY {
                    state.update(|status| status.health = Health::Unhealthy { reason });
                }
            }
        }
        tokio::time::sleep(next_delay(ever_healthy, ok, probes, started.elapsed())).await;
    }
}

async fn probe(target: &Target) -> Result<(), String> {
    let broken = |cause: io::Error| format!("the health check at {} failed: {cause}", target.address);
    let mut stream = TcpStream::connect(target.address).await.map_err(broken)?;
    stream.write_all(&target.request()).await.map_err(broken)?;
    let mut head = Vec::with_capacity(256);
    loop {
        match judge(&head) {
            Answer::Healthy => return Ok(()),
            Answer::Unhealthy(reason) => return Err(reason),
            Answer::More => {}
        }
        let room = (LARGEST_HEAD - head.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err("the health check's connection was closed without an answer".into());
        }
    }
}
