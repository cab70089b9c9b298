//! The stream port's connection: opened when the host asks for it, greeted, and cut off when it asks again.

use super::control::{Duplex, Endpoint};
use super::sync::{SyncScanner, sync_line};
use crate::error::AgentError;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

/// The one connection that there is at a time.
#[derive(Default)]
pub(super) struct StreamPort {
    task: Option<JoinHandle<()>>,
    /// Held by whoever has the port open, which can be open only once: the next one waits for its end.
    turn: Rc<Mutex<()>>,
}

impl StreamPort {
    /// Cuts off what there is and opens the port anew. Resolves when it is open; the greeting with this nonce follows.
    pub(super) fn reopen<E: Endpoint>(&mut self, endpoint: Rc<E>, nonce: String) -> impl Future<Output = Result<(), AgentError>> + use<E> {
        self.close();
        let (tell, told) = oneshot::channel();
        let turn = self.turn.clone();
        self.task = Some(tokio::task::spawn_local(async move {
            let _turn = turn.lock().await;
            match endpoint.open_stream().await {
                Ok(stream) => {
                    let _ = tell.send(Ok(()));
                    // An error here means a port that was unplugged, or a host that is gone: it asks again.
                    if let Ok(stream) = synchronise(stream, &nonce).await {
                        endpoint.serve(stream).await;
                    }
                }
                Err(error) => {
                    let _ = tell.send(Err(error));
                }
            }
        }));
        async { told.await.unwrap_or_else(|_| Err(AgentError::new(503, "stream_port", "the stream was asked for once more meanwhile"))) }
    }

    /// Cuts off what there is.
    pub(super) fn close(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for StreamPort {
    fn drop(&mut self) {
        self.close();
    }
}

/// Greets on a stream: our line, then the host's. What follows it is HTTP/2.
pub(super) async fn synchronise<S: Duplex>(mut stream: S, nonce: &str) -> io::Result<Resumed<S>> {
    stream.write_all(sync_line(nonce).as_bytes()).await?;
    let mut scanner = SyncScanner::new(nonce);
    let mut buffer = vec![0u8; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(used) = scanner.feed(&buffer[..count]) {
            buffer.truncate(count);
            buffer.drain(..used);
            return Ok(Resumed { first: buffer, at: 0, stream });
        }
    }
}

/// A stream of which the first bytes were read already.
pub struct Resumed<S> {
    first: Vec<u8>,
    at: usize,
    /// What follows them.
    pub stream: S,
}

impl<S: Duplex> AsyncRead for Resumed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let held = &self.first[self.at..];
        if held.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = held.len().min(buf.remaining());
        buf.put_slice(&held[..count]);
        self.at += count;
        if self.at == self.first.len() {
            self.first = Vec::new();
            self.at = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Duplex> AsyncWrite for Resumed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
