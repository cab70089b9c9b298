//! The HTTP/2 service on the stream port. The resources are listed in docs/agent-protocol.md.

use super::body::{gone, write};
use super::protocol::WINDOW;
use crate::config::GuestConfig;
use crate::error::AgentError;
use crate::files;
use crate::reach::{exec, forward};
use crate::state::State;
use crate::workload::supervisor::{Command, EndMode};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use serde::Deserialize;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// A configuration larger than this is refused.
const LARGEST_BODY: usize = 16 * 1024 * 1024;
/// Requests served at once.
const CONCURRENT_STREAMS: u32 = 320;
/// What a host may send on one stream ahead of its reader. Streams that stall, all of them at once, must not eat up a small guest's memory: 30 MiB.
const STREAM_WINDOW: u32 = 96 * 1024;
/// Log text gathered into one frame.
const LOG_BATCH: usize = 16 * 1024;
/// A watcher of the status hears from us at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What requests act upon.
#[derive(Clone)]
pub struct Service {
    pub state: Rc<State>,
    pub commands: mpsc::Sender<Command>,
}

impl Service {
    /// Serves one HTTP/2 connection until it ends; requests under way end with it.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), h2::Error> {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            // A program that does not read holds up its own stream's window, and must not hold up the others.
            .initial_connection_window_size(STREAM_WINDOW * CONCURRENT_STREAMS)
            .max_concurrent_streams(CONCURRENT_STREAMS)
            .max_header_list_size(16 * 1024)
            .max_send_buffer_size(WINDOW as usize)
            .handshake::<_, Bytes>(stream)
            .await?;
        let mut requests = JoinSet::new();
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        let service = self.clone();
                        requests.spawn_local(async move { service.handle(request, respond).await });
                    }
                    Some(Err(cause)) => return Err(cause),
                    None => return Ok(()),
                },
                Some(_) = requests.join_next() => {}
            }
        }
    }

    async fn handle(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (parts, body) = request.into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or(""));
        let result = match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/v1/healthz") => send(&mut respond, 200, br#"{"status":"ok"}"#.to_vec()),
            (&Method::GET, "/v1/status") if query.flag("watch") => return self.watch_status(respond).await,
            (&Method::GET, "/v1/status") => send(&mut respond, 200, self.state.report()),
            (&Method::GET, "/v1/logs") => match query.number("after") {
                Ok(after) => return self.logs(respond, after.unwrap_or(0), query.flag("follow")).await,
                Err(error) => send_error(&mut respond, &error),
            },
            (&Method::PUT, "/v1/config") => match self.configure(body).await {
                Ok(changed) => send(&mut respond, 200, serde_json::json!({ "changed": changed }).to_string().into_bytes()),
                Err(error) => send_error(&mut respond, &error),
            },
            (&Method::POST, "/v1/shutdown") => match self.shutdown(body).await {
                Ok(()) => send(&mut respond, 202, br#"{"status":"shutting_down"}"#.to_vec()),
                Err(error) => send_error(&mut respond, &error),
            },
            (&Method::POST, "/v1/forward") => match self.connect(&query).await {
                Ok(connection) => return carry(connection, body, respond).await,
                Err(error) => send_error(&mut respond, &error),
            },
            (&Method::POST, "/v1/exec") => {
                let Ok(mut outgoing) = respond.send_response(head(200, "application/octet-stream"), false) else { return };
                return exec::exec(&self.state, body, &mut outgoing).await;
            }
            (&Method::GET, "/v1/files") => match files::Target::parse(query.text("path"), None) {
                Ok(target) => return files::send(target, respond).await,
                Err(error) => send_error(&mut respond, &error),
            },
            (&Method::PUT, "/v1/files") => match receive_files(&query, &parts.headers, body).await {
                Ok(written) => send(&mut respond, 200, written),
                Err(error) => send_error(&mut respond, &error),
            },
            (_, "/v1/healthz" | "/v1/status" | "/v1/logs" | "/v1/config" | "/v1/shutdown" | "/v1/forward" | "/v1/exec" | "/v1/files") => {
                let error = AgentError::new(405, "method_not_allowed", format!("{} is not allowed on {}", parts.method, parts.uri.path()));
                send_error(&mut respond, &error)
            }
            (_, path) => send_error(&mut respond, &AgentError::new(404, "not_found", format!("this agent has no resource {path}"))),
        };
        // A failed send means that the host is gone or has lost interest.
        let _ = result;
    }

    async fn configure(&self, body: RecvStream) -> Result<bool, AgentError> {
        let text = collect(body).await?;
        if self.state.status().config_version.as_deref() == Some(&GuestConfig::version_of(&text)?) {
            return Ok(false);
        }
        let config = GuestConfig::parse(&text)?;
        drop(text);
        let (answer, answered) = oneshot::channel();
        let gone = || AgentError::new(503, "shutting_down", "this guest is shutting down");
        self.commands.send(Command::Configure(Box::new(config), answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    async fn shutdown(&self, body: RecvStream) -> Result<(), AgentError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            mode: EndMode,
            timeout_ms: Option<u64>,
        }
        let body: Body =
            serde_json::from_slice(&collect(body).await?).map_err(|cause| AgentError::invalid(format!("shutdown: {cause}")))?;
        let timeout = body.timeout_ms.map(|ms| Duration::from_millis(ms.min(600_000)));
        self.commands
            .send(Command::Shutdown { mode: body.mode, timeout })
            .await
            .map_err(|_| AgentError::new(503, "shutting_down", "this guest is shutting down already"))
    }

    async fn connect(&self, query: &Query<'_>) -> Result<TcpStream, AgentError> {
        let own = self.state.status().network.address;
        forward::connect(forward::destination(query.number("port")?, query.text("address"), own.as_deref())?).await
    }

    async fn watch_status(&self, mut respond: SendResponse<Bytes>) {
        let Ok(mut stream) = respond.send_response(head(200, "application/x-ndjson"), false) else { return };
        let mut changes = self.state.watch_status();
        loop {
            changes.mark_unchanged();
            let mut line = self.state.report();
            line.push(b'\n');
            if write(&mut stream, line.into()).await.is_err() {
                return;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(HEARTBEAT) => {}
                _ = gone(&mut stream) => return,
            }
        }
    }

    async fn logs(&self, mut respond: SendResponse<Bytes>, mut after: u64, follow: bool) {
        let Ok(mut stream) = respond.send_response(head(200, "application/x-ndjson"), false) else { return };
        let mut news = self.state.watch_logs();
        loop {
            news.mark_unchanged();
            let batch = self.state.read_logs(after, LOG_BATCH, |slice| {
                let mut text = Vec::new();
                if let Some((from, to)) = slice.gap {
                    text.extend(serde_json::json!({ "gap": { "from": from, "to": to } }).to_string().into_bytes());
                    text.push(b'\n');
                }
                for line in &slice.lines {
                    text.extend(serde_json::to_vec(line).unwrap_or_default());
                    text.push(b'\n');
                    after = line.seq;
                }
                text
            });
            if !batch.is_empty() {
                if write(&mut stream, batch.into()).await.is_err() {
                    return;
                }
                continue;
            }
            if !follow {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
            tokio::select! {
                _ = news.changed() => {}
                _ = gone(&mut stream) => return,
            }
        }
    }
}

async fn carry(connection: TcpStream, incoming: RecvStream, mut respond: SendResponse<Bytes>) {
    let Ok(mut outgoing) = respond.send_response(head(200, "application/octet-stream"), false) else { return };
    forward::carry(connection, incoming, &mut outgoing).await;
}

async fn receive_files(query: &Query<'_>, headers: &http::HeaderMap, body: RecvStream) -> Result<Vec<u8>, AgentError> {
    let target = files::Target::parse(query.text("path"), query.text("mode"))?;
    let content_type = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let written = files::receive(target, content_type, body).await?;
    Ok(serde_json::to_vec(&written).unwrap_or_default())
}

/// The head of an answer.
pub(crate) fn head(status: u16, content_type: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

fn send(respond: &mut SendResponse<Bytes>, status: u16, body: Vec<u8>) -> Result<(), h2::Error> {
    // Answers sent so are small: the library holds them until the window allows.
    respond.send_response(head(status, "application/json"), false)?.send_data(body.into(), true)
}

/// Answers with an error.
pub(crate) fn send_error(respond: &mut SendResponse<Bytes>, error: &AgentError) -> Result<(), h2::Error> {
    send(respond, error.status, error.to_json().into_bytes())
}

async fn collect(mut body: RecvStream) -> Result<Vec<u8>, AgentError> {
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|cause| AgentError::invalid(format!("the body was not complete: {cause}")))?;
        if text.len() + chunk.len() > LARGEST_BODY {
            return Err(AgentError::new(413, "too_large", format!("the body is larger than {LARGEST_BODY} bytes")));
        }
        text.extend_from_slice(&chunk);
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    Ok(text)
}

/// The query's flags and numbers. No value of ours needs percent-decoding.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn parse(text: &'a str) -> Self {
        Self(text.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, ""))).collect())
    }

    /// `?name`, `?name=true` and `?name=1` are yes.
    fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|&(key, value)| key == name && matches!(value, "" | "1" | "true"))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == name).map(|&(_, value)| value)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, AgentError> {
        match self.0.iter().find(|(key, _)| *key == name) {
            None => Ok(None),
            Some((_, value)) => value.parse().map(Some).map_err(|_| AgentError::invalid(format!("{name} must be a whole number"))),
        }
    }
}
