//! The control port's conversation: hello, ack, clock; and with each hello a new session on the stream port.

use super::protocol::{AgentInfo, FromHost, Hello, LineReader, PROTOCOL, ToHost, parse_line};
use super::sync::{SyncScanner, sync_line};
use crate::wall_time;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::JoinHandle;

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Duplex for T {}

/// What the conversation needs from the rest of the agent.
pub trait Endpoint: 'static {
    type Stream: Duplex;
    /// Who we are.
    fn agent(&self) -> &AgentInfo;
    /// Opens the stream port anew. The previous one is closed by then, which threw away what it held.
    fn open_stream(&self) -> impl Future<Output = io::Result<Self::Stream>>;
    /// A new session begins: the host's word on identity and generation.
    fn greeted(&self, hello: &Hello);
    /// The wall clock in Unix milliseconds.
    fn now_ms(&self) -> i64;
    /// Sets the wall clock.
    fn set_clock(&self, unix_ms: i64);
    /// Serves HTTP/2 until the stream ends. From here on a host that lets go ends it.
    fn serve(&self, stream: Resumed<Self::Stream>) -> impl Future<Output = ()>;
}

/// A difference of clocks up to this is left alone.
const CLOCK_TOLERANCE_MS: i64 = 1000;

/// Talks on the control port until it fails, which a port does only when it is unplugged.
pub async fn converse<E: Endpoint>(mut control: impl Duplex, endpoint: Rc<E>) -> io::Result<()> {
    let mut reader = LineReader::default();
    let mut session = Session::default();
    let mut buffer = vec![0u8; 4096];
    loop {
        let count = control.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for line in reader.feed(&buffer[..count]) {
            match parse_line(&line) {
                Some(FromHost::Hello(hello)) => {
                    let begun = session.greet(&endpoint, &hello).await;
                    let nonce = &hello.nonce;
                    let reply = match &begun {
                        Ok(_) => ToHost::Ack { nonce, wall_time: wall_time::format(endpoint.now_ms()), agent: endpoint.agent() },
                        Err((code, error)) => ToHost::Error { nonce, error: error.clone(), code },
                    };
                    control.write_all(&reply.encode()).await?;
                    if let Ok(Some(stream)) = begun {
                        session.task = Some(tokio::task::spawn_local(run(endpoint.clone(), stream, hello.nonce)));
                    }
                }
                Some(FromHost::Clock(clock)) if session.nonce == clock.nonce => {
                    if let Some(unix_ms) = wall_time::parse(&clock.wall_time) {
                        endpoint.set_clock(unix_ms);
                    }
                }
                _ => {}
            }
        }
    }
}

#[derive(Default)]
struct Session {
    nonce: String,
    generation: u64,
    task: Option<JoinHandle<()>>,
}

impl Session {
    /// Answers a hello: the stream of a new session, or `None` when the hello only repeats the last one and wants its ack again.
    async fn greet<E: Endpoint>(&mut self, endpoint: &Rc<E>, hello: &Hello) -> Result<Option<E::Stream>, (&'static str, String)> {
        if hello.protocol != PROTOCOL {
            return Err(("protocol_unsupported", format!("this agent speaks protocol {PROTOCOL}, not {}", hello.protocol)));
        }
        if self.nonce == hello.nonce {
            return Ok(None);
        }
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
        let stream = endpoint.open_stream().await.map_err(|cause| ("stream_port", format!("the stream port can't be opened: {cause}")))?;
        // A hello can have waited in a socket while this guest booted, so a first one only ever moves the clock forward: the
        // ack shows the host the result, and a clock line follows if that is wrong. After a restore it is fresh.
        if let Some(unix_ms) = wall_time::parse(&hello.wall_time) {
            let restored = !self.nonce.is_empty() && self.generation != hello.generation;
            let behind_ms = unix_ms - endpoint.now_ms();
            if behind_ms > CLOCK_TOLERANCE_MS || (restored && behind_ms < -CLOCK_TOLERANCE_MS) {
                endpoint.set_clock(unix_ms);
            }
        }
        self.nonce.clone_from(&hello.nonce);
        self.generation = hello.generation;
        endpoint.greeted(hello);
        Ok(Some(stream))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run<E: Endpoint>(endpoint: Rc<E>, stream: E::Stream, nonce: String) {
    // An error here means a port that was unplugged; the next hello opens it again.
    if let Ok(stream) = synchronise(stream, &nonce).await {
        endpoint.serve(stream).await;
    }
}

async fn synchronise<S: Duplex>(mut stream: S, nonce: &str) -> io::Result<Resumed<S>> {
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
