//! `POST /v1/exec`: a program in the guest whose standard streams are the request's bodies, in frames (see [`super::exec_frame`]).

use super::exec_frame::{self as frame, Decoder, Frame, LARGEST_PAYLOAD, Size};
use super::exec_process::{self as process, Channel, Program};
use crate::error::AgentError;
use crate::link::body;
use crate::state::State;
use crate::workload::process::Ending;
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use rustix::process::{Pid, Signal};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Output gathered into one frame.
const PIECE: usize = 16 * 1024;
/// What a program can have left in a pipe when it ends, at most (pipe(7): the default of /proc/sys/fs/pipe-max-size).
const LARGEST_PIPE: usize = 1024 * 1024;
/// From SIGHUP to SIGKILL, for a program whose host is gone.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// Why an exec ended without an exit.
enum Failure {
    Refused(AgentError),
    /// The host has given the request up, or is gone.
    Gone,
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::Refused(error)
    }
}

impl From<h2::Error> for Failure {
    fn from(_: h2::Error) -> Self {
        Self::Gone
    }
}

/// Runs what the first frame asks for, to its end. A host that goes away hangs up on the program, as a terminal would.
pub async fn exec(state: &Rc<State>, incoming: RecvStream, outgoing: &mut SendStream<Bytes>) {
    let last = match run(state, Frames { incoming, decoder: Decoder::default() }, outgoing).await {
        Ok(ending) => frame::encode(frame::EXIT, exit_json(ending).as_bytes()),
        Err(Failure::Refused(error)) => {
            let mut text = error.to_json();
            if text.len() > LARGEST_PAYLOAD {
                text = AgentError::new(error.status, error.code, "the request could not be carried out").to_json();
            }
            frame::encode(frame::ERROR, text.as_bytes())
        }
        Err(Failure::Gone) => return outgoing.send_reset(Reason::CANCEL),
    };
    if body::write(outgoing, last).await.is_ok() {
        let _ = outgoing.send_data(Bytes::new(), true);
    }
}

fn exit_json(ending: Ending) -> String {
    match ending.signal {
        Some(signal) => serde_json::json!({ "signal": signal }),
        None => serde_json::json!({ "code": ending.code.unwrap_or_default() }),
    }
    .to_string()
}

struct Frames {
    incoming: RecvStream,
    decoder: Decoder,
}

impl Frames {
    async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            if let Some(frame) = self.decoder.take()? {
                return Ok(Some(frame));
            }
            let Some(piece) = self.incoming.data().await else { return Ok(None) };
            let piece = piece?;
            self.decoder.feed(&piece);
            let _ = self.incoming.flow_control().release_capacity(piece.len());
        }
    }
}

async fn run(state: &Rc<State>, mut frames: Frames, outgoing: &mut SendStream<Bytes>) -> Result<Ending, Failure> {
    let first = frames.next().await?.ok_or_else(|| AgentError::invalid("exec: nothing was said to start"))?;
    let start = first.start()?;
    let Program { pid, stdin, stdout, stderr } = process::start(&start, &state.environment())?;
    let (tell, ended) = oneshot::channel();
    // Dropped with this future, whoever drops it.
    let (_present, absent) = oneshot::channel();
    tokio::task::spawn_local(accompany(pid, state.ending_of(pid), absent, tell));
    tokio::select! {
        outcome = outputs(stdout, stderr, ended, outgoing) => outcome,
        failure = inputs(frames, stdin, start.tty.is_some()) => Err(failure),
    }
}

/// Stays with a program until it has ended, and ends it when nobody is there any more to see it.
async fn accompany(pid: Pid, mut ending: oneshot::Receiver<Ending>, absent: oneshot::Receiver<()>, tell: oneshot::Sender<Ending>) {
    tokio::select! {
        biased;
        ending = &mut ending => {
            if let Ok(ending) = ending {
                let _ = tell.send(ending);
            }
        }
        _ = absent => {
            process::signal(pid, Signal::HUP);
            if tokio::time::timeout(HANG_UP_GRACE, &mut ending).await.is_err() {
                process::signal(pid, Signal::KILL);
                let _ = ending.await;
            }
        }
    }
}

/// Sends output until the program has ended, and what it left in its pipes.
async fn outputs(
    stdout: Channel,
    stderr: Option<Channel>,
    mut ended: oneshot::Receiver<Ending>,
    outgoing: &mut SendStream<Bytes>,
) -> Result<Ending, Failure> {
    let mut open = [(frame::STDOUT, Some(stdout)), (frame::STDERR, stderr)];
    let (mut one, mut two) = (vec![0u8; PIECE], vec![0u8; PIECE]);
    let ending = loop {
        let [(_, out), (_, err)] = &open;
        let (index, count) = tokio::select! {
            count = read_if(out.as_ref(), &mut one) => (0, count),
            count = read_if(err.as_ref(), &mut two) => (1, count),
            ending = &mut ended => break ending.map_err(|_| Failure::Gone)?,
            _ = body::gone(outgoing) => return Err(Failure::Gone),
        };
        let (kind, channel) = &mut open[index];
        match count {
            Some(count) => body::write(outgoing, frame::encode(*kind, &[&one, &two][index][..count])).await?,
            None => *channel = None,
        }
    };
    for (kind, channel) in &open {
        let Some(channel) = channel else { continue };
        let mut left = LARGEST_PIPE;
        while let Some(count) = process::read_now(channel, &mut one) {
            body::write(outgoing, frame::encode(*kind, &one[..count])).await?;
            left = left.saturating_sub(count);
            // What it started may go on printing for ever.
            if left == 0 {
                break;
            }
        }
    }
    Ok(ending)
}

async fn read_if(channel: Option<&Channel>, buffer: &mut [u8]) -> Option<usize> {
    match channel {
        None => std::future::pending().await,
        Some(channel) => process::read(channel, buffer).await.ok().filter(|&count| count > 0),
    }
}

/// Carries input until the host is gone. The end of input is not the end of the program.
async fn inputs(mut frames: Frames, stdin: Channel, terminal: bool) -> Failure {
    let mut stdin = Some(stdin);
    loop {
        let frame = match frames.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) if terminal => return std::future::pending().await,
            Ok(None) => {
                drop(stdin);
                return std::future::pending().await;
            }
            Err(failure) => return failure,
        };
        match frame.kind {
            // Ctrl-D is how a terminal says so.
            frame::STDIN if frame.payload.is_empty() && terminal => {
                if let Some(channel) = &stdin {
                    let _ = process::write_all(channel, b"\x04").await;
                }
            }
            frame::STDIN if frame.payload.is_empty() => stdin = None,
            frame::STDIN => {
                if let Some(channel) = &stdin {
                    // A program that reads no more is not wrong; what is sent to it is dropped.
                    if process::write_all(channel, &frame.payload).await.is_err() {
                        stdin = None;
                    }
                }
            }
            frame::RESIZE if terminal => match (serde_json::from_slice::<Size>(&frame.payload), &stdin) {
                (Ok(size), Some(channel)) => {
                    let _ = process::resize(channel.get_ref(), size);
                }
                (Ok(_), None) => {}
                (Err(cause), _) => return AgentError::invalid(format!("exec: resize: {cause}")).into(),
            },
            kind => return AgentError::invalid(format!("exec: a frame of kind {kind:#04x} has no place here")).into(),
        }
    }
}
