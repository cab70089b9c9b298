//! The control port's conversation: hello, ack, clock; then the status as it changes, beats, and questions with their answers.
//!
//! The port has one writer, and it writes one line at a time. All that could be said waits where it takes bounded memory: the status and the beat say only what
//! is true by then, and answers are made when it is their turn. So a host that does not read, or is not there, costs nothing but what one line holds. Reading
//! goes on meanwhile, because the hello of the next host may be what comes.

use super::answer::Answer;
use super::protocol::{AgentInfo, Ask, FromHost, Hello, LineReader, PROTOCOL, ToHost, is_nonce, parse_line};
use super::stream::{Resumed, StreamPort};
use crate::error::AgentError;
use crate::wall_time;
use serde::Deserialize;
use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Duplex for T {}

/// What the conversation needs from the rest of the agent.
pub trait Endpoint: 'static {
    type Stream: Duplex;
    /// What is told when the status has changed.
    type Change: 'static;
    /// Who we are.
    fn agent(&self) -> &AgentInfo;
    /// A new session begins: the host's word on identity and generation.
    fn greeted(&self, hello: &Hello);
    /// The wall clock in Unix milliseconds.
    fn now_ms(&self) -> i64;
    /// Sets the wall clock.
    fn set_clock(&self, unix_ms: i64);
    /// The status as it is, as JSON on one line.
    fn status(&self) -> String;
    /// Follows the status.
    fn watch_status(&self) -> watch::Receiver<Self::Change>;
    /// Answers a question. It is dropped when the session ends.
    fn answer(&self, question: Ask) -> impl Future<Output = Answer>;
    /// Opens the stream port anew. The previous one is closed by then, which threw away what it held.
    fn open_stream(&self) -> impl Future<Output = Result<Self::Stream, AgentError>>;
    /// Serves HTTP/2 until the stream ends. From here on a host that lets go ends it.
    fn serve(&self, stream: Resumed<Self::Stream>) -> impl Future<Output = ()>;
}

/// A difference of clocks up to this is left alone.
const CLOCK_TOLERANCE_MS: i64 = 1000;
/// Questions that may be open at once.
const MOST_QUESTIONS: usize = 32;
/// Refusals that are kept for a host that asks more than that and does not read. Further questions of its get no answer.
const MOST_REFUSALS: usize = 1024;

