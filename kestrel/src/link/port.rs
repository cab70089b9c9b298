//! A virtio-serial port as an asynchronous byte stream.
//!
//! Three habits of the kernel's driver (drivers/char/virtio_console.c) shape this file. While no host is connected, a port reports
//! hang-up for as long as that lasts and reads return end-of-file; both end again when a host comes. tokio takes a hang-up for
//! final, so the port sits in an edge-triggered epoll set of its own, and tokio watches that set, whose readiness is ordinary.
//!
//! And whoever asks a port whether it is ready, for whichever direction, takes what the host has used of both its queues; the interrupt
//! that comes for that afterwards finds nothing new, and wakes nobody. A set of its own for each direction would miss what the other's
//! look has found, until the host happens to send more: so both are in one set, and each look at it counts for both.

use crate::readiness;
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Name of the port that carries control lines.
pub const CONTROL: &str = "volant.control";
/// Name of the port that carries HTTP/2.
pub const STREAM: &str = "volant.stream";

const CLASS: &str = "/sys/class/virtio-ports";

/// The device node of the port with this name, once the host has announced it.
pub fn find(name: &str) -> Option<String> {
    std::fs::read_dir(CLASS).ok()?.flatten().find_map(|entry| {
        let found = std::fs::read_to_string(entry.path().join("name")).ok()?;
        (found.trim_end() == name).then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
    })
}

/// An open port. The kernel lets a port be open once only.
pub struct Port {
    fd: OwnedFd,
    edges: Edges,
    end_of_file_ends: bool,
}

impl Port {
    /// Opens the port at this device node.
    pub fn open(node: &str) -> io::Result<Self> {
        let fd = rustix::fs::open(node, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
        Self::of(fd)
    }

    fn of(fd: OwnedFd) -> io::Result<Self> {
        let edges = Edges::of(&fd)?;
        Ok(Self { fd, edges, end_of_file_ends: false })
    }

    /// From now on a host that lets go ends the stream. Before, reads wait for a host to come.
    pub fn end_with_host(&mut self) {
        self.end_of_file_ends = true;
    }
}

#[derive(Clone, Copy)]
enum Direction {
    In,
    Out,
}

/// The changes of a port, of both directions at once.
struct Edges {
    set: AsyncFd<OwnedFd>,
    waiting: Arc<Waiting>,
    /// Wakes all that wait.
    all: Waker,
}

impl Edges {
    fn of(fd: &OwnedFd) -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&set, fd, epoll::EventData::new_u64(0), flags)?;
        let waiting = Arc::new(Waiting::default());
        Ok(Self { set: readiness::watch(set)?, all: Waker::from(Arc::clone(&waiting)), waiting })
    }

    /// Waits for the next one, which may be the other direction's: whoever is told looks for itself.
    fn poll_next(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting.put(direction, cx.waker());
        let mut guard = ready!(self.set.poll_read_ready(&mut Context::from_waker(&self.all)))?;
        guard.clear_ready();
        let mut events = [std::mem::MaybeUninit::<epoll::Event>::uninit(); 1];
        epoll::wait(self.set.get_ref().as_fd(), &mut events, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Poll::Ready(Ok(()))
    }
}

/// The task that waits for each direction.
#[derive(Default)]
struct Waiting {
    tasks: Mutex<[Option<Waker>; 2]>,
}

impl Waiting {
    fn put(&self, direction: Direction, waker: &Waker) {
        self.lock()[direction as usize] = Some(waker.clone());
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Waker>; 2]> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let tasks = std::mem::take(&mut *self.lock());
        tasks.into_iter().flatten().for_each(Waker::wake);
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match rustix::io::read(&this.fd, buf.initialize_unfilled()) {
                Ok(0) if this.end_of_file_ends => return Poll::Ready(Ok(())),
                Ok(0) | Err(Errno::AGAIN) => ready!(this.edges.poll_next(Direction::In, cx))?,
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match rustix::io::write(&self.fd, bytes) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => ready!(self.edges.poll_next(Direction::Out, cx))?,
                Err(Errno::INTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn pair() -> (Port, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("non-blocking");
        (Port::of(ours.into()).expect("a port"), theirs)
    }

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, work).await.expect("in time")
    }

    #[tokio::test]
    async fn a_task_that_reads_and_one_that_writes_both_go_on_when_the_host_does() {
        use std::io::{Read, Write};
        const BYTES: usize = 4 * 1024 * 1024;
        let (port, mut host) = pair();
        let mut back = host.try_clone().expect("a clone");
        // Each more than the kernel keeps: both directions have to wait, again and again.
        let sender = std::thread::spawn(move || host.write_all(&vec![1; BYTES]).expect("sent"));
        let receiver = std::thread::spawn(move || {
            let mut bytes = vec![0; BYTES];
            back.read_exact(&mut bytes).expect("received");
            bytes.iter().all(|byte| *byte == 2)
        });
        let (mut input, mut output) = tokio::io::split(port);
        let writing = tokio::spawn(async move { output.write_all(&vec![2; BYTES]).await.map(|()| output) });
        let mut bytes = vec![0; BYTES];
        soon(input.read_exact(&mut bytes)).await.expect("read");
        assert!(bytes.iter().all(|byte| *byte == 1));
        // Kept, since the end of both would end the other side's reading.
        let _output = soon(writing).await.expect("ended").expect("written");
        sender.join().expect("sender");
        assert!(receiver.join().expect("receiver"));
    }

    #[tokio::test]
    async fn a_change_is_told_to_both_directions_whichever_waited_last() {
        let (port, mut host) = pair();
        let woken = [(Direction::In, Arc::new(Counted::default())), (Direction::Out, Arc::new(Counted::default()))];
        // How it is at the beginning counts as a change.
        soon(std::future::poll_fn(|cx| port.edges.poll_next(Direction::In, cx))).await.expect("a change");
        for (direction, times) in &woken {
            let waker = Waker::from(Arc::clone(times));
            assert!(port.edges.poll_next(*direction, &mut Context::from_waker(&waker)).is_pending());
        }
        std::io::Write::write_all(&mut host, b"x").expect("sent");
        let told = async {
            while woken.iter().any(|(_, times)| times.count() == 0) {
                // tokio looks for what has become ready meanwhile.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon(told).await;
        assert!(woken.iter().all(|(_, times)| times.count() == 1));
    }

    #[derive(Default)]
    struct Counted(std::sync::atomic::AtomicUsize);

    impl Counted {
        fn count(&self) -> usize {
            self.0.load(std::sync::atomic::Ordering::SeqCst)
        }
    }

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
}
