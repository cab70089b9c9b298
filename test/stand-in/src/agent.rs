//! The agent's end of the link (docs/agent-protocol.md): kestrel's own conversation on the control port, and as much of its HTTP/2 service as volantd needs
//! to call a VM running, follow it and end it.

use crate::arguments::Port;
use crate::guest::{self, Guest};
use crate::host;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use kestrel::error::AgentError;
use kestrel::link::body::{gone, write};
use kestrel::link::control::{Endpoint, Resumed, converse};
use kestrel::link::protocol::{AgentInfo, Hello, PROTOCOL, WINDOW};
use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};

const CONTROL_PORT: &str = "volant.control";
const STREAM_PORT: &str = "volant.stream";
/// As kestrel has them.
const CONCURRENT_STREAMS: u32 = 128;
const HEARTBEAT: Duration = Duration::from_secs(5);
const LARGEST_BODY: usize = 16 * 1024 * 1024;

/// A listening socket that this process was given.
pub fn listener(fd: i32) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::from(host::take(fd));
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Calls home on the two ports and answers, for as long as the guest lives. Nothing without both ports.
pub async fn serve(ports: &[Port], guest: Rc<Guest>) -> io::Result<()> {
    let find = |name: &str| ports.iter().find(|port| port.name == name).and_then(|port| port.channel);
    let (Some(control), Some(stream)) = (find(CONTROL_PORT), find(STREAM_PORT)) else { return Ok(()) };
    let control = listener(control.socket)?;
    let agent = AgentInfo {
        version: env!("CARGO_PKG_VERSION"),
        protocol: PROTOCOL,
        kernel: "6.1.0-stand-in".to_owned(),
        boot_id: guest.boot_id().to_owned(),
        vsock_port: None,
    };
    let endpoint = Rc::new(Link { agent, guest, listener: listener(stream.socket)?, connection: RefCell::default() });
    loop {
        let (host, _) = control.accept().await?;
        // It ends when the host hangs up; the next one is then in the socket, or will be.
        let _ = converse(host, endpoint.clone()).await;
    }
}

struct Link {
    agent: AgentInfo,
    guest: Rc<Guest>,
    listener: UnixListener,
    /// What the stream port is connected to. As in QEMU, it stays so when the guest closes its end, until the host hangs up.
    connection: RefCell<Option<BlockingStream>>,
}

impl Endpoint for Link {
    type Stream = UnixStream;

    fn agent(&self) -> &AgentInfo {
        &self.agent
    }

    /// The newest connection: a host that says hello on another one has let go of the one before.
    async fn open_stream(&self) -> io::Result<UnixStream> {
        let waiting = || std::future::poll_fn(|cx| std::task::Poll::Ready(self.listener.poll_accept(cx)));
        while let std::task::Poll::Ready(accepted) = waiting().await {
            *self.connection.borrow_mut() = Some(accepted?.0.into_std()?);
        }
        let known = self.connection.borrow().as_ref().map(BlockingStream::try_clone);
        match known {
            Some(connection) => UnixStream::from_std(connection?),
            None => Ok(self.listener.accept().await?.0),
        }
    }

    fn greeted(&self, hello: &Hello) {
        self.guest.greeted(&hello.identity.hostname, hello.generation);
    }

    fn now_ms(&self) -> i64 {
        guest::now_ms()
    }

    /// The host's clock is the only one here.
    fn set_clock(&self, _: i64) {}

    async fn serve(&self, stream: Resumed<UnixStream>) {
        // A connection that breaks is the host's affair: it makes the next one.
        let _ = serve_http(stream, self.guest.clone()).await;
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin, guest: Rc<Guest>) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(WINDOW)
        .max_concurrent_streams(CONCURRENT_STREAMS)
        .max_header_list_size(16 * 1024)
        .handshake::<_, Bytes>(stream)
        .await?;
    let mut requests = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => {
                    requests.spawn_local(answer(request, respond, guest.clone()));
                }
                Some(Err(cause)) => return Err(cause),
                None => return Ok(()),
            },
            Some(_) = requests.join_next() => {}
        }
    }
}

async fn answer(request: Request<RecvStream>, respond: SendResponse<Bytes>, guest: Rc<Guest>) {
    // What fails here fails because the host is gone, or has lost interest.
    let _ = match try_answer(request, &guest).await {
        Ok(Answer::Whole(status, body)) => send(respond, status, body.into_bytes()),
        Ok(Answer::Status) => send_statuses(respond, &guest).await,
        Ok(Answer::Log { after, follow }) => send_log(respond, &guest, after, follow).await,
        Ok(Answer::End) => {
            let sent = send(respond, 202, br#"{"status":"shutting_down"}"#.to_vec());
            guest.shut_down().await;
            sent
        }
        Err(error) => send(respond, error.status, error.to_json().into_bytes()),
    };
}

enum Answer {
    Whole(u16, String),
    /// The status, again and again.
    Status,
    Log {
        after: u64,
        follow: bool,
    },
    End,
}

async fn try_answer(request: Request<RecvStream>, guest: &Guest) -> Result<Answer, AgentError> {
    let (parts, body) = request.into_parts();
    let query: Vec<&str> = parts.uri.query().unwrap_or("").split('&').collect();
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/v1/healthz") => Ok(Answer::Whole(200, r#"{"status":"ok"}"#.to_owned())),
        (&Method::GET, "/v1/status") if query.contains(&"watch") => Ok(Answer::Status),
        (&Method::GET, "/v1/status") => Ok(Answer::Whole(200, guest.status().to_string())),
        (&Method::GET, "/v1/logs") => {
            let after = query.iter().find_map(|word| word.strip_prefix("after=")?.parse().ok()).unwrap_or(0);
            Ok(Answer::Log { after, follow: query.contains(&"follow") })
        }
        (&Method::PUT, "/v1/config") => {
            let changed = guest.configure(&collect(body).await?)?;
            Ok(Answer::Whole(200, format!(r#"{{"changed":{changed}}}"#)))
        }
        (&Method::POST, "/v1/shutdown") => {
            collect(body).await?;
            Ok(Answer::End)
        }
        (_, path) => Err(AgentError::new(501, "not_supported", format!("the stand-in's guest has no {path}"))),
    }
}

async fn collect(mut body: RecvStream) -> Result<Vec<u8>, AgentError> {
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|cause| AgentError::invalid(format!("the body was not complete: {cause}")))?;
        if text.len() + chunk.len() > LARGEST_BODY {
            return Err(AgentError::new(413, "too_large", "the body is too large"));
        }
        text.extend_from_slice(&chunk);
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    Ok(text)
}

fn head(status: u16) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn send(mut respond: SendResponse<Bytes>, status: u16, body: Vec<u8>) -> Result<(), h2::Error> {
    respond.send_response(head(status), false)?.send_data(body.into(), true)
}

async fn send_statuses(mut respond: SendResponse<Bytes>, guest: &Guest) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head(200), false)?;
    let mut changes = guest.watch();
    loop {
        changes.mark_unchanged();
        write(&mut stream, format!("{}\n", guest.status()).into()).await?;
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(HEARTBEAT) => {}
            _ = gone(&mut stream) => return Ok(()),
        }
    }
}

async fn send_log(mut respond: SendResponse<Bytes>, guest: &Guest, mut after: u64, follow: bool) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head(200), false)?;
    let mut changes = guest.watch();
    loop {
        changes.mark_unchanged();
        let (last, lines) = guest.log_after(after);
        after = last;
        write(&mut stream, lines.into()).await?;
        if !follow {
            return stream.send_data(Bytes::new(), true);
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = gone(&mut stream) => return Ok(()),
        }
    }
}
