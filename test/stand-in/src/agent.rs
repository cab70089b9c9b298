//! The agent's end of the link (docs/agent-protocol.md): kestrel's own conversation on the control port, and of its questions those that volantd needs to call a
//! VM running, follow it and end it. Nothing here needs a stream, so none is opened.

use crate::arguments::Port;
use crate::guest::{self, Guest};
use crate::host;
use kestrel::error::AgentError;
use kestrel::link::answer::Answer;
use kestrel::link::control::{Endpoint, converse};
use kestrel::link::protocol::{AgentInfo, Ask, Hello, PROTOCOL};
use kestrel::link::stream::Resumed;
use std::io;
use std::rc::Rc;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

const CONTROL_PORT: &str = "volant.control";
const STREAM_PORT: &str = "volant.stream";

/// A listening socket that this process was given.
pub fn listener(fd: i32) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(host::take(fd));
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Calls home on the control port and answers, for as long as the guest lives. Nothing without both ports.
pub async fn serve(ports: &[Port], guest: Rc<Guest>) -> io::Result<()> {
    let find = |name: &str| ports.iter().find(|port| port.name == name).and_then(|port| port.channel);
    let (Some(control), Some(stream)) = (find(CONTROL_PORT), find(STREAM_PORT)) else { return Ok(()) };
    let control = listener(control.socket)?;
    // Hosts find somebody there, and wait.
    let _stream = host::take(stream.socket);
    let agent = AgentInfo {
        version: env!("CARGO_PKG_VERSION"),
        protocol: PROTOCOL,
        kernel: "6.1.0-stand-in".to_owned(),
        boot_id: guest.boot_id().to_owned(),
        vsock_port: None,
    };
    let endpoint = Rc::new(Link { agent, guest });
    loop {
        let (host, _) = control.accept().await?;
        // It ends when the host hangs up; the next one is then in the socket, or will be.
        let _ = converse(host, endpoint.clone()).await;
    }
}

struct Link {
    agent: AgentInfo,
    guest: Rc<Guest>,
}

impl Endpoint for Link {
    type Stream = UnixStream;
    type Change = u64;

    fn agent(&self) -> &AgentInfo {
        &self.agent
    }

    fn greeted(&self, hello: &Hello) {
        self.guest.greeted(&hello.identity.hostname, hello.generation);
    }

    fn now_ms(&self) -> i64 {
        guest::now_ms()
    }

    /// The host's clock is the only one here.
    fn set_clock(&self, _: i64) {}

    fn status(&self) -> String {
        self.guest.status().to_string()
    }

    fn watch_status(&self) -> watch::Receiver<u64> {
        self.guest.watch()
    }

    async fn answer(&self, question: Ask) -> Answer {
        let (path, query) = question.path.split_once('?').unwrap_or((&question.path, ""));
        let body = question.body.as_ref().map_or("", |body| body.get()).as_bytes();
        match (question.method.as_str(), path) {
            ("GET", "/v1/healthz") => Answer::new(200, r#"{"status":"ok"}"#),
            ("GET", "/v1/status") => Answer::new(200, self.status()),
            ("GET", "/v1/logs") => Answer::new(200, self.log(query).await),
            ("PUT", "/v1/config") => match self.guest.configure(body) {
                Ok(changed) => Answer::new(200, format!(r#"{{"changed":{changed}}}"#)),
                Err(error) => error.into(),
            },
            ("POST", "/v1/shutdown") => {
                let guest = self.guest.clone();
                tokio::task::spawn_local(async move { guest.shut_down().await });
                Answer::new(202, r#"{"status":"shutting_down"}"#)
            }
            _ => unsupported(path).into(),
        }
    }

    async fn open_stream(&self) -> Result<UnixStream, AgentError> {
        Err(unsupported("/v1/stream"))
    }

    async fn serve(&self, _: Resumed<UnixStream>) {}
}

impl Link {
    async fn log(&self, query: &str) -> String {
        let words = || query.split('&');
        let after = words().find_map(|word| word.strip_prefix("after=")?.parse().ok()).unwrap_or(0);
        let mut changes = self.guest.watch();
        loop {
            let entries = self.guest.log_after(after);
            if !entries.is_empty() || !words().any(|word| word == "wait") {
                return format!(r#"{{"entries":[{entries}]}}"#);
            }
            // The guest outlives whoever asks it.
            let _ = changes.changed().await;
        }
    }
}

fn unsupported(path: &str) -> AgentError {
    AgentError::new(501, "not_supported", format!("the stand-in's guest has no {path}"))
}
