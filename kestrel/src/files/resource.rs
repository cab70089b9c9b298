//! The resource itself: between an HTTP/2 stream and a thread that works on files.

use super::pack::Source;
use super::unpack::{Written, write_archive, write_file};
use crate::error::AgentError;
use crate::link::body;
use crate::link::http::{head, send_error};
use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

/// Bytes gathered into one piece.
const PIECE: usize = 64 * 1024;
/// Pieces that wait between thread and stream.
const WAITING: usize = 2;
const ARCHIVE: &str = "application/x-tar";
/// Copies at once: each has a thread, and buffers of its own.
const MOST: usize = 16;
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A place among those copies, held until its thread has ended.
struct Turn;

impl Turn {
    fn take() -> Result<Self, AgentError> {
        // Made first, so that it is given back where there was none.
        let turn = Self;
        if UNDER_WAY.fetch_add(1, Ordering::Relaxed) < MOST {
            return Ok(turn);
        }
        Err(AgentError::new(429, "busy", format!("{MOST} copies are under way in this guest already")))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request names.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    /// For a single file that is sent as its bytes.
    mode: u32,
}

impl Target {
    /// From the query's values, percent-encoded as they came. `mode` is octal.
    pub fn parse(path: Option<&str>, mode: Option<&str>) -> Result<Self, AgentError> {
        let path = path.and_then(percent_decode).filter(|path| path.starts_with(b"/") && !path.contains(&0));
        let path = path.ok_or_else(|| AgentError::invalid("files: path must be an absolute path"))?;
        let mode = u32::from_str_radix(mode.unwrap_or("644"), 8).ok().filter(|&mode| mode <= 0o7777);
        let mode = mode.ok_or_else(|| AgentError::invalid("files: mode must be octal, such as 644"))?;
        Ok(Self { path: OsString::from_vec(path).into(), mode })
    }
}

/// RFC 3986 section 2.1; `None` where it is malformed.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            (digit()? * 16 + digit()?) as u8
        } else {
            byte
        });
    }
    Some(decoded)
}

/// Answers with an archive of what `target` names.
pub async fn send(target: Target, mut respond: SendResponse<Bytes>) {
    let turn = match Turn::take() {
        Ok(turn) => turn,
        Err(error) => return drop(send_error(&mut respond, &error)),
    };
    let (pieces, mut waiting) = mpsc::channel(WAITING);
    let (tell, told) = oneshot::channel();
    let work = spawn_blocking(move || {
        let _turn = turn;
        match Source::open(&target.path) {
            Err(error) => tell.send(Err(error)).is_ok(),
            Ok(source) => tell.send(Ok(())).is_ok() && source.pack(&mut PieceWriter { pieces, held: Vec::new() }).is_ok(),
        }
    });
    if let Err(error) = told.await.unwrap_or_else(|_| Err(AgentError::failed("files", "the reader is gone"))) {
        let _ = send_error(&mut respond, &error);
        return;
    }
    let Ok(mut outgoing) = respond.send_response(head(200, ARCHIVE), false) else { return };
    loop {
        let piece = tokio::select! {
            piece = waiting.recv() => piece,
            _ = body::gone(&mut outgoing) => return,
        };
        let Some(piece) = piece else { break };
        if body::write(&mut outgoing, piece).await.is_err() {
            return;
        }
    }
    match work.await {
        Ok(true) => drop(outgoing.send_data(Bytes::new(), true)),
        _ => outgoing.send_reset(Reason::INTERNAL_ERROR),
    }
}

/// Writes what the request's body holds: an archive, or one file's bytes. A body that breaks off leaves no half file behind.
pub async fn receive(target: Target, content_type: Option<&str>, mut incoming: RecvStream) -> Result<Written, AgentError> {
    let archive = match content_type {
        Some(ARCHIVE) => true,
        Some("application/octet-stream") => false,
        _ => return Err(AgentError::invalid(format!("files: the content type must be {ARCHIVE} or application/octet-stream"))),
    };
    let turn = Turn::take()?;
    let (pieces, waiting) = mpsc::channel(WAITING);
    let mut work = spawn_blocking(move || {
        let _turn = turn;
        let input = PieceReader { waiting, held: Bytes::new(), ended: false };
        if archive { write_archive(input, &target.path) } else { write_file(input, &target.path, target.mode) }
    });
    let feed = async {
        while let Some(piece) = incoming.data().await {
            // Broken off: the thread sees no end.
            let Ok(piece) = piece else { return };
            let count = piece.len();
            if pieces.send(Some(piece)).await.is_err() {
                return;
            }
            let _ = incoming.flow_control().release_capacity(count);
        }
        let _ = pieces.send(None).await;
    };
    let done = tokio::select! {
        done = &mut work => done,
        () = feed => {
            drop(pieces);
            work.await
        }
    };
    done.unwrap_or_else(|cause| Err(AgentError::failed("files", cause)))
}

struct PieceWriter {
    pieces: mpsc::Sender<Bytes>,
    held: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.held);
        if piece.is_empty() {
            return Ok(());
        }
        self.pieces.blocking_send(piece.into()).map_err(|_| ErrorKind::BrokenPipe.into())
    }
}

struct PieceReader {
    /// Pieces, and `None` for the end of the body.
    waiting: mpsc::Receiver<Option<Bytes>>,
    held: Bytes,
    ended: bool,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() && !self.ended {
            match self.waiting.blocking_recv() {
                Some(Some(piece)) => self.held = piece,
                Some(None) => self.ended = true,
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.held.len().min(buffer.len());
        self.held.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_absolute_path_and_an_octal_mode() {
        let target = Target::parse(Some("/a%20b/%ff"), Some("4755")).expect("a target");
        assert_eq!(target, Target { path: OsString::from_vec(b"/a b/\xff".to_vec()).into(), mode: 0o4755 });
        for (path, mode) in [(None, None), (Some("a"), None), (Some("/%0"), None), (Some("/%00"), None), (Some("/a"), Some("9"))] {
            assert!(Target::parse(path, mode).is_err(), "{path:?} {mode:?}");
        }
    }

    #[test]
    fn copies_are_bounded_and_a_place_is_given_back() {
        let turns: Vec<_> = (0..MOST).map(|_| Turn::take().expect("a place")).collect();
        for _ in 0..2 {
            assert_eq!(Turn::take().err().map(|error| error.status), Some(429));
        }
        drop(turns);
        assert!(Turn::take().is_ok());
    }

    #[test]
    fn a_body_that_breaks_off_is_no_end() {
        let (pieces, waiting) = mpsc::channel(4);
        pieces.blocking_send(Some(Bytes::from_static(b"half"))).expect("room");
        drop(pieces);
        let mut text = Vec::new();
        let read = PieceReader { waiting, held: Bytes::new(), ended: false }.read_to_end(&mut text);
        assert_eq!((read.map_err(|cause| cause.kind()), &text[..]), (Err(ErrorKind::UnexpectedEof), &b"half"[..]));
    }
}
