//! `POST /v1/forward`: one TCP connection to a port of this guest.

use crate::error::AgentError;
use crate::link::body;
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A listener whose queue is full does not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection may stand at this end alone: where a listener's queue is full, the kernel can forget a connection whose other end it has told that
/// it stands (SYN cookies and `tcp_synack_retries`, ip-sysctl.rst in the kernel's documentation). What is sent brings it back or gets a reset; who
/// waits for the program's first word would wait for ever. So after this time of silence the kernel asks (`TCP_KEEPIDLE`, tcp(7)): a program
/// that is there answers without knowing of it, and for one that is not there comes a reset.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes read from the connection at a time.
const PIECE: usize = 32 * 1024;

/// Where a forward goes. `own` is the guest's address, where it has one: a host reaches this guest through its agent, and not what lies
/// behind it.
pub fn destination(port: Option<u64>, address: Option<&str>, own: Option<&str>) -> Result<SocketAddr, AgentError> {
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .filter(|&port| port != 0)
        .ok_or_else(|| AgentError::invalid("forward: port must be 1 to 65535"))?;
    let Some(text) = address else { return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)) };
    let ip: IpAddr = text.parse().map_err(|_| AgentError::invalid(format!("forward: {text:?} is no IP address")))?;
    if ip.is_loopback() || own.and_then(|own| own.parse().ok()) == Some(ip) {
        return Ok(SocketAddr::new(ip, port));
    }
    Err(AgentError::invalid(format!("forward: {ip} is not an address of this guest")))
}

/// Connects.
pub async fn connect(to: SocketAddr) -> Result<TcpStream, AgentError> {
    let failed = |code, why: String| AgentError::new(502, code, format!("port {} in the guest: {why}", to.port()));
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await {
        Err(_) => Err(failed("timeout", format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
        Ok(Err(cause)) if cause.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(failed("connection_refused", "nothing listens there".into()))
        }
        Ok(Err(cause)) => Err(failed("connect", cause.to_string())),
        Ok(Ok(stream)) => {
            // What comes has been gathered into pieces already.
            let _ = stream.set_nodelay(true);
            let _ = notice_lost(&stream);
            Ok(stream)
        }
    }
}

/// Has the kernel find out when a silent connection's other end is not there.
fn notice_lost(stream: &TcpStream) -> Result<(), Errno> {
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE)?;
    sockopt::set_socket_keepalive(stream, true)
}

/// Carries bytes both ways until both directions have ended, each by itself, or the host gives the request up.
pub async fn carry(connection: TcpStream, incoming: RecvStream, outgoing: &mut SendStream<Bytes>) {
    let (reader, writer) = connection.into_split();
    if tokio::try_join!(towards_guest(incoming, writer), towards_host(reader, outgoing)).is_err() {
        outgoing.send_reset(Reason::CANCEL);
    }
}

async fn towards_guest(mut incoming: RecvStream, mut writer: OwnedWriteHalf) -> Result<(), h2::Error> {
    while let Some(piece) = incoming.data().await {
        let piece = piece?;
        if writer.write_all(&piece).await.is_err() {
            // It reads no more; what it has still to say is another matter.
            return Ok(());
        }
        let _ = incoming.flow_control().release_capacity(piece.len());
    }
    let _ = writer.shutdown().await;
    Ok(())
}

async fn towards_host(mut reader: OwnedReadHalf, outgoing: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut buffer = BytesMut::with_capacity(PIECE);
    loop {
        buffer.reserve(PIECE);
        let count = tokio::select! {
            count = reader.read_buf(&mut buffer) => count,
            _ = body::gone(outgoing) => return Err(Reason::CANCEL.into()),
        };
        match count {
            Ok(0) => return outgoing.send_data(Bytes::new(), true),
            Ok(_) => body::write(outgoing, buffer.split().freeze()).await?,
            // The program in the guest broke it off, which is not how a connection ends.
            Err(_) => return Err(Reason::CANCEL.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    /// A listener that hears who wants to connect, and nothing more: whoever does believes that the connection stands.
    fn listen_deaf_to_acknowledgements() -> std::net::TcpListener {
        // The program sees segments from their TCP header on: let those with SYN pass (byte 13, RFC 9293), drop all others.
        let program = [
            libc::sock_filter { code: (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 13 },
            libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, jt: 0, jf: 1, k: 0x02 },
            libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: u32::MAX },
            libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 },
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: `program` and what it points to outlive the call, which copies both.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        listener
    }

    #[test]
    fn a_connection_that_stands_at_this_end_alone_is_broken_off_although_nobody_sends_anything() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = listen_deaf_to_acknowledgements();
            let mut lost = connect(listener.local_addr().unwrap()).await.unwrap();
            // The kernel forgets who had half connected, and tells nobody.
            drop(listener);
            assert_eq!(sockopt::tcp_keepidle(&lost).unwrap(), SILENCE);
            // The same, sooner.
            sockopt::set_tcp_keepidle(&lost, Duration::from_secs(1)).unwrap();
            let end = tokio::time::timeout(Duration::from_secs(60), lost.read(&mut [0])).await;
            let error = end.expect("the connection still stands after a minute").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn a_forward_goes_to_this_guest_and_nowhere_else() {
        let text = |to: Result<SocketAddr, AgentError>| to.map(|to| to.to_string()).map_err(|error| error.code);
        assert_eq!(text(destination(Some(80), None, None)), Ok("127.0.0.1:80".into()));
        assert_eq!(text(destination(Some(80), Some("::1"), None)), Ok("[::1]:80".into()));
        assert_eq!(text(destination(Some(80), Some("10.0.0.2"), Some("10.0.0.2"))), Ok("10.0.0.2:80".into()));
        for (port, address) in [(None, None), (Some(0), None), (Some(65_536), None), (Some(80), Some("10.0.0.3")), (Some(80), Some("x"))] {
            assert_eq!(text(destination(port, address, Some("10.0.0.2"))), Err("invalid"), "{port:?} {address:?}");
        }
    }
}
