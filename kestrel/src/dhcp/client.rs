//! The task that drives the state machine on one interface and says what comes of it.

use super::lease::Lease;
use super::machine::{Action, Machine, Phase};
use super::message::{Client, Outgoing, Reply};
use super::socket::{LinkSocket, ServerSocket};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A socket that can't be opened or used is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// What the client has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    /// With the age that it had when it was reported.
    pub lease: Option<(Lease, Instant)>,
    /// Why there is none yet, in words.
    pub note: Option<String>,
}

/// Asks for a lease on an interface that is up, keeps it, and reports every change of [`Progress`]. Ends when nobody listens any more.
pub async fn run(interface: u32, client: Client, reports: mpsc::Sender<Progress>) {
    let epoch = Instant::now();
    // The standard library seeds its hash tables from the kernel's random numbers.
    let mut machine = Machine::new(RandomState::new().hash_one(client.mac), Duration::ZERO);
    let mut sockets = Sockets { interface, client, link: None, server: None };
    let mut reported = None;
    loop {
        let actions = match sockets.next(&machine, epoch).await {
            Ok(Some(reply)) => machine.on_reply(epoch.elapsed(), &reply),
            Ok(None) => machine.on_time(epoch.elapsed()),
            Err(cause) => {
                sockets.link = None;
                crate::console::say(&format!("DHCP: {cause}"));
                tokio::time::sleep(RETRY).await;
                Vec::new()
            }
        };
        for action in &actions {
            if let Err(cause) = sockets.perform(action) {
                // The machine repeats what was not answered.
                crate::console::say(&format!("DHCP: {cause}"));
            }
        }
        if !machine.is_renewing() {
            sockets.server = None;
        }
        let progress = Progress {
            phase: machine.phase(),
            lease: machine.lease().map(|(lease, since)| (lease.clone(), epoch + since)),
            note: machine.note().map(str::to_owned),
        };
        if reported.as_ref() != Some(&progress) {
            reported = Some(progress.clone());
            if reports.send(progress).await.is_err() {
                return;
            }
        }
    }
}

struct Sockets {
    interface: u32,
    client: Client,
    link: Option<LinkSocket>,
    server: Option<ServerSocket>,
}

impl Sockets {
    /// A reply, or nothing once the machine is due.
    async fn next(&mut self, machine: &Machine, epoch: Instant) -> io::Result<Option<Reply>> {
        let due = async {
            match machine.due() {
                Some(due) => tokio::time::sleep_until((epoch + due).into()).await,
                None => std::future::pending().await,
            }
        };
        if !machine.is_listening() {
            self.link = None;
            due.await;
            return Ok(None);
        }
        let (xid, mac) = (machine.xid(), self.client.mac);
        let link = self.link()?;
        tokio::select! {
            reply = link.receive(|packet| Reply::of_packet(packet, xid, mac)) => reply.map(Some),
            () = due => Ok(None),
        }
    }

    fn link(&mut self) -> io::Result<&LinkSocket> {
        if self.link.is_none() {
            self.link = Some(LinkSocket::open(self.interface)?);
        }
        self.link.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn perform(&mut self, action: &Action) -> io::Result<()> {
        match action {
            Action::Broadcast(message) => {
                let packet = message.broadcast(&self.client);
                self.link()?.broadcast(&packet)
            }
            Action::Unicast(server, message) => self.unicast(*server, message),
            // Reported: the supervisor owns the interface.
            Action::Bind(_) | Action::Unbind => Ok(()),
        }
    }

    fn unicast(&mut self, server: Ipv4Addr, message: &Outgoing) -> io::Result<()> {
        // Heard from before the question is out.
        self.link()?;
        let socket = match self.server.take() {
            Some(socket) => socket,
            None => ServerSocket::open(message.source())?,
        };
        self.server.insert(socket).send(server, &message.payload(&self.client))
    }
}
