//! The HTTP/2 service on the stream port and over vsock. The resources are listed in docs/agent-protocol.md.

use super::protocol::WINDOW;
use super::service::{HEALTH, Query, Service, changed};
use crate::error::AgentError;
use crate::files;
use crate::reach::{exec, forward};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A configuration larger than this is refused.
const LARGEST_BODY: usize = 16 * 1024 * 1024;
/// Requests served at once.
const CONCURRENT_STREAMS: u32 = 320;
/// What a host may send on one stream ahead of its reader. Streams that stall, all of them at once, must not eat up a small guest's memory: 30 MiB.
const STREAM_WINDOW: u32 = 96 * 1024;

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
            (&Method::GET, "/v1/healthz") => send(&mut respond, 200, HEALTH.into()),
            (&Method::PUT, "/v1/config") => match self.configure(body).await {
                Ok(is_new) => send(&mut respond, 200, changed(is_new).into()),
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
            (method, path @ ("/v1/healthz" | "/v1/config" | "/v1/forward" | "/v1/exec" | "/v1/files")) => {
                send_error(&mut respond, &AgentError::wrong_method(method.as_str(), path))
            }
            (_, path) => send_error(&mut respond, &AgentError::no_resource(path)),
        };
        // A failed send means that the host is gone or has lost interest.
        let _ = result;
    }

    async fn configure(&self, body: RecvStream) -> Result<bool, AgentError> {
        self.apply(&collect(body).await?).await
    }

    async fn connect(&self, query: &Query<'_>) -> Result<TcpStream, AgentError> {
        let own = self.state.status().network.address;
        forward::connect(forward::destination(query.number("port")?, query.text("address"), own.as_deref())?).await
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
