//! The supervisor's hold on the DHCP client: who asks, what came of it, and what the interface is to have by it.

use crate::dhcp::client::{self, Progress};
use crate::dhcp::message::Client;
use crate::error::AgentError;
use crate::net::apply::{self, Wanted};
use crate::state::now_ms;
use crate::status::LeaseStatus;
use std::net::IpAddr;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Reports that wait for the supervisor; the client waits when there are more.
const REPORTS: usize = 4;

struct Asking {
    /// The interface as it is without a lease.
    bare: Wanted,
    hostname: String,
    reports: mpsc::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// See the module. Without [`LeaseKeeper::begin`] it does nothing.
#[derive(Default)]
pub struct LeaseKeeper {
    asking: Option<Asking>,
    last: Progress,
}

impl LeaseKeeper {
    /// Starts a client on an interface that is up.
    pub fn begin(&mut self, bare: &Wanted, hostname: &str) -> Result<(), AgentError> {
        let name = &bare.interface;
        let found = apply::interface_index(name).zip(apply::hardware_address(name));
        let (index, mac) =
            found.ok_or_else(|| AgentError::new(409, "no_interface", format!("there is no interface {name} with a hardware address")))?;
        let (report, reports) = mpsc::channel(REPORTS);
        let task = tokio::task::spawn_local(client::run(index, Client { mac, hostname: hostname.to_owned() }, report));
        self.asking = Some(Asking { bare: bare.clone(), hostname: hostname.to_owned(), reports, task });
        Ok(())
    }

    /// Ends the client. Its lease is forgotten; taking the address away is the caller's.
    pub fn end(&mut self) {
        *self = Self::default();
    }

    /// Whether a client is at work.
    pub fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether the client at work would be started for this again.
    pub fn asks_for(&self, bare: &Wanted, hostname: &str) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.bare == *bare && asking.hostname == hostname)
    }

    /// The client's next report. Never resolves without a client. Safe to cancel.
    pub async fn next(&mut self) -> Option<Progress> {
        match &mut self.asking {
            Some(asking) => asking.reports.recv().await,
            None => std::future::pending().await,
        }
    }

    /// What the interface is to have by this report.
    pub fn wanted(&self, progress: &Progress) -> Option<Wanted> {
        let bare = self.asking.as_ref()?.bare.clone();
        Some(match &progress.lease {
            Some((lease, _)) => Wanted { address: Some((lease.address, lease.prefix_length)), gateway: lease.gateway, ..bare },
            None => bare,
        })
    }

    /// How the status shows this report.
    pub fn status(&self, progress: &Progress) -> LeaseStatus {
        let lease = progress.lease.as_ref().map(|(lease, since)| (lease, now_ms() - since.elapsed().as_millis() as i64));
        LeaseStatus::of(progress.phase, lease, progress.note.as_deref())
    }

    /// Takes note of a report, and gives the names that hold from then on.
    pub fn remember(&mut self, progress: Progress) -> (Vec<IpAddr>, Option<String>) {
        self.last = progress;
        self.names()
    }

    /// Name servers and search domain of the lease that is held.
    pub fn names(&self) -> (Vec<IpAddr>, Option<String>) {
        self.last.lease.as_ref().map_or_else(Default::default, |(lease, _)| {
            (lease.nameservers.iter().copied().map(IpAddr::from).collect(), lease.domain.clone())
        })
    }
}
