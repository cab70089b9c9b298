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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::time::Duration;
    use tokio::io::DuplexStream;

    /// Each session echoes what it is sent, so that a test sees where its bytes begin.
    struct Echo {
        agent: AgentInfo,
        streams: RefCell<Vec<DuplexStream>>,
        clock: Cell<i64>,
        greeted: Cell<u32>,
    }

    impl Endpoint for Echo {
        type Stream = DuplexStream;
        fn agent(&self) -> &AgentInfo {
            &self.agent
        }
        async fn open_stream(&self) -> io::Result<DuplexStream> {
            self.streams.borrow_mut().pop().ok_or(io::ErrorKind::NotFound.into())
        }
        fn greeted(&self, _: &Hello) {
            self.greeted.set(self.greeted.get() + 1);
        }
        fn now_ms(&self) -> i64 {
            self.clock.get()
        }
        fn set_clock(&self, unix_ms: i64) {
            self.clock.set(unix_ms);
        }
        async fn serve(&self, mut stream: Resumed<DuplexStream>) {
            let mut buffer = [0u8; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(&buffer[..count]).await;
            }
        }
    }

    struct Bench {
        control: DuplexStream,
        /// The host's ends, the next session's last.
        streams: Vec<DuplexStream>,
        echo: Rc<Echo>,
    }

    const FIRST: &str = "0123456789abcdef0123456789abcdef";
    const SECOND: &str = "ffffffffffffffffffffffffffffffff";
    const NOON_MS: i64 = 1_767_355_200_000;

    fn hello(nonce: &str, generation: u64, protocol: u32) -> String {
        let wall_time = wall_time::format(NOON_MS);
        format!(
            "\n{{\"type\":\"hello\",\"protocol\":{protocol},\"nonce\":\"{nonce}\",\"generation\":{generation},\"wall_time\":\"{wall_time}\",\"identity\":{{\"vm_id\":1,\"name\":\"a\",\"hostname\":\"a\"}}}}\n"
        )
    }

    impl Bench {
        fn start() -> Self {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..4 {
                let (host, guest) = tokio::io::duplex(4096);
                ours.push(host);
                theirs.push(guest);
            }
            let agent = AgentInfo { version: "t", protocol: PROTOCOL, kernel: "k".into(), boot_id: "b".into(), vsock_port: None };
            let echo = Rc::new(Echo { agent, streams: RefCell::new(theirs), clock: Cell::new(NOON_MS), greeted: Cell::new(0) });
            let (control, guest) = tokio::io::duplex(1 << 18);
            tokio::task::spawn_local(converse(guest, echo.clone()));
            Self { control, streams: ours, echo }
        }

        async fn say(&mut self, text: &str) {
            self.control.write_all(text.as_bytes()).await.expect("the agent listens");
        }

        async fn answer(&mut self) -> serde_json::Value {
            let mut line = Vec::new();
            while line.is_empty() || line == b"\n" || line.last() != Some(&b'\n') {
                line.push(self.control.read_u8().await.expect("the agent answers"));
            }
            serde_json::from_slice(&line).expect("JSON")
        }

        async fn take_stream(&mut self, nonce: &str) -> DuplexStream {
            let mut stream = self.streams.pop().expect("a stream");
            assert_eq!(read(&mut stream, sync_line(nonce).len()).await, sync_line(nonce));
            stream
        }
    }

    async fn read(stream: &mut DuplexStream, count: usize) -> String {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).await.expect("bytes");
        String::from_utf8(bytes).expect("text")
    }

    fn run_test(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let bounded = async { tokio::time::timeout(Duration::from_secs(10), test).await.expect("the agent answered in time") };
        tokio::task::LocalSet::new().block_on(&runtime, bounded);
    }

    #[test]
    fn a_session_begins_behind_stale_bytes_and_a_new_hello_replaces_it() {
        run_test(async {
            let mut bench = Bench::start();
            bench.say("half a line of a dead host").await;
            bench.say(&hello(FIRST, 1, 1)).await;
            assert_eq!(bench.answer().await["nonce"], FIRST);
            let mut first = bench.take_stream(FIRST).await;
            first.write_all(format!("stale volant-stre{}ping", sync_line(FIRST)).as_bytes()).await.expect("written");
            assert_eq!(read(&mut first, 4).await, "ping");
            bench.say(&hello(SECOND, 1, 1)).await;
            assert_eq!(bench.answer().await["nonce"], SECOND);
            assert_eq!(first.read(&mut [0; 8]).await.expect("closed"), 0);
            let mut second = bench.take_stream(SECOND).await;
            second.write_all(format!("{}{}pong", sync_line(FIRST), sync_line(SECOND)).as_bytes()).await.expect("written");
            assert_eq!(read(&mut second, 4).await, "pong");
        });
    }

    #[test]
    fn a_repeated_hello_is_answered_and_changes_nothing() {
        run_test(async {
            let mut bench = Bench::start();
            bench.say(&hello(FIRST, 1, 1)).await;
            bench.answer().await;
            let mut stream = bench.take_stream(FIRST).await;
            stream.write_all(sync_line(FIRST).as_bytes()).await.expect("written");
            bench.say(&hello(FIRST, 1, 1)).await;
            assert_eq!(bench.answer().await["type"], "ack");
            stream.write_all(b"still here").await.expect("written");
            assert_eq!(read(&mut stream, 10).await, "still here");
            assert_eq!(bench.echo.greeted.get(), 1);
        });
    }

    #[test]
    fn another_protocol_is_refused_in_words() {
        run_test(async {
            let mut bench = Bench::start();
            bench.say(&hello(FIRST, 1, 2)).await;
            let answer = bench.answer().await;
            assert_eq!((&answer["type"], &answer["code"]), (&"error".into(), &"protocol_unsupported".into()));
            assert_eq!(bench.echo.greeted.get(), 0);
        });
    }

    #[test]
    fn a_first_hello_moves_the_clock_forward_only_a_restore_both_ways_and_a_clock_line_exactly() {
        run_test(async {
            let mut bench = Bench::start();
            bench.echo.clock.set(NOON_MS + 5000);
            bench.say(&hello(FIRST, 1, 1)).await;
            bench.answer().await;
            assert_eq!(bench.echo.clock.get(), NOON_MS + 5000);
            bench.say(&hello(SECOND, 2, 1)).await;
            bench.answer().await;
            assert_eq!(bench.echo.clock.get(), NOON_MS);
            let clock =
                |nonce: &str| format!("{{\"type\":\"clock\",\"nonce\":\"{nonce}\",\"wall_time\":\"{}\"}}\n", wall_time::format(7000));
            bench.say(&clock(FIRST)).await;
            bench.say(&hello(SECOND, 2, 1)).await;
            bench.answer().await;
            assert_eq!(bench.echo.clock.get(), NOON_MS);
            bench.say(&clock(SECOND)).await;
            bench.say(&hello(SECOND, 2, 1)).await;
            bench.answer().await;
            assert_eq!(bench.echo.clock.get(), 7000);
        });
    }
}
