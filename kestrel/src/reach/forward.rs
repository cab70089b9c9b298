//! `POST /v1/forward`: one TCP connection to a port of this guest.

use crate::error::AgentError;
use crate::link::body;
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A listener whose queue is full does not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
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
            Ok(stream)
        }
    }
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