/// Talks on the control port until it fails, which a port does only when it is unplugged.
pub async fn converse<E: Endpoint>(control: impl Duplex, endpoint: Rc<E>) -> io::Result<()> {
    let (mut input, mut output) = tokio::io::split(control);
    let mut reader = LineReader::default();
    let mut buffer = vec![0u8; 4096];
    let mut conversation = Conversation { endpoint, session: None, stream: StreamPort::default(), reply: None };
    // What is left to write of the present line.
    let mut line = Vec::new();
    let mut written = 0;
    loop {
        tokio::select! {
            count = input.read(&mut buffer) => {
                let count = count?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                for heard in reader.feed(&buffer[..count]) {
                    if conversation.hear(&heard) == Heard::NewSession {
                        // Nobody waits for the rest of the old session's line; the next one begins by ending it.
                        (line, written) = (Vec::new(), 0);
                    }
                }
            }
            count = output.write(&line[written..]), if !line.is_empty() => {
                written += count?;
                if written == line.len() {
                    (line, written) = (Vec::new(), 0);
                }
            }
            next = conversation.next_line(), if line.is_empty() => line = next,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Heard {
    NewSession,
    Other,
}

struct Conversation<E: Endpoint> {
    endpoint: Rc<E>,
    session: Option<Session<E>>,
    stream: StreamPort,
    /// To the last hello.
    reply: Option<Vec<u8>>,
}

struct Session<E: Endpoint> {
    nonce: String,
    generation: u64,
    changes: watch::Receiver<E::Change>,
    beats: Interval,
    questions: JoinSet<(u64, Answer)>,
    refused: VecDeque<u64>,
}

impl<E: Endpoint> Conversation<E> {
    fn hear(&mut self, line: &[u8]) -> Heard {
        match parse_line(line) {
            Some(FromHost::Hello(hello)) => return self.greet(&hello),
            Some(FromHost::Clock(clock)) if self.is_present(&clock.nonce) => {
                if let Some(unix_ms) = wall_time::parse(&clock.wall_time) {
                    self.endpoint.set_clock(unix_ms);
                }
            }
            Some(FromHost::Ask(ask)) if self.is_present(&ask.nonce) => self.consider(ask),
            _ => {}
        }
        Heard::Other
    }

    fn is_present(&self, nonce: &str) -> bool {
        self.session.as_ref().is_some_and(|session| session.nonce == nonce)
    }

    /// A hello that repeats the last one wants its ack again, and nothing else.
    fn greet(&mut self, hello: &Hello) -> Heard {
        let nonce = &hello.nonce;
        if hello.protocol != PROTOCOL {
            let error = format!("this agent speaks protocol {PROTOCOL}, not {}", hello.protocol);
            self.reply = Some(ToHost::Error { nonce, error: &error, code: "protocol_unsupported" }.encode());
            return Heard::Other;
        }
        let is_new = !self.is_present(nonce);
        if is_new {
            self.begin(hello);
        }
        let wall_time = wall_time::format(self.endpoint.now_ms());
        self.reply = Some(ToHost::Ack { nonce, wall_time: &wall_time, agent: self.endpoint.agent() }.encode());
        if is_new { Heard::NewSession } else { Heard::Other }
    }

    /// Drops the session there is, with its questions and its streams, and begins the next.
    fn begin(&mut self, hello: &Hello) {
        self.stream.close();
        let before = self.session.take();
        // A hello can have waited in a socket while this guest booted, so a first one only ever moves the clock forward: the
        // ack shows the host the result, and a clock line follows if that is wrong. After a restore it is fresh.
        if let Some(unix_ms) = wall_time::parse(&hello.wall_time) {
            let restored = before.is_some_and(|session| session.generation != hello.generation);
            let behind_ms = unix_ms - self.endpoint.now_ms();
            if behind_ms > CLOCK_TOLERANCE_MS || (restored && behind_ms < -CLOCK_TOLERANCE_MS) {
                self.endpoint.set_clock(unix_ms);
            }
        }
        self.endpoint.greeted(hello);
        let mut changes = self.endpoint.watch_status();
        changes.mark_changed();
        let beat = Duration::from_millis(hello.beat_ms);
        let mut beats = interval_at(Instant::now() + beat, beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.session = Some(Session {
            nonce: hello.nonce.clone(),
            generation: hello.generation,
            changes,
            beats,
            questions: JoinSet::new(),
            refused: VecDeque::new(),
        });
    }

    fn consider(&mut self, ask: Ask) {
        let Some(session) = &mut self.session else { return };
        let (id, endpoint) = (ask.id, self.endpoint.clone());
        if session.questions.len() >= MOST_QUESTIONS {
            if session.refused.len() < MOST_REFUSALS {
                session.refused.push_back(id);
            }
            return;
        }
        if ask.path != "/v1/stream" {
            session.questions.spawn_local(async move { (id, endpoint.answer(ask).await) });
            return;
        }
        match stream_nonce(&ask) {
            Ok(nonce) => {
                let opened = self.stream.reopen(endpoint, nonce);
                session.questions.spawn_local(async move { (id, opened.await.map_or_else(Answer::from, |()| Answer::new(200, "{}"))) });
            }
            Err(error) => {
                session.questions.spawn_local(async move { (id, error.into()) });
            }
        }
    }

    /// The next line for the host, once there is one. Nothing is lost when this is dropped.
    async fn next_line(&mut self) -> Vec<u8> {
        if let Some(reply) = self.reply.take() {
            return reply;
        }
        let Some(session) = &mut self.session else { return pending().await };
        let nonce = &session.nonce;
        if let Some(id) = session.refused.pop_front() {
            let busy = AgentError::new(429, "busy", format!("{MOST_QUESTIONS} questions are open already"));
            return ToHost::Answer { nonce, id, status: busy.status, body: &busy.to_json() }.encode();
        }
        loop {
            tokio::select! {
                biased;
                Ok(()) = session.changes.changed() => return ToHost::Status { nonce, status: &self.endpoint.status() }.encode(),
                Some(answered) = session.questions.join_next() => {
                    // A question fails only when it is dropped, with its session.
                    let Ok((id, answer)) = answered else { continue };
                    let status = answer.status;
                    return ToHost::Answer { nonce, id, status, body: &answer.into_body() }.encode();
                }
                _ = session.beats.tick() => return ToHost::Beat { nonce }.encode(),
            }
        }
    }
}

/// What `/v1/stream` was asked with.
fn stream_nonce(ask: &Ask) -> Result<String, AgentError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        nonce: String,
    }
    if ask.method != "POST" {
        return Err(AgentError::new(405, "method_not_allowed", format!("{} is not allowed on {}", ask.method, ask.path)));
    }
    let body: Option<Body> = ask.body.as_ref().and_then(|body| serde_json::from_str(body.get()).ok());
    match body {
        Some(Body { nonce }) if is_nonce(&nonce) => Ok(nonce),
        _ => Err(AgentError::invalid("stream: a nonce of 32 lower-case hex digits is wanted")),
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
